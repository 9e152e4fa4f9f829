"""How much may be tried: a budget in seconds or in units of work, what candidates cost, and the rounds it pays for."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sklearn.base import clone

from genad.core.committee import CommitteeBase
from genad.core.detector import Detector
from genad.core.ensemble import Ensemble
from genad.core.grouped import Grouped
from genad.core.training import Training
from genad.core.windows import Windowed
from genad.density.synthetic_normals import SyntheticNormals
from genad.errors import InputError

_SECONDS = {"": 1.0, "s": 1.0, "sec": 1.0, "seconds": 1.0, "m": 60.0, "min": 60.0, "minutes": 60.0, "h": 3600.0}
# An update of these costs as many of a plain autoencoder's; measured on tables of the benchmarks.
_WEIGHTS = {"flow": 6.0, "vae": 3.0, "dte": 4.0, "dsebm": 5.0, "gan_ensemble": 12.0}
# Trainings that a detector settles within itself, where it is fitted.
_SETTLED = {"series_committee": Training(updates=400)}
# Methods that have a closed form and take no updates.
_CLOSED = frozenset({"ppca", "nearest_memory", "neighbour_regression", "patch_memory", "feature_memory", "padim"})
# What a fit and a score cost beside the updates, in updates: bookkeeping, and comparing rows with a memory.
OVERHEAD = 100
# Fewest updates that say anything of a network.
FEWEST = 20
# Most rounds, when not everything can be trained in full.
_ROUNDS = 3


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


def inner_of(detector: Detector) -> Detector:
    """Return the detector that is trained: the one in windows, or itself."""
    return detector.detector if isinstance(detector, Windowed) and detector.detector is not None else detector


def _trained(detector: Any) -> list[tuple[Detector, int]]:
    """Return the detectors that one trains in place of a network of its own, and how often; none for most."""
    if isinstance(detector, Ensemble):
        return [(detector.detector, detector.n)] if detector.detector is not None else []
    if isinstance(detector, Windowed | Grouped):
        return [(detector.detector, 1)] if detector.detector is not None else []
    if isinstance(detector, CommitteeBase):
        return [(member, 1) for member, _ in detector.seats()]
    if isinstance(detector, SyntheticNormals):
        # Once to judge what is made, once without it and once with it.
        makers = [] if detector.generator is None else [(detector.generator, 1)]
        return [(detector._host, 3), *makers]  # noqa: SLF001 - its host, when none is given, is its own affair
    return []


def _trainings(detector: Detector, n: int) -> list[tuple[str, int]]:
    """Return every training that a fit comes to, as the name of what is trained and its updates."""
    parts = _trained(detector)
    if parts:
        return [each for part, times in parts for each in times * _trainings(part, n)]
    if detector.name in _CLOSED:
        return []
    settled = _SETTLED.get(detector.name)
    # How a detector trains is its own affair.
    training = detector._training if settled is None else (detector.training or Training()).over(settled)  # noqa: SLF001
    return [(detector.name, training.total_updates(n))]


def natural_updates(detector: Detector, n: int) -> int:
    """Return how many updates a detector takes of its own on ``n`` samples, all it wraps taken together.

    None, 0, for one with a closed form. The groups of a :class:`~genad.Grouped` detector count as one.
    """
    return sum(updates for _, updates in _trainings(detector, n))


def price(detector: Detector, n: int) -> float:
    """Return what a full training costs, in updates of a plain autoencoder.

    Examples
    --------
    >>> from genad import create
    >>> price(create("ppca"), 500), price(create("vae"), 500), price(Ensemble(create("vae"), n=2), 500)
    (0.0, 900.0, 1800.0)
    """
    return float(sum(_WEIGHTS.get(name, 1.0) * updates for name, updates in _trainings(detector, n)))


def shortened(detector: Detector, share: float, n: int, seed: int) -> Detector:
    """Return a copy with the seed, and with a share of the updates of all that it trains; of all when that is 1."""
    copied: Detector = clone(detector).set_params(random_state=seed)
    if share < 1:
        _shorten(copied, share, n)
    return copied


def _shorten(detector: Detector, share: float, n: int) -> None:
    """Shorten what is wrapped where it was given as a parameter; what a detector makes itself, by its own training."""
    given = [part for value in detector.get_params(deep=False).values() for part in _each(value)]
    parts = [part for part, _ in _trained(detector)]
    own = [part for part in parts if not any(part is one for one in given)] if parts else [detector]
    updates = max((updates for part in own for _, updates in _trainings(part, n)), default=0)
    for part in parts:
        if any(part is one for one in given):
            _shorten(part, share, n)
    if updates:
        detector.training = Training(updates=max(FEWEST, round(share * updates))).over(detector.training or Training())


def _each(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else (value,)


@dataclass(frozen=True)
class Round:
    """One round of successive halving.

    Attributes
    ----------
    share : float
        Share of its full training and of the rows that each candidate gets, in (0, 1].
    cost : float
        What the round costs at most, in updates.
    entrants : int
        How many candidates take part, the default among them.
    """

    share: float
    cost: float
    entrants: int


def plan_round(
    prices: Sequence[float],
    work: float,
    rounds: int,
    trials: int = 1,
    overheads: Sequence[float] | None = None,
    most: float = 1.0,
) -> Round | None:
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
    overheads : sequence of float, optional
        What a fit and its scores cost beside the training, by candidate; 100 each when absent.
    most : float
        Largest share of their training that candidates get, where there is one to be paid.

    Returns
    -------
    Round or None
        None when the work does not even pay the overhead of each and the fewest updates.

    Examples
    --------
    >>> plan_round([0.0, 900.0], 5000, 2)
    Round(share=1.0, cost=1100.0, entrants=2)
    >>> plan_round([300.0, 900.0], 1000, 2)
    Round(share=0.25, cost=500.0, entrants=2)
    >>> plan_round([300.0, 900.0], 100, 1) is None
    True
    """
    beside = trials * float(sum(overheads)) if overheads is not None else float(OVERHEAD * trials * len(prices))
    full = trials * float(sum(prices))
    free = work / rounds - beside
    if free < 0 or (full and free < FEWEST * trials * sum(each > 0 for each in prices)):
        return None
    share = 1.0 if not full else min(most, free / full)
    return Round(share, beside + share * full, len(prices))


def schedule(
    prices: Sequence[float], work: float, overheads: Sequence[float] | None = None, most: float = 1.0
) -> list[Round]:
    """Plan the rounds of a race, before it: as many as train those of the last round the most.

    In every round the default, the first of all, goes on with the better half of the others, and each round gets an
    even part of what is left. Nobody knows who goes on, so the dearest are reckoned with; then the training of the last
    round depends on nothing but the work, and never falls as this grows. A race that takes more from the early rounds
    than it saves in the last one, as with few candidates, is not run: all are trained alike, once.

    Parameters
    ----------
    prices : sequence of float
        As in :func:`plan_round`, the default's first.
    work : float
        Updates in all.
    overheads, most : optional
        As in :func:`plan_round`.

    Returns
    -------
    list of Round
        At most three, each with fewer candidates; none when the work does not pay one.

    Examples
    --------
    >>> schedule([300.0] * 3, 900)
    [Round(share=0.6666666666666666, cost=900.0, entrants=3)]
    >>> [(planned.entrants, round(planned.share, 2)) for planned in schedule([0.0] + 12 * [400.0], 4800)]
    [(13, 0.06), (7, 0.38), (4, 1.0)]
    """
    beside = [float(OVERHEAD)] * len(prices) if overheads is None else list(overheads)
    best: list[Round] = []
    for rounds in range(1, _ROUNDS + 1):
        found = _planned(prices, beside, work, rounds, most)
        if found and (not best or found[-1].share > best[-1].share):
            best = found
    return best


def _planned(prices: Sequence[float], overheads: Sequence[float], work: float, rounds: int, most: float) -> list[Round]:
    """Plan so many rounds, or none when one of them cannot be paid or drops nobody."""
    planned: list[Round] = []
    racing = len(prices)
    for k in range(rounds, 0, -1):
        dearest, slowest = ([each[0], *sorted(each[1:], reverse=True)[: racing - 1]] for each in (prices, overheads))
        one = plan_round(dearest, work, k, 1, slowest, most)
        if one is None or (planned and one.entrants == planned[-1].entrants):
            return []
        planned.append(one)
        work -= one.cost
        racing = 1 + max(1, (racing - 1) // 2)
        if one.share >= most:
            break
    return planned
