"""Statistics of a likelihood model, learnt on samples that the model was not trained on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from genad.core.detector import Detector
from genad.core.families import SampleMixin
from genad.core.inference import Inference, Want
from genad.core.parameters import check_choice, check_number
from genad.core.training import TrainingReport
from genad.core.windows import inner_detector
from genad.data.samples import Batch, Samples, Subset, iterate
from genad.density.explicit.flow import Flow
from genad.density.implicit.iwae import IWAEDetector

# Names of the statistics of a sample, by model; the first one is the log-likelihood.
STATISTICS = {
    "vae": ("bound", "reconstruction", "divergence", "entropy", "cross-entropy"),
    "flow": ("likelihood", "latent", "volume"),
}
# Samples at most that statistics are learnt on, and that the typical map is the mean of.
_LEARNT_ON, _MAPS = 10_000, 1000


class StatisticsNet(nn.Module):
    """A likelihood model, and what is typical of it.

    Attributes
    ----------
    density : nn.Module
        The network of the likelihood model.
    typical_map : Tensor
        Buffer of a sample's shape: mean map of the samples that the model was trained on.
    """

    typical_map: Tensor

    def __init__(self, density: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.density = density
        self.register_buffer("typical_map", torch.zeros(shape))


@dataclass(eq=False, repr=False)
class LikelihoodStatistics(SampleMixin, Detector):
    """A detector that asks how usual the statistics of a sample under a likelihood model are.

    The model is trained on a part of the training samples; a method fills in :meth:`learn`, which sees the statistics
    of that part and of the rest, and :meth:`judge`. The map shows where a sample is less or more likely than normal
    ones are there; the restored sample is the model's.

    Parameters
    ----------
    model : {"flow", "vae"}
        A normalising flow (:class:`~genad.Flow`) or an importance-weighted autoencoder
        (:class:`~genad.IWAEDetector`); the training and backbone of the detector are the model's.
    held_share : float
        Share of the training samples kept from the model, in (0, 1).
    """

    model: Literal["flow", "vae"] = "flow"
    held_share: float = field(default=0.2, kw_only=True)

    # What follows the model is fitted to each model by itself.
    stackable = False
    defaults = Flow.defaults

    @property
    def grad_at_score(self) -> bool:  # type: ignore[override]
        """Whether the model differentiates."""
        return self.model == "flow"

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice(self, "model", ("vae", "flow"))
        check_number(self, "held_share", "(0, 1)")

    def _prepare(self) -> None:
        make: type[Detector] = Flow if self.model == "flow" else IWAEDetector
        self.model_ = inner_detector(self, make(backbone=self.backbone, training=self.training))

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the network of the model."""
        return StatisticsNet(self.model_.build(shape), shape)

    def learn(self, net: Any, seen: Tensor, unseen: Tensor) -> None:
        """Learn from the statistics (n, S), float64, of samples the model was trained on and of others."""
        raise NotImplementedError

    def judge(self, net: Any, statistics: Tensor) -> Tensor:
        """Return the score (B,) of statistics (B, S)."""
        raise NotImplementedError

    def optimise(self, net: Any, samples: Samples) -> TrainingReport:
        """Train the model, then learn what is typical of it."""
        order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(self.seed_)).to(self._device)
        kept = min(int(self.held_share * len(samples)), len(samples) - 1)
        trained = Subset(samples, order[kept:].sort().values)
        held = Subset(samples, order[:kept].sort().values) if kept else trained
        self.model_.seed_ = self.seed_
        report = self.model_.optimise(net.density, trained)
        net.eval()
        with self._scoring():
            net.typical_map = self._mean_map(net, trained)
            self.learn(
                net,
                *(self._statistics_of(net, some, _LEARNT_ON) for some in (trained, held)),
            )
        return report

    def _some(self, samples: Samples, most: int) -> Subset:
        step = max(1, -(-len(samples) // most))
        return Subset(samples, torch.arange(0, len(samples), step, device=self._device))

    def _mean_map(self, net: Any, samples: Samples) -> Tensor:
        total, few = torch.zeros_like(net.typical_map), self._some(samples, _MAPS)
        for _, batch in iterate(few, self._block(samples.shape)):
            found = self.look(net, batch, frozenset({"map"}))[1].map
            assert found is not None  # noqa: S101 - asked for
            total = total + found.detach().sum(0)
        return total / len(few)

    @torch.no_grad()
    def _statistics_of(self, net: Any, samples: Samples, most: int | None = None) -> Tensor:
        """Return the statistics (n, S) of samples, of an evenly spaced part if there are more than ``most``."""
        some = samples if most is None else self._some(samples, most)
        return torch.cat([self.look(net, batch, frozenset())[0] for _, batch in iterate(some, self._block(some.shape))])

    def look(self, net: Any, batch: Batch, want: frozenset[Want]) -> tuple[Tensor, Inference]:
        """Return the statistics (B, S) of a batch, float64, and what the model says of it."""
        model: Any = self.model_
        if self.model == "flow":
            answer = model.infer(net.density, batch, want)
            with torch.no_grad():
                likelihood = -answer.score
                volume = net.density.latent(net.density.split(batch.x)[0])[1]
                # What is left of the likelihood is that of the latent, up to a constant.
                parts = [likelihood, likelihood - volume, volume]
        else:
            draws = model.look(net.density, batch, values=bool(want))
            answer = Inference(-draws.bound, *model.parts(batch, draws, want))
            entropy, divergence = draws.entropy, draws.divergence
            parts = [
                draws.bound,
                draws.reconstruction,
                divergence,
                entropy,
                divergence + entropy,
            ]
        return torch.stack(parts, 1).double(), answer

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Judge the statistics; the map is how far the model's is from a typical one."""
        statistics, answer = self.look(net, batch, want)
        found = None if answer.map is None else batch.keep_observed((answer.map - net.typical_map).abs())
        return Inference(self.judge(net, statistics), found, answer.restored)

    def generate(self, net: Any, n: int) -> Tensor:
        """Draw samples from the model."""
        model: Any = self.model_
        drawn: Tensor = model.generate(net.density, n)
        return drawn

    def statistics(self, X: Any) -> dict[str, NDArray[np.float64]]:
        """Return the statistics of each sample, in nats on the standardised scale.

        Parameters
        ----------
        X : array, dataframe, Table, Series or path
            Data of the kind the detector was fitted on.

        Returns
        -------
        dict of str to float64 array of shape (n,)
            For ``model="vae"``: ``"bound"``, the importance-weighted bound of log p(x); ``"reconstruction"``, the
            expected log p(x | z) under the posterior; its ``"divergence"`` from the prior, ``"entropy"``, and
            ``"cross-entropy"`` with the prior. For ``"flow"``: ``"likelihood"``, log p(x), and the parts of it that
            come from the ``"latent"`` and from the ``"volume"``.
        """
        check_is_fitted(self, "net_")
        found = self._statistics_of(self.net_, self._ingest(X, reset=False).samples).cpu().numpy()
        return dict(zip(STATISTICS[self.model], found.T, strict=True))
