"""Range-based precision and recall, and the intervals that every event metric works on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from genad.errors import InputError
from genad.metrics._validate import check_flagged, check_flags, f_score

if TYPE_CHECKING:
    from genad.metrics._validate import BoolArray, FloatArray, IntArray

Bias = Literal["flat", "front", "back", "middle"]
Cardinality = Literal["one", "reciprocal"]


def runs(flags: BoolArray) -> IntArray:
    """Return the runs of True as half-open intervals; `flags` is known to be boolean."""
    padded = np.concatenate(([False], flags, [False]))
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    return edges.reshape(-1, 2).astype(np.int64)


def events_from_flags(flags: object) -> IntArray:
    """Turn flags into events: maximal runs of flagged steps.

    Parameters
    ----------
    flags : array-like of shape (n,)
        1 or True where flagged, in time order. Labels work as well.

    Returns
    -------
    ndarray of int64, shape (k, 2)
        Half-open intervals [start, stop) in steps, in order, never touching.

    Raises
    ------
    InputError
        Not one-dimensional, or a value other than 0 and 1.

    Examples
    --------
    >>> from genad.metrics import events_from_flags
    >>> events_from_flags([0, 1, 1, 0, 1])
    array([[1, 3],
           [4, 5]])
    """
    return runs(check_flags(flags))


def overlapping_pairs(left: IntArray, right: IntArray) -> tuple[IntArray, IntArray]:
    """List the pairs of events that share at least one step.

    Parameters
    ----------
    left, right : ndarray of int64, shape (k, 2) and (m, 2)
        Half-open, ordered, disjoint intervals.

    Returns
    -------
    i, j : ndarray of int64, shape (p,)
        `left[i]` meets `right[j]`; p is at most k + m - 1.
    """
    first = np.searchsorted(right[:, 1], left[:, 0], side="right")
    stop = np.searchsorted(right[:, 0], left[:, 1], side="left")
    count = np.maximum(stop - first, 0)
    i = np.repeat(np.arange(len(left)), count)
    offset = np.arange(i.size) - np.repeat(np.cumsum(count) - count, count)
    return i, first[i] + offset


def _bias_sum(steps: IntArray, length: IntArray, bias: Bias) -> FloatArray:
    """Sum the positional weights of the first `steps` positions of ranges of `length`."""
    m = steps.astype(np.float64)
    n = length.astype(np.float64)
    if bias == "flat":
        return m
    if bias == "back":  # weight i at position i = 1..n
        return m * (m + 1) / 2
    if bias == "front":  # weight n - i + 1
        return m * n - m * (m - 1) / 2
    half = np.floor(n / 2)  # weight i up to n / 2, then n - i + 1
    rest = n - m
    total = half * (half + 1) / 2 + (n - half) * (n - half + 1) / 2
    return np.where(m <= half, m * (m + 1) / 2, total - rest * (rest + 1) / 2)


def _reward(ranges: IntArray, others: IntArray, bias: Bias, cardinality: Cardinality) -> tuple[FloatArray, BoolArray]:
    """Return each range's overlap reward in [0, 1] and whether it is met at all."""
    i, j = overlapping_pairs(ranges, others)
    start = ranges[i, 0]
    length = ranges[i, 1] - start
    low = np.maximum(others[j, 0], start) - start
    high = np.minimum(others[j, 1], ranges[i, 1]) - start
    share = (_bias_sum(high, length, bias) - _bias_sum(low, length, bias)) / _bias_sum(length, length, bias)
    met = np.bincount(i, minlength=len(ranges))
    pieces = np.maximum(met, 1) if cardinality == "reciprocal" else 1
    total = np.bincount(i, weights=share, minlength=len(ranges)) / pieces
    # Sums of fractions may pass 1 by a rounding error.
    return np.minimum(total, 1.0), met > 0


@dataclass(frozen=True, slots=True)
class RangeBased:
    """Range-based precision, recall and their harmonic mean, each in [0, 1]."""

    precision: float
    recall: float
    f1: float


def range_based(
    y_true: object,
    flags: object,
    *,
    alpha: float = 0.0,
    bias: Bias = "flat",
    precision_bias: Bias = "flat",
    cardinality: Cardinality = "reciprocal",
) -> RangeBased:
    """Compute precision and recall of events instead of points.

    Every true event counts once in recall and every flagged event once in precision, whatever
    its length. A true event's recall is ``alpha * existence + (1 - alpha) * overlap``; a
    flagged event's precision is its overlap. Overlap is the weighted share of the event that
    the other side covers, times a factor for being covered in several pieces.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        1 = anomaly, 0 = normal, in time order.
    flags : array-like of shape (n,)
        1 = flagged, 0 = not.
    alpha : float, default=0.0
        Weight of having met the event at all, in [0, 1]. Recall only.
    bias : {"flat", "front", "back", "middle"}, default="flat"
        Which part of a true event matters most: all alike, its beginning (early detection),
        its end, or its middle.
    precision_bias : {"flat", "front", "back", "middle"}, default="flat"
        The same for flagged events.
    cardinality : {"one", "reciprocal"}, default="reciprocal"
        Factor for an event met by x > 1 events of the other side: 1, or 1 / x.

    Returns
    -------
    RangeBased
        Precision (0 when nothing is flagged), recall and F1.

    Raises
    ------
    InputError
        Unusable labels or flags, no anomaly, or an unknown option.

    References
    ----------
    Tatbul, Lee, Zdonik, Alam, Gottschlich. Precision and Recall for Time Series. NeurIPS 2018.

    Examples
    --------
    >>> from genad.metrics import range_based
    >>> range_based([0, 1, 1, 1, 1, 0], [0, 1, 0, 1, 0, 0], alpha=0.5)
    RangeBased(precision=1.0, recall=0.625, f1=0.769...)
    """
    for name, value, accepted in (
        ("bias", bias, get_args(Bias)),
        ("precision_bias", precision_bias, get_args(Bias)),
        ("cardinality", cardinality, get_args(Cardinality)),
    ):
        if value not in accepted:
            msg = f"{name} is {value!r}; one of {', '.join(map(repr, accepted))} is needed."
            raise InputError(msg)
    if not 0 <= float(alpha) <= 1:
        msg = f"alpha is {alpha!r}; a weight from 0 (overlap only) to 1 (existence) is needed."
        raise InputError(msg)
    labels, decisions = check_flagged(y_true, flags, purpose="Range-based recall")
    truth = runs(labels)
    found = runs(decisions)
    overlap, met = _reward(truth, found, bias, cardinality)
    recall = float(np.mean(alpha * met + (1 - alpha) * overlap))
    precision = 0.0
    if len(found):
        precision = float(np.mean(_reward(found, truth, precision_bias, cardinality)[0]))
    return RangeBased(precision, recall, f_score(precision, recall))
