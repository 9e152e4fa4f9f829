"""Thresholds that move with a stream: their common form, and the running conformal test.

All of them (SPOT and DSPOT are in ``spot.py``) score first and learn afterwards. What is flagged
is learnt only in the number that a normal stream would flag by itself: learning all of it lets a
long anomaly become normal, and learning none of it cuts the tail off again and again, so that
the threshold sinks without end. All save to plain JSON and go on with identical decisions.
"""

from __future__ import annotations

import math
import warnings
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from genad.core.calibration._checks import as_scores, check_count, check_number
from genad.core.calibration._saved import MovingRule
from genad.core.calibration.conformal import (
    attainable_alpha,
    conformal_rank,
    samples_needed,
)
from genad.errors import CalibrationWarning, InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass
class StreamRule(MovingRule):
    """Base of the moving thresholds: initialise on past scores, then score one at a time.

    Attributes
    ----------
    n : int
        Scores learnt so far.
    n_flagged : int
        Scores flagged since the start.
    """

    n: int = field(default=0, init=False)
    n_flagged: int = field(default=0, init=False)

    _what: ClassVar[str] = "a stream rule"

    @property
    def threshold(self) -> float:
        """Threshold for the next score, in its units: a score above it is flagged."""
        raise NotImplementedError

    def initialize(self, scores: ArrayLike) -> Self:
        """Start from the scores of a normal past, oldest first."""
        raise NotImplementedError

    def learn(self, score: float, flagged: bool) -> None:
        """Learn from a score that was judged elsewhere; :meth:`update` calls this itself."""
        raise NotImplementedError

    def _state(self) -> dict[str, Any]:
        return {"n": self.n, "n_flagged": self.n_flagged}

    def restore_state(self, state: Mapping[str, Any]) -> None:
        """Take over the state that :meth:`to_dict` wrote."""
        self.n = check_count("n", state["n"], 0)
        self.n_flagged = check_count("n_flagged", state["n_flagged"], 0)

    def update(self, score: float) -> bool:
        """Judge the next score, then learn from it.

        Parameters
        ----------
        score
            The next score; infinite is flagged, NaN is refused.

        Returns
        -------
        bool
            Whether it was above :attr:`threshold` before this call.

        Raises
        ------
        InputError
            If the score is NaN or :meth:`initialize` was not called.
        """
        return self._step(check_number("score", score, closed="lh"))

    def run(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Judge scores in the order given; the same as :meth:`update` on each.

        Parameters
        ----------
        scores
            Scores (m,), oldest first.

        Returns
        -------
        ndarray of bool, shape (m,)
            True where the score is flagged.

        Raises
        ------
        InputError
            If a score is NaN (nothing has been learnt then) or there was no start.
        """
        values: list[float] = as_scores("scores", scores, allow_empty=True).tolist()
        return np.fromiter((self._step(value) for value in values), dtype=bool, count=len(values))

    def _step(self, score: float) -> bool:
        flagged = score > self.threshold
        self.n_flagged += flagged
        self.learn(score, flagged)
        return flagged

    def _started(self) -> None:
        if not self.n:
            raise InputError(
                f"{type(self).__name__} has no past yet. Call initialize(scores) with the "
                "scores of a normal stretch first."
            )


@dataclass
class RunningConformal(StreamRule):
    """Conformal test against a window of the last learnt scores.

    A score is flagged if its p-value in the window is at most `alpha`. Flagged scores enter the
    window only while they are no more of it than chance explains: k + 3 sqrt(k) + 1 with
    k = alpha * window.

    When to use: scores that change slowly against the length of the window. When it fails: a
    long anomaly fills that share of the window, and from then on only about the upper half of
    its scores is flagged; :class:`SPOT` has no such limit.

    Parameters
    ----------
    alpha
        Share of normal scores flagged by mistake, in (0, 1).
    window
        Scores in the window, at least 1; alpha needs 1 / alpha - 1.

    Raises
    ------
    InputError
        If a parameter is out of range.

    References
    ----------
    R. Laxhammar, G. Falkman, Conformal prediction for distribution-independent anomaly detection
    in streaming vessel data, StreamKDD 2010.

    Examples
    --------
    >>> rule = RunningConformal(alpha=0.1, window=19).initialize(range(1, 20))
    >>> rule.threshold, round(rule.p_value(18.0), 2)
    (18.0, 0.15)
    >>> rule.update(30.0), rule.update(0.0)
    (True, False)
    """

    alpha: float = 0.01
    window: int = 1000

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, 0.0, 1.0)
        check_count("window", self.window, 1)
        # Oldest first with the mark "was flagged", and the same scores sorted.
        self._queue: deque[tuple[float, bool]] = deque()
        self._sorted: list[float] = []
        self._held = 0

    def initialize(self, scores: ArrayLike) -> Self:
        """Start from the scores of a normal past, of which the last `window` are kept.

        Parameters
        ----------
        scores
            Scores (n,), oldest first.

        Returns
        -------
        RunningConformal
            Itself.

        Raises
        ------
        InputError
            If a score is NaN or there is none.

        Warns
        -----
        CalibrationWarning
            If `alpha` is below 1 / (n + 1); scores above all of the window are flagged then.
        """
        values: list[float] = as_scores("scores", scores)[-self.window :].tolist()
        self._queue = deque((value, False) for value in values)
        self._sorted, self._held = sorted(values), 0
        self.n, self.n_flagged = len(values), 0
        if not conformal_rank(len(values), self.alpha):
            warn_unattainable(self.alpha, len(values), "score")
        return self

    @property
    def threshold(self) -> float:
        """Threshold for the next score: ``score > threshold`` equals ``p_value <= alpha``."""
        self._started()
        size = len(self._sorted)
        return self._sorted[size - max(1, conformal_rank(size, self.alpha))]

    def p_value(self, score: float) -> float:
        """Return the conformal p-value of a score in the present window, in (0, 1]."""
        self._started()
        value = check_number("score", score, closed="lh")
        size = len(self._sorted)
        return (1.0 + size - bisect_left(self._sorted, value)) / (size + 1.0)

    def learn(self, score: float, flagged: bool) -> None:
        """Learn from a score that was judged before."""
        full = len(self._queue) == self.window
        leaving = full and self._queue[0][1]
        if flagged and self._held - leaving >= by_chance(self.alpha * self.window):
            return
        if full:
            old, mark = self._queue.popleft()
            self._held -= mark
            del self._sorted[bisect_left(self._sorted, old)]
        self._queue.append((score, flagged))
        self._held += flagged
        insort(self._sorted, score)
        self.n += 1

    def _state(self) -> dict[str, Any]:
        return {
            **super()._state(),
            "scores": [_to_json(score) for score, _ in self._queue],
            "flagged": [i for i, (_, mark) in enumerate(self._queue) if mark],
        }

    def restore_state(self, state: Mapping[str, Any]) -> None:
        """Take over the state that :meth:`to_dict` wrote."""
        super().restore_state(state)
        values = as_scores("scores", [float(s) for s in state["scores"]], allow_empty=True)
        if values.size > self.window or (self.n and not values.size):
            raise InputError(f"the window must hold 1 to {self.window} scores.")
        marks = set(state["flagged"])
        self._queue = deque((v, i in marks) for i, v in enumerate(values.tolist()))
        self._sorted = sorted(values.tolist())
        self._held = sum(mark for _, mark in self._queue)


def stream_from_dict(data: Mapping[str, Any]) -> StreamRule:
    """Rebuild any moving threshold from what its ``to_dict`` returned.

    Parameters
    ----------
    data
        The dictionary.

    Returns
    -------
    StreamRule
        The rule, with the same next decisions.

    Raises
    ------
    InputError
        If the rule is not known or its state is broken.

    Examples
    --------
    >>> stream_from_dict(RunningConformal(alpha=0.1).to_dict())
    RunningConformal(n=0, n_flagged=0, alpha=0.1, window=1000)
    """
    return StreamRule.from_dict(data)


def warn_unattainable(alpha: float, n: int, unit: str) -> None:
    """Warn that `n` calibration samples cannot reach the level `alpha`."""
    warnings.warn(
        f"alpha={alpha:g} is not attainable with {n} calibration {unit}(s): the lowest level is "
        f"{attainable_alpha(n):.3g}, and that one is used. Hold out at least "
        f"{samples_needed(alpha)}, or raise alpha.",
        CalibrationWarning,
        stacklevel=3,
    )


def by_chance(expected: float, deviations: float = 3.0) -> int:
    """Return a count that a Poisson number of this mean passes only by so many deviations."""
    return int(expected + deviations * math.sqrt(expected)) + 1


def _to_json(value: float) -> float | str:
    """Return `value`, or its name if strict JSON has no number for it."""
    return value if math.isfinite(value) else str(value)
