"""Alert policy: from one flag a step to alarms that people can follow, in one pass or as the stream comes in."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from genad.core.calibration._checks import as_scores, check_count, check_number
from genad.core.calibration._saved import MovingRule
from genad.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["AlarmRun", "AlertPolicy", "PolicyOutcome"]

Verdict = Literal["raised", "merged", "cool-down", "budget"]


@dataclass(frozen=True)
class AlarmRun:
    """One stretch in which the policy held the alarm on.

    Attributes
    ----------
    start, stop : int
        Half-open interval of steps; `start` is the step that raised the alarm.
    peak : int
        Step of the lowest p-value inside.
    n : int
        Steps at or below the level `on` inside.
    verdict : {"raised", "merged", "cool-down", "budget"}
        What became of it: told, told as a part of the one before, or kept back and by which rule.
    """

    start: int
    stop: int
    peak: int
    n: int
    verdict: Verdict


@dataclass(frozen=True)
class PolicyOutcome:
    """What a policy made of a series.

    Attributes
    ----------
    on : bool array of shape (m,)
        Steps under an alarm that was told.
    raised : bool array of shape (m,)
        Steps at which a new alarm was told.
    runs : tuple of AlarmRun
        All stretches, those kept back too, in order.
    n_flags : int
        Steps at or below the level `on`.
    """

    on: NDArray[np.bool_]
    raised: NDArray[np.bool_]
    runs: tuple[AlarmRun, ...]
    n_flags: int

    @property
    def alarms(self) -> list[AlarmRun]:
        """The alarms that were told, each with the stretches merged into it."""
        told: list[AlarmRun] = []
        for run in self.runs:
            if run.verdict == "raised":
                told.append(run)
            elif run.verdict == "merged" and told:
                last = told[-1]
                told[-1] = AlarmRun(last.start, run.stop, last.peak, last.n + run.n, "raised")
        return told

    def account(self, labels: ArrayLike | None = None) -> dict[str, int]:
        """Count what each rule removed, and with labels also what it lost.

        Parameters
        ----------
        labels
            Labels (m,): 1 anomaly, anything else normal. An event is a run of ones.

        Returns
        -------
        dict of str to int
            ``flags``: flagged steps; ``alarms``: told; ``merged``, ``cool-down`` and ``budget``: stretches that each
            rule kept back; with labels ``events``, ``events flagged`` (by a flag inside), ``events told`` (by an alarm
            that is on inside), ``delay`` (steps from the start of those to their alarm, the median, rounded up).

        Raises
        ------
        InputError
            If there is not one label a step.
        """
        counts = {"flags": self.n_flags, "alarms": sum(r.verdict == "raised" for r in self.runs)}
        counts |= {rule: sum(r.verdict == rule for r in self.runs) for rule in ("merged", "cool-down", "budget")}
        if labels is None:
            return counts
        truth = np.asarray(labels).ravel() == 1
        if len(truth) != len(self.on):
            raise InputError(f"labels: {len(truth)} were given for {len(self.on)} steps; give one a step.")
        edges = np.flatnonzero(np.diff(np.concatenate([[False], truth, [False]]).astype(np.int8))).reshape(-1, 2)
        seen = np.concatenate([[0], np.cumsum(self.on)])
        told = seen[edges[:, 1]] > seen[edges[:, 0]]
        # The first step under alarm at or after each start.
        lit = np.flatnonzero(self.on)
        at = lit[np.searchsorted(lit, edges[told, 0])] - edges[told, 0] if told.any() else np.zeros(0)
        counts |= {"events": len(edges), "events told": int(told.sum())}
        return counts | {"delay": math.ceil(float(np.median(at))) if at.size else 0}


class _Policy(MovingRule):
    """Family of the alert policies."""

    _what: ClassVar[str] = "an alert policy"


@dataclass
class AlertPolicy(_Policy):
    """Turn p-values or flags into alarms: persistence, hysteresis, merging, cool-down and a budget.

    A step is a hit if its p-value is at most `on`. The alarm goes on at the step that makes `k` hits among the last
    `n` steps, and off at the first step that leaves fewer than `k` steps at most `off` among the last `n`. A stretch
    that begins at most `merge_gap` steps after the last one told ended is told as a part of it; later ones are kept
    back while it is less than `cool_down` steps since that end, and once `budget` alarms were told in the last
    `period` steps. Stretches that are kept back do not lengthen the cool-down.

    When to use: single flags are too many to follow, and anomalies last. When it fails: persistence delays the alarm
    by up to ``n - 1`` steps and misses anomalies of fewer than `k` steps; a cool-down or budget hides a second, other
    anomaly soon after the first (:meth:`PolicyOutcome.account` counts both). The false-alarm promise of the p-values
    is one for each step; that of alarms is lower by an amount that depends on how the scores hang together.

    Parameters
    ----------
    k, n
        Hits needed among so many steps, 1 <= k <= n.
    on, off
        Levels of the p-value, 0 < on <= off < 1; `off` is `on` when absent. Give flags as p-values with
        ``np.where(flags, 0, 1)``, or pass booleans.
    merge_gap
        Steps, at least 0.
    cool_down
        Steps, at least 0.
    budget
        Alarms in a period, at least 1; no limit when absent.
    period
        Steps that the budget is for, at least 1.

    Raises
    ------
    InputError
        If a parameter is out of range.

    Examples
    --------
    >>> policy = AlertPolicy(k=2, n=3)
    >>> policy.run([False, True, False, False, True, True, True, False, False]).on.astype(int).tolist()
    [0, 0, 0, 0, 0, 1, 1, 1, 0]
    >>> policy = AlertPolicy(k=1, n=1, on=0.01, off=0.2)
    >>> [policy.update(p) for p in (0.5, 0.005, 0.1, 0.15, 0.3, 0.1)]
    [False, True, True, True, False, False]
    """

    k: int = 3
    n: int = 5
    on: float = 0.01
    off: float | None = None
    merge_gap: int = 0
    cool_down: int = 0
    budget: int | None = None
    period: int = 1000

    #: Steps seen since the start.
    steps: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        check_count("n", self.n, 1)
        if check_count("k", self.k, 1) > self.n:
            raise InputError(f"k must be at most n={self.n}, found {self.k}.")
        check_number("on", self.on, 0.0, 1.0)
        if self.off is not None:
            check_number("off", self.off, self.on, 1.0, closed="l")
        check_count("merge_gap", self.merge_gap, 0)
        check_count("cool_down", self.cool_down, 0)
        check_count("period", self.period, 1)
        if self.budget is not None:
            check_count("budget", self.budget, 1)
        self.reset()

    @property
    def leave(self) -> float:
        """The level that keeps an alarm on."""
        return self.on if self.off is None else self.off

    def reset(self) -> None:
        """Forget what was seen."""
        self.steps = 0
        self._hits: deque[tuple[bool, bool]] = deque(maxlen=self.n)
        self._held = False  # the alarm is on, told or not
        self._told = False  # and it was told
        self._last_end: int | None = None  # step after the last alarm that was told
        self._raised: deque[int] = deque()  # steps of the alarms told in the last period

    # ------------------------------------------------------------------ stream

    def update(self, p_value: float) -> bool:
        """Take the next step and say whether an alarm that was told is on.

        Parameters
        ----------
        p_value
            Of the step, from 0 to 1, or a flag.

        Returns
        -------
        bool

        Raises
        ------
        InputError
            If the p-value is NaN or outside [0, 1].
        """
        if isinstance(p_value, bool | np.bool_):
            value = 0.0 if p_value else 1.0
        else:
            value = check_number("p_value", p_value, 0.0, 1.0, closed="lh")
        self._hits.append((value <= self.on, value <= self.leave))
        hit, stay = (sum(pair[which] for pair in self._hits) >= self.k for which in (0, 1))
        if self._held and not stay:
            self._held = False
            if self._told:
                self._last_end, self._told = self.steps, False
        elif not self._held and hit:
            self._held = True
            verdict = self._judge(self.steps)
            self._told = verdict in {"raised", "merged"}
            if verdict == "raised":
                self._raised.append(self.steps)
        self.steps += 1
        return self._told

    def _judge(self, start: int) -> Verdict:
        """Say what becomes of a stretch that begins at a step."""
        since = math.inf if self._last_end is None else start - self._last_end
        if since <= self.merge_gap:
            return "merged"
        if since < self.cool_down:
            return "cool-down"
        while self._raised and self._raised[0] <= start - self.period:
            self._raised.popleft()
        if self.budget is not None and len(self._raised) >= self.budget:
            return "budget"
        return "raised"

    # ------------------------------------------------------------------ series

    def run(self, p_values: ArrayLike) -> PolicyOutcome:
        """Judge a whole series from a fresh start; the same as :meth:`update` on each step of a new policy.

        Parameters
        ----------
        p_values
            P-values (m,) from 0 to 1, or flags (m,), in the order of time. Entities are judged one by one.

        Returns
        -------
        PolicyOutcome
            The state of this policy is left alone.

        Raises
        ------
        InputError
            If a p-value is NaN or outside [0, 1].
        """
        given = np.asarray(p_values)
        given = np.where(given, 0.0, 1.0) if given.dtype == np.bool_ else given
        values = as_scores("p_values", given, allow_empty=True)
        if values.size and not (values.min() >= 0.0 and values.max() <= 1.0):
            raise InputError("p_values must lie in [0, 1]; pass p-values or flags, not scores.")
        hits = values <= self.on
        start, keep = (self._enough(flags) for flags in (hits, values <= self.leave))
        # The state is that of the last step that says on or off; steps between the levels leave it as it is.
        says = np.where(start, 1, np.where(keep, 0, -1))
        last = np.maximum.accumulate(np.where(says != 0, np.arange(values.size), -1))
        held = (last >= 0) & (says[last] == 1) if values.size else np.zeros(0, np.bool_)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], held, [False]]).astype(np.int8))).reshape(-1, 2)
        found, on, raised = [], np.zeros(values.size, np.bool_), np.zeros(values.size, np.bool_)
        judge = replace(self)
        for begin, end in edges.tolist():
            verdict = judge._judge(begin)  # noqa: SLF001 - its own kind
            if verdict in {"raised", "merged"}:
                on[begin:end] = True
                judge._last_end = end  # noqa: SLF001
            if verdict == "raised":
                raised[begin] = True
                judge._raised.append(begin)  # noqa: SLF001
            peak = begin + int(np.argmin(values[begin:end]))
            found.append(AlarmRun(begin, end, peak, int(hits[begin:end].sum()), verdict))
        return PolicyOutcome(on, raised, tuple(found), int(hits.sum()))

    def _enough(self, flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Say at which steps `k` of the last `n` are flagged."""
        total = np.concatenate([[0], np.cumsum(flags)])
        ends = np.arange(1, len(total))
        return np.asarray(total[ends] - total[np.maximum(ends - self.n, 0)] >= self.k)

    # ------------------------------------------------------------------ saving

    def _state(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "hits": [[bool(a), bool(b)] for a, b in self._hits],
            "held": self._held,
            "told": self._told,
            "last_end": self._last_end,
            "raised": list(self._raised),
        }

    def restore_state(self, state: Mapping[str, Any]) -> None:
        """Take over the state that :meth:`to_dict` wrote."""
        self.steps = check_count("steps", state["steps"], 0)
        hits = [(bool(a), bool(b)) for a, b in state["hits"]]
        if len(hits) != min(self.steps, self.n):
            raise InputError(f"hits: {len(hits)} steps are kept of {self.steps}; {min(self.steps, self.n)} are needed.")
        self._hits = deque(hits, maxlen=self.n)
        self._held, self._told = bool(state["held"]), bool(state["told"])
        self._last_end = None if state["last_end"] is None else check_count("last_end", state["last_end"], 0)
        self._raised = deque(check_count("raised", step, 0) for step in state["raised"])
