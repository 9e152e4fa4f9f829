"""Segments of series as examples for a prompt: kept in a bank, and found again by dynamic time warping."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Segments are compared at this many points, whatever their length, within a band of so many around the diagonal.
_POINTS, _BAND = 64, 8


def labelled_runs(flags: NDArray[np.bool_], padding: int, most: int) -> list[tuple[int, int]]:
    """Return the runs of flagged steps with ``padding`` steps on both sides, cut to at most ``most`` steps.

    Examples
    --------
    >>> labelled_runs(np.isin(np.arange(30), [4, 5, 20]), 3, 6)
    [(1, 7), (17, 23)]
    """
    changes = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    found = []
    for start, stop in changes.reshape(-1, 2).tolist():
        first = max(0, start - padding)
        found.append((first, min(len(flags), stop + padding, first + most)))
    return found


def normal_segments(tracks: Sequence[Floats], length: int, most: int) -> Floats:
    """Cut tracks into segments of equal length that do not overlap.

    Parameters
    ----------
    tracks : sequence of ndarray of shape (m,)
    length : int
        Halved until some track is as long.
    most : int
        Of more, so many evenly spread ones are kept.

    Returns
    -------
    ndarray of shape (k, length)

    Examples
    --------
    >>> normal_segments([np.arange(5.0), np.arange(3.0)], 8, 10).tolist()
    [[0.0, 1.0, 2.0, 3.0]]
    """
    longest = max(len(track) for track in tracks)
    while length > longest:
        length = max(1, length // 2)
    found = np.stack([
        track[start : start + length]
        for track in tracks
        for start in range(0, len(track) - length + 1, length)
    ])  # fmt: skip
    return found[np.unique(np.linspace(0, len(found) - 1, most).astype(int))]


def as_bank(segments: Sequence[Floats]) -> Floats:
    """Return segments of different lengths as rows of one array, NaN after their ends.

    Examples
    --------
    >>> as_bank([np.array([1.0, 2.0]), np.array([3.0])]).tolist()
    [[1.0, 2.0], [3.0, nan]]
    """
    bank = np.full((len(segments), max(map(len, segments), default=0)), np.nan)
    for row, segment in zip(bank, segments, strict=True):
        row[: len(segment)] = segment
    return bank


def from_bank(row: Floats) -> Floats:
    """Return a segment of a bank without what fills it up."""
    return row[~np.isnan(row)]


def resampled(values: Floats, points: int = _POINTS) -> Floats:
    """Return values at evenly spaced points between the first and the last."""
    return np.interp(np.linspace(0, len(values) - 1, points), np.arange(len(values)), values)


def warped_distances(query: Floats, others: Floats, band: int = _BAND) -> Floats:
    """Return the dynamic-time-warping distance of a sequence from each of some others of the same length.

    Parameters
    ----------
    query : ndarray of shape (m,)
    others : ndarray of shape (k, m)
    band : int
        How far the two may be apart in time, in points.

    Returns
    -------
    ndarray of shape (k,)
        The least sum of absolute differences along a path that goes on in both and never back.

    References
    ----------
    Sakoe and Chiba (1978), Dynamic programming algorithm optimization for spoken word recognition, IEEE TASSP.

    Examples
    --------
    >>> shifted = np.array([[0.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    >>> warped_distances(np.array([0.0, 1.0, 0.0, 0.0]), shifted).tolist()
    [0.0, 0.0, 3.0]
    """
    k, m = others.shape
    before = np.full((k, m + 1), np.inf)
    before[:, 0] = 0.0
    for i in range(m):
        row = np.full((k, m + 1), np.inf)
        for j in range(max(0, i - band), min(m, i + band + 1)):
            least = np.minimum(np.minimum(before[:, j], before[:, j + 1]), row[:, j])
            row[:, j + 1] = np.abs(others[:, j] - query[i]) + least
        before = row
    return before[:, -1]


def nearest_segments(query: Floats, bank: Floats, k: int) -> list[int]:
    """Return which ``k`` rows of a bank (see :func:`as_bank`) are most like a sequence, the nearest first.

    Examples
    --------
    >>> bank = as_bank([np.zeros(8), np.arange(6.0)])
    >>> nearest_segments(np.arange(5.0), bank, 2)
    [1, 0]
    """
    if not len(bank) or k < 1:
        return []
    others = np.stack([resampled(from_bank(row)) for row in bank])
    return [int(i) for i in np.argsort(warped_distances(resampled(query), others), kind="stable")[:k]]
