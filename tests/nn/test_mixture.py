from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import special, stats

from genad.errors import InputError, TrainingError
from genad.nn import covariance_penalty, mixture_energy, mixture_parameters


def _mixture(seed: int = 0, k: int = 3, d: int = 4):
    rng = np.random.default_rng(seed)
    phi = rng.dirichlet(np.ones(k))
    mu = 2 * rng.normal(size=(k, d))
    root = rng.normal(size=(k, d, d))
    return rng, phi, mu, root @ root.transpose(0, 2, 1) + 0.1 * np.eye(d)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_energy_is_minus_the_log_density_of_scipy(d):
    rng, phi, mu, sigma = _mixture(d=d)
    z = 3 * rng.normal(size=(40, d))
    logs = [stats.multivariate_normal(m, s).logpdf(z) for m, s in zip(mu, sigma, strict=True)]
    expected = -special.logsumexp(np.stack(logs) + np.log(phi)[:, None], axis=0)
    tensors = [torch.from_numpy(a) for a in (z, phi, mu, sigma)]
    np.testing.assert_allclose(mixture_energy(*tensors, eps=0.0).numpy(), expected, rtol=1e-9)


def test_energy_scales_with_the_square_root_of_the_determinant():
    # one component at its own mean: 0.5 log det(2 pi sigma)
    sigma = torch.diag(torch.tensor([4.0, 9.0, 16.0]))[None]
    energy = mixture_energy(torch.zeros(1, 3), torch.ones(1), torch.zeros(1, 3), sigma, eps=0.0)
    expected = 1.5 * np.log(2 * np.pi) + np.log(2 * 3 * 4)
    assert energy.item() == pytest.approx(expected, rel=1e-6)


def test_hard_memberships_give_the_moments_of_each_cluster():
    rng = np.random.default_rng(1)
    z = rng.normal(size=(30, 3))
    label = np.arange(30) % 2
    gamma = np.eye(2)[label]
    phi, mu, sigma = mixture_parameters(torch.from_numpy(z), torch.from_numpy(gamma))
    np.testing.assert_allclose(phi.numpy(), [0.5, 0.5])
    for k in range(2):
        np.testing.assert_allclose(mu[k].numpy(), z[label == k].mean(0))
        np.testing.assert_allclose(sigma[k].numpy(), np.cov(z[label == k].T, bias=True))


def test_soft_memberships_give_weighted_moments():
    rng = np.random.default_rng(2)
    z, gamma = rng.normal(size=(20, 2)), rng.dirichlet(np.ones(3), size=20)
    phi, mu, sigma = mixture_parameters(torch.from_numpy(z), torch.from_numpy(gamma))
    np.testing.assert_allclose(phi.numpy(), gamma.mean(0))
    for k in range(3):
        np.testing.assert_allclose(mu[k].numpy(), np.average(z, axis=0, weights=gamma[:, k]))
        expected = np.cov(z.T, aweights=gamma[:, k], bias=True)
        np.testing.assert_allclose(sigma[k].numpy(), expected)


def test_empty_components_and_constant_points_stay_finite_with_gradients():
    z = torch.ones(5, 2, requires_grad=True)
    gamma = torch.tensor([[1.0, 0.0]]).repeat(5, 1).requires_grad_()
    phi, mu, sigma = mixture_parameters(z, gamma)
    energy = mixture_energy(z, phi, mu, sigma, eps=1e-6)
    assert torch.isfinite(energy).all()
    (energy.sum() + covariance_penalty(sigma)).backward()
    assert torch.isfinite(z.grad).all()
    assert torch.isfinite(gamma.grad).all()


def test_far_points_have_a_finite_energy_with_the_right_growth():
    one = torch.ones(1)
    energy = mixture_energy(torch.tensor([[1e6]]), one, torch.zeros(1, 1), torch.ones(1, 1, 1), eps=0.0)
    assert energy.item() == pytest.approx(0.5e12, rel=1e-6)


def test_gradients_of_the_energy_are_right():
    _, phi, mu, sigma = _mixture(d=2)
    z = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    tensors = [t.requires_grad_() for t in (z, *(torch.from_numpy(a) for a in (phi, mu, sigma)))]

    def energy(z, phi, mu, sigma):
        # the factorisation reads one triangle: only symmetric changes of sigma are changes
        return mixture_energy(z, phi, mu, (sigma + sigma.transpose(1, 2)) / 2, eps=1e-3)

    assert torch.autograd.gradcheck(energy, tensors)


def test_covariance_penalty_sums_the_inverse_diagonals():
    sigma = torch.stack([torch.diag(torch.tensor([1.0, 2.0])), torch.full((2, 2), 4.0)])
    assert covariance_penalty(sigma, eps=0.0).item() == pytest.approx(1 + 0.5 + 0.25 + 0.25)
    assert covariance_penalty(torch.zeros(1, 1, 1), eps=0.5).item() == 2.0


def test_indefinite_covariance_is_refused_with_the_mend():
    one = torch.ones(1)
    for bad in (-1.0, float("nan")):
        with pytest.raises(TrainingError, match=r"sigma: .*eps=1e-06.*Raise eps"):
            mixture_energy(torch.zeros(1, 1), one, torch.zeros(1, 1), bad * torch.ones(1, 1, 1))


@pytest.mark.parametrize(("z", "gamma"), [((3, 2), (4, 2)), ((3,), (3, 2)), ((3, 2), (3,)), ((0, 2), (0, 1))])
def test_mismatched_memberships_are_refused(z, gamma):
    with pytest.raises(InputError, match="gamma: found shape"):
        mixture_parameters(torch.zeros(z), torch.zeros(gamma))
