"""Windows laid at intervals, for detectors whose windows are costly to score."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from genad.core.inference import RECURRENT_ROWS, Answer, Want
from genad.core.windows import SeriesDetector
from genad.data.samples import Samples, Subset, WindowSamples
from genad.errors import InputError


@dataclass(eq=False, repr=False)
class StridedDetector(SeriesDetector):
    """A series detector that scores every ``step``-th window instead of every one.

    Within each unbroken stretch the first and the last window are always scored, so that every
    step that some window holds is still covered. Training sees the windows at all places.

    Parameters
    ----------
    step : int, optional
        Steps between the windows scored, from 1 to ``window``; an eighth of the window when absent.
        A larger one costs proportionally less, and averages each step over fewer windows.
    """

    step: int | None = field(default=None, kw_only=True)

    #: The interval is the window over this, when the user gives none.
    overlap = 8
    least_rows = RECURRENT_ROWS
    takes_backbone = False

    def _check_parameters(self) -> None:
        super()._check_parameters()
        step = self.step
        if step is None:
            return
        if not isinstance(step, int | np.integer) or isinstance(step, bool) or step < 1:
            raise InputError(f"step: {step!r} was given; use a whole number of at least 1, or None.")
        if self.window is not None and step > self.window:
            raise InputError(
                f"step: {step} was given, which leaves gaps between windows of {self.window} steps; use at most that."
            )

    def _run(self, samples: Samples, *want: Want, known: bool = False) -> Answer:
        return super()._run(self._thinned(samples), *want, known=known)

    def _thinned(self, samples: Samples) -> Samples:
        starts = _starts(samples).cpu().numpy()
        length = samples.shape[0]
        step = min(self.step or max(1, length // self.overlap), length)
        opens = np.flatnonzero(np.diff(starts, prepend=starts[0] - 2) != 1)
        lengths = np.diff(opens, append=len(starts))
        place = np.arange(len(starts)) - np.repeat(opens, lengths)
        last = np.repeat(lengths - 1, lengths)
        kept = np.flatnonzero((place % step == 0) | (place == last))
        return Subset(samples, torch.from_numpy(kept).to(self._device))


def _starts(samples: Samples) -> Any:
    if isinstance(samples, Subset):
        return _starts(samples.samples)[samples.indices]
    assert isinstance(samples, WindowSamples)  # noqa: S101 - series adapters make nothing else
    return samples.starts
