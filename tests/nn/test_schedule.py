from __future__ import annotations

import itertools

import pytest
import torch

from genad.errors import InputError
from genad.nn import NoiseSchedule

MEAN, SPREAD = 0.8, 0.5


@pytest.fixture(scope="module")
def schedule():
    return NoiseSchedule(1000)


def best_denoiser(schedule, x_t, t):
    """Noise expected in x_t when the data are normal: minus the score of x_t times the noise's standard deviation."""
    abar = schedule.alpha_bar(t, x_t)
    return (1 - abar).sqrt() * (x_t - abar.sqrt() * MEAN) / (abar * SPREAD**2 + 1 - abar)


def test_step_minus_one_is_the_clean_sample(schedule):
    x, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    abar = schedule.alpha_bar(torch.tensor([-1, 7]), x)
    assert abar.shape == (2, 1, 1, 1)
    assert abar[0] == 1
    assert abar[1] == schedule.abar[7]
    assert torch.equal(schedule.q(x, torch.tensor([-1, -1]), noise), x)


@pytest.mark.parametrize("count", [1, 3, 10, 50])
def test_timetable_falls_to_the_clean_sample_and_reaches_it_last(count):
    start = torch.tensor([999, 249, 19, 0])
    times = NoiseSchedule.timetable(start, count)
    assert times.shape == (count + 1, 4)
    assert torch.equal(times[0], start)
    assert (times[-1] == -1).all()
    assert (times[:-1] >= 0).all()
    assert (times.diff(dim=0) <= 0).all()
    strides = -times[:, 0].diff()
    assert strides.max() - strides.min() <= 1
    with pytest.raises(InputError, match="count: found 0"):
        NoiseSchedule.timetable(start, 0)


def test_every_step_is_per_sample(schedule):
    x, noise, eps = (torch.randn(3, 1, 2, 2) for _ in range(3))
    t, to = torch.tensor([10, 400, 999]), torch.tensor([-1, 30, 700])
    whole = {
        "q": schedule.q(x, t, noise),
        "up": schedule.renoise(x, to, t, noise),
        "ddim": schedule.ddim(x, t, to, eps, 0.5, noise),
        "ddpm": schedule.ddpm(x, t, to, eps, noise),
    }
    for i in range(3):
        one = slice(i, i + 1)
        a, b, s, n, e = t[one], to[one], x[one], noise[one], eps[one]
        torch.testing.assert_close(whole["q"][one], schedule.q(s, a, n))
        torch.testing.assert_close(whole["up"][one], schedule.renoise(s, b, a, n))
        torch.testing.assert_close(whole["ddim"][one], schedule.ddim(s, a, b, e, 0.5, n))
        torch.testing.assert_close(whole["ddpm"][one], schedule.ddpm(s, a, b, e, n))


def test_noising_in_two_stages_is_noising_at_once(schedule):
    generator = torch.Generator().manual_seed(0)
    n = 200_000
    x = torch.full((n, 1), 1.5)
    t, to = torch.full((n,), 200), torch.full((n,), 450)
    first, second = (torch.randn(n, 1, generator=generator) for _ in range(2))
    staged = schedule.renoise(schedule.q(x, t, first), t, to, second)
    abar = schedule.abar[450]
    assert staged.mean().item() == pytest.approx(1.5 * abar.sqrt().item(), abs=0.01)
    assert staged.var().item() == pytest.approx(1 - abar.item(), abs=0.01)


def test_ddim_without_fresh_noise_is_its_own_inverse(schedule):
    x, eps = torch.randn(5, 2, 3), torch.randn(5, 2, 3)
    t, to = torch.tensor([0, 50, 300, 800, 999]), torch.tensor([-1, 10, 0, 799, 200])
    there = schedule.ddim(x, t, to, eps)
    torch.testing.assert_close(schedule.ddim(there, to, t, eps), x, atol=1e-4, rtol=1e-4)


def test_ddim_with_all_noise_fresh_is_the_small_ancestral_step(schedule):
    x, eps, noise = (torch.randn(4, 3) for _ in range(3))
    t, to = torch.tensor([5, 50, 500, 999]), torch.tensor([4, 20, 499, -1])
    ddim = schedule.ddim(x, t, to, eps, eta=1.0, noise=noise)
    ddpm = schedule.ddpm(x, t, to, schedule.x0(x, t, eps), noise, "small")
    torch.testing.assert_close(ddim, ddpm, atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match=r"noise: None was given with eta=0\.5"):
        schedule.ddim(x, t, to, eps, eta=0.5)


def test_variances_of_the_ancestral_step(schedule):
    x, zero, one = torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1, 1)
    t, to = torch.tensor([300]), torch.tensor([250])
    kept = schedule.abar[300] / schedule.abar[250]
    large = schedule.ddpm(x, t, to, zero, one).item()
    assert large == pytest.approx((1 - kept).sqrt().item(), rel=1e-4)
    small = schedule.ddpm(x, t, to, zero, one, "small").item()
    expected = ((1 - kept) * (1 - schedule.abar[250]) / (1 - schedule.abar[300])).sqrt().item()
    assert small == pytest.approx(expected, rel=1e-4)
    # the last step is the estimate itself
    assert schedule.ddpm(x, t, torch.tensor([-1]), 3 * one, one).item() == 3.0


def test_the_closed_form_denoiser_is_the_score_of_normal_data(schedule):
    x_t = torch.linspace(-3, 3, 7).view(-1, 1).requires_grad_()
    for step in (3, 100, 600):
        t = torch.full((7,), step)
        abar = schedule.abar[step]
        variance = abar * SPREAD**2 + 1 - abar
        log_density = -0.5 * (x_t - abar.sqrt() * MEAN).square() / variance
        (score,) = torch.autograd.grad(log_density.sum(), x_t)
        torch.testing.assert_close(-(1 - abar).sqrt() * score, best_denoiser(schedule, x_t.detach(), t))


@pytest.mark.parametrize("variance", ["large", "small"])
def test_the_chain_of_the_best_denoiser_samples_the_data(schedule, variance):
    generator = torch.Generator().manual_seed(0)
    n = 20_000
    x = torch.randn(n, 1, generator=generator)
    times = schedule.timetable(torch.full((n,), 999), 200)
    for t, to in itertools.pairwise(times):
        clean = schedule.x0(x, t, best_denoiser(schedule, x, t))
        x = schedule.ddpm(x, t, to, clean, torch.randn(n, 1, generator=generator), variance)
    assert x.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert x.std().item() == pytest.approx(SPREAD, rel=0.05)


def test_the_deterministic_chain_transports_and_inverts(schedule):
    x = torch.linspace(-0.5, 2.0, 9).view(-1, 1)
    times = schedule.timetable(torch.full((9,), 999), 500)
    there = x
    # the denoiser knows no noise at the clean sample: the way up starts at step 0
    up = times.flip(0)[1:]
    for t, to in itertools.pairwise(up):
        there = schedule.ddim(there, t, to, best_denoiser(schedule, there, t))
    # normal data become the standard normal: (x - mean) / spread
    torch.testing.assert_close(there, (x - MEAN) / SPREAD, atol=0.05, rtol=0.05)
    back = there
    for t, to in itertools.pairwise(up.flip(0)):
        back = schedule.ddim(back, t, to, best_denoiser(schedule, back, t))
    torch.testing.assert_close(back, x, atol=0.02, rtol=0.02)
