"""VAEAT: one variational encoder with attention, and two decoders trained against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from genad.core.inference import Inference, Want
from genad.core.parameters import check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.core.training import Phase, Training, TrainingReport
from genad.data.kinds import Kind
from genad.data.samples import Batch, Samples
from genad.nn import DiagGaussianHead, kl_to_standard_normal
from genad.reconstruction.vae.steps import Gaussian, SequentialVAE


class AttentionEncoder(nn.Module):
    """LSTM whose outputs are weighted by temporal attention before they become a Gaussian code at each step.

    Parameters
    ----------
    channels : int
        Values a step.
    hidden : int
        Width of the LSTM.
    latent : int
        Dimensions of the code at each step.
    """

    def __init__(self, channels: int, hidden: int, latent: int) -> None:
        super().__init__()
        self.read = nn.LSTM(channels, hidden, batch_first=True)
        self.key = nn.Linear(hidden, hidden)
        # A learnt query: with a random one, attention would be noise.
        self.query = nn.Parameter(torch.randn(hidden) / hidden**0.5)
        self.head = DiagGaussianHead(hidden, latent)

    def attention(self, states: Tensor) -> Tensor:
        """Return the weight of each step, (B, T), adding up to 1 over the window."""
        return (torch.tanh(self.key(states)) @ self.query).softmax(1)

    def forward(self, x: Tensor) -> Gaussian:
        """Return mean and standard deviation of the codes (B, T, d) of windows (B, T, C)."""
        states = self.read(x)[0]
        # Times the length, so that even attention leaves the states as they are.
        found: Gaussian = self.head(states * (states.shape[1] * self.attention(states))[..., None])
        return found


class SequenceDecoder(nn.Module):
    """LSTM over codes with a linear output at every step."""

    def __init__(self, latent: int, hidden: int, channels: int) -> None:
        super().__init__()
        self.write = nn.LSTM(latent, hidden, batch_first=True)
        self.output = nn.Linear(hidden, channels)

    def forward(self, z: Tensor) -> Tensor:
        """Map (B, T, d) to (B, T, C)."""
        made: Tensor = self.output(self.write(z)[0])
        return made


class VAEATNet(nn.Module):
    """The shared encoder, both decoders, and how far the contest has come.

    Parameters
    ----------
    shape : tuple of int
        Steps T and channels C of a window.
    hidden : int
        Width of all LSTMs.
    latent : int
        Dimensions of the code at each step.

    Attributes
    ----------
    rate : Tensor
        Epochs of the contest that an update is worth.
    epoch : Tensor
        The epoch n, from 1 on.
    """

    rate: Tensor
    epoch: Tensor

    def __init__(self, shape: tuple[int, ...], hidden: int, latent: int) -> None:
        super().__init__()
        channels = shape[1]
        self.encoder = AttentionEncoder(channels, hidden, latent)
        self.first = SequenceDecoder(latent, hidden, channels)
        self.second = SequenceDecoder(latent, hidden, channels)
        self.register_buffer("rate", torch.zeros(()))
        self.register_buffer("epoch", torch.ones(()))

    def draw(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return a code of each window and its divergence from the prior, in nats a dimension, (B,)."""
        mean, std = self.encoder(x)
        return mean + std * torch.randn_like(mean), kl_to_standard_normal(mean, std).mean((1, 2))


@register(
    Card(
        title="VAEAT: variational autoencoder with adversarial training for multivariate time series anomaly detection",
        authors="He, Du, Jiang, Zhang, Wang",
        venue="Information Sciences",
        year=2024,
        family=Family.VAE,
        kinds=(Kind.SERIES,),
        row="1.1.2-16",
        summary="Two decoders on one variational encoder with attention, the second trained to unmask the first.",
        tags=("adversarial", "attention", "recurrent"),
    ),
    name="vaeat",
)
@dataclass(eq=False, repr=False)
class VAEAT(SequentialVAE):
    """Reconstruct by two decoders on one encoder, the second of which learns to make the first's flaws larger.

    An LSTM with temporal attention (a learnt query) gives each step a Gaussian code; both decoders reconstruct from
    it. With ``w1 = D1(E(x))``, ``w2 = D2(E(x))`` and ``w3 = D2(E(w1))`` each batch first moves encoder and first
    decoder, then encoder and second decoder, each with its own optimiser:

        L1 = 1/n (MSE(x, w1) + kl_weight KL) + (1 - 1/n) MSE(x, w3)
        L2 = 1/n (MSE(x, w2) + kl_weight KL) - (1 - 1/n) MSE(x, w3)

    n is the epoch, so the contest weighs more and more; it is counted over the training so that n goes from 1 to
    ``epochs`` whatever the number of updates is. Windows are scored by ``alpha MSE(x, w1) + (1 - alpha) MSE(x, w2)``
    at the mean of their codes.

    **When to use.** Short windows of many channels in which an anomaly is a broken relation between channels.

    **When it fails.** The second loss has no lower bound, and at epoch n only 1 / n of either loss is reconstruction:
    with many ``epochs`` both decoders stop to reconstruct. In a trial on three SKAB recordings, one seed, mean AUROC /
    AP are 0.752 / 0.788 with 2 ``epochs``, which is why that is the default, and 0.536 / 0.602 with 10; PCA of windows
    has 0.959 / 0.977. Codes as wide as a step hold anomalies as well as anything else. On two recordings of each of
    seven sets AUROC / AP / VUS-PR are 0.747 / 0.457 / 0.467 on average, those of PCA of windows 0.803 / 0.611 / 0.606;
    in AUROC it is furthest behind on SKAB (0.660, 0.945) and UCR (0.775, 1.000).

    Parameters
    ----------
    alpha : float
        Share of the first decoder's error in the score, in [0, 1].
    epochs : int
        The value that n reaches at the end of the training, at least 1; 1 trains without the contest. The default was
        chosen by the trial named above.
    kl_weight : float
        Weight of the divergence of a code from the prior, a mean over its dimensions, at least 0.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> t = np.arange(800)
    >>> series = np.c_[np.sin(t / 5), np.cos(t / 5)]
    >>> detector = VAEAT(training=Training(updates=100)).fit(series[:600])
    >>> series[700:705, 1] *= -1
    >>> scores = detector.anomaly_score(series)
    >>> bool(scores[700:705].mean() > np.quantile(scores[:600], 0.99))
    True

    References
    ----------
    He, Du, Jiang, Zhang and Wang (2024), VAEAT: variational autoencoder with adversarial training for multivariate
    time series anomaly detection, Information Sciences 676.
    Audibert et al. (2020), USAD: unsupervised anomaly detection on multivariate time series, KDD.
    """

    alpha: float = 0.5
    epochs: int = 2
    kl_weight: float = 0.01

    default_window: ClassVar[int] = 5
    stackable = False
    defaults = Training(updates=500, batch_size=128, lr=3e-3, clip=10.0)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number(self, "alpha", "[0, 1]")
        check_whole(self, "epochs")
        check_number(self, "kl_weight", "[0, inf)")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make encoder and decoders."""
        return VAEATNet(shape, self.hidden, self.latent)

    def phases(self, net: nn.Module) -> Sequence[Phase]:  # noqa: ARG002 - the same for every network
        """Return the two sides of the contest, in turn on each batch."""
        return [
            Phase("first", self.first_loss, modules=("encoder", "first")),
            Phase("second", self.second_loss, modules=("encoder", "second")),
        ]

    def optimise(self, net: Any, samples: Samples) -> TrainingReport:
        """Lay the epochs of the contest over the updates there will be, then train."""
        total = self._training_for(samples.shape).total_updates(len(samples))
        net.rate.fill_((self.epochs - 1) / max(1, total - 1))
        return super().optimise(net, samples)

    def after_step(self, net: Any, batch: Batch) -> None:  # noqa: ARG002 - every batch counts alike
        """Move on the epoch."""
        net.epoch += net.rate

    def _own(self, net: Any, batch: Batch, decode: nn.Module) -> tuple[Tensor, Tensor]:
        """Return a decoder's reconstruction and its own part of the loss."""
        z, divergence = net.draw(batch.x)
        made = decode(z)
        return made, (_error(batch, made) + self.kl_weight * divergence).mean() / net.epoch

    def first_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return what encoder and first decoder minimise: to reconstruct, and to fool the second decoder."""
        made, own = self._own(net, batch, net.first)
        again = net.second(net.draw(made)[0])
        return own + (1.0 - 1.0 / net.epoch) * _error(batch, again).mean()

    def second_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return what encoder and second decoder minimise: to reconstruct, and to tell the first one's output apart."""
        _, own = self._own(net, batch, net.second)
        made = net.first(net.draw(batch.x)[0])
        again = net.second(net.draw(made)[0])
        return own - (1.0 - 1.0 / net.epoch) * _error(batch, again).mean()

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Score windows by both reconstructions from the mean of their codes."""
        z = net.encoder(batch.x)[0]
        one, two = net.first(z), net.second(z)
        error = self.alpha * (batch.x - one).square() + (1.0 - self.alpha) * (batch.x - two).square()
        restored = self.alpha * one + (1.0 - self.alpha) * two
        return Inference.of(batch, want, batch.sample_mean(error), error, restored)


def _error(batch: Batch, made: Tensor) -> Tensor:
    """Return the mean squared error of each window, (B,)."""
    return batch.sample_mean((batch.x - made).square())
