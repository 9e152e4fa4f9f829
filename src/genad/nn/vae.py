"""Variational autoencoder: a Gaussian encoder and decoder, and importance-weighted draws from the posterior."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.nn.backbone import Backbone, decoder, encoder, for_tables
from genad.nn.gaussian import HALF_LOG_TWO_PI, gaussian_log_prob, kl_to_standard_normal

_TABLE = Backbone("mlp", hidden=(128, 128), activation="tanh")


class VAENet(nn.Module):
    """Gaussian encoder, Gaussian decoder, and the fixed noise they are scored with.

    Parameters
    ----------
    encode : nn.Module
        ``(B, *shape) -> (B, 2 * latent)``.
    decode : nn.Module
        ``(B, latent) -> (B, 2, *shape)``.
    latent : int
        Dimensions of the code.
    draws : int
        Rows of the noise bank.
    min_std : float
        Smallest standard deviation of the decoder.
    """

    noise: Tensor

    def __init__(self, encode: nn.Module, decode: nn.Module, latent: int, draws: int, min_std: float) -> None:
        super().__init__()
        self.encode, self.decode, self.min_std = encode, decode, min_std
        self.register_buffer("noise", torch.randn(draws, latent))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of q(z | x), each (B, latent)."""
        return code_gaussian(self.encode(x))

    def likelihood(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of p(x | z), each (B, *shape)."""
        mean, raw = self.decode(z).unbind(1)
        return mean, F.softplus(raw) + self.min_std

    def generate(self, n: int) -> Tensor:
        """Draw codes from the prior, and samples (n, *shape) from the decoder's distributions."""
        mu, sigma = self.likelihood(torch.randn(n, self.noise.shape[1], device=self.noise.device))
        drawn: Tensor = mu + sigma * torch.randn_like(mu)
        return drawn


def code_gaussian(encoded: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and standard deviation, each (B, latent), that an encoder put out as (B, 2 * latent).

    Examples
    --------
    >>> mean, std = code_gaussian(torch.zeros(1, 4))
    >>> mean.shape, round(std[0, 0].item(), 3)
    (torch.Size([1, 2]), 0.313)
    """
    mean, raw = encoded.chunk(2, dim=-1)
    # Starting narrow lets the code carry information from the first update on.
    return mean, F.softplus(raw - 1.0) + 1e-4


def gaussian_vae(
    shape: Sequence[int], latent: int, backbone: Backbone | str | None, draws: int, min_std: float
) -> VAENet:
    """Build an untrained variational autoencoder of samples of a shape, its noise bank drawn.

    Parameters
    ----------
    shape : sequence of int
        Shape of one sample.
    latent : int
        Dimensions of the code.
    backbone : Backbone, str or None
        Which networks; None chooses by the shape.
    draws : int
        Rows of the noise bank.
    min_std : float
        Smallest standard deviation of the decoder.

    Returns
    -------
    VAENet

    Examples
    --------
    >>> net = gaussian_vae((5,), 3, None, draws=8, min_std=0.1)
    >>> mean, std = net.posterior(torch.zeros(2, 5))
    >>> mean.shape, net.likelihood(mean)[1].shape
    (torch.Size([2, 3]), torch.Size([2, 5]))
    """
    spec = for_tables(shape, backbone, _TABLE)
    return VAENet(encoder(shape, 2 * latent, spec), decoder(shape, latent, spec, heads=2), latent, draws, min_std)


def log_ratio(z: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return ``log N(z; 0, I) - log N(z; mean, diag std^2)`` in nats, summed over the last axis.

    Parameters
    ----------
    z, mean, std : Tensor of shape (..., latent)
        Codes, and the Gaussian they were drawn from; they broadcast.

    Examples
    --------
    >>> log_ratio(torch.zeros(3), torch.zeros(3), torch.ones(3)).item()
    0.0
    """
    return (0.5 * (((z - mean) / std).square() - z.square()) + torch.log(std)).sum(-1)


def log_weights(
    net: VAENet, x: Tensor, z: Tensor, mean: Tensor, std: Tensor, total: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return ``log p(x, z) - log q(z | x)`` of several codes a sample, in nats, all decoded at once.

    Parameters
    ----------
    net : VAENet
    x : Tensor of shape (B, *shape)
        Samples.
    z : Tensor of shape (K, B, latent)
        Codes.
    mean, std : Tensor of shape (B, latent)
        The Gaussians they were drawn from.
    total : callable
        Log-densities of values ``(B, *shape)`` to those of samples ``(B,)``; a batch's ``sample_sum``.

    Returns
    -------
    Tensor of shape (K, B)

    Examples
    --------
    >>> net = gaussian_vae((5,), 3, None, draws=8, min_std=0.1)
    >>> x, z = torch.zeros(2, 5), torch.zeros(4, 2, 3)
    >>> log_weights(net, x, z, *net.posterior(x), lambda values: values.sum(1)).shape
    torch.Size([4, 2])
    """
    mu, sigma = (part.unflatten(0, z.shape[:2]) for part in net.likelihood(z.flatten(0, 1)))
    likelihoods = [total(found) for found in gaussian_log_prob(x, mu, sigma)]
    return torch.stack(likelihoods) + log_ratio(z, mean, std)


def log_mean_exp(log_weights: Tensor) -> Tensor:
    """Return ``log mean exp`` over the last axis: the importance-weighted bound of log-weights ``(B, K)``.

    Examples
    --------
    >>> log_mean_exp(torch.tensor([[0.0, math.log(3.0)]])).exp()
    tensor([2.])
    """
    return torch.logsumexp(log_weights, -1) - math.log(log_weights.shape[-1])


@dataclass
class PosteriorDraws:
    """Codes drawn from posteriors, and what they say of the samples.

    Attributes
    ----------
    mean, std : Tensor of shape (B, latent)
        The posteriors.
    log_weights : Tensor of shape (B, K)
        ``log p(x, z_k) - log q(z_k | x)``.
    log_likelihoods : Tensor of shape (B, K)
        ``log p(x | z_k)``.
    nll : Tensor of shape (B, *shape), or None
        Negative log-density of every value, averaged over the draws by their weights.
    restored : Tensor of shape (B, *shape), or None
        Mean of the decoder, averaged alike.
    """

    mean: Tensor
    std: Tensor
    log_weights: Tensor
    log_likelihoods: Tensor
    nll: Tensor | None = None
    restored: Tensor | None = None

    @property
    def bound(self) -> Tensor:
        """Importance-weighted bound of log p(x) in nats, (B,): no looser in expectation the more draws there are."""
        return log_mean_exp(self.log_weights)

    @property
    def reconstruction(self) -> Tensor:
        """Expected log p(x | z) under the posterior, in nats, (B,)."""
        return self.log_likelihoods.mean(1)

    @property
    def divergence(self) -> Tensor:
        """Divergence of the posterior from the prior in nats, (B,)."""
        return kl_to_standard_normal(self.mean, self.std).sum(1)

    @property
    def evidence(self) -> Tensor:
        """Evidence lower bound of log p(x) in nats, its divergence in closed form, (B,)."""
        return self.reconstruction - self.divergence

    @property
    def entropy(self) -> Tensor:
        """Entropy of the posterior in nats, (B,)."""
        return (torch.log(self.std) + 0.5 + HALF_LOG_TWO_PI).sum(1)


def draw_posterior(
    net: VAENet,
    x: Tensor,
    mean: Tensor,
    std: Tensor,
    total: Callable[[Tensor], Tensor],
    *,
    values: bool = False,
) -> PosteriorDraws:
    """Draw a code a row of the noise bank from Gaussians over codes, and weigh each against the joint density.

    Every sample meets the same noise. One draw is decoded at a time, so that memory does not grow with their number.

    Parameters
    ----------
    net : VAENet
    x : Tensor of shape (B, *shape)
        Samples.
    mean, std : Tensor of shape (B, latent)
        The Gaussians: the encoder's posteriors, or others that stand in for them.
    total : callable
        Log-densities of values ``(B, *shape)`` to those of samples ``(B,)``; a batch's ``sample_sum``.
    values : bool, default=False
        Whether averages by value are wanted too.

    Returns
    -------
    PosteriorDraws

    Examples
    --------
    >>> net = gaussian_vae((5,), 3, None, draws=8, min_std=0.1)
    >>> x = torch.zeros(2, 5)
    >>> draws = draw_posterior(net, x, *net.posterior(x), lambda values: values.sum(1))
    >>> draws.log_weights.shape, bool((draws.bound >= draws.log_weights.mean(1)).all())
    (torch.Size([2, 8]), True)
    """
    weights, likelihoods = [], []
    row = (-1, *[1] * (x.ndim - 1))
    nll, restored = torch.zeros_like(x), torch.zeros_like(x)
    peak = torch.full_like(mean[:, 0], -torch.inf)
    share = torch.zeros_like(peak)
    for noise in net.noise:
        z = mean + std * noise
        mu, sigma = net.likelihood(z)
        found = gaussian_log_prob(x, mu, sigma)
        likelihoods.append(total(found))
        weights.append(likelihoods[-1] + log_ratio(z, mean, std))
        if values:
            # Averages under weights relative to the largest met so far: nothing overflows, nothing is kept.
            highest = torch.maximum(peak, weights[-1])
            old, new = torch.exp(peak - highest), torch.exp(weights[-1] - highest)
            nll = old.view(row) * nll - new.view(row) * found
            restored = old.view(row) * restored + new.view(row) * mu
            peak, share = highest, old * share + new
    # A sample's draws side by side: their sum is then the same whatever samples come along.
    drawn = PosteriorDraws(mean, std, torch.stack(weights, 1), torch.stack(likelihoods, 1))
    if values:
        drawn.nll, drawn.restored = nll / share.view(row), restored / share.view(row)
    return drawn
