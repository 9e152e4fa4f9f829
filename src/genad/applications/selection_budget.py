"""How much may be tried: a budget in seconds or in units of work, and the rounds it pays for."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sklearn.base import clone

from genad.core.detector import Detector
from genad.core.training import Training
from genad.core.windows import Windowed
from genad.errors import InputError
from genad.reconstruction.autoencoder.autoencoder import Autoencoder

_SECONDS = {"": 1.0, "s": 1.0, "sec": 1.0, "seconds": 1.0, "m": 60.0, "min": 60.0, "minutes": 60.0, "h": 3600.0}
# An update of these costs as many of a plain autoencoder's; measured on tables of the benchmarks.
_WEIGHTS = {"flow": 6.0, "vae": 3.0, "dte": 4.0, "dsebm": 5.0}
# Updates of default committees over all members, for their own training does not tell them.
_COMMITTEES = {"table_committee": 1800, "series_committee": 400}
# Methods that have a closed form and take no updates.
_CLOSED = frozenset({"ppca", "nearest_memory", "neighbour_regression", "patch_memory", "feature_memory", "padim"})
# What a fit and a score cost beside the updates, in updates: bookkeeping, and comparing rows with a memory.
OVERHEAD = 100
# Updates of the fit that finds out how fast this machine is; and the share of the budget left for the unforeseen.
_PROBE, _SLACK = 40, 0.8
# Fewest updates that say anything of a network.
FEWEST = 20


@dataclass(frozen=True)
class Budget:
    """How much may be tried.

    Attributes
    ----------
    seconds : float or None
        Wall-clock time; None when ``work`` was asked for.
    work : int or None
        Updates of a plain autoencoder on the data at hand; None when seconds were asked for.
    """

    seconds: float | None = None
    work: int | None = None

    @classmethod
    def parse(cls, budget: Any) -> Budget:
        """Read ``"60s"``, ``"2m"``, seconds as a number, or ``"4096 updates"``.

        Raises
        ------
        InputError
            For anything else, or a budget that is not above 0.

        Examples
        --------
        >>> Budget.parse("2m"), Budget.parse("4096 updates")
        (Budget(seconds=120.0, work=None), Budget(seconds=None, work=4096))
        """
        advice = "use for instance '60s', '2m', a number of seconds, or '4096 updates'"
        text = str(budget).strip().lower() if isinstance(budget, str | int | float) else ""
        found = re.fullmatch(r"([0-9.e+-]+)\s*([a-z]*)", text)
        try:
            amount = float(found[1]) if found else math.nan
        except ValueError:
            amount = math.nan
        unit = found[2] if found else ""
        if isinstance(budget, bool) or not math.isfinite(amount) or (unit not in _SECONDS and unit != "updates"):
            raise InputError(f"budget: {budget!r} was given; {advice}.")
        if amount <= 0:
            raise InputError(f"budget: {budget!r} was given; nothing can be tried in it: {advice}.")
        if unit == "updates":
            return cls(work=max(1, int(amount)))
        return cls(seconds=amount * _SECONDS[unit])


def measured_work(seconds: float, data: Any, *, series: bool, seed: int) -> int:
    """Turn seconds into updates of a plain autoencoder, by the clock, once, on the data at hand.

    Returns
    -------
    int
        A power of two, so that the clock's own noise hardly ever changes the number. The time this takes is paid from
        the seconds.
    """
    begin = time.perf_counter()
    probe: Detector = Autoencoder(training=Training(updates=_PROBE))
    probe = Windowed(probe, random_state=seed) if series else probe.set_params(random_state=seed)
    each = probe.fit(data).training_report_.seconds / _PROBE
    left = seconds * _SLACK - (time.perf_counter() - begin)
    return 2 ** math.floor(math.log2(left / each)) if left > each else 0


def inner_of(detector: Detector) -> Detector:
    """Return the detector that is trained: the one in windows, or itself."""
    return detector.detector if isinstance(detector, Windowed) and detector.detector is not None else detector


def natural_updates(detector: Detector, n: int) -> int:
    """Return how many updates a detector takes of its own on ``n`` samples; 0 for one with a closed form."""
    inner = inner_of(detector)
    if inner.name in _CLOSED:
        return 0
    asked = inner.training
    if inner.name in _COMMITTEES:
        each = asked.updates if asked is not None else None
        members = 3 if inner.name == "table_committee" else 1
        return _COMMITTEES[inner.name] if each is None else members * each
    return inner._training.total_updates(n)  # noqa: SLF001 - how a detector trains is its own affair


def price(detector: Detector, n: int) -> float:
    """Return what a full training costs, in updates of a plain autoencoder."""
    return _WEIGHTS.get(inner_of(detector).name, 1.0) * natural_updates(detector, n)


def shortened(detector: Detector, share: float, n: int, seed: int) -> Detector:
    """Return a copy with a share of its own updates, and the seed; untouched when the share is 1."""
    copied: Detector = clone(detector).set_params(random_state=seed)
    natural = natural_updates(detector, n)
    if share >= 1 or not natural:
        return copied
    inner = inner_of(copied)
    members = 3 if inner.name == "table_committee" else 1
    updates = max(FEWEST, round(share * natural / members))
    inner.training = Training(updates=updates).over(inner.training or Training())
    return copied


@dataclass(frozen=True)
class Round:
    """One round of successive halving.

    Attributes
    ----------
    share : float
        Share of its full training and of the rows that each candidate gets, in (0, 1].
    cost : float
        What the round costs, in updates.
    """

    share: float
    cost: float


def plan_round(prices: Sequence[float], work: float, rounds: int, trials: int = 1) -> Round | None:
    """Say how far the candidates can be trained with an even part of the work that is left.

    Parameters
    ----------
    prices : sequence of float
        Of the full training of each candidate still in the race.
    work : float
        Updates left.
    rounds : int
        Rounds left, this one included.
    trials : int
        Fits of each candidate in a round, each at its price.

    Returns
    -------
    Round or None
        None when the work does not even pay the overhead of each and the fewest updates.

    Examples
    --------
    >>> plan_round([0.0, 900.0], 5000, 2)
    Round(share=1.0, cost=1100.0)
    >>> plan_round([300.0, 900.0], 1000, 2)
    Round(share=0.25, cost=500.0)
    >>> plan_round([300.0, 900.0], 100, 1) is None
    True
    """
    overhead, full = OVERHEAD * trials * len(prices), trials * float(sum(prices))
    free = work / rounds - overhead
    if free < 0 or (full and free < FEWEST * trials * sum(each > 0 for each in prices)):
        return None
    share = 1.0 if not full else min(1.0, free / full)
    return Round(share, overhead + share * full)
