"""GANomaly: encode, decode, encode again, and compare the two codes."""

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
from genad.errors import InputError
from genad.nn import Backbone, decoder, encoder
from genad.nn.adversarial import Critic, discriminator_loss, feature_distance, leaky
from genad.reconstruction.gan.codes import CodedReconstruction
from genad.reconstruction.gan.crossing import Crossable


class GANomalyNet(nn.Module):
    """Encoder, decoder, a second encoder with weights of its own, and the discriminator.

    Parameters
    ----------
    shape : tuple of int
        Shape of one sample.
    latent : int
        Length of the codes.
    spec : Backbone, str or None
        Which networks; None chooses by the shape.
    """

    def __init__(self, shape: tuple[int, ...], latent: int, spec: Backbone | str | None) -> None:
        super().__init__()
        spec = leaky(shape, spec)
        self.encode = encoder(shape, latent, spec)
        self.decode = decoder(shape, latent, spec)
        self.encode_again = encoder(shape, latent, spec)
        self.critic = Critic(shape, spec)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the code of a batch, its reconstruction, and the code of the reconstruction."""
        code = self.encode(x)
        made = self.decode(code)
        return code, made, self.encode_again(made)


@register(
    Card(
        title="GANomaly: Semi-supervised anomaly detection via adversarial training",
        authors="Akcay, Atapour-Abarghouei, Breckon",
        venue="ACCV",
        year=2018,
        family=Family.GAN,
        kinds=DENSE,
        row="1.1.3-06",
        summary="Encode, decode and encode again; anomalies have two codes that differ.",
        tags=("latent error", "feature matching", "discriminator"),
    ),
    name="ganomaly",
)
@dataclass(eq=False, repr=False)
class GANomaly(Crossable, EncodeMixin, CodedReconstruction):
    """Encode, decode, encode again: the score is the distance of the two codes, ``mean (E1(x) - E2(D(E1(x))))^2``.

    The generator is an encoder, a decoder, and a second encoder of the same architecture with its
    own weights. It minimises three losses, with ``f`` the last hidden layer of a discriminator
    that is trained in turn to tell samples from reconstructions:

        L = w_adv |f(x) - f(x')|^2 + w_con |x - x'| + w_enc |z - z'|^2

    There is no cross-entropy in the generator's loss: matching the discriminator's features is what
    makes it adversarial. The second encoder has seen reconstructions of normal samples alone, so it
    fails to find the code of a sample whose reconstruction is far from anything normal. The
    reconstruction is the restored sample, and its squared residual the map; the score itself
    has no place in the sample.

    **When to use.** Anomalies that change what a sample is rather than some of its values: a code is compared, so a
    reconstruction that is a little blurred everywhere costs nothing.

    **When it fails.** A small anomaly leaves the code as it is. The distance counts every direction of the code alike,
    and says nothing of what the first encoder does not see. Image AUROC at 32 px, one seed: 0.595 on magnetic_tile,
    0.722 on elpv, 0.750 on brain_mri and 0.905 on MNIST one against the rest; pixel PCA has 0.640, 0.668, 0.779 and
    0.943. It is ahead on elpv alone; on textures with small defects take another method. On 14 ADBench tables, three
    seeds, the mean AUROC / AP is 0.873 / 0.684; :class:`~genad.PPCA` has 0.919 / 0.759. In one seed its AUROC is
    furthest behind on annthyroid (0.62 against 0.85), cardio (0.80, 0.94) and thyroid (0.88, 0.97). On two recordings
    of each of seven sets AUROC / AP / VUS-PR are 0.737 / 0.435 / 0.453 on average, those of PCA of windows 0.803 /
    0.611 / 0.606; in AUROC it is furthest behind on SKAB (0.592, 0.945) and SMAP and MSL (0.336, 0.609).

    Parameters
    ----------
    adversarial_weight, contextual_weight, encoder_weight : float
        Weights of feature matching, reconstruction and code in the generator's loss, each at least 0.
    p : {1, 2}
        Mean absolute (as in the paper) or mean squared (as in its code) difference of the codes.

    Examples
    --------
    Two features that lie on a parabola; the second test point is off the curve.

    >>> import numpy as np
    >>> from genad import Training
    >>> t = np.random.default_rng(0).uniform(-1, 1, 600)
    >>> X = np.column_stack([t, t**2])
    >>> detector = GANomaly(latent=1, training=Training(updates=100)).fit(X)
    >>> on, off = detector.anomaly_score([[0.5, 0.25], [2.0, -4.0]])
    >>> bool(off > 10 * on)
    True

    References
    ----------
    Akcay, Atapour-Abarghouei and Breckon (2018), GANomaly: Semi-supervised anomaly detection via
    adversarial training, ACCV.
    """

    adversarial_weight: float = 1.0
    contextual_weight: float = 50.0
    encoder_weight: float = 1.0
    p: int = 2

    critic_scores = False
    defaults = Training(epochs=20, min_updates=600, max_updates=800, batch_size=32, lr=2e-3)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for name in ("adversarial_weight", "contextual_weight", "encoder_weight"):
            check_number(self, name, "[0, inf)")
        if self.contextual_weight == 0 and self.encoder_weight == 0:
            raise InputError(
                "contextual_weight: 0 was given with encoder_weight=0, which leaves the score without "
                "training; set one of them above 0."
            )
        if self.p not in (1, 2):
            raise InputError(f"p: {self.p!r} was given; use 1 or 2.")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the three parts of the generator and the discriminator."""
        return GANomalyNet(shape, self.code_length(shape), self.backbone)

    def phases(self, net: nn.Module) -> Sequence[Phase]:  # noqa: ARG002 - the same for every network
        """Return a step of the generator and one of the discriminator on each batch."""
        return [
            Phase("generator", self.generator_loss, modules=("encode", "decode", "encode_again")),
            Phase("discriminator", self.discriminator_loss, modules=("critic",)),
        ]

    def generator_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the weighted sum of feature matching, reconstruction and code losses."""
        code, made, again = net(batch.x)
        loss = self.contextual_weight * batch.sample_mean((batch.x - made).abs()).mean()
        if self.encoder_weight:
            loss = loss + self.encoder_weight * (code - again).square().mean()
        if self.adversarial_weight:
            real, fake = net.critic.features(batch.x), net.critic.features(batch.keep_observed(made))
            loss = loss + self.adversarial_weight * feature_distance(real, fake).mean()
        return loss

    def discriminator_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the cross-entropy of telling samples from their reconstructions."""
        with torch.no_grad():
            made = batch.keep_observed(net.decode(net.encode(batch.x)))
        return discriminator_loss(net.critic(batch.x), net.critic(made))

    def code(self, net: Any, batch: Batch) -> Tensor:
        """Return the first code of each sample."""
        code: Tensor = net.encode(batch.x)
        return code

    def reconstruct(self, net: Any, batch: Batch) -> Tensor:
        """Return the decoded code of each sample."""
        made: Tensor = net.decode(net.encode(batch.x))
        return made

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Compare the two codes; the image's own error is in the map and not in the score."""
        code, made, again = net(batch.x)
        return self.answer(batch, want, feature_distance(code, again, 1 if self.p == 1 else 2), made)
