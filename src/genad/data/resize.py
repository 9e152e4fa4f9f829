"""Bring maps and images to another size."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional


def resize_planes(planes: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize arrays (n, rows, columns): averaged where they shrink, bilinear where they grow.

    Parameters
    ----------
    planes : array of shape (n, rows, columns)
    size : tuple of int
        Rows and columns wanted.

    Returns
    -------
    float32 array of shape (n, *size)

    Examples
    --------
    >>> import numpy as np
    >>> resize_planes(np.array([[[0.0, 4.0], [8.0, 12.0]]]), (1, 2))
    array([[[4., 8.]]], dtype=float32)
    """
    values = np.ascontiguousarray(planes, dtype=np.float32)
    if values.shape[1:] == tuple(size):
        return values
    tensor = torch.from_numpy(values)[None]
    grown = functional.interpolate(tensor, size=tuple(size), mode="bilinear", antialias=True, align_corners=False)
    return grown[0].numpy()


def resize_map(values: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize one map (rows, columns); see :func:`resize_planes`."""
    return resize_planes(values[None], size)[0]
