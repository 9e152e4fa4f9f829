from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.core.loop import TrainingLoop
from genad.data.samples import ArraySamples, Batch
from genad.errors import InputError
from genad.nn.adversarial import gradient_penalty
from genad.reconstruction.gan.f_ano_gan import FAnoGAN, FAnoGANNet

# small data leave few samples to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


@pytest.fixture
def net():
    torch.manual_seed(0)
    return FAnoGANNet((1, 8, 8), 4, None)


@pytest.fixture(scope="module")
def slopes():
    rng = np.random.default_rng(0)
    grid = np.linspace(-1, 1, 8)
    a, b = rng.normal(size=(2, 300, 1, 1))
    return (a * grid[:, None] + b * grid)[:, None] + 0.05 * rng.normal(size=(300, 1, 8, 8))


@pytest.fixture(scope="module")
def fitted(slopes):
    return FAnoGAN(latent=4, training=Training(updates=500)).fit(slopes)


def _batch(n=6):
    return Batch(torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(1)))


def _trained(net, updates):
    detector = FAnoGAN(critic_steps=2, gan_share=0.5, training=Training(updates=updates, batch_size=16))
    loop = TrainingLoop(net, detector.phases(net), detector._training, seed=0, device=torch.device("cpu"))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    return loop, before


def _changed(net, before):
    return {name.split(".")[0] for name, value in net.state_dict().items() if not torch.equal(value, before[name])}


def test_the_gan_is_trained_first_and_then_only_the_encoder(net):
    samples = ArraySamples(_batch(64).x)
    loop, before = _trained(net, 20)
    half = {}

    def watch(live, batch):
        if loop.step == 9:
            half.update({k: v.detach().clone() for k, v in live.state_dict().items()})

    loop.after_step = watch
    loop.run(samples)
    changed_first = {name.split(".")[0] for name in half if not torch.equal(half[name], before[name])}
    assert changed_first == {"generator", "critic"}
    assert _changed(net, half) == {"encoder"}


def test_the_critic_takes_several_steps_for_one_of_the_generator():
    critic, generator, encoder = FAnoGAN(gan_share=0.6).phases(None)
    steps = [sum(phase.active(k, 100) for k in range(100)) for phase in (critic, generator, encoder)]
    assert steps == [60, 12, 40]


def test_the_critics_loss_is_wasserstein_with_penalty(net):
    batch, detector = _batch(), FAnoGAN(penalty=3.0)
    torch.manual_seed(1)
    made = net.generator(torch.randn(6, 4)).detach()
    expected = net.critic(made).mean() - net.critic(batch.x).mean() + 3.0 * gradient_penalty(net.critic, batch.x, made)
    torch.manual_seed(1)
    torch.testing.assert_close(detector.critic_loss(net, batch), expected)
    torch.manual_seed(1)
    torch.testing.assert_close(detector.generator_loss(net, batch), -net.critic(made).mean())


@pytest.mark.parametrize("kappa", [0.0, 1.0, 2.5])
def test_the_encoders_loss_is_the_mean_of_the_scores(net, kappa):
    batch, detector = _batch(), FAnoGAN(kappa=kappa)
    made = net.generator(net.encoder(batch.x))
    features = (net.critic.features(batch.x) - net.critic.features(made)).square().mean(1)
    expected = (batch.x - made).square().flatten(1).mean(1) + kappa * features
    found = detector.infer(net, batch, frozenset({"map", "restored"}))
    torch.testing.assert_close(found.score, expected)
    torch.testing.assert_close(detector.encoder_loss(net, batch), expected.mean())
    net.spread.fill_(2.0)
    torch.testing.assert_close(FAnoGAN(kappa=2 * kappa).score_batch(net, batch), expected)
    torch.testing.assert_close(found.map, (batch.x - made).square())
    torch.testing.assert_close(found.restored, made)


def test_the_gradient_of_the_second_stage_passes_through_frozen_networks(net):
    names = ("generator", "critic")
    for name in names:
        getattr(net, name).requires_grad_(requires_grad=False)
    FAnoGAN().encoder_loss(net, _batch()).backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in net.encoder.parameters())
    assert all(p.grad is None for name in names for p in getattr(net, name).parameters())


def test_codes_stay_in_the_centre_of_the_prior(net):
    code = FAnoGAN().code(net, Batch(100 * _batch().x))
    assert code.shape == (6, 4)
    assert code.abs().max().item() <= 1


def test_a_score_takes_one_pass_and_no_gradient(net):
    calls = {"encoder": 0, "generator": 0, "critic": 0}
    parts = {"encoder": net.encoder, "generator": net.generator, "critic": net.critic.body}
    for name, part in parts.items():
        part.register_forward_hook(lambda *_, name=name: calls.__setitem__(name, calls[name] + 1))
    with torch.inference_mode():
        FAnoGAN().infer(net, _batch(), frozenset({"map", "restored"}))
    assert calls == {"encoder": 1, "generator": 1, "critic": 2}
    assert not FAnoGAN.grad_at_score


def test_features_are_measured_in_their_own_variance(net):
    batch = _batch(50)
    for _ in range(200):
        FAnoGAN().after_step(net, batch)
    torch.testing.assert_close(net.spread, net.critic.features(batch.x).var(0).mean().detach(), rtol=1e-3, atol=0)
    FAnoGAN().after_step(net, _batch(1))
    assert torch.isfinite(net.spread)


def test_missing_values_cost_nothing(net):
    batch = _batch()
    mask = torch.ones_like(batch.x, dtype=torch.bool)
    mask[:, :, 3:5] = False
    gap = Batch(torch.where(mask, batch.x, 0.0), mask)
    made = net(gap.x)
    other = torch.where(mask, made, 50.0)
    torch.testing.assert_close(FAnoGAN().compare(net, gap, other), FAnoGAN().compare(net, gap, made))
    assert (FAnoGAN().error_map(net, gap)[~mask] == 0).all()


def test_other_samples_score_higher_and_scores_survive_saving(fitted, slopes, tmp_path):
    checks = np.indices((8, 8)).sum(0) % 2 * 2.0 - 1.0
    other = slopes[:20] + 2 * checks
    assert roc_auc_score(np.repeat([0, 1], [280, 20]), fitted.anomaly_score(np.r_[slopes[20:], other])) > 0.95
    again = genad.load(fitted.save(tmp_path / "m"))
    assert np.array_equal(again.anomaly_score(other), fitted.anomaly_score(other))
    restored = fitted.restore(other)
    assert np.square(restored - slopes[:20]).mean() < 0.5 * np.square(other - slopes[:20]).mean()
    assert fitted.encode(other).shape == (20, 4)
    assert fitted.sample(5).shape == (5, 1, 8, 8)


def test_an_ensemble_trains_its_members_in_turn(slopes):
    ensemble = genad.Ensemble(FAnoGAN(latent=2, training=Training(updates=20)), n=2).fit(slopes[:60])
    assert np.isfinite(ensemble.anomaly_score(slopes[:5])).all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"latent": 0}, "latent: 0"),
        ({"kappa": -1}, "kappa: -1"),
        ({"penalty": 0}, "penalty: 0"),
        ({"critic_steps": 0}, "critic_steps: 0"),
        ({"gan_share": 1.0}, "gan_share: 1.0"),
    ],
)
def test_parameters_are_checked(params, message, slopes):
    with pytest.raises(InputError, match=message):
        FAnoGAN(**params).fit(slopes)


@pytest.mark.data
def test_floor_on_digits(data_dir):
    with np.load(data_dir / "image" / "mnist10k.npz", allow_pickle=False) as file:
        X, y = file["X"], file["y"]
    X = X[:, None, ::2, ::2].astype(np.float32) / 255
    ones, others = np.flatnonzero(y == 1), np.flatnonzero(y != 1)[::30]
    detector = FAnoGAN(training=Training(updates=500)).fit(X[ones[:400]])
    test = np.r_[ones[400:700], others]
    assert roc_auc_score(y[test] != 1, detector.anomaly_score(X[test])) > 0.85
