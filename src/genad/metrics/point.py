"""Point metrics: every unit counts once and on its own, in any order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from genad.errors import InputError
from genad.metrics._validate import (
    check_count,
    check_flagged,
    check_positive,
    check_scored,
)

if TYPE_CHECKING:
    from genad.metrics._validate import BoolArray, FloatArray, IntArray


def auroc(y_true: object, scores: object) -> float:
    """Compute the area under the ROC curve.

    It is the probability that an anomaly drawn at random outscores a normal unit drawn at
    random, ties counting one half.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        1 = anomaly, 0 = normal.
    scores : array-like of shape (n,)
        Higher = more anomalous.

    Returns
    -------
    float
        In [0, 1]; 0.5 is chance.

    Raises
    ------
    InputError
        Lengths differ, a score is not finite, a label is not 0 or 1, or a class is missing.

    Examples
    --------
    >>> from genad.metrics import auroc
    >>> auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    from sklearn.metrics import roc_auc_score

    labels, values = check_scored(y_true, scores, purpose="AUROC")
    return float(roc_auc_score(labels, values))


def average_precision(y_true: object, scores: object) -> float:
    """Compute average precision, the step-wise area under the precision-recall curve.

    Parameters
    ----------
    y_true, scores : array-like of shape (n,)
        Labels and scores as in :func:`auroc`.

    Returns
    -------
    float
        In [0, 1]; chance is about the share of anomalies.

    Raises
    ------
    InputError
        As :func:`auroc`.

    Examples
    --------
    >>> from genad.metrics import average_precision
    >>> round(average_precision([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 4)
    0.8333
    """
    from sklearn.metrics import average_precision_score

    labels, values = check_scored(y_true, scores, purpose="Average precision")
    return float(average_precision_score(labels, values))


@dataclass(frozen=True, slots=True)
class OracleF1:
    """The best F-score any threshold reaches, and where; the threshold saw the labels.

    Attributes
    ----------
    f1 : float
        The best F-score, in [0, 1] (F-beta when `beta` is not 1).
    precision, recall : float
        At that threshold, in [0, 1].
    threshold : float
        Flag `scores >= threshold`; the highest of the best ones.
    """

    f1: float
    precision: float
    recall: float
    threshold: float


def counts_by_threshold(labels: BoolArray, scores: FloatArray) -> tuple[FloatArray, IntArray, IntArray]:
    """Count hits and false alarms of `scores >= t` for every distinct score t.

    Parameters
    ----------
    labels : ndarray of bool, shape (n,)
        True where anomalous.
    scores : ndarray of float64, shape (n,)
        Finite scores.

    Returns
    -------
    thresholds : ndarray of float64, shape (m,)
        Distinct scores, from high to low.
    true_positives, false_positives : ndarray of int64, shape (m,)
        Non-decreasing counts.
    """
    order = np.argsort(scores)[::-1]
    ranked = scores[order]
    # A threshold cannot part equal scores, so only the last of each run of ties counts.
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), ranked.size - 1)
    hits = np.cumsum(labels[order], dtype=np.int64)[last]
    return ranked[last], hits, last + 1 - hits


def oracle_best_f1(y_true: object, scores: object, beta: float = 1.0) -> OracleF1:
    """Find the best F-score over every threshold: an upper bound, since labels choose it.

    The threshold saw the labels it is judged on. A detector in use has no such threshold, so
    the figure says what the ranking allows, not what a user gets.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        1 = anomaly, 0 = normal.
    scores : array-like of shape (n,)
        Higher = more anomalous.
    beta : float, default=1.0
        Weight of recall against precision, above 0.

    Returns
    -------
    OracleF1
        Exact over all distinct scores; units with equal scores are flagged together.

    Raises
    ------
    InputError
        Unusable labels or scores, or `beta` not above 0.

    Examples
    --------
    >>> from genad.metrics import oracle_best_f1
    >>> oracle_best_f1([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    OracleF1(f1=0.8, precision=0.666..., recall=1.0, threshold=0.35)
    """
    weight = check_positive(beta, "beta") ** 2
    labels, values = check_scored(y_true, scores, need_normal=False, purpose="Oracle F1")
    thresholds, tp, fp = counts_by_threshold(labels, values)
    positives = int(tp[-1])
    f = (1 + weight) * tp / (weight * positives + tp + fp)
    best = int(np.argmax(f))
    return OracleF1(
        f1=float(f[best]),
        precision=float(tp[best] / (tp[best] + fp[best])),
        recall=float(tp[best] / positives),
        threshold=float(thresholds[best]),
    )


def precision_at_k(y_true: object, scores: object, k: int | None = None) -> float:
    """Compute the share of anomalies among the k highest scores.

    Where the k-th score is tied, the places left are filled by a fair draw among the tied
    units and the expected share is returned: the answer does not depend on the row order.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        1 = anomaly, 0 = normal.
    scores : array-like of shape (n,)
        Higher = more anomalous.
    k : int or None, default=None
        How many units to look at, from 1 to n; None: the number of anomalies.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    InputError
        Unusable labels or scores, or `k` out of range.
    InputTypeError
        `k` is not a whole number.

    Examples
    --------
    >>> from genad.metrics import precision_at_k
    >>> precision_at_k([1, 0, 1, 0], [0.9, 0.5, 0.5, 0.1])
    0.75
    """
    labels, values = check_scored(y_true, scores, need_normal=False, purpose="Precision at k")
    size = int(labels.sum()) if k is None else check_count(k, "k", 1, labels.size)
    cut = np.partition(values, values.size - size)[values.size - size]
    above = values > cut
    tied = values == cut
    places = size - int(above.sum())
    found = int(labels[above].sum()) + places * float(labels[tied].mean())
    return float(found / size)


def recall_at_false_alarm_rate(y_true: object, scores: object, rate: float = 0.01) -> float:
    """Compute the highest recall of a threshold whose false-alarm rate is at most `rate`.

    No interpolation between thresholds: the recall is one that can be had. The threshold is
    set on the normal units of the same data.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        1 = anomaly, 0 = normal.
    scores : array-like of shape (n,)
        Higher = more anomalous.
    rate : float, default=0.01
        Share of normal units that may be flagged, in [0, 1].

    Returns
    -------
    float
        In [0, 1]; 0 when even the highest score flags too many normal units.

    Raises
    ------
    InputError
        Unusable labels or scores, a class missing, or `rate` outside [0, 1].

    Examples
    --------
    >>> from genad.metrics import recall_at_false_alarm_rate
    >>> recall_at_false_alarm_rate([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], rate=0.0)
    0.5
    """
    if not 0 <= float(rate) <= 1:
        msg = f"rate is {rate!r}; a share from 0 to 1 is needed (0.01 means one in a hundred)."
        raise InputError(msg)
    labels, values = check_scored(y_true, scores, purpose="Recall at a false-alarm rate")
    _, tp, fp = counts_by_threshold(labels, values)
    allowed = fp / fp[-1] <= float(rate)
    return float(tp[allowed][-1] / tp[-1]) if allowed.any() else 0.0


def precision(y_true: object, flags: object) -> float:
    """Compute the share of flagged units that are anomalies.

    Parameters
    ----------
    y_true, flags : array-like of shape (n,)
        1 = anomaly, 0 = normal; 1 = flagged, 0 = not.

    Returns
    -------
    float
        In [0, 1]; 0 when nothing is flagged.

    Raises
    ------
    InputError
        Lengths differ, values other than 0 and 1, or no anomaly in `y_true`.

    Examples
    --------
    >>> from genad.metrics import precision
    >>> precision([0, 1, 1, 0], [1, 1, 0, 0])
    0.5
    """
    return _f_score(y_true, flags, 0.0, "Precision")


def recall(y_true: object, flags: object) -> float:
    """Compute the share of anomalies that are flagged.

    Parameters
    ----------
    y_true, flags : array-like of shape (n,)
        Labels and flags as in :func:`precision`.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    InputError
        As :func:`precision`.

    Examples
    --------
    >>> from genad.metrics import recall
    >>> recall([0, 1, 1, 0], [1, 1, 0, 0])
    0.5
    """
    return _f_score(y_true, flags, np.inf, "Recall")


def f_beta(y_true: object, flags: object, beta: float = 1.0) -> float:
    """Compute the F-score of given flags, the weighted harmonic mean of precision and recall.

    Parameters
    ----------
    y_true, flags : array-like of shape (n,)
        Labels and flags as in :func:`precision`.
    beta : float, default=1.0
        Weight of recall against precision, above 0.

    Returns
    -------
    float
        In [0, 1]; 0 when nothing is flagged.

    Raises
    ------
    InputError
        As :func:`precision`, or `beta` not above 0.

    Examples
    --------
    >>> from genad.metrics import f_beta
    >>> round(f_beta([0, 1, 1, 0], [1, 1, 1, 0]), 4)
    0.8
    """
    return _f_score(y_true, flags, check_positive(beta, "beta"), "F-score")


def _f_score(y_true: object, flags: object, beta: float, purpose: str) -> float:
    """Compute the F-score of given flags; with beta 0 it is the precision, with infinity the recall."""
    from sklearn.metrics import fbeta_score

    labels, decisions = check_flagged(y_true, flags, purpose=purpose)
    return float(fbeta_score(labels, decisions, beta=beta, zero_division=0.0))
