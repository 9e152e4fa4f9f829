from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import smooth_l1_loss

import genad
from genad import Training
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn.segmentation import PixelFrame, focal_loss
from genad.reconstruction.diffusion.diffusion_ad import Denoiser, DiffusionAD
from genad.synthesis.base import create_synthesizer

# few images are left to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


def waves(n, seed=0, size=16):
    """Smooth two-dimensional waves, in 0..1."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 2 * np.pi, (2, n, 1, 1))
    t = np.arange(size) * 0.4
    field = np.sin(t[:, None] + phase[0]) + np.sin(t[None, :] + phase[1])
    return (0.5 + 0.2 * field)[:, None].clip(0, 1).astype(np.float32)


@pytest.fixture
def denoiser():
    torch.manual_seed(0)
    frame = PixelFrame((2, 8, 8), 64, torch.tensor([0.2, 0.1]), torch.tensor([0.5, 0.4]))
    return Denoiser(frame, 2).requires_grad_(requires_grad=False)


@pytest.fixture(scope="module")
def fitted():
    return DiffusionAD(training=Training(updates=200)).fit(waves(160))


def drawn(count=4, size=8):
    torch.manual_seed(1)
    x = 0.1 * torch.randn(count, 2, size, size)
    t = torch.randint(300, (count,)), torch.randint(300, 1000, (count,))
    return x, t, (torch.randn_like(x), torch.randn_like(x))


def test_without_guidance_it_is_the_plain_one_step_estimate(denoiser):
    x, (small, large), noise = drawn()
    made = denoiser.guided(x, (small, large), noise, 0.0)
    x_t = denoiser.schedule.q(x, small, noise[0])
    eps = denoiser.predict(x_t, small)
    torch.testing.assert_close(made.eps_small, eps)
    torch.testing.assert_close(made.restored, denoiser.inside(denoiser.schedule.x0(x_t, small, eps)))


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_guidance_mixes_the_two_estimates_as_in_closed_form(denoiser, weight):
    denoiser.inside = lambda x: x
    x, (small, large), noise = drawn()
    schedule = denoiser.schedule
    made = denoiser.guided(x, (small, large), noise, weight)
    x_small, x_large = schedule.q(x, small, noise[0]), schedule.q(x, large, noise[1])
    near = schedule.x0(x_small, small, denoiser.predict(x_small, small))
    far = schedule.x0(x_large, large, denoiser.predict(x_large, large))
    share = weight * (1 - schedule.abar[small]).view(-1, 1, 1, 1)
    torch.testing.assert_close(made.restored, (1 - share) * near + share * far, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made.eps_large, denoiser.predict(x_large, large))


def test_estimates_stay_within_the_range_of_pixels(denoiser):
    x, t, noise = drawn()
    made = denoiser.guided(10 + x, t, noise, 1.0)
    assert (made.restored <= denoiser.low + 2).all()
    assert (made.restored >= denoiser.low).all()
    # A pixel value of 1 is the upper end, one of 0 the lower.
    torch.testing.assert_close(2 * (torch.tensor([1.0, 0.0]) - torch.tensor([0.5, 0.4])), torch.tensor([1.0, -0.8]))
    assert denoiser.low.flatten().tolist() == pytest.approx([-1.0, -0.8])


def test_every_image_has_steps_of_its_own(denoiser):
    x, (small, large), noise = drawn()
    together = denoiser.guided(x, (small, large), noise, 1.0).restored
    for k in range(len(x)):
        one = slice(k, k + 1)
        alone = denoiser.guided(x[one], (small[one], large[one]), (noise[0][one], noise[1][one]), 1.0).restored
        torch.testing.assert_close(alone, together[one], rtol=1e-4, atol=1e-5)


def test_an_untrained_output_of_zero_is_the_best_linear_guess(denoiser):
    denoiser.network.body.head.weight.zero_()
    denoiser.network.body.head.bias.zero_()
    torch.manual_seed(2)
    x = denoiser.spread * torch.randn(400, 2, 8, 8)
    t = torch.full((400,), 250)
    noise = torch.randn_like(x)
    x_t = denoiser.schedule.q(x, t, noise)
    guess = denoiser.predict(x_t, t)
    slope = (noise * x_t).sum((0, 2, 3)) / x_t.square().sum((0, 2, 3))
    torch.testing.assert_close(guess, slope.view(-1, 1, 1) * x_t, rtol=0.05, atol=0.02)


def test_the_noise_loss_is_that_of_the_normal_images_alone(fitted):
    net = fitted.net_
    z = fitted._ingest(waves(6, seed=2), reset=False).samples.x
    mask = torch.zeros(6, 1, 16, 16)
    mask[3:, :, 4:9, 4:9] = 1.0
    seen = z + 2 * mask

    def parts(seen):
        torch.manual_seed(5)
        total = fitted.pair_loss(net, z, seen, mask)
        torch.manual_seed(5)
        small, large = torch.randint(300, (6,)), torch.randint(300, 1000, (6,))
        noise = torch.randn_like(seen), torch.randn_like(seen)
        p, _, made = fitted._judge(net, seen, (small, large), noise)
        marked = 5 * focal_loss(p, mask, gamma=4.0, alpha=0.5).mean() + smooth_l1_loss(p, mask)
        errors = (made.eps_small - noise[0]).square() + (made.eps_large - noise[1]).square()
        return total - marked, errors

    left, errors = parts(seen)
    torch.testing.assert_close(left, errors[:3].mean(), rtol=1e-3, atol=1e-5)
    # Other anomalies change the loss of the mask, and not that of the noise.
    other, _ = parts(z - 5 * mask)
    torch.testing.assert_close(other, left, rtol=1e-3, atol=1e-5)


def test_a_batch_without_normal_images_has_no_noise_loss(fitted):
    net = fitted.build((1, 16, 16))
    z = fitted._ingest(waves(3, seed=2), reset=False).samples.x
    mask = torch.ones(3, 1, 16, 16)
    loss = fitted.pair_loss(net, z, z, mask)
    assert torch.isfinite(loss)
    loss.backward()
    # What still reaches the denoiser comes through the segmenter, end to end.
    assert net.generate.network.body.stem.weight.grad.abs().sum() > 0


def test_small_and_large_steps_are_drawn_on_their_sides_of_300(fitted):
    steps = []
    denoiser = fitted.net_.generate
    plain = denoiser.guided

    def spy(x, t, noise, weight):
        steps.append(torch.stack(t))
        return plain(x, t, noise, weight)

    denoiser.guided = spy
    try:
        z = fitted._ingest(waves(64), reset=False).samples.x
        for seed in range(5):
            torch.manual_seed(seed)
            fitted.loss(fitted.net_, Batch(z))
    finally:
        del denoiser.guided
    small, large = torch.cat(steps, 1)
    assert small.min() >= 0
    assert small.max() < 300 <= large.min()
    assert large.max() < 1000
    assert len(small.unique()) > 50


def test_the_noise_of_scoring_is_fixed_and_the_same_for_every_image(fitted):
    X = np.repeat(waves(1, seed=4), 3, axis=0)
    found = fitted.detect(X)
    assert np.ptp(found.scores) == pytest.approx(0.0, abs=1e-7)
    np.testing.assert_allclose(found.maps[0], found.maps[2], atol=1e-6)
    assert fitted.net_.generate.noise.shape == (2, 1, 16, 16)


def test_the_score_is_the_mean_of_at_least_five_pixels():
    p = torch.zeros(1, 1, 100, 100)
    p[..., :2, :5] = 0.5
    p[..., 50, 50] = 1.0
    assert DiffusionAD().image_score(p).item() == pytest.approx((1.0 + 9 * 0.5) / 10)
    assert DiffusionAD().image_score(p[..., 50:52, 50:53]).item() == pytest.approx(1 / 5)


def test_defects_are_found_marked_and_removed(fitted):
    X = waves(40, seed=7)
    made = create_synthesizer("perlin_texture").synthesize(X, 40, random_state=3)
    truth = X[made.sources]
    found = fitted.detect(np.concatenate([X, made.samples]))
    assert roc_auc_score(np.repeat([0, 1], 40), found.scores) > 0.85
    masks = made.masks[:, None]
    assert roc_auc_score(masks.ravel(), found.maps[40:].ravel()) > 0.85
    error = np.abs(found.restored[40:] - truth)
    assert error[masks].mean() < 0.7 * np.abs(made.samples - truth)[masks].mean()
    assert error[~masks].mean() < 0.05


def test_it_is_found_by_its_name():
    assert isinstance(genad.create("diffusion_ad"), DiffusionAD)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"guidance": -1.0}, "guidance: -1.0"),
        ({"small_step": -1}, "small_step: -1"),
        ({"large_step": 400.5}, "large_step: 400.5"),
        ({"small_step": 400, "large_step": 300}, "small_step, large_step: 400 and 300"),
        ({"large_step": 1000}, "small_step, large_step: 200 and 1000"),
    ],
)
def test_wrong_parameters_are_refused(params, message):
    with pytest.raises(InputError, match=message):
        DiffusionAD(**params).fit(waves(5))
