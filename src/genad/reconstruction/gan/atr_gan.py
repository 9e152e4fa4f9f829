"""After ATR-GAN: a GAN makes more of the few labelled anomalies of a process, and a classifier learns from both."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.core.inference import Inference, Want
from genad.core.labelled import LabelledDetector, LabelledSamples, LabelStore
from genad.core.parameters import check_choice, check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.core.splits import Labels
from genad.core.training import Phase, Training, TrainingReport
from genad.core.windows import SeriesDetector, as_windows
from genad.data.kinds import Kind
from genad.data.samples import ArraySamples, Batch, Samples, WindowSamples, everything
from genad.errors import DataWarning
from genad.nn import Backbone, decoder, encoder
from genad.nn.adversarial import Critic, discriminator_loss, generator_loss, leaky
from genad.reconstruction.gan.nearest import nearest_kept

# Widths of the generator, from its output to its code.
_GENERATOR = Backbone("mlp", hidden=(256, 128), activation="leaky_relu")
_CRITIC = Backbone("mlp", hidden=(128, 64), activation="leaky_relu")
# Known anomalous windows in an update, or looked at to find the nearest one.
_KNOWN = 64
# Normal windows kept to restore from, and distorted where no anomaly is known.
_BANK = 500
# Windows that the quality of an augmentation is measured on.
_JUDGED = 256
# Learning rate of the game, in that of the classifier.
_GAME = 0.4
# Neighbours among which SMOTE takes the other end of a line.
_NEIGHBOURS = 5
# Least share of known windows among the anomalous ones that the classifier learns from: what is made may be poor.
_SHARE = 0.5


def time_features(x: Tensor) -> Tensor:
    """Return vectors of windows (B, T, C) whose absolute differences add up to their distance in time, (B, 2 T C).

    ``d(a, b) = 1/T sum_t w(t) mean |(a_t, a_t - a_t-1) - (b_t, b_t - b_t-1)|``, averaged over channels, value and
    difference. The weight grows from 1/2 at the first step to 3/2 at the last one, which is being judged.

    Examples
    --------
    >>> ramp = torch.arange(4.0).view(1, 4, 1)
    >>> one, back = time_features(ramp), time_features(ramp.flip(1))
    >>> float((one - one).abs().sum()), round(float((one - back).abs().sum()), 3)
    (0.0, 1.875)
    """
    steps, channels = x.shape[1:]
    moved = torch.diff(x, dim=1, prepend=x[:, :1])
    weight = torch.linspace(0.5, 1.5, steps, device=x.device, dtype=x.dtype) / (2 * steps * channels)
    return (torch.cat([x, moved], 2) * weight[:, None]).flatten(1)


def time_distance(x: Tensor, others: Tensor) -> Tensor:
    """Return the distance in time of each of the windows (B, T, C) from each of others (M, T, C), (B, M)."""
    return torch.cdist(time_features(x), time_features(others), p=1.0)


def distorted(x: Tensor) -> Tensor:
    """Return windows (B, T, C) that turn anomalous at some step and stay so, in some of their channels.

    A third are shifted by 2 to 6 standard deviations, a third go on as another window does, with the sign changed, and
    a third get noise of 1 to 3 standard deviations.
    """
    batch, steps, channels = x.shape
    begin = torch.randint(steps, (batch, 1, 1))
    channel = torch.rand(batch, 1, channels)
    touched = (torch.arange(steps).view(1, -1, 1) >= begin) & (channel <= channel.amin(2, keepdim=True).clamp_min(0.5))
    side = 1.0 - 2.0 * torch.randint(2, (batch, 1, channels))
    shifted = x.cpu() + side * (2.0 + 4.0 * torch.rand(batch, 1, channels))
    spliced = -x.cpu()[torch.randperm(batch)]
    noisy = x.cpu() + (1.0 + 2.0 * torch.rand(batch, 1, channels)) * torch.randn(x.shape)
    kind = (torch.arange(batch) % 3).view(-1, 1, 1)
    changed = torch.where(kind == 0, shifted, torch.where(kind == 1, spliced, noisy))
    return torch.where(touched, changed, x.cpu()).to(x.device)


class ATRGANNet(nn.Module):
    """Generator, discriminator and classifier of windows.

    Parameters
    ----------
    shape : tuple of int
        Steps T and channels C of a window.
    latent : int
        Length of the generator's codes.
    spec : Backbone, str or None
        Networks of discriminator and classifier; None takes dense layers and convolutions.

    Attributes
    ----------
    told : LabelStore
        Known anomalous windows, while the network is trained.
    rarity : Tensor
        Known anomalous windows to one normal one, at most 1.
    bank : Tensor of shape (m, T * C)
        Normal windows.
    quality : Tensor of shape (3,)
        Mean distance of made windows from the nearest known one, and mean distance between two made ones and between
        two known ones.
    """

    rarity: Tensor
    bank: Tensor
    quality: Tensor

    def __init__(self, shape: tuple[int, ...], latent: int, spec: Backbone | str | None) -> None:
        super().__init__()
        self.latent = latent
        self.generator = decoder(shape, latent, _GENERATOR)
        self.critic = Critic(shape, spec or _CRITIC)
        self.detector = encoder(shape, 1, leaky(shape, spec))
        self.told = LabelStore(shape)
        self.register_buffer("rarity", torch.ones(()))
        self.register_buffer("bank", torch.zeros(1, int(np.prod(shape))))
        self.register_buffer("quality", torch.full((3,), torch.nan))

    def candidates(self, n: int) -> Tensor:
        """Generate ``n`` windows from standard normal codes."""
        made: Tensor = self.generator(torch.randn(n, self.latent, device=self.rarity.device))
        return made


@register(
    Card(
        title="Augmented time regularized generative adversarial network (ATR-GAN) for data augmentation in online "
        "process anomaly detection",
        authors="Li and others",
        venue="IEEE Transactions on Automation Science and Engineering",
        year=2021,
        family=Family.GAN,
        kinds=(Kind.SERIES,),
        row="1.1.3-04",
        summary="A GAN of the few labelled anomalies, whose best samples help to train a classifier.",
        tags=("few labels", "augmentation", "time regularisation", "classifier"),
    ),
    name="atr_gan",
)
@dataclass(eq=False, repr=False)
class ATRGAN(LabelledDetector, SeriesDetector):
    """Learn to make more of the few anomalies that are labelled, and train a classifier on both: its say is the score.

    ``y`` of ``fit`` labels the anomalous steps (1). A generator G is trained on windows that end in one, the minority,
    against a discriminator D, with a term that keeps what it makes near to known windows in their order of steps:

        L_G = BCE(D(selected), 1) + time_weight (mean_i min_j d(G(z_i), x_j) + mean_j min_i d(G(z_i), x_j))

    d is an absolute difference of values and of first differences, weighted towards the end of a window
    (:func:`time_features`); the second mean, over known windows, keeps G from repeating the one that is nearest to
    all. A filter lets G make ``overproduce`` times as many windows as are wanted and keeps the ones
    nearest to a known one; these alone reach D and the augmented set. Then the classifier, a convolutional network,
    learns to tell normal windows from as many anomalous ones: known ones for their share, at least for half, and
    selected ones for the rest. A step is
    scored by the probability that the window ending at it is anomalous, so that nothing later than the step is looked
    at. The paper's text was not available: names and purpose are its own, sizes, distance and weights are choices.

    Training sees labels, so that its figures do not belong beside those of methods that saw no anomaly. Where ``y``
    labels none, normal windows are distorted (shifted, continued by others, made noisy) to stand in for the minority,
    an extension that a warning announces. The restored step is that of the nearest of 500 normal windows, the map the
    squared difference from it.

    ``detector.net_.quality`` holds how far made windows are from the nearest known one, and how far they and the known
    ones are among themselves: a generator that repeats itself shows there.

    **When to use.** A process whose few recorded faults will come again.

    **When it fails.** A fault unlike the labelled ones may be called normal, and what comes from another operating
    point may all be: trained on SKAB's recording valve1/0, the classifier said the same of every step of three other
    recordings (AUROC 0.50; principal components of windows, trained on each, 0.53, 0.89 and 0.99). Making more of the
    known faults did not help in a trial on two machines of ASD, 3,000 normal steps and half of the test part with its
    labels to learn from, the other half to judge: AUROC 0.745 and 0.720 with the GAN, 0.711 and 0.727 with SMOTE, 0.803
    and 0.774 with the known windows alone, 0.435 and 0.702 for principal components of windows. Compare with
    ``augment="none"`` before relying on it. On a made-up fault of 60 labelled steps and 150 updates AUROC was 0.99
    without augmentation; 0.81 with a generator that lacked the second mean, which collapsed; 0.84 with it, a dense D,
    and at least half of the anomalous windows known ones; 0.98 with these after 600 updates. They were settled with
    these figures in view. All of them come from earlier settings: learning rates of 0.001 to 0.003, and 600 updates,
    half of them for the game, where nothing else is said. Without any label, for which it is not made, AUROC / AP /
    VUS-PR on two recordings of each of seven sets are 0.532 / 0.351 / 0.439 on average, those of PCA of windows 0.803 /
    0.611 / 0.606; in AUROC it is furthest behind on TEP (0.274, 0.974) and SKAB (0.331, 0.945).

    Parameters
    ----------
    latent : int
        Length of the generator's codes, at least 1.
    overproduce : int
        Windows made for each one that the filter keeps, at least 1.
    time_weight : float
        Weight of the distance in time in the generator's loss, at least 0.
    augment : {"gan", "smote", "none"}
        Where the anomalous windows beside the known ones come from: the generator; lines between known ones; or
        repetition of the known ones. The last two are there to compare with.
    gan_share : float
        Share of the updates spent on generator and discriminator before the classifier, in (0, 1).

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> rng = np.random.default_rng(0)
    >>> t = np.arange(1200)
    >>> series = np.c_[np.sin(t / 5), np.cos(t / 5)] + 0.1 * rng.normal(size=(1200, 2))
    >>> y = np.zeros(1200, int)
    >>> for start in (150, 450, 700, 1100):
    ...     series[start : start + 12, 0] *= 0.1
    ...     y[start : start + 12] = 1
    >>> detector = ATRGAN(window=12, training=Training(updates=120)).fit(series[:900], y[:900])
    >>> scores = detector.anomaly_score(series)
    >>> bool(scores[1106:1112].min() > np.quantile(scores[900:1100], 0.99))
    True

    References
    ----------
    Li and others (2021), Augmented time regularized generative adversarial network (ATR-GAN) for data augmentation in
    online process anomaly detection, IEEE Transactions on Automation Science and Engineering.
    Chawla, Bowyer, Hall and Kegelmeyer (2002), SMOTE: Synthetic minority over-sampling technique, JAIR 16.
    """

    latent: int = 32
    overproduce: int = 4
    time_weight: float = 1.0
    augment: Literal["gan", "smote", "none"] = "gan"
    gan_share: float = 0.4

    fold: ClassVar[Literal["mean", "last"]] = "last"
    stackable = False
    defaults = Training(updates=500, batch_size=64, lr=5e-3)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "latent", "overproduce")
        check_number(self, "time_weight", "[0, inf)")
        check_choice(self, "augment", ("gan", "smote", "none"))
        check_number(self, "gan_share", "(0, 1)")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make generator, discriminator and classifier."""
        return ATRGANNet(shape, int(self.latent), self.backbone)

    def phases(self, net: nn.Module) -> Sequence[Phase]:  # noqa: ARG002 - the same for every network
        """Return discriminator and generator until ``gan_share`` of the training, and the classifier from there on."""
        share = self.gan_share if self.augment == "gan" else 0.0
        lr = _GAME * (self._training.lr or 1e-3)
        game = [
            Phase("discriminator", self.discriminator_loss, modules=("critic",), lr=lr, stop=share),
            Phase("generator", self.generator_loss, modules=("generator",), lr=lr, stop=share),
        ]
        detector = Phase("detector", self.detector_loss, modules=("detector",), start=share)
        return [*game, detector] if share else [detector]

    # ------------------------------------------------------------------ the minority

    def _split(self, samples: Samples, labels: Labels) -> tuple[Samples, Samples]:
        # Windows are split as those of a series; that of labelled rows is passed over.
        train, held = super(LabelledDetector, self)._split(samples, labels)
        windows = as_windows(samples)
        starts = windows.starts.cpu().numpy()
        known = np.flatnonzero(labels.anomalous[starts + windows.length - 1])
        if not len(known):
            # Early in a series no window ends at an anomaly; those that hold one have to do.
            count = np.concatenate([[0], np.cumsum(labels.anomalous)])
            known = np.flatnonzero(count[starts + windows.length] > count[starts])
        first = torch.from_numpy(starts[known]).to(windows.x.device)
        taught = WindowSamples(windows.x, first, windows.length, windows.mask)
        return LabelledSamples(train, taught, torch.ones(len(known), dtype=torch.int64)), held

    def optimise(self, net: Any, samples: Samples) -> TrainingReport:
        """Train with the known anomalous windows at hand, or with distorted normal ones in their place."""
        if isinstance(samples, LabelledSamples):
            if not len(samples.taught):
                warnings.warn(
                    "y: no step is labelled anomalous (1), and ATRGAN learns from labelled anomalies; distorted normal "
                    "windows stand in for them. Label some steps, or take a detector that needs no labels.",
                    DataWarning,
                    stacklevel=3,
                )
                made = distorted(everything(samples.samples, self._device, _BANK).x)
                samples = LabelledSamples(samples.samples, ArraySamples(made), torch.ones(len(made), dtype=torch.int64))
            net.rarity.fill_(min(1.0, len(samples.taught) / len(samples)))
        return super().optimise(net, samples)

    def filtered(self, net: Any, n: int) -> Tensor:
        """Return the ``n`` of ``overproduce`` times as many generated windows that are nearest to known ones."""
        return self._produce(net, n)[0]

    def _produce(self, net: Any, n: int) -> tuple[Tensor, Tensor]:
        """Return the selected windows, and the distances of all candidates from known ones."""
        known, _ = net.told.draw(_KNOWN)
        made = net.candidates(n * int(self.overproduce))
        apart = time_distance(made, known.x)
        return made[apart.detach().amin(1).topk(n, largest=False).indices], apart

    def _interpolated(self, net: Any, n: int) -> Tensor:
        """Return ``n`` windows on lines from a known window to one of its nearest others."""
        known, _ = net.told.draw(_KNOWN)
        one = torch.randint(len(known), (n,), device=known.x.device)
        near = torch.cdist(known.x.flatten(1), known.x.flatten(1)).topk(min(_NEIGHBOURS + 1, len(known)), largest=False)
        other = near.indices[one, torch.randint(near.indices.shape[1], (n,), device=one.device)]
        return torch.lerp(known.x[one], known.x[other], torch.rand(n, 1, 1, device=one.device))

    def minority(self, net: Any, n: int) -> Tensor:
        """Return ``n`` anomalous windows as the augmented set holds them: known ones by their share, others made."""
        known, _ = net.told.draw(_KNOWN)
        again = known.x[torch.randint(len(known), (n,), device=known.x.device)]
        if self.augment == "none":
            return again
        with torch.no_grad():
            made = self.filtered(net, n) if self.augment == "gan" else self._interpolated(net, n)
        real = torch.rand(n, 1, 1, device=again.device) < net.rarity.clamp_min(_SHARE)
        return torch.where(real, again, made)

    # ------------------------------------------------------------------ losses

    def discriminator_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the cross-entropy of telling known anomalous windows from selected ones."""
        known, _ = net.told.draw(len(batch))
        with torch.no_grad():
            made = self.filtered(net, len(known))
        return discriminator_loss(net.critic(known.x), net.critic(made))

    def generator_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the cross-entropy of passing selected windows off as known, and the distance of all candidates."""
        made, apart = self._produce(net, min(len(batch), len(net.told)))
        return generator_loss(net.critic(made)) + self.time_weight * (apart.amin(1).mean() + apart.amin(0).mean())

    def detector_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the cross-entropy of normal windows and as many of the augmented minority."""
        made = self.minority(net, len(batch))
        logits = net.detector(torch.cat([batch.x, made])).squeeze(1)
        truth = torch.arange(len(logits), device=logits.device) >= len(batch)
        return F.binary_cross_entropy_with_logits(logits, truth.to(logits.dtype))

    def finish(self, net: Any, samples: Samples) -> None:
        """Keep normal windows to restore from, and measure what the generator makes."""
        net.bank = everything(samples, net.bank.device, _BANK).x.flatten(1).clone()
        if self.augment == "gan":
            known, _ = net.told.draw(_JUDGED)
            made = self.filtered(net, _JUDGED)
            among = [time_distance(x, x).sum() / max(1, len(x) * (len(x) - 1)) for x in (made, known.x)]
            net.quality.copy_(torch.stack([time_distance(made, known.x).amin(1).mean(), *among]))

    # ------------------------------------------------------------------ answers

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Score windows by the probability of an anomaly; the nearest normal window is the restored one."""
        score = torch.sigmoid(net.detector(batch.x).squeeze(1).double())
        if not want:
            return Inference(score)
        restored = nearest_kept(batch, net.bank)
        return Inference(score, batch.keep_observed((batch.x - restored).square()), restored)
