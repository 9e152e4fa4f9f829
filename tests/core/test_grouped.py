"""Groups: each is judged by its own model and its own calibration, and answers keep the user's order."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from genad import Autoencoder, Training, Windowed
from genad.core.calibration import Conformal, FixedValue
from genad.core.grouped import Grouped, sharing_model
from genad.errors import InputError

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
    assert restored.names == ["load", "heat"]
    assert (np.abs(restored.column("load") - mixed["load"]) < 300).all()


def test_a_shared_model_is_calibrated_by_group():
    table = sites()
    table["load"][table["site"] == "south"] += np.random.default_rng(3).normal(0, 30, 100)
    detector = make(shared=True).fit(table)
    north, south = detector.detectors_["north"], detector.detectors_["south"]
    assert north.net_ is south.net_
    assert north.threshold_.value < south.threshold_.value
    # A group that was not there in fit is judged by all groups' calibration.
    fresh = sites(seed=1, names=("north", "west"))
    np.testing.assert_array_equal(
        detector.p_value(fresh)[fresh["site"] == "west"], detector.detectors_[""].p_value(part(fresh, "west"))
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
    assert twin.net_ is base.net_
    assert base.threshold_ is before
    assert twin.threshold_.value != before.value
