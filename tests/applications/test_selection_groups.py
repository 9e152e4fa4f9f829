"""Groups of rows that are left out: whose they are, what they count, and when there is work for them."""

from __future__ import annotations

import numpy as np
import pytest

from genad.applications import selection
from genad.applications.selection import select
from genad.applications.selection_budget import plan_round
from genad.applications.selection_groups import trials_without_a_group
from genad.applications.selection_trials import UNSEEN, Marks, Trial, difference, make_trial
from genad.data.kinds import Kind
from genad.data.series import as_series
from genad.data.table import as_table


def clumps(n: int = 900, groups: int = 10, seed: int = 0) -> np.ndarray:
    """Rows in clumps along a line, each far from the others."""
    centres = 12 * np.arange(groups)[:, None] * np.array([1.0, 0.5, -1.0])
    return centres[np.arange(n) % groups] + np.random.default_rng(seed).normal(size=(n, 3))


def rows_of(table) -> set[tuple[float, ...]]:
    return {tuple(row) for row in table.matrix}


def test_a_group_left_out_is_never_learnt_and_is_all_that_counts_as_anomalous():
    trial = make_trial(as_table(clumps()), Kind.TABLE, 0)
    found = trials_without_a_group(trial, 0)
    assert [list(each.anomalous) for each in found] == [[f"{UNSEEN} {k}"] for k in range(1, 7)]
    held = rows_of(trial.judged.take(np.arange(trial.held)))
    for each in found:
        ((name, odd),) = each.anomalous.items()
        usual = each.beside[name]
        bad, good = rows_of(each.judged.take(odd)), rows_of(each.judged.take(usual))
        learnt = rows_of(each.learnt)
        assert not learnt & (bad | held)
        assert good <= held
        assert good | bad >= held
        assert not good & bad
        # What is left out are rows of their own place: nearer to each other than to anything learnt.
        apart = np.linalg.norm(np.array(sorted(bad)).mean(0) - np.array(sorted(learnt)), axis=1)
        assert apart.min() > 4 * np.array(sorted(bad)).std(0).max()


def test_groups_of_the_most_usual_size_are_left_out_first_and_no_tiny_or_huge_one():
    rng = np.random.default_rng(0)
    sizes = (1200, 200, 150, 100, 80, 60, 45, 30, 20, 3)
    X = np.concatenate([60 * k + rng.normal(size=(n, 2)) for k, n in enumerate(sizes)])
    trial = make_trial(as_table(X), Kind.TABLE, 0)
    found = trials_without_a_group(trial, 0)
    assert len(found) == 6
    left_out = np.array([trial.size - each.size for each in found])
    assert ((left_out >= 5) & (left_out < trial.size / 2)).all()
    unusual = np.abs(np.log(left_out * 10 / trial.size))
    assert (np.diff(unusual) >= 0).all()
    assert len(set(left_out.tolist())) > 3
    again = trials_without_a_group(make_trial(as_table(X), Kind.TABLE, 0), 0)
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one.judged.matrix, other.judged.matrix)


@pytest.mark.parametrize(
    "X",
    [
        np.repeat(np.random.default_rng(0).normal(size=(2, 2)), 100, axis=0),
        {"word": np.random.default_rng(0).choice(["a", "b", "c"], 300), "flag": np.arange(300) % 2 == 0},
    ],
    ids=["two-values", "words"],
)
def test_rows_without_numbers_to_cut_have_no_groups(X):
    assert trials_without_a_group(make_trial(as_table(X), Kind.TABLE, 0), 0) == []


def test_series_have_no_groups():
    t = np.arange(1500)
    X = np.c_[np.sin(t / 6), np.cos(t / 6)] + 0.05 * np.random.default_rng(0).normal(size=(1500, 2))
    assert trials_without_a_group(make_trial(as_series(X), Kind.SERIES, 0), 0) == []


def marks(**auroc: float) -> Marks:
    names = {name.replace("_", " "): value for name, value in auroc.items()}
    return Marks({k: np.full(50, v) for k, v in names.items()}, {k: np.full(40, v) for k, v in names.items()})


def test_what_is_made_up_and_what_is_left_out_count_one_half_each():
    both = marks(local=0.9, dependency=0.7) | marks(unseen_group_1=0.6)
    np.testing.assert_allclose(both.weights, [0.25, 0.25, 0.5])
    assert both.score == pytest.approx(0.7 - 0.5 * np.sqrt(0.25 * 0.04 + 0.25 * 0 + 0.5 * 0.01))
    np.testing.assert_allclose(marks(local=0.9, dependency=0.7).weights, [0.5, 0.5])
    np.testing.assert_allclose(marks(unseen_group_1=0.9).weights, [1.0])
    gain, _ = difference(both, marks(local=0.8, dependency=0.8) | marks(unseen_group_1=0.5))
    assert gain == pytest.approx(0.25 * 0.1 - 0.25 * 0.1 + 0.5 * 0.1)


def test_the_error_of_a_difference_over_groups_covers_that_of_repeated_draws():
    rng = np.random.default_rng(0)
    usual = np.arange(200)
    trials = [
        Trial(Kind.TABLE, None, None, 200, {"local": np.arange(200, 300)}, {"local": usual}),
        Trial(Kind.TABLE, None, None, 200, {f"{UNSEEN} 1": np.arange(200, 300)}, {f"{UNSEEN} 1": usual[:120]}),
    ]
    truth = np.r_[np.zeros(200), np.ones(100)]

    def drawn(common: np.ndarray, shift: float) -> Marks:
        first, second = (
            Marks.of(shift * truth + c + 0.5 * rng.normal(size=300), trial)
            for c, trial in zip(common, trials, strict=True)
        )
        return first | second

    found = []
    for _ in range(300):
        common = np.tile(rng.normal(size=300), (2, 1))
        common[1, 200:] = rng.normal(size=100)
        found.append(difference(drawn(common, 1.5), drawn(common, 1.2)))
    gains, errors = np.array(found).T
    # The spread between kinds holds some of the chance in the draws again: the error is rather too large.
    assert gains.std() < errors.mean() < 1.6 * gains.std()


def test_a_round_costs_as_many_fits_as_there_are_trials():
    assert plan_round([1000.0, 0.0], 5000, 1, trials=4).cost == 4 * 200 + 4 * 1000
    assert plan_round([1000.0, 0.0], 2800, 1, trials=4).share == 0.5
    assert plan_round([1000.0, 0.0], 800, 1, trials=4) is None


def test_groups_are_left_out_as_far_as_the_work_goes(monkeypatch):
    monkeypatch.setitem(selection.DEFAULTS, Kind.TABLE, "ppca")
    kinds = {}
    for work in (250, 450, 6000):
        chosen = select(clumps(400), budget=f"{work} updates", candidates=["nearest_memory"])
        kinds[work] = sum(kind.startswith(UNSEEN) for kind in chosen.kinds)
        assert set(chosen.candidates[0]["auroc"]) == set(chosen.kinds)
    assert kinds == {250: 0, 450: 1, 6000: 6}
    assert "and 6 unseen groups of rows" in chosen.reason
    # A clump on the line through the others is nothing new to a model of planes; to a memory it is.
    assert chosen.method == "nearest_memory"
    by_name = {row["method"]: row["auroc"] for row in chosen.candidates}
    assert all(by_name["nearest_memory"][f"{UNSEEN} {k}"] > 0.99 > by_name["ppca"][f"{UNSEEN} {k}"] for k in (1, 2, 3))
