"""Labelled samples in training: how a detector that learns from labels, and not only calibrates on them, gets them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genad.core.detector import Detector
from genad.core.splits import Labels
from genad.core.training import TrainingReport
from genad.data.samples import Batch, Samples, Subset

# Numbers that the labelled samples in a network may come to.
_MOST_NUMBERS = 2**22


@dataclass(slots=True)
class LabelledSamples:
    """Samples to train on, and beside them some with labels.

    Attributes
    ----------
    samples : Samples
        What the loop draws its batches from.
    taught : Samples
        The labelled ones; they may or may not be among ``samples``.
    labels : Tensor of int64, shape (len(taught),)
        Their labels.
    """

    samples: Samples
    taught: Samples
    labels: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.samples.shape

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, indices: Tensor) -> Batch:
        """Return the samples at ``indices``."""
        return self.samples.batch(indices)

    def stretch(self, start: int, stop: int) -> Batch:
        """Return the samples from ``start`` to ``stop``."""
        return self.samples.stretch(start, stop)

    def to(self, device: torch.device) -> LabelledSamples:
        """Return the samples on ``device``."""
        return LabelledSamples(self.samples.to(device), self.taught.to(device), self.labels.to(device))


class LabelStore(nn.Module):
    """Labelled samples that a network holds while it is trained.

    Parameters
    ----------
    shape : tuple of int
        Shape of one sample.

    Attributes
    ----------
    x, mask, labels : Tensor
        Buffers ``(m, *shape)``, ``(m, *shape)`` and ``(m,)``: values, where they were observed, and labels.

    Examples
    --------
    >>> from genad.data.samples import ArraySamples
    >>> store = LabelStore((2,))
    >>> store.put(ArraySamples(torch.ones(3, 2)), torch.tensor([1, 1, 0]))
    >>> batch, labels = store.draw(2)
    >>> len(store), batch.x.shape, labels.shape
    (3, torch.Size([2, 2]), torch.Size([2]))
    """

    x: Tensor
    mask: Tensor
    labels: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("x", torch.zeros(0, *shape))
        self.register_buffer("mask", torch.zeros(0, *shape, dtype=torch.bool))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.x)

    def put(self, samples: Samples, labels: Tensor) -> None:
        """Take in labelled samples, evenly spread ones where they would fill the memory."""
        if not len(samples):
            self.clear()
            return
        place = self.x.device
        most = min(len(samples), max(16, _MOST_NUMBERS // int(torch.Size(samples.shape).numel())))
        rows = torch.linspace(0, len(samples) - 1, most, device=place).long()
        batch = samples.batch(rows)
        self.x, self.labels = batch.x.clone(), labels.to(place)[rows]
        self.mask = torch.ones_like(batch.x, dtype=torch.bool) if batch.mask is None else batch.mask.clone()

    def draw(self, count: int) -> tuple[Batch, Tensor]:
        """Return ``count`` labelled samples drawn without repetition, or all there are, and their labels."""
        where = torch.randperm(len(self), device=self.x.device)[:count]
        return Batch(self.x[where], self.mask[where]), self.labels[where]

    def clear(self) -> None:
        """Drop the samples, once training is over and nothing needs them."""
        self.x, self.mask, self.labels = self.x[:0].clone(), self.mask[:0].clone(), self.labels[:0].clone()


@dataclass(eq=False, repr=False)
class LabelledDetector(Detector):
    """A detector whose training draws on labelled samples, where there are any.

    A method says with :meth:`taught` which units teach, gives its network a :class:`LabelStore` called ``told``, and
    draws from it in its loss; the store is empty when nothing was labelled, and again after the fit.
    """

    def taught(self, labels: Labels, train: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which units the labels of are learnt from; ``train`` marks those that the gradient sees anyway."""
        raise NotImplementedError

    def _split(self, samples: Samples, labels: Labels) -> tuple[Samples, Samples]:
        train, held = super()._split(samples, labels)
        assert isinstance(train, Subset)  # noqa: S101 - the split of a detector of samples
        seen = np.zeros(len(labels.values), bool)
        seen[train.indices.cpu().numpy()] = True
        rows = np.flatnonzero(self.taught(labels, seen))
        told = torch.from_numpy(labels.values[rows]).to(self._device)
        return LabelledSamples(train, self._rows(samples, rows), told), held

    def optimise(self, net: Any, samples: Samples) -> TrainingReport:
        """Train with the labelled samples at hand, and drop them."""
        if isinstance(samples, LabelledSamples):
            net.told.put(samples.taught, samples.labels)
        report = super().optimise(net, samples)
        net.told.clear()
        return report
