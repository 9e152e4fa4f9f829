"""Threshold rules: what ``threshold=`` of a detector accepts.

A rule is a frozen dataclass of its parameters. ``rule.fit(scores)`` returns a
:class:`~genad.core.calibration.fitted.FittedThreshold`: the number, and the promise in words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from genad.core.calibration._checks import as_scores, check_count, check_number
from genad.core.calibration.best_f import BestF
from genad.core.calibration.conformal import attainable_alpha, conformal_rank, kth_largest
from genad.core.calibration.evt import MIN_PEAKS, fit_gpd, pot_quantile
from genad.core.calibration.fitted import FittedThreshold, percent, plural
from genad.core.calibration.rule import Threshold
from genad.core.calibration.spot import DSPOT, SPOT, warn_few_peaks
from genad.core.calibration.streams import RunningConformal, StreamRule, warn_unattainable
from genad.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Adaptive", "BestF", "Conformal", "FixedValue", "PeaksOverThreshold", "Quantile"]


@dataclass(frozen=True)
class Conformal(Threshold):
    """Flag what at most a share `alpha` of normal samples would exceed (split-conformal).

    When to use: the default. When it fails: the calibration scores hold anomalies (fewer are
    found), come from training samples, or normal itself has changed since.

    With n calibration scores no level below 1 / (n + 1) can be promised. If `alpha` is lower,
    scores above every calibration score are flagged, at level 1 / (n + 1); a warning and the
    promise say so.

    Parameters
    ----------
    alpha
        Share of normal samples flagged by mistake, in (0, 1).

    Raises
    ------
    InputError
        If `alpha` is outside (0, 1).

    References
    ----------
    S. Bates et al., Testing for outliers with conformal p-values, Annals of Statistics, 2023.

    Examples
    --------
    >>> fitted = Conformal(alpha=0.05).fit(range(1, 101))
    >>> fitted.value
    96.0
    >>> print(fitted.promise)
    At most 5 % of normal rows are flagged by mistake, on average
    (split-conformal, 100 held-out rows).
    """

    alpha: float = 0.01

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, 0.0, 1.0)

    def _fit(self, scores: NDArray[np.float64], _labels: ArrayLike | None, unit: str, /) -> FittedThreshold:
        n = scores.size
        lowest = attainable_alpha(n)
        rank, level, asked = conformal_rank(n, self.alpha), self.alpha, ""
        if not rank:
            warn_unattainable(self.alpha, n, unit)
            rank, level, asked = 1, lowest, f"; {percent(self.alpha)} was asked for"
        promise = (
            f"At most {percent(level)} of normal {plural(unit)} are flagged by mistake, on average "
            f"(split-conformal, {n} held-out {plural(unit, n)}{asked})."
        )
        return self._result(kth_largest(scores, rank), promise, n, lowest, level=level)


@dataclass(frozen=True)
class Quantile(Threshold):
    """Flag a share `contamination` of the calibration samples themselves.

    When to use: the calibration samples hold about that share of anomalies. When it fails: the
    share is only a guess; new samples carry no promise.

    Parameters
    ----------
    contamination
        Largest share of calibration samples that is flagged, in [0, 1). With 0 the threshold is
        the highest calibration score and none of them is flagged.

    Raises
    ------
    InputError
        If `contamination` is outside [0, 1).

    Examples
    --------
    >>> Quantile(contamination=0.2).fit([1.0, 2.0, 3.0, 4.0, 5.0]).value
    4.0
    """

    holdout: ClassVar[bool] = False
    contamination: float = 0.05

    def __post_init__(self) -> None:
        check_number("contamination", self.contamination, 0.0, 1.0, closed="l")

    def _fit(self, scores: NDArray[np.float64], _labels: ArrayLike | None, unit: str, /) -> FittedThreshold:
        n = scores.size
        k = math.floor(self.contamination * n)
        if (k + 1) / n <= self.contamination:  # 0.29 * 100 is 28.999... in floating point
            k += 1
        value = kth_largest(scores, k + 1)
        promise = (
            f"At most {percent(self.contamination)} of the {n} calibration {plural(unit, n)} are "
            f"flagged; nothing is promised for new {plural(unit)}."
        )
        return self._result(value, promise, n, n_flagged=int((scores > value).sum()))


@dataclass(frozen=True)
class PeaksOverThreshold(Threshold):
    """Flag what normal samples exceed with chance `q`, by extrapolating the tail of the scores.

    When to use: `q` is far below 1 / n, where :class:`Conformal` cannot go. When it fails: the
    tail of the scores is not smooth (few distinct values, anomalies among them). The promise is
    an estimate, not a bound.

    Parameters
    ----------
    q
        Chance that a normal sample is flagged, in (0, 1 - level).
    level
        Share of calibration scores below the level where the tail starts, in (0, 1).

    Raises
    ------
    InputError
        If a parameter is out of range.

    References
    ----------
    A. Siffer, P.-A. Fouque, A. Termier, C. Largouet, Anomaly detection in streams with extreme
    value theory, KDD 2017.

    Examples
    --------
    >>> import numpy as np
    >>> scores = np.random.default_rng(0).exponential(size=5000)
    >>> bool(6.0 < PeaksOverThreshold(q=1e-3).fit(scores).value < 8.0)  # truth: 6.9
    True
    """

    q: float = 1e-3
    level: float = 0.98

    def __post_init__(self) -> None:
        check_number("level", self.level, 0.0, 1.0)
        check_number("q", self.q, 0.0, 1.0 - self.level)

    def _fit(self, scores: NDArray[np.float64], _labels: ArrayLike | None, unit: str, /) -> FittedThreshold:
        n = scores.size
        scores = as_scores("scores", scores, finite=True)
        start = float(np.quantile(scores, self.level))
        peaks = scores[scores > start] - start
        if peaks.size < MIN_PEAKS:
            warn_few_peaks(peaks.size, n, self.level)
        figures: dict[str, Any] = {"peak_level": start, "n_excess": peaks.size}
        value = start
        # Many scores tied at the start can leave fewer peaks than q asks for: the start is then
        # exceeded less often than q already.
        if peaks.size and self.q * n <= peaks.size:
            tail = fit_gpd(peaks)
            value = pot_quantile(tail, start, self.q, n, peaks.size)
            figures.update(shape=tail.shape, scale=tail.scale)
        promise = (
            f"About {percent(self.q)} of normal {plural(unit)} are flagged by mistake, an estimate "
            f"from the tail of {n} held-out {plural(unit, n)} (peaks over threshold, "
            f"{peaks.size} {plural('peak', peaks.size)})."
        )
        return self._result(value, promise, n, **figures)


@dataclass(frozen=True)
class FixedValue(Threshold):
    """Flag scores above a value that the user knows.

    Parameters
    ----------
    value
        The threshold, in units of the score; not NaN, may be infinite.

    Raises
    ------
    InputError
        If `value` is NaN.

    Examples
    --------
    >>> FixedValue(3.5).fit([1.0, 2.0]).value
    3.5
    """

    holdout: ClassVar[bool] = False
    value: float = 0.0

    def __post_init__(self) -> None:
        check_number("value", self.value, closed="lh")

    def _fit(self, scores: NDArray[np.float64], _labels: ArrayLike | None, unit: str, /) -> FittedThreshold:
        value = float(self.value)
        promise = f"Flags every {unit} that scores above {value:g}, the value given; no false-alarm rate is promised."
        return FittedThreshold(value, type(self).__name__, promise, scores.size)


@dataclass(frozen=True)
class Adaptive(Threshold):
    """A threshold that moves with a stream: each score is judged first and learnt afterwards.

    :meth:`fit` gives the threshold at the end of calibration; :meth:`stream` gives the object
    that goes on from there.

    When to use: what is normal changes slowly. When it fails: slow anomalies, which are learnt.

    Parameters
    ----------
    alpha
        Share of normal samples flagged by mistake, in (0, 1); for the tail methods in
        (0, 1 - level).
    window
        Scores remembered by ``"conformal"``, at least 1.
    method
        ``"conformal"`` (window of past scores, any drift slow against the window), ``"spot"``
        (tail of a stationary stream, for tiny alpha), ``"dspot"`` (tail around a moving average).
    level
        Share of scores below the level where the tail starts, for the tail methods.
    depth
        Scores in the moving average of ``"dspot"``.

    Raises
    ------
    InputError
        If a parameter is out of range.

    Examples
    --------
    >>> rule = Adaptive(alpha=0.05, window=99)
    >>> stream = rule.stream(range(99))
    >>> stream.update(97.5), stream.update(3.0)
    (True, False)
    """

    alpha: float = 0.01
    window: int = 1000
    method: Literal["conformal", "spot", "dspot"] = "conformal"
    level: float = 0.98
    depth: int = 50

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, 0.0, 1.0)
        check_count("window", self.window, 1)
        check_number("level", self.level, 0.0, 1.0)
        check_count("depth", self.depth, 1)
        if self.method not in {"conformal", "spot", "dspot"}:
            raise InputError(f"method must be 'conformal', 'spot' or 'dspot', found {self.method!r}.")
        if self.method != "conformal" and self.alpha >= 1.0 - self.level:
            raise InputError(
                f"alpha must be below 1 - level = {1.0 - self.level:g} for method "
                f"{self.method!r}, found {self.alpha:g}. Take a lower level or alpha, or "
                "method='conformal'."
            )

    def stream(self, scores: ArrayLike) -> StreamRule:
        """Return the moving threshold, started on past scores.

        Parameters
        ----------
        scores
            Scores (n,) of a normal past, oldest first.

        Returns
        -------
        StreamRule
            A :class:`RunningConformal`, :class:`SPOT` or :class:`DSPOT`.

        Raises
        ------
        InputError
            If there are too few scores or one is NaN.

        Warns
        -----
        CalibrationWarning
            If there are too few scores for `alpha`.
        """
        if self.method == "conformal":
            return RunningConformal(self.alpha, self.window).initialize(scores)
        if self.method == "spot":
            return SPOT(self.alpha, self.level).initialize(scores)
        return DSPOT(self.alpha, self.level, self.depth).initialize(scores)

    def _fit(self, scores: NDArray[np.float64], _labels: ArrayLike | None, unit: str, /) -> FittedThreshold:
        rule = self.stream(scores)
        level, attainable = self.alpha, None
        if isinstance(rule, RunningConformal):
            attainable = attainable_alpha(rule.n)
            level = max(level, attainable)
        promise = (
            f"About {percent(level)} of normal {plural(unit)} are flagged by mistake while normal "
            f"changes slowly (adaptive, {self.method}, started on {rule.n} {plural(unit, rule.n)})."
        )
        return self._result(rule.threshold, promise, rule.n, attainable)
