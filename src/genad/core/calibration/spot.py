"""SPOT and DSPOT: the peaks-over-threshold tail of a stream, refitted as it goes."""

from __future__ import annotations

import math
import warnings
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from genad.core.calibration._checks import as_scores, check_count, check_number
from genad.core.calibration.evt import GPD, MIN_PEAKS, fit_gpd, pot_quantile
from genad.core.calibration.streams import StreamRule, by_chance
from genad.errors import CalibrationWarning, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike


@dataclass
class SPOT(StreamRule):
    """Streaming peaks over threshold: flags what a stationary stream exceeds with chance `q`.

    Scores between the peak level and the threshold refine the tail, which is refitted at each
    new peak (a few milliseconds for a thousand peaks). Of a flagged score only the fact that it
    passed the threshold is learnt (a censored peak, so its size has no influence), and only
    while such scores are no more than chance explains (one standard deviation). The published
    algorithm forgets flagged scores; its tail is then fitted to a truncated sample, and it gave
    three times the promised false alarms after 50 000 scores of a stationary stream.

    When to use: alarms so rare that no calibration set can show them. When it fails: the level
    of the scores drifts (use :class:`DSPOT`), or scores repeat a few values.

    Parameters
    ----------
    q
        Chance of a false alarm per score, in (0, 1 - level).
    level
        Share of the first scores below the peak level, in (0, 1).
    max_peaks
        Peaks kept for the fit, newest first; bounds memory and time on an endless stream.

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
    >>> rng = np.random.default_rng(0)
    >>> spot = SPOT(q=1e-3).initialize(rng.exponential(size=5000))
    >>> 6.0 < spot.threshold < 8.0  # the truth is log(1000) = 6.9
    True
    >>> spot.update(2.0), spot.update(20.0)
    (False, True)
    """

    q: float = 1e-4
    level: float = 0.98
    max_peaks: int = 2000

    n_excess: int = field(default=0, init=False)
    peak_level: float = field(default=math.nan, init=False, repr=False)
    _n_past: int = field(default=0, init=False, repr=False)
    _learnt_flagged: int = field(default=0, init=False, repr=False)
    _gpd: GPD | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_number("level", self.level, 0.0, 1.0)
        check_number("q", self.q, 0.0, 1.0 - self.level)
        check_count("max_peaks", self.max_peaks, MIN_PEAKS)
        # Excess over the peak level, and whether it is only a lower bound.
        self._peaks: deque[tuple[float, bool]] = deque(maxlen=self.max_peaks)

    def initialize(self, scores: ArrayLike) -> Self:
        """Start from the scores of a normal past.

        Parameters
        ----------
        scores
            Finite scores (n,), oldest first; a few hundred at least.

        Returns
        -------
        SPOT
            Itself.

        Raises
        ------
        InputError
            If a score is not finite or there is none.

        Warns
        -----
        CalibrationWarning
            If fewer than ten scores lie above the peak level, so that the tail is a guess.
        """
        values = as_scores("scores", scores, finite=True)
        self.peak_level = float(np.quantile(values, self.level))
        peaks = values[values > self.peak_level] - self.peak_level
        self._peaks = deque(((y, False) for y in peaks.tolist()), maxlen=self.max_peaks)
        self.n = self._n_past = values.size
        self.n_excess = peaks.size
        self.n_flagged = self._learnt_flagged = 0
        self._refit()
        if peaks.size < MIN_PEAKS:
            warn_few_peaks(peaks.size, values.size, self.level)
        return self

    @property
    def threshold(self) -> float:
        """Threshold for the next score, never below the peak level."""
        self._started()
        if self._gpd is None or self.q * self.n >= self.n_excess:
            return self.peak_level
        return pot_quantile(self._gpd, self.peak_level, self.q, self.n, self.n_excess)

    def learn(self, score: float, flagged: bool) -> None:
        """Learn from a score that was judged before."""
        if flagged:
            if self._learnt_flagged >= by_chance(self.q * (self.n - self._n_past), deviations=1.0):
                return
            self._learnt_flagged += 1
            score = self.threshold
        self.n += 1
        if flagged or score > self.peak_level:
            self.n_excess += 1
            self._peaks.append((score - self.peak_level, flagged))
            self._refit()

    def _refit(self) -> None:
        known = [y for y, bound in self._peaks if not bound]
        bounds = [y for y, bound in self._peaks if bound]
        self._gpd = fit_gpd(known, bounds) if known else None

    def _state(self) -> dict[str, Any]:
        return {
            **super()._state(),
            "n_excess": self.n_excess,
            "n_past": self._n_past,
            "learnt_flagged": self._learnt_flagged,
            "peak_level": self.peak_level if self.n else None,
            "peaks": [y for y, _ in self._peaks],
            "bounds": [i for i, (_, bound) in enumerate(self._peaks) if bound],
        }

    def restore_state(self, state: Mapping[str, Any]) -> None:
        """Take over the state that :meth:`to_dict` wrote."""
        super().restore_state(state)
        self.n_excess = check_count("n_excess", state["n_excess"], 0)
        self._n_past = check_count("n_past", state["n_past"], 0)
        self._learnt_flagged = check_count("learnt_flagged", state["learnt_flagged"], 0)
        self.peak_level = check_number("peak_level", state["peak_level"]) if self.n else math.nan
        peaks = as_scores("peaks", state["peaks"], allow_empty=True, finite=True).tolist()
        bounds = set(state["bounds"])
        self._peaks = deque(((y, i in bounds) for i, y in enumerate(peaks)), maxlen=self.max_peaks)
        self._refit()


@dataclass
class DSPOT(StreamRule):
    """SPOT of the distance to a moving average, for scores whose level drifts slowly.

    When it fails: a lasting jump. What is flagged does not enter the average, so everything
    after the jump stays flagged until :meth:`initialize` is called again.

    Parameters
    ----------
    q
        Chance of a false alarm per score, in (0, 1 - level).
    level
        Share of the first distances below the peak level, in (0, 1).
    depth
        Number of learnt scores in the moving average, at least 1. Short follows faster.
    max_peaks
        Peaks kept for the fit, newest first.

    Raises
    ------
    InputError
        If a parameter is out of range.

    References
    ----------
    A. Siffer, P.-A. Fouque, A. Termier, C. Largouet, Anomaly detection in streams with extreme
    value theory, KDD 2017, section 4.4.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> drifting = np.linspace(0, 100, 6000) + rng.normal(size=6000)
    >>> dspot = DSPOT(q=1e-3, depth=20).initialize(drifting[:2000])
    >>> bool(dspot.run(drifting[2000:]).mean() < 0.005)
    True
    """

    q: float = 1e-4
    level: float = 0.98
    depth: int = 50
    max_peaks: int = 2000

    _position: int = field(default=0, init=False, repr=False)
    _sum: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        check_count("depth", self.depth, 1)
        self._spot = SPOT(self.q, self.level, self.max_peaks)
        self._window: list[float] = []

    def initialize(self, scores: ArrayLike) -> Self:
        """Start from the scores of a normal past.

        Parameters
        ----------
        scores
            Finite scores (n,), oldest first, more than `depth` of them.

        Returns
        -------
        DSPOT
            Itself.

        Raises
        ------
        InputError
            If a score is not finite or there are not more than `depth` scores.

        Warns
        -----
        CalibrationWarning
            If fewer than ten distances lie above the peak level.
        """
        values = as_scores("scores", scores, finite=True)
        if values.size <= self.depth:
            raise InputError(
                f"scores must hold more than depth={self.depth} scores, found {values.size}. "
                "Give a longer past or a smaller depth."
            )
        windows = np.lib.stride_tricks.sliding_window_view(values[:-1], self.depth)
        self._spot.initialize(values[self.depth :] - windows.mean(axis=1))
        self._window = values[-self.depth :].tolist()
        self._position, self._sum = 0, math.fsum(self._window)
        self.n, self.n_flagged = values.size, 0
        return self

    @property
    def threshold(self) -> float:
        """Threshold for the next score: moving average plus the threshold of the distance."""
        self._started()
        return self._sum / self.depth + self._spot.threshold

    def learn(self, score: float, flagged: bool) -> None:
        """Learn from a score that was judged before."""
        if score == -math.inf:
            raise InputError("score must be finite to enter the moving average, found -inf.")
        self._spot.learn(score - self._sum / self.depth, flagged)
        if flagged:
            return
        self.n += 1
        self._sum += score - self._window[self._position]
        self._window[self._position] = score
        self._position += 1
        if self._position == self.depth:
            # A running sum collects rounding errors; once a round it is taken afresh.
            self._position, self._sum = 0, math.fsum(self._window)

    def _state(self) -> dict[str, Any]:
        return {
            **super()._state(),
            "spot": self._spot.to_dict(),
            "window": list(self._window),
            "position": self._position,
            "sum": self._sum,
        }

    def restore_state(self, state: Mapping[str, Any]) -> None:
        """Take over the state that :meth:`to_dict` wrote."""
        super().restore_state(state)
        self._spot = SPOT.from_dict(state["spot"])
        self._window = as_scores("window", state["window"], allow_empty=True, finite=True).tolist()
        self._position = check_count("position", state["position"], 0)
        self._sum = check_number("sum", state["sum"])
        if self.n and (len(self._window) != self.depth or self._position >= self.depth):
            raise InputError(f"window must hold depth={self.depth} scores.")


def warn_few_peaks(n_peaks: int, n: int, level: float) -> None:
    """Warn that a tail was fitted to too few scores."""
    warnings.warn(
        f"Only {n_peaks} of {n} scores lie above the peak level (level={level:g}), so the tail is "
        f"a guess: at least {MIN_PEAKS} are needed to estimate its shape. Give more calibration "
        "scores or a lower level.",
        CalibrationWarning,
        stacklevel=3,
    )
