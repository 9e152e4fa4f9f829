"""A threshold rule that learns from labels: the best F-beta score on those the user gives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from genad.core.calibration._checks import check_number
from genad.core.calibration.fitted import FittedThreshold, plural
from genad.core.calibration.rule import Threshold
from genad.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class BestF(Threshold):
    """Flag at the threshold of the best F-beta score on labels that the user gives.

    When to use: some anomalies are known. When it fails: the labelled samples are few or not
    like those to come. Never give it the labels of the test set: a figure reported on labels
    that chose the threshold is not an estimate of anything.

    Parameters
    ----------
    beta
        Weight of recall against precision, above 0: 1 both alike, 2 recall counts more.

    Raises
    ------
    InputError
        If `beta` is not above 0.

    References
    ----------
    C. van Rijsbergen, Information Retrieval, 1979.

    Examples
    --------
    >>> fitted = BestF().fit([0.1, 0.2, 0.8, 0.9, 0.3], labels=[0, 0, 1, 1, -1])
    >>> fitted.value, fitted.parameters["f_score"]
    (0.5, 1.0)
    """

    needs_labels: ClassVar[bool] = True
    beta: float = 1.0

    def __post_init__(self) -> None:
        check_number("beta", self.beta, 0.0)

    def _fit(self, scores: NDArray[np.float64], labels: ArrayLike | None, unit: str, /) -> FittedThreshold:
        truth = _as_labels(labels, scores.size)
        known = truth >= 0
        order = np.argsort(scores[known], kind="stable")[::-1]
        ranked, anomaly = scores[known][order], truth[known][order] == 1
        hits = np.cumsum(anomaly)
        flagged = np.arange(1, ranked.size + 1)
        # F-beta = (1 + b^2) TP / (b^2 P + flagged), for every number of flagged samples.
        weight = float(self.beta) ** 2
        f_scores = (1.0 + weight) * hits / (weight * hits[-1] + flagged)
        # Equal scores cannot be parted: only the last of a tie is a real choice.
        last = np.append(ranked[1:] < ranked[:-1], True)
        best = int(np.argmax(np.where(last, f_scores, -1.0)))
        value = _between(float(ranked[best]), *ranked[best + 1 : best + 2].tolist())
        n = ranked.size
        promise = (
            f"Best F{self.beta:g} score, {f_scores[best]:.3g}, on the {n} labelled "
            f"{plural(unit, n)} given; new {plural(unit)} may do worse, and no false-alarm rate is "
            "promised."
        )
        return self._result(
            value,
            promise,
            n,
            f_score=float(f_scores[best]),
            precision=float(hits[best] / flagged[best]),
            recall=float(hits[best] / hits[-1]),
        )


def _as_labels(labels: ArrayLike | None, n: int) -> NDArray[np.int64]:
    """Return labels -1, 0, 1 of the right length with both kinds present."""
    if labels is None:
        raise InputError(
            "labels are missing: BestF needs one label per score, 1 anomaly, 0 normal, "
            "-1 unlabelled, and never those of the test set. Without labels use Conformal()."
        )
    array = np.asarray(labels)
    if array.shape != (n,):
        raise InputError(f"labels must have shape ({n},), one per score, found {array.shape}.")
    if array.dtype.kind not in "iubf" or not np.isin(array, (-1, 0, 1)).all():
        raise InputError(
            "labels must be 1 (anomaly), 0 (normal) or -1 (unlabelled), found "
            f"{np.unique(array.astype(str))[:5].tolist()}."
        )
    truth = array.astype(np.int64)
    anomalies, normals = int((truth == 1).sum()), int((truth == 0).sum())
    if not anomalies or not normals:
        raise InputError(
            f"labels must hold at least one anomaly (1) and one normal (0), found {anomalies} and "
            f"{normals}. Label more samples, or use Conformal()."
        )
    return truth


def _between(score: float, below: float | None = None) -> float:
    """Return a threshold under `score`, halfway to the next lower score where there is one."""
    if below is None:
        return math.nextafter(score, -math.inf)
    middle = 0.5 * below + 0.5 * score
    return middle if below <= middle < score else below
