"""SLA-VAE: a variational autoencoder of how unusual the steps of a series are, taught by a few labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.core.inference import Inference, Want
from genad.core.parameters import check_flag, check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.core.relearning import LabelMemory, RelearningDetector, drawn
from genad.core.training import Phase, Training, TrainingReport
from genad.data.kinds import Kind
from genad.data.samples import ArraySamples, Batch, Samples, everything, iterate
from genad.nn import kl_to_standard_normal, mlp
from genad.nn.control import PIController
from genad.nn.window_tails import WindowTails

# Windows that the usual ranges are taken from, and that are trained on, at most.
_RANGES, _MOST = 1000, 20_000
# Nats of cross-entropy a feature up to which labelled anomalies are pushed away: a half-chance guess has log 2.
_FAR = math.log(4.0)
# Integral gain of the control; ten times the authors', whose fits are longer.
_GAIN = 1e-3
# Labelled steps beside a batch, as a share of it.
_LABELLED = 8


class TailVAE(nn.Module):
    """Dense encoder and decoder of features in [0, 1].

    Parameters
    ----------
    features : int
        Length of a feature vector.
    latent : int
        Dimensions of the code.
    hidden : sequence of int
        Widths from input to code.
    wide : bool
        Keep the variance of the posterior at 1 or above.
    """

    def __init__(self, features: int, latent: int, hidden: Sequence[int], *, wide: bool) -> None:
        super().__init__()
        self.wide = wide
        self.encode = mlp([features, *hidden, 2 * latent])
        self.decode = mlp([latent, *reversed(hidden), features])

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of q(z | x), each (B, latent)."""
        mean, log_variance = self.encode(x).chunk(2, dim=-1)
        log_variance = F.softplus(log_variance) if self.wide else log_variance.clamp(-20.0, 20.0)
        return mean, torch.exp(0.5 * log_variance)

    def divergence(self, x: Tensor) -> Tensor:
        """Return KL(q(z | x) || N(0, I)) in nats, (B,)."""
        return kl_to_standard_normal(*self.posterior(x)).sum(1)

    def cross_entropy(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy of one draw's reconstruction, added over features, and the divergence, each (B,)."""
        mean, std = self.posterior(x)
        logits = self.decode(mean + std * torch.randn_like(mean))
        error = F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)
        return error, kl_to_standard_normal(mean, std).sum(1)


class SLAVAENet(nn.Module):
    """The features, the autoencoder, the control of its divergence, and the memory of labels.

    Parameters
    ----------
    tails : WindowTails
    model : TailVAE
    features : int
        Length of a feature vector.
    control : PIController
        Of the weight of the divergence.
    """

    def __init__(self, tails: WindowTails, model: TailVAE, features: int, control: PIController) -> None:
        super().__init__()
        self.tails, self.model, self.control = tails, model, control
        self.memory = LabelMemory((features,))


@register(
    Card(
        title=(
            "A semi-supervised VAE based active anomaly detection framework in multivariate time series for online "
            "systems"
        ),
        authors="Huang, Chen, Li",
        venue="WWW",
        year=2022,
        family=Family.VAE,
        kinds=(Kind.SERIES,),
        row="1.1.2-13",
        summary="Tail probabilities of each step among those before it, in a variational autoencoder taught by labels.",
        tags=("semi-supervised", "active learning", "few labels", "tail probabilities"),
    ),
    name="sla_vae",
)
@dataclass(eq=False, repr=False)
class SLAVAE(RelearningDetector):
    """Describe each step by how unusual it is among those before it, and let a variational autoencoder judge that.

    Window operators look at a step of each channel, and a kernel density estimate over the rest of the window turns
    what they find into tail probabilities, six for each of several channels or twelve of a single one
    (:class:`~genad.nn.window_tails.WindowTails`). They are on one scale whatever the channel is. The autoencoder of
    these features minimises:

        BCE(normal) + max(0, f log 4 - BCE(anomaly)) + beta KL(normal)

    with f the number of features: it learns to restore normal steps, and *not* to restore those labelled anomalous in
    ``y`` or since, by :meth:`feedback`. (The paper subtracts the second term without a bound, which has no minimum.)
    A controller moves ``beta`` so that the divergence of normal steps settles at ``divergence``. The score is the
    divergence ``KL(q(z | x) || N(0, I))`` of a step, in nats: it is small for normal steps because it was made small
    for them alone. :meth:`query` proposes the steps whose scores are nearest to the threshold.

    **When to use.** Operations data, whose channels differ in level and habit but fail alike, and an operator who
    labels a few steps now and then.

    **When it fails.** A step is compared with those of its own window, so what lasts longer than a window becomes
    usual, and what is odd only by the relation between channels is not seen. The first steps of a series are judged by
    steps after them. Features hold little that helps to restore others, so the divergence of all steps fades in a long
    training or at a high rate, and ranks worse. In a trial on three SKAB recordings, one seed, mean AUROC / AP was
    0.838 / 0.880, with a learning rate of 1e-2 0.615 / 0.672; PCA of windows has 0.959 / 0.977. On a stretch of SMD
    machine-1-6 it was 0.947 / 0.506 against 0.971 / 0.777. A few labels are no sure gain: with 20 proposed steps of the
    first half of each recording labelled, AUROC on the second went from 0.776 to 0.659 and from 0.915 to 0.904 in two
    of them; the head that corrects other detectors had 0.831 and 0.913. On two recordings of each of seven sets AUROC /
    AP / VUS-PR are 0.651 / 0.401 / 0.410 on average, those of PCA of windows 0.803 / 0.611 / 0.606; in AUROC it is
    furthest behind on TEP (0.666, 0.974) and SKAB (0.724, 0.945).

    Parameters
    ----------
    period : int, optional
        Steps after which the series comes back to the same time of day; values near that time are compared, and a
        window is a little longer than a period. When absent, those of the last quarter of a window are compared.
    divergence : float
        What the controller aims at for normal steps, in nats, above 0.
    beta_min : float
        Smallest weight of the divergence, above 0. The authors' 1 lets it fall below what the controller aims at, down
        to next to nothing in a long training; a smaller one spares what helps to restore normal steps.
    latent : int
        Dimensions of the code, at least 1.
    wide : bool
        Keep the variance of the posterior at 1 or above, as the authors' program does.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> rng = np.random.default_rng(0)
    >>> series = np.sin(np.arange(1200) / 9)[:, None] * [1, 2] + 0.1 * rng.normal(size=(1200, 2))
    >>> detector = SLAVAE(training=Training(updates=150)).fit(series[:800])
    >>> test = series[800:].copy()
    >>> test[200, 0] += 3
    >>> int(detector.anomaly_score(test).argmax())
    200

    References
    ----------
    Huang, Chen and Li (2022), A semi-supervised VAE based active anomaly detection framework in multivariate time
    series for online systems, WWW.
    Shao et al. (2020), ControlVAE: controllable variational autoencoder, ICML.
    """

    period: int | None = None
    divergence: float = 10.0
    beta_min: float = 1.0
    latent: int = 32
    wide: bool = False

    fold: ClassVar[Literal["mean", "last"]] = "last"
    # Its divergences fade with every further update, so it does not go on from the fitted weights.
    anew: ClassVar[bool] = True
    defaults = Training(epochs=20, min_updates=300, max_updates=500, batch_size=256, lr=1e-3)
    takes_backbone = False

    @property
    def default_window(self) -> int:  # type: ignore[override]
        """Steps in a window: a period and what is around it."""
        period = self.period
        return 64 if period is None else int(period + max(2, period // 6))

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.period is not None:
            check_whole(self, "period", low=2)
        check_number(self, "divergence", "(0, inf)")
        check_number(self, "beta_min", "(0, inf)")
        check_whole(self, "latent")
        check_flag(self, "wide")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make all parts."""
        period = self.period if self.period is not None and self.period < shape[0] else None
        tails = WindowTails(shape, period)
        features = shape[1] * tails.each
        hidden = (64, 48, 32) if shape[1] == 1 else (128, 64, 32)
        model = TailVAE(features, int(self.latent), hidden, wide=self.wide)
        return SLAVAENet(
            tails, model, features, PIController(float(self.divergence), ki=_GAIN, lowest=float(self.beta_min))
        )

    def optimise(self, net: Any, samples: Samples) -> TrainingReport:
        """Compute the features of the training steps once, then train on them."""
        with torch.no_grad():
            net.tails.settle(everything(samples, self._device, _RANGES).x)
            chosen = samples
            if len(samples) > _MOST:
                chosen = self._spread(samples, _MOST)
            features = self.examples(net, chosen)
            self._remember(net, features)
        return super().optimise(net, ArraySamples(features))

    def examples(self, net: Any, samples: Samples) -> Tensor:
        """Return the features of the last step of each window, (n, f)."""
        size = self._block(samples.shape)
        parts = [net.tails(batch.x, batch.mask)[:, 0] for _, batch in iterate(samples, size)]
        return torch.cat(parts) if parts else net.memory.told[:0]

    def score_examples(self, net: Any, examples: Tensor) -> Tensor:
        """Return the divergence of each feature vector."""
        divergence: Tensor = net.model.divergence(examples)
        return divergence

    def phases(self, net: nn.Module) -> Sequence[Phase]:  # noqa: ARG002 - the same for every network
        """Train the autoencoder; nothing else has parameters."""
        return [Phase("loss", self.loss, modules=("model",))]

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the objective for normal features (B, f), a feature, beside labelled ones from memory."""
        share = max(1, len(batch) // _LABELLED)
        x = torch.cat([batch.x, drawn(net.memory.normals, share)])
        error, divergence = net.model.cross_entropy(x)
        loss = error.mean() + net.control.weight * divergence.mean()
        anomalies = drawn(net.memory.anomalies, share)
        if len(anomalies):
            far = _FAR * x.shape[1]
            loss = loss + F.relu(far - net.model.cross_entropy(anomalies)[0]).mean()
        return loss / x.shape[1]

    def after_step(self, net: Any, batch: Batch) -> None:
        """Move the weight of the divergence."""
        with torch.no_grad():
            net.control.step(net.model.divergence(batch.x).mean())

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Score the last step of each window, and all steps of a window that opens a stretch.

        The map is the mean square of a channel's features; a restored value moves from the observed one to the median
        of its window by the largest of them.
        """
        x, mask = batch.x, batch.mask
        steps = x.shape[1]
        features = net.tails(x, mask)
        score = net.model.divergence(features[:, 0])[:, None].repeat(1, steps)
        # Only the first window of a stretch answers for steps before its last; it does not continue the one before.
        opens = torch.ones(len(x), dtype=torch.bool, device=x.device)
        opens[1:] = (x[1:, :-1] != x[:-1, 1:]).flatten(1).any(1)
        first = opens.nonzero()[:, 0]
        whole = net.tails(x[first], None if mask is None else mask[first], whole=True)
        score[first, :-1] = net.model.divergence(whole.flatten(0, 1)).view(len(first), steps)[:, :-1]
        if not want:
            return Inference(score)
        loud = torch.zeros(*x.shape, net.tails.each, dtype=x.dtype, device=x.device)
        loud[:, -1:] = features.unflatten(2, (x.shape[2], -1))
        loud[first, :-1] = whole.unflatten(2, (x.shape[2], -1))[:, :-1]
        return Inference(
            score,
            batch.keep_observed(loud.square().mean(3)) if "map" in want else None,
            torch.lerp(x, x.median(1, keepdim=True).values.expand_as(x), loud.amax(3)) if "restored" in want else None,
        )
