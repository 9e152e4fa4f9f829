"""Ensembles of one detector, trained as one stacked network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genad.core.detector import Detector
from genad.core.folding import Folded
from genad.core.loop import TINY, TrainingLoop
from genad.core.registry import Card, Family, register
from genad.core.runtime import thread_limit
from genad.core.stacking import Looped, Members, Stacked
from genad.core.training import BASE_TRAINING, Training, TrainingReport
from genad.core.windows import check_inner, inner_detector
from genad.data.kinds import DENSE
from genad.data.samples import Batch, Samples
from genad.errors import InputError

# Rows in a block of stacked members come in multiples of this, which keeps products aligned; fewer cost more a row.
_FEWEST = 256


@register(
    Card(
        title="Ensemble of one detector, members stacked",
        authors="genad",
        venue="",
        year=2026,
        family=Family.WRAPPER,
        kinds=DENSE,
        summary="Averages members that differ in their weights and batches.",
    )
)
@dataclass(eq=False, repr=False)
class Ensemble(Detector):
    """Train several copies of a detector that differ in initial weights and batches, and combine their scores.

    The members' parameters are stacked and trained by one graph, which costs far less than training them in turn:
    by batched products where they are multilayer perceptrons, under ``torch.func.vmap`` otherwise. Networks that
    cannot be stacked (fused recurrent layers, scores that differentiate) are trained in turn.

    Parameters
    ----------
    detector : Detector
        A detector of dense samples. Its ``training``, ``backbone`` and hyper-parameters hold; ``threshold``,
        ``holdout``, ``random_state`` and ``device`` are the ensemble's.
    n : int
        Members, at least 1.
    combine : {"mean", "median", "max"}
        How the members' scores become one.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Autoencoder, Ensemble, Training
    >>> X = np.random.default_rng(0).normal(size=(600, 4))
    >>> ensemble = Ensemble(Autoencoder(training=Training(updates=30)), n=4).fit(X)
    >>> bool(ensemble.anomaly_score([[9.0, 9, 9, 9]]) > ensemble.anomaly_score([[0.0, 0, 0, 0]]))
    True
    """

    detector: Detector | None = None
    n: int = field(default=8, kw_only=True)
    combine: Literal["mean", "median", "max"] = field(default="mean", kw_only=True)

    takes_backbone = False

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_inner("detector", self.detector)
        if not isinstance(self.n, int) or self.n < 1:
            raise InputError(f"n: {self.n!r} was given; use a whole number of members, at least 1.")
        if self.combine not in ("mean", "median", "max"):
            raise InputError(f"combine: {self.combine!r} was given; use 'mean', 'median' or 'max'.")

    def _prepare(self) -> None:
        self.detector_ = inner_detector(self, self.detector)

    @property
    def grad_at_score(self) -> bool:  # type: ignore[override]
        """As the members'."""
        return self.detector_.grad_at_score

    @property
    def refills(self) -> int:  # type: ignore[override]
        """As the members'."""
        return self.detector_.refills

    @property
    def _own_optimisation(self) -> bool:
        return type(self.detector_).optimise is not Detector.optimise

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Build the members, each from its own random numbers."""
        nets = [self.detector_.build(shape) for _ in range(self.n)]
        inner = self.detector_
        own_way = self._own_optimisation or type(inner).after_step is not Detector.after_step
        if own_way or self.grad_at_score or not inner.stackable:
            return Looped(nets)
        return Folded(nets) if inner.rowwise and Folded.fits(nets[0]) else Stacked(nets)

    def optimise(self, net: nn.Module, samples: Samples) -> TrainingReport:
        """Train all members at once, or in turn where their detector trains in its own way."""
        assert isinstance(net, Members)  # noqa: S101 - build made it
        inner = self.detector_
        if self._own_optimisation:
            for k, member in enumerate(net.nets()):
                inner.seed_ = self.seed_ + k
                report = inner.optimise(member, samples)
            return report
        training = (inner.training or Training()).over(inner.defaults.over(BASE_TRAINING))
        phases = inner.phases(net.pattern if isinstance(net, Stacked) else net.nets()[0])
        report = TrainingReport(device=self.device_, samples=len(samples))
        size = sum(p.numel() for p in net.parameters())
        with thread_limit(1 if size < TINY else None):
            if phases:
                loop = TrainingLoop(
                    net,
                    phases,
                    training,
                    seed=self.seed_,
                    device=torch.device(self.device_),
                    after_step=None if type(inner).after_step is Detector.after_step else self._after_each,
                    verbose=self.verbose,
                    title=f"{self.n} x {inner.name}",
                )
                report = loop.run(samples)
            net.eval()
            if type(inner).finish is not Detector.finish:
                members = net.nets()
                with self._scoring():
                    for member in members:
                        inner.finish(member, samples)
                net.assign(members)
                net.eval().requires_grad_(requires_grad=False)
        return report

    def _block(self, shape: tuple[int, ...]) -> int:
        """Give stacked members fewer rows at a time, so that the rows of all stay in the processor's cache."""
        rows = super()._block(shape)
        if self._device.type != "cpu" or not isinstance(self.net_, Stacked):
            return rows
        return min(rows, max(_FEWEST, rows // self.n // _FEWEST * _FEWEST))

    def _after_each(self, net: Members, batch: Batch) -> None:
        members = net.nets()
        for k, member in enumerate(members):
            mask = None if batch.mask is None else batch.mask[k]
            self.detector_.after_step(member, Batch(batch.x[k], mask))

    def _combined(self, net: Any, function: Any, batch: Batch) -> Tensor:
        values = net.call(function, batch)
        if self.combine == "median":
            return values.median(0).values
        return values.amax(0) if self.combine == "max" else values.mean(0)

    def guess_missing(self, net: Any, batch: Batch) -> Tensor:
        """Average what the members expect of missing values."""
        return net.call(self.detector_.guess_missing, batch).mean(0)

    def score_batch(self, net: Any, batch: Batch) -> Tensor:
        """Combine the members' scores."""
        return self._combined(net, self.detector_.score_batch, batch)

    def error_map(self, net: Any, batch: Batch) -> Tensor:
        """Combine the members' maps."""
        return self._combined(net, self.detector_.error_map, batch)

    def reconstruct(self, net: Any, batch: Batch) -> Tensor:
        """Average the members' restored samples."""
        return net.call(self.detector_.reconstruct, batch).mean(0)
