"""Groups: each is judged by its own model and its own calibration, and answers keep the user's order."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.exceptions import NotFittedError

import genad
from genad import Autoencoder, Training, Windowed
from genad.core.calibration import BestF, Conformal, ConformalMartingale, FixedValue
from genad.core.group_calibration import held_ends, sharing_model
from genad.core.grouped import Grouped
from genad.core.persistence import load
from genad.data.table import as_table
from genad.density.explicit.ppca import PPCA
from genad.errors import CalibrationWarning, InputError

RULE = Conformal(alpha=0.1)


def inner():
    return Autoencoder(training=Training(updates=20))


def make(**params):
    return Grouped(inner(), by="site", threshold=RULE, **params)


def sites(n=100, seed=0, names=("north", "south")):
    """Return interleaved rows of two sites whose loads lie far apart."""
    rng = np.random.default_rng(seed)
    site = np.array([names[k % 2] for k in range(2 * n)])
    level = np.where(site == names[0], 0.0, 1000.0)
    return {"load": level + rng.normal(size=2 * n), "site": site, "heat": level - rng.normal(size=2 * n)}


def part(table, name):
    chosen = table["site"] == name
    return np.column_stack([table["load"][chosen], table["heat"][chosen]])


def tensors(detector):
    return [tensor.data_ptr() for tensor in detector.net_.state_dict().values()]


def many(rows, seed, groups=60, levels=0.5):
    """Return rows of many groups, interleaved, whose levels differ."""
    rng = np.random.default_rng(seed)
    group = np.tile(np.arange(groups), rows)
    level = np.random.default_rng(9).normal(0, levels, groups)[group]
    x = rng.normal(size=(len(group), 3)) + level[:, None]
    return {"x": x[:, 0], "y": x[:, 1], "z": x[:, 2], "site": [f"g{k}" for k in group]}


def test_each_group_is_its_own_detector():
    table, fresh = sites(), sites(seed=1)
    detector = make().fit(table)
    assert sorted(detector.detectors_) == ["north", "south"]
    for name in ("north", "south"):
        alone = Autoencoder(training=Training(updates=20), threshold=RULE).fit(part(table, name))
        chosen = fresh["site"] == name
        np.testing.assert_allclose(detector.p_value(fresh)[chosen], alone.p_value(part(fresh, name)))
        np.testing.assert_array_equal(detector.predict(fresh)[chosen], alone.predict(part(fresh, name)))
        np.testing.assert_allclose(
            detector.anomaly_map(fresh)[chosen], alone.anomaly_map(part(fresh, name)), rtol=1e-4, atol=1e-6
        )
        middle, high = np.quantile(alone.calibration_scores_, [0.5, 0.9])
        np.testing.assert_allclose(
            detector.anomaly_score(fresh)[chosen],
            (alone.anomaly_score(part(fresh, name)) - middle) / (high - middle),
            rtol=1e-4, atol=1e-5,
        )  # fmt: skip


def test_what_is_normal_for_one_group_is_not_for_the_other():
    detector = make().fit(sites())
    swapped = sites(seed=1, names=("south", "north"))
    assert (detector.predict(swapped) == -1).all()
    assert (detector.predict(sites(seed=1)) == -1).mean() < 0.3


@pytest.mark.parametrize("shared", [False, True])
def test_answers_keep_the_order_of_the_rows(shared):
    detector = make(shared=shared).fit(sites())
    fresh = sites(seed=1)
    order = np.random.default_rng(0).permutation(200)
    mixed = {name: column[order] for name, column in fresh.items()}
    for ask in ("anomaly_score", "decision_function", "predict", "p_value", "anomaly_map"):
        whole, some = getattr(detector, ask)(fresh), getattr(detector, ask)(mixed)
        np.testing.assert_allclose(some, whole[order], rtol=1e-5, atol=1e-4)
    found = detector.detect(mixed)
    np.testing.assert_array_equal(found.entity, mixed["site"])
    np.testing.assert_allclose(found.scores, detector.anomaly_score(mixed), rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(found.observed["load"], mixed["load"])
    restored = detector.restore(mixed)
    assert restored.names == list(mixed)
    np.testing.assert_array_equal(restored.column("site"), mixed["site"])
    assert (np.abs(restored.column("load") - mixed["load"]) < 300).all()


def test_a_shared_model_is_calibrated_by_group():
    table = sites()
    table["load"][table["site"] == "south"] += np.random.default_rng(3).normal(0, 30, 100)
    detector = make(shared=True).fit(table)
    north, south = detector.detectors_["north"], detector.detectors_["south"]
    assert tensors(north) == tensors(south) == tensors(detector.base_)
    assert detector.pooled_ == []
    assert north.threshold_.value < south.threshold_.value
    # A group that was not there in fit is judged by all groups' calibration.
    fresh = sites(seed=1, names=("north", "west"))
    np.testing.assert_array_equal(
        detector.p_value(fresh)[fresh["site"] == "west"], detector.base_.p_value(part(fresh, "west"))
    )


def test_an_unseen_group_is_named():
    with pytest.raises(InputError, match=r"the group 'west' was not seen in fit \(known: north, south\)"):
        make().fit(sites()).anomaly_score(sites(names=("north", "west")))


def test_a_missing_column_is_named():
    table = sites()
    del table["site"]
    with pytest.raises(InputError, match=r"^by: there is no column 'site'; the columns are load, heat"):
        make().fit(table)
    with pytest.raises(InputError, match=r"^by: there is no column 'site'"):
        make().fit(sites()).predict(table)


@pytest.mark.parametrize("detector", [None, Autoencoder, "autoencoder"])
def test_a_wrong_detector_is_named(detector):
    with pytest.raises(InputError, match=r"^detector: "):
        Grouped(detector, by="site").fit(sites())


def test_wrong_parameters_inside_are_named():
    with pytest.raises(InputError, match=r"^latent: 0"):
        Grouped(Autoencoder(latent=0), by="site").fit(sites())


def test_labels_follow_their_rows():
    table = sites()
    y = np.zeros(200, int)
    y[0] = 1
    table["load"][0] = 1e4
    kept = make().fit(table, y)
    assert kept.predict(table)[0] == -1
    with pytest.raises(InputError, match=r"^y: 3 labels were given for 200 rows"):
        make().fit(table, [0, 1, 0])


def test_a_threshold_reaches_every_group():
    detector = Grouped(inner(), by="site", threshold=FixedValue(1e9)).fit(sites())
    assert all(d.threshold_.value == 1e9 for d in detector.detectors_.values())
    assert (detector.predict(sites(seed=1)) == 1).all()


def test_numbers_and_dataframes_name_groups_too():
    table = sites()
    frame = pd.DataFrame(table | {"site": np.where(table["site"] == "north", 1, 2)})
    detector = make().fit(frame)
    assert sorted(detector.detectors_) == ["1", "2"]
    np.testing.assert_allclose(detector.anomaly_score(frame), make().fit(table).anomaly_score(table), rtol=1e-5)


def test_calibrate_reaches_every_group():
    detector = make().fit(sites())
    before = {name: d.threshold_.value for name, d in detector.detectors_.items()}
    detector.calibrate(sites(seed=1))
    assert all(d.threshold_.value != before[name] for name, d in detector.detectors_.items())
    assert all(len(d.calibration_scores_) == 100 for d in detector.detectors_.values())


def test_groups_of_series_are_series():
    t = np.arange(150) / 4
    rng = np.random.default_rng(0)
    wave = [np.sin(t) * size + 0.05 * rng.normal(size=150) for size in (1.0, 100.0)]
    table = {"value": np.empty(300), "site": np.array(["a", "b"] * 150)}
    table["value"][0::2], table["value"][1::2] = wave
    inside = Windowed(inner(), window=8)
    detector = Grouped(inside, by="site", threshold=RULE).fit(table)
    table["value"][100] += 5.0
    found = detector.detect(table)
    assert found.entity.tolist() == ["a"] * 150 + ["b"] * 150
    np.testing.assert_array_equal(table["site"][found.rows], found.entity)
    scores = detector.anomaly_score(table)
    np.testing.assert_allclose(found.scores, scores[found.rows], rtol=1e-5, atol=1e-5)
    assert abs(int(np.argmax(scores)) - 100) <= 16
    assert all(event.entity in ("a", "b") for event in found.events())


def test_a_twin_shares_the_model_and_not_the_calibration():
    X = part(sites(), "north")
    base = Autoencoder(training=Training(updates=5), threshold=RULE).fit(X)
    twin = sharing_model(base)
    before = base.threshold_
    twin.calibrate(X + 1)
    assert tensors(twin) == tensors(base)
    assert base.threshold_ is before
    assert twin.threshold_.value != before.value


# ---------------------------------------------------------------------- labels


def test_a_label_leaves_a_group_of_a_shared_model_its_own_calibration():
    def rows(seed, fault=0.0):
        rng = np.random.default_rng(seed)
        site = np.repeat(["loud", "quiet", "other"], 600)
        x = rng.normal(size=(1800, 2)) * np.where(site == "quiet", 0.1, 1.0)[:, None]
        return {"x": x[:, 0] + fault, "y": x[:, 1], "site": site}

    detector = Grouped(genad.create("ppca"), by="site", shared=True, threshold=RULE).fit(rows(0))
    fresh, faults, quiet = rows(1), rows(2, fault=0.5), rows(1)["site"] == "quiet"
    before = detector.p_value(fresh)
    found = (detector.predict(faults)[quiet] == -1).mean()
    detector.feedback(fresh, np.where(np.arange(1800) == 700, 0, -1))
    assert found > 0.9
    assert (detector.predict(faults)[quiet] == -1).mean() > 0.9
    assert 0.03 < (detector.predict(fresh)[quiet] == -1).mean() < 0.2
    np.testing.assert_array_equal(detector.p_value(fresh)[~quiet], before[~quiet])
    np.testing.assert_array_equal(detector.forget().p_value(fresh), before)


@pytest.mark.parametrize("name", ["acvae", "sla_vae"])
def test_a_model_that_relearns_does_so_for_the_labelled_group_alone(name, tmp_path):
    def steps(seed):
        rng, t = np.random.default_rng(seed), np.arange(500) / 5
        waves = [np.c_[np.sin(t), np.cos(t)] * size + 0.1 * rng.normal(size=(500, 2)) for size in (1.0, 1.3)]
        x = np.concatenate(waves)
        return {"x": x[:, 0], "y": x[:, 1], "site": np.repeat(["a", "b"], 500)}

    inside = genad.create(name, window=8, training=Training(updates=30))
    detector = Grouped(inside, by="site", shared=True, threshold=RULE).fit(steps(0))
    held = {site: d.net_.memory.held for site, d in detector.detectors_.items()}
    assert not np.array_equal(held["a"], held["b"])
    fresh, told, b = steps(1), steps(2), steps(1)["site"] == "b"
    told["x"][200:210] += 6.0
    scores = detector.anomaly_score(fresh)
    base = [tensor.clone() for tensor in detector.base_.net_.state_dict().values()]
    labels = np.full(1000, -1)
    labels[150:250] = 0
    labels[200:210] = 1
    detector.feedback(told, labels)
    after = detector.anomaly_score(fresh)
    np.testing.assert_array_equal(after[b], scores[b])
    assert not np.array_equal(after[~b], scores[~b])
    assert all(x.equal(y) for x, y in zip(base, detector.base_.net_.state_dict().values(), strict=True))
    again = load(detector.save(tmp_path / "model"))
    assert again.anomaly_score(fresh).tobytes() == after.tobytes()
    np.testing.assert_array_equal(detector.forget().anomaly_score(fresh), scores)


def test_labels_of_an_unseen_group_teach_that_group_alone():
    detector = make(shared=True).fit(sites())
    west, east = sites(20, 1, ("west", "north")), sites(20, 1, ("east", "north"))
    before = detector.p_value(east)
    detector.feedback(west, np.where(west["site"] == "west", 0, -1))
    assert "west" in detector.detectors_
    np.testing.assert_array_equal(detector.p_value(east), before)


# ---------------------------------------------------------------------- little data in each group


@pytest.mark.parametrize("rows", [2, 10])
def test_groups_with_little_data_are_calibrated_together(rows):
    detector = Grouped(genad.create("ppca"), by="site", shared=True, threshold=Conformal(alpha=0.05))
    flagged = []
    for seed in range(5):
        with pytest.warns(CalibrationWarning, match=r"60 of 60 groups have fewer than the 19 calibration rows") as said:
            detector.fit(many(rows, seed))
        assert len(said) == 1
        flagged.append((detector.predict(many(20, 90 + seed)) == -1).mean())
    assert len(detector.pooled_) == 60
    assert detector.threshold_.n == 12 * rows
    assert detector.threshold_.promise.startswith("60 groups together by one threshold: At most ")
    assert 0.01 < np.mean(flagged) < 0.08


def test_groups_with_enough_data_keep_their_own_calibration_and_stay_out_of_the_common_one():
    table = many(10, 0, groups=20)
    rich = sites(200, 1, ("rich", "rich"))
    rng = np.random.default_rng(0)
    joined = {name: np.r_[table[name], 9.0 * rng.normal(size=400)] for name in ("x", "y", "z")}
    joined["site"] = [*table["site"], *rich["site"]]
    with pytest.warns(CalibrationWarning, match=r"20 of 21 groups have fewer than the 9 .* judged by 40 rows"):
        detector = Grouped(genad.create("ppca"), by="site", shared=True, threshold=RULE).fit(joined)
    assert "rich" not in detector.pooled_
    assert len(detector.detectors_["rich"].calibration_scores_) == 80
    assert detector.detectors_["g3"].threshold_.value < detector.detectors_["rich"].threshold_.value
    assert len(detector.base_.calibration_scores_) == 120
    assert detector.describe()["training_samples"] == detector.base_.describe()["training_samples"]


def test_the_ends_of_small_groups_are_kept_from_some_of_them():
    held = held_ends({str(k): np.arange(3 * k, 3 * k + 3) for k in range(10)}, 0.2)
    assert sum(map(len, held.values())) == 6
    assert all(len(rows) <= 1 and (rows % 3 == 2).all() for rows in held.values())


@pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning")
def test_calibrate_gives_a_group_its_own_calibration_once_there_is_enough():
    detector = Grouped(genad.create("ppca"), by="site", shared=True, threshold=RULE).fit(many(10, 0))
    base, other = detector.base_.threshold_, detector.detectors_["g1"].threshold_
    more = many(200, 1, groups=1)
    detector.calibrate(more)
    assert "g0" not in detector.pooled_
    assert len(detector.pooled_) == 59
    assert len(detector.detectors_["g0"].calibration_scores_) == 200
    assert detector.detectors_["g1"].threshold_ is other
    assert detector.base_.threshold_ is base
    detector.calibrate(more | {"site": ["new"] * 200})
    assert len(detector.detectors_["new"].calibration_scores_) == 200
    # All groups again: those with little data together, and those unseen by all of them.
    detector.calibrate(more | {"site": ["g0"] * 200}).calibrate(many(3, 2) | {})
    assert detector.base_.threshold_ is base
    everything = {k: [*v, *more[k]] for k, v in many(3, 2).items()}
    everything["site"][-200:] = ["new"] * 200
    detector.calibrate(everything)
    assert len(detector.base_.calibration_scores_) == 380
    assert sorted(detector.detectors_.keys() - {*detector.pooled_}) == ["new"]


@pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning")
def test_a_taught_group_without_its_own_calibration_keeps_what_it_was_taught():
    detector = Grouped(genad.create("ppca"), by="site", shared=True, threshold=RULE).fit(many(10, 0))
    strange = {"x": [9.0], "y": [-9.0], "z": [9.0], "site": ["g0"]}
    alarmed = detector.p_value(strange)[0]
    detector.feedback(strange, [0]).calibrate(many(10, 1))
    assert detector.detectors_["g0"].head_ is not None
    assert detector.p_value(strange)[0] > alarmed
    assert detector.detectors_["g1"].head_ is None


def test_a_threshold_that_learns_from_labels_is_common_to_groups_without_any():
    table = sites()
    labels = np.zeros(200, int)
    labels[[10, 190, 198]] = 1
    table["load"][[10, 190, 198]] += 500.0
    with pytest.warns(CalibrationWarning, match="1 of 2 groups"):
        detector = Grouped(inner(), by="site", shared=True, threshold=BestF()).fit(table, labels)
    assert detector.pooled_ == ["south"]


def test_a_shared_model_of_series_takes_each_group_as_a_series():
    t = np.arange(200) / 4
    site = np.array(["a", "b"] * 200)
    value = np.empty(400)
    value[0::2], value[1::2] = np.sin(t), 100.0 + np.sin(t)
    table = {"value": value + 0.01 * np.random.default_rng(0).normal(size=400), "site": site}
    inside = Windowed(Autoencoder(training=Training(updates=200)), window=8)
    detector = Grouped(inside, by="site", shared=True, threshold=RULE).fit(table)
    assert all(len(d.calibration_scores_) == 40 for d in detector.detectors_.values())
    # Interleaved as one series, the value would jump by 100 with each step.
    assert np.abs(detector.restore(table).column("value") - value).max() < 15.0
    short = {name: column[:60] for name, column in table.items()}
    with pytest.raises(InputError, match="shared: no group has 8 steps to calibrate on"):
        detector.fit(short)


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize("shared", [False, True])
def test_whole_numbers_are_one_name_however_they_are_kept(shared):
    table = sites()
    fitted = pd.DataFrame(table | {"site": np.where(table["site"] == "north", 1, 2)})
    detector = make(shared=shared).fit(fitted)
    for form in (float, str, np.int8):
        asked = fitted.assign(site=fitted["site"].astype(form))
        np.testing.assert_array_equal(detector.p_value(asked), detector.p_value(fitted))
    assert sorted(detector.detectors_) == ["1", "2"]


def test_text_that_looks_like_numbers_counts_as_it_is_spelled():
    detector = make().fit(sites(names=("01", "1")))
    assert sorted(detector.detectors_) == ["01", "1"]
    assert detector.predict(sites(seed=1, names=("01", "1"))).shape == (200,)
    big = [9007199254740993, 9007199254740992]
    table = sites()
    numbers = np.where(table["site"] == "north", *big)
    assert sorted(make().fit(table | {"site": numbers}).detectors_) == sorted(map(str, big))


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
@pytest.mark.parametrize("shared", [False, True])
def test_rows_without_a_group_are_refused(missing, shared):
    table = sites()
    site = table["site"].astype(object)
    site[[5, 17]] = missing
    found = r"^by: column 'site' names no group in 2 of 200 rows, the first is row 5; fill in"
    with pytest.raises(InputError, match=found):
        make(shared=shared).fit(pd.DataFrame(table | {"site": site}))
    detector = make(shared=shared).fit(table)
    for ask in (detector.predict, detector.calibrate, detector.detect, detector.query):
        with pytest.raises(InputError, match=found):
            ask(table | {"site": site})
    with pytest.raises(InputError, match="the first is row 1"):
        detector.predict({"load": [1.0, 2.0], "heat": [1.0, 2.0], "site": [1.0, np.nan]})


def test_a_group_may_have_the_empty_name(tmp_path):
    table = sites(names=("", "south"))
    table["load"][table["site"] == ""] *= 40.0
    frame = pd.DataFrame(table).assign(site=pd.Categorical(table["site"]))
    detector = make(shared=True).fit(frame)
    assert sorted(detector.detectors_) == ["", "south"]
    again = load(detector.save(tmp_path / "model"))
    assert again.p_value(frame).tobytes() == detector.p_value(frame).tobytes()
    unseen = sites(names=("west", "east"))
    assert again.p_value(unseen).tobytes() == detector.p_value(unseen).tobytes()
    assert again.pooled_ == detector.pooled_
    assert not np.array_equal(detector.base_.calibration_scores_, detector.detectors_[""].calibration_scores_)


def test_files_that_keep_the_shared_model_among_the_groups_are_read():
    detector = make(shared=True).fit(sites())
    state = detector.fitted_state()
    state = {k: v for k, v in state.items() if k not in ("base", "pooled")}
    state |= {"groups": [*state["groups"], ""], "detector2": detector.base_}
    again = make(shared=True)
    again.set_fitted_state(state)
    assert sorted(again.detectors_) == ["north", "south"]
    fresh = sites(seed=1, names=("north", "west"))
    np.testing.assert_array_equal(again.p_value(fresh), detector.p_value(fresh))


# ---------------------------------------------------------------------- drift


@pytest.mark.parametrize("shared", [False, True])
def test_a_monitor_says_which_group_has_changed(shared):
    table = sites(400)
    detector = Grouped(genad.create("ppca"), by="site", shared=shared, threshold=RULE).fit(table)
    watch = detector.monitor(alpha=0.01)
    fresh = sites(200, seed=1)
    assert not watch.run(detector.anomaly_score(fresh), fresh["site"]).any()
    assert not watch.alarm
    changed = sites(200, seed=2)
    south = changed["site"] == "south"
    changed["load"][south] += np.random.default_rng(3).normal(0, 3, 200)
    on = watch.run(detector.anomaly_score(changed), changed["site"])
    assert list(watch.alarms) == ["south"]
    assert on[south][-1]
    assert not on[~south].any()
    # A group's watch is that of its own detector, on scores in the units that anomaly_score gives.
    alone = ConformalMartingale(0.01 / (3 if shared else 2))
    normal = detector.detectors_["south"].calibration_scores_
    alone.initialize(normal).run(detector.detectors_["south"].anomaly_score(part(fresh, "south")))
    again = detector.monitor(alpha=0.01)
    again.run(detector.anomaly_score(fresh), fresh["site"])
    assert again.groups["south"].log_capital == pytest.approx(alone.log_capital, abs=1e-9)


def test_a_monitor_watches_unseen_groups_where_they_are_judged():
    fresh = sites(50, seed=1, names=("west", "east"))
    detector = make(shared=True).fit(sites())
    watch = detector.monitor()
    watch.run(detector.anomaly_score(fresh), fresh["site"])
    assert watch.unseen.n == 100
    with pytest.raises(InputError, match=r"^groups: 'east' is not watched \(known: north, south\)"):
        make().fit(sites()).monitor().run(np.zeros(100), fresh["site"])
    with pytest.raises(NotFittedError):
        make().monitor()


@pytest.mark.parametrize("inside", [PPCA, lambda: Windowed(PPCA(), window=8)])
@pytest.mark.parametrize("as_given", [lambda frame: frame, pl.from_pandas])
def test_rows_are_restored_in_the_dataframe_given(inside, as_given):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"value": rng.normal(size=400), "site": ["b", "a"] * 200}, index=[f"r{i}" for i in range(400)])
    frame.insert(0, "when", pd.date_range("2024-01-01", periods=400, freq="h", tz="Europe/Berlin"))
    given = as_given(frame)
    detector = Grouped(inside(), by="site", threshold=RULE).fit(given)
    restored = detector.restore(given)
    assert type(restored) is type(given)
    assert list(restored.columns) == list(given.columns)
    assert list(restored.dtypes) == list(given.dtypes)
    assert list(restored["site"]) == list(given["site"])
    if given is frame:
        assert restored.index.equals(frame.index)
    assert detector.detect(given).restored.equals(restored)
    assert detector.detect(given, restore=False).restored is None
    expected = detector.detectors_["a"].restore(as_table({"when": frame["when"][1::2], "value": frame["value"][1::2]}))
    np.testing.assert_allclose(np.asarray(restored["value"])[1::2], expected.column("value"), rtol=1e-6)


def test_an_array_is_restored_with_its_groups():
    X = np.c_[np.tile([1.0, 2.0], 200), np.random.default_rng(0).normal(size=(400, 2))]
    restored = Grouped(PPCA(), by="x0", threshold=RULE).fit(X).restore(X)
    assert restored.shape == X.shape
    np.testing.assert_array_equal(restored[:, 0], X[:, 0])


def test_a_failed_refit_leaves_the_groups():
    detector = make().fit(sites())
    scores = detector.anomaly_score(sites(seed=1))
    wrong = sites() | {"heat": np.full(200, np.inf), "more": np.zeros(200)}
    with pytest.raises(InputError):
        detector.fit(wrong)
    assert detector.n_features_in_ == 3
    np.testing.assert_array_equal(detector.anomaly_score(sites(seed=1)), scores)
