"""f-AnoGAN: a Wasserstein GAN of normal samples, and an encoder trained afterwards to find their codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genad.core.families import EncodeMixin, SampleMixin
from genad.core.inference import Inference, Want
from genad.core.parameters import check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.core.training import Phase, Training
from genad.data.kinds import DENSE
from genad.data.samples import Batch
from genad.nn import Backbone, decoder, encoder
from genad.nn.adversarial import Critic, feature_distance, gradient_penalty
from genad.reconstruction.gan.codes import CodedReconstruction, GeneratorNet
from genad.reconstruction.gan.crossing import Crossable

# Weight of the latest batch in the running variance of the critic's features.
_FOLLOW = 0.05


class FAnoGANNet(GeneratorNet):
    """Generator, critic, and the encoder that joins them later.

    The parameters are those of :class:`~genad.reconstruction.gan.codes.GeneratorNet`.

    Attributes
    ----------
    spread : Tensor
        Mean variance of the critic's features over training samples, the unit of the feature residual.
    """

    spread: Tensor

    def __init__(self, shape: tuple[int, ...], latent: int, spec: Backbone | str | None) -> None:
        super().__init__(shape, latent, spec)
        self.generator = decoder(shape, latent, self.spec)
        self.critic = Critic(shape, self.spec)
        # The prior is a standard normal, but codes are kept within its dense centre: what the generator makes of far
        # codes was hardly trained.
        self.encoder = nn.Sequential(encoder(shape, latent, self.spec), nn.Tanh())
        self.register_buffer("spread", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """Return the generated sample at the code of each sample."""
        made: Tensor = self.generator(self.encoder(x))
        return made


@register(
    Card(
        title="f-AnoGAN: Fast unsupervised anomaly detection with generative adversarial networks",
        authors="Schlegl, Seeböck, Waldstein, Langs, Schmidt-Erfurth",
        venue="Medical Image Analysis",
        year=2019,
        family=Family.GAN,
        kinds=DENSE,
        row="1.1.3-08",
        summary="Wasserstein GAN first, then an encoder that maps samples to its latent space.",
        tags=("encoder", "feature matching", "Wasserstein", "inversion"),
    ),
    name="f_ano_gan",
)
@dataclass(eq=False, repr=False)
class FAnoGAN(Crossable, SampleMixin, EncodeMixin, CodedReconstruction):
    """Train a Wasserstein GAN on normal samples, freeze it, then learn an encoder into its latent space.

    The first stage trains a generator ``G`` and a critic with gradient penalty. In the second only an encoder ``E``
    is trained, on the way from sample to code to sample, with ``f`` the last hidden layer of the critic:

        A(x) = mean (x - G(E(x)))^2 + kappa mean (f(x) - f(G(E(x))))^2 / v

    with ``v`` the mean variance of the features over training samples: a Wasserstein critic's features have any
    scale, and divided so, both terms are in units of the variance of normal samples. The same expression is the
    score, so that scoring is one pass forth and no search. ``G(E(x))`` is the restored sample, its squared residual
    the map.

    **When to use.** As :class:`~genad.reconstruction.gan.ano_gan.AnoGAN`, a hundred times faster in scoring.

    **When it fails.** The encoder can only reach what the generator makes: what adversarial training on few samples
    left out counts as anomalous. Image AUROC at 32 px, three seeds: 0.611 on magnetic_tile, 0.723 on elpv, 0.800 on
    brain_mri and 0.853 on MNIST one against the rest; pixel PCA has 0.640, 0.668, 0.779 and 0.943. In a trial with the
    digit 2 it had 0.704, where the image residual of the same network alone reaches 0.814. That features are divided by
    their variance was decided with such figures in view. Images of at most 4,096 values get dense networks where no
    ``backbone`` is asked for; ``backbone="conv"`` gives convolutions, far slower under the gradient penalty. On 14
    ADBench tables, three seeds, the mean AUROC / AP is 0.918 / 0.752; :class:`~genad.PPCA` has 0.919 / 0.759. On two
    recordings of each of seven sets AUROC / AP / VUS-PR are 0.746 / 0.471 / 0.450 on average, those of PCA of windows
    0.803 / 0.611 / 0.606; in AUROC it is furthest behind on SMAP and MSL (0.263, 0.609) and SKAB (0.726, 0.945).

    Parameters
    ----------
    kappa : float
        Weight of the critic's features in the encoder's loss and in the score, at least 0.
    penalty : float
        Weight of the gradient penalty, above 0.
    critic_steps : int
        Steps of the critic for one of the generator, at least 1.
    gan_share : float
        Share of the updates spent on the first stage, in (0, 1).

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> X = np.random.default_rng(0).normal([2.0, -1.0], 0.5, size=(500, 2))
    >>> detector = FAnoGAN(training=Training(updates=100)).fit(X)
    >>> near, far = detector.anomaly_score([[2.0, -1.0], [6.0, 4.0]])
    >>> bool(far > 3 * near)
    True
    >>> detector.encode(X[:4]).shape
    (4, 1)

    References
    ----------
    Schlegl, Seeböck, Waldstein, Langs and Schmidt-Erfurth (2019), f-AnoGAN: Fast unsupervised anomaly detection with
    generative adversarial networks, Medical Image Analysis 54.
    Gulrajani et al. (2017), Improved training of Wasserstein GANs, NeurIPS.
    """

    kappa: float = 1.0
    penalty: float = 10.0
    critic_steps: int = 5
    gan_share: float = 0.7

    critic_side = ("critic", "spread")
    # the gradient penalty differentiates inside the loss, for which stacked networks have no rule
    stackable = False
    defaults = Training(epochs=150, min_updates=1500, max_updates=2500, batch_size=64, lr=3e-3)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "critic_steps")
        check_number(self, "kappa", "[0, inf)")
        check_number(self, "penalty", "(0, inf)")
        check_number(self, "gan_share", "(0, 1)")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make generator, critic and encoder."""
        return FAnoGANNet(shape, self.code_length(shape), self.backbone)

    def phases(self, net: nn.Module) -> Sequence[Phase]:  # noqa: ARG002 - the same for every network
        """Return critic and generator until ``gan_share`` of the training, and the encoder from there on."""
        share = self.gan_share
        return [
            Phase("critic", self.critic_loss, modules=("critic",), stop=share),
            Phase("generator", self.generator_loss, modules=("generator",), every=self.critic_steps, stop=share),
            Phase("encoder", self.encoder_loss, modules=("encoder",), start=share),
        ]

    def critic_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return how much higher generated samples are rated than real ones, and the gradient penalty."""
        with torch.no_grad():
            made = batch.keep_observed(net.generate(len(batch)))
        apart = net.critic(made).mean() - net.critic(batch.x).mean()
        return apart + self.penalty * gradient_penalty(net.critic, batch.x, made)

    def generator_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the negative rating of generated samples."""
        return -net.critic(batch.keep_observed(net.generate(len(batch)))).mean()

    def compare(self, net: Any, batch: Batch, made: Tensor) -> Tensor:
        """Return the squared residual plus ``kappa`` times that of the features, each averaged, (B,)."""
        apart = batch.sample_mean((batch.x - made).square())
        if self.kappa:
            real, fake = net.critic.features(batch.x), net.critic.features(batch.keep_observed(made))
            apart = apart + self.kappa * feature_distance(real, fake) / net.spread
        return apart

    def encoder_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the mean score of a batch, which is what the encoder minimises."""
        return self.compare(net, batch, net(batch.x)).mean()

    def after_step(self, net: Any, batch: Batch) -> None:
        """Follow the variance of the critic's features."""
        with torch.no_grad():
            if len(batch) > 1:
                found = net.critic.features(batch.x).var(0).mean().clamp_min(1e-6)
                net.spread.lerp_(found, _FOLLOW)

    def code(self, net: Any, batch: Batch) -> Tensor:
        """Return the latent code of each sample, within (-1, 1)."""
        code: Tensor = net.encoder(batch.x)
        return code

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Score by one pass through encoder and generator, and the critic's features of both samples."""
        made = net(batch.x)
        return self.answer(batch, want, self.compare(net, batch, made), made)
