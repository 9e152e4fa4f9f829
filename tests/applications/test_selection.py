"""Choosing without labels: what is compared, how the budget is spent, what is decided, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from genad.applications import selection
from genad.applications.selection import labelled_candidates, select
from genad.applications.selection_groups import trials_without_a_group
from genad.applications.selection_trials import Marks, Trial, difference, make_trial
from genad.core.training import Training
from genad.core.windows import Windowed
from genad.data.kinds import Kind
from genad.data.series import as_series
from genad.data.table import as_table
from genad.errors import InputError, InputTypeError, TrainingError
from genad.nn import Backbone
from genad.reconstruction.autoencoder.autoencoder import Autoencoder


def plane(n: int = 400, seed: int = 0) -> np.ndarray:
    """Rows on a plane in eight dimensions: what breaks it is an anomaly that distances hardly see."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)) @ np.random.default_rng(9).normal(size=(2, 8)) + 0.02 * rng.normal(size=(n, 8))


def ring(n: int = 600, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, n)
    return np.c_[np.cos(angle), np.sin(angle)] + 0.02 * rng.normal(size=(n, 2))


def waves(n: int = 1500) -> np.ndarray:
    t = np.arange(n)
    return np.c_[np.sin(t / 6), np.cos(t / 6)] + 0.05 * np.random.default_rng(0).normal(size=(n, 2))


def make_default(monkeypatch, name: str, kind: Kind = Kind.TABLE) -> None:
    """Let another detector be the default, so that the default is quick or is the worse one."""
    monkeypatch.setitem(selection.DEFAULTS, kind, name)


# ------------------------------------------------------------------ the trial


def test_a_trial_of_a_table_keeps_its_parts_apart():
    X = as_table(plane(400))
    trial = make_trial(X, Kind.TABLE, 3)
    assert (trial.size, trial.held, len(trial.judged)) == (280, 120, 4 * 120 + 4 * 300)
    learnt = {tuple(row) for row in trial.learnt.matrix}
    held = trial.judged.matrix[:120]
    assert not learnt & {tuple(row) for row in held}
    assert learnt | {tuple(row) for row in held} == {tuple(row) for row in X.matrix}
    units = np.concatenate([*trial.beside.values(), *trial.anomalous.values()])
    np.testing.assert_array_equal(np.sort(units), np.arange(len(trial.judged)))
    assert all((rows % 120).tolist() == list(range(120)) for rows in trial.beside.values())
    again = make_trial(X, Kind.TABLE, 3)
    np.testing.assert_array_equal(trial.judged.matrix, again.judged.matrix)
    assert not np.array_equal(trial.judged.matrix, make_trial(X, Kind.TABLE, 4).judged.matrix)


def test_a_trial_of_a_series_holds_out_the_end_and_injects_every_kind():
    X = as_series(waves())
    trial = make_trial(X, Kind.SERIES, 0)
    assert trial.size == 1050
    assert trial.held == 450
    np.testing.assert_array_equal(trial.learnt.values, X.values[:1050])
    np.testing.assert_array_equal(trial.judged.values[:450], X.values[1050:])
    assert set(trial.anomalous) == {"global", "contextual", "shapelet", "seasonal", "trend", "paste"}
    assert len(trial.judged.segments) == 7
    for kind, bad in trial.anomalous.items():
        version = bad // 450
        assert len(set(version)) == 1
        good = trial.beside[kind]
        assert set(good // 450) == set(version)
        assert np.abs(bad[:, None] - good).min() > 16  # what windows smear is not judged
        np.testing.assert_array_equal(trial.judged.values[good], X.values[1050 + good % 450])
        assert (trial.judged.values[bad] != X.values[1050 + bad % 450]).any(1).all()


def test_parts_are_random_rows_and_the_latest_steps():
    trial = make_trial(as_table(plane(400)), Kind.TABLE, 0)
    part = trial.part(0.25, 0, 10)
    assert len(part) == 70
    assert {tuple(row) for row in part.matrix} <= {tuple(row) for row in trial.learnt.matrix}
    assert trial.part(0.01, 0, 500) is trial.learnt
    steps = make_trial(as_series(waves()), Kind.SERIES, 0).part(0.5, 0, 10)
    np.testing.assert_array_equal(steps.values, waves()[525:1050])


def test_marks_are_auroc_by_kind_with_ties_as_halves():
    trial = Trial(
        Kind.TABLE, None, None, 4, {"a": np.array([4, 5]), "b": np.array([6])}, dict.fromkeys("ab", np.arange(4))
    )
    scores = np.array([0.0, 1.0, 2.0, 3.0, 2.0, 9.0, 0.5])
    marks = Marks.of(scores, trial)
    assert marks.auroc == {"a": (2.5 / 4 + 1) / 2, "b": 0.25}
    y = np.r_[np.zeros(4), 1, 1]
    assert marks.auroc["a"] == roc_auc_score(y, scores[:6])
    assert np.mean(marks.of_normals["a"]) == pytest.approx(marks.auroc["a"])


def test_the_error_of_a_difference_is_that_of_repeated_draws():
    rng = np.random.default_rng(0)

    def marks(draw: np.random.Generator, shift: float, common: np.ndarray) -> Marks:
        trial = Trial(Kind.TABLE, None, None, 200, {"a": np.arange(200, 300)}, {"a": np.arange(200)})
        truth = np.r_[np.zeros(200), np.ones(100)]
        return Marks.of(shift * truth + common + 0.5 * draw.normal(size=300), trial)

    found = []
    for _ in range(300):
        common = rng.normal(size=300)
        found.append(difference(marks(rng, 1.5, common), marks(rng, 1.2, common)))
    gains, errors = np.array(found).T
    assert errors.mean() == pytest.approx(gains.std(), rel=0.2)


def test_disagreeing_kinds_make_a_difference_uncertain():
    def marks(a: float, b: float) -> Marks:
        return Marks({"a": np.full(50, a), "b": np.full(50, b)}, {"a": np.full(40, a), "b": np.full(40, b)})

    gain, error = difference(marks(0.9, 0.6), marks(0.7, 0.7))
    assert gain == pytest.approx(0.05)
    assert error == pytest.approx(0.15)


# ------------------------------------------------------------------ the choice


def test_a_clearly_better_candidate_is_taken_and_the_reason_says_why(monkeypatch):
    make_default(monkeypatch, "ppca")
    chosen = select(ring(), budget="3000 updates", candidates=["nearest_memory"])
    assert chosen.method == "nearest_memory"
    assert not chosen.is_default
    assert chosen.reason.startswith("ahead of the default ppca by 0.")
    assert chosen.kinds[:4] == ("local", "global", "cluster", "dependency")
    assert chosen.kinds[4:] == tuple(f"unseen group {k}" for k in range(1, 7))
    first, second = chosen.candidates
    assert first["method"] == "nearest_memory"
    assert first["ahead"] > first["error"] > 0
    assert first["score"] > second["score"]
    assert set(first["auroc"]) == set(chosen.kinds)
    assert not hasattr(chosen.detector, "net_")
    assert chosen.detector.fit(ring()).anomaly_score(ring(50)).shape == (50,)


def test_the_default_stays_when_nothing_is_ahead_by_more_than_chance(monkeypatch):
    make_default(monkeypatch, "nearest_memory")
    chosen = select(ring(), budget="3000 updates", candidates=["ppca", "autoencoder"])
    assert chosen.is_default
    assert chosen.method == "nearest_memory"
    assert chosen.reason.startswith("the default, for none of 2 others is clearly ahead of it")


def test_made_up_anomalies_alone_have_to_show_more(monkeypatch):
    make_default(monkeypatch, "ppca")
    monkeypatch.setattr(selection, "difference", lambda *_: (0.01, 0.01))  # one standard error
    options = {"budget": "3000 updates", "candidates": ["nearest_memory", ("nearest_memory", {"neighbours": 3})]}
    assert not select(ring(), **options).is_default
    monkeypatch.setattr(selection, "trials_without_a_group", lambda *_: [])
    alone = select(ring(), **options)
    assert alone.kinds == ("local", "global", "cluster", "dependency")
    assert alone.candidates[0]["method"].startswith("nearest_memory")
    assert alone.is_default


def test_work_makes_the_choice_the_same_every_time(monkeypatch):
    make_default(monkeypatch, "ppca")
    options = {"budget": "450 updates", "candidates": ["nearest_memory", "autoencoder"], "random_state": 5}
    tables = []
    for _ in range(2):
        chosen = select(plane(), **options)
        tables.append([{k: v for k, v in row.items() if k != "seconds"} for row in chosen.candidates])
    assert tables[0] == tables[1]
    assert chosen.work == 450
    assert 0 < max(row["share"] for row in chosen.candidates) < 1


def test_hopeless_candidates_are_stopped_early_and_the_default_never(monkeypatch):
    make_default(monkeypatch, "nearest_memory")
    monkeypatch.setattr(selection, "trials_without_a_group", lambda *_: [])
    settings = {"training": Training(updates=400, batch_size=32), "backbone": Backbone("mlp", hidden=(8,))}
    names = [("autoencoder", {"latent": 1 + k % 4, "holdout": 0.1 + 0.01 * k, **settings}) for k in range(12)]
    chosen = select(plane(), budget="4800 updates", candidates=names)
    rounds = {row["method"]: row["round"] for row in chosen.candidates}
    assert sorted(rounds.values()) == [1] * 6 + [2] * 3 + [3] * 4
    assert rounds["nearest_memory"] == 3
    shares = {row["round"]: row["share"] for row in chosen.candidates}
    assert shares[1] < shares[2] < shares[3] == 1.0
    for row in chosen.candidates:
        assert (f"stopped after round {row['round']}" in row["note"]) == (row["round"] < 3)


def test_few_candidates_are_trained_once_and_more_with_more_work(monkeypatch):
    make_default(monkeypatch, "ppca")
    monkeypatch.setattr(selection, "trials_without_a_group", lambda *given: trials_without_a_group(*given)[:2])
    settings = {"training": Training(updates=60, batch_size=32), "backbone": Backbone("mlp", hidden=(8,))}
    candidates = [("autoencoder", {"latent": k, **settings}) for k in (1, 2)]
    found = []
    for work in (345, 700, 720, 1080, 1170, 1260):
        chosen = select(ring(), budget=f"{work} updates", candidates=candidates)
        assert {row["round"] for row in chosen.candidates} == {1}
        assert len({row["share"] for row in chosen.candidates}) == 1
        found.append((chosen.candidates[0]["share"], len(chosen.kinds) - 4))
    # Half of the training of all, then the groups that are left out, then the rest of the training.
    assert found == [(0.375, 0), (0.5, 0), (0.5, 1), (0.5, 2), (0.75, 2), (1.0, 2)]


@pytest.mark.parametrize("kind", [Kind.TABLE, Kind.SERIES])
def test_a_gan_ensemble_can_take_part(kind, monkeypatch):
    make_default(monkeypatch, "ppca", kind)
    training = Training(updates=20)
    X = plane(200) if kind is Kind.TABLE else waves(400)
    chosen = select(X, kind, budget="500 updates", candidates=[("gan_ensemble", {"training": training})])
    row = next(row for row in chosen.candidates if row["method"].startswith("gan_ensemble"))
    assert row["note"] == ""
    assert row["share"] >= 0.5
    assert row["score"] is not None


def test_seconds_become_work_once(monkeypatch):
    make_default(monkeypatch, "ppca")
    chosen = select(plane(), budget="20s", candidates=["nearest_memory"])
    assert chosen.work >= 200
    assert chosen.work & (chosen.work - 1) == 0
    assert chosen.seconds < 20
    again = select(plane(), budget=f"{chosen.work} updates", candidates=["nearest_memory"])
    assert [row["auroc"] for row in again.candidates] == [row["auroc"] for row in chosen.candidates]


def test_a_budget_too_small_for_anything_gives_the_default_and_says_so():
    chosen = select(plane(), budget="50 updates", candidates=["ppca"])
    assert chosen.method == "table_committee"
    assert chosen.is_default
    assert chosen.reason == (
        "the default, for the budget of 50 updates is spent on nothing: it is too small to compare anything"
    )
    assert [row["score"] for row in chosen.candidates] == [None, None]
    assert select(plane(), budget="0.001s", candidates=["ppca"]).is_default


def test_a_budget_for_some_leaves_the_last_ones_out(monkeypatch):
    make_default(monkeypatch, "ppca")
    names = [("nearest_memory", {"neighbours": k}) for k in range(1, 7)]
    chosen = select(plane(), budget="500 updates", candidates=names)
    left = {row["method"] for row in chosen.candidates if row["note"].startswith("left out")}
    assert "nearest_memory(neighbours=6)" in left
    assert chosen.candidates[0]["score"] is not None


def test_too_few_rows_give_the_default_and_say_so():
    chosen = select(plane(30), budget="500 updates")
    assert chosen.is_default
    assert "nothing could be compared: X: 30 rows are too few" in chosen.reason
    chosen = select(np.ones((100, 3)), budget="500 updates")
    assert "every column is constant" in chosen.reason


def test_data_that_even_the_default_cannot_be_fitted_to_are_refused():
    with pytest.raises(InputError, match="longest unbroken stretch of the series has 1 steps"):
        select(np.zeros((1, 2)), "series", budget="500 updates")


def test_candidates_that_fail_are_noted_and_the_others_go_on(monkeypatch):
    make_default(monkeypatch, "nearest_memory")

    class Broken(Autoencoder):
        def fit(self, X, y=None):
            raise TrainingError("training: it went wrong")

    chosen = select(plane(), budget="3000 updates", candidates=[Broken(), "ppca"])
    assert chosen.is_default
    notes = {row["method"]: row["note"] for row in chosen.candidates}
    assert notes["autoencoder"] == "failed: training: it went wrong"
    assert notes["ppca"] == ""


def test_a_series_gets_detectors_of_series(monkeypatch):
    make_default(monkeypatch, "nearest_memory", Kind.SERIES)
    chosen = select(waves(), "series", budget="900 updates", candidates=["ppca", ("ppca", {"window": 8})])
    assert isinstance(chosen.detector, Windowed)
    assert {row["method"] for row in chosen.candidates} == {"nearest_memory", "ppca", "ppca(window=8)"}
    assert chosen.kinds == ("global", "contextual", "shapelet", "seasonal", "trend", "paste")
    assert chosen.detector.fit(waves()).anomaly_score(waves()).shape == (1500,)
    assert select(as_series(waves()[:150]), budget="900 updates", candidates=["ppca"]).reason.startswith(
        "the default, for nothing could be compared: X: 150 steps are too few"
    )


def test_tables_with_words_and_gaps_are_taken(monkeypatch):
    make_default(monkeypatch, "ppca")
    rng = np.random.default_rng(0)
    size = rng.normal(size=300)
    size[::9] = np.nan
    table = {"size": size, "count": rng.integers(0, 90, 300), "colour": rng.choice(["red", "blue"], 300)}
    chosen = select(table, budget="900 updates", candidates=["nearest_memory"])
    assert all(0.4 < value <= 1 for row in chosen.candidates for value in row["auroc"].values())


def test_genads_own_candidates_can_all_be_made():
    for kind in (Kind.TABLE, Kind.SERIES):
        found = labelled_candidates(kind)
        assert len(found) == len(selection.CANDIDATES[kind]) + 1
        assert next(iter(found)) == selection.DEFAULTS[kind]


@pytest.mark.parametrize(
    ("candidates", "error", "message"),
    [
        ("ppca", InputTypeError, "candidates: 'ppca' was given; use a list"),
        ([3], InputTypeError, "candidates: 3 was given; use a name"),
        (["nothing"], InputError, "no detector called 'nothing'"),
        ([("ppca", {"odd": 1})], InputError, "odd: PPCA has no such parameter"),
        ([("ppca", {"keep": 7})], InputError, "keep: 7 was given"),
        ([], InputError, "candidates: an empty list was given; name at least one detector"),
        (["series_committee"], InputError, "candidates: series_committee takes series, and the data are a table"),
    ],
)
def test_unusable_candidates_are_refused_before_the_budget_is_spent(candidates, error, message):
    with pytest.raises(error, match=message):
        select(plane(), candidates=candidates)


def test_the_default_has_nobody_to_be_compared_with_but_itself(monkeypatch):
    make_default(monkeypatch, "ppca")
    chosen = select(plane(60), candidates=["ppca"])
    assert chosen.reason == "the default, for the candidates name nothing else"
    assert [row["method"] for row in chosen.candidates] == ["ppca"]


def test_unusable_kinds_and_seeds_are_refused():
    with pytest.raises(InputError, match="X: a image was given; select takes a table or a series"):
        select(np.zeros((50, 1, 8, 8)))
    with pytest.raises(InputTypeError, match="random_state: None was given"):
        select(plane(), random_state=None)
    with pytest.raises(InputError, match="random_state: -1 was given"):
        select(plane(), random_state=-1)


def test_the_clock_stops_further_candidates(monkeypatch):
    make_default(monkeypatch, "ppca")
    monkeypatch.setattr(selection, "measured_work", lambda *_, **__: 10_000)
    chosen = select(plane(), budget="0.0001s", candidates=["nearest_memory"])
    assert chosen.is_default
    assert "the clock ran out before one round was complete" in chosen.reason
