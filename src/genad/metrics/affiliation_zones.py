"""Affiliation precision and recall: how near flags and events are, against chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from genad.metrics._validate import check_flagged, f_score
from genad.metrics.ranges import runs

if TYPE_CHECKING:
    from genad.metrics._validate import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Affiliation:
    """Affiliation precision, recall and their harmonic mean.

    Attributes
    ----------
    precision, recall, f1 : float
        In [0, 1]; a flag at a random time is worth about 0.5 where events are short.
    precision_by_event : ndarray of float64, shape (k,)
        For each true event, the precision of the flags in its zone; NaN where there is none.
    recall_by_event : ndarray of float64, shape (k,)
        For each true event, its recall; 0 where its zone holds no flag.
    """

    precision: float
    recall: float
    f1: float
    precision_by_event: FloatArray
    recall_by_event: FloatArray


def affiliation(y_true: object, flags: object) -> Affiliation:
    r"""Compute affiliation precision and recall of flagged steps.

    Time is split into zones, one for each true event: the times nearer to it than to any
    other. In a zone, a flag at distance d from the event is worth the probability that a
    uniform time of the zone lies at least as far from the event; an event's time at distance
    d from the nearest flag is worth the probability that a uniform time lies at least as far
    from it. Means over the flags of a zone give its precision, over its event its recall;
    the metrics are means over zones (precision: over those with a flag). Step i is the
    interval [i, i + 1); integrals are exact.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        1 = anomaly, 0 = normal, in time order.
    flags : array-like of shape (n,)
        1 = flagged, 0 = not.

    Returns
    -------
    Affiliation
        Precision, recall, F1 and the values by event. Without any flag the paper leaves
        precision undefined; it is 0 here, as in the other metrics.

    Raises
    ------
    InputError
        Unusable labels or flags, or no anomaly.

    Notes
    -----
    There are no settings, and a near miss is worth nearly as much as a hit. Flagging every
    step gives recall 1 and a precision well above 0, so read both figures.

    References
    ----------
    Huet, Navarro, Rossi. Local Evaluation of Time Series Anomaly Detection Algorithms.
    KDD 2022.

    Examples
    --------
    >>> from genad.metrics import affiliation
    >>> near = affiliation([0, 0, 0, 0, 1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0, 0, 0, 0])
    >>> round(near.precision, 3), round(near.recall, 3)
    (0.7, 0.8)
    """
    labels, decisions = check_flagged(y_true, flags, purpose="Affiliation recall")
    truth = runs(labels)
    found = runs(decisions)
    # Gaps between events are split in the middle; the first and last zone end with the data.
    middle = (truth[:-1, 1] + truth[1:, 0]) / 2
    zones = np.column_stack((np.r_[0.0, middle], np.r_[middle, float(labels.size)]))
    precision_by_event = _precision(truth, found, zones)
    recall_by_event = _recall(truth, found, zones)
    flagged = ~np.isnan(precision_by_event)
    precision = float(precision_by_event[flagged].mean()) if flagged.any() else 0.0
    recall = float(recall_by_event.mean())
    return Affiliation(precision, recall, f_score(precision, recall), precision_by_event, recall_by_event)


def _pieces(truth: IntArray, found: IntArray, zones: FloatArray) -> tuple[FloatArray, IntArray]:
    """Cut time at every border of an event, flag or zone; return pieces (p, 2) and zones (p,)."""
    borders = (truth.ravel().astype(np.float64), found.ravel(), zones.ravel())
    cuts = np.unique(np.concatenate(borders).astype(np.float64))
    pieces = np.column_stack((cuts[:-1], cuts[1:]))
    zone = np.searchsorted(zones[:, 1], pieces[:, 0], side="right").astype(np.int64)
    return pieces, zone


def _inside(pieces: FloatArray, events: IntArray) -> BoolArray:
    """Tell, for each piece, whether it lies in one of the events (a piece is never cut)."""
    index = np.searchsorted(events[:, 0], pieces[:, 0], side="right") - 1
    ends = np.r_[events[:, 1], -1]  # index -1: no event starts before the piece
    return np.asarray(pieces[:, 0] < ends[index])


def _precision(truth: IntArray, found: IntArray, zones: FloatArray) -> FloatArray:
    """Return the mean worth of the flags in each zone, NaN where there are none."""
    pieces, zone = _pieces(truth, found, zones)
    kept = _inside(pieces, found)
    pieces, zone = pieces[kept], zone[kept]
    low, high = truth[zone, 0], truth[zone, 1]
    size = zones[zone, 1] - zones[zone, 0]
    left, right = low - zones[zone, 0], zones[zone, 1] - high
    # Outside the event the distance runs from near to far along the piece, on either side.
    near = np.where(pieces[:, 1] <= low, low - pieces[:, 1], pieces[:, 0] - high)
    length = pieces[:, 1] - pieces[:, 0]
    far = near + length
    tail = _tail_integral(left, far) - _tail_integral(left, near)
    tail += _tail_integral(right, far) - _tail_integral(right, near)
    worth = np.where(_inside(pieces, truth), length, tail / size)
    total = np.bincount(zone, weights=length, minlength=len(truth))
    mass = np.bincount(zone, weights=worth, minlength=len(truth))
    result = np.full(len(truth), np.nan)
    np.divide(mass, total, out=result, where=total > 0)
    return np.asarray(np.minimum(result, 1.0))


def _tail_integral(side: FloatArray, distance: FloatArray) -> FloatArray:
    """Integrate max(0, side - t) over t from 0 to `distance`."""
    reach = np.minimum(distance, side)
    return np.asarray(side * reach - reach**2 / 2)


def _recall(truth: IntArray, found: IntArray, zones: FloatArray) -> FloatArray:
    """Return the mean worth of each event's times, 0 where the zone holds no flag."""
    pieces, zone = _pieces(truth, found, zones)
    in_event = _inside(pieces, truth)
    pieces, zone = pieces[in_event], zone[in_event]
    covered = _inside(pieces, found)
    worth = np.where(covered, pieces[:, 1] - pieces[:, 0], 0.0)
    open_ = ~covered
    start, stop = pieces[open_, 0], pieces[open_, 1]
    first, last = zones[zone[open_], 0], zones[zone[open_], 1]
    # The nearest flags on either side; one that only touches the zone's border is outside it.
    before = np.r_[-np.inf, found[:, 1]][np.searchsorted(found[:, 1], start, side="right")]
    after = np.r_[found[:, 0], np.inf][np.searchsorted(found[:, 0], stop, side="left")]
    has_before, has_after = before > first, after < last
    before = np.where(has_before, before, first)
    after = np.where(has_after, after, last)
    split = np.select(
        [has_before & has_after, has_before],
        [np.clip((before + after) / 2, start, stop), stop],
        start,
    )
    value = _away(before, start, split, first, last)
    value += _away(-after, -stop, -split, -last, -first)  # the same, seen from the other end
    worth[open_] = np.where(has_before | has_after, value, 0.0)
    mass = np.bincount(zone, weights=worth, minlength=len(truth))
    return np.asarray(np.minimum(mass / (truth[:, 1] - truth[:, 0]), 1.0))


def _away(flag: FloatArray, start: FloatArray, stop: FloatArray, first: FloatArray, last: FloatArray) -> FloatArray:
    """Integrate the worth of times in [start, stop) whose nearest flag ends at `flag` before.

    The time y is y - flag away. A uniform time of the zone [first, last) is nearer with
    probability (y - flag + min(y - flag, last - y)) / (last - first).
    """
    turn = np.clip((flag + last) / 2, start, stop)
    rising = ((turn - flag) ** 2 - (start - flag) ** 2) / 2
    falling = ((last - turn) ** 2 - (last - stop) ** 2) / 2
    along = ((stop - flag) ** 2 - (start - flag) ** 2) / 2
    return np.asarray((stop - start) - (along + rising + falling) / (last - first))
