from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from genad.nn import gaussian_log_prob
from genad.nn.robust_divergence import log_power_integral, robust_divergence


@pytest.mark.parametrize(("std", "power"), [(1.0, 2.0), (0.3, 1.5), (2.0, 0.4)])
def test_integral_of_a_power_of_the_density(std, power):
    area = quad(lambda v: norm(0, std).pdf(v) ** power, -np.inf, np.inf)[0]
    assert float(log_power_integral(torch.tensor(std), power)) == pytest.approx(np.log(area), rel=1e-5)


def values():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 7, 3, generator=generator)
    mean = torch.randn(5, 7, 3, generator=generator)
    std = torch.rand(5, 7, 3, generator=generator) + 0.5
    return x, mean, std


def test_each_divergence_equals_its_formula():
    x, mean, std = values()
    log_p = gaussian_log_prob(x, mean, std)
    p = log_p.sum(-1).double().exp().numpy()
    area = np.exp(log_power_integral(std, 1.3).sum(-1).double().numpy())
    s = 0.3
    expected = {
        "kl": -np.log(p).mean(),
        "alpha": -np.log((p**s).mean()) / s,
        "beta": (-(1 + s) / s * (p**s - 1) + area).mean(),
        "gamma": -np.log((p**s / area ** (s / (1 + s))).mean()) / s,
    }
    for kind, value in expected.items():
        assert float(robust_divergence(kind, log_p, std, s)) == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("kind", ["alpha", "beta", "gamma"])
def test_near_strength_zero_all_pull_as_the_likelihood_does(kind):
    x, mean, std = values()
    mean, std = mean.requires_grad_(), std.requires_grad_()
    pulls = []
    for which, strength in (("kl", 0.5), (kind, 1e-4)):
        loss = robust_divergence(which, gaussian_log_prob(x, mean, std), std, strength)
        pulls.append(torch.autograd.grad(loss, (mean, std)))
    torch.testing.assert_close(pulls[1], pulls[0], atol=2e-4, rtol=1e-2)


@pytest.mark.parametrize("kind", ["alpha", "beta", "gamma"])
def test_outliers_are_weighed_step_by_step(kind):
    x = torch.zeros(1, 10, 1)
    x[0, 3] = 10.0
    mean = torch.zeros(1, 10, 1) + 0.1
    mean.requires_grad_()
    std = torch.ones(1, 10, 1)
    (pull,) = torch.autograd.grad(robust_divergence(kind, gaussian_log_prob(x, mean, std), std, 0.5), mean)
    assert abs(float(pull[0, 3])) < 1e-6
    # one weight for the whole batch would let the outlier silence its neighbours too
    assert (pull[0, [0, 9], 0] > 1e-3).all()


@pytest.mark.parametrize("kind", ["beta", "gamma"])
def test_scale_and_centre_are_found_despite_contamination(kind):
    rng = np.random.default_rng(0)
    x = torch.from_numpy(np.r_[rng.normal(2, 0.5, 900), np.full(100, 12.0)]).float()[:, None]
    mean, raw = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam([mean, raw], lr=0.05)
    for _ in range(300):
        std = raw.exp().expand_as(x)
        optimizer.zero_grad()
        robust_divergence(kind, gaussian_log_prob(x, mean, std), std, 0.5).backward()
        optimizer.step()
    assert mean.item() == pytest.approx(2.0, abs=0.1)
    assert raw.exp().item() == pytest.approx(0.5, abs=0.1)
