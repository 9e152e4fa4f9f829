"""One pass over samples, block by block: a score never depends on the other rows of a call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genad.data.samples import Batch, HiddenSamples, Samples, iterate

Floats = NDArray[np.float64]
Want = Literal["score", "map", "restored"]

# Rows are run in blocks padded to a multiple of this, so that matrix products take the same path for every
# row and a score does not depend on which other rows were in the call.
_ALIGN = 16
# Least rows of a block for networks that go step by step: below this a step costs about the same.
RECURRENT_ROWS = 512
# Numbers in a block: large enough to keep the device busy, small enough to stay in the processor's cache.
_BLOCK = 2**18
# Times that a hole is filled again with what was restored in it.
_REFILLS = 10


@dataclass
class Inference:
    """What one pass over a batch gives.

    Attributes
    ----------
    score : Tensor of shape (B,), or (B, T) for one score a step
        Higher is more anomalous.
    map : Tensor of the batch's shape, or None
        Where the score comes from.
    restored : Tensor of the batch's shape, or None
        Nearest normal samples.
    blank : Tensor of bool, shape (B,), or None
        True where nothing of a sample was observed; filled in by the pass.
    """

    score: Tensor
    map: Tensor | None = None
    restored: Tensor | None = None
    blank: Tensor | None = None

    @classmethod
    def of(cls, batch: Batch, want: frozenset[Want], score: Tensor, values: Tensor, restored: Tensor) -> Inference:
        """Return what is wanted of what is at hand; the map, of ``values``, is 0 where nothing was observed.

        Examples
        --------
        >>> x = torch.tensor([[1.0, 0.0]])
        >>> found = Inference.of(Batch(x, x > 0), frozenset({"map"}), torch.ones(1), torch.ones(1, 2), x)
        >>> found.map, found.restored
        (tensor([[1., 0.]]), None)
        """
        return cls(
            score,
            batch.keep_observed(values) if "map" in want else None,
            restored if "restored" in want else None,
        )


@dataclass
class Answer:
    """Scores, maps and restored values of all units, as arrays on the standardised scale."""

    scores: Floats
    maps: NDArray[np.float32] | None = None
    restored: NDArray[np.float32] | None = None
    #: Units in which nothing was observed, whose scores are NaN; None where every unit has something.
    blank: NDArray[np.bool_] | None = None


class BlockRunner:
    """Runs a fitted network over samples in aligned blocks; a part of every detector."""

    net_: nn.Module
    grad_at_score: ClassVar[bool]
    #: Rows of a block at least; :data:`RECURRENT_ROWS` where a network goes step by step.
    least_rows: ClassVar[int] = _ALIGN
    #: Whether a restoration fills missing values by itself, looking at the others alone.
    inpaints: ClassVar[bool] = False
    #: Rounds in which missing values take what :meth:`guess_missing` says, before a sample is judged. With 0 they stand
    #: at the training mean, which suits methods that compare by the observed values alone.
    refills: ClassVar[int] = 0

    @property
    def _device(self) -> torch.device:
        raise NotImplementedError

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Compute what is wanted of a batch."""
        raise NotImplementedError

    def guess_missing(self, net: Any, batch: Batch) -> Tensor:
        """Return what the model expects of missing values, in the batch's shape; the observed ones are not looked at.

        The batch holds the guess of the round before in their place.
        """
        restored = self.infer(net, batch, frozenset({"restored"})).restored
        assert restored is not None  # noqa: S101 - asked for
        return restored

    def fill_missing(self, net: Any, batch: Batch) -> Batch:
        """Let the model guess missing values from the observed ones; the mask stays, and so do complete samples."""
        if batch.mask is None or not self.refills:
            return batch
        gaps = ~batch.mask.flatten(1)
        # A sample in which nothing was observed has nothing to guess from.
        rows = (gaps.any(1) & ~gaps.all(1)).nonzero()[:, 0]
        if not len(rows):
            return batch
        part = batch.take(torch.cat([rows, rows[-1:].expand(-len(rows) % _ALIGN)]))
        assert part.mask is not None  # noqa: S101 - as the batch's
        for _ in range(self.refills):
            part = replace(part, x=torch.where(part.mask, part.x, self.guess_missing(net, part).detach()))
        x = batch.x.clone()
        x[rows] = part.x[: len(rows)]
        return replace(batch, x=x)

    def _block(self, shape: tuple[int, ...]) -> int:
        rows = _BLOCK // max(1, int(np.prod(shape)))
        size = int(np.clip(rows // _ALIGN * _ALIGN, _ALIGN, 2048)) * (1 if self._device.type == "cpu" else 16)
        return max(self.least_rows, size)

    def _scoring(self) -> AbstractContextManager[Any]:
        return torch.enable_grad() if self.grad_at_score else torch.inference_mode()

    def _aligned(self, samples: Samples) -> Iterator[tuple[slice, Batch]]:
        """Yield (slice, batch) over all samples, each batch padded to an aligned size by repeating its last row."""
        for where, batch in iterate(samples, self._block(samples.shape)):
            n = len(batch)
            short = -n % _ALIGN
            if short:
                batch = batch.take(torch.arange(n + short, device=self._device).clamp_max(n - 1))
            yield where, batch

    def _blocks(
        self, samples: Samples, want: frozenset[Want], *, known: bool = False
    ) -> Iterator[tuple[slice, Inference]]:
        """Yield (slice, Inference) over all samples, block by block."""
        for where, batch in self._aligned(samples):
            batch.known = known
            with self._scoring():
                found = self.infer(self.net_, self.fill_missing(self.net_, batch), want)
                if batch.mask is not None:
                    found.blank = ~batch.mask.flatten(1).any(1)
                yield where, found

    def _plain_scores(self) -> Floats:
        """Return the scores of normal units that a detector is calibrated on, without what labels taught."""
        raise NotImplementedError

    def _answer(self, samples: Samples, *want: Want) -> Answer:
        """Return :meth:`_run` with a finite score for every unit."""
        answer = self._run(samples, *want)
        return answer if answer.blank is None else self._fill(answer, self._plain_scores())

    @staticmethod
    def _fill(answer: Answer, normal: Floats) -> Answer:
        """Give units in which nothing was observed the typical score of a normal unit."""
        if answer.blank is not None:
            answer.scores[answer.blank] = np.median(normal)
        return answer

    def _mended(self, samples: Samples, hidden: Tensor | None) -> NDArray[np.float32]:
        """Return the nearest normal samples, without a look at values that are ``hidden``."""
        seen = samples if hidden is None else HiddenSamples(samples, hidden)
        restored = self._answer(seen, "restored").restored
        assert restored is not None  # noqa: S101 - asked for
        if hidden is None or self.inpaints:
            return restored
        for _ in range(_REFILLS):
            # A network that knows no holes sees its last restoration there, and so comes nearer to what fits.
            filled = HiddenSamples(samples, hidden, torch.from_numpy(restored))
            restored = self._answer(filled, "restored").restored
            assert restored is not None  # noqa: S101 - asked for
        return restored

    def _run(self, samples: Samples, *want: Want, known: bool = False) -> Answer:
        """Compute what is wanted of every unit, block by block; ``known`` as in :class:`Batch`."""
        n, shape = len(samples), samples.shape
        answer = Answer(np.empty(n))
        blank = np.zeros(n, bool)
        if "map" in want:
            answer.maps = np.empty((n, *shape), np.float32)
        if "restored" in want:
            answer.restored = np.empty((n, *shape), np.float32)
        for where, out in self._blocks(samples, frozenset(want), known=known):
            size = where.stop - where.start
            answer.scores[where] = _array(out.score[:size])
            if out.blank is not None:
                blank[where] = _array(out.blank[:size])
            if answer.maps is not None and out.map is not None:
                answer.maps[where] = _array(out.map[:size])
            if answer.restored is not None and out.restored is not None:
                answer.restored[where] = _array(out.restored[:size])
        if blank.any():
            answer.blank = blank
            answer.scores[blank] = np.nan
        return answer


def _array(values: Tensor) -> NDArray[Any]:
    return values.detach().cpu().numpy()
