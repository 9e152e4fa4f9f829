"""Gaussian mixtures in closed form from soft memberships, and their energy."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genad.errors import InputError, TrainingError

# an empty component has no mass; its square must not underflow in the gradient of the division
SMALLEST_MASS = 1e-10


def mixture_parameters(z: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute weights, means and covariances of a mixture from soft memberships.

    This is one maximisation step of expectation maximisation; it is differentiable in both
    arguments.

    Parameters
    ----------
    z : torch.Tensor
        Points ``(N, D)``.
    gamma : torch.Tensor
        Memberships ``(N, K)``; each row sums to 1.

    Returns
    -------
    phi : torch.Tensor
        Weights ``(K,)``, float64.
    mu : torch.Tensor
        Means ``(K, D)``, float64.
    sigma : torch.Tensor
        Covariances ``(K, D, D)``, float64, each around its own mean. They may be singular.

    Raises
    ------
    InputError
        If the two arguments do not have the same number of rows.

    References
    ----------
    Zong et al. (2018), Deep autoencoding Gaussian mixture model for unsupervised anomaly
    detection, ICLR, equation 5.

    Examples
    --------
    >>> phi, mu, sigma = mixture_parameters(torch.tensor([[0.0], [2.0]]), torch.ones(2, 1))
    >>> phi.tolist(), mu.tolist(), sigma.tolist()
    ([1.0], [[1.0]], [[[1.0]]])
    """
    if z.ndim != 2 or gamma.ndim != 2 or len(z) != len(gamma) or len(z) == 0:
        msg = (
            f"gamma: found shape {tuple(gamma.shape)} for points of shape {tuple(z.shape)}; "
            "accepted are points (N, D) and memberships (N, K) with the same N of at least 1."
        )
        raise InputError(msg)
    z, gamma = z.double(), gamma.double()
    mass = gamma.sum(0)
    safe = mass.clamp_min(SMALLEST_MASS)
    mu = (gamma.T @ z) / safe.unsqueeze(-1)
    centred = z.unsqueeze(0) - mu.unsqueeze(1)  # (K, N, D)
    weighted = centred * gamma.T.unsqueeze(-1)
    sigma = weighted.transpose(1, 2) @ centred / safe[:, None, None]
    return mass / len(z), mu, sigma


def mixture_energy(z: Tensor, phi: Tensor, mu: Tensor, sigma: Tensor, eps: float = 1e-6) -> Tensor:
    """Return the energy of points under a Gaussian mixture: the negative log-density in nats.

    Computed in float64 from Cholesky factors with a log-sum-exp over the components, so neither a
    tiny determinant nor a far point overflows.

    Parameters
    ----------
    z : torch.Tensor
        Points ``(N, D)``.
    phi, mu, sigma : torch.Tensor
        Weights ``(K,)``, means ``(K, D)``, covariances ``(K, D, D)``.
    eps : float, default=1e-6
        Added to the diagonal of every covariance.

    Returns
    -------
    torch.Tensor
        Energies ``(N,)`` in the type of ``z``.

    Raises
    ------
    TrainingError
        If a covariance plus ``eps`` is not positive definite or not finite.

    Examples
    --------
    >>> one = torch.ones(1)
    >>> mixture_energy(torch.zeros(1, 1), one, torch.zeros(1, 1), torch.ones(1, 1, 1), eps=0.0)
    tensor([0.9189])
    """
    dim = z.shape[-1]
    phi, mu, sigma = phi.double(), mu.double(), sigma.double()
    eye = torch.eye(dim, dtype=torch.float64, device=z.device)
    factor, info = torch.linalg.cholesky_ex(sigma + eps * eye)
    if bool((info != 0).any()) or not bool(torch.isfinite(factor).all()):
        msg = (
            f"sigma: a covariance plus eps={eps:g} on its diagonal is not positive definite; "
            "accepted are finite, positive semi-definite matrices. Raise eps, or use fewer "
            "components."
        )
        raise TrainingError(msg)
    centred = (z.double().unsqueeze(0) - mu.unsqueeze(1)).transpose(1, 2)  # (K, D, N)
    white = torch.linalg.solve_triangular(factor, centred, upper=False)
    log_det_half = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_weight = phi.clamp_min(torch.finfo(torch.float64).tiny).log()
    constant = log_weight - log_det_half - 0.5 * dim * math.log(2 * math.pi)
    log_joint = constant.unsqueeze(-1) - 0.5 * white.square().sum(1)
    return -torch.logsumexp(log_joint, dim=0).to(z.dtype)


def covariance_penalty(sigma: Tensor, eps: float = 1e-6) -> Tensor:
    """Return the sum of the inverse diagonal entries: large when a component collapses.

    Parameters
    ----------
    sigma : torch.Tensor
        Covariances ``(K, D, D)``.
    eps : float, default=1e-6
        Added to the diagonal, as in `mixture_energy`.

    Returns
    -------
    torch.Tensor
        A scalar.

    Examples
    --------
    >>> covariance_penalty(2 * torch.eye(3).expand(2, 3, 3), eps=0.0)
    tensor(3.)
    """
    return (1.0 / (sigma.diagonal(dim1=-2, dim2=-1) + eps)).sum()
