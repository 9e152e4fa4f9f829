"""Traits: a few numbers a unit that say where its score comes from, read off the anomaly map."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Most traits of a unit.
MOST = 32


def map_traits(maps: NDArray[Any]) -> NDArray[np.float64]:
    """Pool anomaly maps into at most 32 numbers a unit.

    Parameters
    ----------
    maps : array of shape (n, features), (n, steps, channels), (n, channels, rows, columns) or
        (n, frames, channels, rows, columns)
        As :meth:`~genad.Detector.anomaly_map` returns them, or by channel.

    Returns
    -------
    float64 array of shape (n, k)
        Sums of the map over groups of features; over a grid of up to 4 stretches and 8 groups of channels; over a
        grid of up to 5 x 5 places of an image, or 2 x 4 x 4 of a clip. Not finite values count as 0.

    Examples
    --------
    >>> import numpy as np
    >>> map_traits(np.array([[0.0, 1.0, 4.0]])).tolist()
    [[0.0, 1.0, 4.0]]
    >>> map_traits(np.ones((2, 1, 10, 10))).shape
    (2, 25)
    """
    values = np.nan_to_num(np.asarray(maps, np.float64), posinf=0.0, neginf=0.0)
    if values.ndim == 4:
        values = values.sum(axis=1)
        limits: tuple[int, ...] = (5, 5)
    elif values.ndim == 5:
        values = values.sum(axis=2)
        limits = (2, 4, 4)
    else:
        limits = {1: (), 2: (MOST,), 3: (4, 8)}[values.ndim]
    for axis, most in enumerate(limits, start=1):
        size = values.shape[axis]
        if size > most:
            values = np.add.reduceat(values, np.arange(most) * size // most, axis=axis)
    return values.reshape(len(values), -1)
