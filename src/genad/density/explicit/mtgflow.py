"""MTGFlow: a flow over the sensors of a series whose graph is made anew for every window."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.core.parameters import check_number
from genad.core.registry import Card, Family, register
from genad.data.kinds import Kind
from genad.density.explicit.sensor_flow import SensorFlowDetector
from genad.nn.graph_flow import SensorFlow

_NEVER = torch.finfo(torch.float32).min


class MTGFlowNet(SensorFlow):
    """A flow over sensors that attend to each other, each with a latent mean of its own.

    Parameters
    ----------
    shape : tuple of int
        Steps T and sensors K of a window.
    hidden, least
        As in :class:`~genad.nn.graph_flow.SensorFlow`.
    dropout : float
        Share of the attention that is dropped in training.
    """

    def __init__(self, shape: tuple[int, ...], hidden: int, least: float, dropout: float) -> None:
        steps, sensors = shape
        super().__init__(sensors, hidden, least, own_means=True)
        self.query = nn.Linear(steps, steps)
        self.key = nn.Linear(steps, steps)
        self.dropout = dropout

    def graph(self, x: Tensor) -> Tensor:
        """Return how much each sensor (row) tells each other (column) in each of windows (B, T, K), (B, K, K).

        What a sensor is told adds up to 1, none of it by itself. A sensor alone is told nothing.
        """
        rows = x.transpose(1, 2)
        alike = self.key(rows) @ self.query(rows).mT / x.shape[1] ** 0.5
        itself = torch.eye(x.shape[2], dtype=torch.bool, device=x.device)
        told = alike.masked_fill(itself, _NEVER).softmax(1).masked_fill(itself, 0.0)
        return F.dropout(told, self.dropout, self.training)


@register(
    Card(
        title="Detecting multivariate time series anomalies with zero known label",
        authors="Zhou, Chen, He, Chen, He, Jia, Wang, Ye, Xu",
        venue="AAAI",
        year=2023,
        family=Family.FLOW,
        kinds=(Kind.SERIES,),
        row="1.3.1-03i",
        summary="Density of each sensor given others it attends to, by a graph that changes from window to window.",
        tags=("normalising flow", "attention", "graph", "recurrent", "contaminated training"),
    ),
    name="mtgflow",
)
@dataclass(eq=False, repr=False)
class MTGFlow(SensorFlowDetector):
    """Give each value a density that depends on related sensors, as they are related in this very window.

    The states of an LSTM that all sensors share are mixed by a graph convolution as in :class:`GANF`: those of other
    sensors up to step t, and the sensor's own up to step t - 1. The graph is not learnt itself but follows from the
    window, by scaled dot-product attention between the whole windows of its sensors, so that relations may change over
    time. The masked autoregressive flow is shared by all sensors, but each has a mean of its own, which is learnt, for
    the Gaussian that its values are mapped to. Training minimises the mean of ``-log p`` and nothing else.

    The score of a window is the mean of ``-log p``, that of a step the mean over the windows that hold it. The map,
    ``-log p`` of each value above the lowest possible, tells the sensor.

    Nothing keeps the graph free of cycles: two sensors may explain each other at the same step, and the attention
    looks at the whole window. ``-log p`` is thus a pseudo-likelihood and not comparable to that of a density. A sensor
    does not attend to itself here, as it does in the authors' program, where its present value is among
    what explains it; nor are the latent means fixed draws, nor the best epoch chosen by labelled data: the last one
    counts.

    **When to use.** Sensors whose relations change with the mode of operation; training data in which nobody has marked
    the anomalies.

    **When it fails.** Sensors that repeat each other explain each other, also while both are wrong. Each value is
    expected from the true past, so that an anomaly which lasts looks usual soon after it began, unless other sensors
    tell; and a level that was never met in training is forecast badly for as long as it lasts: in a trial, mean AUROC /
    AP over three SKAB recordings and one stretch of SMD, one seed, are 0.720 / 0.614, behind 0.943 / 0.806 of PCA of
    windows. One recording, where two sensors settle at another level before the anomaly begins, has 0.294; the others
    of SKAB have 0.905 and 0.970 (PCA 0.967, 0.924, 0.986), the stretch of SMD has 0.712 (PCA 0.895). Updates and
    learning rate are those chosen for :class:`GANF`. Scores are those of windows, so that steps within a window's
    length of an anomaly rise as well. On two recordings of each of seven sets AUROC / AP / VUS-PR are 0.757 / 0.519 /
    0.534 on average, those of PCA of windows 0.803 / 0.611 / 0.606; in AUROC it is furthest behind on SKAB (0.599,
    0.945) and SMAP and MSL (0.548, 0.609).

    Parameters
    ----------
    dropout : float
        Share of the attention that is dropped in training, in [0, 1).

    Notes
    -----
    The paper has windows of 60 steps, laid every 10, and far more updates.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> rng = np.random.default_rng(0)
    >>> drive = np.sin(np.arange(900) / 5) + 0.1 * rng.normal(size=900)
    >>> series = np.c_[drive, 2.0 * drive, rng.normal(size=900)]
    >>> detector = MTGFlow(window=16, training=Training(updates=100, lr=1e-2)).fit(series[:700])
    >>> series[800:810, 1] *= -1
    >>> scores = detector.anomaly_score(series)
    >>> bool(scores[800:810].min() > np.quantile(scores[:700], 0.99))
    True

    References
    ----------
    Zhou, Chen, He, Chen, He, Jia, Wang, Ye and Xu (2023), Detecting multivariate time series anomalies with zero known
    label, AAAI.
    Dai and Chen (2022), Graph-augmented normalizing flows for anomaly detection of multiple time series, ICLR.
    """

    dropout: float = field(default=0.2, kw_only=True)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number(self, "dropout", "[0, 1)")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the flow and the attention."""
        return MTGFlowNet(shape, self.hidden, self.min_std, self.dropout)
