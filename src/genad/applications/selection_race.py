"""Successive halving: candidates are trained and judged in rounds, and the better half goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

import numpy as np

from genad.applications.selection_budget import OVERHEAD, Round, plan_round, schedule, shortened
from genad.applications.selection_trials import Marks, Trial
from genad.core.detector import Detector
from genad.errors import InputError, TrainingError

# Share of their training that all candidates have before there is a further trial, and no more of it until there are
# all trials: with more work the winner is never trained less. What is left out says more than the other half of the
# training does.
_SHARE = 0.5
# Fewest samples of a part.
LEAST = 256


@dataclass
class Entrant:
    """A candidate in the race; its full training and what a fit and its scores cost beside it are in updates."""

    detector: Detector
    label: str
    price: float
    overhead: float = OVERHEAD
    marks: Marks | None = None
    share: float = 0.0
    round: int = 0
    seconds: float = 0.0
    note: str = ""

    @property
    def score(self) -> float:
        """Mean AUROC over the kinds of anomaly, less half of its spread."""
        return -math.inf if self.marks is None else self.marks.score


class Race:
    """Successive halving of candidates.

    Work goes first to as many candidates as it can train at all, then to half of their training in one trial, then to
    that in further trials, and then to the other half.

    Parameters
    ----------
    trials : sequence of Trial
        What each is judged on, the dispensable ones last: as many are used as the work pays for.
    work : float
        Updates of a plain autoencoder.
    end : float
        When the clock has run out, as :func:`time.perf_counter` counts.
    seed : int
    """

    def __init__(self, trials: Sequence[Trial], work: float, end: float, seed: int) -> None:
        self.trials, self.work, self.end, self.seed = list(trials), int(work), end, seed
        self.rounds = 0
        self.late = False

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of anomaly that candidates are judged on."""
        return tuple(kind for trial in self.trials for kind in trial.anomalous)

    def run(self, entrants: list[Entrant]) -> list[Entrant]:
        """Return those of the last complete round, with their marks; nobody when not even one was possible."""
        racing, finalists = self._able(entrants), list[Entrant]()
        every = len(self.trials)
        while len(self.trials) > 1:
            planned = self._plan(racing)
            if planned is not None and planned.share >= _SHARE:
                break
            self.trials.pop()
        most = 1.0 if len(self.trials) == every else _SHARE
        while len(racing) > 2 and self._plan(racing) is None:
            racing.pop().note = "left out: the budget is too small"
        if len(racing) < 2:
            return finalists
        prices, overheads = [entrant.price for entrant in racing], [entrant.overhead for entrant in racing]
        for step in schedule(prices, self.work / len(self.trials), overheads, most):
            if finalists:
                racing = self._better(finalists, step.entrants)
            judged = self._round(racing, step.share)
            if judged is None:
                break
            self.rounds += 1
            finalists = judged
            if len(judged) < 2:
                break
        return finalists

    def _able(self, entrants: list[Entrant]) -> list[Entrant]:
        """Return the default, and those that the work pays for beside it when there are no others."""
        default, able = entrants[0], entrants[:1]
        for entrant in entrants[1:]:
            if plan_round([0.0, 0.0], self.work, 1, 1, [default.overhead, entrant.overhead]) is not None:
                able.append(entrant)
            else:
                slow = entrant.overhead > OVERHEAD
                entrant.note = "left out: its scoring is too slow" if slow else "left out: the budget is too small"
        return able

    def _better(self, judged: list[Entrant], count: int) -> list[Entrant]:
        """Return the default and the best of the others, ``count`` in all, and note of the rest where they stopped."""
        others = sorted(judged[1:], key=lambda entrant: -entrant.score)
        kept = others[: count - 1]
        for entrant in others[count - 1 :]:
            entrant.note = f"stopped after round {self.rounds}: behind {kept[-1].label}"
        return [judged[0], *kept]

    def _plan(self, racing: list[Entrant]) -> Round | None:
        """Say how far all can be trained in one round of all trials."""
        prices, overheads = [entrant.price for entrant in racing], [entrant.overhead for entrant in racing]
        return plan_round(prices, self.work, 1, len(self.trials), overheads)

    def _round(self, racing: list[Entrant], share: float) -> list[Entrant] | None:
        """Train and judge each; None when the clock ran out. The default comes first, or nothing does."""
        found: list[tuple[Entrant, Marks]] = []
        parts = [trial.part(share, self.seed, LEAST) for trial in self.trials]
        for entrant in racing:
            begin = time.perf_counter()
            judged = []
            try:
                for trial, part in zip(self.trials, parts, strict=True):
                    if time.perf_counter() > self.end:
                        self.late = True
                        return None
                    judged.append(self._scores(entrant, trial, part, share))
            except (InputError, TrainingError) as error:
                if entrant is racing[0]:
                    raise
                entrant.note = f"failed: {error}"
                continue
            finally:
                entrant.seconds += time.perf_counter() - begin
            if all(np.isfinite(scores).all() for scores in judged):
                each = (Marks.of(scores, trial) for scores, trial in zip(judged, self.trials, strict=True))
                found.append((entrant, reduce(or_, each)))
            else:
                entrant.note = "failed: scores that are not finite"
        # Marks are handed out together, so that those of an unfinished round are never compared with older ones.
        for entrant, marks in found:
            entrant.marks, entrant.share, entrant.round = marks, share, self.rounds + 1
        return [entrant for entrant, _ in found]

    def _scores(self, entrant: Entrant, trial: Trial, part: Any, share: float) -> Any:
        return shortened(entrant.detector, share, trial.size, self.seed).fit(part).anomaly_score(trial.judged)
