"""OmniAnomaly: a variational autoencoder of series whose latent variables form a chain."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.core.parameters import check_whole
from genad.core.registry import Card, Family, register
from genad.core.training import Training
from genad.data.kinds import Kind
from genad.data.samples import Batch
from genad.nn import DiagGaussianHead, PlanarFlow, gaussian_log_prob
from genad.nn.flow import SHIFT
from genad.nn.gaussian import HALF_LOG_TWO_PI
from genad.reconstruction.vae.steps import Gaussian, PathVAE


class RandomWalkPrior(nn.Module):
    """Linear-Gaussian state-space prior with identity transition and observation.

    A hidden walk ``s_t = s_{t-1} + v_t`` from ``s_0 = 0`` is observed as ``z_t = s_t + e_t``, all
    noises standard normal. Over a window the z of each dimension are jointly normal with
    covariance ``min(s, t) + [s = t]``; its inverse Cholesky factor turns them into the whitened
    innovations that a Kalman filter would compute one by one.

    Parameters
    ----------
    steps : int
        Length T of the windows.

    Examples
    --------
    >>> RandomWalkPrior(1).log_prob(torch.zeros(1, 1, 1))  # one step: N(0, 2)
    tensor([-1.2655])
    """

    whiten: Tensor
    log_scale: Tensor

    def __init__(self, steps: int) -> None:
        super().__init__()
        t = torch.arange(1, steps + 1, dtype=torch.float64)
        covariance = torch.minimum(t, t.unsqueeze(1)) + torch.eye(steps, dtype=torch.float64)
        factor = torch.linalg.cholesky(covariance)
        eye = torch.eye(steps, dtype=torch.float64)
        whiten = torch.linalg.solve_triangular(factor, eye, upper=False)
        self.register_buffer("whiten", whiten.float())
        self.register_buffer("log_scale", factor.diagonal().log().sum().float())

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log p(z_1..T) of paths (B, T, d), in nats, (B,)."""
        innovations = torch.einsum("ts,bsd->btd", self.whiten, z)
        steps, dims = z.shape[1:]
        constant = dims * (steps * HALF_LOG_TWO_PI + self.log_scale)
        return -0.5 * innovations.square().sum((1, 2)) - constant


class ChainedFlow(PlanarFlow):
    """Planar flow that is applied step by step along a path, with its volume change added up later.

    What does not depend on the step is done once a path: a recursion of many small products is
    paid for by their number, not by their size.
    """

    def maps(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return direction w, offset b and constrained direction u of each map."""
        along = (self.u * self.w).sum(-1)
        norm = self.w.square().sum(-1).clamp_min(torch.finfo(self.w.dtype).tiny)
        u = self.u + ((F.softplus(along + SHIFT) - 1.0 - along) / norm).unsqueeze(-1) * self.w
        return list(zip(self.w.unbind(0), self.b.unbind(0), u.unsqueeze(1).unbind(0), strict=True))

    @staticmethod
    def push(z: Tensor, maps: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, list[Tensor]]:
        """Map z (B, d) forward; return it with the hyperbolic tangents (B,) met on the way."""
        bends = []
        for w, b, u in maps:
            bend = torch.tanh(torch.mv(z, w) + b)
            z = torch.addcmul(z, bend.unsqueeze(1), u)
            bends.append(bend)
        return z, bends

    def log_det(self, bends: Tensor) -> Tensor:
        """Return the summed log-determinant (B,) of the tangents (steps, maps, B) of a path."""
        scale = F.softplus((self.u * self.w).sum(-1) + SHIFT)[:, None]
        square = bends.square()
        return torch.log(square + (1.0 - square) * scale).sum((0, 1))


class OmniAnomalyNet(nn.Module):
    """The chain of posteriors, the flow, the prior and the decoder.

    Parameters
    ----------
    shape : tuple of int
        Steps T and channels C of a window.
    latent : int
        Dimensions of z at each step.
    hidden : int
        Width of the recurrent and dense layers.
    flows : int
        Planar maps on each z.
    draws : int
        Latent paths a window is scored with.
    min_std : float
        Smallest standard deviation of the decoder.
    """

    noise: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        latent: int,
        hidden: int,
        flows: int,
        draws: int,
        min_std: float,
    ) -> None:
        super().__init__()
        steps, channels = shape
        self.latent = latent
        self.read = nn.GRU(channels, hidden, batch_first=True)
        # the dense layer on [z_{t-1}, e_t], split so that the part of e is done for all steps
        self.from_read = nn.Linear(hidden, hidden)
        self.from_before = nn.Linear(latent, hidden, bias=False)
        self.posterior = DiagGaussianHead(hidden, latent)
        self.flow = ChainedFlow(latent, flows)
        self.prior = RandomWalkPrior(steps)
        self.write = nn.GRU(latent, hidden, batch_first=True)
        self.dense = nn.Linear(hidden, hidden)
        self.likelihood = DiagGaussianHead(hidden, channels, min_std=min_std)
        self.register_buffer("noise", torch.randn(draws, steps, latent))

    def posterior_path(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Draw z_1..T given windows, each step given the z before it.

        Parameters
        ----------
        x : Tensor of shape (B, T, C)
            Windows.
        noise : Tensor of shape (B, T, d)
            Standard normal numbers.

        Returns
        -------
        z : Tensor of shape (B, T, d)
            The path after the flow.
        log_q : Tensor of shape (B,)
            Its log-density, in nats.
        """
        evidence = self.from_read(self.read(x)[0])
        maps = self.flow.maps()
        z = x.new_zeros(len(x), self.latent)
        path, spread, bends = [], [], []
        for e, eps in zip(evidence.unbind(1), noise.unbind(1), strict=True):
            mean, std = self.posterior(torch.tanh(e + self.from_before(z)))
            z, bent = self.flow.push(torch.addcmul(mean, std, eps), maps)
            path.append(z)
            spread.append(std)
            bends += bent
        log_std = torch.stack(spread, 1).log()
        base = (-0.5 * noise.square() - log_std - HALF_LOG_TWO_PI).sum((1, 2))
        tangents = torch.stack(bends).unflatten(0, (len(path), len(maps)))
        return torch.stack(path, 1), base - self.flow.log_det(tangents)

    def decode(self, z: Tensor) -> Gaussian:
        """Return mean and standard deviation of every value, (B, T, C), given paths."""
        found: Gaussian = self.likelihood(torch.tanh(self.dense(self.write(z)[0])))
        return found


@register(
    Card(
        title="Robust anomaly detection for multivariate time series through stochastic recurrent neural network",
        authors="Su, Zhao, Niu, Liu, Sun, Pei",
        venue="KDD",
        year=2019,
        family=Family.VAE,
        kinds=(Kind.SERIES,),
        row="1.1.2-03",
        summary="A variational autoencoder whose latent steps form a chain, scored by likelihood.",
        tags=("recurrent", "planar flow", "state space", "likelihood"),
    )
)
@dataclass(eq=False, repr=False)
class OmniAnomaly(PathVAE):
    """Score each step by how unlikely it is given the latent path of the window that ends there.

    A GRU reads the window, and the latent variables are drawn one after the other, each given the
    one before, ``q(z_t | z_{t-1}, e_t)``, and bent by planar flows. A second GRU turns the path
    into a normal distribution of every value. Training maximises the evidence bound:

        E_q[ log p(x | z) + log p(z_{1:T}) - log q(z_{1:T} | x) ]

    with a random walk observed in noise as the prior, so that latent paths are smooth. The score
    is ``s_t = -sum_c log p(x_tc | z)`` at the last step of each window, averaged over ``draws``
    paths whose noise is fixed at the time of training.

    **When to use.** Many channels that depend on each other, with noise of changing size: the
    decoder learns each value's own standard deviation. For alarms rarer than the calibration data
    can show, the paper's rule is ``threshold=PeaksOverThreshold(q=...)``.

    **When it fails.** The last step of a window is also read by the encoder, so an anomaly that lasts is partly
    explained away. A small ``min_std`` makes scores explode on channels that were nearly constant in training. Mean
    AUROC / AP / VUS-PR over the SKAB recordings, one seed: 0.673 / 0.667 / 0.711, behind PCA of windows at 0.848 /
    0.848 / 0.876 and nearest windows at 0.749 / 0.742 / 0.781. On two recordings of each of seven sets AUROC / AP /
    VUS-PR are 0.762 / 0.518 / 0.509 on average, those of PCA of windows 0.803 / 0.611 / 0.606; in AUROC it is furthest
    behind on SKAB (0.600, 0.945) and UCR (0.898, 1.000). On all recordings (one seed) they are 0.762 / 0.510 / 0.505,
    those of PCA of windows 0.816 / 0.632 / 0.638.

    Parameters
    ----------
    flows : int
        Planar maps on each z, at least 1.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> t = np.arange(800)
    >>> series = np.c_[np.sin(t / 5), np.cos(t / 5)]
    >>> detector = OmniAnomaly(window=16, training=Training(updates=60)).fit(series[:600])
    >>> series[700:705] *= -1
    >>> scores = detector.anomaly_score(series)
    >>> bool(scores[700:705].mean() > np.quantile(scores[:600], 0.99))
    True

    References
    ----------
    Su, Zhao, Niu, Liu, Sun and Pei (2019), Robust anomaly detection for multivariate time series
    through stochastic recurrent neural network, KDD.
    Rezende and Mohamed (2015), Variational inference with normalizing flows, ICML.
    """

    flows: int = field(default=5, kw_only=True)
    latent: int = field(default=3, kw_only=True)
    hidden: int = field(default=64, kw_only=True)
    draws: int = field(default=2, kw_only=True)

    fold: ClassVar[Literal["mean", "last"]] = "last"
    stackable = False
    defaults = Training(updates=200, batch_size=64, lr=3e-3, weight_decay=1e-4, clip=10.0)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "flows")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the network, and fix the noise of the paths it will score with."""
        return OmniAnomalyNet(shape, self.latent, self.hidden, self.flows, self.draws, self.min_std)

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the negative evidence bound of one path a window, in nats a value."""
        x = batch.x
        noise = torch.randn(*x.shape[:2], net.latent, device=x.device, dtype=x.dtype)
        z, log_q = net.posterior_path(x, noise)
        likelihood = batch.sample_sum(gaussian_log_prob(x, *net.decode(z)))
        bound = likelihood + net.prior.log_prob(z) - log_q
        return -bound.mean() / x[0].numel()

    def expected(self, net: Any, x: Tensor, noise: Tensor) -> Gaussian:
        """Return means and standard deviations of all values along paths of some noise."""
        z, _ = net.posterior_path(x, noise)
        found: Gaussian = net.decode(z)
        return found
