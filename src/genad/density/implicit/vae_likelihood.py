"""A variational autoencoder as a density: what the scores built on its likelihood share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genad.core.detector import Detector
from genad.core.families import PosteriorMixin, SampleMixin
from genad.core.inference import Inference, Want
from genad.core.parameters import check_number, check_whole
from genad.core.training import Training
from genad.data.samples import Batch
from genad.nn import gaussian_log_prob, kl_to_standard_normal
from genad.nn.gaussian import least_nll
from genad.nn.vae import PosteriorDraws, draw_posterior, gaussian_vae


@dataclass(eq=False, repr=False)
class VAELikelihood(PosteriorMixin, SampleMixin, Detector):
    """A detector that scores by the likelihood of a variational autoencoder, or by something made of it.

    Encoder and decoder are Gaussians with a mean and a variance of their own for every dimension and value. The
    likelihood of a sample is bounded by ``log mean_k p(x, z_k) / q(z_k | x)`` over the codes of a noise bank, fixed at
    the fit and shared by all samples. The map holds the negative log-density of each value under the decoders, each
    above the least it can be, and the restored sample is the mean of the decoders; both are averages over the codes,
    weighed by how well a code explains the sample.

    Parameters
    ----------
    latent : int
        Dimensions of the code, at least 1. The divergence switches off those it does not need.
    draws : int
        Codes a sample at scoring, at least 1.
    min_std : float
        Smallest standard deviation of the decoder, above 0, in those of the training data: it keeps constant
        features from dominating the density.
    """

    latent: int = 16
    draws: int = 64
    min_std: float = 0.1

    defaults = Training(epochs=20, min_updates=500, max_updates=600, batch_size=128, lr=5e-3, warmup=20)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "latent", "draws")
        check_number(self, "min_std", "(0, inf)")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the two networks and draw the noise bank."""
        return gaussian_vae(shape, int(self.latent), self.backbone, int(self.draws), float(self.min_std))

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the negative evidence lower bound of one draw, in nats a value."""
        mean, std = net.posterior(batch.x)
        mu, sigma = net.likelihood(mean + std * torch.randn_like(mean))
        found = batch.sample_sum(gaussian_log_prob(batch.x, mu, sigma))
        return (kl_to_standard_normal(mean, std).sum(1) - found).mean() / batch.x[0].numel()

    def look(self, net: Any, batch: Batch, *, values: bool = False) -> PosteriorDraws:
        """Draw codes from the encoder's posteriors and weigh them."""
        mean, std = net.posterior(batch.x)
        return draw_posterior(net, batch.x, mean, std, batch.sample_sum, values=values)

    def parts(self, batch: Batch, draws: PosteriorDraws, want: frozenset[Want]) -> tuple[Tensor | None, Tensor | None]:
        """Return the map and the restored sample that draws with averages by value give, where they are wanted."""
        found = None
        if "map" in want:
            assert draws.nll is not None  # noqa: S101 - drawn with them
            found = batch.keep_observed(draws.nll - least_nll(self.min_std)).clamp_min(0.0)
        return found, draws.restored if "restored" in want else None

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Score by the negated importance-weighted bound."""
        draws = self.look(net, batch, values=bool(want))
        return Inference(-draws.bound, *self.parts(batch, draws, want))
