"""PatchTST as a detector: intervals of the next steps from patches of the steps before, healed on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from genad.core.inference import Answer, Inference, Want
from genad.core.parameters import check_choice, check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.core.training import Training
from genad.core.windows import as_windows
from genad.data.kinds import Kind
from genad.data.samples import Batch, Samples
from genad.errors import InputError
from genad.nn.instance_norm import window_moments
from genad.nn.patch_forecaster import PatchForecaster
from genad.reconstruction.forecasting.errors import some_windows
from genad.reconstruction.strided import StridedDetector

# Quantiles that are forecast, and the least width of the interval, in standard deviations of the channel.
_LEVELS, _NARROWEST = (0.05, 0.5, 0.95), 0.1
# Shares of a window: the steps forecast at once, and how many such blocks follow the context.
_SHARE, _BLOCKS = 6, 2
# Weight of what is expected of a step without any context (or with an unhealed one) beside a proper forecast: it counts
# where nothing else does, in the opening of a stretch.
_FAINT = 1e-5


class PatchTSTNet(nn.Module):
    """The forecaster, and what is usual in training.

    Parameters
    ----------
    shape : tuple of int
        Steps T and channels C of a window.
    horizon : int
        Most steps forecast at once.
    **sizes
        ``patch``, ``stride``, ``width``, ``heads``, ``layers``, ``inner`` and ``dropout`` of the
        :class:`~genad.nn.patch_forecaster.PatchForecaster`.

    Attributes
    ----------
    values, levels : Tensor
        Buffers (3, C): quantiles of the values, and of the means of the steps forecast at once.
    limit : Tensor
        Buffer (C,): misses above it are healed.
    gain : Tensor
        Buffer (C,): brings misses without context to the size of others.
    """

    values: Tensor
    levels: Tensor
    limit: Tensor
    gain: Tensor

    def __init__(self, shape: tuple[int, ...], horizon: int, **sizes: Any) -> None:
        super().__init__()
        steps, channels = shape
        self.horizon = min(horizon, max(1, steps // _SHARE))
        self.blocks = _BLOCKS if steps > _BLOCKS * self.horizon else 1
        self.context = steps - self.blocks * self.horizon
        self.forecaster = PatchForecaster(self.context, self.horizon, **sizes)
        self.register_buffer("values", torch.zeros(3, channels))
        self.register_buffer("levels", torch.zeros(3, channels))
        self.register_buffer("limit", torch.full((channels,), torch.inf))
        self.register_buffer("gain", torch.ones(channels))


def miss(y: Tensor, quantiles: Tensor) -> Tensor:
    """Return how far values lie outside of their intervals, in widths of these: ``max(l - y, y - u, 0) / (u - l)``.

    Examples
    --------
    >>> interval = torch.tensor([[0.0], [1.0], [2.0]])
    >>> miss(torch.tensor([[1.5], [3.0], [-4.0]]), interval.unsqueeze(1)).flatten().tolist()
    [0.0, 0.5, 2.0]
    """
    low, _, high = quantiles
    return torch.maximum(low - y, y - high).clamp_min(0.0) / (high - low).clamp_min(_NARROWEST)


def error(y: Tensor, quantiles: Tensor) -> Tensor:
    """Return distances from the median in widths of the interval."""
    low, middle, high = quantiles
    return (y - middle).abs() / (high - low).clamp_min(_NARROWEST)


@register(
    Card(
        title="A Time Series is Worth 64 Words: Long-term Forecasting with Transformers",
        authors="Nie, Nguyen, Sinthong, Kalagnanam",
        venue="ICLR",
        year=2023,
        family=Family.AUTOENCODER,
        kinds=(Kind.SERIES,),
        summary="Forecasts intervals of the next steps from patches of each channel's past.",
        tags=("transformer", "forecast", "quantiles", "channel independence"),
    ),
    name="patchtst_ad",
)
@dataclass(eq=False, repr=False)
class PatchTSTDetector(StridedDetector):
    """Forecast an interval for each of the next steps from patches of a channel's past, and score what leaves it.

    Each channel is forecast alone, by weights that all share: its last ``context`` steps, normalised by their own mean
    and standard deviation, are cut into patches that overlap, which are the tokens of a transformer; a linear head
    turns all of them into quantiles of the next ``horizon`` steps, and the normalisation is undone. Training minimises
    the pinball loss of the quantiles 0.05, 0.5 and 0.95. A step is forecast from several distances, since windows lie
    closer together than a forecast reaches. Its score is the mean over these and over the channels of:

        max(q05 - y, y - q95, 0) / (q95 - q05)

    always with the statistics of the steps before the forecast. Those follow when the level of a series moves, so that
    after one context it would be forgotten: how far the level of the step's block lies outside of the levels seen in
    training is therefore added, by the same formula and with the weight ``level``. A window holds a context and two
    blocks of ``horizon`` steps. What misses its forecast in the first block is replaced by the median before it becomes
    a part of the context of the second, whose forecasts count, so that a running anomaly does not become what is
    expected. The first steps of a stretch have no past; they are judged by the quantiles of all training steps.

    **When to use.** Series with a cycle shorter than the context, whose channels each have a course of their own; the
    width of the interval shows how sure a forecast was.

    **When it fails.** Channels are forecast alone, so that a broken relation between two of them is no surprise while
    each looks as usual. An anomaly longer than a block and less than gross becomes the context it is judged by; what
    remains is the level. Where normal levels drift, that term is what raises alarms: ``level=0`` removes it. In a trial
    on three SKAB recordings (other/10, valve1/0, valve2/2; one seed) its AUROC is 0.928, 0.703 and 0.900, on average
    0.844 where PCA of windows has 0.946: it loses where the signals only settle at another level. On 8,000 steps of one
    SMD machine it had 0.794, against 0.748, with the level of the context in place of that of the block, which was
    given up after a look at the same recordings (0.870 and 0.651 of the first two). On two recordings of each of seven
    sets AUROC / AP / VUS-PR are 0.766 / 0.413 / 0.455 on average, those of PCA of windows 0.803 / 0.611 / 0.606; in
    AUROC it is furthest behind on UCR (0.814, 1.000) and SMAP and MSL (0.535, 0.609).

    Parameters
    ----------
    patch, stride : int
        Steps of a patch, and between the starts of two, at most a patch.
    horizon : int
        Most steps forecast at once, at least 1; a sixth of a window at most.
    width : int
        Values of a token, a multiple of ``heads``. The paper has 128.
    heads : int
        Attention heads, at least 1. The paper has 16.
    layers : int
        Layers, at least 1. The paper has 3.
    dropout : float
        Share of values dropped in training, in [0, 1). The paper has 0.2.
    score_by : {"interval", "error"}
        Distance from the interval, as above, or from the median, in widths of the interval.
    level : float
        Weight of the distance of levels, at least 0.
    quantile : float
        Share of the values of training windows that are never replaced in a context, in (0, 1).

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> t = np.arange(900)
    >>> series = np.c_[np.sin(t / 5), np.cos(t / 5)]
    >>> detector = PatchTSTDetector(window=72, width=16, training=Training(updates=60)).fit(series[:700])
    >>> series[800:805] += 4
    >>> scores = detector.anomaly_score(series)
    >>> bool(scores[800:805].min() > np.quantile(scores[:700], 0.99))
    True

    References
    ----------
    Nie, Nguyen, Sinthong and Kalagnanam (2023), A time series is worth 64 words: Long-term forecasting with
    transformers, ICLR.
    Kim, Kim, Tae, Park, Choi and Choo (2022), Reversible instance normalization for accurate time-series forecasting
    against distribution shift, ICLR.
    """

    patch: int = 16
    stride: int = 8
    horizon: int = 24
    width: int = 32
    heads: int = 4
    layers: int = 2
    dropout: float = 0.1
    score_by: Literal["interval", "error"] = "interval"
    level: float = 1.0
    quantile: float = 0.99

    default_window: ClassVar[int] = 144
    overlap = 24
    stackable = False
    defaults = Training(updates=200, batch_size=32, lr=3e-3, clip=1.0)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "patch", "stride", "horizon", "width", "heads", "layers")
        check_number(self, "dropout", "[0, 1)")
        check_number(self, "level", "[0, inf)")
        check_number(self, "quantile", "(0, 1)")
        check_choice(self, "score_by", ("interval", "error"))
        if self.stride > self.patch:
            raise InputError(f"stride: {self.stride} was given, which leaves gaps between patches of {self.patch}.")
        if self.width % self.heads:
            raise InputError(f"width: {self.width} was given; use a multiple of heads={self.heads}.")

    def _block(self, shape: tuple[int, ...]) -> int:
        # Channels are rows of their own; a few thousand of them keep the core busy and fit its cache.
        return max(16, min(512, 4096 // shape[1] // 16 * 16))

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the forecaster.

        Raises
        ------
        InputError
            When the windows scored lie further apart than a forecast reaches.
        """
        names = ("patch", "stride", "width", "heads", "layers", "dropout")
        sizes = {name: getattr(self, name) for name in names}
        net = PatchTSTNet(shape, self.horizon, inner=2 * self.width, **sizes)
        interval = self.step or max(1, shape[0] // self.overlap)
        if interval > net.horizon:
            raise InputError(
                f"step: windows lie {interval} steps apart but forecast {net.horizon}; give a step of at most that."
            )
        return net

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the pinball loss of the three quantiles of the last steps of windows."""
        now = slice(-net.horizon, None)
        x, seen = batch.x, batch.mask
        begin = x.shape[1] - net.horizon - net.context
        past = slice(begin, begin + net.context)
        quantiles = net.forecaster(x[:, past], None if seen is None else seen[:, past])
        level = torch.tensor(_LEVELS, device=x.device).view(3, 1, 1, 1)
        gap = x[:, now] - quantiles
        pinball = torch.maximum(level * gap, (level - 1) * gap).sum(0)
        return Batch(x[:, now], None if seen is None else seen[:, now]).sample_mean(pinball).mean()

    def finish(self, net: Any, samples: Samples) -> None:
        """Measure the usual values and levels of each channel, and the misses beyond which a value is healed."""
        batch = some_windows(samples, self._device, 16)
        seen = torch.ones_like(batch.x, dtype=torch.bool) if batch.mask is None else batch.mask
        net.values = _quantiles(batch.x.flatten(0, 1), seen.flatten(0, 1), _LEVELS)
        net.levels = _quantiles(self._levels(net, batch)[:, -1], seen[:, -net.horizon :].any(1), _LEVELS)
        y, known = batch.x[:, -net.horizon :].flatten(0, 1), seen[:, -net.horizon :].flatten(0, 1)
        forecast = self.forecasts(net, batch)[:, :, -net.horizon :].flatten(1, 2)
        missed = miss(y, forecast)
        net.limit = _quantiles(missed, known, (self.quantile,))[0]
        blind, proper = ((part * known).sum(0) for part in (miss(y, net.values.unsqueeze(1)), missed))
        net.gain = ((proper + 1e-3) / (blind + 1e-3)).clamp_max(1.0)

    def forecasts(self, net: Any, batch: Batch) -> Tensor:
        """Return the quantiles (3, B, blocks * horizon, C) of the steps after the first context of windows.

        Each block is forecast from the steps before it. Values that missed by more than the limit have been replaced by
        their forecast there, so that an anomaly does not become what is expected of the steps after it.
        """
        x, seen = batch.x, batch.mask
        healed, found = x.clone(), []
        for end in range(net.context, x.shape[1], net.horizon):
            past, now = slice(end - net.context, end), slice(end, end + net.horizon)
            quantiles = net.forecaster(healed[:, past], None if seen is None else seen[:, past])
            odd = miss(x[:, now], quantiles) > net.limit
            healed[:, now] = torch.where(odd, quantiles[1], x[:, now])
            found.append(quantiles)
        return torch.cat(found, 2)

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Score steps by their misses, weighted by what the forecasts of a window are worth; see :meth:`_run`."""
        judge = miss if self.score_by == "interval" else error
        x = batch.x
        quantiles = self.forecasts(net, batch)
        start = x.shape[1] - quantiles.shape[2]
        blind = judge(x[:, :start], net.values[:, None, None]) * net.gain
        missed = torch.cat([blind, judge(x[:, start:], quantiles)], 1)
        if self.level:
            missed = missed + self.level * miss(self._levels(net, batch), net.levels[:, None, None])
        missed = batch.keep_observed(missed)
        weight = self._weights(net)
        expected = torch.cat([x[:, :start], quantiles[1]], 1) if "restored" in want else None
        return Inference(
            batch.step_mean(missed) * weight,
            missed * weight.unsqueeze(1) if "map" in want else None,
            None if expected is None else expected * weight.unsqueeze(1),
        )

    @staticmethod
    def _levels(net: Any, batch: Batch) -> Tensor:
        """Return at each step (B, T, C) the mean of the block of a window that the step is in."""
        sizes = [net.context, *[net.horizon] * net.blocks]
        masks = [None] * len(sizes) if batch.mask is None else batch.mask.split(sizes, 1)
        parts = zip(batch.x.split(sizes, 1), masks, strict=True)
        return torch.cat([window_moments(x, mask)[0].expand_as(x) for x, mask in parts], 1)

    @staticmethod
    def _weights(net: Any) -> Tensor:
        """Return what each step of a window counts, (T,): the steps forecast from a healed context count alone."""
        steps = net.context + net.blocks * net.horizon
        weight = net.values.new_ones(steps)
        weight[: -net.horizon] = _FAINT
        weight[: net.context] = _FAINT**2
        return weight

    def _run(self, samples: Samples, *want: Want, known: bool = False) -> Answer:
        """Average what windows say of each step by their weights, which :meth:`infer` has multiplied in."""
        answer = super()._run(samples, *want, known=known)
        windows = as_windows(self._thinned(samples))
        weight = self._weights(self.net_).cpu().double().numpy()
        place = windows.starts.cpu().numpy()[:, None] + np.arange(windows.length)
        n = len(windows.x)
        total = np.bincount(place.ravel(), np.broadcast_to(weight, place.shape).ravel(), minlength=n)
        count = np.bincount(place.ravel(), minlength=n)
        share = np.divide(total, count, out=np.ones(n), where=count > 0)
        answer.scores /= share
        for values in (answer.maps, answer.restored):
            if values is not None:
                values /= share[:, None].astype(np.float32)
        return answer


def _quantiles(values: Tensor, known: Tensor, levels: tuple[float, ...]) -> Tensor:
    """Return quantiles (levels, C) of the known among values (n, C), 0 for a channel without any."""
    held = values.masked_fill(~known, torch.nan)
    # The function takes some millions of values at most.
    few = held[:: max(1, held.numel() // 2**22)]
    return torch.nan_to_num(few.nanquantile(torch.tensor(levels, device=values.device), dim=0))
