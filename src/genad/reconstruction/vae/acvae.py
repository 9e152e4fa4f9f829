"""ACVAE: contrasted variational autoencoders of normal and anomalous windows, and a model of what to ask about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.core.inference import RECURRENT_ROWS, Floats, Inference, Want
from genad.core.parameters import check_choice, check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.core.relearning import LabelMemory, RelearningDetector, drawn, windows_at
from genad.core.training import Phase, Training, TrainingReport
from genad.data.kinds import Kind
from genad.data.samples import Batch, Samples, everything, iterate
from genad.nn import DiagGaussianHead, gaussian_log_prob, kl_to_standard_normal, mlp
from genad.nn.temporal import GRUDecoder, GRUStack
from genad.reconstruction.vae.steps import Gaussian, step_sum

# Labelled windows beside a batch, as a share of it, and windows of training kept to learn from labels later.
_LABELLED, _KEPT = 8, 4096
# Width of the query model.
_QUERY = 32


class ContrastVAE(nn.Module):
    """A recurrent encoder, and two recurrent decoders: of normal and of anomalous windows.

    Parameters
    ----------
    shape : tuple of int
        Steps T and channels C of a window.
    latent, hidden : int
        Dimensions of the code, and width of the recurrent states.
    min_std : float
        Smallest standard deviation of the decoders.
    """

    def __init__(self, shape: tuple[int, ...], latent: int, hidden: int, min_std: float) -> None:
        super().__init__()
        self.min_std = min_std
        self.read = GRUStack(shape[1], (hidden,))
        self.code = DiagGaussianHead(hidden, latent)
        self.normal = GRUDecoder(shape, (hidden,), latent, heads=2)
        self.anomalous = GRUDecoder(shape, (hidden,), latent, heads=2)

    def posterior(self, x: Tensor) -> Gaussian:
        """Return mean and standard deviation of q(z | x), each (B, latent)."""
        found: Gaussian = self.code(self.read(x)[:, -1])
        return found

    def likelihood(self, decoder: nn.Module, z: Tensor) -> Gaussian:
        """Return mean and standard deviation of p(x | z) of one of the decoders, each (B, T, C)."""
        mean, raw = decoder(z).unbind(1)
        return mean, F.softplus(raw) + self.min_std


class ACVAENet(nn.Module):
    """The autoencoders, the query model, the memory of labels, and the fixed noise they are scored with."""

    noise: Tensor

    def __init__(self, shape: tuple[int, ...], model: ContrastVAE, latent: int, draws: int) -> None:
        super().__init__()
        self.model = model
        self.ask = mlp([latent + 1 + shape[1], _QUERY, 1])
        self.memory = LabelMemory(shape)
        self.register_buffer("noise", torch.randn(draws, latent))

    @property
    def contrasts(self) -> bool:
        """Whether any anomaly is known, so that the second decoder has learnt something."""
        return bool(len(self.memory.known) or (self.memory.labels == 1).any())


@register(
    Card(
        title=(
            "Situation-aware multivariate time series anomaly detection through active learning and contrast VAE-based "
            "models in large distributed systems"
        ),
        authors="Li, Zhao, Geng, et al.",
        venue="IEEE Journal on Selected Areas in Communications",
        year=2022,
        family=Family.VAE,
        kinds=(Kind.SERIES,),
        row="1.1.2-14",
        summary="Autoencoders of normal and anomalous windows held against each other, and a model of what to ask.",
        tags=("semi-supervised", "active learning", "few labels", "contrast", "recurrent"),
    ),
    name="acvae",
)
@dataclass(eq=False, repr=False)
class ACVAE(RelearningDetector):
    """Expect windows as normal ones and, once anomalies are known, as anomalous ones, and hold both against each other.

    A recurrent encoder gives a code ``z``, from which one decoder gives ``p_n(x | z)``, of normal windows, and another
    ``p_a(x | z)``, of those labelled anomalous in ``y`` or since, by :meth:`feedback`. Training adds up, in nats a
    value:

        (1 - a) ELBO_n            of unlabelled windows, where a is how anomalous they look by now
        ELBO_n                    of windows labelled normal
        ELBO_a + max(0, margin - (NLL_n - NLL_a))    of windows labelled anomalous

    so that known anomalies are pushed away and not only badly restored. The score of a step is ``NLL_n``, in nats, of
    the window that ends there. Once anomalies are known it is held against ``NLL_a``, as ``contrast`` says.

    Each call of :meth:`feedback` trains both decoders on, from the fitted weights and with all labels so far, and
    together with them a query model: from the code, the score and the residual of a step it predicts whether the
    detector and whoever labels will disagree. Before the first label :meth:`query` proposes the steps whose scores are
    nearest to the threshold, from then on those whose labels the query model expects to surprise.

    Of the paper only the idea was available; sizes, objective and the query model are choices made here. It is not the
    self-adversarial ACVAE of 2024, nor the recommender of the same name.

    **When to use.** What counts as an anomaly depends on the operators' view, and they label a few steps now and then.

    **When it fails.** A window is summed up in one code, so wide or erratic windows are badly expected. Unless
    ``contrast`` is ``"excess"``, anomalies of kinds that nobody labelled lose what ``p_a`` happens to make of them.
    What drifts out of the range of the training data is badly expected too. In a trial on three SKAB recordings, one
    seed, mean AUROC / AP was 0.807 / 0.858 against 0.959 / 0.977 of PCA of windows (valve2/2, whose temperatures drift:
    0.643 against 0.967); with a learning rate of 3e-3, at which 40 updates had not taught it a plain wave, it was 0.639
    / 0.698. A few labels are no sure gain: with 20 proposed steps of the first half of each recording labelled, AUROC
    on the second went from 0.837 to 0.751, 0.899 to 0.910 and 0.528 to 0.636. On two recordings of each of seven sets
    AUROC / AP / VUS-PR are 0.726 / 0.437 / 0.455 on average, those of PCA of windows 0.803 / 0.611 / 0.606; in AUROC it
    is furthest behind on SMD (0.631, 0.861) and SKAB (0.753, 0.945).

    Parameters
    ----------
    contrast : {"excess", "difference"}
        With known anomalies the score is ``NLL_n + max(0, NLL_n - NLL_a)``, which only raises scores; or
        ``NLL_n - NLL_a``, the ratio of likelihoods.
    margin : float
        How much less likely known anomalies are to become as normal windows, in nats a value, at least 0.
    latent : int
        Dimensions of the code, at least 1.
    hidden : int
        Width of the recurrent states, at least 1.
    draws : int
        Codes a window is scored with, at least 1.
    min_std : float
        Smallest standard deviation of the decoders, above 0, in those of the training data.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> t = np.arange(800)
    >>> series = np.c_[np.sin(t / 5), np.cos(t / 5)]
    >>> detector = ACVAE(training=Training(updates=60)).fit(series[:600])
    >>> series[700:703] += 4
    >>> scores = detector.anomaly_score(series)
    >>> bool(scores[700:703].min() > np.quantile(scores[:600], 0.99))
    True

    References
    ----------
    Li et al. (2022), Situation-aware multivariate time series anomaly detection through active learning and contrast
    VAE-based models in large distributed systems, IEEE Journal on Selected Areas in Communications 40(9).
    """

    contrast: Literal["excess", "difference"] = "excess"
    margin: float = 1.0
    latent: int = 8
    hidden: int = 64
    draws: int = 4
    min_std: float = 0.1

    default_window: ClassVar[int] = 16
    fold: ClassVar[Literal["mean", "last"]] = "last"
    least_rows = RECURRENT_ROWS
    defaults = Training(updates=400, batch_size=64, lr=1e-2, clip=10.0)
    takes_backbone = False

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice(self, "contrast", ("excess", "difference"))
        check_number(self, "margin", "[0, inf)")
        check_whole(self, "latent", "hidden", "draws")
        check_number(self, "min_std", "(0, inf)")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make both models, and fix the noise they will score with."""
        latent = int(self.latent)
        model = ContrastVAE(shape, latent, int(self.hidden), float(self.min_std))
        return ACVAENet(shape, model, latent, int(self.draws))

    def optimise(self, net: Any, samples: Samples) -> TrainingReport:
        """Keep some of the training windows, and train."""
        with torch.no_grad():
            self._remember(net, everything(samples, self._device, _KEPT).x)
        return super().optimise(net, samples)

    def phases(self, net: Any) -> Sequence[Phase]:
        """Train the autoencoders, and the query model once labels were given."""
        model = Phase("loss", self.loss, modules=("model",))
        return [model, Phase("query", self.query_loss, modules=("ask",))] if len(net.memory.told) else [model]

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the objective for unlabelled windows, in nats a value, beside labelled ones from memory."""
        values, share = batch.x[0].numel(), max(1, len(batch) // _LABELLED)
        z, divergence = self._draw(net, batch.x)
        nll = self._nll(net, net.model.normal, batch, z)
        if net.contrasts:
            with torch.no_grad():
                looks = torch.sigmoid((nll - self._nll(net, net.model.anomalous, batch, z)) / values)
            bound = ((1.0 - looks) * (nll + divergence)).mean() / (1.0 - looks).mean().clamp_min(1e-3)
        else:
            bound = (nll + divergence).mean()
        normals = drawn(net.memory.normals, share)
        if len(normals):
            z, divergence = self._draw(net, normals)
            bound = bound + (self._nll(net, net.model.normal, Batch(normals), z) + divergence).mean()
        anomalies = drawn(net.memory.anomalies, share)
        if len(anomalies):
            z, divergence = self._draw(net, anomalies)
            as_normal = self._nll(net, net.model.normal, Batch(anomalies), z)
            as_anomalous = self._nll(net, net.model.anomalous, Batch(anomalies), z)
            close = F.relu(self.margin * values - (as_normal - as_anomalous))
            bound = bound + (as_anomalous + divergence + close).mean()
        return bound / values

    def query_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the cross-entropy of whether detector and labels disagreed; on training windows they do not."""
        memory = net.memory
        told = self._asked(net, memory.told)
        return (
            F.binary_cross_entropy_with_logits(told, memory.wrong.to(told))
            + F.softplus(self._asked(net, batch.x)).mean()
        )

    def examples(self, net: Any, samples: Samples) -> Tensor:  # noqa: ARG002 - windows are read as they are
        """Return the windows, missing values at the mean."""
        return everything(samples, self._device).x

    def score_examples(self, net: Any, examples: Tensor) -> Tensor:
        """Return the score of the last step of each window."""
        return self.score_batch(net, Batch(examples))[:, -1]

    def worth(self, net: Any, samples: Samples, scores: Floats) -> Floats:
        """Return how likely the label of each step is to surprise; before the first label, how near the threshold."""
        if not len(net.memory.told):
            return super().worth(net, samples, scores)
        windows, steps = windows_at(samples, np.arange(len(scores)))
        found = np.full(len(scores), -np.inf)
        parts = [self._asked(net, batch.x) for _, batch in iterate(windows, self._block(windows.shape))]
        found[steps] = torch.cat(parts).double().cpu().numpy()
        return found

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Score every step of the windows; only the last ones are kept.

        The map is half the squared deviation from the normal decoder's mean in its own standard deviations.
        """
        x = batch.x
        mean, std = net.model.posterior(x)
        score, centre, excess = x.new_zeros(x.shape[:2]), torch.zeros_like(x), torch.zeros_like(x)
        other = torch.zeros_like(score)
        for noise in net.noise:
            z = mean + std * noise
            expected, spread = net.model.likelihood(net.model.normal, z)
            score = score - step_sum(batch, gaussian_log_prob(x, expected, spread)) / self.draws
            if net.contrasts:
                known = gaussian_log_prob(x, *net.model.likelihood(net.model.anomalous, z))
                other = other - step_sum(batch, known) / self.draws
            if want:
                centre = centre + expected / self.draws
                excess = excess + 0.5 * ((x - expected) / spread).square() / self.draws
        if net.contrasts:
            score = score - other if self.contrast == "difference" else score + (score - other).clamp_min(0.0)
        return Inference.of(batch, want, score, excess, centre)

    def _draw(self, net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return one code of each window, and the divergence of its posterior from the prior in nats, (B,)."""
        mean, std = net.model.posterior(x)
        return mean + std * torch.randn_like(mean), kl_to_standard_normal(mean, std).sum(1)

    def _nll(self, net: Any, decoder: nn.Module, batch: Batch, z: Tensor) -> Tensor:
        """Return the negative log-likelihood of each window, (B,)."""
        return batch.sample_sum(-gaussian_log_prob(batch.x, *net.model.likelihood(decoder, z)))

    def _asked(self, net: Any, x: Tensor) -> Tensor:
        """Return the logit of each window's last step being judged otherwise by whoever labels, (B,)."""
        with torch.no_grad():
            code = net.model.posterior(x)[0]
            expected, spread = net.model.likelihood(net.model.normal, code)
            score = -gaussian_log_prob(x, expected, spread)[:, -1].mean(1, keepdim=True)
            seen = torch.cat([code, torch.asinh(score), (x - expected)[:, -1].abs()], 1)
        logit: Tensor = net.ask(seen)[:, 0]
        return logit
