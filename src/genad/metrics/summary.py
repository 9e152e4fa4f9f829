"""One call for the figures worth reading, for tables and for series."""

from __future__ import annotations

from typing import Literal

from genad.errors import InputError
from genad.metrics._validate import check_flagged, check_scored
from genad.metrics.adjusted import oracle_point_adjusted_f1, point_adjusted_f1
from genad.metrics.affiliation_zones import affiliation
from genad.metrics.point import (
    auroc,
    average_precision,
    f_beta,
    oracle_best_f1,
    precision,
    precision_at_k,
    recall,
    recall_at_false_alarm_rate,
)
from genad.metrics.ranges import range_based
from genad.metrics.vus import volume_under_surface


def evaluate(
    y_true: object,
    scores: object,
    flags: object = None,
    *,
    kind: Literal["table", "series"] = "table",
    max_buffer: int = 100,
    point_adjusted: bool = False,
) -> dict[str, float]:
    """Compute the standard figures of a detector in one dictionary.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        1 = anomaly, 0 = normal; in time order when `kind` is "series".
    scores : array-like of shape (n,)
        Higher = more anomalous.
    flags : array-like of shape (n,), optional
        The detector's decisions, 1 = flagged. Adds the figures that need a decision.
    kind : {"table", "series"}, default="table"
        "series" adds the metrics that know time: VUS, range-based and affiliation.
    max_buffer : int, default=100
        The longest buffer of VUS, in steps.
    point_adjusted : bool, default=False
        Add the point-adjusted figures (series only), which warn that they inflate.

    Returns
    -------
    dict of str to float
        Always ``auroc``, ``average_precision``, ``precision_at_k`` (k = number of anomalies),
        ``recall_at_1pct_false_alarms``, ``oracle_f1``. With flags ``precision``, ``recall``,
        ``f1``. Series: ``vus_roc``, ``vus_pr``, with flags ``range_precision``,
        ``range_recall``, ``range_f1``, ``affiliation_precision``, ``affiliation_recall``,
        ``affiliation_f1``. Names that begin with ``oracle_`` come from a threshold that saw
        the labels. All in [0, 1].

    Raises
    ------
    InputError
        Unusable arrays, a class missing, an unknown `kind`, or `point_adjusted` for a table.

    Examples
    --------
    >>> from genad.metrics import evaluate
    >>> evaluate([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], flags=[0, 0, 0, 1])["recall"]
    0.5
    """
    if kind not in ("table", "series"):
        msg = f"kind is {kind!r}; 'table' (rows in any order) or 'series' (time order) is needed."
        raise InputError(msg)
    if point_adjusted and kind != "series":
        msg = "point_adjusted is True but kind is 'table'; events need time: pass kind='series'."
        raise InputError(msg)
    labels, values = check_scored(y_true, scores, purpose="The evaluation")
    result = {
        "auroc": auroc(labels, values),
        "average_precision": average_precision(labels, values),
        "precision_at_k": precision_at_k(labels, values),
        "recall_at_1pct_false_alarms": recall_at_false_alarm_rate(labels, values, 0.01),
        "oracle_f1": oracle_best_f1(labels, values).f1,
    }
    decisions = None if flags is None else check_flagged(labels, flags)[1]
    if decisions is not None:
        result["precision"] = precision(labels, decisions)
        result["recall"] = recall(labels, decisions)
        result["f1"] = f_beta(labels, decisions)
    if kind == "table":
        return result
    volume = volume_under_surface(labels, values, max_buffer=max_buffer)
    result["vus_roc"] = volume.roc
    result["vus_pr"] = volume.pr
    if decisions is not None:
        ranges = range_based(labels, decisions)
        result["range_precision"] = ranges.precision
        result["range_recall"] = ranges.recall
        result["range_f1"] = ranges.f1
        zones = affiliation(labels, decisions)
        result["affiliation_precision"] = zones.precision
        result["affiliation_recall"] = zones.recall
        result["affiliation_f1"] = zones.f1
    if point_adjusted:
        oracle = oracle_point_adjusted_f1(labels, values)
        result["oracle_point_adjusted_f1"] = oracle.adjusted_f1
        result["oracle_point_adjusted_random_f1"] = oracle.random_adjusted_f1
        if decisions is not None:
            adjusted = point_adjusted_f1(labels, decisions)
            result["point_adjusted_f1"] = adjusted.adjusted_f1
            result["point_adjusted_random_f1"] = adjusted.random_adjusted_f1
    return result
