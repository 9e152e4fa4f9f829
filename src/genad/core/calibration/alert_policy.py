"""Alert policy: from one flag a step to alarms that people can follow, in one pass or as the stream comes in."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from genad.core.calibration._checks import as_scores, check_count, check_number
from genad.core.calibration._saved import MovingRule
from genad.core.calibration.alert_outcome import AlarmRun, PolicyOutcome, Verdict, spans_of
from genad.core.calibration.silences import Kind, Silences, as_kind, as_kinds
from genad.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["AlertPolicy"]


class _Policy(MovingRule):
    """Family of the alert policies."""

    _what: ClassVar[str] = "an alert policy"


@dataclass
class AlertPolicy(_Policy):
    """Turn p-values or flags into alarms: persistence, duration, hysteresis, merging, silence, cool-down and a budget.

    A step is a hit if its p-value is at most `on`. The alarm goes on at the step that makes `k` hits among the last
    `n` steps, and off at the first step that leaves fewer than `k` steps at most `off` among the last `n`. A stretch
    is told once it has been on for `min_duration` steps. One that begins at most `merge_gap` steps after the last one
    told ended is told as a part of it; later ones are kept back while it is less than `cool_down` steps since that
    end, and once `budget` alarms were told in the last `period` steps. Stretches that are kept back do not lengthen
    the cool-down.

    Steps may be given a kind: a text, such as a source, a cause or planned work, or a vector, such as an embedding of
    what was found. A step of a silent kind counts as one with a p-value of 1, so that steps of other kinds raise alarms
    meanwhile. Kinds are silent because they are in the list `silent`, or because someone called :meth:`dismiss` on a
    false alarm. What is dismissed is silent for `known_for` steps, and only while this holds back at most
    `known_share` of the last `period` steps: feedback that is wrong, or was provoked, cannot hide everything.

    When to use: single flags are too many to follow, and anomalies last. When it fails: persistence and the duration
    delay the alarm, by up to ``n - 1`` and by ``min_duration - 1`` steps, and miss shorter anomalies; a cool-down or
    budget hides a second, other anomaly soon after the first; silence hides anomalies of a silent kind, and with a
    wide `radius` those of others (:meth:`PolicyOutcome.account` counts what each rule removes and loses). The
    false-alarm promise of the p-values is one for each step; that of alarms is lower by an amount that depends on how
    the scores hang together.

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
        Steps that the budget and `known_share` are for, at least 1.
    min_duration
        Steps that a stretch is on before it is told, at least 1. It is on at the step that makes `k` hits, and up to
        ``n - k`` steps after the last of them.
    silent
        Pairs of a kind and the step at which it is loud again, counted from the start; None for good. For planned work
        give its steps a kind of their own.
    radius
        Vectors at most so far apart, by Euclidean distance, are of one kind, at least 0.
    known_for
        Steps for which a dismissed kind is silent, at least 1.
    known_share
        Share of the last `period` steps that dismissed kinds may hold back, 0 < known_share <= 1, in whole steps: with
        less than one step, ``known_share * period < 1``, nothing that is dismissed is silent.

    Raises
    ------
    InputTypeError
        If a parameter is of a type that is not accepted.
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

    A kind that is known for some time, and one that was dismissed as a false alarm:

    >>> policy = AlertPolicy(k=1, n=1, silent=[("backup", 2)])
    >>> [policy.update(True, kind) for kind in ("backup", "login", "backup", "scan")]
    [False, True, True, True]
    >>> policy.dismiss("scan")
    >>> [policy.update(True, kind) for kind in ("scan", "login")], policy.known
    ([False, True], [['scan', 10004]])
    """

    k: int = 3
    n: int = 5
    on: float = 0.01
    off: float | None = None
    merge_gap: int = 0
    cool_down: int = 0
    budget: int | None = None
    period: int = 1000
    min_duration: int = 1
    silent: Sequence[Any] = ()
    radius: float = 0.0
    known_for: int = 10_000
    known_share: float = 0.1

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
        check_count("min_duration", self.min_duration, 1)
        check_number("radius", self.radius, 0.0, closed="l")
        check_count("known_for", self.known_for, 1)
        check_number("known_share", self.known_share, 0.0, 1.0, closed="h")
        self._listed = Silences("silent", self.silent, self.radius)
        self.silent = self._listed.entries()  # plain values, as they are saved
        self.reset()

    @property
    def leave(self) -> float:
        """The level that keeps an alarm on."""
        return self.on if self.off is None else self.off

    def reset(self) -> None:
        """Forget what was seen and what was dismissed."""
        self.steps = 0
        self._hits: deque[tuple[bool, bool]] = deque(maxlen=self.n)
        self._start: int | None = None  # step at which the alarm went on, told or not
        self._told = False  # it is on and was told
        self._last_end: int | None = None  # step after the last alarm that was told
        self._raised: deque[int] = deque()  # steps of the alarms told in the last period
        self._known = Silences("known", (), self.radius)
        self._hushed: deque[int] = deque()  # steps that dismissed kinds held back in the last period

    # ------------------------------------------------------------------ stream

    def update(self, p_value: float, kind: object = None) -> bool:
        """Take the next step and say whether an alarm that was told is on.

        Parameters
        ----------
        p_value
            Of the step, from 0 to 1, or a flag.
        kind
            What the step is about: a text or a vector of numbers.

        Returns
        -------
        bool

        Raises
        ------
        InputTypeError
            If the kind is neither a text nor numbers.
        InputError
            If the p-value is NaN or outside [0, 1].
        """
        if isinstance(p_value, bool | np.bool_):
            value = 0.0 if p_value else 1.0
        else:
            value = check_number("p_value", p_value, 0.0, 1.0, closed="lh")
        of = None if kind is None else as_kind("kind", kind)
        # Steps above both levels are not held back: they say nothing in any case, and would use up the share.
        if value <= self.leave and (self._listed.cover(of, self.steps) or self._hush(of)):
            value = 1.0
        self._hits.append((value <= self.on, value <= self.leave))
        hit, stay = (sum(pair[which] for pair in self._hits) >= self.k for which in (0, 1))
        if self._start is not None and not stay:
            self._start = None
            if self._told:
                self._last_end, self._told = self.steps, False
        elif self._start is None and hit:
            self._start = self.steps
        if self._start is not None and self.steps == self._start + self.min_duration - 1:
            verdict = self._judge(self._start)
            self._told = verdict in {"raised", "merged"}
            if verdict == "raised":
                self._raised.append(self._start)
        self.steps += 1
        return self._told

    def dismiss(self, kind: object) -> None:
        """Learn that alarms of a kind are false: for the next `known_for` steps it is silent.

        Parameters
        ----------
        kind
            A text, or a vector of numbers whose neighbours within `radius` are silent too.

        Raises
        ------
        InputTypeError
            If the kind is neither a text nor numbers.
        InputError
            If its numbers are not one finite row.
        """
        self._known.add(as_kind("kind", kind), self.steps + self.known_for, self.steps)

    @property
    def known(self) -> list[list[Any]]:
        """Kinds that were dismissed, each with the step at which it is loud again."""
        return self._known.entries()

    def _hush(self, kind: Kind | None) -> bool:
        """Say whether this step is of a dismissed kind that may still be held back, and note that it is."""
        if not self._known.cover(kind, self.steps):
            return False
        while self._hushed and self._hushed[0] <= self.steps - self.period:
            self._hushed.popleft()
        if len(self._hushed) + 1 > self.known_share * self.period:
            return False
        self._hushed.append(self.steps)
        return True

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

    def run(self, p_values: ArrayLike, kinds: Iterable[Any] | None = None) -> PolicyOutcome:
        """Judge a whole series from a fresh start; the same as :meth:`update` on each step of a new policy.

        Parameters
        ----------
        p_values
            P-values (m,) from 0 to 1, or flags (m,), in the order of time. Entities are judged one by one.
        kinds
            What each step is about: texts (m,), None where there is none, or vectors (m, d).

        Returns
        -------
        PolicyOutcome
            The state of this policy is left alone, and takes no part: kinds that were dismissed are not silent. To
            keep them so, put them into `silent`.

        Raises
        ------
        InputTypeError
            If a kind is neither a text nor numbers.
        InputError
            If a p-value is NaN or outside [0, 1], or there is not one kind a step.
        """
        given = np.asarray(p_values)
        given = np.where(given, 0.0, 1.0) if given.dtype == np.bool_ else given
        values = as_scores("p_values", given, allow_empty=True)
        if values.size and not (values.min() >= 0.0 and values.max() <= 1.0):
            raise InputError("p_values must lie in [0, 1]; pass p-values or flags, not scores.")
        judged = values.copy()
        for at, kind in enumerate(() if kinds is None else as_kinds(kinds, values.size)):
            if values[at] <= self.leave and self._listed.cover(kind, at):
                judged[at] = 1.0
        held = self._held(judged)
        found, on, raised = [], np.zeros(values.size, np.bool_), np.zeros(values.size, np.bool_)
        judge = replace(self)
        for begin, end in spans_of(held).tolist():
            told = begin + self.min_duration - 1
            verdict = judge._judge(begin) if told < end else "duration"  # noqa: SLF001 - its own kind
            if verdict in {"raised", "merged"}:
                on[told:end] = True
                judge._last_end = end  # noqa: SLF001
            if verdict == "raised":
                raised[told] = True
                judge._raised.append(begin)  # noqa: SLF001
            found.append(self._run(judged, begin, end, verdict))
        # What would have been a stretch, and of which nothing is left, was removed by silence.
        for begin, end in spans_of(self._held(values)).tolist():
            if not held[begin:end].any():
                found.append(self._run(values, begin, end, "silence"))
        found.sort(key=lambda run: run.start)
        return PolicyOutcome(on, raised, tuple(found), values <= self.on, judged)

    def _run(self, values: NDArray[np.float64], begin: int, end: int, verdict: Verdict) -> AlarmRun:
        inside = values[begin:end]
        return AlarmRun(begin, end, begin + int(np.argmin(inside)), int((inside <= self.on).sum()), verdict)

    def _held(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Say at which steps the alarm is on, told or not."""
        start, keep = (self._enough(values <= level) for level in (self.on, self.leave))
        # The state is that of the last step that says on or off; steps between the levels leave it as it is.
        says = np.where(start, 1, np.where(keep, 0, -1))
        last = np.maximum.accumulate(np.where(says != 0, np.arange(values.size), -1))
        return np.asarray((last >= 0) & (says[last] == 1)) if values.size else np.zeros(0, np.bool_)

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
            "start": self._start,
            "told": self._told,
            "last_end": self._last_end,
            "raised": list(self._raised),
            "known": self._known.entries(),
            "hushed": list(self._hushed),
        }

    def restore_state(self, state: Mapping[str, Any]) -> None:
        """Take over the state that :meth:`to_dict` wrote."""
        self.steps = check_count("steps", state["steps"], 0)
        hits = [(bool(a), bool(b)) for a, b in state["hits"]]
        if len(hits) != min(self.steps, self.n):
            raise InputError(f"hits: {len(hits)} steps are kept of {self.steps}; {min(self.steps, self.n)} are needed.")
        self._hits = deque(hits, maxlen=self.n)
        self._start, self._last_end = (
            None if state[name] is None else check_count(name, state[name], 0) for name in ("start", "last_end")
        )
        self._told = bool(state["told"])
        self._raised, self._hushed = (
            deque(check_count(name, step, 0) for step in state[name]) for name in ("raised", "hushed")
        )
        self._known = Silences("known", state["known"], self.radius)
