"""Figures of each kind of anomaly against all that is normal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genad.errors import InputError, InputTypeError
from genad.metrics._validate import check_flagged, check_scored
from genad.metrics.point import auroc, average_precision


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """How well one class of anomalies is told from the normal units.

    Attributes
    ----------
    name : str
        The class.
    units : int
        Anomalies of the class.
    auroc, average_precision : float
        Of these anomalies against all normal units, in [0, 1]. Average precision falls with the size of a class;
        compare it with ``units / (units + normals)``, which is chance.
    recall : float or None
        Share of these anomalies that were flagged, in [0, 1]; None without flags.
    """

    name: str
    units: int
    auroc: float
    average_precision: float
    recall: float | None = None


def by_class(scores: object, labels: object, classes: object, flags: object = None) -> list[ClassFigures]:
    """Compute the figures of each class of anomalies against all normal units.

    Parameters
    ----------
    scores : array-like of shape (n,)
        Higher = more anomalous.
    labels : array-like of shape (n,)
        1 = anomaly, 0 = normal.
    classes : array-like of shape (n,)
        Name of each unit's class; what normal units are called does not matter.
    flags : array-like of shape (n,), optional
        The detector's decisions, 1 = flagged; adds the recall.

    Returns
    -------
    list of ClassFigures
        The hardest class first: by AUROC, then by name.

    Raises
    ------
    InputError
        Lengths differ, unusable scores, labels or flags, or no anomaly or no normal unit.
    InputTypeError
        Not numeric, or `classes` cannot be read as an array.

    Examples
    --------
    >>> from genad.metrics import by_class
    >>> scores, labels = [0.1, 0.4, 0.3, 0.8, 0.9], [0, 0, 1, 1, 1]
    >>> for row in by_class(scores, labels, ["good", "good", "crack", "hole", "hole"]):
    ...     print(row.name, row.units, row.auroc)
    crack 1 0.5
    hole 2 1.0
    """
    truth, values = check_scored(labels, scores, purpose="A class's AUROC")
    decisions = None if flags is None else check_flagged(truth, flags)[1]
    try:
        names = np.asarray(classes)
    except (TypeError, ValueError) as error:
        msg = f"classes cannot be read as an array ({error}); pass one name a unit."
        raise InputTypeError(msg) from error
    if names.shape != truth.shape:
        msg = f"classes has shape {names.shape} but labels has {truth.shape}; one name a unit is needed, in one order."
        raise InputError(msg)
    names = np.array([str(name) for name in names.tolist()])
    found = []
    for name in np.unique(names[truth]).tolist():
        mine = truth & (names == name)
        kept = mine | ~truth
        found.append(
            ClassFigures(
                name=name,
                units=int(mine.sum()),
                auroc=auroc(truth[kept], values[kept]),
                average_precision=average_precision(truth[kept], values[kept]),
                recall=None if decisions is None else float(decisions[mine].mean()),
            )
        )
    return sorted(found, key=lambda row: (row.auroc, row.name))
