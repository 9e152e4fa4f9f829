"""Variational autoencoder scored by its reconstruction probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from genad.core.detector import Detector
from genad.core.families import PosteriorMixin, SampleMixin
from genad.core.inference import Inference, Want
from genad.core.registry import Card, Family, register
from genad.core.training import Training
from genad.data.kinds import DENSE
from genad.data.samples import Batch, iterate
from genad.errors import InputError
from genad.nn import gaussian_log_prob, kl_to_standard_normal
from genad.nn.gaussian import least_nll
from genad.nn.vae import gaussian_vae


@register(
    Card(
        title="Variational autoencoder based anomaly detection using reconstruction probability",
        authors="An, Cho",
        venue="SNU Data Mining Center technical report",
        year=2015,
        family=Family.VAE,
        kinds=DENSE,
        row="1.1.2-01",
        summary="Score by the expected log-density of a sample under the decoders of its posterior.",
        tags=("reconstruction probability", "variational"),
    )
)
@dataclass(eq=False, repr=False)
class VAE(PosteriorMixin, SampleMixin, Detector):
    """Reconstruct in distribution: the score is ``-E_{z ~ q(z|x)} log p(x | z)``, in nats.

    Both networks are probabilistic: ``q(z | x) = N(mu_z, diag sigma_z^2)`` and
    ``p(x | z) = N(mu_x, diag sigma_x^2)``, each with its own mean and variance. Training maximises
    ``E_q log p(x | z) - beta KL(q(z | x) || N(0, I))`` with one reparameterised draw. The score is the Monte-Carlo mean
    over ``draws`` codes, without the divergence; the same error counts less where the decoder is uncertain. The draws
    use one noise bank, fixed at the fit and shared by all samples. The map holds the summands, each above the
    least it can be; the score can be negative, since it is a log-density.

    **When to use.** Features differ in how predictable they are, or normal samples are to be generated as well.

    **When it fails.** Where the decoder learns to be uncertain about a region, anomalies there look harmless.
    Mean AUROC/AP over 14 ADBench tables, one-class, 3 seeds: 0.940/0.818, below a denoising autoencoder
    (0.942/0.845) and nearest neighbours (0.954/0.858).

    Parameters
    ----------
    latent : int
        Dimensions of the code, at least 1. The divergence switches off those it does not need.
    beta : float
        Weight of the divergence, at least 0. The paper has 1, which on small tables switches off useful dimensions.
    draws : int
        Codes per sample at scoring, at least 1.
    min_std : float
        Smallest standard deviation of the decoder, above 0, in those of the training data: it keeps constant
        features from dominating the density.

    Examples
    --------
    The noise of the second feature grows with the first one, so the same error weighs less there.

    >>> import numpy as np
    >>> from genad import Training
    >>> rng = np.random.default_rng(0)
    >>> a = rng.uniform(0, 1, 1000)
    >>> X = np.column_stack([a, a * rng.normal(size=1000)])
    >>> detector = VAE(training=Training(updates=300)).fit(X)
    >>> quiet, loud = detector.anomaly_score([[0.1, 0.8], [0.9, 0.8]])
    >>> bool(quiet > loud)
    True
    >>> detector.sample(3).shape
    (3, 2)

    References
    ----------
    An and Cho (2015), Variational autoencoder based anomaly detection using reconstruction probability, SNU Data
    Mining Center, technical report 2015-3.
    Kingma and Welling (2014), Auto-encoding variational Bayes, ICLR.
    """

    latent: int = 16
    beta: float = 0.3
    draws: int = 16
    min_std: float = 0.1

    refills = 20
    defaults = Training(epochs=5, min_updates=300, max_updates=3000, batch_size=128, lr=1e-2, warmup=20)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for name in ("latent", "draws"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
                raise InputError(f"{name}: {value!r} was given; use a whole number of at least 1.")
        if not isinstance(self.beta, int | float) or not 0 <= self.beta < np.inf:
            raise InputError(f"beta: {self.beta!r} was given; use a number of at least 0.")
        if not isinstance(self.min_std, int | float) or not 0 < self.min_std < np.inf:
            raise InputError(f"min_std: {self.min_std!r} was given; use a number above 0, such as 0.1.")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the two networks and draw the noise bank."""
        return gaussian_vae(shape, int(self.latent), self.backbone, int(self.draws), float(self.min_std))

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the negative evidence lower bound, per value."""
        mean, std = net.posterior(batch.x)
        mu, sigma = net.likelihood(mean + std * torch.randn_like(mean))
        nll = batch.sample_sum(-gaussian_log_prob(batch.x, mu, sigma))
        bound = nll + self.beta * kl_to_standard_normal(mean, std).sum(1)
        return bound.mean() / batch.x[0].numel()

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Average density and reconstruction over the codes of the noise bank."""
        mean, std = net.posterior(batch.x)
        nll, restored = torch.zeros_like(batch.x), torch.zeros_like(batch.x)
        # One draw at a time: a block of samples stays in the cache, whatever the number of draws.
        for noise in net.noise:
            mu, sigma = net.likelihood(mean + std * noise)
            nll = nll - gaussian_log_prob(batch.x, mu, sigma)
            restored = restored + mu
        nll, restored = nll / len(net.noise), restored / len(net.noise)
        return Inference.of(batch, want, batch.sample_sum(nll), nll - self.least, restored)

    def guess_missing(self, net: Any, batch: Batch) -> Tensor:
        """Decode the mean code: cheaper than all draws, and as good where only the mean counts."""
        guess: Tensor = net.likelihood(net.posterior(batch.x)[0])[0]
        return guess

    @property
    def least(self) -> float:
        """The least negative log-density a value can have: at the mean, under the smallest standard deviation."""
        return least_nll(self.min_std)

    def elbo(self, X: Any) -> NDArray[np.float64]:
        """Return the evidence lower bound of log p(x) on the standardised scale, in nats.

        It differs from the negated score by the divergence of the posterior from the prior, and is a bound on the
        density only as far as training used ``beta=1``.

        Parameters
        ----------
        X : array, dataframe, Table, Series or path
            Data of the kind the detector was fitted on.

        Returns
        -------
        float64 array of shape (n,)
            One value a sample.
        """
        check_is_fitted(self, "net_")
        samples = self._ingest(X, reset=False).samples
        net: Any = self.net_
        parts = []
        with torch.inference_mode():
            for _, batch in iterate(samples, self._block(samples.shape)):
                divergence = kl_to_standard_normal(*net.posterior(batch.x)).sum(1)
                parts.append((-self.score_batch(net, batch) - divergence).double().cpu().numpy())
        return np.concatenate(parts)
