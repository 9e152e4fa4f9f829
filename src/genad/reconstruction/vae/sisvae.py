"""SISVAE: a sequential variational autoencoder whose output distributions change smoothly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from genad.core.parameters import check_choice, check_flag, check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.core.training import Training
from genad.data.kinds import Kind
from genad.data.samples import Batch
from genad.nn import DiagGaussianHead, gaussian_log_prob, kl_normal_normal
from genad.reconstruction.vae.steps import Gaussian, PathVAE


class SISVAENet(nn.Module):
    """The variational recurrent network: prior, posterior and decoder of a step hang on the state before it.

    Parameters
    ----------
    shape : tuple of int
        Steps T and channels C of a window.
    latent : int
        Dimensions of z at each step.
    hidden : int
        Width of the dense layers.
    state : int
        Width of the recurrent state.
    draws : int
        Latent paths a window is scored with.
    min_std : float
        Smallest standard deviation of the decoder.
    """

    noise: Tensor

    def __init__(
        self, shape: tuple[int, ...], latent: int, hidden: int, state: int, draws: int, min_std: float
    ) -> None:
        super().__init__()
        steps, channels = shape
        self.state = state
        self.embed_x = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU())
        self.embed_z = nn.Sequential(nn.Linear(latent, hidden), nn.ReLU())
        self.cell = nn.GRUCell(2 * hidden, state)

        def gaussian(inputs: int, out: int, floor: float) -> nn.Sequential:
            return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), DiagGaussianHead(hidden, out, floor))

        self.posterior = gaussian(hidden + state, latent, 1e-4)
        self.prior = gaussian(state, latent, 1e-4)
        self.likelihood = gaussian(hidden + state, channels, min_std)
        self.register_buffer("noise", torch.randn(draws, steps, latent))

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Gaussian, Gaussian, Gaussian]:
        """Run along windows, drawing z_t from its posterior at each step.

        Parameters
        ----------
        x : Tensor of shape (B, T, C)
            Windows.
        noise : Tensor of shape (B, T, d)
            Standard normal numbers.

        Returns
        -------
        posterior, prior : pairs of Tensor of shape (B, T, d)
            Means and standard deviations of q(z_t | x_t, h_{t-1}) and p(z_t | h_{t-1}).
        output : pair of Tensor of shape (B, T, C)
            Mean and standard deviation of p(x_t | z_t, h_{t-1}).
        """
        seen = self.embed_x(x)
        h = x.new_zeros(len(x), self.state)
        means, stds, states, codes = [], [], [], []
        for e, eps in zip(seen.unbind(1), noise.unbind(1), strict=True):
            mean, std = self.posterior(torch.cat([e, h], 1))
            code = self.embed_z(torch.addcmul(mean, std, eps))
            means.append(mean)
            stds.append(std)
            states.append(h)
            codes.append(code)
            h = self.cell(torch.cat([e, code], 1), h)
        # What does not feed the recursion is done for all steps at once.
        before = torch.stack(states, 1)
        output = self.likelihood(torch.cat([torch.stack(codes, 1), before], 2))
        return (torch.stack(means, 1), torch.stack(stds, 1)), self.prior(before), output


def roughness(output: Gaussian) -> Tensor:
    """Return KL(N_{t-1} || N_t) of the output distributions of consecutive steps, in nats, (B, T - 1, C)."""
    mean, std = output
    return kl_normal_normal(mean[:, :-1], std[:, :-1], mean[:, 1:], std[:, 1:])


@register(
    Card(
        title="Anomaly detection of time series with smoothness-inducing sequential variational auto-encoder",
        authors="Li, Yan, Wang, Jin",
        venue="IEEE Transactions on Neural Networks and Learning Systems",
        year=2021,
        family=Family.VAE,
        kinds=(Kind.SERIES,),
        row="1.1.2-09",
        summary="A recurrent variational autoencoder with a penalty on jumps of what it expects.",
        tags=("recurrent", "smoothness", "likelihood", "contaminated training"),
    ),
    name="sisvae",
)
@dataclass(eq=False, repr=False)
class SISVAE(PathVAE):
    """Expect each step to be normal about a mean that moves smoothly, and score what the expectation misses.

    A variational recurrent network gives every step its own mean and variance in every channel,
    ``p(x_t | z_t, h_{t-1})``, a posterior ``q(z_t | x_t, h_{t-1})`` and a learnt prior ``p(z_t | h_{t-1})``. Training
    minimises:

        sum_t E_q[-log p(x_t | z_t, h_{t-1})] + KL(q(z_t) || p(z_t)) + smoothness * KL(p(x_{t-1}) || p(x_t))

    The last term compares the *output* distributions of consecutive steps, not the latent ones: a lone spike in the
    training data is cheaper to miss than to follow, so contaminated data harm less. Scores average over ``draws``
    latent paths whose noise is fixed at the fit; the paper has 64 of them and more.

    **When to use.** Smooth series whose noise changes over time, trained on data that hold a few anomalies.

    **When it fails.** Where normal values jump (switches, counters), the penalty flattens what should be expected, and
    more so the larger ``smoothness`` is. The posterior reads the step it is to expect, so anomalies that last are
    explained away: in a trial, mean AUROC / AP over three SKAB recordings and one stretch of SMD, one seed, are 0.744 /
    0.607, and 0.739 / 0.602 with ``online=False``, far behind 0.943 / 0.806 of PCA of windows. On two recordings of
    each of seven sets AUROC / AP / VUS-PR are 0.774 / 0.504 / 0.522 on average, those of PCA of windows 0.803 / 0.611 /
    0.606; in AUROC it is furthest behind on SKAB (0.696, 0.945) and ASD (0.628, 0.682).

    Parameters
    ----------
    smoothness : float
        Weight of the divergence between consecutive outputs, at least 0.
    score_by : {"probability", "error"}
        -log p(x_t), in nats, or the squared distance from the mean, summed over the channels.
    online : bool
        Score a step from the window that ends at it, so that no later step counts; else by the mean over all windows
        that hold it.
    state : int
        Width of the recurrent state, at least 1.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> t = np.arange(800)
    >>> series = np.c_[np.sin(t / 5), np.cos(t / 5)]
    >>> detector = SISVAE(training=Training(updates=60)).fit(series[:600])
    >>> series[700:703] += 4
    >>> scores = detector.anomaly_score(series)
    >>> bool(scores[700:703].min() > np.quantile(scores[:600], 0.99))
    True

    References
    ----------
    Li, Yan, Wang and Jin (2021), Anomaly detection of time series with smoothness-inducing sequential variational
    auto-encoder, IEEE Transactions on Neural Networks and Learning Systems 32(3).
    Chung et al. (2015), A recurrent latent variable model for sequential data, NeurIPS.
    """

    smoothness: float = 0.5
    score_by: Literal["probability", "error"] = "probability"
    online: bool = True
    state: int = field(default=64, kw_only=True)
    latent: int = field(default=8, kw_only=True)

    default_window: ClassVar[int] = 16
    stackable = False
    defaults = Training(updates=300, batch_size=64, lr=3e-3, clip=10.0)

    @property
    def fold(self) -> Literal["mean", "last"]:  # type: ignore[override]
        """How windows are folded into steps."""
        return "last" if self.online else "mean"

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "state")
        check_number(self, "smoothness", "[0, inf)")
        check_choice(self, "score_by", ("probability", "error"))
        check_flag(self, "online")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the network, and fix the noise of the paths it will score with."""
        return SISVAENet(shape, self.latent, self.hidden, self.state, self.draws, self.min_std)

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the negative evidence bound of one path a window plus the smoothness term, in nats a value."""
        x = batch.x
        noise = torch.randn(*x.shape[:2], net.noise.shape[-1], device=x.device, dtype=x.dtype)
        posterior, prior, output = net(x, noise)
        nll = batch.sample_sum(-gaussian_log_prob(x, *output))
        divergence = kl_normal_normal(*posterior, *prior).sum((1, 2))
        jumps = roughness(output).sum((1, 2))
        return (nll + divergence + self.smoothness * jumps).mean() / x[0].numel()

    def expected(self, net: Any, x: Tensor, noise: Tensor) -> Gaussian:
        """Return means and standard deviations of all values along paths of some noise."""
        output: Gaussian = net(x, noise)[2]
        return output

    def surprise(self, x: Tensor, expected: Gaussian) -> tuple[Tensor, Tensor]:
        """Return the score of every value and its part of the map; they are the same when the score is the error."""
        if self.score_by == "probability":
            return super().surprise(x, expected)
        error = (x - expected[0]).square()
        return error, error
