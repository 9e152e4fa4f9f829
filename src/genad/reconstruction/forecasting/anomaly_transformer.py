"""Anomaly Transformer: steps that attend to their neighbours alone are anomalous."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from genad.core.inference import Inference, Want
from genad.core.parameters import check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.core.training import Training
from genad.data.kinds import Kind
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn.transformer import Attention, FeedForward, positions
from genad.reconstruction.strided import StridedDetector

# Keeps logarithms of associations finite.
_SMALL = 1e-4


class AnomalyAttention(Attention):
    """Attention that also gives each step a Gaussian of learnt width over its neighbours.

    Parameters
    ----------
    width, heads : int
        As in :class:`~genad.nn.transformer.Attention`.
    steps : int
        Steps of a window.
    """

    apart: Tensor

    def __init__(self, width: int, heads: int, steps: int) -> None:
        super().__init__(width, heads)
        self.spread = nn.Linear(width, heads)
        place = torch.arange(steps, dtype=torch.float32)
        self.register_buffer("apart", (place[:, None] - place).abs())

    def associate(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mixed tokens (B, T, width), and the series and prior association, (B, heads, T, T) each.

        Every row of an association adds up to 1.
        """
        key, value = self.key_value(x).chunk(2, -1)
        query = self.split(self.query(x)) * (x.shape[-1] // self.heads) ** -0.5
        series = (query @ self.split(key).transpose(-1, -2)).softmax(-1)
        # From just above 0 to 2 steps, growing faster than linearly.
        sigma = torch.pow(3.0, torch.sigmoid(5.0 * self.spread(x)) + 1e-5) - 1.0
        prior = (-0.5 * (self.apart / sigma.transpose(1, 2).unsqueeze(-1)).square()).softmax(-1)
        return self.merge(series @ self.split(value)), series, prior


class AnomalyLayer(nn.Module):
    """Anomaly attention and a feed-forward part, each on normalised tokens and added to them."""

    def __init__(self, width: int, heads: int, steps: int) -> None:
        super().__init__()
        self.attention = AnomalyAttention(width, heads, steps)
        self.forth = FeedForward(width, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return tokens (B, T, width) and both associations."""
        seen, series, prior = self.attention.associate(self.first(x))
        x = x + seen
        return x + self.forth(self.second(x)), series, prior


class AnomalyTransformerNet(nn.Module):
    """Tokens of steps, layers of anomaly attention, and the reconstruction.

    Parameters
    ----------
    shape : tuple of int
        Steps T and channels C of a window.
    width, heads, layers : int
        Values of a token, heads, and layers.
    """

    place: Tensor

    def __init__(self, shape: tuple[int, ...], width: int, heads: int, layers: int) -> None:
        super().__init__()
        steps, channels = shape
        self.embed = nn.Linear(channels, width)
        self.register_buffer("place", positions(steps, width))
        self.layers = nn.ModuleList(AnomalyLayer(width, heads, steps) for _ in range(layers))
        self.output = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, channels))

    def forward(self, x: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Return the reconstruction (B, T, C), and series and prior association of each layer."""
        tokens, associations = self.embed(x) + self.place, []
        for layer in self.layers:
            tokens, series, prior = layer(tokens)
            associations.append((series, prior))
        return self.output(tokens), associations


def discrepancy(one: Tensor, other: Tensor) -> Tensor:
    """Return KL(one || other) + KL(other || one) of associations (B, heads, T, T), averaged over heads, (B, T)."""
    gap = (one + _SMALL).log() - (other + _SMALL).log()
    return ((one - other) * gap).sum(-1).mean(1)


@register(
    Card(
        title="Anomaly Transformer: Time series anomaly detection with association discrepancy",
        authors="Xu, Wu, Wang, Long",
        venue="ICLR",
        year=2022,
        family=Family.AUTOENCODER,
        kinds=(Kind.SERIES,),
        summary="Attention that is compared with a Gaussian over neighbouring steps.",
        tags=("transformer", "association discrepancy", "minimax"),
    ),
    name="anomaly_transformer",
)
@dataclass(eq=False, repr=False)
class AnomalyTransformer(StridedDetector):
    """Reconstruct windows by attention, and weigh errors by how little a step is tied to its neighbours alone.

    In every layer a step has two associations with all steps of its window: the attention itself (series), and a
    Gaussian over the distance in time whose width each head learns for each step (prior). An anomaly finds nothing
    like itself far away, so that its attention stays near it and differs little from the prior. The symmetric
    divergence of the two, averaged over layers and heads, is the association discrepancy D. Training plays a minimax
    game by two terms beside the mean squared error of the reconstruction, added up before one step of the optimiser:

        - weight / 2 * D(series, prior held still) + weight / 2 * D(prior, series held still)

    The first moves the attention away from a prior that it cannot move, the second moves the prior towards an
    attention that it cannot move. The authors add up two losses, each of which holds the error and one of the terms
    with the full weight; this is half of their sum. A step is scored by:

        T * softmax_t(-temperature * D_t) * mean_c (x_tc - x_hat_tc)^2

    over the T steps of the window, averaged over the windows that hold it. The factor T makes the weight of a window
    without contrast 1; the map is the weighted squared error of each value.

    **When to use.** Series in which single steps or short stretches are unlike everything else within a window.

    **When it fails.** The softmax compares the steps of one window: it says nothing of a window that is odd as a whole,
    and hands out the same weights to a quiet window. A temperature of 50, as published, leaves nearly all weight to a
    few steps of each window, whatever their errors; the smaller one here is meant to keep the error in charge. The
    published figures rest on three things that are not done here: early stopping by the test set, a threshold at a
    quantile of training and test scores together, and point adjustment, which counts a whole segment as found when one
    of its steps is; with it even random scores come out high. Do not compare with them. On two recordings of each of
    seven sets AUROC / AP / VUS-PR are 0.657 / 0.354 / 0.379 on average, those of PCA of windows 0.803 / 0.611 / 0.606;
    in AUROC it is furthest behind on UCR (0.652, 1.000) and SKAB (0.633, 0.945).

    Parameters
    ----------
    width : int
        Values of a token, a multiple of ``heads``. The paper has 512.
    heads : int
        Attention heads, at least 1.
    layers : int
        Layers, at least 1. The paper has 3.
    weight : float
        Weight of the discrepancy in either of the authors' two losses, at least 0; half of it stands before each term
        here, where the error counts once.
    temperature : float
        Sharpness of the softmax over the steps, at least 0; 0 leaves the error alone. The authors' program has 50.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> t = np.arange(900)
    >>> series = np.c_[np.sin(t / 5), np.cos(t / 5)]
    >>> detector = AnomalyTransformer(window=20, width=16, training=Training(updates=60)).fit(series[:700])
    >>> series[800:803] += 4
    >>> scores = detector.anomaly_score(series)
    >>> bool(scores[800:803].mean() > np.quantile(scores[:700], 0.99))
    True

    References
    ----------
    Xu, Wu, Wang and Long (2022), Anomaly Transformer: Time series anomaly detection with association discrepancy,
    ICLR.
    Kim, Choi, Choi, Lee and Yoon (2022), Towards a rigorous evaluation of time-series anomaly detection, AAAI.
    """

    width: int = 32
    heads: int = 4
    layers: int = 2
    weight: float = 3.0
    temperature: float = 1.0

    default_window: ClassVar[int] = 50
    stackable = False
    overlap = 5
    defaults = Training(updates=150, batch_size=32, lr=2e-3, clip=1.0)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "width", "heads", "layers")
        check_number(self, "weight", "[0, inf)")
        check_number(self, "temperature", "[0, inf)")
        if self.width % self.heads:
            raise InputError(f"width: {self.width} was given; use a multiple of heads={self.heads}.")

    def _block(self, shape: tuple[int, ...]) -> int:
        # Associations are the largest tensors: heads * T^2 numbers a window and layer.
        return max(16, min(512, 2**22 // (self.heads * shape[0] ** 2) // 16 * 16))

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the transformer."""
        return AnomalyTransformerNet(shape, self.width, self.heads, self.layers)

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return reconstruction error and both sides of the game, as one scalar.

        The authors add up the gradients of two losses, ``error - weight * series`` and ``error + weight * prior``,
        before one step; half of the sum is the same direction.
        """
        restored, associations = net(batch.x)
        error = batch.sample_mean((restored - batch.x).square()).mean()
        away = torch.stack([discrepancy(series, prior.detach()).mean() for series, prior in associations]).mean()
        near = torch.stack([discrepancy(prior, series.detach()).mean() for series, prior in associations]).mean()
        return error + 0.5 * self.weight * (near - away)

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Score the steps of windows by their errors, weighted by their association discrepancy."""
        restored, associations = net(batch.x)
        error = (restored - batch.x).square()
        apart = torch.stack([discrepancy(series, prior) for series, prior in associations]).mean(0)
        weights = apart.shape[1] * (-self.temperature * apart).softmax(1)
        weighted = error * weights.unsqueeze(2)
        return Inference.of(batch, want, batch.step_mean(weighted), weighted, restored)
