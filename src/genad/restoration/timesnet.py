"""TimesNet: fill in spans of a series from its folds along its own periods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.core.parameters import check_choice, check_whole
from genad.core.registry import Card, Family, register
from genad.core.training import Training
from genad.data.kinds import Kind
from genad.data.samples import Batch, Samples, everything
from genad.nn.hiding import cells_or_spans, straight_line
from genad.nn.instance_norm import window_moments
from genad.nn.transformer import positions
from genad.restoration.imputation import ImputerNet, SeriesImputer

# Shares of a window that training hides, one drawn for each.
_RATIOS = (0.125, 0.25, 0.375, 0.5)
# Training windows whose periods a score goes by.
_WINDOWS = 200


class Inception(nn.Module):
    """Mean of 2-D convolutions with kernels of sides 1, 3, 5, ...

    A mean of convolutions of one input is one convolution with the mean of their kernels, laid one over the other: that
    is what is computed.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    kernels : int
        How many convolutions, at least 1.
    """

    def __init__(self, inputs: int, outputs: int, kernels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(inputs, outputs, 2 * i + 1, padding=i) for i in range(kernels))
        for name, value in self.convs.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(value)
            else:
                nn.init.kaiming_normal_(value, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H, W)."""
        reach = len(self.convs) - 1
        layers: Any = self.convs
        parts = [(F.pad(conv.weight, (reach - i,) * 4), conv.bias) for i, conv in enumerate(layers)]
        weight, bias = (torch.stack(values).mean(0) for values in zip(*parts, strict=True))
        return F.conv2d(x, weight, bias, padding=reach)


class TimesBlock(nn.Module):
    """Fold windows along their strongest periods, convolve the folds, and add up by the strength of the periods.

    In training the periods are those of the batch, as in the paper; when it scores, those that :meth:`settle` took from
    training windows, so that what is said of a window never depends on the others beside it. How strong each is
    remains the window's own.

    Parameters
    ----------
    steps : int
        Steps of a window.
    width, inner : int
        Values of a step, and between the two convolutions.
    periods : int
        Periods that are folded along; at most as many as the window has frequencies.
    kernels : int
        As in :class:`Inception`.

    Attributes
    ----------
    chosen : Tensor
        Buffer (periods,): the settled frequencies, in cycles a window.
    """

    chosen: Tensor

    def __init__(self, steps: int, width: int, inner: int, periods: int, kernels: int) -> None:
        super().__init__()
        count = max(1, min(periods, steps // 2))
        self.convolve = nn.Sequential(Inception(width, inner, kernels), nn.GELU(), Inception(inner, width, kernels))
        self.register_buffer("chosen", torch.arange(1, count + 1))

    def amplitudes(self, x: Tensor) -> Tensor:
        """Return the mean amplitude (B, T // 2 + 1) of each frequency; that of frequency 0 is 0."""
        found = torch.fft.rfft(x, dim=1).abs().mean(2)
        return torch.cat([torch.zeros_like(found[:, :1]), found[:, 1:]], 1)

    def strongest(self, amplitudes: Tensor) -> Tensor:
        """Return the frequencies with the largest mean amplitude over a batch, the strongest first."""
        return amplitudes.mean(0)[1:].topk(len(self.chosen)).indices + 1

    def fold(self, x: Tensor, period: int) -> Tensor:
        """Convolve windows (B, T, width) as images of one row a period, zeros added to fill the last one."""
        steps = x.shape[1]
        image = F.pad(x, (0, 0, 0, -steps % period)).transpose(1, 2).unflatten(2, (-1, period))
        result: Tensor = self.convolve(image).flatten(2)[..., :steps].transpose(1, 2)
        return result

    def forward(self, x: Tensor) -> Tensor:
        """Map windows (B, T, width) to the same shape."""
        amplitudes = self.amplitudes(x)
        chosen = self.strongest(amplitudes) if self.training else self.chosen
        weights = amplitudes[:, chosen].softmax(1)
        steps = x.shape[1]
        folds = torch.stack([self.fold(x, steps // frequency) for frequency in chosen.tolist()], 3)
        return x + (folds * weights[:, None, None]).sum(3)


class TimesNet(ImputerNet):
    """Blocks over the embedded steps of windows, which are normalised by what was seen of them.

    Parameters
    ----------
    shape : tuple of int
        Steps T and channels C of a window.
    span : int
        As in :class:`~genad.restoration.imputation.ImputerNet`.
    width, inner, layers, periods, kernels : int
        As in :class:`TimesBlock`; blocks one above the other.
    line : bool
        Whether what is hidden stands on the straight line between its neighbours, to which the blocks add, or at 0.
    """

    place: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        span: int,
        width: int,
        inner: int,
        layers: int,
        periods: int,
        kernels: int,
        *,
        line: bool,
    ) -> None:
        super().__init__(shape, span)
        steps, channels = shape
        # Three neighbouring steps make a token; the window closes to a ring.
        self.embed = nn.Conv1d(channels, width, 3, bias=False)
        self.blocks = nn.ModuleList(TimesBlock(steps, width, inner, periods, kernels) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, channels)
        self.line = line
        if line:
            nn.init.zeros_(self.output.weight)
            nn.init.zeros_(self.output.bias)
        self.register_buffer("place", positions(steps, width))

    def forward(self, x: Tensor, seen: Tensor, *, settle: bool = False) -> Tensor:
        """Return what is expected of every cell of windows (B, T, C) from those seen; with ``settle`` note periods."""
        mean, std = window_moments(x, seen)
        # 0 is the mean of what is seen.
        normal = (x - mean) / std * seen
        if self.line:
            normal = straight_line(normal, seen)
        ring = torch.cat([normal[:, -1:], normal, normal[:, :1]], 1)
        h = self.embed(ring.transpose(1, 2)).transpose(1, 2) + self.place
        blocks: Any = self.blocks
        for block in blocks:
            if settle:
                block.chosen = block.strongest(block.amplitudes(h))
            h = self.norm(block(h))
        out = self.output(h)
        result: Tensor = (normal + out if self.line else out) * std + mean
        return result


@register(
    Card(
        title="TimesNet: Temporal 2D-Variation Modeling for General Time Series Analysis",
        authors="Wu, Hu, Liu, Zhou, Wang, Long",
        venue="ICLR",
        year=2023,
        family=Family.AUTOENCODER,
        kinds=(Kind.SERIES,),
        summary="Fill in missing or surprising spans of a series from its folds along its periods.",
        tags=("restoration", "imputation", "periods", "convolution"),
    ),
    name="timesnet_imputer",
)
@dataclass(eq=False, repr=False)
class TimesNetImputer(SeriesImputer):
    """Fill in spans from folds of a window along its own periods; judge every span as if it were missing.

    A block finds the ``periods`` strongest frequencies of a window, the mean left out, and folds it along each: a
    picture of one row a period, in which the neighbours of a step are the steps beside it and the same phase one period
    earlier and later. Two layers of convolutions with kernels of several sizes read each picture; the folds are undone
    and added up, weighted by the softmax of their amplitudes. Before the first block windows are normalised, channel
    by channel, by what is seen of them. What is hidden stands on the straight line between its neighbours, and the
    network says what to add to it; with ``hidden="zero"`` it stands at 0, and the network says all, as in the paper.

    Training hides an eighth to a half of each window, single cells in half of them and stretches in the others, and
    counts the squared error of what was hidden alone. To judge, each cell is hidden with the ``span`` steps around it;
    its distance from what is expected, in standard deviations of its channel's residuals in training, is averaged over
    the channels of a step. To restore, missing values and flagged steps, with a ``margin`` around them, are replaced.

    The paper takes the periods of a batch; a score may not depend on what else is scored, so those of training windows
    are used after the fit. The mean of convolutions of several sizes is computed as the one convolution that it is.
    With ``score_by="reconstruction"`` nothing is hidden, in training and after: the score is the mean squared error of
    the window, as the authors' program detects. Its published figures count a whole segment as found by one of its
    steps, at a threshold from training and test errors together; do not compare with them.

    **When to use.** Series with one or a few steady periods, of which a window holds several.

    **When it fails.** What has no period is filled in by a smooth guess, which a straight line also gives; so is a
    channel that differs from the others, when they are more than ``width``. How sure it is of what it expects, it does
    not say. On the last 30 % of 4,000 steps of normal data (one seed), the root mean squared error of hidden values, in
    standard deviations of their channels, with a straight line's in brackets: of spans of 8 steps in half of the
    channels 0.646 (0.814) on SKAB, 0.376 (0.487) on one SMD machine and 0.513 (0.536) on noisy waves; of a fifth of all
    cells 0.651 (0.819), 0.434 (0.488) and 0.208 (0.202). With what is hidden at 0, as in the paper, it was no better
    than the line on SMD (0.975 against 0.752 of single cells, on other steps), so that the line became the default. Of
    the other values 1 % were changed on SKAB and SMD with spans hidden; 9 % on SKAB with a fifth of all cells hidden
    and 20 % on the waves, where less context makes more false alarms. As a detector it has an AUROC of 0.846 on the
    SKAB recording other/10 and of 0.639 on valve1/0, PCA of windows 0.924 and 0.947: a span is expected from the steps
    beside it, which are often as anomalous. It is made to restore. On two recordings of each of seven sets AUROC / AP /
    VUS-PR are 0.744 / 0.465 / 0.480 on average, those of PCA of windows 0.803 / 0.611 / 0.606; in AUROC it is furthest
    behind on ASD (0.543, 0.682) and NAB (0.470, 0.553).

    Parameters
    ----------
    width : int, optional
        Values of a step inside, at least 1; the power of two that holds the channels, from 16 to 64, when absent.
    inner : int
        Values of a step between the two convolutions, at least 1.
    layers : int
        Blocks, at least 1.
    periods : int
        Periods a block folds along, at least 1. The authors have 5 for detection.
    kernels : int
        Sizes of convolutions, the odd numbers from 1 on, at least 1. The authors have 6.
    hidden : {"line", "zero"}
        Where hidden values stand when the network reads them.
    score_by : {"imputation", "reconstruction"}
        Whether spans are judged as if they were missing, or by how well a whole window is reconstructed.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> t = np.arange(600) / 4
    >>> series = np.c_[np.sin(t), np.cos(t)]
    >>> detector = TimesNetImputer(window=48, training=Training(updates=120, lr=5e-3)).fit(series)
    >>> gap = series[:100].copy()
    >>> gap[50:58, 0] = np.nan
    >>> restored = detector.restore(gap)
    >>> bool(np.abs(restored - series[:100]).max() < 0.5), bool(np.allclose(restored[:50], series[:50], atol=1e-5))
    (True, True)

    References
    ----------
    Wu, Hu, Liu, Zhou, Wang and Long (2023), TimesNet: Temporal 2D-variation modeling for general time series analysis,
    ICLR.
    """

    width: int | None = None
    inner: int = 32
    layers: int = 2
    periods: int = 3
    kernels: int = 3
    hidden: Literal["line", "zero"] = "line"
    score_by: Literal["imputation", "reconstruction"] = "imputation"

    default_window: ClassVar[int] = 96
    overlap = 2
    defaults = Training(updates=300, batch_size=16, lr=3e-3, clip=1.0)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "inner", "layers", "periods", "kernels")
        if self.width is not None:
            check_whole(self, "width")
        check_choice(self, "hidden", ("line", "zero"))
        check_choice(self, "score_by", ("imputation", "reconstruction"))

    def _block(self, shape: tuple[int, ...]) -> int:
        return max(16, min(128, 2**13 // shape[0] // 16 * 16))

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the network."""
        # A power of two that holds the channels, as in the paper, between 16 and 64.
        width = self.width or min(64, max(16, 1 << (shape[1] - 1).bit_length()))
        # Where nothing is hidden, the line is the window itself, and nothing would be left to learn.
        line = self.hidden == "line" and self.score_by == "imputation"
        sizes = (width, self.inner, self.layers, self.periods, self.kernels)
        return TimesNet(shape, self.span, *sizes, line=line)

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the mean squared error where values were hidden on purpose, or of all when nothing is hidden."""
        x = batch.x
        known = torch.ones_like(x, dtype=torch.bool) if batch.mask is None else batch.mask
        if self.score_by == "reconstruction":
            return batch.sample_mean((net(x, known) - x).square()).mean()
        ratio = torch.tensor(_RATIOS, device=x.device)[torch.randint(len(_RATIOS), (len(x),), device=x.device)]
        hidden = cells_or_spans(tuple(x.shape), ratio, 2 * self.span)
        target = (known & hidden).to(x.dtype)
        missed = (net(x, known & ~hidden) - x).square()
        return (missed * target).sum() / target.sum().clamp_min(1.0)

    def finish(self, net: Any, samples: Samples) -> None:
        """Settle the periods; then take units as every imputer does."""
        batch = everything(samples, self._device, _WINDOWS)
        seen = torch.ones_like(batch.x, dtype=torch.bool) if batch.mask is None else batch.mask
        net(batch.x, seen, settle=True)
        super().finish(net, samples)

    def impute(self, net: Any, x: Tensor, seen: Tensor, *, judging: bool) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Return what the network expects; it is sure of it."""
        return net(x, seen), torch.zeros_like(x)

    def distances(self, net: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return how far each cell is from what is expected of it: with its span hidden, or from all at once."""
        if self.score_by == "imputation":
            return super().distances(net, batch)
        seen = torch.ones_like(batch.x, dtype=torch.bool) if batch.mask is None else batch.mask
        return batch.keep_observed((batch.x - net(batch.x, seen)).abs()), torch.zeros_like(batch.x)

    def surprise(self, net: Any, batch: Batch) -> Tensor:
        """Return distances in usual residuals of their channels, or squared errors of reconstructions as they are."""
        if self.score_by == "imputation":
            return super().surprise(net, batch)
        return self.distances(net, batch)[0].square()
