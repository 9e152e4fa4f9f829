"""Images that come as arrays or tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from genad.data.image.decode import Frame, Header, without_copies
from genad.errors import InputError, InputTypeError

__all__ = ["ArraySource", "split_arrays"]


@dataclass(frozen=True, eq=False)
class ArraySource:
    """An image that came as an array; it is held as it was given, not copied."""

    name: str
    pixels: np.ndarray[Any, Any]

    def headers(self) -> list[Header]:
        """Return its size and depth."""
        height, width, channels = self.pixels.shape
        return [Header(height, width, channels, _array_depth(self.pixels.dtype))]

    def frames(self) -> Iterator[Frame]:
        """Yield the one image."""
        yield Frame(0, self.name, None, self.frame(0))

    def frame(self, index: int) -> np.ndarray[Any, Any]:  # noqa: ARG002  the index of the one image
        """Return it as uint8, uint16 or float32."""
        pixels = self.pixels
        if pixels.dtype.kind == "b":
            return without_copies(pixels.astype(np.uint8) * np.uint8(255))
        pixels = np.ascontiguousarray(pixels, dtype=_array_depth(pixels.dtype))
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise InputError(f"{self.name} holds NaN or infinite values: replace them before passing images.")
        return without_copies(pixels)


def split_arrays(arrays: Any) -> list[np.ndarray[Any, Any]]:
    """Return one (H, W, C) array per image.

    Parameters
    ----------
    arrays : array, tensor, or list of them
        As `Images.from_arrays` takes them.

    Returns
    -------
    list of ndarray
        Views where possible.

    Raises
    ------
    InputError
        No image, one without pixels, or a wrong rank.
    InputTypeError
        Values that are no numbers.

    Examples
    --------
    >>> [image.shape for image in split_arrays(np.zeros((2, 3, 8, 6)))]
    [(8, 6, 3), (8, 6, 3)]
    """
    if isinstance(arrays, list | tuple):
        items = [_upright(_array(item), _is_tensor(item), 2, f"image {i}") for i, item in enumerate(arrays)]
    else:
        items = list(_upright(_array(arrays), _is_tensor(arrays), 3, "X"))
    if not items:
        raise InputError("X: no image was given; give at least one.")
    for i, item in enumerate(items):
        if 0 in item.shape:
            raise InputError(f"X: image {i} has shape {item.shape[:2]}; it has no pixels: leave it out.")
    return items


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "detach")


def _array(value: Any) -> np.ndarray[Any, Any]:
    array = value.detach().cpu().numpy() if _is_tensor(value) else np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise InputTypeError(f"X: values of type {array.dtype} were given; images are arrays or tensors of numbers.")
    return array


def _upright(array: np.ndarray[Any, Any], tensor: bool, rank: int, what: str) -> np.ndarray[Any, Any]:
    """Return the array with its channels as the last axis; ``rank`` is that of grey images."""
    if array.ndim == rank:
        return array[..., None]
    if array.ndim != rank + 1:
        many = "(n, H, W), (n, H, W, C) or (n, C, H, W)" if rank == 3 else "(H, W), (H, W, C) or (C, H, W)"
        raise InputError(f"{what} has shape {array.shape}; accepted are {many}.")
    last, first = array.shape[-1] <= 4, array.shape[-3] <= 4
    return np.moveaxis(array, -3, -1) if (tensor if last == first else first) else array


def _array_depth(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    return dtype if dtype in (np.uint8, np.uint16) else np.dtype(np.float32)
