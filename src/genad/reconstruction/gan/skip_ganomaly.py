"""Skip-GANomaly: a U-Net that reconstructs images against a discriminator, and the features of both compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genad.core.families import ReconstructionDetector
from genad.core.inference import Inference, Want
from genad.core.parameters import check_number
from genad.core.registry import Card, Family, register
from genad.core.training import Phase, Training
from genad.data.kinds import Kind
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn import Backbone, translator
from genad.nn.adversarial import Critic, discriminator_loss, feature_distance, generator_loss, leaky
from genad.reconstruction.gan.crossing import Crossable

# Axes of one image.
_AXES = 3


class SkipGANomalyNet(nn.Module):
    """A U-Net and a discriminator that shows its last hidden layer.

    Parameters
    ----------
    shape : tuple of int
        Channels, rows and columns.
    spec : Backbone, str or None
        Which networks; None takes convolutions.
    """

    def __init__(self, shape: tuple[int, ...], spec: Backbone | str | None) -> None:
        super().__init__()
        spec = leaky(shape, spec)
        self.generator = translator(shape, spec)
        self.critic = Critic(shape, spec)

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction of each image."""
        made: Tensor = self.generator(x)
        return made


@register(
    Card(
        title="Skip-GANomaly: Skip connected and adversarially trained encoder-decoder anomaly detection",
        authors="Akçay, Atapour-Abarghouei, Breckon",
        venue="IJCNN",
        year=2019,
        family=Family.GAN,
        kinds=(Kind.IMAGE,),
        summary="A U-Net reconstructs images against a discriminator; values and features are compared.",
        tags=("U-Net", "feature matching", "discriminator"),
    ),
    name="skip_ganomaly",
)
@dataclass(eq=False, repr=False)
class SkipGANomaly(Crossable, ReconstructionDetector):
    """Reconstruct images by a U-Net that a discriminator trains as well, and compare values and features.

    With ``f`` the last hidden layer of the discriminator ``D``, generator and discriminator minimise:

        L_G = w_adv BCE(D(x'), 1) + w_lat |f(x) - f(x')|^2 + w_con |x - x'|
        L_D = BCE(D(x), 1) + BCE(D(x'), 0) + |f(x) - f(x')|^2

    and the score is ``(1 - lambda) |x - x'|^2 + lambda |f(x) - f(x')|^2``, each averaged. The term of the features in
    ``L_D`` is that of the authors' program. The squared residual is the map, the reconstruction the restored image.

    **When to use.** Images whose fine detail a bottleneck would blur, and as a base of
    :class:`~genad.reconstruction.gan.gan_ensemble.GANEnsemble`.

    **When it fails.** Nothing passes a bottleneck: the skip connections can hand an anomaly through as it is, and the
    longer the training, the better they do. It was
    tried on small images alone; no figures of a benchmark stand here.

    Parameters
    ----------
    adversarial_weight, latent_weight, contextual_weight : float
        Weights of cross-entropy, features and reconstruction in the generator's loss, each at least 0; the last one
        above 0.
    lambda_d : float
        Weight of the features in the score, from 0 (residual alone) to 1.

    Examples
    --------
    Smooth images; the second test image has a bright square.

    >>> import numpy as np
    >>> from genad import Training
    >>> rng = np.random.default_rng(0)
    >>> grid = np.linspace(-1, 1, 8)
    >>> X = rng.normal(size=(500, 1, 1, 1)) * grid + rng.normal(size=(500, 1, 1, 1)) * grid[:, None]
    >>> detector = SkipGANomaly(training=Training(updates=40)).fit(X)
    >>> test = X[[0, 0]].copy()
    >>> test[1, :, 3:5, 3:5] += 4.0
    >>> clean, square = detector.anomaly_score(test)
    >>> bool(square > 2 * clean)
    True

    References
    ----------
    Akçay, Atapour-Abarghouei and Breckon (2019), Skip-GANomaly: Skip connected and adversarially trained
    encoder-decoder anomaly detection, IJCNN.
    """

    adversarial_weight: float = 1.0
    latent_weight: float = 1.0
    contextual_weight: float = 50.0
    lambda_d: float = 0.1

    pairing = "all"
    defaults = Training(epochs=15, min_updates=300, max_updates=600, batch_size=32, lr=2e-3)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for name in ("adversarial_weight", "latent_weight"):
            check_number(self, name, "[0, inf)")
        check_number(self, "contextual_weight", "(0, inf)")
        check_number(self, "lambda_d", "[0, 1]")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make both networks.

        Raises
        ------
        InputError
            For samples that are no images; other detectors may hand over such.
        """
        if len(shape) != _AXES:
            raise InputError(
                f"X: samples of shape {shape} were given; Skip-GANomaly takes images (channels, rows, columns). "
                "Take GANomaly for other samples."
            )
        return SkipGANomalyNet(shape, self.backbone)

    def phases(self, net: nn.Module) -> Sequence[Phase]:  # noqa: ARG002 - the same for every network
        """Return a step of the generator and one of the discriminator on each batch."""
        return [
            Phase("generator", self.generator_loss, modules=("generator",)),
            Phase("discriminator", self.discriminator_loss, modules=("critic",)),
        ]

    def generator_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the weighted sum of cross-entropy, features and reconstruction."""
        made = net(batch.x)
        logit, fake = net.critic.both(batch.keep_observed(made))
        loss = self.contextual_weight * batch.sample_mean((batch.x - made).abs()).mean()
        loss = loss + self.adversarial_weight * generator_loss(logit)
        return loss + self.latent_weight * feature_distance(net.critic.features(batch.x), fake).mean()

    def discriminator_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the cross-entropy of telling images from reconstructions, and the difference of their features."""
        with torch.no_grad():
            made = batch.keep_observed(net(batch.x))
        (real, seen), (fake, again) = net.critic.both(batch.x), net.critic.both(made)
        return 2.0 * discriminator_loss(real, fake) + feature_distance(seen, again).mean()

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Score by the residual of the image and that of its features."""
        made = net(batch.x)
        score = residual = batch.sample_mean((batch.x - made).square())
        if self.lambda_d:
            real, fake = net.critic.features(batch.x), net.critic.features(batch.keep_observed(made))
            score = (1 - self.lambda_d) * residual + self.lambda_d * feature_distance(real, fake)
        return self.answer(batch, want, score, made)
