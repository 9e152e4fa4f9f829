"""Room for pixels: in memory while they fit the budget, otherwise in a temporary file that vanishes with the array."""

from __future__ import annotations

import math
import os
import tempfile
from typing import Any

import numpy as np

from genad.errors import GenadError

__all__ = ["MEMORY", "allocate", "gather"]

#: Bytes of pixels that a collection keeps in memory, 1 GB.
MEMORY = 1 << 30
_CHUNK = 1 << 26


def allocate(shape: tuple[int, ...], dtype: Any, memory: int = MEMORY) -> np.ndarray[Any, Any]:
    """Return an uninitialised array that lies in memory, or on disk when it is larger than ``memory`` bytes.

    Parameters
    ----------
    shape : tuple of int
    dtype : numpy type
    memory : int, default 1 GB
        Budget in bytes.

    Returns
    -------
    ndarray or numpy.memmap
        The file behind a memmap has no name of its own, or is deleted by the system when the last view is gone. It lies
        where Python keeps temporary files (``TMPDIR``).

    Raises
    ------
    GenadError
        The disk has no room for it.

    Examples
    --------
    >>> type(allocate((2, 3), np.uint8)).__name__, type(allocate((2, 3), np.uint8, memory=5)).__name__
    ('ndarray', 'memmap')
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= memory:
        return np.empty(shape, dtype)
    try:
        with tempfile.TemporaryFile(prefix="genad-pixels-") as file:
            if hasattr(os, "posix_fallocate"):
                # A file with holes on a full disk would kill the process at the first write into the mapping.
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype=dtype, mode="r+" if hasattr(os, "posix_fallocate") else "w+", shape=shape)
    except OSError as error:
        raise GenadError(
            f"{size / 1e9:.1f} GB of pixels fit neither the memory budget ({memory / 1e9:.1f} GB) nor "
            f"{tempfile.gettempdir()} ({error.strerror}): pass a smaller size=, a larger memory=, or set TMPDIR to a "
            "folder with room."
        ) from error


def gather(pixels: np.ndarray[Any, Any], indices: np.ndarray[Any, Any], memory: int = MEMORY) -> np.ndarray[Any, Any]:
    """Return some images: a view of a run of neighbours, otherwise a copy within the same budget.

    Parameters
    ----------
    pixels : ndarray of shape (n, ...)
    indices : ndarray of int, shape (m,)
    memory : int
        Budget of a copy in bytes.

    Returns
    -------
    ndarray of shape (m, ...)

    Examples
    --------
    >>> x = np.arange(5)
    >>> gather(x, np.array([1, 2, 3])).base is x, gather(x, np.array([3, 1])).tolist()
    (True, [3, 1])
    """
    if len(indices) and np.array_equal(indices, np.arange(indices[0], indices[0] + len(indices))):
        return pixels[indices[0] : indices[0] + len(indices)]
    found = allocate((len(indices), *pixels.shape[1:]), pixels.dtype, memory)
    step = max(1, _CHUNK // max(1, pixels[:1].nbytes))
    for start in range(0, len(indices), step):
        found[start : start + step] = pixels[indices[start : start + step]]
    return found
