"""Successive halving: candidates are trained and judged in rounds, and the better half goes on."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from genad.applications.selection_budget import plan_round, shortened
from genad.applications.selection_trials import Marks, Trial
from genad.core.detector import Detector
from genad.errors import InputError, TrainingError

# What a standard deviation between kinds of anomaly takes off the mean AUROC: an even candidate is a safer one.
_SPREAD = 0.5
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
        if self.marks is None:
            return -math.inf
        values = np.array(list(self.marks.auroc.values()))
        return float(values.mean() - _SPREAD * values.std())


class Race:
    """Successive halving of candidates on one trial."""

    def __init__(self, trial: Trial, work: float, end: float, seed: int) -> None:
        self.trial, self.work, self.end, self.seed = trial, int(work), end, seed
        self.rounds = 0
        self.late = False

    def run(self, entrants: list[Entrant]) -> list[Entrant]:
        """Return those of the last complete round, with their marks; nobody when not even one was possible."""
        left, racing, finalists = float(self.work), list(entrants), list[Entrant]()
        while len(racing) > 2 and plan_round([e.price for e in racing], left, 1) is None:
            racing.pop().note = "left out: the budget is too small"
        full = plan_round([e.price for e in racing], left, 1)
        if full is None or len(racing) < 2:
            return finalists
        # Everything in full when it can be paid; else as many rounds as the budget has.
        rounds = 1 if full.share >= 1 else _ROUNDS
        while plan_round([e.price for e in racing], left, rounds) is None:
            rounds -= 1
        for k in range(rounds, 0, -1):
            planned = plan_round([e.price for e in racing], left, k)
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

    def _round(self, racing: list[Entrant], share: float) -> list[Entrant] | None:
        """Train and judge each; None when the clock ran out. The default comes first, or nothing does."""
        found: list[tuple[Entrant, Marks]] = []
        part = self.trial.part(share, self.seed, LEAST)
        for entrant in racing:
            begin = time.perf_counter()
            if begin > self.end:
                self.late = True
                return None
            try:
                detector = shortened(entrant.detector, share, self.trial.size, self.seed)
                scores = detector.fit(part).anomaly_score(self.trial.judged)
            except (InputError, TrainingError) as error:
                if entrant is racing[0]:
                    raise
                entrant.note = f"failed: {error}"
                continue
            finally:
                entrant.seconds += time.perf_counter() - begin
            if np.isfinite(scores).all():
                found.append((entrant, Marks.of(scores, self.trial)))
            else:
                entrant.note = "failed: scores that are not finite"
        # Marks are handed out together, so that those of an unfinished round are never compared with older ones.
        for entrant, marks in found:
            entrant.marks, entrant.share, entrant.round = marks, share, self.rounds + 1
        return [entrant for entrant, _ in found]
