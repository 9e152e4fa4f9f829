"""MAD-GAN: recurrent generator and discriminator, and a search for each window's latent sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.core.inference import Inference, Want
from genad.core.parameters import check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.core.training import Phase, Training
from genad.data.kinds import Kind
from genad.data.samples import Batch, Samples, everything
from genad.nn.adversarial import invert_latent
from genad.reconstruction.strided import StridedDetector

# Windows whose pairwise distances give the bandwidth of the kernel.
_PAIRS_OF = 500
# Memory of the latent search: without a first moment, Adam is RMSprop.
_DECAY = (0.0, 0.9)


class SequenceNet(nn.Module):
    """An LSTM with a linear output at every step.

    Parameters
    ----------
    inputs, hidden, outputs : int
        Values a step, width, and values out a step.
    layers : int
        Recurrent layers.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, layers: int = 1) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(inputs, hidden, num_layers=layers, batch_first=True)
        self.output = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, inputs) to (B, T, outputs)."""
        return self.output(self.recurrent(x)[0])


class MADGANNet(nn.Module):
    """Generator, discriminator, and the start of every latent search.

    Parameters
    ----------
    shape : tuple of int
        Steps T and channels C of a window.
    latent : int
        Noise values a step.
    hidden : int
        Width of both networks.
    layers : int
        Recurrent layers of the generator.
    """

    start: Tensor
    bandwidth: Tensor

    def __init__(self, shape: tuple[int, ...], latent: int, hidden: int, layers: int) -> None:
        super().__init__()
        steps, channels = shape
        self.latent = latent
        self.generator = SequenceNet(latent, hidden, channels, layers)
        self.discriminator = SequenceNet(channels, hidden, 1)
        self.register_buffer("start", torch.randn(1, steps, latent))
        self.register_buffer("bandwidth", torch.ones(()))

    def dissimilarity(self, x: Tensor, other: Tensor, observed: Tensor | None = None) -> Tensor:
        """Return 1 minus the RBF kernel of windows, (B,), in [0, 1]; 0 for equal ones.

        Parameters
        ----------
        x, other : Tensor of shape (B, T, C)
            Windows.
        observed : Tensor of bool, same shape, optional
            Values that count.
        """
        apart = (x - other).square()
        if observed is None:
            distance = apart.sum((1, 2))
        else:
            kept = observed.to(apart.dtype)
            share = kept.sum((1, 2)).clamp_min(1.0) / apart[0].numel()
            distance = (apart * kept).sum((1, 2)) / share
        return -torch.expm1(-distance / (2 * self.bandwidth.square()))


@register(
    Card(
        title="MAD-GAN: Multivariate anomaly detection for time series data with generative adversarial networks",
        authors="Li, Chen, Jin, Shi, Goh, Ng",
        venue="ICANN",
        year=2019,
        family=Family.GAN,
        kinds=(Kind.SERIES,),
        row="1.1.3-02",
        summary="Recurrent GAN; windows are scored by the latent sequence found for them.",
        tags=("recurrent", "latent search", "discriminator"),
    ),
    name="mad_gan",
)
@dataclass(eq=False, repr=False)
class MADGAN(StridedDetector):
    """Score steps by how badly a recurrent GAN can imitate them, and by what its critic says.

    The generator turns a sequence of noise into a window, the discriminator gives every step a
    probability of being real; both are LSTMs, trained in rounds of one step of the discriminator
    (SGD) and three of the generator (Adam). To score a window, its latent sequence is searched
    for by RMSprop on ``1 - k(x, G(z))``, k an RBF kernel, and the score combines the residual
    with the discriminator's verdict::

        s_t = (1 - lambda) mean_c |x_tc - G(z*)_tc| + lambda (1 - D(x)_t)

    All windows of a block are searched at once, one latent sequence each, from one common start;
    a window's search does not depend on the others.

    **When to use.** Series of few channels with one kind of behaviour, where generated series are
    wanted too.

    **When it fails.** A search costs ``inversion_steps`` passes forth and back through the
    generator: the scores of 10,000 steps of 8 channels take about two seconds on one thread.
    Whatever the generator does not cover counts as anomalous.
    Mean AUROC / AP / VUS-PR over the SKAB recordings, one seed: 0.742 / 0.739 / 0.778,
    behind PCA of windows at 0.848 / 0.848 / 0.876 and nearest windows at
    0.749 / 0.742 / 0.781. On two UCR recordings it is
    below chance: 0.280, against 1.000 of both. The discriminator told little in a trial on four
    recordings, which is why its weight is small here.

    Parameters
    ----------
    latent : int
        Noise values at each step, at least 1.
    hidden : int
        Width of both networks, at least 1.
    g_layers : int
        Recurrent layers of the generator, at least 1.
    lambda_d : float
        Weight of the discriminator in the score, from 0 (residual alone) to 1.
    inversion_steps : int
        Most steps of the latent search, at least 1.
    inversion_rate : float
        Length of a step of the search, above 0.
    tolerance : float
        Dissimilarity at which a window's search ends, in [0, 1).

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> rng = np.random.default_rng(0)
    >>> t = np.arange(600)
    >>> series = np.c_[np.sin(t / 3), np.cos(t / 3)] + 0.05 * rng.normal(size=(600, 2))
    >>> detector = MADGAN(window=16, training=Training(updates=50)).fit(series)
    >>> other = series.copy()
    >>> other[300:310] += 4
    >>> scores = detector.anomaly_score(other)
    >>> bool(scores[300:310].mean() > 2 * scores[:280].mean())
    True

    References
    ----------
    Li, Chen, Jin, Shi, Goh and Ng (2019), MAD-GAN: Multivariate anomaly detection for time series
    data with generative adversarial networks, ICANN.
    """

    latent: int = 8
    hidden: int = 32
    g_layers: int = 1
    lambda_d: float = 0.2
    inversion_steps: int = 30
    inversion_rate: float = 0.1
    tolerance: float = 0.1

    grad_at_score = True
    stackable = False
    overlap = 3
    defaults = Training(updates=300, batch_size=64, lr=2e-3, schedule="constant", clip=5.0)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "latent", "hidden", "g_layers", "inversion_steps")
        check_number(self, "lambda_d", "[0, 1]")
        check_number(self, "inversion_rate", "(0, inf)")
        check_number(self, "tolerance", "[0, 1)")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make both networks, and fix the start of the searches."""
        return MADGANNet(shape, self.latent, self.hidden, self.g_layers)

    def phases(self, net: nn.Module) -> Sequence[Phase]:  # noqa: ARG002 - the same for every network
        """Return one step of the discriminator and three of the generator a round."""
        critic = Phase(
            "discriminator",
            self.discriminator_loss,
            modules=("discriminator",),
            lr=0.02,
            optimizer="sgd",
        )
        return [
            critic,
            Phase("generator", self.generator_loss, modules=("generator",), repeat=3),
        ]

    def _generated(self, net: Any, like: Tensor) -> Tensor:
        noise = torch.randn(*like.shape[:2], net.latent, device=like.device, dtype=like.dtype)
        return net.generator(noise)

    def discriminator_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the cross-entropy of telling real steps from generated ones."""
        with torch.no_grad():
            fake = batch.keep_observed(self._generated(net, batch.x))
        real, made = net.discriminator(batch.x), net.discriminator(fake)
        return F.softplus(-real).mean() + F.softplus(made).mean()

    def generator_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the cross-entropy of passing generated steps off as real."""
        fake = batch.keep_observed(self._generated(net, batch.x))
        return F.softplus(-net.discriminator(fake)).mean()

    def finish(self, net: Any, samples: Samples) -> None:
        """Set the kernel's bandwidth to the median distance between training windows."""
        x = everything(samples, self._device, _PAIRS_OF).x.flatten(1)
        if len(x) > 1:
            net.bandwidth.copy_(torch.pdist(x.double()).median().clamp_min(1e-3))

    def invert(self, net: Any, batch: Batch) -> Tensor:
        """Search for the latent sequences of windows.

        Parameters
        ----------
        net : MADGANNet
            The trained network; it is not changed.
        batch : Batch
            Windows (B, T, C).

        Returns
        -------
        Tensor of shape (B, T, latent)
            For each window, the sequence of least dissimilarity that was met.
        """
        x = batch.x

        def loss(z: Tensor) -> Tensor:
            # the fused backward pass of recurrent layers on GPUs refuses networks in evaluation mode
            with torch.backends.cudnn.flags(enabled=False):
                return net.dissimilarity(x, net.generator(z), batch.mask)

        codes, _, _ = invert_latent(
            loss,
            net.start.expand(len(x), -1, -1),
            steps=self.inversion_steps,
            rate=self.inversion_rate,
            betas=_DECAY,
            tolerance=self.tolerance,
        )
        return codes

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Score steps by residual and discriminator; the imitation is the restored window."""
        z = self.invert(net, batch)
        with torch.no_grad():
            made = net.generator(z)
            apart = batch.keep_observed((batch.x - made).abs())
            doubt = torch.sigmoid(-net.discriminator(batch.x)).squeeze(-1)
        channels = apart.shape[-1]
        seen = float(channels) if batch.mask is None else batch.mask.sum(-1).clamp_min(1)
        residual = apart.sum(-1) / seen
        return Inference(
            (1 - self.lambda_d) * residual + self.lambda_d * doubt,
            apart if "map" in want else None,
            made if "restored" in want else None,
        )
