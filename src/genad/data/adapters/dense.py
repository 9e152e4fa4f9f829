"""Adapter of dense arrays: windows, images and clips, standardised by channel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from genad.data.adapters.base import Adapter, Array, Loaded
from genad.data.kinds import KINDS, Kind
from genad.data.samples import ArraySamples
from genad.errors import InputError

#: Standardised values are held within this, so that their squares stay finite in float32.
EXTREME = 1e15


def value_range(low: float, high: float) -> tuple[float, float]:
    """Return the range that pixel values are meant to span, from the lowest and the highest one found.

    Examples
    --------
    >>> value_range(0.1, 0.9), value_range(3.0, 200.0), value_range(-5.0, 7.0)
    ((0.0, 1.0), (0.0, 255.0), (-5.0, 7.0))
    """
    for top in (1.0, 255.0):
        if low >= 0.0 and high <= top:
            return 0.0, top
    return (low, high) if high > low else (low, low + 1.0)


@dataclass
class DenseAdapter(Adapter):
    """Dense arrays of rank 3 to 5: windows, images and clips, standardised by channel.

    Attributes
    ----------
    kind : Kind
        Window, image or video.
    shape : tuple of int
        Shape of one sample.
    mean, scale : list of float
        By channel, in the user's units.
    low, high : float
        Range of the values, in the user's units: 0 to 1 or 0 to 255 when they all lie within, else what was found.
    """

    kind: Kind = Kind.IMAGE
    shape: tuple[int, ...] = ()
    mean: list[float] = field(default_factory=list)
    scale: list[float] = field(default_factory=list)
    low: float = 0.0
    high: float = 1.0

    @property
    def names(self) -> list[str]:
        """Names of the channels."""
        return [f"channel {c}" for c in range(len(self.mean))]

    def _along(self, values: list[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        shape = [1] * (len(self.shape) + 1)
        shape[1 + KINDS[self.kind].channel_axis] = -1
        return np.asarray(values, np.float64).reshape(shape)

    def fit(self, X: Any) -> Loaded:
        """Learn mean and scale of each channel."""
        self.shape = tuple(X.shape[1:])
        axis = 1 + KINDS[self.kind].channel_axis
        others = tuple(i for i in range(X.ndim) if i != axis)
        self.mean = list(np.nanmean(X, axis=others, dtype=np.float64))
        scale = np.nanstd(X, axis=others, dtype=np.float64)
        scale[~(scale > 1e-6 * np.maximum(1.0, np.abs(self.mean)))] = 1.0
        self.scale = [float(value) for value in scale]
        self.low, self.high = value_range(float(np.nanmin(X)), float(np.nanmax(X)))
        return self.transform(X)

    def pixel_scale(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (scale, shift) by channel: ``z * scale + shift`` is a standardised value within 0 to 1."""
        span = self.high - self.low
        return np.asarray(self.scale) / span, (np.asarray(self.mean) - self.low) / span

    def transform(self, X: Any) -> Loaded:
        """Standardise arrays of the fitted shape."""
        if tuple(X.shape[1:]) != self.shape:
            raise InputError(
                f"X: samples of shape {tuple(X.shape[1:])} were given; the detector was fitted on {self.shape}."
            )
        z = ((X - self._along(self.mean)) / self._along(self.scale)).astype(np.float32)
        np.clip(z, -EXTREME, EXTREME, out=z)
        missing = np.isnan(z)
        mask = None
        if missing.any():
            z[missing] = 0.0
            mask = torch.from_numpy(~missing)
        return Loaded(ArraySamples(torch.from_numpy(z), mask), X, X)

    def native(self, values: Array, loaded: Loaded, mask: Any = None) -> Any:
        """Return arrays in the user's units and floating type."""
        kept = loaded.original.dtype if loaded.original.dtype.kind == "f" else np.float64
        units = self.columns(values).astype(kept)
        if mask is None:
            return units
        return np.where(self.hidden(mask, loaded).numpy(), units, loaded.source)

    def hidden(self, mask: Any, loaded: Loaded) -> torch.Tensor:
        """Return the mask in the samples' shape; one of images may leave the channels out."""
        found = np.asarray(mask)
        shape = (len(loaded.source), *self.shape)
        if self.kind is Kind.IMAGE and found.ndim == 3:
            found = found[:, None]
        fits = found.ndim == len(shape) and all(a in (1, b) for a, b in zip(found.shape[1:], shape[1:], strict=True))
        if found.dtype != np.bool_ or not fits or len(found) != shape[0]:
            raise InputError(
                f"mask: an array of {found.dtype} and shape {np.asarray(mask).shape} was given; use one of bool and "
                f"shape {shape}" + (f" or {(shape[0], *shape[2:])}." if self.kind is Kind.IMAGE else ".")
            )
        return torch.from_numpy(np.broadcast_to(found, shape).copy())

    def columns(self, values: Array) -> Array:
        """Return arrays in the user's units."""
        return values * self._along(self.scale) + self._along(self.mean)

    def observed(self, loaded: Loaded) -> Array:
        """Return the arrays as they came."""
        return np.asarray(loaded.source)

    def half_widths(self, bounds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return one half-width a channel."""
        return bounds * np.asarray(self.scale)

    def state(self) -> dict[str, Any]:
        """Return the fitted state as plain JSON values."""
        return {
            "kind": self.kind.value,
            "shape": list(self.shape),
            "mean": self.mean,
            "scale": self.scale,
            "range": [self.low, self.high],
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Make a fitted adapter again."""
        low, high = state["range"]
        return cls(Kind(state["kind"]), tuple(state["shape"]), state["mean"], state["scale"], low, high)
