"""AnoGAN: search the latent space of a generator of normal samples for the one nearest to each sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genad.core.families import SampleMixin
from genad.core.inference import Inference, Want
from genad.core.parameters import check_choice, check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.core.training import Phase, Training
from genad.data.kinds import DENSE
from genad.data.samples import Batch, Samples, everything
from genad.nn import Backbone, decoder
from genad.nn.adversarial import (
    Critic,
    DenseSearch,
    discriminator_loss,
    feature_distance,
    generator_loss,
    invert_latent,
)
from genad.reconstruction.gan.codes import CodedReconstruction, GeneratorNet

# Training samples whose searches give the scale of both terms.
_SCALE_OF = 256
# Dense networks search this many usual blocks at once, where such a block has few rows.
_WIDER, _FEW = 4, 512


class AnoGANNet(GeneratorNet):
    """Generator, discriminator, the starts of every search, and the weights of both terms.

    Parameters
    ----------
    shape, latent, spec
        As in :class:`~genad.reconstruction.gan.codes.GeneratorNet`.
    restarts : int
        Searches a sample.

    Attributes
    ----------
    start : Tensor of shape (restarts, latent)
        Standard normal draws, the same for every sample.
    unit : Tensor of shape (2,)
        What the mean residual and the mean feature residual are divided by.
    """

    start: Tensor
    unit: Tensor

    def __init__(self, shape: tuple[int, ...], latent: int, restarts: int, spec: Backbone | str | None) -> None:
        super().__init__(shape, latent, spec)
        self.generator = decoder(shape, latent, self.spec)
        self.critic = Critic(shape, self.spec)
        self.register_buffer("start", torch.randn(restarts, latent))
        self.register_buffer("unit", torch.ones(2))


@register(
    Card(
        title="Unsupervised anomaly detection with generative adversarial networks to guide marker discovery",
        authors="Schlegl, Seeböck, Waldstein, Schmidt-Erfurth, Langs",
        venue="IPMI",
        year=2017,
        family=Family.GAN,
        kinds=DENSE,
        row="1.1.3-01",
        summary="Search a generator's latent space for the normal sample nearest to each sample.",
        tags=("latent search", "feature matching", "discriminator", "inversion"),
    ),
    name="ano_gan",
)
@dataclass(eq=False, repr=False)
class AnoGAN(SampleMixin, CodedReconstruction):
    """Search a generator of normal samples for the one nearest to a sample: what is left over is the score.

    A generator ``G`` and a discriminator are trained against each other on normal samples; no encoder exists. To score
    a sample both are frozen, and its latent code is searched for by ``inversion_steps`` steps of Adam on:

        A(z) = (1 - lambda) |x - G(z)| / r + lambda |f(x) - f(G(z))| / d

    with ``f`` the last hidden layer of the discriminator, and ``r`` and ``d`` the averages of both terms over
    searches for training samples. The same expression at the best code met, ``z*``, is the score; ``G(z*)`` is the
    restored sample and ``|x - G(z*)|`` the map. Missing values take no part in the search, so that restoring a
    sample with a hole fills the hole with what the generator puts there.

    The codes of a whole block are searched together, one row of one tensor each, from fixed starts; every row has
    its own gradient and its own moments, so a score does not depend on the other samples of a call. Where the
    generator ends and the discriminator begins with an affine layer and no value is missing, both layers are
    multiplied out once a search (:class:`~genad.nn.adversarial.DenseSearch`).

    **When to use.** When the restored sample must be one that the model could have generated, and to fill holes.

    **When it fails.** A search costs ``inversion_steps`` passes forth and back through both networks. Whatever the
    generator does not cover counts as anomalous, and adversarial training on some hundred samples covers little. Scores
    of different ``inversion_steps`` cannot be compared. Image AUROC at 32 px, three seeds: 0.575 on magnetic_tile,
    0.722 on elpv, 0.771 on brain_mri and 0.801 on MNIST one against the rest; pixel PCA has 0.640, 0.668, 0.779 and
    0.943, so that only elpv comes out ahead. More training did not mend that in trials of one seed: 2,000 updates gave
    0.579 on magnetic_tile, and 0.687 on elpv and 0.719 on brain_mri, though 0.843 where the digits 0 and 5 had 0.801.
    Dense networks half as wide gave 0.574, 0.723, 0.748 and 0.792 in the same order. Neither was kept, with these
    figures in view. With the digit 2 as the normal class it had 0.589 in a trial: from 500 images the generator does
    not learn all ways to write a digit, and the residual then measures ink. On 14 ADBench tables, three seeds, the mean
    AUROC / AP is 0.898 / 0.754, where ``ppca`` has 0.919 / 0.759. The three seeds have means of 0.900, 0.925 and 0.868:
    the generator covers more or less of the normals each time, which shows where there are many kinds of them (AUROC on
    pendigits 0.81, 0.97 and 0.61, on mammography 0.83, 0.88 and 0.66). On two recordings of each of seven sets AUROC /
    AP / VUS-PR are 0.737 / 0.501 / 0.484 on average, those of PCA of windows 0.803 / 0.611 / 0.606; in AUROC it is
    furthest behind on SKAB (0.750, 0.945) and UCR (0.813, 1.000).

    Images of at most 4,096 values get dense networks where no ``backbone`` is asked for: a search takes a
    fraction of the time, and with some hundred training images they cover more than convolutions do.
    ``backbone="conv"`` gives the strided convolutions of the paper, without batch normalisation, which would mix
    the samples of a search; in a trial they did better on elpv (0.775), and worse than chance on the digit 2. The
    choice of dense networks was made with these figures in view.

    Parameters
    ----------
    lambda_d : float
        Weight of the discriminator's features, from 0 (residual alone) to 1.
    inversion_steps : int
        Steps of a search, at least 1; 500 in the paper.
    inversion_rate : float
        Adam's learning rate in the search, above 0, in standard deviations of the latent prior.
    restarts : int
        Searches a sample from different starts, at least 1; the best counts.
    reduction : {"scaled", "mean", "sum"}
        Whether each term is divided by its average over training samples, averaged over its values, or added up as
        in the paper. ``lambda_d`` weighs the terms after that.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> X = np.random.default_rng(0).normal([2.0, -1.0], 0.5, size=(500, 2))
    >>> detector = AnoGAN(training=Training(updates=100)).fit(X)
    >>> near, far = detector.anomaly_score([[2.0, -1.0], [6.0, 4.0]])
    >>> bool(far > 3 * near)
    True
    >>> detector.sample(3).shape
    (3, 2)

    References
    ----------
    Schlegl, Seeböck, Waldstein, Schmidt-Erfurth and Langs (2017), Unsupervised anomaly detection with generative
    adversarial networks to guide marker discovery, IPMI.
    """

    lambda_d: float = 0.1
    inversion_steps: int = 100
    inversion_rate: float = 0.05
    restarts: int = 1
    reduction: Literal["scaled", "mean", "sum"] = "scaled"

    grad_at_score = True
    inpaints = True
    defaults = Training(
        epochs=50, min_updates=400, max_updates=600, batch_size=64, lr=1e-3, optimizer="rmsprop", warmup=30, ema=0.99
    )

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "inversion_steps", "restarts")
        check_number(self, "lambda_d", "[0, 1]")
        check_number(self, "inversion_rate", "(0, inf)")
        check_choice(self, "reduction", ("scaled", "mean", "sum"))

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make both networks, and fix the starts of the searches."""
        return AnoGANNet(shape, self.code_length(shape), int(self.restarts), self.backbone)

    def phases(self, net: nn.Module) -> Sequence[Phase]:  # noqa: ARG002 - the same for every network
        """Return a step of the discriminator and one of the generator on each batch."""
        return [
            Phase("discriminator", self.discriminator_loss, modules=("critic",)),
            Phase("generator", self.generator_loss, modules=("generator",)),
        ]

    def discriminator_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the cross-entropy of telling real samples from generated ones."""
        with torch.no_grad():
            made = batch.keep_observed(net.generate(len(batch)))
        return discriminator_loss(net.critic(batch.x), net.critic(made))

    def generator_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the non-saturating cross-entropy of passing generated samples off as real."""
        return generator_loss(net.critic(batch.keep_observed(net.generate(len(batch)))))

    def terms(self, net: Any, batch: Batch, features: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean absolute residuals of values and of features, each (B,)."""
        residual = batch.sample_mean((made - batch.x).abs())
        return residual, feature_distance(features, net.critic.features(batch.keep_observed(made)), 1)

    def _through(self, net: Any, batch: Batch) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Return what gives both terms of codes (B, latent) by running both networks, whatever they are made of."""
        with torch.no_grad():
            features = net.critic.features(batch.x)
        return lambda codes: self.terms(net, batch, features, net.generator(codes))

    def invert(self, net: Any, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Search for the latent codes of all samples of a batch at once.

        Parameters
        ----------
        net : AnoGANNet
            The trained network, whose parameters are frozen.
        batch : Batch
            Samples (B, *shape).

        Returns
        -------
        codes : Tensor of shape (B, latent)
            The best code met from any start.
        losses : Tensor of shape (B,)
            Its loss, which is the score.
        trace : Tensor of shape (inversion_steps + 1, restarts * B)
            The loss of every search before each step and after the last.
        """
        n, starts = len(batch), len(net.start)
        x = batch.x.repeat(starts, *[1] * (batch.x.ndim - 1))
        mask = None if batch.mask is None else batch.mask.repeat(starts, *[1] * (batch.x.ndim - 1))
        many = Batch(x, mask)
        weight = net.unit.new_tensor([1 - self.lambda_d, self.lambda_d]) / net.unit

        # what is missing is hidden from the critic too, which keeps the layers of the two networks apart
        dense = mask is None and DenseSearch.fits(net.generator, net.critic)
        apart = DenseSearch(net.generator, net.critic, x) if dense else self._through(net, many)

        def loss(codes: Tensor) -> Tensor:
            values, features = apart(codes)
            return weight[0] * values + weight[1] * features

        codes, losses, trace = invert_latent(
            loss,
            net.start.repeat_interleave(n, 0),
            steps=self.inversion_steps,
            rate=self.inversion_rate,
        )
        lowest, which = losses.view(starts, n).min(0)
        return codes.view(starts, n, -1)[which, torch.arange(n, device=which.device)], lowest, trace

    def _block(self, shape: tuple[int, ...]) -> int:
        # The calls of a step cost much beside its arithmetic; the more rows share them, the less that is a row.
        rows = super()._block(shape)
        net: Any = self.net_
        return rows * (_WIDER if rows <= _FEW and DenseSearch.fits(net.generator, net.critic) else 1)

    def finish(self, net: Any, samples: Samples) -> None:
        """Set what the two terms are divided by, the same for every sample to come."""
        few = everything(samples, self._device, _SCALE_OF)
        with torch.no_grad():
            width = net.critic.features(few.x[:1]).shape[1]
        if self.reduction == "sum":
            net.unit.copy_(net.unit.new_tensor([1 / few.x[0].numel(), 1 / width]))
        elif self.reduction == "scaled":
            codes, _, _ = self.invert(net, few)
            with torch.no_grad():
                found = self.terms(net, few, net.critic.features(few.x), net.generator(codes))
            net.unit.copy_(torch.stack([term.mean() for term in found]).clamp_min(1e-6))

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Score by the loss at the best code; the generated sample there is the restored one."""
        codes, losses, _ = self.invert(net, batch)
        if not want:
            return Inference(losses)
        with torch.no_grad():
            made = net.generator(codes)
        return Inference.of(batch, want, losses, (batch.x - made).abs(), made)

    def reconstruct(self, net: Any, batch: Batch) -> Tensor:
        """Return the generated sample nearest to each sample in its observed values."""
        with torch.no_grad():
            made: Tensor = net.generator(self.invert(net, batch)[0])
        return made
