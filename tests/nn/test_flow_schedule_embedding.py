from __future__ import annotations

import math

import pytest
import torch
from torch.autograd.functional import jacobian

from genad.errors import InputError
from genad.nn import FourierFeatures, NoiseSchedule, PlanarFlow, TimeEmbedding


def _flow(dim: int, n: int, scale: float = 1.0) -> PlanarFlow:
    generator = torch.Generator().manual_seed(dim + n)
    flow = PlanarFlow(dim, n).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return flow


@pytest.mark.parametrize(("dim", "n", "scale"), [(1, 1, 1.0), (3, 1, 3.0), (4, 6, 1.0)])
def test_planar_log_det_equals_the_jacobian(dim, n, scale):
    flow = _flow(dim, n, scale)
    z = torch.randn(5, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _, log_det = flow(z)
    for row, found in zip(z, log_det, strict=True):
        sign, expected = torch.linalg.slogdet(jacobian(lambda v: flow(v)[0], row))
        assert sign > 0
        torch.testing.assert_close(found, expected)


def test_planar_map_stays_invertible_for_extreme_weights():
    flow = PlanarFlow(1, 1)
    with torch.no_grad():
        flow.u.fill_(-9.0)
        flow.w.fill_(3.0)  # w.u = -27: without the constraint the map would fold
    z = torch.linspace(-3, 3, 400).unsqueeze(1)
    image, log_det = flow(z)
    assert (image.diff(dim=0) >= 0).all()
    assert torch.isfinite(log_det).all()


def test_planar_density_integrates_to_one():
    flow = _flow(1, 3)
    z = torch.linspace(-12, 12, 20001, dtype=torch.float64).unsqueeze(1)
    image, log_det = flow(z)
    log_base = -0.5 * z[:, 0] ** 2 - 0.5 * math.log(2 * math.pi)
    mass = torch.trapezoid((log_base - log_det).exp(), image[:, 0])
    assert mass.item() == pytest.approx(1.0, abs=1e-5)


def test_planar_gradients_reach_every_parameter_and_axes_are_free():
    flow = _flow(3, 2)
    z, log_det = flow(torch.ones(2, 4, 3, dtype=torch.float64))
    assert z.shape == (2, 4, 3)
    assert log_det.shape == (2, 4)
    (z.square().sum() + log_det.sum()).backward()
    assert all((p.grad != 0).all() for p in flow.parameters())


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-12, 1e-4])
def test_planar_map_stays_tame_as_w_vanishes(size):
    flow = _flow(3, 2).float()
    with torch.no_grad():
        flow.w.mul_(size)
    z = torch.ones(1, 3)
    image, log_det = flow(z)
    assert (image - z).abs().max() < 2 * flow.u.abs().sum()
    torch.testing.assert_close(log_det, torch.zeros(1), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("dim", "n", "name"), [(0, 1, "dim"), (1, 0, "n")])
def test_planar_refuses_empty_sizes(dim, n, name):
    with pytest.raises(InputError, match=f"{name}: found 0"):
        PlanarFlow(dim, n)


def test_linear_schedule_is_the_product_of_one_minus_beta():
    schedule = NoiseSchedule(4, beta_start=0.1, beta_end=0.4)
    torch.testing.assert_close(schedule.beta, torch.tensor([0.1, 0.2, 0.3, 0.4]))
    expected = torch.tensor([0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.7, 0.9 * 0.8 * 0.7 * 0.6])
    torch.testing.assert_close(schedule.abar, expected)


def test_linear_default_is_the_usual_one_at_1000_steps_and_noises_fully_at_any_number():
    schedule = NoiseSchedule(1000)
    assert schedule.beta[0].item() == pytest.approx(1e-4)
    assert schedule.beta[-1].item() == pytest.approx(0.02)
    for steps in (10, 50, 200, 1000):
        assert 0 < NoiseSchedule(steps).abar[-1] < 1e-4


def test_cosine_schedule_follows_the_squared_cosine():
    schedule = NoiseSchedule(50, "cosine")

    def curve(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    expected = torch.tensor([curve((t + 1) / 50) / curve(0) for t in range(49)])
    torch.testing.assert_close(schedule.abar[:-1], expected)
    assert 0 < schedule.abar[-1] < 1e-4
    assert (schedule.abar.diff() < 0).all()


@pytest.mark.parametrize("shape", [(3,), (5, 2), (1, 4, 4)])
def test_forward_noise_inverts_with_a_step_per_sample(shape):
    generator = torch.Generator().manual_seed(0)
    schedule = NoiseSchedule(10, beta_start=0.05, beta_end=0.3)
    x, noise = (torch.randn(4, *shape, generator=generator) for _ in range(2))
    t = torch.tensor([0, 3, 9, 3])
    x_t = schedule.q(x, t, noise)
    for row in range(4):
        abar = schedule.abar[t[row]]
        torch.testing.assert_close(x_t[row], abar.sqrt() * x[row] + (1 - abar).sqrt() * noise[row])
    torch.testing.assert_close(schedule.x0(x_t, t, noise), x, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(schedule.eps(x_t, t, x), noise, atol=1e-5, rtol=1e-5)
    to = torch.tensor([-1, 5, 2, -1])
    moved = schedule.ddim(x_t, t, to, noise)
    expected = schedule.q(x, to.clamp_min(0), noise)
    expected[[0, 3]] = x[[0, 3]]
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=1e-5)


def test_posterior_equals_the_product_of_gaussians():
    schedule = NoiseSchedule(10, beta_start=0.05, beta_end=0.3)
    x0, x_t = torch.tensor([[0.7], [0.7]]), torch.tensor([[-0.4], [-0.4]])
    mean, variance = schedule.posterior(x_t, torch.tensor([6, 0]), x0)
    beta, before = schedule.beta[6], schedule.abar[5]
    # prior N(sqrt(before) x0, 1 - before), likelihood N(x_t; sqrt(1 - beta) x, beta)
    precision = 1 / (1 - before) + (1 - beta) / beta
    centre = before.sqrt() * 0.7 / (1 - before) + (1 - beta).sqrt() * -0.4 / beta
    torch.testing.assert_close(variance[0, 0], 1 / precision)
    torch.testing.assert_close(mean[0, 0], centre / precision)
    assert mean[1, 0] == x0[1, 0]
    assert variance[1, 0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps: found 0"),
        ({"steps": 5, "kind": "square"}, "kind: found 'square'"),
        ({"steps": 5, "beta_start": 0.0}, "beta_start: found 0.0"),
        ({"steps": 5, "beta_end": 1.0}, "beta_end: found 1.0"),
    ],
)
def test_schedule_refuses_wrong_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        NoiseSchedule(**arguments)


@pytest.mark.parametrize("dim", [2, 7, 16])
def test_time_embedding_separates_times(dim):
    net = TimeEmbedding(dim)
    out = net(torch.arange(50))
    assert out.shape == (50, dim)
    torch.testing.assert_close(out[:, 0], torch.arange(50).float().sin())
    assert torch.pdist(out).min() > 1e-3 or dim == 2
    assert net(torch.zeros(2, 3)).shape == (2, 3, dim)
    assert not net.state_dict()


def test_fourier_features_give_a_shift_invariant_kernel():
    net = FourierFeatures(2, 4000, scale=0.3, generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor([0.3, -0.2]), torch.tensor([0.9, 0.1])
    kernel = (net(x) @ net(y) / 2000).item()
    expected = math.exp(-0.5 * (2 * math.pi * 0.3) ** 2 * (x - y).square().sum().item())
    assert kernel == pytest.approx(expected, abs=0.05)
    assert net(x) @ net(y) == pytest.approx((net(x + 5) @ net(y + 5)).item(), rel=1e-2)


def test_embeddings_refuse_wrong_sizes():
    with pytest.raises(InputError, match="dim: found 1"):
        TimeEmbedding(1)
    for size in (0, 3):
        with pytest.raises(InputError, match=f"out_dim: found {size}"):
            FourierFeatures(2, size)
