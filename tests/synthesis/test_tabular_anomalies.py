"""Anomalous rows: each kind does what it says, on standardised rows, with levels left whole."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from genad.data.table import as_table
from genad.errors import InputError
from genad.synthesis.row_models import RowCopula, RowMixture
from genad.synthesis.tabular_anomalies import TabularAnomalies


def clouds(n: int = 600, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    middle = np.array([[4.0, 0.0], [-4.0, 1.0], [0.0, -5.0]])[np.arange(n) % 3]
    return middle + 0.4 * rng.normal(size=(n, 2))


def correlated(n: int = 800, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 1)) + 0.2 * rng.normal(size=(n, 3))


def distance(normal: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return NearestNeighbors(n_neighbors=5).fit(normal).kneighbors(rows)[0].mean(1)


def test_the_size_of_the_mixture_is_chosen_by_bic():
    z = clouds()
    z = (z - z.mean(0)) / z.std(0)
    assert RowMixture(z, 9).size == 3
    assert RowMixture(z, 2).size == 2
    assert RowMixture(correlated(), 9).size == 1


def test_local_anomalies_have_covariances_alpha_times_as_large():
    X = correlated(4000)
    made = TabularAnomalies("local", alpha=4.0).fit(X).synthesize(X, 4000)
    np.testing.assert_allclose(np.cov(made.samples.T), 4.0 * np.cov(X.T), rtol=0.15)
    np.testing.assert_allclose(made.samples.mean(0), X.mean(0), atol=0.15)


def test_clusters_move_their_means_outwards_and_keep_their_spread():
    X = clouds()
    model = TabularAnomalies("cluster", alpha=3.0).fit(X)
    made = model.synthesize(X, 600)
    np.testing.assert_allclose(model.mixture_.shifted(3.0), 3.0 * model.mixture_.means, rtol=1e-6)
    for k in range(3):
        mine, was = made.samples[made.sources % 3 == k], X[k::3]
        np.testing.assert_allclose(mine.mean(0) - X.mean(0), 3.0 * (was.mean(0) - X.mean(0)), atol=0.6)
        np.testing.assert_allclose(mine.std(0), was.std(0), rtol=0.3)


def test_a_lone_component_at_the_centre_moves_too():
    X = np.random.default_rng(0).normal(size=(500, 3))
    made = TabularAnomalies("cluster").fit(X).synthesize(X, 200)
    assert np.linalg.norm(made.samples.mean(0)) > 3.0


def test_global_anomalies_fill_the_widened_range_evenly():
    X = correlated() + 100.0  # far from zero, where factors of minima would narrow the range
    made = TabularAnomalies("global", margin=0.1).fit(X).synthesize(X, 4000)
    low, high = X.min(0), X.max(0)
    extra = 0.1 * (high - low)
    assert (made.samples >= low - extra - 1e-9).all()
    assert (made.samples <= high + extra + 1e-9).all()
    assert ((made.samples < low) | (made.samples > high)).any(0).all()
    share = (made.samples - low + extra) / (high - low + 2 * extra)
    assert np.abs(np.quantile(share, [0.25, 0.5, 0.75], axis=0).T - [0.25, 0.5, 0.75]).max() < 0.04
    assert np.abs(np.corrcoef(made.samples.T) - np.eye(3)).max() < 0.06


def test_the_papers_rule_for_the_range():
    X = correlated()
    z = (X - X.mean(0)) / X.std(0)
    made = TabularAnomalies("global", rule="paper", margin=0.5).fit(X).synthesize(X, 4000)
    there = (made.samples - X.mean(0)) / X.std(0)
    assert (there >= 1.5 * z.min(0) - 1e-9).all()
    assert (there <= 1.5 * z.max(0) + 1e-9).all()


def test_dependency_anomalies_keep_the_margins_and_lose_the_dependence():
    X = correlated(2000)
    made = TabularAnomalies("dependency").fit(X).synthesize(X, 2000)
    assert np.corrcoef(X.T)[0, 1] > 0.9
    assert np.abs(np.corrcoef(made.samples.T) - np.eye(3)).max() < 0.08
    levels = [0.1, 0.5, 0.9]
    np.testing.assert_allclose(np.quantile(made.samples, levels, 0), np.quantile(X, levels, 0), atol=0.12)
    assert roc_auc_score(np.r_[np.zeros(500), np.ones(2000)], distance(X[:1500], np.r_[X[1500:], made.samples])) > 0.8


def test_the_copula_draws_normal_rows():
    X = correlated(2000)
    X[:, 0] = np.exp(X[:, 0])
    drawn = RowCopula(X, np.random.default_rng(0)).joint(4000, np.random.default_rng(1))
    assert np.corrcoef(np.log(drawn[:, 0]), drawn[:, 1])[0, 1] == pytest.approx(
        np.corrcoef(np.log(X[:, 0]), X[:, 1])[0, 1], abs=0.03
    )
    np.testing.assert_allclose(np.quantile(drawn, [0.2, 0.8], 0), np.quantile(X, [0.2, 0.8], 0), rtol=0.15)


def test_at_most_fifty_columns_are_modelled_jointly():
    X = np.random.default_rng(0).normal(size=(300, 60))
    model = TabularAnomalies("dependency").fit(X)
    assert len(model.copula_.columns) == 50
    assert not np.delete(model.synthesize(X, 20).masks, model.copula_.columns, axis=1).any()


def test_every_kind_is_anomalous_and_mixed_makes_all_of_them():
    X = correlated()
    made = TabularAnomalies().fit(X[:600]).synthesize(X[600:], 400)
    kinds = np.array([row["kind"] for row in made.meta])
    assert {kind: int((kinds == kind).sum()) for kind in TabularAnomalies.KINDS} == dict.fromkeys(
        TabularAnomalies.KINDS, 100
    )
    normal = distance(X[:600], X[600:])
    for kind in TabularAnomalies.KINDS:
        scores = distance(X[:600], made.samples[kinds == kind])
        assert roc_auc_score(np.r_[np.zeros(200), np.ones(100)], np.r_[normal, scores]) > 0.75


def test_a_share_of_the_columns_is_changed():
    X = correlated()
    masks = TabularAnomalies("global", share=0.34).fit(X).synthesize(X, 300).masks
    assert (masks.sum(1) == 1).all()
    assert masks.any(0).all()


def test_normal_rows_of_the_same_models_are_normal():
    X = correlated(1200)
    normal = distance(X[:600], X[600:])
    for kind in ("local", "cluster", "dependency"):
        made = TabularAnomalies(kind).fit(X[:600]).normals(X[600:], 600)
        assert made.labels.tolist() == [0] * 600
        truth = np.r_[np.zeros(600), np.ones(600)]
        assert roc_auc_score(truth, np.r_[normal, distance(X[:600], made.samples)]) == pytest.approx(0.5, abs=0.06)
    with pytest.raises(InputError, match="kind: 'global' has no model of normal rows"):
        TabularAnomalies("global").normals(X, 10)


def test_levels_are_drawn_again_and_never_scaled():
    rng = np.random.default_rng(0)
    rooms = rng.integers(0, 3, 400)
    table = as_table({"rooms": rooms, "kind": np.array(["a", "b", "c"])[rooms], "size": rooms + rng.normal(size=400)})
    together = TabularAnomalies("local", alpha=9.0).fit(table).synthesize(table, 300).samples
    assert (np.array(["a", "b", "c"])[together.column("rooms")] == together.column("kind")).all()
    apart = TabularAnomalies("dependency").fit(table).synthesize(table, 300).samples
    agree = (np.array(["a", "b", "c"])[apart.column("rooms")] == apart.column("kind")).mean()
    assert 0.2 < agree < 0.5
    assert set(apart.column("rooms").tolist()) == {0, 1, 2}


def test_kinds_that_the_columns_do_not_allow_are_refused():
    coins = np.random.default_rng(0).integers(0, 2, (100, 3)).astype(float)
    assert TabularAnomalies().fit(coins).kinds_ == ("global", "dependency")
    with pytest.raises(InputError, match="kind: 'local' anomalies need numbers that vary; use one of global"):
        TabularAnomalies("local").fit(coins)
    with pytest.raises(InputError, match="kind: 'dependency' anomalies need two columns"):
        TabularAnomalies("dependency").fit(np.random.default_rng(0).normal(size=(50, 1)))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"kind": "odd"}, "kind: 'odd' was given"),
        ({"alpha": 1.0}, r"alpha: 1.0 was given; use a number in \(1, inf\)"),
        ({"margin": -0.1}, "margin: -0.1 was given"),
        ({"share": 0.0}, "share: 0.0 was given"),
        ({"components": 0}, "components: 0 was given"),
        ({"rule": "none"}, "rule: 'none' was given"),
    ],
)
def test_unusable_parameters_are_refused(params, message):
    with pytest.raises(InputError, match=message):
        TabularAnomalies(**params).fit(correlated(50))


def test_rows_of_a_real_table(one_class):
    train, test, y = one_class("wine")
    made = TabularAnomalies().fit(train).synthesize(test[y == 0], 100)
    centre, scale = train.mean(0), train.std(0)
    normal = distance((train - centre) / scale, (test[y == 0] - centre) / scale)
    scores = distance((train - centre) / scale, (made.samples - centre) / scale)
    assert roc_auc_score(np.r_[np.zeros(len(normal)), np.ones(100)], np.r_[normal, scores]) > 0.8
