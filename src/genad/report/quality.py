"""How good the answer is, when the truth is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from genad.core.pixels import ImageDetections
from genad.data.kinds import Kind
from genad.errors import InputError
from genad.metrics.classes import ClassFigures
from genad.report.localisation import class_figures, pixel_figures

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from genad.core.detections import Detections

# Group, name of the figure, label, meaning.
_FIGURES = (
    ("Ranking", "auroc", "AUROC", "a random anomaly scores above a random normal unit"),
    ("Ranking", "average_precision", "Average precision", "precision averaged over all recalls"),
    ("Ranking", "precision_at_k", "Precision at k", "anomalies among as many highest scores"),
    ("Ranking", "recall_at_1pct_false_alarms", "Recall at 1 % false alarms", "anomalies found"),
    ("Flags", "precision", "Precision", "flagged units that are anomalies"),
    ("Flags", "recall", "Recall", "anomalies that are flagged"),
    ("Flags", "f1", "F1", "harmonic mean of the two"),
    ("Events", "vus_roc", "VUS-ROC", "AUROC that forgives flags near an event"),
    ("Events", "vus_pr", "VUS-PR", "average precision that forgives flags near an event"),
    ("Events", "range_precision", "Range precision", "by flagged runs"),
    ("Events", "range_recall", "Range recall", "by labelled events"),
    ("Events", "range_f1", "Range F1", "harmonic mean of the two"),
    ("Events", "affiliation_precision", "Affiliation precision", "how near flags are to events"),
    ("Events", "affiliation_recall", "Affiliation recall", "how near events are to flags"),
    ("Events", "affiliation_f1", "Affiliation F1", "harmonic mean of the two"),
    ("Pixels", "pixel_auroc", "Pixel AUROC", "a random defective pixel scores above a random normal one"),
    ("Pixels", "pixel_average_precision", "Pixel average precision", "precision averaged over all recalls"),
    ("Pixels", "aupro", "AUPRO", "overlap with every defect, up to 30 % of normal pixels masked"),
    ("Pixels", "dice", "Dice", "of the masks with the true ones"),
    ("Pixels", "iou", "IoU", "of the masks with the true ones"),
    ("Oracle", "oracle_f1", "Best F1", "of all thresholds, chosen with the labels in view"),
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """One figure of merit.

    Attributes
    ----------
    label, meaning : str
        What it is called, and what it says in a few words.
    value : float
        From 0 to 1.
    """

    label: str
    meaning: str
    value: float

    @property
    def text(self) -> str:
        """The value with three decimals; 1.000 only where it is exactly 1."""
        return "> 0.999" if 0.9995 <= self.value < 1.0 else f"{self.value:.3f}"


@dataclass(frozen=True)
class Quality:
    """The figures of merit by group, and what to know of them.

    Attributes
    ----------
    groups : dict of str to list of Figure
        Empty when the labels allow none.
    notes : list of str
        How many labels there are, and how to read the figures.
    classes : list of ClassFigures
        By kind of defect, the hardest first; of images whose folders name kinds.
    """

    groups: dict[str, list[Figure]]
    notes: list[str]
    classes: list[ClassFigures] = field(default_factory=list)


def read_truth(detections: Detections, truth: Any) -> NDArray[np.int64]:
    """Check labels and bring them into the order of the detections.

    Parameters
    ----------
    detections : Detections
        What the labels are for.
    truth : array-like of shape (n,)
        One label a unit, in the order of the user's data: 1 anomaly, 0 normal, -1 unlabelled.

    Returns
    -------
    array of int64
        In the order of ``detections``.

    Raises
    ------
    InputError
        When there is not one label a unit, or a label is none of the three.
    """
    found = np.asarray(truth)
    n = len(detections)
    if found.shape != (n,):
        raise InputError(f"truth: shape {found.shape} was given for {n} units; give one label a unit, shape ({n},).")
    try:
        numbers = found.astype(np.float64)
    except (TypeError, ValueError):
        numbers = np.full(n, np.nan)
    wrong = ~np.isin(numbers, (0.0, 1.0, -1.0))
    if wrong.any():
        first = int(wrong.argmax())
        raise InputError(
            f"truth: {found[first]!r} at position {first} is no label; use 1 (anomaly), 0 (normal) or -1 (unlabelled)."
        )
    labels = numbers.astype(np.int64)
    rows = getattr(detections, "rows", None)
    return labels if rows is None else labels[rows]


def quality(detections: Detections, labels: NDArray[np.int64]) -> Quality:
    """Compute the figures of merit of an answer.

    Parameters
    ----------
    detections : Detections
        The answer.
    labels : array of int64
        As :func:`read_truth` gives them.

    Returns
    -------
    Quality
    """
    from genad.metrics import evaluate

    known = labels >= 0
    anomalies, normals = int((labels == 1).sum()), int((labels == 0).sum())
    basis = (
        f"Against {anomalies:,} units labelled anomalous and {normals:,} labelled normal. "
        "All figures are from 0 to 1; higher is better."
    )
    notes = [basis]
    if not anomalies or not normals:
        return Quality({}, [f"{basis} Figures need both classes, so there are none."])
    series = detections.kind is Kind.SERIES and bool(known.all())
    if detections.kind is Kind.SERIES and not series:
        notes.append("Some steps are unlabelled, so the figures that know time are left out.")
    if series and detections.entity is not None:
        notes.append("The figures that know time read the entities one after the other.")
    found = evaluate(
        labels[known],
        detections.scores[known],
        detections.is_anomaly[known],
        kind="series" if series else "table",
    )
    classes: list[ClassFigures] = []
    if isinstance(detections, ImageDetections):
        found |= pixel_figures(detections) or {}
        classes = class_figures(detections, labels)
    groups: dict[str, list[Figure]] = {}
    for group, key, label, meaning in _FIGURES:
        value = found.get(key)
        if value is not None and np.isfinite(value):
            groups.setdefault(group, []).append(Figure(label, meaning, float(value)))
    notes.append("The oracle figure saw the labels: no threshold set beforehand can promise it.")
    return Quality(groups, notes, classes)
