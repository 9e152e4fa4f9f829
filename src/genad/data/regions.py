"""Connected anomalous regions of a map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from genad.errors import InputError

__all__ = ["Region", "regions"]

_TOUCHING = np.ones((3, 3), np.int8)


@dataclass(frozen=True, slots=True)
class Region:
    """A connected set of pixels above a threshold.

    Attributes
    ----------
    area : int
        Pixels.
    score : float
        Largest value of the map in it.
    mean : float
        Mean value of the map in it.
    box : tuple of int
        Top, left, bottom and right; bottom and right are the first row and column outside.
    centroid : tuple of float
        Mean row and column of its pixels.
    """

    area: int
    score: float
    mean: float
    box: tuple[int, int, int, int]
    centroid: tuple[float, float]


def regions(map: Any, threshold: float, min_area: int = 1) -> list[Region]:  # noqa: A002  the field's word
    """Find the connected regions of a map above a threshold.

    Pixels that touch by a side or a corner belong together.

    Parameters
    ----------
    map : array of shape (H, W)
        Higher is more anomalous. NaN belongs to no region.
    threshold : float
        Pixels above it count, those equal to it do not.
    min_area : int, default 1
        Smaller regions, in pixels, are left out.

    Returns
    -------
    list of Region
        The highest score first; at equal scores the larger, then the upper left one.

    Raises
    ------
    InputError
        A map that has not two axes, a threshold that is NaN, or a ``min_area`` below 1.

    Examples
    --------
    >>> found = regions([[0, 5, 0, 0], [0, 0, 3, 0], [9, 0, 0, 0]], threshold=2)
    >>> [(region.area, region.score, region.box) for region in found]
    [(1, 9.0, (2, 0, 3, 1)), (2, 5.0, (0, 1, 2, 3))]
    >>> found[1].centroid
    (0.5, 1.5)
    """
    values = np.asarray(map)
    if values.ndim != 2 or values.dtype.kind not in "biuf":
        raise InputError(
            f"map: {values.dtype} values of shape {values.shape} were given; use numbers of shape (rows, columns)."
        )
    if np.isnan(threshold):
        raise InputError("threshold: NaN was given; use a number.")
    if isinstance(min_area, bool) or not isinstance(min_area, int | np.integer) or min_area < 1:
        raise InputError(f"min_area: {min_area!r} was given; use a whole number of at least 1.")
    inside = values > threshold
    labels, count = ndimage.label(inside, structure=_TOUCHING)
    if count == 0:
        return []
    rows, columns = np.nonzero(inside)  # in order of rows, so the first of each region is its upper left pixel
    which = labels[rows, columns] - 1
    seen = values[rows, columns].astype(np.float64)
    area = np.bincount(which, minlength=count)
    score = np.full(count, -np.inf)
    np.maximum.at(score, which, seen)
    # A maximum and a mean taken apart may differ by rounding; a mean is never above its maximum.
    mean = np.minimum(np.bincount(which, seen, count) / area, score)
    row = np.bincount(which, rows, count) / area
    column = np.bincount(which, columns, count) / area
    found = [
        Region(
            int(area[i]),
            float(score[i]),
            float(mean[i]),
            (box[0].start, box[1].start, box[0].stop, box[1].stop),
            (float(row[i]), float(column[i])),
        )
        for i, box in enumerate(ndimage.find_objects(labels))
        if area[i] >= min_area
    ]
    return sorted(found, key=lambda region: (-region.score, -region.area, region.box))
