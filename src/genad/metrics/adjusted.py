"""Point-adjusted F1, never without the plain figure, a random baseline and a warning."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from genad.errors import MetricWarning
from genad.metrics._validate import check_flagged, check_scored
from genad.metrics.point import f_beta, oracle_best_f1, precision, recall
from genad.metrics.ranges import runs

if TYPE_CHECKING:
    from genad.metrics._validate import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class PointAdjusted:
    """Point-adjusted figures beside the plain ones, each in [0, 1].

    Attributes
    ----------
    adjusted_f1, adjusted_precision, adjusted_recall : float
        After every step of an event with one flag is taken as flagged.
    plain_f1, plain_precision, plain_recall : float
        Of the flags as they are.
    random_adjusted_f1 : float
        Adjusted F1 (of expected counts) of as many flags raised at random: the figure to beat.
    """

    adjusted_f1: float
    adjusted_precision: float
    adjusted_recall: float
    plain_f1: float
    plain_precision: float
    plain_recall: float
    random_adjusted_f1: float


@dataclass(frozen=True, slots=True)
class OraclePointAdjusted:
    """Best point-adjusted F1 beside the best plain F1; both thresholds saw the labels.

    Attributes
    ----------
    adjusted_f1, adjusted_threshold : float
        The best adjusted F1 in [0, 1], and its threshold (`scores >= threshold`).
    plain_f1, plain_threshold : float
        The best plain F1 in [0, 1], and its own threshold.
    random_adjusted_f1 : float
        Adjusted F1 (of expected counts) of random flags at their best rate: the figure to beat.
    """

    adjusted_f1: float
    adjusted_threshold: float
    plain_f1: float
    plain_threshold: float
    random_adjusted_f1: float


def point_adjusted_f1(y_true: object, flags: object) -> PointAdjusted:
    """Compute the point-adjusted F1 of flags, with the plain figure and a random baseline.

    Point adjustment counts a whole event as found when a single step of it is flagged. Long
    events make that easy by chance, so the figure inflates: use it only to compare with
    papers that report it.

    Parameters
    ----------
    y_true, flags : array-like of shape (n,)
        1 = anomaly, 0 = normal, in time order; 1 = flagged, 0 = not.

    Returns
    -------
    PointAdjusted
        Adjusted and plain figures, and what random flags get.

    Raises
    ------
    InputError
        Unusable labels or flags, or no anomaly.

    Warns
    -----
    MetricWarning
        Always: point adjustment inflates.

    References
    ----------
    Kim, Choi, Choi, Lee, Yoon. Towards a Rigorous Evaluation of Time-Series Anomaly
    Detection. AAAI 2022.

    Examples
    --------
    >>> import warnings
    >>> from genad.metrics import point_adjusted_f1
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     result = point_adjusted_f1([0, 1, 1, 1, 1, 0], [0, 0, 1, 0, 0, 0])
    >>> result.adjusted_f1, result.plain_f1
    (1.0, 0.4)
    """
    labels, decisions = check_flagged(y_true, flags, purpose="Point-adjusted F1")
    events = runs(labels)
    counted = np.concatenate(([0], np.cumsum(decisions)))
    found = counted[events[:, 1]] > counted[events[:, 0]]
    adjusted = decisions.copy()
    adjusted[labels] = np.repeat(found, events[:, 1] - events[:, 0])
    rate = np.array([decisions.mean()])
    result = PointAdjusted(
        adjusted_f1=f_beta(labels, adjusted),
        adjusted_precision=precision(labels, adjusted),
        adjusted_recall=recall(labels, adjusted),
        plain_f1=f_beta(labels, decisions),
        plain_precision=precision(labels, decisions),
        plain_recall=recall(labels, decisions),
        random_adjusted_f1=float(_random_f1(events, labels.size, rate)[0]),
    )
    _warn(result.adjusted_f1, result.plain_f1, result.random_adjusted_f1)
    return result


def oracle_point_adjusted_f1(y_true: object, scores: object) -> OraclePointAdjusted:
    """Find the best point-adjusted F1 over every threshold, with the best plain F1 beside it.

    It misleads twice: point adjustment inflates, and the thresholds saw the labels.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        1 = anomaly, 0 = normal, in time order.
    scores : array-like of shape (n,)
        Higher = more anomalous.

    Returns
    -------
    OraclePointAdjusted
        Exact over all distinct scores.

    Raises
    ------
    InputError
        Unusable labels or scores, or no anomaly.

    Warns
    -----
    MetricWarning
        Always: point adjustment inflates.

    References
    ----------
    Kim, Choi, Choi, Lee, Yoon. Towards a Rigorous Evaluation of Time-Series Anomaly
    Detection. AAAI 2022.

    Examples
    --------
    >>> import warnings
    >>> from genad.metrics import oracle_point_adjusted_f1
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     result = oracle_point_adjusted_f1([0, 1, 1, 1, 0], [0.5, 0.1, 0.9, 0.2, 0.3])
    >>> result.adjusted_f1, result.plain_f1
    (1.0, 0.75)
    """
    labels, values = check_scored(y_true, scores, need_normal=False, purpose="Point-adjusted F1")
    events = runs(labels)
    # A threshold finds an event exactly when it is at most the event's highest score.
    lifted = values.copy()
    highest = np.maximum.reduceat(np.append(values, -np.inf), events.ravel())[::2]
    lifted[labels] = np.repeat(highest, events[:, 1] - events[:, 0])
    adjusted = oracle_best_f1(labels, lifted)
    plain = oracle_best_f1(labels, values)
    rates = np.append(np.geomspace(1 / labels.size, 1.0, 200), 1.0)
    result = OraclePointAdjusted(
        adjusted_f1=adjusted.f1,
        adjusted_threshold=adjusted.threshold,
        plain_f1=plain.f1,
        plain_threshold=plain.threshold,
        random_adjusted_f1=float(_random_f1(events, labels.size, rates).max()),
    )
    _warn(result.adjusted_f1, result.plain_f1, result.random_adjusted_f1)
    return result


def _random_f1(events: IntArray, n: int, rates: FloatArray) -> FloatArray:
    """Return the adjusted F1 of expected counts when each step is flagged with each rate."""
    length, number = np.unique(events[:, 1] - events[:, 0], return_counts=True)
    positives = float(length @ number)
    missed = (1 - rates[:, None]) ** length  # an event of m steps holds no flag
    tp = (1 - missed) @ (length * number).astype(np.float64)
    fp = rates * (n - positives)
    return np.asarray(2 * tp / (positives + tp + fp))


def _warn(adjusted: float, plain: float, random: float) -> None:
    warnings.warn(
        f"Point-adjusted F1 is {adjusted:.3f} where plain F1 is {plain:.3f}: one flag in an "
        f"event counts as flagging all of it, which inflates. Flags raised at random get about "
        f"{random:.3f} on these labels. Report plain F1, VUS-PR or affiliation instead.",
        MetricWarning,
        stacklevel=3,
    )
