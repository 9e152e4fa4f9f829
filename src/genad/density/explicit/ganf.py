"""GANF: a normalising flow over the sensors of a series, factorised along a graph without cycles that is learnt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from genad.core.parameters import check_number
from genad.core.registry import Card, Family, register
from genad.core.training import TrainingReport
from genad.data.kinds import Kind
from genad.data.samples import Batch, Samples
from genad.density.explicit.sensor_flow import SensorFlowDetector
from genad.nn.acyclic import LearntDAG
from genad.nn.graph_flow import SensorFlow

# Looks at the graph that a search comes to, if it takes all its updates.
_LOOKS = 20


class GANFNet(SensorFlow):
    """A flow over sensors whose graph is one for all windows, and learnt.

    Parameters
    ----------
    sensors, hidden, least
        As in :class:`~genad.nn.graph_flow.SensorFlow`.
    """

    def __init__(self, sensors: int, hidden: int, least: float) -> None:
        super().__init__(sensors, hidden, least)
        self.dag = LearntDAG(sensors)

    def graph(self, x: Tensor) -> Tensor:  # noqa: ARG002 - one graph for all
        """Return the weights of the edges, (K, K)."""
        edges: Tensor = self.dag()
        return edges


@register(
    Card(
        title="Graph-augmented normalizing flows for anomaly detection of multiple time series",
        authors="Dai, Chen",
        venue="ICLR",
        year=2022,
        family=Family.FLOW,
        kinds=(Kind.SERIES,),
        row="1.3.1-03h",
        summary="Density of each sensor given its parents in a learnt graph without cycles.",
        tags=("normalising flow", "Bayesian network", "graph", "recurrent", "contaminated training"),
    ),
    name="ganf",
)
@dataclass(eq=False, repr=False)
class GANF(SensorFlowDetector):
    """Factorise the density of a series over time and over a Bayesian network of its sensors, which is learnt.

    The density of a window is the product over its steps t and sensors k of ``p(x_kt | d_kt)``. The condition d_kt
    comes from the states of an LSTM, shared by all sensors, mixed by a graph convolution: of the parents of k in a
    weighted graph A up to step t, and of k itself up to step t - 1. A masked autoregressive flow gives the density;
    since a sensor has one value a step, it is a Gaussian given its condition. A must have no cycles, or a value could
    explain itself:

        -mean log p + rho / 2 h^2 + alpha h,    h = tr(exp(A * A)) - K

    is minimised, while an augmented Lagrangian raises rho and alpha until h is below 1e-4
    (:class:`~genad.nn.acyclic.LearntDAG`). The rest of the training refines all else. Between the two the edges that
    still close a cycle, weak as they are by then, are cut, so that the scores are those of a density indeed.

    The score of a window is the mean of ``-log p``, that of a step the mean over the windows that hold it. The map,
    ``-log p`` of each value above the lowest possible, tells the sensor. :meth:`graph` shows what was learnt.

    **When to use.** Several sensors of one system whose relations break before their values do; training data that
    may hold some anomalies.

    **When it fails.** Each value is expected from the true past, so that an anomaly which lasts, on one sensor and
    smoothly, looks usual soon after it began, unless sensors that hang together tell. Weights are not negative and all
    sensors share the layers, so that one sensor that follows another and one that mirrors another can hardly be had
    together. A level that was never met in training is forecast badly for as long as it lasts: in a trial, mean AUROC /
    AP over three SKAB recordings and one stretch of SMD, one seed, are 0.706 / 0.608, behind 0.943 / 0.806 of PCA of
    windows. One recording, where two sensors settle at another level before the anomaly begins, has 0.268; the others
    of SKAB have 0.903 and 0.954 (PCA 0.967, 0.924, 0.986), the stretch of SMD has 0.699 (PCA 0.895). Updates and
    learning rate were chosen by the likelihood of held-out normal steps of these recordings, after a look at lower
    figures (0.675 / 0.570). Scores are those of windows, so that steps within a window's length of an anomaly rise as
    well. The direction of an edge is often not to be told from data: read the graph as to who hangs together. On two
    recordings of each of seven sets AUROC / AP / VUS-PR are 0.787 / 0.546 / 0.572 on average, those of PCA of windows
    0.803 / 0.611 / 0.606; in AUROC it is furthest behind on SKAB (0.585, 0.945) and SMAP and MSL (0.554, 0.609).

    Parameters
    ----------
    search : float
        Share of the updates, in (0, 1), that the search for the graph may take; what is left refines.

    Notes
    -----
    The paper has windows of 60 steps, laid every 10, and far more updates; its weight decay spares A, where here it
    reaches A at a rate too small to matter.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> rng = np.random.default_rng(0)
    >>> drive = np.sin(np.arange(900) / 5) + 0.1 * rng.normal(size=900)
    >>> series = np.c_[drive, 2.0 * drive, rng.normal(size=900)]
    >>> detector = GANF(window=16, training=Training(updates=100, lr=1e-2)).fit(series[:700])
    >>> series[800:810, 1] *= -1
    >>> scores = detector.anomaly_score(series)
    >>> bool(scores[800:810].min() > np.quantile(scores[:700], 0.99))
    True
    >>> edges = detector.graph()
    >>> bool(edges[0, 1] + edges[1, 0] > edges[0, 2] + edges[2, 0])
    True

    References
    ----------
    Dai and Chen (2022), Graph-augmented normalizing flows for anomaly detection of multiple time series, ICLR.
    Zheng, Aragam, Ravikumar and Xing (2018), DAGs with NO TEARS: continuous optimization for structure learning,
    NeurIPS.
    """

    search: float = field(default=0.7, kw_only=True)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number(self, "search", "(0, 1)")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the flow, with a graph that is not acyclic yet."""
        return GANFNet(shape[1], self.hidden, self.min_std)

    def optimise(self, net: Any, samples: Samples) -> TrainingReport:
        """Lay the search for the graph over its share of the updates, then train."""
        total = self._training_for(samples.shape).total_updates(len(samples))
        net.dag.search.fill_(max(1, round(self.search * total)))
        net.dag.stage.fill_(max(1, int(net.dag.search) // _LOOKS))
        return super().optimise(net, samples)

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the mean negative log-density, in nats a value, and what cycles cost."""
        return super().loss(net, batch) + net.dag.penalty(net.dag())

    def after_step(self, net: Any, batch: Batch) -> None:  # noqa: ARG002 - the graph alone matters
        """Move on the search for the graph."""
        net.dag.step()

    def finish(self, net: Any, samples: Samples) -> None:  # noqa: ARG002 - the graph alone matters
        """Cut what is left of cycles, should training have stopped within the search."""
        net.dag.settle()

    def graph(self) -> NDArray[np.float32]:
        """Return the weights of the learnt edges.

        Returns
        -------
        float32 array of shape (sensors, sensors)
            In [0, 1]: how much each sensor (row) tells each other (column). There are no cycles.
        """
        check_is_fitted(self, "net_")
        net: Any = self.net_
        with torch.no_grad():
            return np.asarray(net.dag().cpu().numpy())
