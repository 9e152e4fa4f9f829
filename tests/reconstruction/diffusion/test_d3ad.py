from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.data.samples import Batch
from genad.errors import InputError
from genad.reconstruction.diffusion.d3ad import D3AD

# few images leave few to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


def stripes(n, size=16, seed=0):
    """Draw images of stripes with a random phase."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 2 * np.pi, (n, 1, 1))
    rows = np.arange(size)[:, None] / 2 + 0 * np.arange(size)
    return (0.5 + 0.3 * np.sin(rows + phase))[:, None].astype(np.float32)


def scratched(X, seed=0):
    """Return copies with a square of noise, and where it is."""
    rng = np.random.default_rng(seed)
    X, mask = X.copy(), np.zeros(X.shape, bool)
    for i in range(len(X)):
        row, column = rng.integers(0, X.shape[2] - 5, 2)
        mask[i, :, row : row + 5, column : column + 5] = True
    X[mask] = rng.uniform(0, 1, mask.sum())
    return X, mask


@pytest.fixture(scope="module")
def fitted():
    return D3AD(training=Training(updates=300)).fit(stripes(120))


@pytest.fixture
def latents(fitted):
    batch = fitted._ingest(stripes(12, seed=7), reset=False).samples.batch(torch.arange(12))
    with torch.no_grad():
        return fitted.net_.coder.encode(batch.x)


def test_parts_are_trained_one_after_the_other():
    phases = {phase.name: phase for phase in D3AD().phases(None)}
    assert phases["autoencoder"].stop == phases["extractor"].stop == phases["noise"].start
    assert phases["noise"].modules == ("predict",)
    assert phases["adaptation"].modules == ("extractor.levels",)
    assert phases["adaptation"].start > phases["noise"].start


def test_latents_have_unit_variance_and_decode_to_images(fitted):
    batch = fitted._ingest(stripes(60, seed=1), reset=False).samples.batch(torch.arange(60))
    net = fitted.net_
    with torch.no_grad():
        z = net.coder.encode(batch.x)
        rebuilt = net.coder.decode(z)
    assert z.shape == (60, 4, 8, 8)
    for channel in z.unbind(1):
        assert 0.8 < channel.std().item() < 1.2
    assert (rebuilt - batch.x).square().mean() < 0.2 * batch.x.var()


def test_the_chain_starts_at_the_scaled_latent_without_noise(fitted, latents, monkeypatch):
    net, seen = fitted.net_, []
    predict = type(net.predict).forward

    def spy(self, x, t):
        seen.append((x.clone(), t.clone()))
        return predict(self, x, t)

    monkeypatch.setattr(type(net.predict), "forward", spy)
    for name in ("randn", "randn_like", "rand", "randint", "normal"):
        monkeypatch.setattr(torch, name, lambda *a, **k: pytest.fail("noise was drawn"))
    level = torch.tensor([20, 80] * 6)
    with torch.no_grad():
        fitted.denoise(net, latents, level)
    first, t = seen[0]
    assert torch.equal(t, level - 1)
    expected = net.schedule.abar[level - 1].sqrt().view(-1, 1, 1, 1) * latents
    assert torch.equal(first, expected)
    # every image takes ten strides, each its own length
    assert len(seen) == 10
    steps = torch.stack([t for _, t in seen])
    assert (steps.diff(dim=0)[:, 0] == -2).all()
    assert (steps.diff(dim=0)[:, 1] == -8).all()


def test_chains_of_a_batch_equal_those_run_alone(fitted, latents):
    level = torch.tensor([20, 30, 40, 50, 60, 80] * 2)
    with torch.no_grad():
        together = fitted.denoise(fitted.net_, latents, level)
        for i in range(6):
            one = slice(i, i + 1)
            alone = fitted.denoise(fitted.net_, latents[one], level[one])
            torch.testing.assert_close(together[one], alone, atol=1e-5, rtol=1e-4)


def test_levels_grow_with_the_distance_and_are_the_multiples_of_the_card(fitted, monkeypatch):
    net = fitted.net_
    distances = net.nearest + net.width * torch.linspace(-1, 14, 61)
    monkeypatch.setattr(D3AD, "distance", lambda *a, **k: distances)
    levels = fitted.level(net, torch.zeros(61, 1, 16, 16))
    assert set(levels.tolist()) == {20, 30, 40, 50, 60, 70, 80}
    assert (levels.diff() >= 0).all()
    assert levels[0] == 20
    assert levels[-1] == 80


def test_unusual_images_are_noised_more(fitted):
    net = fitted.net_
    normal = fitted._ingest(stripes(40, seed=2), reset=False).samples.batch(torch.arange(40)).x
    odd = torch.randn(40, 1, 16, 16)
    with torch.no_grad():
        assert fitted.level(net, odd).float().mean() > fitted.level(net, normal).float().mean() + 20


def test_distances_of_training_images_leave_themselves_out(fitted):
    net = fitted.net_
    samples = fitted._ingest(stripes(120), reset=False).samples
    x = samples.batch(torch.arange(120)).x
    vectors = net.extractor.vector(x)
    near = torch.cdist(vectors, net.bank, p=1)
    known = (near < 1e-4).any(1)
    assert 80 < known.sum() < 110  # a fifth is held out
    row = int(known.nonzero()[0])
    expected = near[row].sort().values[1:21].mean()
    found = fitted.distance(net, x, known=True)[row]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    with_itself = near[row].sort().values[:20].mean()
    torch.testing.assert_close(fitted.distance(net, x)[row], with_itself, rtol=1e-3, atol=1e-3)


def test_guidance_is_the_error_correction_of_the_paper(fitted, latents):
    """eps' = eps - sqrt(1 - abar) eta (y_t - x_t), with y_t the input noised by the predicted noise."""
    net, schedule = fitted.net_, fitted.net_.schedule
    level = torch.full((12,), 40)
    times = schedule.timetable(level - 1, 10)
    x_t = schedule.alpha_bar(times[0], latents).sqrt() * latents
    with torch.no_grad():
        for t, to in itertools.pairwise(times):
            eps = net.predict(x_t, t)
            y_t = schedule.q(latents, t, eps)
            eps = eps - (1 - schedule.alpha_bar(t, x_t)).sqrt() * 4.0 * (y_t - x_t)
            x_t = schedule.ddim(x_t, t, to, eps)
        found = fitted.denoise(net, latents, level)
    torch.testing.assert_close(found, x_t, atol=1e-4, rtol=1e-3)


def test_without_guidance_it_is_plain_ddim_and_guidance_stays_near_the_input(fitted, latents):
    net, schedule = fitted.net_, fitted.net_.schedule
    level = torch.full((12,), 80)
    times = schedule.timetable(level - 1, 10)
    x_t = schedule.alpha_bar(times[0], latents).sqrt() * latents
    with torch.no_grad():
        for t, to in itertools.pairwise(times):
            x_t = schedule.ddim(x_t, t, to, net.predict(x_t, t))
        plain = D3AD(guidance=0.0).denoise(net, latents, level)
        guided = fitted.denoise(net, latents, level)
        # an overshooting weight is capped: the input itself
        capped = D3AD(guidance=1e9).denoise(net, latents, level)
    torch.testing.assert_close(plain, x_t, atol=1e-4, rtol=1e-3)
    assert (guided - latents).abs().mean() < (plain - latents).abs().mean()
    torch.testing.assert_close(capped, latents, atol=1e-3, rtol=1e-3)


def test_the_extractor_adapts_to_reconstructions(fitted):
    net = fitted.net_
    batch = Batch(fitted._ingest(stripes(32, seed=3), reset=False).samples.batch(torch.arange(32)).x)
    before = [p.clone() for p in net.extractor.levels.parameters()]
    levels = net.extractor.levels.requires_grad_()
    try:
        with torch.enable_grad():
            torch.manual_seed(0)
            first = fitted.adaptation_loss(net, batch)
            gradients = torch.autograd.grad(first, list(levels.parameters()))
        assert max(float(g.abs().max()) for g in gradients) > 0
        # a step against the gradient brings the features of images and reconstructions together
        with torch.no_grad():
            for p, g in zip(levels.parameters(), gradients, strict=True):
                p -= 1e-2 * g
            torch.manual_seed(0)
            assert fitted.adaptation_loss(net, batch) < first
    finally:
        levels.requires_grad_(requires_grad=False)
        with torch.no_grad():
            for p, old in zip(net.extractor.levels.parameters(), before, strict=True):
                p.copy_(old)


def test_the_map_mixes_latents_and_features_and_its_largest_value_scores(fitted):
    X, _ = scratched(stripes(20, seed=4))
    batch = fitted._ingest(X, reset=False).samples.batch(torch.arange(20))
    net, want = fitted.net_, frozenset({"map"})
    with torch.no_grad():
        both = D3AD().infer(net, batch, want)
        latent = D3AD(feature_weight=0.0).infer(net, batch, want).map
        feature = D3AD(feature_weight=1.0).infer(net, batch, want).map
    torch.testing.assert_close(both.map, 0.85 * latent + 0.15 * feature, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(both.score, both.map.flatten(1).amax(1))
    assert (feature >= -1e-6).all()


def test_defects_score_higher_and_are_found(fitted):
    normal = stripes(40, seed=5)
    bad, mask = scratched(normal)
    scores = np.r_[fitted.anomaly_score(normal), fitted.anomaly_score(bad)]
    assert roc_auc_score(np.repeat([0, 1], 40), scores) > 0.9
    assert roc_auc_score(mask.ravel(), fitted.anomaly_map(bad).ravel()) > 0.8


def test_models_are_saved_with_their_bank(fitted, tmp_path):
    X = stripes(10, seed=6)
    scores = fitted.anomaly_score(X)
    assert np.array_equal(fitted.anomaly_score(X), scores)
    again = genad.load(fitted.save(tmp_path / "m"))
    assert np.array_equal(again.anomaly_score(X), scores)


def test_large_images_are_worked_on_small_and_answered_in_full_size():
    X = np.repeat(np.repeat(stripes(24), 4, 2), 3, 3)
    detector = D3AD(resolution=16, training=Training(updates=20)).fit(X)
    found = detector.detect(X[:3])
    assert found.maps.shape == found.restored.shape == (3, 1, 64, 48)
    np.testing.assert_allclose(found.scores, detector.anomaly_score(X[:3]))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"max_step": 5}, "max_step: 5"),
        ({"max_step": 2000}, "max_step: 2000"),
        ({"guidance": -1.0}, "guidance: -1"),
        ({"steps": 0}, "steps: 0"),
        ({"neighbours": 0}, "neighbours: 0"),
        ({"feature_weight": 1.1}, "feature_weight: 1.1"),
        ({"resolution": 0}, "resolution: 0"),
        ({"network": "mlp"}, "network: 'mlp'"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        D3AD(**params).fit(stripes(20))


@pytest.mark.data
def test_floor_on_digits(data_dir):
    with np.load(data_dir / "image" / "mnist10k.npz", allow_pickle=False) as file:
        images = file[next(k for k in file.files if k.lower().startswith("x") or "im" in k.lower())][:, ::2, ::2]
        y = file["y"]
    X = images[:, None].astype(np.float32) / 255
    normal, other = X[y == 0], X[y != 0][:150]
    detector = D3AD(training=Training(updates=300)).fit(normal[:250])
    scores = np.r_[detector.anomaly_score(normal[250:400]), detector.anomaly_score(other)]
    assert roc_auc_score(np.repeat([0, 1], [len(normal[250:400]), 150]), scores) > 0.6
