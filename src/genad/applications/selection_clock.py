"""What the clock says, once, before a race on time: how fast this machine is, and which candidates score slowly."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np

from genad.applications.selection_budget import OVERHEAD, natural_updates, shortened
from genad.applications.selection_race import LEAST, Entrant
from genad.applications.selection_trials import Trial
from genad.core.detector import Detector
from genad.core.splits import MAX_HELD_OUT
from genad.core.training import Training
from genad.core.windows import Windowed
from genad.data.kinds import Kind
from genad.errors import InputError, TrainingError
from genad.reconstruction.autoencoder.autoencoder import Autoencoder

# Updates of the fit that finds out how fast this machine is; and the share of the budget left for the unforeseen.
_PROBE, _SLACK = 40, 0.8
# Units that are scored first to see how long all would take; a window and more of them in a series.
_FIRST, _FIRST_STEPS = 16, 256
# More units are scored until that takes this share of the budget.
_GLANCE = 0.01
# Scoring that takes up to so many times the usual overhead is taken to cost just that: the clock's noise is to change
# no choice among the many quick methods.
_USUAL = 5


def measured_work(seconds: float, trial: Trial, entrants: Sequence[Entrant], seed: int) -> int:
    """Turn seconds into updates of a plain autoencoder, by the clock, on the data at hand.

    A candidate that scores slowly is told by a few rows, after a short fit: its ``overhead`` is raised.

    Returns
    -------
    int
        A power of two, so that the clock's own noise hardly ever changes the number. The time this takes is paid from
        the seconds.
    """
    end = time.perf_counter() + _SLACK * seconds
    probe: Detector = Autoencoder(training=Training(updates=_PROBE))
    probe = Windowed(probe, random_state=seed) if trial.kind is Kind.SERIES else probe.set_params(random_state=seed)
    each = probe.fit(trial.learnt).training_report_.seconds / _PROBE
    for entrant in entrants:
        if time.perf_counter() > end:
            return 0
        try:
            beside = scoring_seconds(entrant.detector, trial, _GLANCE * seconds, seed) / each
        except (InputError, TrainingError):
            continue  # the race will say why it failed
        if beside > _USUAL * OVERHEAD:
            entrant.overhead = OVERHEAD + 2.0 ** math.ceil(math.log2(beside))
    left = end - time.perf_counter()
    return 2 ** math.floor(math.log2(left / each)) if left > each else 0


def scoring_seconds(detector: Detector, trial: Trial, glance: float, seed: int) -> float:
    """Estimate how long a detector takes to score what is judged, and what its own fit calibrates on.

    Parameters
    ----------
    detector : Detector
        Not fitted.
    trial : Trial
        What it learns from and is judged on.
    glance : float
        Seconds that the scoring of a few units has to take to be believed.
    seed : int

    Returns
    -------
    float
        Along the line through the two largest numbers of units that were tried.
    """
    # Without updates a fit takes little time, and what it remembers of all rows each score is compared with.
    learnt = trial.part(0.0, seed, LEAST) if natural_updates(detector, trial.size) else trial.learnt
    fitted = shortened(detector, 0.0, trial.size, seed).fit(learnt)
    first = _FIRST_STEPS if trial.kind is Kind.SERIES else _FIRST
    judged = len(trial.judged)
    tried: list[tuple[int, float]] = [(0, 0.0)]
    while tried[-1][0] < judged and (len(tried) < 3 or tried[-1][1] < glance):
        units = min(judged, 4 * tried[-1][0] or first)
        begin = time.perf_counter()
        fitted.anomaly_score(trial.judged.take(np.arange(units)))
        tried.append((units, time.perf_counter() - begin))
    (few, less), (many, more) = tried[-2:]
    every = judged + min(int(detector.holdout * trial.size), MAX_HELD_OUT)
    return more + max(0.0, more - less) / (many - few) * (every - many)
