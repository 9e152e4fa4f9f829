"""What an alert policy made of a series: the alarms that were told, and what each rule removed and lost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from genad.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Verdict = Literal["raised", "merged", "silence", "duration", "cool-down", "budget"]

# The rules that keep an alarm from being told. Persistence does so before there is a stretch to judge.
_RULES = ("persistence", "silence", "duration", "cool-down", "budget")


@dataclass(frozen=True)
class AlarmRun:
    """One stretch in which the policy held the alarm on.

    Attributes
    ----------
    start, stop : int
        Half-open interval of steps; `start` is the step at which the stretch began, told or not.
    peak : int
        Step of the lowest p-value inside, the first of them.
    n : int
        Steps at or below the level `on` inside that were not silent.
    verdict : {"raised", "merged", "silence", "duration", "cool-down", "budget"}
        What became of it: told, told as a part of the one before, or kept back and by which rule. With ``"silence"``,
        `peak` and `n` are those of the silent steps.
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
    flags : bool array of shape (m,)
        Steps at or below the level `on`, silent ones too.
    p_values : float array of shape (m,)
        P-values as they were judged, 1 where a step was silent.
    """

    on: NDArray[np.bool_]
    raised: NDArray[np.bool_]
    runs: tuple[AlarmRun, ...]
    flags: NDArray[np.bool_]
    p_values: NDArray[np.float64]

    @property
    def n_flags(self) -> int:
        """Steps at or below the level `on`."""
        return int(self.flags.sum())

    @property
    def silent(self) -> NDArray[np.bool_]:
        """Flagged steps that were silent, (m,)."""
        # The level `on` is below 1, so that no flagged step is judged as 1 for its own p-value.
        return np.asarray(self.flags & (self.p_values == 1.0))

    @property
    def alarms(self) -> list[AlarmRun]:
        """The alarms that were told, each from its first stretch to the end of the last one merged into it."""
        spans: list[tuple[int, int]] = []
        for run in self.runs:
            if run.verdict == "raised":
                spans.append((run.start, run.stop))
            elif run.verdict == "merged" and spans:
                spans[-1] = (spans[-1][0], run.stop)
        hits = self.flags & ~self.silent
        return [
            AlarmRun(a, b, a + int(np.argmin(self.p_values[a:b])), int(hits[a:b].sum()), "raised") for a, b in spans
        ]

    def account(self, labels: ArrayLike | None = None) -> dict[str, int]:
        """Count what each rule removed, and with labels also what it lost.

        Parameters
        ----------
        labels
            Labels (m,): 1 anomaly, anything else normal. An event is a run of ones.

        Returns
        -------
        dict of str to int
            ``flags``: flagged steps; ``alarms``: told; ``persistence``: runs of flags that made no stretch, silent
            ones aside; ``merged``: stretches told as a part of the one before; ``silence``, ``duration``, ``cool-down``
            and ``budget``: stretches that each rule kept back. With labels ``events``; ``events flagged``, by a flag
            inside; ``events told``, by an alarm that is on inside; ``lost to`` each of the five rules: events flagged
            but not told, by the rule that was the first to keep one back; and ``delay``, the steps from the start of
            those told to their alarm, the median, rounded up. What ``duration`` loses includes events that are over
            before their stretch has lasted long enough.

        Raises
        ------
        InputError
            If there is not one label a step.

        Examples
        --------
        >>> from genad import AlertPolicy
        >>> outcome = AlertPolicy(k=2, n=2, budget=1).run([c == "x" for c in "xx...x....xxx..."])
        >>> cost = outcome.account([0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0])
        >>> cost["alarms"], cost["persistence"], cost["budget"]
        (1, 1, 1)
        >>> cost["events flagged"], cost["events told"], cost["lost to persistence"], cost["lost to budget"]
        (3, 1, 1, 1)
        """
        counts = {"flags": self.n_flags, "alarms": sum(r.verdict == "raised" for r in self.runs)}
        counts["persistence"] = self._unheld()
        counts |= {rule: sum(r.verdict == rule for r in self.runs) for rule in ("merged", *_RULES[1:])}
        if labels is None:
            return counts
        truth = np.asarray(labels).ravel() == 1
        if len(truth) != len(self.on):
            raise InputError(f"labels: {len(truth)} were given for {len(self.on)} steps; give one a step.")
        edges = spans_of(truth)
        flagged, told = _inside(self.flags, edges), _inside(self.on, edges)
        counts |= {"events": len(edges), "events flagged": int(flagged.sum()), "events told": int(told.sum())}
        lost = self._lost(edges[flagged & ~told])
        counts |= {f"lost to {rule}": lost.count(rule) for rule in _RULES}
        # The first step under alarm at or after each start.
        lit = np.flatnonzero(self.on)
        at = lit[np.searchsorted(lit, edges[told, 0])] - edges[told, 0] if told.any() else np.zeros(0)
        return counts | {"delay": math.ceil(float(np.median(at))) if at.size else 0}

    def _unheld(self) -> int:
        """Count the runs of flags, silent ones aside, outside all stretches."""
        held = np.zeros(len(self.on), np.bool_)
        for run in self.runs:
            held[run.start : run.stop] = True
        edges = spans_of(self.flags & ~self.silent)
        return int((~_inside(held, edges)).sum())

    def _lost(self, edges: NDArray[np.intp]) -> list[str]:
        """Name for each event that was flagged but not told the rule that was the first to keep it back."""
        rule = np.where(self.silent, _RULES.index("silence"), 0)
        for run in self.runs:
            # What is not told of a stretch that was told lies before it had lasted long enough.
            kept = "duration" if run.verdict in {"raised", "merged"} else run.verdict
            rule[run.start : run.stop] = _RULES.index(kept)
        return [_RULES[next((r for r in rule[a:b].tolist() if r), 0)] for a, b in edges.tolist()]


def spans_of(flags: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the half-open intervals (s, 2) of the runs of true steps."""
    return np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8))).reshape(-1, 2)


def _inside(flags: NDArray[np.bool_], edges: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Say in which intervals a step is true."""
    seen = np.concatenate([[0], np.cumsum(flags)])
    return np.asarray(seen[edges[:, 1]] > seen[edges[:, 0]])
