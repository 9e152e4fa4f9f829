"""Thresholds that learn from labels: the few scores that are kept weigh as many units as were labelled."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from genad.core.calibration import BestF, FittedThreshold, Threshold
from genad.core.calibration.fitted import plural
from genad.core.inference import Floats
from genad.core.splits import Labels

# Scores of anomalies, each repeated, at most.
_REPEATED = 10**6


@dataclass(frozen=True)
class LabelCounts:
    """How many units are labelled, whatever part of their scores is kept.

    Attributes
    ----------
    normals, anomalies : int
    taken : bool
        Whether none is labelled normal, so that the unlabelled ones are taken for normals.
    """

    normals: int
    anomalies: int
    taken: bool = False

    @classmethod
    def of(cls, labels: Labels) -> LabelCounts:
        """Count the labels of a fit or of a calibration."""
        told = int((labels.values == 0).sum())
        anomalies = int(labels.anomalous.sum())
        return cls(told or len(labels.values) - anomalies, anomalies, taken=not told)

    @classmethod
    def behind(cls, fitted: FittedThreshold, held: int) -> LabelCounts:
        """Return the counts behind a threshold on ``held`` normal scores; older files do not name them."""
        known = fitted.parameters
        return cls(
            int(known.get("normals", held)),
            int(known.get("anomalies", fitted.n - held)),
            # A threshold that saw no anomaly was set on units without labels.
            taken=bool(known.get("taken", fitted.n == held)),
        )


def fit_to_labels(
    rule: Threshold,
    held: Floats,
    anomalous: Floats,
    counts: LabelCounts,
    unit: str,
    more: tuple[Floats, NDArray[np.int64]] | None = None,
) -> FittedThreshold:
    """Fit a rule that needs labels.

    A score such as F weighs one class against the other. The normals are held out in part, and of either class only
    some scores may be kept; so they stand here for all units that were labelled.

    Parameters
    ----------
    rule : Threshold
    held, anomalous : float64 arrays
        Scores of held-out normal units and of labelled anomalies.
    counts : LabelCounts
        How many units they stand for.
    unit : str
        Name of a unit, for the promise.
    more : (float64 array, int array), optional
        Scores and labels of further units, which stand for themselves.

    Returns
    -------
    FittedThreshold
        Its ``n`` counts the scores, its promise and its parameters ``normals`` and ``anomalies`` the labelled units.
    """
    mine, labels = (np.empty(0), np.empty(0, np.int64)) if more is None else more
    others = np.concatenate([standing_for(anomalous, counts.anomalies), mine])
    # Fewer labelled normals than held-out ones: all weigh alike when all are repeated, and no score is lost.
    times = max(1, min(-(-len(held) // max(1, counts.normals)), _REPEATED // max(1, len(others))))
    held_all = standing_for(held, counts.normals * times)
    known = np.ones(len(others), np.int64)
    known[len(others) - len(mine) :] = labels
    fitted = rule.fit(
        np.concatenate([held_all, np.repeat(others, times)]),
        np.concatenate([np.zeros(len(held_all), np.int64), np.repeat(known, times)]),
        unit=unit,
    )
    normals = counts.normals + int((labels == 0).sum())
    anomalies = counts.anomalies + int((labels == 1).sum())
    figures = {"normals": normals, "anomalies": anomalies, "taken": counts.taken}
    promise = fitted.promise
    if isinstance(rule, BestF):
        promise = (
            f"Best F{rule.beta:g} score, {fitted.parameters['f_score']:.3g}, on "
            f"{_told(counts, len(held), normals, anomalies, unit)}; new {plural(unit)} may do worse, and no "
            "false-alarm rate is promised."
        )
    n = len(held) + counts.anomalies + len(mine)
    return replace(fitted, n=n, promise=promise, parameters={**fitted.parameters, **figures})


def _told(counts: LabelCounts, held: int, normals: int, anomalies: int, unit: str) -> str:
    stand = f"{held} held-out {plural(unit, held)} {'stands' if held == 1 else 'stand'} for"
    if counts.taken:
        labelled = normals - counts.normals + anomalies
        taken = f"{counts.normals} unlabelled {plural(unit, counts.normals)} taken as normal"
        return f"the {labelled} labelled {plural(unit, labelled)} given and {taken} ({stand} these)"
    whole = f"the {normals + anomalies} labelled {plural(unit, normals + anomalies)} given"
    return whole if held == counts.normals else f"{whole} ({stand} {counts.normals} normal ones)"


def standing_for(scores: Floats, n: int) -> Floats:
    """Return ``n`` scores, each of those given about equally often, or evenly spread ones where ``n`` is smaller.

    Examples
    --------
    >>> standing_for(np.array([3.0, 1.0]), 4).tolist(), standing_for(np.array([3.0, 1.0, 2.0]), 1).tolist()
    ([1.0, 1.0, 3.0, 3.0], [2.0])
    """
    if not len(scores) or n < 1:
        return scores[:0]
    return np.sort(scores)[(2 * np.arange(n) + 1) * len(scores) // (2 * n)]
