"""One fitted model that many groups share: what is kept of each to calibrate on, and whose calibration judges whom."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from torch import nn

from genad.core.calibration import Adaptive, Conformal, FittedThreshold, samples_needed
from genad.core.detector import Detector
from genad.data.kinds import KINDS, Kind
from genad.data.series import as_series
from genad.data.table import Table
from genad.errors import CalibrationWarning, InputError

Rows = NDArray[np.intp]


def sharing_model(detector: Detector) -> Detector:
    """Return a second detector on the same fitted model, to be calibrated and taught apart.

    Both hold the same weights once; what either sets in its network is its own.
    """
    # A detector that trains its network with labels takes a copy of the weights first when it sees this.
    detector.__dict__["shares_net_"] = True
    twin: Detector = clone(detector)
    twin.__dict__.update(detector.__dict__)
    twin.net_ = _same_tensors(detector.net_, {})
    return twin


def _same_tensors(module: nn.Module, seen: dict[int, nn.Module]) -> nn.Module:
    """Return a module of the very same tensors, in which other ones can be put without touching the first."""
    if id(module) not in seen:
        twin = seen[id(module)] = copy.copy(module)
        twin.__dict__ |= {held: dict(vars(module)[held]) for held in ("_parameters", "_buffers", "_modules")}
        parts: dict[str, nn.Module | None] = vars(twin)["_modules"]
        parts |= {name: _same_tensors(part, seen) for name, part in parts.items() if part is not None}
    return seen[id(module)]


def held_ends(groups: dict[str, Rows], share: float) -> dict[str, Rows]:
    """Return the end of each group, together the share of all rows; of small groups some give a row and some none.

    Examples
    --------
    >>> held = held_ends({"a": np.arange(10), "b": np.arange(10, 13), "c": np.arange(13, 15)}, 0.2)
    >>> {name: rows.tolist() for name, rows in held.items()}
    {'a': [8, 9], 'b': [], 'c': [14]}
    """
    until = np.floor(np.cumsum([0, *map(len, groups.values())]) * share).astype(int)
    return {name: rows[len(rows) - n :] for (name, rows), n in zip(groups.items(), np.diff(until), strict=True)}


def together(features: Table, groups: dict[str, Rows], labels: Any, *, series: bool) -> tuple[Any, Any]:
    """Return the rows of several groups and their labels; for a detector of series, each group as its own entity."""
    rows = np.sort(np.concatenate(list(groups.values())))
    some, known = features.take(rows), None if labels is None else labels[rows]
    if not series:
        return some, known
    entity = np.empty(len(features), np.intp)
    for code, part in enumerate(groups.values()):
        entity[part] = code
    return as_series(some, entity=entity[rows]), known


def fit_shared(
    base: Detector, features: Table, groups: dict[str, Rows], labels: Any, share: float
) -> tuple[dict[str, Detector], list[str]]:
    """Fit one detector on all groups and calibrate it for each on the end of that group.

    Returns
    -------
    dict of str to Detector
        By group.
    list of str
        Groups that have no calibration of their own.
    """
    held = held_ends(groups, share)
    kept = {name: rows[: len(rows) - len(held[name])] for name, rows in groups.items()}
    with warnings.catch_warnings():
        if any(map(len, held.values())):
            # The calibration that the fit ends with is replaced at once.
            warnings.simplefilter("ignore", CalibrationWarning)
        base.fit(*together(features, kept, labels, series=base.reads_as is Kind.SERIES))
    detectors: dict[str, Detector] = {}
    return detectors, calibrate_groups(base, detectors, features, held, labels, all_groups=True)


def calibrate_groups(
    base: Detector,
    detectors: dict[str, Detector],
    features: Table,
    groups: dict[str, Rows],
    labels: Any,
    *,
    all_groups: bool,
) -> list[str]:
    """Calibrate the detector of each group, on its own rows where these are enough for the threshold.

    The others are judged by the calibration of all such groups together, or by that of all groups, ``base``, where
    even together they have too little.

    Parameters
    ----------
    base : Detector
        Fitted; calibrated too when ``all_groups``.
    detectors : dict of str to Detector
        By group; gains those of new groups.
    features : Table
        All rows.
    groups : dict of str to int array
        Rows of each group to calibrate on, which may be none.
    labels : array of shape (len(features),) or None
        As in :meth:`Detector.calibrate`.
    all_groups : bool
        Whether these are all groups there are.

    Returns
    -------
    list of str
        Groups that have no calibration of their own.

    Raises
    ------
    InputError
        When no group of series has the steps of a window.

    Warns
    -----
    CalibrationWarning
        When there are such groups; once.
    """
    series = base.adapter_.kind is Kind.SERIES
    rule = base.threshold or Conformal()
    needed = units_needed(rule)
    least = int(base.sample_shape_[0]) if series else 1
    # Steps that no window holds have no score, and of anomalies alone nothing is learnt.
    usable = {name: rows for name, rows in groups.items() if len(rows) >= least and _normal(rows, labels)}
    if not usable and series:
        raise InputError(
            f"shared: no group has {least} steps to calibrate on, which a window takes; use a shorter window, more "
            "steps a group, or a larger holdout."
        )

    def enough(part: dict[str, Rows]) -> bool:
        if getattr(rule, "needs_labels", False) and not any(
            labels is not None and (labels[rows] == 1).any() for rows in part.values()
        ):
            return False
        return sum(_normal(rows, labels) for rows in part.values()) >= needed

    if all_groups and usable:
        base.calibrate(*together(features, usable, labels, series=series))
    rich = [name for name, rows in usable.items() if enough({name: rows})]
    poor = [name for name in groups if name not in rich]
    pool, pooled = base, {name: usable[name] for name in poor if name in usable}
    if pooled and not (all_groups and not rich) and enough(pooled):
        pool = sharing_model(base)
        pool.calibrate(*together(features, pooled, labels, series=series))
    for name in rich:
        own = detectors.setdefault(name, sharing_model(base))
        own.calibrate(features.take(groups[name]), None if labels is None else labels[groups[name]])
    for name in poor:
        known = detectors.get(name)
        if known is None or known.before_ is None:
            detectors[name] = sharing_model(pool)
        elif pooled:
            # What labels taught this group stays, so the common rows are scored as it scores.
            known.calibrate(*together(features, pooled, labels, series=series))
    if poor:
        _warn_pooled(len(poor), len(groups), needed, len(pool.calibration_scores_), KINDS[base.adapter_.kind].unit)
    return poor


def threshold_of_all(detectors: dict[str, Detector], pooled: list[str]) -> FittedThreshold:
    """Say in one threshold what those of the groups promise; it stands at 0 of the decision function."""
    shared = {*pooled}
    own = [d for name, d in detectors.items() if name not in shared]
    common = [detectors[name] for name in pooled[:1]]
    parts = [f"Each of {len(own)} groups by its own threshold; for the first: {d.threshold_.promise}" for d in own[:1]]
    parts += [f"{len(pooled)} groups together by one threshold: {d.threshold_.promise}" for d in common]
    units = sum(len(d.calibration_scores_) for d in own + common)
    return FittedThreshold(value=0.0, rule="Grouped", promise=" ".join(parts), n=units)


def units_needed(rule: Any) -> int:
    """Return how many calibration units a threshold rule needs for its level; 1 where it names no level.

    Examples
    --------
    >>> units_needed(Conformal(alpha=0.01))
    99
    """
    counts = isinstance(rule, Conformal) or (isinstance(rule, Adaptive) and rule.method == "conformal")
    return samples_needed(rule.alpha) if counts else 1


def _normal(rows: Rows, labels: Any) -> int:
    return len(rows) if labels is None else int((labels[rows] != 1).sum())


def _warn_pooled(poor: int, groups: int, needed: int, pool: int, unit: str) -> None:
    warnings.warn(
        f"shared: {poor} of {groups} groups have fewer than the {needed} calibration {unit}s that the threshold needs; "
        f"they are judged by {pool} {unit}s of several groups, so false alarms are as promised over these groups "
        "together, and one of them may have more. Give these groups more data, or raise alpha.",
        CalibrationWarning,
        stacklevel=4,
    )
