"""Reading texts with a local network: in batches of like length, with what all texts begin with computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genad.foundation.batching import batches, common_start, padded
from genad.foundation.llama import LoRA
from genad.foundation.usage import Meter

_BATCH_TOKENS = 1024  # tokens computed at once; more is no faster on a processor
_LOGIT_ROWS = 512  # positions whose scores over the vocabulary are held at once


@dataclass(frozen=True)
class Reader:
    """Reads rows of tokens; a row's numbers depend on the others by rounding alone.

    Attributes
    ----------
    net : Llama or TransformersNet
    adapters : LoRA or None
    pad : int
        Token that fills rows up at their end, where no token of the row sees it.
    meter : Meter
        Counts a call for each row.
    computing : callable
        Gives the context in which the network may run.
    """

    net: Any
    adapters: LoRA | None
    pad: int
    meter: Meter
    computing: Callable[[], AbstractContextManager[None]]

    def tensor(self, ids: Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
        """Return tokens where the network computes."""
        return torch.tensor(ids, dtype=torch.long, device=self.net.embedding.device)

    def filled(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Return rows of tokens as one tensor."""
        return padded(rows, self.pad, self.net.embedding.device)

    def means(self, rows: Sequence[list[int]]) -> NDArray[np.float32]:
        """Return the mean of the last hidden states of each row, at length 1."""
        out = np.zeros((len(rows), self.net.shape.width), dtype=np.float32)
        for batch in batches([len(ids) for ids in rows], _BATCH_TOKENS):
            with self.meter.call(len(batch)) as tally, self.computing():
                tally.tokens_in = sum(len(rows[row]) for row in batch)
                hidden = self.net(self.filled([rows[row] for row in batch]), None, self.adapters)
                for row, states in zip(batch, hidden, strict=True):
                    mean = states[: len(rows[row])].mean(0)
                    out[row] = (mean / mean.norm()).cpu().numpy()
        return out

    def last(self, rows: Sequence[list[int]], wanted: Tensor) -> NDArray[np.float64]:
        """Return the log-probabilities (rows, wanted) of tokens right after the rows."""
        out = np.zeros((len(rows), len(wanted)))
        for batch, shared, hidden in self._hidden(rows, min(map(len, rows), default=0) - 1):
            ends = torch.tensor([len(rows[row]) - shared - 1 for row in batch])
            with torch.inference_mode():
                scores = self.net.logits(hidden[torch.arange(len(batch)), ends]).log_softmax(-1)
            out[batch] = scores[:, wanted].double().cpu().numpy()
        return out

    def scores(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[NDArray[np.float64]]:
        """Return the log-probabilities of the second part of each pair; NaN where nothing stands before."""
        out = [np.full(len(after), np.nan) for _, after in pairs]
        # The last token is scored and never read, so it is not computed.
        chosen = [i for i, (before, after) in enumerate(pairs) if len(before) + len(after) > 1 and after]
        rows = [(pairs[i][0] + pairs[i][1])[:-1] for i in chosen]
        if not rows:
            return out
        # States from the last token before each text on are needed.
        most = min(max(len(pairs[i][0]) - 1, 0) for i in chosen)
        for batch, shared, hidden in self._hidden(rows, most):
            for place, states in zip(batch, hidden, strict=True):
                before, after = pairs[chosen[place]]
                first = max(len(before), 1)
                states = states[first - 1 - shared : len(rows[place]) - shared]
                ids = self.tensor((before + after)[first:])
                out[chosen[place]][first - len(before) :] = self._chosen(states, ids)
        return out

    def _hidden(self, rows: Sequence[list[int]], most: int) -> Iterator[tuple[list[int], int, Tensor]]:
        """Yield batches: which rows, how many of their first tokens (``most`` at most) are left out, hidden states."""
        shared, begun = common_start(rows, most), None
        for batch in batches([len(row) - shared for row in rows], _BATCH_TOKENS):
            with self.meter.call(len(batch)) as tally, self.computing():
                tally.tokens_in = sum(len(rows[row]) for row in batch)
                ids, cache = self.filled([rows[row][shared:] for row in batch]), None
                if shared:
                    if begun is None:
                        begun = self.net.new_cache(1, shared)
                        self.net(self.tensor([rows[0][:shared]]), begun, self.adapters)
                    cache = begun.repeated(len(batch), ids.shape[1])
                hidden = self.net(ids, cache, self.adapters)
            yield batch, shared, hidden

    def _chosen(self, states: Tensor, ids: Tensor) -> NDArray[np.float64]:
        parts = []
        with torch.inference_mode():
            for some, wanted in zip(states.split(_LOGIT_ROWS), ids.split(_LOGIT_ROWS), strict=True):
                scores = self.net.logits(some)
                parts.append(scores.gather(1, wanted[:, None])[:, 0] - scores.logsumexp(-1))
        return torch.cat(parts).double().cpu().numpy()
