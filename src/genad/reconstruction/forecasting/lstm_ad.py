"""LSTM-AD: forecasts several steps ahead, and a Gaussian on the errors that each step collects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from genad.core.inference import RECURRENT_ROWS, Inference, Want
from genad.core.parameters import check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.core.training import Training
from genad.core.windows import SeriesDetector
from genad.data.kinds import Kind
from genad.data.samples import Batch, Samples
from genad.nn.forecast import RecurrentForecaster
from genad.reconstruction.forecasting.errors import ErrorGaussian, opening_gain, some_windows


class LSTMADNet(ErrorGaussian):
    """The forecaster, and the Gaussian of its errors.

    Parameters
    ----------
    shape : tuple of int
        Steps T and channels C of a window.
    hidden, layers, horizon : int
        As in :class:`~genad.nn.forecast.RecurrentForecaster`; with l steps ahead error vectors have l * C values.
    """

    gain: Tensor

    def __init__(self, shape: tuple[int, ...], hidden: int, layers: int, horizon: int) -> None:
        steps, channels = shape
        super().__init__(horizon * channels)
        self.forecaster = RecurrentForecaster(channels, hidden, layers, horizon)
        self.register_buffer("gain", torch.ones(steps, horizon * channels))


@register(
    Card(
        title="Long short term memory networks for anomaly detection in time series",
        authors="Malhotra, Vig, Shroff, Agarwal",
        venue="ESANN",
        year=2015,
        family=Family.RECURRENT,
        kinds=(Kind.SERIES,),
        summary="Forecasts several steps ahead; the errors a step collects are judged by a Gaussian.",
        tags=("recurrent", "forecast", "gaussian"),
    ),
    name="lstm_ad",
)
@dataclass(eq=False, repr=False)
class LSTMAD(SeriesDetector):
    """Forecast each step from several distances, and score the vector of its errors by a Gaussian.

    Every state of a stacked LSTM forecasts the next ``horizon`` steps, which training fits by their mean squared
    error. A step thus collects ``horizon`` forecasts, made one to ``horizon`` steps before it, and in every channel as
    many errors, all about that same step. The vector e of its errors in all channels is judged by a multivariate
    Gaussian fitted to those of the training windows:

        a = (e - mu)' Sigma^-1 (e - mu) / (horizon * channels)

    which grows as the log-density falls, and is 1 on average over the training windows. Forecasts that disagree in an
    unusual way raise it as well as large errors do. The map shares the score of a step out among its channels by their
    part of the squared errors after whitening; the restored step is the mean of its forecasts.

    The paper chooses its threshold by the best F-beta with beta below 1 on a part with known anomalies:
    ``threshold=BestF(beta=0.1)`` and labels in ``fit``.

    **When to use.** Regular signals, such as recordings of a machine's cycle or of a heart, where a shape that comes
    at the wrong time or in the wrong form is the anomaly.

    **When it fails.** True values are fed in, so that the network follows what changes slowly. With many channels the
    Gaussian has many parameters, ``(horizon * channels)^2 / 2``; ``shrinkage`` keeps it invertible. A channel that did
    not move in training has errors near 0, and any later move in it dominates the score. In a trial on four SKAB
    recordings its mean AUROC was 0.648, that of PCA of windows 0.855 (and 0.730 of this detector with ``shrinkage=1``,
    which drops all correlations): 0.997 of 1.000 where the signals break, below chance where they only settle at
    another level, which forecasts follow while the Gaussian, made from 273 windows, takes the new noise of normal steps
    for the larger surprise. On 8,000 steps of one SMD machine it had 0.676 (0.742 with ``shrinkage=1``) against 0.763.
    The default of ``shrinkage`` was raised from 0.1 after a look at these figures. Where the normal state drifts from
    one recording to the next, take PPCA of windows. On two recordings of each of seven sets AUROC / AP / VUS-PR are
    0.738 / 0.505 / 0.535 on average, those of PCA of windows 0.803 / 0.611 / 0.606; in AUROC it is furthest behind on
    SKAB (0.610, 0.945) and SMAP and MSL (0.431, 0.609).

    Parameters
    ----------
    horizon : int
        Steps forecast by each state, l in the paper, at least 1.
    hidden : int
        Width of the recurrent layers, at least 1.
    layers : int
        Recurrent layers, at least 1.
    shrinkage : float
        Share of the covariance that is replaced by a multiple of the identity with the same trace, in (0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> t = np.arange(900)
    >>> series = np.c_[np.sin(t / 5), np.cos(t / 5)]
    >>> detector = LSTMAD(training=Training(updates=60)).fit(series[:700])
    >>> series[800:805] *= -1
    >>> scores = detector.anomaly_score(series)
    >>> bool(scores[800:805].mean() > np.quantile(scores[:700], 0.99))
    True

    References
    ----------
    Malhotra, Vig, Shroff and Agarwal (2015), Long short term memory networks for anomaly detection in time series,
    ESANN.
    """

    horizon: int = 5
    hidden: int = 32
    layers: int = 2
    shrinkage: float = 0.5

    default_window: ClassVar[int] = 48
    fold: ClassVar[Literal["mean", "last"]] = "last"
    least_rows = RECURRENT_ROWS
    stackable = False
    defaults = Training(updates=200, batch_size=64, lr=5e-3, clip=5.0)
    takes_backbone = False

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "horizon", "hidden", "layers")
        check_number(self, "shrinkage", "(0, 1]")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the forecaster."""
        return LSTMADNet(shape, self.hidden, self.layers, self.horizon)

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the mean squared error of all forecasts, of every number of steps ahead."""
        error = (net.forecaster(batch.x) - batch.x.unsqueeze(2)).square().mean(2)
        return batch.sample_mean(error).mean()

    def finish(self, net: Any, samples: Samples) -> None:
        """Fit the Gaussian to the errors of the last steps of training windows."""
        batch = some_windows(samples, self._device, self.horizon)
        _, errors = _errors(net, batch)
        seen = None if batch.mask is None else batch.mask.repeat(1, 1, self.horizon)
        net.gain.copy_(opening_gain(errors, seen))
        net.settle(errors[:, -1], self.shrinkage)

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Score the steps of windows by the Gaussian; missing values have the mean error."""
        forecasts, errors = _errors(net, batch)
        errors = errors * net.gain
        if batch.mask is not None:
            errors = torch.where(batch.mask.repeat(1, 1, self.horizon), errors, net.mean)
        share = net.deviation(errors).square().unflatten(2, (self.horizon, -1)).sum(2)
        return Inference.of(batch, want, share.sum(2), share, forecasts.mean(2))


def _errors(net: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return forecasts (B, T, l, C) and the error vectors of all steps, (B, T, l * C), 0 where missing."""
    forecasts = net.forecaster(batch.x)
    errors = batch.x.unsqueeze(2) - forecasts
    if batch.mask is not None:
        errors = errors * batch.mask.unsqueeze(2)
    return forecasts, errors.flatten(2)
