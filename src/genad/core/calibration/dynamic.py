"""A threshold without a distribution: the one whose crossing makes the rest of the errors look calmest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from genad.core.calibration._checks import as_scores, check_count, check_number
from genad.core.calibration.fitted import FittedThreshold, plural
from genad.core.calibration.rule import Threshold

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

# Candidate thresholds, in standard deviations above the mean, and the one taken when none of them parts anything off.
_CANDIDATES = np.arange(2.5, 12.0, 0.5)
_FALLBACK = 12.0
# More sequences, or a larger share of flagged scores, than this cannot be anomalies.
_MOST_SEQUENCES, _MOST_FLAGGED = 5, 0.5
# A stretch of scores is judged anew this many times while it passes.
_STRIDES = 30


@dataclass(frozen=True)
class NonparametricDynamicThreshold(Threshold):
    """Flag above the value whose removal calms the remaining scores most, for each flag that it costs.

    Among ``mean + z * std`` for z from 2.5 to 11.5 the threshold maximises:

        (drop of the mean / mean + drop of the std / std) / (sequences^2 + flagged scores)

    when the scores above it are left out; flagged scores are counted with ``buffer`` neighbours on each side, and a
    candidate is refused if it flags more than 5 sequences or half of the scores. If none is left it is 12 standard
    deviations above the mean.

    :meth:`fit` gives one such value, from the calibration scores. :meth:`flag` is the moving form of the paper: it
    judges the scores of a stream within a sliding window of their own, prunes what hardly stands out, and looks at
    unusually low scores as well.

    When to use: smooth scores of a stream with a few anomalies, where no share of false alarms can be named. When it
    fails: it promises no such share; calibration scores without any anomaly put the value far up, where weak anomalies
    pass; scores with many spikes have more than 5 sequences above every candidate. The criterion rewards one long
    alarm over several short ones.

    Parameters
    ----------
    window
        Scores judged together by :meth:`flag`, at least 30; all of a shorter stream.
    buffer
        Neighbours that are flagged with a score, on each side, at least 0.
    prune
        Least relative step down in the sorted peaks of sequences that parts anomalies from the rest, in [0, 1).
    ignore
        Scores at the beginning of a stream that are never flagged, at least 0.
    least
        Scores up to this are never flagged, in units of the score. The authors take 5 % of the range of the values.

    Raises
    ------
    InputError
        If a parameter is out of range.

    References
    ----------
    K. Hundman et al., Detecting spacecraft anomalies using LSTMs and nonparametric dynamic thresholding, KDD 2018.

    Examples
    --------
    >>> import numpy as np
    >>> scores = np.abs(np.random.default_rng(0).normal(size=2000))
    >>> scores[1500:1520] += 20
    >>> rule = NonparametricDynamicThreshold(buffer=10)
    >>> bool(4 < rule.fit(scores).value < 20)
    True
    >>> np.flatnonzero(rule.flag(scores))[[0, -1]].tolist()
    [1490, 1529]
    """

    window: int = 2100
    buffer: int = 100
    prune: float = 0.13
    ignore: int = 0
    least: float = 0.0

    def __post_init__(self) -> None:
        check_count("window", self.window, _STRIDES)
        check_count("buffer", self.buffer, 0)
        check_number("prune", self.prune, 0.0, 1.0, closed="l")
        check_count("ignore", self.ignore, 0)
        check_number("least", self.least, 0.0, closed="l")

    def _fit(self, scores: NDArray[np.float64], _labels: ArrayLike | None, unit: str, /) -> FittedThreshold:
        scores = as_scores("scores", scores, finite=True)
        n = scores.size
        value, z = self._epsilon(scores)
        promise = (
            f"Flags every {unit} that scores {z:g} standard deviations above the mean of {n} {plural(unit, n)}, the "
            "dynamic threshold of their scores; no false-alarm rate is promised."
        )
        return self._result(max(value, float(self.least)), promise, n, deviations=z)

    def flag(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Flag the scores of a stream by thresholds that move along with it.

        Parameters
        ----------
        scores
            Finite scores (n,), oldest first.

        Returns
        -------
        ndarray of bool
            One flag a score; True where any of the windows that hold it says so.

        Raises
        ------
        InputError
            If there is no score, or one is not finite.
        """
        values = as_scores("scores", scores, finite=True)
        n = values.size
        size, stride = min(self.window, n), max(1, self.window // _STRIDES)
        flags = np.zeros(n, bool)
        firsts = list(range(0, n - size, stride))
        for first in [*firsts, n - size]:
            part = values[first : first + size]
            flags[first : first + size] |= self._anomalous(part, low=self.least)
            # Mirrored at their mean, unusually low errors are unusually high.
            flags[first : first + size] |= self._anomalous(2.0 * part.mean() - part, low=-np.inf)
        flags[: self.ignore] = False
        return flags

    def _epsilon(self, scores: NDArray[np.float64]) -> tuple[float, float]:
        """Return the threshold of some scores, and how many standard deviations it lies above their mean."""
        mean, std = float(scores.mean()), float(scores.std())
        best, chosen = -np.inf, _FALLBACK
        if std == 0.0 or mean == 0.0:
            return mean + chosen * std, chosen
        for z in _CANDIDATES.tolist():
            above = scores > mean + z * std
            if not above.any():
                break
            kept = scores[~above]
            wide = _dilated(above, self.buffer)
            sequences = _count_runs(wide)
            if sequences > _MOST_SEQUENCES or wide.sum() >= _MOST_FLAGGED * scores.size:
                continue
            drop = (mean - kept.mean()) / abs(mean) + (std - kept.std()) / std
            gain = drop / (sequences**2 + int(wide.sum()))
            if gain >= best:
                best, chosen = gain, z
        return mean + chosen * std, chosen

    def _anomalous(self, scores: NDArray[np.float64], low: float) -> NDArray[np.bool_]:
        """Flag the sequences above the threshold of a window whose peaks stand out."""
        epsilon, _ = self._epsilon(scores)
        wide = _dilated((scores > epsilon) & (scores > low), self.buffer)
        if not wide.any():
            return wide
        starts, stops = _runs(wide)
        peaks = np.maximum.reduceat(np.append(scores, -np.inf), np.stack([starts, stops], 1).ravel())[::2]
        usual = float(scores[~wide].max()) if not wide.all() else 0.0
        order = np.argsort(peaks)[::-1]
        ladder = np.append(peaks[order], usual)
        stands_out = (ladder[:-1] - ladder[1:]) >= self.prune * np.abs(ladder[:-1])
        # Whatever lies below the last large step down belongs to the usual scores.
        kept = int(np.flatnonzero(stands_out)[-1]) + 1 if stands_out.any() else 0
        for i in order[kept:]:
            wide[starts[i] : stops[i]] = False
        return wide


def _dilated(flags: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """Flag `by` neighbours on each side of every flag."""
    n = flags.size
    change = np.zeros(n + 1, np.int64)
    where = np.flatnonzero(flags)
    np.add.at(change, np.maximum(where - by, 0), 1)
    np.add.at(change, np.minimum(where + by + 1, n), -1)
    return np.asarray(np.cumsum(change[:-1]) > 0)


def _runs(flags: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where unbroken runs of flags start, and where they have stopped."""
    edges = np.diff(np.concatenate([[0], flags.astype(np.int8), [0]]))
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)


def _count_runs(flags: NDArray[np.bool_]) -> int:
    return len(_runs(flags)[0])
