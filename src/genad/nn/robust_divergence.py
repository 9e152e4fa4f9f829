"""Robust divergences of a Gaussian decoder from single observations: alpha, beta and gamma."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from genad.nn.gaussian import HALF_LOG_TWO_PI

Divergence = Literal["kl", "alpha", "beta", "gamma"]


def log_power_integral(std: Tensor, power: float) -> Tensor:
    """Return log of the integral of N(mean, std)^power over one value, in nats.

    Parameters
    ----------
    std : Tensor
        Standard deviations, above 0.
    power : float
        Above 0.

    Examples
    --------
    >>> round(float(log_power_integral(torch.tensor(1.0), 2.0)), 4)  # 1 / (2 sqrt(pi))
    -1.2655
    """
    return (1.0 - power) * (torch.log(std) + HALF_LOG_TWO_PI) - 0.5 * math.log(power)


def robust_divergence(kind: Divergence, log_p: Tensor, std: Tensor, strength: float) -> Tensor:
    """Return how far observations are from the Gaussians expected of them, outliers counted less; one mean, in nats.

    An observation stands for a point mass, so terms of the data alone are constants and left out. As ``strength``
    goes to 0 each divergence goes to the negative log-likelihood, up to a constant. What an observation pulls with,
    compared with plain likelihood, is ``p^strength`` (beta) or that as a share of its sum over all observations
    (alpha, gamma), so one that is very unlikely pulls with nothing. One observation is one step of one window.

    Parameters
    ----------
    kind : {"kl", "alpha", "beta", "gamma"}
        ``kl`` is the negative log-likelihood itself, and ignores ``strength``. ``alpha`` is the divergence of order
        ``1 - strength``.
    log_p : Tensor of shape (..., C)
        Log-density of each value; the last axis holds the values of one observation.
    std : Tensor of shape (..., C)
        Standard deviations of the same Gaussians. A value that does not count has log-density 0 and std
        ``1 / sqrt(2 pi)``, so that beta and gamma see a density of about 1 there.
    strength : float
        Above 0, and below 1 for alpha.

    Returns
    -------
    Tensor
        A scalar.

    References
    ----------
    Basu, Harris, Hjort and Jones (1998), Robust and efficient estimation by minimising a density power divergence,
    Biometrika.
    Fujisawa and Eguchi (2008), Robust parameter estimation with a small bias against heavy contamination, Journal of
    Multivariate Analysis.

    Examples
    --------
    An outlier of eight standard deviations hardly counts beside a normal value, but not so for the likelihood.

    >>> x = torch.tensor([[0.0], [8.0]], requires_grad=True)
    >>> std = torch.ones(2, 1)
    >>> for kind in ("kl", "beta"):
    ...     log_p = -0.5 * x**2 - 0.9189
    ...     (pull,) = torch.autograd.grad(robust_divergence(kind, log_p, std, 0.5), x)
    ...     print(kind, round(float(pull[1]), 4))
    kl 4.0
    beta 0.0
    """
    joint = log_p.sum(-1)
    if kind == "kl":
        return -joint.mean()
    if kind == "alpha":
        return -_log_mean_exp(strength * joint) / strength
    whole = log_power_integral(std, 1.0 + strength).sum(-1)
    if kind == "gamma":
        return -_log_mean_exp(strength * joint - strength / (1.0 + strength) * whole) / strength
    # Less 1, so that what is left near strength 0 is the likelihood and not 1 / strength.
    return (-(1.0 + strength) / strength * torch.expm1(strength * joint) + torch.exp(whole)).mean()


def _log_mean_exp(values: Tensor) -> Tensor:
    flat = values.flatten()
    return torch.logsumexp(flat, 0) - math.log(flat.numel())
