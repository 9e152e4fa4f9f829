"""MSMA: the lengths of the score at many levels of noise, and how usual they are together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from genad.core.detector import Detector
from genad.core.inference import Inference, Want
from genad.core.parameters import check_choice, check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.core.training import Phase, Training, TrainingReport
from genad.data.kinds import DENSE
from genad.data.samples import Batch, Samples, Subset, iterate
from genad.errors import InputError
from genad.nn.score import DenoisingDescent, ScoreNet, denoising_error, geometric_levels
from genad.nn.statistics_density import TAILS, StatisticsDensity, Tail

# Training samples whose score norms the last stage is fitted on, and numbers in a batch of them.
_FITTED, _NUMBERS = 20_000, 2**18


class MSMANet(nn.Module):
    """A score network, its noise levels, and the density of the norms.

    Attributes
    ----------
    levels : Tensor
        Buffer (L,): noise levels, falling.
    """

    levels: Tensor

    def __init__(self, score: ScoreNet, levels: Tensor, tail: StatisticsDensity) -> None:
        super().__init__()
        self.score = score
        self.tail = tail
        self.descent = DenoisingDescent(levels.tolist())
        self.register_buffer("levels", levels)

    def weighted_squares(self, x: Tensor) -> Tensor:
        """Return ``(sigma score(x, sigma))^2`` of every value at every level, (L, B, *shape); no noise is added."""
        return torch.stack([self.score.noise(x, sigma.expand(len(x))).square() for sigma in self.levels])

    def norms(self, batch: Batch, squares: Tensor) -> Tensor:
        """Return the lengths ``|sigma score(x, sigma)|`` at every level, (B, L)."""
        return torch.stack([batch.sample_sum(level) for level in squares], 1).sqrt()


@register(
    Card(
        title="Multiscale Score Matching for Out-of-Distribution Detection",
        authors="Mahmood, Oliva, Styner",
        venue="ICLR",
        year=2021,
        family=Family.DIFFUSION,
        kinds=DENSE,
        row="1.3.2-02d",
        summary="Fits a density to the norms of the score at many noise levels.",
        tags=("score matching", "multiscale", "noise-conditional score network"),
    ),
    name="msma",
)
@dataclass(eq=False, repr=False)
class MSMA(Detector):
    """Multiscale score matching analysis: how usual the score norms of a sample are, over many noise levels.

    A network learns the score, the gradient of the log-density of noised samples, at ``levels`` standard deviations of
    noise in equal ratios, by denoising score matching. A sample, to which no noise is added, then has one number a
    level: the length of its score times the noise level. A small density model fitted on the vectors of these numbers
    of normal samples gives the anomaly score, the negative log-density (or, for ``tail="nearest"``, the distance to
    the fifth nearest vector). Small noise sees fine departures from the data, large noise sees far ones.

    When to use
    -----------
    Tables and images whose anomalies may lie at any distance from the normal data, where no single noise level fits.

    When it fails
    -------------
    The vector forgets directions: an anomaly whose scores are as long as those of normal samples is missed, and so may
    be anything on small data, where the tail model sees the norms of samples that the network has learnt
    (``tail_share`` keeps some from it). The map shows where the score is long, not which part of it is unusual. In a
    trial on three ADBench tables (one-class, one seed: cardio, pendigits, thyroid) the mean AUROC was 0.97 with any
    tail, and 0.95 with ``tail_share=0.3``; ``ppca`` 0.92, nearest neighbours 0.98. On 14 ADBench tables, three seeds,
    the mean AUROC / AP is 0.922 / 0.793, where ``ppca`` has 0.919 / 0.759. On two recordings of each of seven sets of
    series AUROC / AP / VUS-PR are 0.785 / 0.570 / 0.581 on average, those of PCA of windows 0.803 / 0.611 / 0.606; in
    AUROC it is furthest behind on SMAP and MSL (0.383, 0.609) and SKAB (0.745, 0.945).

    Parameters
    ----------
    tail : {"gmm", "flow", "nearest", "gaussian"}
        Density of the norms: a Gaussian mixture whose number of components cross-validation chooses, a masked
        autoregressive flow, the distance to the fifth nearest, or one Gaussian (the Mahalanobis distance).
    levels : int
        Noise levels, at least 2.
    noise : float
        Highest noise level, in standard deviations of the data, above 0.
    least_noise : float
        Lowest noise level, above 0 and below ``noise``.
    tail_share : float
        Share of the training samples kept from the score network, for the tail model alone, in [0, 1); 0 fits it on
        the samples of the network.

    Notes
    -----
    Restored samples go towards their denoised versions from the highest level to the lowest, by the part of the score
    that exceeds a typical one. Missing values count as the mean of the observed ones in a norm.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training, create
    >>> X = np.random.default_rng(0).normal(size=(500, 3))
    >>> detector = create("msma", training=Training(updates=50)).fit(X)
    >>> normal, odd = detector.anomaly_score([[0.5, 0.5, 1], [5, -5, 5]])
    >>> bool(odd > normal + 10)
    True

    References
    ----------
    Mahmood, Oliva and Styner (2021), Multiscale score matching for out-of-distribution detection, ICLR.
    Song and Ermon (2019), Generative modeling by estimating gradients of the data distribution, NeurIPS.
    """

    tail: Tail = "gmm"
    levels: int = field(default=10, kw_only=True)
    noise: float = field(default=2.0, kw_only=True)
    least_noise: float = field(default=0.02, kw_only=True)
    tail_share: float = field(default=0.0, kw_only=True)

    # The tail model is fitted to each network by itself.
    stackable = False
    defaults = Training(epochs=100, min_updates=500, max_updates=1500, batch_size=256, lr=2e-3, warmup=20)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice(self, "tail", TAILS)
        check_whole(self, "levels", low=2)
        check_number(self, "noise", "(0, inf)")
        check_number(self, "least_noise", "(0, inf)")
        check_number(self, "tail_share", "[0, 1)")
        if self.least_noise >= self.noise:
            raise InputError(f"least_noise: {self.least_noise!r} was given; use less than noise={self.noise!r}.")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the score network and an empty tail model."""
        levels = geometric_levels(self.least_noise, self.noise, self.levels)
        return MSMANet(ScoreNet(shape, self.backbone), levels, StatisticsDensity(self.levels, self.tail))

    def phases(self, net: nn.Module) -> list[Phase]:  # noqa: ARG002 - the hook's signature
        """Return one phase that trains the score network; the tail model comes after it."""
        return [Phase("loss", self.loss, modules=("score",))]

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Match the score at a level drawn for each sample."""
        level = torch.randint(self.levels, (len(batch),), device=batch.x.device)
        return 0.5 * batch.sample_mean(denoising_error(net.score, batch.x, net.levels[level])).mean()

    def optimise(self, net: nn.Module, samples: Samples) -> TrainingReport:
        """Train the network, and fit the tail model on other samples where some are kept for it."""
        kept = int(self.tail_share * len(samples))
        if not kept:
            return super().optimise(net, samples)
        order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(self.seed_)).to(self._device)
        report = super().optimise(net, Subset(samples, order[kept:]))
        with self._scoring():
            self.finish(net, Subset(samples, order[:kept].sort().values))
        return report

    def finish(self, net: Any, samples: Samples) -> None:
        """Fit the tail model to the norms of the training samples, and note their typical lengths."""
        step = max(1, -(-len(samples) // _FITTED))
        chosen = Subset(samples, torch.arange(0, len(samples), step, device=net.levels.device))
        size = max(16, _NUMBERS // max(1, torch.Size(samples.shape).numel()))
        batches = [batch for _, batch in iterate(chosen, size)]
        net.tail.fit_to(torch.cat([net.norms(b, net.weighted_squares(b.x)) for b in batches]), self.seed_)
        net.descent.learn(net.score, batches[0].x, batches[0].sample_mean)

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Compute the score, the mean squared weighted score of every value, and the restored sample."""
        squares = net.weighted_squares(batch.x)
        score = net.tail(net.norms(batch, squares))
        return Inference(
            score,
            batch.keep_observed(squares.mean(0)) if "map" in want else None,
            net.descent(net.score, batch.x, batch.sample_mean) if "restored" in want else None,
        )
