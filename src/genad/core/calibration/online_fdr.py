"""False discovery rate of an endless stream: LORD++, SAFFRON and ADDIS.

Each p-value is judged when it arrives, at a level fixed by the past alone. All three are one
formula with different clocks. A test spends; a discovery at clock tick c_j earns a new spending
sequence that starts there. With b the budget earned by a discovery and w the wealth at the start,

    level = w g(1 + c) + (b - w) g(1 + c - c_1) + b * sum over later discoveries g(1 + c - c_j)

where g is a sequence of sum at most 1 and c is the clock. LORD++ ticks at every test; SAFFRON
does not tick for p <= lambda (likely anomalies cost nothing); ADDIS ignores p > tau as well
(p-values of clearly normal samples, useful when null p-values are conservative).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from genad.core.calibration._checks import check_count, check_number
from genad.core.calibration._saved import MovingRule
from genad.core.calibration.fdr import as_p_values
from genad.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray


@dataclass
class OnlineFDR(MovingRule, ABC):
    """Base of the online procedures: the clock, the wealth formula and the saved state.

    Parameters
    ----------
    alpha
        False discovery rate to keep, in (0, 1).
    wealth
        Wealth at the start, above 0 and at most the budget of a discovery; `None` takes half of
        it. More wealth finds early anomalies, less keeps something for later ones.

    Attributes
    ----------
    n_tests, n_discoveries : int
        p-values seen, and how many of them were flagged.

    Notes
    -----
    The promise is for independent p-values. Conformal p-values that share one calibration set
    are slightly dependent: take a calibration set much larger than 1 / level. They cannot fall
    below 1 / (n + 1) either, so a level under that never flags anything.

    Cost of an update: one pass over the clock ticks that hold a discovery, in numpy; nothing is
    recomputed when the clock stands still. 100 000 updates with 10 000 discoveries take one to
    three seconds on one core; LORD++ on a stream of nothing but discoveries, the worst case,
    about twenty. Memory: two numbers per such tick.
    """

    alpha: float = 0.05
    wealth: float | None = None

    n_tests: int = field(default=0, init=False)
    n_discoveries: int = field(default=0, init=False)
    _clock: int = field(default=0, init=False, repr=False)
    _first: int | None = field(default=None, init=False, repr=False)
    _used: int = field(default=0, init=False, repr=False)
    _level: float | None = field(default=None, init=False, repr=False, compare=False)

    _what: ClassVar[str] = "an online FDR procedure"

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, 0.0, 1.0)
        self._check()
        if self.wealth is not None:
            check_number("wealth", self.wealth, 0.0, self._budget, closed="h")
        # Discoveries after the first: the tick of each and how many fell on it, in buffers that
        # double, because SAFFRON and ADDIS put many discoveries on one tick.
        self._ticks = np.zeros(64, dtype=np.int64)
        self._counts = np.zeros(64)
        self._table = self._sequence(np.arange(1, 257, dtype=np.float64))

    @property
    @abstractmethod
    def _budget(self) -> float:
        """Wealth that one discovery earns."""

    @property
    @abstractmethod
    def _cap(self) -> float:
        """Highest level that is ever used."""

    @abstractmethod
    def _check(self) -> None:
        """Check the parameters a subclass adds."""

    @abstractmethod
    def _spends(self, p: float) -> bool:
        """Whether a test with this p-value advances the clock."""

    @staticmethod
    @abstractmethod
    def _sequence(j: NDArray[np.float64]) -> NDArray[np.float64]:
        """Spending sequence g(j) for j = 1, 2, ...; non-increasing, of sum at most 1."""

    @property
    def level(self) -> float:
        """Level at which the next p-value will be tested, in (0, 1)."""
        if self._level is None:
            c, budget = self._clock, self._budget
            if c >= self._table.size:
                size = 2 * max(c, self._table.size)
                self._table = self._sequence(np.arange(1, size + 1, dtype=np.float64))
            start = 0.5 * budget if self.wealth is None else self.wealth
            total = start * float(self._table[c])
            if self._first is not None:
                total += (budget - start) * float(self._table[c - self._first])
                later = self._table.take(c - self._ticks[: self._used])
                total += budget * float(later @ self._counts[: self._used])
            self._level = min(self._cap, total)
        return self._level

    def update(self, p: float) -> bool:
        """Judge the next p-value, then learn from it.

        Parameters
        ----------
        p
            p-value, in [0, 1].

        Returns
        -------
        bool
            Whether the sample is flagged: ``p <= level`` with the level before this call.

        Raises
        ------
        InputError
            If `p` is NaN or outside [0, 1].
        """
        value = check_number("p", p, 0.0, 1.0, closed="lh")
        return self._step(value)

    def run(self, p: ArrayLike) -> NDArray[np.bool_]:
        """Judge p-values in the order given; the same as :meth:`update` on each.

        Parameters
        ----------
        p
            p-values (m,), in [0, 1].

        Returns
        -------
        ndarray of bool, shape (m,)
            True where the sample is flagged.

        Raises
        ------
        InputError
            If a p-value is NaN or outside [0, 1]; nothing has been learnt then.
        """
        values: list[float] = as_p_values("p", p).tolist()
        return np.fromiter((self._step(value) for value in values), dtype=bool, count=len(values))

    def _step(self, p: float) -> bool:
        flagged = p <= self.level
        self.n_tests += 1
        if self._spends(p):
            self._clock += 1
            self._level = None
        if flagged:
            self.n_discoveries += 1
            self._level = None
            self._earn()
        return flagged

    def _earn(self) -> None:
        """Note a discovery on the current tick."""
        if self._first is None:
            self._first = self._clock
            return
        if self._used and self._ticks[self._used - 1] == self._clock:
            self._counts[self._used - 1] += 1.0
            return
        if self._used == self._ticks.size:
            self._ticks = np.concatenate([self._ticks, np.zeros_like(self._ticks)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        self._ticks[self._used] = self._clock
        self._counts[self._used] = 1.0
        self._used += 1

    def _state(self) -> dict[str, Any]:
        return {
            "n_tests": self.n_tests,
            "n_discoveries": self.n_discoveries,
            "clock": self._clock,
            "first": self._first,
            "ticks": self._ticks[: self._used].tolist(),
            "counts": self._counts[: self._used].tolist(),
        }

    def restore_state(self, state: Mapping[str, Any]) -> None:
        """Take over the state that :meth:`to_dict` wrote."""
        self.n_tests = check_count("n_tests", state["n_tests"], 0)
        self.n_discoveries = check_count("n_discoveries", state["n_discoveries"], 0)
        self._clock = check_count("clock", state["clock"], 0)
        first = state["first"]
        self._first = None if first is None else check_count("first", first, 0)
        ticks = np.asarray(state["ticks"], dtype=np.int64).ravel()
        counts = np.asarray(state["counts"], dtype=np.float64).ravel()
        past = np.append(ticks, 0 if first is None else first)
        if ticks.size != counts.size or (past < 0).any() or (past > self._clock).any():
            raise InputError("ticks and counts must have one length, and ticks lie in 0 ... clock.")
        self._used = ticks.size
        self._ticks = np.concatenate([ticks, np.zeros(64, dtype=np.int64)])
        self._counts = np.concatenate([counts, np.zeros(64)])


@dataclass
class LORD(OnlineFDR):
    """LORD++: levels based on recent discoveries.

    When to use: the plain choice, for any independent p-values. When it fails: with many
    anomalies :class:`SAFFRON` finds more; after a long quiet time levels are tiny.

    Parameters
    ----------
    alpha
        False discovery rate to keep, in (0, 1).
    wealth
        Wealth at the start, in (0, alpha]; `None` takes alpha / 2.

    References
    ----------
    A. Javanmard, A. Montanari, Online rules for control of false discovery rate and false
    discovery exceedance, Annals of Statistics, 2018.
    A. Ramdas, F. Yang, M. Wainwright, M. Jordan, Online control of the false discovery rate with
    decaying memory, NeurIPS 2017.

    Examples
    --------
    >>> stream = LORD(alpha=0.1)
    >>> stream.run([1e-6, 0.4, 1e-3, 0.9]).tolist()
    [True, False, True, False]
    >>> round(stream.level, 5)
    0.00193
    """

    def _check(self) -> None:
        """Accept: there is no further parameter."""

    @property
    def _budget(self) -> float:
        return self.alpha

    @property
    def _cap(self) -> float:
        return self.alpha

    def _spends(self, p: float) -> bool:  # noqa: ARG002
        return True

    @staticmethod
    def _sequence(j: NDArray[np.float64]) -> NDArray[np.float64]:
        # Equation 31 of Javanmard and Montanari; the constant makes the sum 1.
        values: NDArray[np.float64] = 0.07720838 * np.log(np.maximum(j, 2.0)) / (j * np.exp(np.sqrt(np.log(j))))
        return values


@dataclass
class SAFFRON(OnlineFDR):
    """SAFFRON: spends wealth only on tests that look normal.

    When to use: anomalies are not rare (some per cent and more). When it fails: null p-values
    are conservative (pile up near 1); use :class:`ADDIS` then.

    Parameters
    ----------
    alpha
        False discovery rate to keep, in (0, 1).
    wealth
        Wealth at the start, in (0, (1 - lambda_) alpha]; `None` takes half of that.
    lambda_
        p-values up to here are candidates and cost nothing, in (0, 1).

    References
    ----------
    A. Ramdas, T. Zrnic, M. Wainwright, M. Jordan, SAFFRON: an adaptive algorithm for online
    control of the false discovery rate, ICML 2018.

    Examples
    --------
    >>> stream = SAFFRON(alpha=0.1)
    >>> stream.run([1e-6, 0.4, 1e-3, 0.9]).tolist()
    [True, False, True, False]
    >>> round(stream.level, 5)
    0.01443
    """

    lambda_: float = 0.5

    def _check(self) -> None:
        check_number("lambda_", self.lambda_, 0.0, 1.0)

    @property
    def _budget(self) -> float:
        return (1.0 - self.lambda_) * self.alpha

    @property
    def _cap(self) -> float:
        return self.lambda_

    def _spends(self, p: float) -> bool:
        return p > self.lambda_

    @staticmethod
    def _sequence(j: NDArray[np.float64]) -> NDArray[np.float64]:
        return _power_sequence(j)


@dataclass
class ADDIS(OnlineFDR):
    """ADDIS: SAFFRON that also discards clearly normal samples.

    When to use: null p-values are conservative, as with tied scores, a drifting detector or
    samples that are more normal than the calibration set. It needs them uniformly conservative.

    Parameters
    ----------
    alpha
        False discovery rate to keep, in (0, 1).
    wealth
        Wealth at the start, in (0, (tau - lambda_) alpha]; `None` takes half of that.
    lambda_
        p-values up to here are candidates and cost nothing, in (0, tau).
    tau
        p-values above this are discarded: not flagged, at no cost; in (lambda_, 1].

    References
    ----------
    J. Tian, A. Ramdas, ADDIS: an adaptive discarding algorithm for online FDR control with
    conservative nulls, NeurIPS 2019.

    Examples
    --------
    >>> stream = ADDIS(alpha=0.1)
    >>> stream.run([1e-6, 0.4, 1e-3, 0.9]).tolist()
    [True, False, True, False]
    >>> round(stream.level, 5)
    0.01455
    """

    lambda_: float = 0.25
    tau: float = 0.5

    def _check(self) -> None:
        check_number("tau", self.tau, 0.0, 1.0, closed="h")
        check_number("lambda_", self.lambda_, 0.0, self.tau)

    @property
    def _budget(self) -> float:
        return (self.tau - self.lambda_) * self.alpha

    @property
    def _cap(self) -> float:
        return self.lambda_

    def _spends(self, p: float) -> bool:
        return self.lambda_ < p <= self.tau

    @staticmethod
    def _sequence(j: NDArray[np.float64]) -> NDArray[np.float64]:
        return _power_sequence(j)


def _power_sequence(j: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return j^-1.6 / zeta(1.6), the sequence both adaptive papers use; its sum is 1."""
    values: NDArray[np.float64] = 0.4374901658 * j**-1.6
    return values
