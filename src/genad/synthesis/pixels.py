"""Between the user's pixels and the unit interval in which every synthesizer works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genad.errors import InputError

#: Half a level of an 8-bit picture: a smaller change cannot be seen, nor kept when the picture is saved.
VISIBLE = 0.5 / 255


@dataclass(frozen=True)
class PixelRange:
    """The type and the range of the user's pixels.

    Attributes
    ----------
    dtype : numpy.dtype
        Type of the pixels.
    low, high : float64 array of shape (C,)
        The values of each channel that stand for 0 and 1.
    """

    dtype: np.dtype[Any]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def to_unit(self, values: NDArray[Any]) -> Tensor:
        """Return a fresh float32 tensor in 0..1 of pixels (n, C, H, W)."""
        low = self.low.astype(np.float32)[:, None, None]
        span = (self.high - self.low).astype(np.float32)[:, None, None]
        return torch.from_numpy((values.astype(np.float32) - low) / span)

    def from_unit(self, values: Tensor) -> NDArray[Any]:
        """Return pixels of the user's type of a tensor (n, C, H, W) in 0..1."""
        low, span = self.low[:, None, None], (self.high - self.low)[:, None, None]
        pixels = values.cpu().numpy().astype(np.float64) * span + low
        return (np.rint(pixels) if self.dtype.kind == "u" else pixels).astype(self.dtype)

    @property
    def tolerance(self) -> float:
        """Smallest change in 0..1 that counts: half a level of 8 bits, or of the user's type when that is coarser."""
        if self.dtype.kind != "u":
            return VISIBLE
        return max(VISIBLE, 0.5 / float((self.high - self.low).min())) * 1.001


def read_pixels(X: Any, argument: str) -> tuple[NDArray[Any], PixelRange]:
    """Check images and find the range of their pixels.

    Parameters
    ----------
    X : array of shape (n, C, H, W), or an object with ``pixels`` of that shape
        uint8, uint16, or floats in 0..1; an object may also have ``low`` and ``high``, numbers or one per channel,
        which are then the range.
    argument : str
        What the caller calls ``X``.

    Returns
    -------
    tuple of (array, PixelRange)
        The pixels as they are, without a copy where possible.

    Raises
    ------
    InputError
        For another shape, another type, no image, or values that are missing or out of range.

    Examples
    --------
    >>> pixels, limits = read_pixels(np.full((2, 1, 4, 4), 51, np.uint8), "X")
    >>> round(float(limits.to_unit(pixels)[0, 0, 0, 0]), 3)
    0.2
    """
    values = np.asarray(getattr(X, "pixels", X))
    if values.ndim != 4 or 0 in values.shape:
        raise InputError(
            f"{argument}: an array of shape {values.shape} was given; use images of shape (n, C, H, W), at least "
            "one of at least one pixel, for instance grey[:, None] or colour.transpose(0, 3, 1, 2)."
        )
    low, high = getattr(X, "low", None), getattr(X, "high", None)
    integers = values.dtype in (np.uint8, np.uint16)
    if not integers and values.dtype.kind != "f":
        raise InputError(f"{argument}: pixels of type {values.dtype} were given; use uint8, uint16, or floats in 0..1.")
    if not integers and not np.isfinite(values).all():
        raise InputError(f"{argument}: there are missing or infinite pixels; fill them or leave these images out.")
    if low is None or high is None:
        low, high = 0.0, float(np.iinfo(values.dtype).max) if integers else 1.0
        if not integers and (values.min() < 0.0 or values.max() > 1.0):
            raise InputError(
                f"{argument}: floats from {values.min():.4g} to {values.max():.4g} were given; scale them to 0..1."
            )
    channels = values.shape[1]
    limits = PixelRange(
        values.dtype,
        np.broadcast_to(np.asarray(low, np.float64), (channels,)).copy(),
        np.broadcast_to(np.asarray(high, np.float64), (channels,)).copy(),
    )
    if not (limits.high > limits.low).all():
        raise InputError(f"{argument}: its range has low {low!r} and high {high!r}; high must be above low.")
    return values, limits


def read_masks(masks: Any, shape: tuple[int, ...]) -> Tensor:
    """Check the masks of images of a shape (n, C, H, W) and return them as bool of shape (n, 1, H, W).

    Raises
    ------
    InputError
        For another shape, or a mask that marks nothing.
    """
    values = np.asarray(masks)
    n, _, height, width = shape
    if values.shape not in ((n, height, width), (n, 1, height, width)):
        raise InputError(
            f"masks: an array of shape {values.shape} was given for anomalous images of shape {shape}; "
            f"use ({n}, {height}, {width})."
        )
    marked = torch.from_numpy(values.reshape(n, 1, height, width) > 0)
    empty = (~marked.flatten(1).any(1)).nonzero().flatten().tolist()
    if empty:
        raise InputError(f"masks: those at {empty[:10]} mark no pixel; leave these images out.")
    return marked
