"""Diagonal Gaussians: a network head, log-densities and divergences, all elementwise in nats."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class DiagGaussianHead(nn.Module):
    """Map features to the mean and standard deviation of a diagonal Gaussian.

    The standard deviation is ``softplus(raw) + min_std``, so it never reaches 0 and grows only
    linearly with the raw output.

    Parameters
    ----------
    in_dim : int
        Length of the features.
    out_dim : int
        Dimensions of the Gaussian.
    min_std : float, default=1e-4
        Smallest standard deviation.

    Examples
    --------
    >>> head = DiagGaussianHead(8, 3)
    >>> mean, std = head(torch.zeros(5, 8))
    >>> mean.shape, bool((std > 1e-4).all())
    (torch.Size([5, 3]), True)
    """

    def __init__(self, in_dim: int, out_dim: int, min_std: float = 1e-4) -> None:
        super().__init__()
        self.linear = nn.Linear(in_dim, 2 * out_dim)
        self.min_std = min_std

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``(..., in_dim)`` to mean and standard deviation, each ``(..., out_dim)``."""
        mean, raw = self.linear(features).chunk(2, dim=-1)
        return mean, F.softplus(raw) + self.min_std


def gaussian_log_prob(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return the log-density of each value under its own Gaussian, in nats.

    Parameters
    ----------
    x, mean, std : torch.Tensor
        Values, means and standard deviations (above 0); they broadcast.

    Returns
    -------
    torch.Tensor
        One log-density per value. It can be positive: it is a density.

    Examples
    --------
    >>> round(gaussian_log_prob(torch.tensor(0.0), torch.tensor(0.0), torch.tensor(1.0)).item(), 4)
    -0.9189
    """
    z = (x - mean) / std
    return -0.5 * z * z - torch.log(std) - HALF_LOG_TWO_PI


def least_nll(min_std: float) -> float:
    """Return the least negative log-density of a value, in nats: at the mean, under the smallest standard deviation.

    Examples
    --------
    >>> round(least_nll(0.1), 4)
    -1.3836
    """
    return math.log(min_std * math.sqrt(2 * math.pi))


def kl_to_standard_normal(mean: Tensor, std: Tensor) -> Tensor:
    """Return the divergence KL(N(mean, std) || N(0, 1)) of each dimension, in nats.

    Parameters
    ----------
    mean, std : torch.Tensor
        Means and standard deviations (above 0).

    Returns
    -------
    torch.Tensor
        One value of at least 0 per dimension; sum over the dimensions for the joint divergence.

    Examples
    --------
    >>> kl_to_standard_normal(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0]))
    tensor([0.0000, 0.5000])
    """
    return 0.5 * (mean * mean + std * std - 1.0) - torch.log(std)


def kl_normal_normal(mean_q: Tensor, std_q: Tensor, mean_p: Tensor, std_p: Tensor) -> Tensor:
    """Return the divergence KL(N(mean_q, std_q) || N(mean_p, std_p)) per dimension, in nats.

    Parameters
    ----------
    mean_q, std_q : torch.Tensor
        The distribution the expectation is taken under (the posterior of a VAE).
    mean_p, std_p : torch.Tensor
        The reference (the prior).

    Returns
    -------
    torch.Tensor
        One value of at least 0 per dimension.

    Examples
    --------
    >>> one, two = torch.tensor(1.0), torch.tensor(2.0)
    >>> round(kl_normal_normal(one, one, one, two).item(), 4)
    0.3181
    """
    ratio = std_q / std_p
    shift = (mean_q - mean_p) / std_p
    return 0.5 * (ratio * ratio + shift * shift - 1.0) - torch.log(ratio)
