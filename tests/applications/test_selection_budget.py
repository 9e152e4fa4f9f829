"""What may be tried: budgets as they are given, what candidates cost and how they are shortened, and the rounds."""

from __future__ import annotations

import numpy as np
import pytest

import genad
from genad.applications.selection import select
from genad.applications.selection_budget import Budget, natural_updates, plan_round, price, schedule, shortened
from genad.core.committee import Committee
from genad.core.detector import Detector
from genad.core.ensemble import Ensemble
from genad.core.training import Training
from genad.core.windows import Windowed
from genad.density.synthetic_normals import SyntheticNormals
from genad.errors import InputError
from genad.reconstruction.autoencoder.autoencoder import Autoencoder


def rows(n: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 4))


@pytest.mark.parametrize(
    ("given", "seconds", "work"),
    [("60s", 60.0, None), (" 2m ", 120.0, None), (1.5, 1.5, None), ("0.5h", 1800.0, None), ("300 updates", None, 300)],
)
def test_budgets_are_time_or_work(given, seconds, work):
    assert Budget.parse(given) == Budget(seconds, work)


@pytest.mark.parametrize("given", ["soon", "", "60x", None, True, [60], "nan", "1e999s", "--5s"])
def test_unusable_budgets_are_refused(given):
    with pytest.raises(InputError, match=r"budget: .* was given; use for instance '60s'"):
        select(rows(60), budget=given)


@pytest.mark.parametrize("given", [0, "0s", -3, "-1 updates"])
def test_no_budget_is_refused(given):
    with pytest.raises(InputError, match="nothing can be tried in it"):
        select(rows(60), budget=given)


def test_prices_are_those_of_the_own_training():
    assert natural_updates(genad.create("ppca"), 1000) == 0
    assert natural_updates(genad.create("table_committee"), 1000) == 1800
    assert natural_updates(Windowed(Autoencoder(training=Training(updates=70))), 1000) == 70
    flow = genad.create("flow", training=Training(updates=10))
    assert price(flow, 1000) == 60.0


def test_a_short_training_is_a_share_of_the_own_one():
    detector = Autoencoder(training=Training(updates=200, lr=0.01))
    short = shortened(detector, 0.25, 500, 7)
    assert (short.training.updates, short.training.lr, short.random_state) == (50, 0.01, 7)
    assert detector.training.updates == 200
    assert shortened(detector, 1.0, 500, 7).training == detector.training
    assert shortened(Windowed(detector), 0.01, 500, 7).detector.training.updates == 20
    assert shortened(genad.create("table_committee"), 0.5, 500, 0).training.updates == 300


def wrappers() -> dict[str, tuple[Detector, int]]:
    """Detectors made of others, and what all their trainings come to."""
    net = Autoencoder(training=Training(updates=200))
    return {
        "ensemble": (Ensemble(net, n=4), 800),
        "committee": (Committee((net, genad.create("vae", training=Training(updates=100)))), 300),
        "synthetic": (SyntheticNormals(net), 600),
        "synthetic, its own": (SyntheticNormals(training=Training(updates=200)), 600),
        "synthetic, generated": (SyntheticNormals(net, genad.create("vae", training=Training(updates=100))), 700),
        "windows": (Windowed(Ensemble(net, n=2)), 400),
        "committee of ensembles": (Committee((Ensemble(net, n=2), genad.create("ppca"))), 400),
        "denoisers": (genad.create("table_committee", denoisers=8), 4800),
        "series": (genad.create("series_committee"), 400),
        "memory": (Ensemble(genad.create("nearest_memory"), n=3), 0),
    }


@pytest.mark.parametrize("name", list(wrappers()))
def test_what_is_wrapped_is_priced_and_shortened(name):
    detector, updates = wrappers()[name]
    before = repr(detector.get_params(deep=True))
    assert natural_updates(detector, 300) == updates
    short = shortened(detector, 0.5, 300, 0)
    assert natural_updates(short, 300) == updates / 2
    assert repr(detector.get_params(deep=True)) == before
    assert natural_updates(shortened(detector, 1.0, 300, 0), 300) == updates


def test_what_is_wrapped_has_its_own_price_for_an_update():
    flow = genad.create("flow", training=Training(updates=10))
    assert price(Committee((flow, Autoencoder(training=Training(updates=50)))), 300) == 110.0
    assert price(Windowed(Ensemble(flow, n=2)), 300) == 120.0


def test_a_short_fit_of_what_is_wrapped_takes_so_few_updates():
    for name in ("ensemble", "committee"):
        report = shortened(wrappers()[name][0], 0.25, 600, 0).fit(rows(600)).training_report_
        assert report.updates == {"ensemble": 50, "committee": 75}[name]


def test_rounds_share_the_work_that_is_left():
    assert plan_round([0.0, 0.0], 200, 1).share == 1.0
    assert plan_round([0.0, 0.0], 199, 1) is None
    halves = plan_round([1000.0] * 4, 4800, 2)
    assert (halves.share, halves.cost) == (0.5, 2400.0)
    assert plan_round([0.0, 0.0], 1000, 1, 2, [100.0, 400.0]).cost == 1000.0
    assert plan_round([0.0, 0.0], 999, 1, 2, [100.0, 400.0]) is None


@pytest.mark.parametrize("count", [2, 3, 4, 10, 13, 40])
@pytest.mark.parametrize("default", [0.0, 1800.0])
def test_more_work_never_trains_the_last_round_less(count, default):
    prices = [default, *(400.0 + 100.0 * (k % 3) for k in range(count - 1))]
    shares, rounds = [], set()
    for work in range(0, 40_000, 37):
        planned = schedule(prices, work)
        shares.append(planned[-1].share if planned else 0.0)
        rounds.add(len(planned))
        entrants = [each.entrants for each in planned]
        assert entrants == sorted(set(entrants), reverse=True)  # somebody drops after every round
        assert sum(each.cost for each in planned) <= work + 1e-6
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert shares[-1] == 1.0
    if count <= 3:
        assert rounds == {0, 1}  # a race would take more from the first round than it saves in the last
    if count == 40:
        assert 3 in rounds
