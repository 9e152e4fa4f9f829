"""Adversarial dual autoencoders: the generator and the discriminator are both autoencoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genad.core.families import EncodeMixin
from genad.core.inference import Inference, Want
from genad.core.parameters import check_number
from genad.core.registry import Card, Family, register
from genad.core.training import Phase, Training
from genad.data.kinds import DENSE
from genad.data.samples import Batch
from genad.nn import Backbone, decoder, encoder
from genad.nn.backbone import for_tables
from genad.reconstruction.autoencoder.autoencoder import AutoencoderNet
from genad.reconstruction.gan.codes import CodedReconstruction

_TABLE = Backbone("mlp", hidden=(64, 64), activation="tanh")


class DualNet(nn.Module):
    """Two autoencoders of one shape, with weights of their own.

    Parameters
    ----------
    generator, discriminator : nn.Module
        ``(B, *shape) -> (B, *shape)``.
    """

    def __init__(self, generator: nn.Module, discriminator: nn.Module) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator

    def forward(self, x: Tensor) -> Tensor:
        """Return ``D(G(x))``."""
        restored: Tensor = self.discriminator(self.generator(x))
        return restored


@register(
    Card(
        title="Anomaly detection with adversarial dual autoencoders",
        authors="Vu, Ueta, Hashimoto, Maeno, Pranata, Shen",
        venue="arXiv 1902.06924",
        year=2019,
        family=Family.GAN,
        kinds=DENSE,
        row="1.1.5-01",
        summary="Two autoencoders trained against each other; what both in turn cannot reconstruct is anomalous.",
        tags=("adversarial", "energy", "hybrid"),
    ),
    name="adae",
)
@dataclass(eq=False, repr=False)
class ADAE(EncodeMixin, CodedReconstruction):
    """Train two autoencoders against each other: the score is the mean squared error of ``x - D(G(x))``.

    The discriminator D is an energy: it learns to reconstruct real samples and to fail on what the generator G makes.
    G learns to reconstruct samples, and to make what D reconstructs well:

        L_G = |x - G(x)| + |G(x) - D(G(x))|
        L_D = |x - D(x)| + max(0, m - |G(x) - D(G(x))|),   m = margin * |x - D(x)|

    one step each on every batch, with absolute differences averaged over values, G standing still in ``L_D`` and D in
    ``L_G``. The paper's ``L_D`` simply subtracts the error on G(x), which has no lower bound: once D fails on
    G(x) thoroughly nothing is left to learn. The margin m, a multiple of the error on real samples, ends that. An
    anomaly has to pass two autoencoders, and D has seen none of what G makes of anomalies.

    By default the opponent is weak. On cardio (one-class, one seed) the second term of ``L_D`` is above 0 in 29 % of
    the updates, and at the end D reconstructs G(x) better, with an error of 0.15, than real samples, with 0.28. The
    contest adds next to nothing to the AUROC there: 0.949, and 0.947 without it (a margin of 0). With a margin of 2
    the term is above 0 in 91 % of the updates, D fails on real samples as much as on G(x) (3.3 and 3.2), and the AUROC
    is 0.913.

    **When to use.** Images or rows whose anomalies one autoencoder reconstructs too well.

    **When it fails.** It has all the blur of two bottlenecks, and small anomalies drown in it. A strong opponent may
    make D fail on normal samples as well, and the score is taken behind D. On three ADBench tables (cardio,
    ionosphere, thyroid), one-class, one seed, AUROC is 0.949, 0.964 and 0.981 with the margin of 0.5, which was chosen
    on them; 0.947, 0.966 and 0.984 without an opponent; and 0.913, 0.872 and 0.647 with a margin of 2: on tables the
    second autoencoder matters more than the contest. The residual of principal components has 0.826, 0.958 and 0.865.
    On 14 ADBench tables, three seeds, the mean AUROC / AP is 0.938 / 0.807; :class:`~genad.PPCA` has 0.919 / 0.759. On
    two recordings of each of seven sets AUROC / AP / VUS-PR are 0.798 / 0.577 / 0.553 on average, those of PCA of
    windows 0.803 / 0.611 / 0.606; in AUROC it is furthest behind on SKAB (0.707, 0.945) and SMAP and MSL (0.516,
    0.609).

    Parameters
    ----------
    margin : float
        Error on generated samples that D need not exceed, in multiples of its error on real ones, at least 0; 0 leaves
        the generator without an opponent.
    adversarial_weight : float
        Weight of the second term of ``L_G``, at least 0; 1 in the paper.

    Examples
    --------
    Two features that lie on a parabola; the second test point is off the curve.

    >>> import numpy as np
    >>> from genad import Training
    >>> rng = np.random.default_rng(0)
    >>> t = rng.uniform(-1, 1, 600)
    >>> X = np.column_stack([t, t**2]) + 0.02 * rng.normal(size=(600, 2))
    >>> detector = ADAE(latent=1, training=Training(updates=300)).fit(X)
    >>> on, off = detector.anomaly_score([[0.5, 0.25], [0.0, 2.0]])
    >>> bool(off > 10 * on)
    True

    References
    ----------
    Vu et al. (2019), Anomaly detection with adversarial dual autoencoders, arXiv 1902.06924.
    """

    margin: float = 0.5
    adversarial_weight: float = 1.0

    defaults = Training(epochs=20, min_updates=400, max_updates=1500, batch_size=64, lr=1e-2, warmup=10)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number(self, "margin", "[0, inf)")
        check_number(self, "adversarial_weight", "[0, inf)")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make two autoencoders, each from its own random numbers."""
        latent = self.code_length(shape)
        spec = for_tables(shape, self.backbone, _TABLE)
        pair = [AutoencoderNet(encoder(shape, latent, spec), decoder(shape, latent, spec)) for _ in range(2)]
        return DualNet(*pair)

    def phases(self, net: nn.Module) -> Sequence[Phase]:  # noqa: ARG002 - the same for every network
        """Return a step of the generator and one of the discriminator on each batch."""
        return [
            Phase("generator", self.generator_loss, modules=("generator",)),
            Phase("discriminator", self.discriminator_loss, modules=("discriminator",)),
        ]

    def generator_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the error of G and, weighted, the error of D on what G makes."""
        made = net.generator(batch.x)
        loss = batch.sample_mean((batch.x - made).abs())
        made = batch.keep_observed(made)
        again = batch.sample_mean((made - net.discriminator(made)).abs())
        return (loss + self.adversarial_weight * again).mean()

    def discriminator_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the error of D on real samples, and how far its error on G's falls short of the margin."""
        with torch.no_grad():
            made = batch.keep_observed(net.generator(batch.x))
        real = batch.sample_mean((batch.x - net.discriminator(batch.x)).abs()).mean()
        fake = batch.sample_mean((made - net.discriminator(made)).abs()).mean()
        loss: Tensor = real + (self.margin * real.detach() - fake).clamp_min(0.0)
        return loss

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Score and map what is left behind both; the restored sample is the generator's, which is less blurred."""
        made = net.generator(batch.x)
        # D sees missing values where it saw them in training, at the mean.
        residual = batch.keep_observed(batch.x - net.discriminator(batch.keep_observed(made))).square()
        return Inference.of(batch, want, batch.sample_mean(residual), residual, made)

    def code(self, net: Any, batch: Batch) -> Tensor:
        """Return the code of the generator."""
        code: Tensor = net.generator.encode(batch.x)
        return code
