from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.data.samples import ArraySamples, Batch
from genad.errors import InputError
from genad.nn import Backbone
from genad.nn.adversarial import DenseSearch
from genad.reconstruction.gan.ano_gan import AnoGAN, AnoGANNet

# small data leave few samples to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


@pytest.fixture
def net():
    torch.manual_seed(0)
    return AnoGANNet((1, 8, 8), 4, 2, None).eval().requires_grad_(requires_grad=False)


@pytest.fixture(scope="module")
def slopes():
    rng = np.random.default_rng(0)
    grid = np.linspace(-1, 1, 8)
    a, b = rng.normal(size=(2, 300, 1, 1))
    return (a * grid[:, None] + b * grid)[:, None] + 0.05 * rng.normal(size=(300, 1, 8, 8))


@pytest.fixture(scope="module")
def fitted(slopes):
    return AnoGAN(latent=4, inversion_steps=40, training=Training(updates=300)).fit(slopes)


def _batch(n=6):
    return Batch(torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(1)))


def test_there_is_no_encoder_and_the_starts_are_drawn_once(net):
    assert {name for name, _ in net.named_children()} == {"generator", "critic"}
    assert net.start.shape == (2, 4)
    assert float(net.start.abs().min()) > 0
    assert "start" in dict(net.named_buffers())


def test_large_images_or_a_wish_give_the_convolutions_of_the_paper():
    for net in (AnoGANNet((1, 32, 32), 32, 1, "conv"), AnoGANNet((3, 64, 64), 32, 1, None)):
        kinds = {type(m).__name__ for m in net.modules()}
        assert {"Conv2d", "ConvTranspose2d", "LeakyReLU"} <= kinds
        assert not any("Norm" in kind for kind in kinds)
    small = AnoGANNet((1, 32, 32), 32, 1, None)
    assert not any("Conv" in type(m).__name__ for m in small.modules())
    assert small.critic.features(torch.zeros(2, 1, 32, 32)).shape == (2, 128)


def test_training_is_the_non_saturating_game(net):
    batch, detector = _batch(), AnoGAN()
    critic, generator = detector.phases(net)
    assert (critic.modules, generator.modules) == (("critic",), ("generator",))
    torch.manual_seed(1)
    made = net.generator(torch.randn(6, 4))
    real, fake = torch.sigmoid(net.critic(batch.x)), torch.sigmoid(net.critic(made))
    torch.manual_seed(1)
    expected = -0.5 * (real.log().mean() + (1 - fake).log().mean())
    torch.testing.assert_close(detector.discriminator_loss(net, batch), expected)
    torch.manual_seed(1)
    torch.testing.assert_close(detector.generator_loss(net, batch), -fake.log().mean())


def test_the_search_lowers_the_loss_and_leaves_the_network_alone(fitted, slopes):
    net = fitted.net_
    before = {k: v.clone() for k, v in net.state_dict().items()}
    x = fitted._ingest(slopes, reset=False).samples.x[:40]
    codes, losses, trace = fitted.invert(net, Batch(x))
    assert codes.shape == (40, 4)
    assert trace.shape == (41, 40)
    assert (trace[-1] < trace[0]).float().mean() > 0.9
    assert losses.mean() < 0.7 * trace[0].mean()
    torch.testing.assert_close(losses, trace.min(0).values)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not any(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_score_is_the_loss_of_the_search_at_its_best_code(net, weight):
    batch = _batch()
    detector = AnoGAN(lambda_d=weight, inversion_steps=5, reduction="mean")
    codes, losses, _ = detector.invert(net, batch)
    made = net.generator(codes)
    residual = (batch.x - made).abs().flatten(1).mean(1)
    features = (net.critic.features(batch.x) - net.critic.features(made)).abs().mean(1)
    torch.testing.assert_close(losses, (1 - weight) * residual + weight * features)
    found = detector.infer(net, batch, frozenset({"map", "restored"}))
    torch.testing.assert_close(found.score, losses)
    torch.testing.assert_close(found.map, (batch.x - made).abs())
    torch.testing.assert_close(found.restored, made)
    torch.testing.assert_close(detector.reconstruct(net, batch), made)


def test_reductions_divide_by_nothing_by_the_size_or_by_the_training_average(net):
    batch, samples = _batch(40), ArraySamples(_batch(40).x)
    found = {}
    for reduction in ("mean", "sum", "scaled"):
        net.unit.fill_(1.0)
        detector = AnoGAN(inversion_steps=8, reduction=reduction)
        detector.device_ = "cpu"
        detector.finish(net, samples)
        found[reduction] = net.unit.clone()
    assert found["mean"].tolist() == [1.0, 1.0]
    width = net.critic.features(batch.x).shape[1]
    torch.testing.assert_close(found["sum"], torch.tensor([1 / 64, 1 / width]))
    # in units of what is left over on training samples, both terms are about 1 there
    scores = detector.score_batch(net, batch)
    assert float(scores.mean()) == pytest.approx(1.0, abs=0.1)


def test_more_starts_never_score_worse_and_the_best_one_counts(net):
    batch = _batch()
    both = AnoGAN(inversion_steps=10, restarts=2)
    _, losses, trace = both.invert(net, batch)
    starts = net.start.clone()
    single = []
    for start in starts:
        net.start = start[None]
        single.append(both.invert(net, batch)[1])
    net.start = starts
    torch.testing.assert_close(losses, torch.minimum(*single), rtol=1e-4, atol=1e-5)
    assert trace.shape == (11, 12)


def test_a_samples_search_does_not_depend_on_the_others(net):
    x = _batch(16).x
    mixed = x.clone()
    mixed[8:] = 50.0
    detector = AnoGAN(inversion_steps=20)
    torch.testing.assert_close(
        detector.score_batch(net, Batch(mixed))[:8], detector.score_batch(net, Batch(x))[:8], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("shape", [(1, 8, 8), (20,)])
def test_dense_networks_joined_or_run_one_by_one_find_the_same(monkeypatch, shape):
    torch.manual_seed(0)
    net = AnoGANNet(shape, 4, 2, Backbone("mlp", (12,))).eval().requires_grad_(requires_grad=False)
    batch, detector = Batch(torch.randn(9, *shape)), AnoGAN(inversion_steps=20)
    joined = detector.invert(net, batch)
    monkeypatch.setattr(DenseSearch, "fits", classmethod(lambda *_: False))
    for ours, theirs in zip(joined, detector.invert(net, batch), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_scores_are_the_same_whatever_the_block(fitted, slopes, monkeypatch):
    whole = fitted.anomaly_score(slopes[:100])
    monkeypatch.setattr(AnoGAN, "_block", lambda *_: 16)
    np.testing.assert_allclose(fitted.anomaly_score(slopes[:100]), whole, rtol=1e-4)


def test_a_generated_sample_is_found_at_once(net):
    x = net.generator(net.start[:1])
    codes, losses, _ = AnoGAN(inversion_steps=3).invert(net, Batch(x))
    assert torch.equal(codes, net.start[:1])
    assert float(losses) < 1e-6


def test_hidden_pixels_take_no_part_and_are_filled_in(fitted, slopes):
    net = fitted.net_
    x = fitted._ingest(slopes, reset=False).samples.x[:32]
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:, :, 2:5, 2:5] = False
    hidden = torch.where(mask, x, 0.0)
    filled = fitted.reconstruct(net, Batch(hidden, mask))
    hole = ~mask
    error = (filled - x)[hole].square().mean()
    assert error < 0.6 * x[hole].square().mean()
    assert (fitted.error_map(net, Batch(hidden, mask))[hole] == 0).all()
    # the same hole by way of NaN
    gap = slopes[:32].copy()
    gap[~mask.numpy()] = np.nan
    np.testing.assert_allclose(
        fitted.anomaly_score(gap), fitted.score_batch(net, Batch(hidden, mask)).detach().numpy(), rtol=1e-3
    )


def test_other_samples_score_higher_and_scores_survive_saving(fitted, slopes, tmp_path):
    checks = np.indices((8, 8)).sum(0) % 2 * 2.0 - 1.0
    other = slopes[:20] + 2 * checks
    assert roc_auc_score(np.repeat([0, 1], [280, 20]), fitted.anomaly_score(np.r_[slopes[20:], other])) > 0.95
    again = genad.load(fitted.save(tmp_path / "m"))
    assert np.array_equal(again.anomaly_score(other), fitted.anomaly_score(other))
    restored = fitted.restore(other)
    assert np.square(restored - slopes[:20]).mean() < 0.5 * np.square(other - slopes[:20]).mean()


def test_samples_look_like_the_data(fitted, slopes):
    drawn = fitted.sample(200)
    assert drawn.shape == (200, 1, 8, 8)
    assert drawn.std() == pytest.approx(slopes.std(), rel=0.5)
    assert np.array_equal(drawn, fitted.sample(200))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"latent": 0}, "latent: 0"),
        ({"lambda_d": 1.5}, "lambda_d: 1.5"),
        ({"inversion_steps": 0}, "inversion_steps: 0"),
        ({"inversion_rate": 0}, "inversion_rate: 0"),
        ({"restarts": 0}, "restarts: 0"),
        ({"reduction": "max"}, "reduction: 'max'"),
    ],
)
def test_parameters_are_checked(params, message, slopes):
    with pytest.raises(InputError, match=message):
        AnoGAN(**params).fit(slopes)


@pytest.mark.data
def test_floor_on_digits(data_dir):
    with np.load(data_dir / "image" / "mnist10k.npz", allow_pickle=False) as file:
        X, y = file["X"], file["y"]
    X = X[:, None, ::2, ::2].astype(np.float32) / 255
    zeros, others = np.flatnonzero(y == 0), np.flatnonzero(y != 0)[::30]
    detector = AnoGAN(inversion_steps=40, training=Training(updates=400)).fit(X[zeros[:400]])
    test = np.r_[zeros[400:700], others]
    assert roc_auc_score(y[test] != 0, detector.anomaly_score(X[test])) > 0.7
