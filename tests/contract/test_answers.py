"""What comes with a score: p-values, maps, restored samples, detections and explanations."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest

from genad.core.calibration import Conformal
from genad.data.kinds import Kind
from genad.data.table import as_table
from genad.errors import InputError

#: Methods whose restored samples are not meant to be near the data, and why.
_SEARCH = "it searches the latent space of a generator, which a few updates do not teach to generate"
# By method and kind of data; None stands for every kind.
WEAK_RESTORE = {
    ("mad_gan", None): _SEARCH,
    ("ano_gan", Kind.VIDEO): _SEARCH,
    **{("f_ano_gan", kind): _SEARCH for kind in (Kind.WINDOW, Kind.IMAGE, Kind.VIDEO)},
}
#: Methods whose scores take a few values, so that two thresholds may be the same.
FEW_LEVELS = ("sig_llm_prompter", "llmad")


def test_p_values_of_fresh_normals_are_uniform(table_case):
    case = table_case
    p = []
    for seed in range(3):
        params = {key: seed for key in case.make().get_params() if key.rpartition("__")[2] == "random_state"}
        detector = case.fit(case.make(holdout=0.5, **params), case.normal(800, seed=10 + seed))
        p.append(detector.p_value(case.wrap(case.normal(1500, seed=20 + seed))))
    p = np.concatenate(p)
    assert p.min() > 0
    assert p.max() <= 1
    # Each calibration set of 400 moves P(p <= a) by sqrt(a (1 - a) / 400); three are averaged, and groups have fewer.
    for level in (0.05, 0.1, 0.25, 0.5):
        band = 4 * np.sqrt(level * (1 - level) / 1200) + 1 / 200
        assert abs((p <= level).mean() - level) < band


def test_p_values_follow_the_scores(case):
    X = case.wrap(case.normal(seed=1))
    p, scores = case.fitted.p_value(X), case.fitted.anomaly_score(X)
    assert p.shape == scores.shape
    assert ((p > 0) & (p <= 1)).all()
    if case.takes_arrays:
        order = np.argsort(scores)
        assert (np.diff(p[order]) <= 0).all()
        # The threshold and the p-value are two faces of one thing.
        np.testing.assert_array_equal(case.fitted.predict(X) == -1, p <= 0.1)


def test_maps_have_the_shape_of_the_data(number_case):
    case = number_case
    X = case.normal(seed=1)
    maps = case.fitted.anomaly_map(case.wrap(X))
    assert maps.shape == X.shape
    assert np.isfinite(maps).all()
    assert maps.min() >= 0


def test_detect_is_all_answers_in_one(case):
    X = case.wrap(case.normal(seed=1))
    detector = case.fitted
    found = detector.detect(X)
    if found.rows is not None:
        assert (np.sort(found.rows) == np.arange(len(found))).all()
    place = slice(None) if found.rows is None else np.argsort(found.rows)
    # Asking for maps as well may run another kernel, so the last digit may differ.
    np.testing.assert_allclose(found.scores[place], detector.anomaly_score(X), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found.is_anomaly[place], detector.predict(X) == -1)
    np.testing.assert_allclose(found.p_values[place], detector.p_value(X))
    np.testing.assert_allclose(found.maps[place], detector.anomaly_map(X), rtol=1e-5, atol=1e-6)
    assert found.kind is case.kind
    assert found.meta["detector"]
    short = detector.detect(X, maps=False, restore=False)
    assert short.maps is None
    assert short.restored is None
    with pytest.raises(InputError, match="explain"):
        short.explain(0)


def test_detect_controls_the_false_discovery_rate(sample_case):
    case = sample_case
    X = case.wrap(np.concatenate([case.normal(40, seed=1), case.anomalous(40, seed=2)]))
    found = case.trained.detect(X, fdr=0.2)
    assert found.fdr == 0.2
    # Benjamini-Hochberg, worked out by hand.
    p = np.sort(found.p_values)
    k = np.flatnonzero(p <= 0.2 * np.arange(1, 81) / 80)
    assert found.is_anomaly.sum() == (0 if not len(k) else (found.p_values <= p[k[-1]]).sum())


@pytest.mark.parametrize("fdr", [0.0, 1.0, -1.0, float("nan"), "low"])
def test_a_wrong_rate_is_refused(first_case, fdr):
    with pytest.raises((ValueError, TypeError)):
        first_case.fitted.detect(first_case.wrap(first_case.normal(seed=1)), fdr=fdr)


def test_explanations_share_out_the_score(case):
    X = case.wrap(case.normal(seed=1))
    found = case.fitted.detect(X)
    explanation = found.explain(3, parts=100_000)
    assert explanation.index == 3
    assert explanation.score == found.scores[3]
    shares = [part.share for part in explanation]
    assert sum(shares) == pytest.approx(1)
    # What lies outside of all regions of an image comes last, whatever its share.
    ranked = shares[:-1] if case.kind is Kind.IMAGE else shares
    assert ranked == sorted(ranked, reverse=True)
    assert all(part.lower <= part.expected <= part.upper for part in explanation if part.lower is not None)
    assert str(explanation).startswith("#3")
    with pytest.raises(InputError, match="i: "):
        found.explain(len(found))


def test_restored_normals_are_near_the_data(number_case):
    case = number_case
    X = case.normal(seed=1)
    for kind in (case.kind, None):
        if (case.name, kind) in WEAK_RESTORE:
            pytest.skip(WEAK_RESTORE[case.name, kind])
    restored = case.values(case.trained.restore(case.wrap(X)))
    spread = case.normal().reshape(-1, X.shape[-1]).std(0) if case.kind is Kind.TABLE else case.normal().std()
    centre = case.normal().mean(0) if case.kind is Kind.TABLE else case.normal().mean()
    error = np.square((restored - X) / spread).mean()
    # The mean of the data is the restoration of someone who looks at nothing.
    assert error < 0.8 * np.square((centre - X) / spread).mean()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_restored_arrays_keep_their_type(array_case, dtype):
    case = array_case
    X = case.normal(seed=1).astype(dtype)
    kept = X.copy()
    restored = case.fitted.restore(X)
    assert type(restored) is np.ndarray
    assert restored.dtype == dtype
    assert restored.shape == X.shape
    assert not np.shares_memory(restored, X)
    np.testing.assert_array_equal(X, kept)
    # Whole numbers cannot hold what is expected of them, so floats come back.
    assert case.fitted.restore(np.round(X).astype(np.int64)).dtype.kind == "f"


def test_restored_tables_keep_their_kind(table_case):
    case = table_case
    if not case.takes_arrays:
        pytest.skip("groups need a column that names them")
    names = list("abcde")
    X = case.normal(seed=0)
    plain = case.fitted.restore(case.normal(20, seed=1))
    for make in (pd.DataFrame, pl.DataFrame, as_table):
        data = {name: X[:, j] for j, name in enumerate(names)}
        fresh = {name: case.normal(20, seed=1)[:, j] for j, name in enumerate(names)}
        detector = case.make().fit(make(data))
        restored = detector.restore(make(fresh))
        assert isinstance(restored, type(make(fresh)))
        if make is as_table:
            values = np.column_stack([restored.column(name) for name in names])
        else:
            assert list(restored.columns) == names
            values = restored.to_numpy()
        # The same numbers in another container are the same data.
        np.testing.assert_allclose(values, plain, rtol=1e-4, atol=1e-4)


def test_a_table_of_mixed_columns(table_case):
    case = table_case
    rng = np.random.default_rng(0)

    def rows(n):
        colour = rng.choice(["red", "green", "blue"], n)
        size = rng.normal(size=n) + 2.0 * (colour == "red")
        frame = pd.DataFrame({"colour": colour, "size": size, "when": pd.date_range("2024-01-01", periods=n, freq="h")})
        return frame if case.takes_arrays else frame.assign(entity=rng.choice(["a", "b"], n))

    detector = case.make().fit(rows(240))
    found = detector.detect(rows(50))
    assert found.scores.shape == (50,)
    assert np.isfinite(found.scores).all()
    assert found.maps.shape == (50, 3)
    assert {part.name for part in found.explain(0)} == {"colour", "size", "when"}
    assert isinstance(found.restored, pd.DataFrame)
    assert set(found.restored["colour"]) <= {"red", "green", "blue"}


def test_calibrate_moves_the_threshold_and_not_the_model(case):
    X = case.wrap(case.normal(seed=1))
    detector = case.copy()
    before = case.fitted.anomaly_score(X)
    detector.calibrate(case.wrap(case.normal(seed=2)))
    if case.takes_arrays:
        np.testing.assert_array_equal(detector.anomaly_score(X), before)
        assert len(detector.calibration_scores_) == len(case.normal())
        # Sessions are alike in part, and alike in their scores.
        few = case.name in FEW_LEVELS or case.kind is Kind.LOG
        assert few or detector.threshold_.value != case.fitted.threshold_.value
    assert isinstance(detector.threshold or Conformal(), Conformal)
