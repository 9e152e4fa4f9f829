"""A conformal test martingale: evidence, gathered score by score, that a calibration no longer holds."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from genad.core.calibration._checks import as_scores, check_count, check_number
from genad.core.calibration._saved import MovingRule
from genad.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

# The bets: on small p-values, on nothing, on large ones.
_BETS = np.array([-1.0, 0.0, 1.0])


class DriftRule(MovingRule):
    """Base of the rules that watch for drift."""

    _what = "a drift rule"


@dataclass
class ConformalMartingale(DriftRule):
    """Bet against the scores being like those of the calibration, and say when the bets have won too much.

    Each new score gets its rank among the calibration scores and all scores since, ties broken at random: while old
    and new scores come in no particular order, these ranks are independent and uniform, whatever their distribution.
    A player starts with 1 and bets on them being small or large, changing sides now and then. Where nothing has
    changed, the capital ever reaches ``1 / alpha`` with a probability of at most ``alpha``, however long one watches.

    **When to use.** Beside a detector in service: an alarm says that normal data have changed, or that anomalies are
    too many to be exceptions, so that thresholds and p-values mean nothing any more; calibrate or fit anew.

    **When it fails.** A change that leaves the distribution of scores as it is goes unseen. New scores join those that
    later ones are ranked among, so a change is seen soon after it happens or not at all; all of them are kept, 8 bytes
    each. Neighbouring scores of series depend on each other, which is a change of its own kind: feed one score a
    window, not one a step.

    Parameters
    ----------
    alpha
        Probability of ever raising a false alarm, in (0, 1).
    jump
        Share of the capital that changes sides with each score, in (0, 1).
    seed
        Of the random ranks of ties, at least 0.

    Attributes
    ----------
    n : int
        Scores watched since the start.
    log_capital : float
        Natural logarithm of the present capital; 0 at the start.
    alarm_at : int or None
        Which score, counted from 1, raised the alarm; None while there is none.

    Raises
    ------
    InputError
        If a parameter is out of range.

    References
    ----------
    V. Vovk, I. Petej, I. Nouretdinov, E. Ahlberg, L. Carlsson, A. Gammerman, Retrain or not retrain: conformal test
    martingales for change-point detection, COPA, 2021.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> watch = ConformalMartingale(alpha=0.01).initialize(rng.normal(size=500))
    >>> bool(watch.run(rng.normal(size=500)).any())
    False
    >>> bool(watch.run(rng.normal(1.5, 1.0, size=100)).any()), watch.alarm_at
    (True, 528)
    """

    alpha: float = 0.01
    jump: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, 0.0, 1.0)
        check_number("jump", self.jump, 0.0, 1.0)
        check_count("seed", self.seed, 0)
        self._sorted: list[float] = []
        self._begin()

    def _begin(self) -> None:
        self._shares = np.full(len(_BETS), 1.0 / len(_BETS))
        self._random = np.random.default_rng(self.seed)
        self.n = 0
        self.log_capital = 0.0
        self.alarm_at: int | None = None

    def initialize(self, scores: ArrayLike) -> Self:
        """Start from the scores of the calibration.

        Parameters
        ----------
        scores
            Scores (n,) of normal samples; the larger n, the sooner a change is seen.

        Returns
        -------
        ConformalMartingale
            Itself.

        Raises
        ------
        InputError
            If a score is NaN or there is none.
        """
        self._sorted = sorted(as_scores("scores", scores).tolist())
        self._begin()
        return self

    @property
    def alarm(self) -> bool:
        """Whether the capital has ever reached ``1 / alpha``."""
        return self.alarm_at is not None

    def update(self, score: float) -> bool:
        """Watch one more score and return whether the alarm is on.

        Raises
        ------
        InputError
            If the score is NaN, or :meth:`initialize` was not called.
        """
        if not self._sorted:
            raise InputError("ConformalMartingale has no calibration yet. Call initialize(scores) with normal scores.")
        value = check_number("score", score, closed="lh")
        low, high = bisect_left(self._sorted, value), bisect_right(self._sorted, value)
        insort(self._sorted, value)
        above, ties = len(self._sorted) - 1 - high, high - low + 1
        p = (above + float(self._random.random()) * ties) / len(self._sorted)
        # The capital is kept as a logarithm and the sides as shares of it: it may pass what a float can hold.
        moved = (1.0 - self.jump) * self._shares + self.jump / len(_BETS)
        won = moved * (1.0 + _BETS * (p - 0.5))
        total = float(won.sum())
        self._shares = won / total
        self.log_capital += math.log(total)
        self.n += 1
        if self.alarm_at is None and self.log_capital >= -math.log(self.alpha):
            self.alarm_at = self.n
        return self.alarm

    def run(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Watch scores in their order and return, for each, whether the alarm is on by then."""
        values = as_scores("scores", scores, allow_empty=True)
        return np.fromiter((self.update(value) for value in values.tolist()), bool, len(values))

    def _state(self) -> dict[str, Any]:
        return {
            "scores": list(self._sorted),
            "shares": self._shares.tolist(),
            "n": self.n,
            "log_capital": self.log_capital,
            "alarm_at": self.alarm_at,
            "random": self._random.bit_generator.state,
        }

    def restore_state(self, state: Mapping[str, Any]) -> None:
        """Take over the state that :meth:`to_dict` wrote."""
        self._sorted = sorted(as_scores("scores", state["scores"], allow_empty=True).tolist())
        shares = np.asarray(state["shares"], np.float64)
        if shares.shape != _BETS.shape or not np.all(shares >= 0) or not abs(float(shares.sum()) - 1.0) < 1e-6:
            raise InputError(f"shares: {len(_BETS)} shares that sum to 1 were expected, found {shares.tolist()}.")
        self._shares = shares
        self.n = check_count("n", state["n"], 0)
        self.log_capital = check_number("log_capital", state["log_capital"])
        alarm = state["alarm_at"]
        self.alarm_at = None if alarm is None else check_count("alarm_at", alarm, 1)
        self._random = np.random.default_rng(self.seed)
        self._random.bit_generator.state = state["random"]
