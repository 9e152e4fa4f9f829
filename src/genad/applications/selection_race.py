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

from genad.applications.selection_budget import Round, plan_round, shortened
from genad.applications.selection_trials import Marks, Trial
from genad.core.detector import Detector
from genad.errors import InputError, TrainingError

# Least share of its training that a candidate should have in all trials; else there are fewer trials.
_SHARE = 0.5
# Rounds, when not everything can be trained in full; fewest samples of a part.
_ROUNDS, LEAST = 3, 256


@dataclass
class Entrant:
    """A candidate in the race."""

    detector: Detector
    label: str
    price: float
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
        left, racing, finalists = float(self.work), list(entrants), list[Entrant]()
        while len(self.trials) > 1:
            first = self._plan(racing, left, 1)
            if first is not None and first.share >= _SHARE:
                break
            self.trials.pop()
        while len(racing) > 2 and self._plan(racing, left, 1) is None:
            racing.pop().note = "left out: the budget is too small"
        full = self._plan(racing, left, 1)
        if full is None or len(racing) < 2:
            return finalists
        # Everything in full when it can be paid; else as many rounds as the budget has.
        rounds = 1 if full.share >= 1 else _ROUNDS
        while self._plan(racing, left, rounds) is None:
            rounds -= 1
        for k in range(rounds, 0, -1):
            planned = self._plan(racing, left, k)
            if planned is None:
                break
            judged = self._round(racing, planned.share)
            if judged is None:
                break
            left -= planned.cost
            self.rounds += 1
            finalists = judged
            if planned.share >= 1 or k == 1 or len(judged) < 2:
                break
            others = sorted(judged[1:], key=lambda entrant: -entrant.score)
            kept = others[: max(1, len(others) // 2)]
            for entrant in others[len(kept) :]:
                entrant.note = f"stopped after round {self.rounds}: behind {kept[-1].label}"
            racing = [judged[0], *kept]
        return finalists

    def _plan(self, racing: list[Entrant], left: float, rounds: int) -> Round | None:
        return plan_round([entrant.price for entrant in racing], left, rounds, len(self.trials))

    def _round(self, racing: list[Entrant], share: float) -> list[Entrant] | None:
        """Train and judge each; None when the clock ran out. The default comes first, or nothing does."""
        found: list[tuple[Entrant, Marks]] = []
        parts = [trial.part(share, self.seed, LEAST) for trial in self.trials]
        for entrant in racing:
            begin = time.perf_counter()
            if begin > self.end:
                self.late = True
                return None
            try:
                judged = [
                    self._scores(entrant, trial, part, share) for trial, part in zip(self.trials, parts, strict=True)
                ]
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
