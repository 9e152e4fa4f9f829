from __future__ import annotations

import math

import numpy as np
import torch
from scipy import integrate, stats

from genad.nn import DiagGaussianHead, gaussian_log_prob, kl_normal_normal, kl_to_standard_normal


def test_log_prob_equals_scipy():
    rng = np.random.default_rng(0)
    x, mean, std = rng.normal(size=50), rng.normal(size=50), rng.uniform(0.1, 3, size=50)
    ours = gaussian_log_prob(*(torch.from_numpy(a) for a in (x, mean, std)))
    np.testing.assert_allclose(ours.numpy(), stats.norm(mean, std).logpdf(x), rtol=1e-12)


def test_log_prob_may_be_positive():
    zero = torch.zeros(())
    assert gaussian_log_prob(zero, zero, torch.tensor(0.01)) > 0


def test_kl_equals_the_integral():
    q, p = stats.norm(0.4, 0.7), stats.norm(-1.0, 1.5)
    expected = integrate.quad(lambda x: q.pdf(x) * (q.logpdf(x) - p.logpdf(x)), -8, 8)[0]
    args = [torch.tensor(v, dtype=torch.float64) for v in (0.4, 0.7, -1.0, 1.5)]
    assert math.isclose(kl_normal_normal(*args).item(), expected, rel_tol=1e-8)


def test_kl_to_standard_normal_is_the_special_case_and_zero_only_there():
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(5, 3, generator=generator)
    std = torch.rand(5, 3, generator=generator) + 0.1
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, std), torch.distributions.Normal(0.0, 1.0)
    )
    torch.testing.assert_close(kl_to_standard_normal(mean, std), expected)
    zero, one = torch.zeros_like(mean), torch.ones_like(mean)
    torch.testing.assert_close(kl_normal_normal(mean, std, zero, one), expected)
    assert (kl_to_standard_normal(zero, one) == 0).all()
    assert (kl_to_standard_normal(mean, std) > 0).all()


def test_head_keeps_the_floor_and_passes_gradients():
    head = DiagGaussianHead(4, 2, min_std=0.05)
    with torch.no_grad():
        head.linear.bias[2:] = -200.0
        head.linear.weight.zero_()
    mean, std = head(torch.ones(3, 4))
    assert mean.shape == std.shape == (3, 2)
    torch.testing.assert_close(std, torch.full((3, 2), 0.05))
    with torch.no_grad():
        head.linear.bias[2:] = 0.0
    mean, std = head(torch.ones(3, 4))
    torch.testing.assert_close(std, torch.full((3, 2), math.log(2) + 0.05))
    (mean.sum() + std.sum()).backward()
    assert (head.linear.bias.grad != 0).all()
