from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from genad import Autoencoder, Ensemble, Training, load
from genad.data.samples import ArraySamples, Batch
from genad.errors import InputError
from genad.reconstruction.autoencoder.robust_deep_ae import CleanedSamples, RobustDeepAE

pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]
QUICK = Training(updates=40)


@pytest.fixture(scope="module")
def line():
    """Rows along a line, one in ten thrown off it."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 1)) @ np.ones((1, 6)) + 0.05 * rng.normal(size=(500, 6))
    X[::10] += 2 * rng.normal(size=(50, 6))
    return X, (np.arange(500) % 10 == 0).astype(int)


@pytest.fixture(scope="module")
def fitted(line):
    return RobustDeepAE(share=0.1, latent=1, training=Training(updates=300)).fit(line[0])


def test_sparse_part_is_exactly_zero_for_most_rows_and_marks_the_outliers(fitted, line):
    X, y = line
    _, sparse = fitted.decompose(X)
    outlier = sparse.any(axis=1)
    assert 0.05 < outlier.mean() < 0.15
    assert outlier[y == 1].mean() > 0.75
    assert outlier[y == 0].mean() < 0.03


def test_parts_add_up_to_the_sample_within_the_level(fitted, line):
    X, _ = line
    clean, sparse = fitted.decompose(X)
    z = (X - X.mean(0)) / X.std(0)
    left = np.sqrt(np.square(z - clean - sparse).mean(1))
    outlier = sparse.any(axis=1)
    # The shrinkage leaves exactly the level of what has a sparse part, and less of what has none.
    level = float(fitted.net_.level)
    assert left[outlier] == pytest.approx(level, rel=0.02)
    assert (left[~outlier] <= level * 1.02).all()


def test_l1_leaves_single_values_zero(line):
    X, _ = line
    _, sparse = RobustDeepAE(sparsity="values", latent=1, training=Training(updates=200)).fit(X).decompose(X)
    some = sparse.any(axis=1)
    assert ((sparse != 0).sum(1)[some] < 6).any()
    assert 0.01 < (sparse != 0).mean() < 0.1


def test_each_round_goes_on_from_the_weights_before(line, monkeypatch):
    X, _ = line
    seen, built = [], []
    build, separate = RobustDeepAE.build, RobustDeepAE._separate
    monkeypatch.setattr(RobustDeepAE, "build", lambda self, shape: built.append(shape) or build(self, shape))

    def spy(self, net, samples):
        before = [p.clone() for p in net.parameters()]
        separate(self, net, samples)
        assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
        seen.append((net.sparse != 0).flatten(1).any(1).float().mean().item())

    monkeypatch.setattr(RobustDeepAE, "_separate", spy)
    report = RobustDeepAE(rounds=4, training=Training(updates=80)).fit(X).training_report_
    assert len(built) == 1
    assert len(seen) == 4
    assert seen == pytest.approx([0.05] * 4, abs=0.01)
    losses = report.history["loss"]
    assert max(losses[len(losses) // 2 :]) < 0.5 * losses[0]


def test_network_trains_on_the_data_without_the_sparse_part():
    net = RobustDeepAE().build((3,))
    x, sparse = torch.randn(7, 3), torch.randn(7, 3)
    net.sparse = sparse
    cleaned = CleanedSamples(ArraySamples(x), net)
    rows = torch.tensor([5, 0, 5])
    assert torch.equal(cleaned.batch(rows).x, (x - sparse)[rows])
    assert torch.equal(cleaned.stretch(2, 6).x, (x - sparse)[2:6])
    assert len(cleaned) == 7
    assert cleaned.shape == (3,)


def test_score_adds_the_sparse_part_to_the_error(fitted, line):
    X, _ = line
    batch = Batch(torch.from_numpy(((X - X.mean(0)) / X.std(0)).astype(np.float32)))
    with torch.no_grad():
        _, sparse, first = fitted.separate(fitted.net_, batch)
        score = fitted.score_batch(fitted.net_, batch)
    expected = sparse.square().mean(1).sqrt() + (batch.x - first).square().mean(1).sqrt()
    assert torch.allclose(score, expected, atol=1e-5)


def test_a_given_penalty_is_the_level(line):
    assert float(RobustDeepAE(penalty=0.7, training=QUICK).fit(line[0]).net_.level) == pytest.approx(0.7)
    nothing = RobustDeepAE(penalty=1e6, training=QUICK).fit(line[0])
    assert not nothing.decompose(line[0])[1].any()


def test_nothing_of_the_training_rows_stays_in_the_network(fitted):
    assert fitted.net_.sparse.numel() == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_contamination_hurts_less_than_it_hurts_the_plain_autoencoder(seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(900, 2)) @ rng.normal(size=(2, 8)) + 0.1 * rng.normal(size=(900, 8))
    train = np.r_[X[:600], 3 * rng.normal(size=(60, 8))]
    training = Training(updates=400, lr=5e-3)
    plain = Autoencoder(latent=2, training=training).fit(train).anomaly_score(X[600:])
    robust = RobustDeepAE(latent=2, share=0.1, training=training).fit(train).anomaly_score(X[600:])
    assert robust.mean() < 0.85 * plain.mean()


@pytest.mark.parametrize("shape", [(12, 2), (1, 8, 8), (4, 1, 8, 8)])
def test_other_shapes(shape):
    X = np.random.default_rng(0).normal(size=(50, *shape))
    clean, sparse = RobustDeepAE(training=QUICK).fit(X).decompose(X)
    assert clean.shape == sparse.shape == X.shape


def test_missing_values_have_no_sparse_part(line):
    X = line[0].copy()
    X[::7, 2] = np.nan
    _, sparse = RobustDeepAE(share=0.3, training=QUICK).fit(X).decompose(X)
    assert sparse.any()
    assert (sparse[::7, 2] == 0).all()


def test_an_interrupted_fit_goes_on_where_it_was(line, tmp_path):
    X, _ = line
    path = tmp_path / "fit.checkpoint"
    training = Training(updates=60, checkpoint=path, checkpoint_seconds=0.0)
    whole = RobustDeepAE(training=Training(updates=60)).fit(X)
    detector = RobustDeepAE(training=training)
    calls = []
    separate = detector._separate

    def stop(net, samples):
        if len(calls) == 3:
            raise RuntimeError("power cut")
        calls.append(1)
        separate(net, samples)

    detector._separate = stop
    with pytest.raises(RuntimeError, match="power cut"):
        detector.fit(X)
    assert path.exists()
    again = RobustDeepAE(training=training).fit(X)
    assert np.array_equal(again.anomaly_score(X), whole.anomaly_score(X))


def test_codes_and_ensembles(fitted, line):
    assert fitted.encode(line[0][:5]).shape == (5, 1)
    ensemble = Ensemble(RobustDeepAE(training=QUICK), n=2).fit(line[0])
    assert np.isfinite(ensemble.anomaly_score(line[0])).all()


def test_saved_and_loaded_scores_alike(fitted, line, tmp_path):
    again = load(fitted.save(tmp_path / "robust.genad"))
    assert (again.anomaly_score(line[0]) == fitted.anomaly_score(line[0])).all()


def test_real_table(one_class):
    train, test, y = one_class("ionosphere")
    assert roc_auc_score(y, RobustDeepAE().fit(train).anomaly_score(test)) > 0.92


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"sparsity": "rows"}, "sparsity: 'rows' was given; use 'samples' or 'values'"),
        ({"share": 0.0}, "share: 0.0 was given"),
        ({"share": 0.5}, "share: 0.5 was given"),
        ({"penalty": -1.0}, "penalty: -1.0 was given"),
        ({"rounds": 0}, "rounds: 0 was given"),
        ({"latent": 0}, "latent: 0 was given"),
    ],
)
def test_refused(parameters, message):
    with pytest.raises(InputError, match=message):
        RobustDeepAE(**parameters).fit(np.random.default_rng(0).normal(size=(50, 3)))
