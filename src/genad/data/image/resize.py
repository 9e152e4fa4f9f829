"""The working size of a collection, and the resizing to it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from genad.errors import InputError
from genad.extras import require

__all__ = ["LONGEST", "resized", "working_size"]

#: Longer side of the working size when none is given, in pixels.
LONGEST = 256


def working_size(sizes: np.ndarray[Any, Any], size: Any = None) -> tuple[int, int]:
    """Choose the size all images of a collection are brought to.

    Parameters
    ----------
    sizes : ndarray of int, shape (n, 2)
        Height and width of each image.
    size : int, (height, width), or None
        A whole number gives squares. None takes the size that at least half of the images share, otherwise the median
        height and width; either is scaled down, its aspect kept, so that the longer side has at most 256 pixels.

    Returns
    -------
    tuple of int
        Height and width.

    Raises
    ------
    InputError
        A size that is not one or two whole numbers of at least 1.

    Examples
    --------
    >>> working_size(np.array([[500, 1000], [500, 1000], [40, 40]]))
    (128, 256)
    >>> working_size(np.array([[28, 28]]), 64)
    (64, 64)
    """
    if size is not None:
        pair = (size, size) if isinstance(size, int | np.integer) else size
        if (
            not isinstance(pair, tuple | list)
            or len(pair) != 2
            or any(not isinstance(v, int | np.integer) or isinstance(v, bool) or v < 1 for v in pair)
        ):
            raise InputError(f"size: {size!r} was given; use a whole number of pixels, (height, width), or None.")
        return int(pair[0]), int(pair[1])
    (common, count), *_ = Counter(map(tuple, sizes.tolist())).most_common(1)
    height, width = common if 2 * count >= len(sizes) else np.median(sizes, axis=0)
    shrink = min(1.0, LONGEST / max(height, width))
    return max(1, round(float(height * shrink))), max(1, round(float(width * shrink)))


def resized(pixels: np.ndarray[Any, Any], size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Bring an image to a size: mean over the area where it shrinks, bilinear where a side grows.

    Parameters
    ----------
    pixels : ndarray of shape (H, W, C)
        uint8, uint16 or float32.
    size : (int, int)
        Height and width.

    Returns
    -------
    ndarray of shape (height, width, C)
        The same type; whole numbers are rounded.

    Examples
    --------
    >>> resized(np.array([[[0], [100]], [[0], [100]]], np.uint8), (1, 2)).ravel().tolist()
    [0, 100]
    >>> resized(np.array([[[0], [100]], [[0], [100]]], np.uint16), (1, 1)).ravel().tolist()
    [50]
    """
    height, width, channels = pixels.shape
    if (height, width) == size:
        return pixels
    image = require("PIL.Image", "image")
    shrinks = size[0] <= height and size[1] <= width
    method = image.Resampling.BOX if shrinks else image.Resampling.BILINEAR
    if pixels.dtype == np.uint8 and channels == 3:
        return np.asarray(image.fromarray(np.ascontiguousarray(pixels)).resize(size[::-1], method))
    # Pillow resizes one channel of 8 bits or of floats; 16 bits are exact in floats.
    exact = pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32)
    planes = [image.fromarray(np.ascontiguousarray(exact[..., c])).resize(size[::-1], method) for c in range(channels)]
    stacked = np.stack([np.asarray(plane) for plane in planes], axis=-1)
    return np.rint(stacked).astype(np.uint16) if pixels.dtype == np.uint16 else stacked
