"""Shapley values of scores: exact where they are known, complete always, and the planted culprit first."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import numpy as np
import pytest

import genad
from genad.core.attribution import attribute
from genad.errors import InputError

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=(600, 4))


def judging(score: Callable[[np.ndarray], np.ndarray], width: int = 4) -> genad.Detector:
    """Return a fitted detector whose score is the function given."""
    detector = genad.create("ppca").fit(RNG.normal(size=(600, width)))
    detector.anomaly_score = score
    return detector


def brute_force(score: Callable[[np.ndarray], np.ndarray], x: np.ndarray, b: np.ndarray) -> np.ndarray:
    values = np.zeros(len(x))
    orders = list(itertools.permutations(range(len(x))))
    for order in orders:
        at = b.copy()
        for j in order:
            before = score(at[None])[0]
            at[j] = x[j]
            values[j] += score(at[None])[0] - before
    return values / len(orders)


def twisted(rows: np.ndarray) -> np.ndarray:
    return rows[:, 0] * rows[:, 1] + np.maximum(rows[:, 2], rows[:, 3]) ** 2 + np.abs(rows[:, 0] - rows[:, 3])


@pytest.mark.parametrize("at", [0, 1, 2])
def test_few_features_get_the_values_of_all_orders(at: int) -> None:
    x, b = NORMAL[at], NORMAL[at + 10 : at + 11]
    found = attribute(judging(twisted), x[None], 0, background=b)
    np.testing.assert_allclose(found.values, brute_force(twisted, x, b[0]), atol=1e-12)
    assert not found.errors.any()


def test_several_backgrounds_give_the_mean_of_their_values() -> None:
    found = attribute(judging(twisted), NORMAL[:1], 0, background=NORMAL[5:8])
    one_by_one = [brute_force(twisted, NORMAL[0], b) for b in NORMAL[5:8]]
    np.testing.assert_allclose(found.values, np.mean(one_by_one, axis=0), atol=1e-12)
    assert found.base == pytest.approx(twisted(NORMAL[5:8]).mean())


def test_sampled_values_of_pairwise_terms_are_exact_by_the_opposite_orders() -> None:
    # In an order and its reverse every pair of features comes both ways round, so a score of pairs leaves no noise.
    A = RNG.normal(size=(30, 30))
    rows = RNG.normal(size=(2, 30))
    found = attribute(judging(lambda r: np.einsum("ni,ij,nj->n", r, A, r), 30), rows[:1], 0, background=rows[1:])
    x, b = rows
    both = A + A.T
    exact = (x - b) * (both @ (x + b)) / 2
    np.testing.assert_allclose(found.values, exact, atol=1e-9)
    np.testing.assert_allclose(found.errors, 0, atol=1e-9)


def test_sampled_values_are_near_the_exact_ones_and_say_how_near() -> None:
    def score(rows: np.ndarray) -> np.ndarray:
        return np.prod(1 + 0.2 * rows, axis=1)

    rows = RNG.normal(size=(2, 14))
    exact = attribute(judging(score, 14), rows[:1], 0, background=rows[1:], samples=2000)
    few = attribute(judging(score, 14), rows[:1], 0, background=rows[1:], samples=60)
    assert not exact.errors.any()
    assert few.errors.min() > 0
    assert few.evaluations < exact.evaluations / 10
    assert np.abs((few.values - exact.values) / few.errors).max() < 5


@pytest.mark.parametrize("background", [None, "restored", "mean", NORMAL])
@pytest.mark.parametrize("samples", [None, 7])
def test_values_add_up_to_the_score_less_the_base(background: object, samples: int | None) -> None:
    detector = genad.create("ppca").fit(NORMAL)
    row = np.array([[0.2, 5.0, -0.3, 1.0]])
    found = attribute(detector, row, 0, background=background, samples=samples)
    assert found.score == pytest.approx(float(detector.anomaly_score(row)[0]), rel=1e-6)
    assert abs(found.residual) < 1e-9 * max(1.0, abs(found.score))


def test_orders_follow_the_seed() -> None:
    wide = RNG.normal(size=(600, 20))
    detector = genad.Autoencoder(training=genad.Training(updates=30)).fit(wide)
    row = wide[:1] + 3 * np.eye(20)[:1]
    first, again, other = (attribute(detector, row, 0, seed=seed, samples=8) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.values, again.values)
    assert not np.array_equal(first.values, other.values)


def test_a_unit_that_is_its_own_background_has_nothing_to_share_out() -> None:
    found = attribute(judging(twisted), NORMAL[:1], 0, background=NORMAL[:1])
    assert not found.values.any()
    assert found.score == found.base


def test_features_equal_on_both_sides_get_nothing_and_cost_nothing() -> None:
    b = NORMAL[:1].copy()
    x = b.copy()
    x[0, 2] += 4
    found = attribute(judging(twisted), x, 0, background=b)
    assert np.flatnonzero(found.values).tolist() == [2]
    assert found.evaluations == 2


def test_a_model_that_follows_the_anomaly_is_compared_with_the_mean() -> None:
    rows = RNG.normal(size=(1000, 20))
    detector = genad.create("ppca").fit(rows)
    row = np.zeros((1, 20))
    row[0, 7] = 12.0
    assert attribute(detector, row, 0).top(1)[0][0] == "x7"


def table(n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    load = rng.normal(size=n)
    return {
        "load": load,
        "heat": 2 * load + rng.normal(0, 0.1, n),
        "state": rng.choice(["on", "off"], n),
        "count": rng.integers(0, 9, n),
        "open": rng.random(n) < 0.5,
        "day": np.datetime64("2024-01-01") + rng.integers(0, 300, n).astype("timedelta64[D]"),
    }


@pytest.fixture(scope="module")
def of_table() -> genad.Detector:
    return genad.Autoencoder(training=genad.Training(updates=150)).fit(table(800))


@pytest.mark.parametrize("background", [None, "mean", "normal"])
def test_mixed_columns_are_features_each_in_the_users_units(of_table: genad.Detector, background: str) -> None:
    data = table(50)
    data["heat"][4] = 40.0
    normal = table(200) if background == "normal" else background
    found = attribute(of_table, data, 4, background=normal)
    assert found.names == tuple(data)
    assert found.top(1)[0][0] == "heat"
    assert found.observed[1] == 40.0
    assert found.observed[2] in {"on", "off"}
    assert abs(found.residual) < 1e-9
    told = json.loads(json.dumps(found.to_dict()))
    assert told["parts"][1]["name"] == "heat"
    assert "heat" in str(found)


def test_a_missing_cell_is_a_value_of_its_own(of_table: genad.Detector) -> None:
    data = table(20)
    data["load"][3] = np.nan
    found = attribute(of_table, data, 3)
    assert found.observed[0] is None
    assert np.isfinite(found.values).all()


def test_dataframes_and_negative_positions_work(of_table: genad.Detector) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(table(30))
    by_end, by_start = attribute(of_table, frame, -1), attribute(of_table, frame, 29)
    np.testing.assert_array_equal(by_end.values, by_start.values)
    assert by_end.index == 29


def test_the_group_of_a_row_stays_as_it_is() -> None:
    rng = np.random.default_rng(1)
    data = {"site": ["a"] * 600 + ["b"] * 600, "x": rng.normal(size=1200), "y": rng.normal(size=1200)}
    detector = genad.Grouped(genad.create("ppca"), by="site").fit(data)
    data["y"][500] = 9.0
    found = attribute(detector, data, 500)
    assert found.names == ("x", "y")
    assert abs(found.residual) < 1e-9


@pytest.fixture(scope="module")
def of_series() -> tuple[genad.Detector, np.ndarray]:
    steps = np.arange(1500)
    rng = np.random.default_rng(0)
    series = np.sin(steps / 9)[:, None] * [1, 2, 3] + rng.normal(0, 0.1, (1500, 3))
    return genad.Windowed(genad.create("ppca"), window=16).fit(series[:1200]), series[1200:]


@pytest.mark.parametrize("background", [None, "mean", "normal"])
def test_a_step_is_shared_out_among_channels_and_steps(
    of_series: tuple[genad.Detector, np.ndarray], background: str | None
) -> None:
    detector, series = of_series
    series = series.copy()
    series[100:104, 1] += 4
    normal = series[150:] if background == "normal" else background
    found = attribute(detector, series, 102, block=4, background=normal)
    assert found.score == pytest.approx(float(detector.anomaly_score(series)[102]), rel=1e-5)
    name, value = found.top(1)[0]
    assert name.startswith("x1, step ")
    low, high = (int(word) for word in name.split("step ")[1].split(" to "))
    assert low <= 103
    assert high >= 100
    assert value > 0.3 * (found.score - found.base)
    assert abs(found.residual) < 1e-9 * found.score


def test_a_step_at_the_end_has_fewer_steps_around(of_series: tuple[genad.Detector, np.ndarray]) -> None:
    detector, series = of_series
    found = attribute(detector, series, -1, samples=4)
    assert found.score == pytest.approx(float(detector.anomaly_score(series)[-1]), rel=1e-5)
    assert found.names[-1].endswith(f"{len(series) - 1}")


def test_windows_and_images_are_shared_out_among_blocks() -> None:
    windows = RNG.normal(size=(600, 12, 2))
    detector = genad.Autoencoder(training=genad.Training(updates=20)).fit(windows)
    windows[1, 5, 1] = 9.0
    found = attribute(detector, windows, 1, block=3)
    assert len(found.names) == 8
    assert found.top(1)[0][0] == "channel 1, step 3 to 5"
    images = RNG.random((600, 1, 8, 8))
    of_images = genad.Autoencoder(training=genad.Training(updates=20)).fit(images)
    images[2, 0, 4:, :4] = 6.0
    seen = attribute(of_images, images, 2, block=4)
    assert seen.names[2] == "row 4 to 7, column 0 to 3"
    assert seen.top(1)[0][0] == seen.names[2]


def test_the_culprit_of_a_real_row_is_found(one_class: Callable) -> None:
    train, test, _ = one_class("cardio")
    detector = genad.create("ppca").fit(train)
    hits = 0
    for j in range(10):
        row = test[j : j + 1].copy()
        row[0, j] = train[:, j].mean() + 8 * train[:, j].std()
        hits += attribute(detector, row, 0, background=train).top(1)[0][0] == f"x{j}"
    assert hits >= 8


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"i": 3}, "use 0 to 2"),
        ({"i": 1.0}, "use 0 to 2"),
        ({"samples": 1}, "samples: 1 was given"),
        ({"block": 0}, "block: 0 was given"),
        ({"background": "median"}, "use 'restored', 'mean' or normal data"),
        ({"background": np.zeros((5, 3))}, r"shape \(5, 3\) was given"),
        ({"X": 5}, "a int was given"),
    ],
)
def test_what_cannot_be_used_is_named(change: dict, words: str) -> None:
    given = {"X": NORMAL[:3], "i": 0} | change
    with pytest.raises(InputError, match=words):
        attribute(judging(twisted), given.pop("X"), given.pop("i"), **given)


def test_a_score_without_end_cannot_be_shared_out() -> None:
    with pytest.raises(InputError, match="not finite"):
        attribute(judging(lambda rows: np.full(len(rows), np.inf)), NORMAL[:1], 0, background=NORMAL[1:2])


def test_backgrounds_that_do_not_fit_are_refused(
    of_table: genad.Detector, of_series: tuple[genad.Detector, np.ndarray]
) -> None:
    with pytest.raises(InputError, match="it has no column 'load'"):
        attribute(of_table, table(5), 0, background={"heat": [1.0]})
    detector, series = of_series
    with pytest.raises(InputError, match="a series of 2 channels was given; use 3"):
        attribute(detector, series, 50, background=series[:, :2])
    with pytest.raises(InputError, match="no unbroken stretch has 31 steps"):
        attribute(detector, series, 50, background=series[:20])
    with pytest.raises(InputError, match="fewer than the 16 of a window"):
        attribute(detector, series[:10], 5)
    with pytest.raises(InputError, match="k: 0 was given"):
        attribute(detector, series, 50, samples=2).top(0)
