"""VUS-ROC and VUS-PR: areas under range-aware curves, averaged over the buffer's length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from genad.metrics._validate import check_count, check_scored
from genad.metrics.ranges import runs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from genad.metrics._validate import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class VolumeUnderSurface:
    """Volumes under the ROC and PR surfaces, and the areas they average.

    Attributes
    ----------
    roc, pr : float
        VUS-ROC and VUS-PR, in [0, 1].
    roc_by_buffer, pr_by_buffer : ndarray of float64, shape (max_buffer + 1,)
        Range-AUC-ROC and Range-AUC-PR for buffer lengths 0, 1, ..., max_buffer.
    """

    roc: float
    pr: float
    roc_by_buffer: FloatArray
    pr_by_buffer: FloatArray


def volume_under_surface(
    y_true: object, scores: object, *, max_buffer: int = 100, n_thresholds: int = 250
) -> VolumeUnderSurface:
    r"""Compute VUS-ROC and VUS-PR of a scored series.

    For a buffer of length l, each event gets l // 2 soft steps on either side with label
    :math:`\sqrt{1 - d / l}` at distance d (steps in two buffers get 1). At each threshold,

    - hits are the flagged mass of the soft labels,
    - recall is hits / (P + B / 2) cut at 1, P the number of anomalous steps and B the flagged
      mass of the buffers, times the share of events (with their buffers, merged where these
      meet) that hold a flag: the existence factor,
    - the false-alarm rate is (flagged - hits) / (n - P - B / 2), precision hits / flagged.

    The ROC area is trapezoidal from (0, 0) to (1, 1), the PR area a sum of steps as in
    average precision. Both are averaged over l = 0, ..., `max_buffer`.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        1 = anomaly, 0 = normal, in time order.
    scores : array-like of shape (n,)
        Higher = more anomalous.
    max_buffer : int, default=100
        The longest buffer L in steps, at least 0; about the length of a period or an event.
    n_thresholds : int, default=250
        Thresholds are the scores at this many evenly spaced ranks, from the highest to the
        lowest, as the authors' implementation does; at least 2. With n_thresholds >= n every
        score is one and the curves are exact.

    Returns
    -------
    VolumeUnderSurface
        The two volumes in [0, 1] and the areas by buffer length.

    Raises
    ------
    InputError
        Unusable labels or scores, a class missing, or a number out of range.
    InputTypeError
        `max_buffer` or `n_thresholds` is not a whole number.

    Notes
    -----
    Only the ranks of the scores matter. With `max_buffer` 0 and one event the existence
    factor is 1 wherever recall is above 0, so the result is AUROC and average precision on
    the same thresholds; with several events it can only be lower. Constant scores do not
    give 0.5 with a buffer, since flagging everything is not charged for the buffers in full.
    Time is O(n log n + L * n_thresholds * L), memory O(n + n_thresholds * L).

    References
    ----------
    Paparrizos, Boniol, Palpanas, Tsay, Elmore, Franklin. Volume Under the Surface: A New
    Accuracy Evaluation Measure for Time-Series Anomaly Detection. PVLDB 15(11), 2022.

    Examples
    --------
    >>> from genad.metrics import volume_under_surface
    >>> y = [0, 0, 0, 1, 1, 0, 0, 0]
    >>> late = [0, 0, 0, 0, 1, 1, 0, 0]
    >>> result = volume_under_surface(y, late, max_buffer=4)
    >>> round(result.roc, 3), round(result.pr, 3)
    (0.796, 0.63)
    """
    longest = check_count(max_buffer, "max_buffer", 0)
    wanted = check_count(n_thresholds, "n_thresholds", 2)
    labels, values = check_scored(y_true, scores, purpose="VUS")
    first_flagged, n_levels = _levels(values, wanted)
    n_flagged = np.cumsum(np.bincount(first_flagged, minlength=n_levels)).astype(np.float64)
    in_events = np.cumsum(np.bincount(first_flagged[labels], minlength=n_levels))
    positives = float(in_events[-1])
    events = runs(labels)
    roc = np.empty(longest + 1)
    pr = np.empty(longest + 1)
    existence = _existence(events, first_flagged, n_levels, longest // 2)
    mass = _buffer_mass(events, labels, first_flagged, n_levels, longest)
    for length in range(longest + 1):
        if length % 2 == 0:  # buffers of 2h and 2h + 1 reach h steps on either side
            exists = next(existence)
        buffered = next(mass)
        hits = in_events + buffered
        soft_positives = positives + buffered / 2
        tpr = np.minimum(hits / soft_positives, 1.0) * exists
        fpr = (n_flagged - hits) / (labels.size - soft_positives)
        roc[length] = np.trapezoid(np.r_[0.0, tpr, 1.0], np.r_[0.0, fpr, 1.0])
        pr[length] = np.sum(np.diff(tpr, prepend=0.0) * hits / n_flagged)
    # Rounding may leave a perfect ranking an ulp above 1.
    roc = np.clip(roc, 0.0, 1.0)
    pr = np.clip(pr, 0.0, 1.0)
    return VolumeUnderSurface(float(roc.mean()), float(pr.mean()), roc, pr)


def vus_roc(y_true: object, scores: object, *, max_buffer: int = 100, n_thresholds: int = 250) -> float:
    """Compute VUS-ROC; see `volume_under_surface`, which gives both volumes in one pass.

    Parameters
    ----------
    y_true, scores : array-like of shape (n,)
        Labels (1 = anomaly) and scores (higher = more anomalous), in time order.
    max_buffer, n_thresholds : int
        As in `volume_under_surface`.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    InputError
        As `volume_under_surface`.

    Examples
    --------
    >>> from genad.metrics import vus_roc
    >>> vus_roc([0, 1, 1, 0], [0.1, 0.9, 0.8, 0.2], max_buffer=0)
    1.0
    """
    return volume_under_surface(y_true, scores, max_buffer=max_buffer, n_thresholds=n_thresholds).roc


def vus_pr(y_true: object, scores: object, *, max_buffer: int = 100, n_thresholds: int = 250) -> float:
    """Compute VUS-PR; `volume_under_surface` gives it together with VUS-ROC in one pass.

    Parameters
    ----------
    y_true, scores, max_buffer, n_thresholds
        As in `vus_roc`.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    InputError
        As `volume_under_surface`.

    Examples
    --------
    >>> from genad.metrics import vus_pr
    >>> vus_pr([0, 1, 1, 0], [0.1, 0.9, 0.8, 0.2], max_buffer=0)
    1.0
    """
    return volume_under_surface(y_true, scores, max_buffer=max_buffer, n_thresholds=n_thresholds).pr


def _levels(scores: FloatArray, n_thresholds: int) -> tuple[IntArray, int]:
    """Give each step the index of the first threshold, from high to low, that flags it."""
    ranked = np.sort(scores)[::-1]
    ranks = np.linspace(0, scores.size - 1, n_thresholds).astype(np.int64)
    thresholds = np.unique(ranked[ranks])  # ascending; repeats would add empty steps
    level = thresholds.size - np.searchsorted(thresholds, scores, side="right")
    return level, thresholds.size


def _existence(events: IntArray, first_flagged: IntArray, n_levels: int, reach: int) -> Iterator[FloatArray]:
    """Yield, for reach 0, 1, ..., the share of events that hold a flag, by threshold.

    Events whose widened intervals meet count as one. Each event keeps the level of its first
    flag; widening by one step on either side updates it in O(events).
    """
    n = first_flagged.size
    earliest = np.minimum.reduceat(np.append(first_flagged, n_levels), events.ravel(), dtype=np.int64)[::2]
    gaps = events[1:, 0] - events[:-1, 1]  # normal steps between neighbours
    for h in range(reach + 1):
        if h:
            before = np.maximum(events[:, 0] - h, 0)
            after = np.minimum(events[:, 1] - 1 + h, n - 1)
            earliest = np.minimum(earliest, np.minimum(first_flagged[before], first_flagged[after]))
        heads = np.flatnonzero(np.r_[True, gaps + 1 > 2 * h])
        by_group = np.minimum.reduceat(earliest, heads)
        yield np.cumsum(np.bincount(by_group, minlength=n_levels)) / heads.size


def _buffer_mass(
    events: IntArray, labels: BoolArray, first_flagged: IntArray, n_levels: int, longest: int
) -> Iterator[FloatArray]:
    """Yield, for buffer length 0, 1, ..., the flagged mass of the buffers, by threshold.

    A step in one buffer weighs sqrt(1 - d / l), at least sqrt(1/2), so a step in two sums to
    more than 1 and is cut at 1: the two nearest events tell all. Steps are counted once in a
    table of level by distance and moved out when the second buffer reaches them.
    """
    reach = longest // 2
    step, nearest, second = _distances(events, labels, reach)
    level = first_flagged[step]
    alone = np.zeros(n_levels * (reach + 1))
    alone += np.bincount(level * (reach + 1) + nearest, minlength=alone.size)
    shared = np.zeros(n_levels)
    order = np.argsort(second, kind="stable")
    bounds = np.searchsorted(second[order], np.arange(reach + 2))
    table = alone.reshape(n_levels, reach + 1)
    for h in range(reach + 1):
        moved = order[bounds[h] : bounds[h + 1]]
        alone -= np.bincount(level[moved] * (reach + 1) + nearest[moved], minlength=alone.size)
        shared += np.bincount(level[moved], minlength=n_levels)
        for length in (2 * h, 2 * h + 1):
            if length <= longest:
                weight = np.sqrt(1 - np.arange(1, h + 1) / max(length, 1))
                yield np.cumsum(table[:, 1 : h + 1] @ weight + shared)


def _distances(events: IntArray, labels: BoolArray, reach: int) -> tuple[IntArray, IntArray, IntArray]:
    """Return the normal steps within `reach` of an event and their two smallest distances.

    Distances are in steps, 1 next to the event; those above `reach` become reach + 1.
    """
    n = labels.size
    edge = np.zeros(n + 1, dtype=np.int64)
    edge += np.bincount(np.maximum(events[:, 0] - reach, 0), minlength=n + 1)
    edge -= np.bincount(np.minimum(events[:, 1] + reach, n), minlength=n + 1)
    step = np.flatnonzero((np.cumsum(edge[:-1]) > 0) & ~labels)
    far = 2 * n + reach + 2  # padding: events that do not exist are out of reach
    ends = np.r_[-far, -far, events[:, 1] - 1]
    starts = np.r_[events[:, 0], n + far, n + far]
    after = np.searchsorted(events[:, 0], step)  # the first event to the right
    candidates = np.stack((step - ends[after + 1], step - ends[after], starts[after] - step, starts[after + 1] - step))
    candidates.partition(1, axis=0)
    np.minimum(candidates, reach + 1, out=candidates)
    return step, candidates[0], candidates[1]
