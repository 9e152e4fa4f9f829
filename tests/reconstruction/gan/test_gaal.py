from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from genad import Training, load
from genad.data.samples import Batch
from genad.errors import InputError
from genad.reconstruction.gan.gaal import MOGAAL, SOGAAL, Generators, shares

pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]

BOTH = pytest.mark.parametrize("cls", [SOGAAL, MOGAAL])
SHORT = Training(updates=60)


def _data(n: int = 300, d: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, d))


def test_generators_start_at_the_identity_on_the_box():
    u = torch.rand(50, 4)
    made = Generators(3, 4, reach=2.0)(u)
    torch.testing.assert_close(made, (4.0 * u - 2.0).expand(3, 50, 4))


@BOTH
def test_generators_freeze_while_the_discriminator_trains_on(cls, monkeypatch):
    trace: list[tuple[torch.Tensor, torch.Tensor]] = []
    step = cls.discriminator_loss

    def watch(self, net, batch):
        trace.append((net.generator.bias2.detach().clone(), net.discriminator[0].weight.detach().clone()))
        return step(self, net, batch)

    monkeypatch.setattr(cls, "discriminator_loss", watch)
    cls(training=SHORT).fit(_data())
    generator, discriminator = zip(*trace, strict=True)
    assert not torch.equal(generator[0], generator[20])
    torch.testing.assert_close(generator[21], generator[59], rtol=0, atol=0)
    assert not torch.equal(discriminator[21], discriminator[59])


@pytest.mark.parametrize(("k", "total"), [(1, 7), (3, 10), (10, 256), (10, 5), (4, 1)])
def test_shares_add_up_and_never_increase(k, total):
    counts = shares(k, total)
    assert sum(counts) == total
    assert len(counts) == k
    assert counts == sorted(counts, reverse=True)
    assert min(counts) >= 0


def test_targets_of_mo_gaal_are_quantiles_of_d_and_those_of_so_gaal_are_one():
    torch.manual_seed(0)
    detector = MOGAAL(k=5)
    net = detector.build((3,))
    x = torch.randn(200, 3)
    found = detector.targets(net, x, 5).numpy()
    probability = torch.sigmoid(net.logit(x)).detach().numpy()
    np.testing.assert_allclose(found, np.quantile(probability, [0, 0.2, 0.4, 0.6, 0.8]), rtol=1e-4)
    assert (np.diff(found) > 0).all()
    assert SOGAAL().targets(net, x, 1).tolist() == [1.0]


@BOTH
def test_a_loss_moves_only_its_own_network(cls):
    torch.manual_seed(0)
    detector = cls(training=SHORT)
    net = detector.build((3,))
    phases = {phase.name: phase for phase in detector.phases(net)}
    assert list(phases["generator"].modules) == ["generator"]
    assert phases["generator"].stop == pytest.approx(1 / 3)
    assert phases["discriminator"].stop == 1.0
    detector.discriminator_loss(net, Batch(torch.randn(20, 3))).backward()
    assert all(p.grad is None for p in net.generator.parameters())


@BOTH
def test_score_is_one_minus_d_and_far_rows_keep_their_order(cls):
    detector = cls(training=Training(updates=300)).fit(_data(400, 2))
    X = np.array([[0.0, 0.0], [4.0, -4.0], [8.0, -8.0]])
    scores = detector.anomaly_score(X)
    samples = detector._ingest(X, reset=False).samples.batch(torch.arange(3))
    with torch.no_grad():
        expected = 1 - torch.sigmoid(detector.net_.logit(samples.x).double())
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert scores[0] < 0.5 < scores[1] < scores[2] < 1


@BOTH
def test_restored_rows_are_training_rows_and_normal_rows_stay_near(cls, tmp_path):
    X = _data(400)
    detector = cls(training=SHORT).fit(X)
    restored = np.asarray(detector.restore(X))
    distance = np.abs(restored[:, None] - X[None]).max(2).min(1)
    assert distance.max() < 1e-5
    assert (np.abs(restored - X).max(1) < 1e-5).mean() > 0.75
    far = np.full((1, 3), 5.0)
    assert np.linalg.norm(detector.restore(far)) < np.linalg.norm(far)
    again = load(detector.save(tmp_path / "model.genad"))
    np.testing.assert_array_equal(again.anomaly_score(X), detector.anomaly_score(X))


def test_restoring_looks_at_observed_values_only():
    X = _data(400)
    detector = SOGAAL(training=SHORT).fit(X)
    row = X[:20].copy()
    row[:, 1] = np.nan
    found = detector.detect(row)
    assert (found.maps[:, 1] == 0).all()
    assert np.isfinite(found.scores).all()
    seen = np.asarray(found.restored)[:, [0, 2]]
    bank = detector.net_.bank.numpy()[:, [0, 2]] * X.std(0)[[0, 2]] + X.mean(0)[[0, 2]]
    best = np.linalg.norm((bank[None] - X[:20, None, [0, 2]]) / X.std(0)[[0, 2]], axis=2).min(1)
    own = np.linalg.norm((seen - X[:20][:, [0, 2]]) / X.std(0)[[0, 2]], axis=1)
    np.testing.assert_allclose(own, best, atol=0.02)


@BOTH
@pytest.mark.parametrize("shape", [(1,), (8, 2)])
def test_every_dense_shape(cls, shape):
    X = np.random.default_rng(0).normal(size=(30, *shape))
    found = cls(training=Training(updates=3)).fit(X).detect(X)
    assert np.isfinite(found.scores).all()
    assert np.asarray(found.restored).shape == X.shape


@pytest.mark.parametrize(
    ("cls", "params"),
    [
        (SOGAAL, {"hidden": 0}),
        (SOGAAL, {"reach": 0.0}),
        (SOGAAL, {"stop": 0.0}),
        (SOGAAL, {"stop": 1.5}),
        (MOGAAL, {"k": 0}),
    ],
)
def test_unusable_parameters_are_named(cls, params):
    with pytest.raises(InputError, match=next(iter(params))):
        cls(**params).fit(np.zeros((20, 3)))


@BOTH
def test_floor_on_a_real_table(one_class, cls):
    found = []
    for seed in (0, 1, 2):
        train, test, y = one_class("thyroid", seed)
        found.append(roc_auc_score(y, cls(random_state=seed).fit(train).anomaly_score(test)))
    assert np.mean(found) > 0.85
