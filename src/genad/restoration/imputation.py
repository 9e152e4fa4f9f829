"""What imputers of series share: judging every span as if it were missing, and filling what is or should be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.core.inference import Answer, Inference, Want
from genad.core.parameters import check_number, check_whole
from genad.core.windows import as_windows
from genad.data.samples import Batch, Samples, WindowSamples, everything
from genad.nn.hiding import spans_in_turn
from genad.reconstruction.forecasting.patchtst_ad import miss
from genad.reconstruction.strided import StridedDetector

# Windows whose distances say what is usual.
_WINDOWS, _LEVELS = 64, 2000
# Least unit of a distance, in standard deviations of the channel: one that never moves must not drown the rest.
_FLOOR = 0.05


class ImputerNet(nn.Module):
    """Base of the networks of imputers: it keeps the patterns they judge with, and what is usual in training.

    Parameters
    ----------
    shape : tuple of int
        Steps T and channels C of a window.
    span : int
        Steps of a span that is hidden to be judged.

    Attributes
    ----------
    patterns : Tensor
        Buffer (2, T, C): the cells hidden in turn.
    usual : Tensor
        Buffer (C,): what distances from the expected values are measured in.
    levels : Tensor
        Buffer (3, C): quantiles of the levels of the channels.
    """

    patterns: Tensor
    usual: Tensor
    levels: Tensor

    def __init__(self, shape: tuple[int, ...], span: int) -> None:
        super().__init__()
        steps, channels = shape
        self.register_buffer("patterns", spans_in_turn(steps, channels, span))
        self.register_buffer("usual", torch.ones(channels))
        self.register_buffer("levels", torch.zeros(3, channels))


@dataclass(eq=False, repr=False)
class SeriesImputer(StridedDetector):
    """A detector of series that fills in spans from what surrounds them.

    A method fills in :meth:`impute`. Every cell is judged by what is expected of it when its span is hidden
    (:func:`~genad.nn.hiding.spans_in_turn`); the score of a step is the mean distance from there over its observed
    channels. A stretch that lies at another level fits itself well, so the distance of the level around each cell from
    those of training is added (:func:`~genad.reconstruction.forecasting.patchtst_ad.miss`). Restoration fills in
    missing values, and the steps that the detector flags, with a margin around them; every other value comes back as it
    was, in single precision.

    Parameters
    ----------
    span : int
        Steps of a span hidden to be judged, at least 1.
    level : float
        Weight of the distance of levels, at least 0.
    margin : int
        Steps around a surprising one that are restored with it, at least 0: the edge of an anomaly left in place would
        speak for the anomaly.
    """

    span: int = field(default=8, kw_only=True)
    level: float = field(default=1.0, kw_only=True)
    margin: int = field(default=2, kw_only=True)

    stackable = False
    inpaints = True

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "span")
        check_whole(self, "margin", low=0)
        check_number(self, "level", "[0, inf)")

    # ------------------------------------------------------------------ for a method to fill in

    def impute(self, net: Any, x: Tensor, seen: Tensor, *, judging: bool) -> tuple[Tensor, Tensor]:
        """Return what is expected of every cell of windows, and how uncertain that is.

        Parameters
        ----------
        net : ImputerNet
        x : Tensor of shape (B, T, C)
            Windows; what is not seen does not matter.
        seen : Tensor of bool, same shape
            True where the network may look.
        judging : bool
            Whether this is for a score, which must be quick, or for a restoration.

        Returns
        -------
        expected, spread : Tensor of shape (B, T, C)
            The spread is 0 for a method that does not know it.
        """
        raise NotImplementedError

    def unit(self, net: Any, spread: Tensor) -> Tensor:  # noqa: ARG002 - for overriding
        """Return what distances are measured in: the standard deviation of the channel's residuals in training."""
        usual: Tensor = net.usual
        return usual

    def typical(self, away: Tensor, spread: Tensor, seen: Tensor) -> Tensor:  # noqa: ARG002 - for overriding
        """Return ``usual`` (C,) for distances and spreads (B, T, C) of training windows, where ``seen`` is 1."""
        return ((away.square() * seen).sum((0, 1)) / seen.sum((0, 1)).clamp_min(1.0)).sqrt()

    # ------------------------------------------------------------------ shared

    def distances(self, net: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return how far each cell is from what is expected with its span hidden, and the spreads, (B, T, C) each."""
        x = batch.x
        seen = torch.ones_like(x, dtype=torch.bool) if batch.mask is None else batch.mask
        away, spread = torch.zeros_like(x), torch.zeros_like(x)
        for hidden in net.patterns:
            expected, doubt = self.impute(net, x, seen & ~hidden, judging=True)
            away = torch.where(hidden, (x - expected).abs(), away)
            spread = torch.where(hidden, doubt, spread)
        return batch.keep_observed(away), spread

    def surprise(self, net: Any, batch: Batch) -> Tensor:
        """Return the distances of cells in their units, (B, T, C); 0 where missing."""
        away, spread = self.distances(net, batch)
        return away / self.unit(net, spread)

    def around(self, batch: Batch) -> Tensor:
        """Return the level around each cell (B, T, C): the median of the two spans of a window that it is in."""
        values = batch.x if batch.mask is None else batch.x.masked_fill(~batch.mask, torch.nan)
        # The median does not follow a few odd steps, which are to be found one by one.
        blocks = values.split(2 * self.span, 1)
        return torch.nan_to_num(torch.cat([b.nanmedian(1, keepdim=True).values.expand_as(b) for b in blocks], 1))

    def finish(self, net: Any, samples: Samples) -> None:
        """Take the usual units and levels from training windows."""
        net.usual = self.typical(*self._judged(net, samples)).clamp_min(_FLOOR)
        batch = everything(samples, self._device, _LEVELS)
        first = self.around(batch)[:, 0]
        known = torch.ones_like(first) if batch.mask is None else batch.mask[:, : 2 * self.span].any(1)
        found = first.masked_fill(known == 0, torch.nan).nanquantile(torch.tensor([0.05, 0.5, 0.95]).to(first), dim=0)
        net.levels = torch.nan_to_num(found)

    def _judged(self, net: Any, samples: Samples) -> tuple[Tensor, Tensor, Tensor]:
        """Return distances, spreads, and 1 where a value was observed, of some windows, (B, T, C) each."""
        parts = _chunks(everything(samples, self._device, _WINDOWS), self._block(samples.shape))
        found = [self.distances(net, part) for part in parts]
        away, spread = (torch.cat(values) for values in zip(*found, strict=True))
        return (
            away,
            spread,
            torch.cat([torch.ones_like(p.x) if p.mask is None else p.mask.to(p.x.dtype) for p in parts]),
        )

    def _residual_bounds(self, held: Samples, answer: Answer) -> NDArray[np.float64]:  # noqa: ARG002
        # What is not flagged comes back as it is; how far it may lie from what would be filled in says how usual it is.
        with self._scoring():
            away, _, seen = self._judged(self.net_, held)
        values = np.where(seen.cpu().numpy() > 0, away.cpu().numpy(), np.nan)
        known = (seen.sum((0, 1)) > 0).cpu().numpy()
        bounds = np.full(values.shape[2], np.nan)
        bounds[known] = np.nanquantile(values[..., known], 0.99, axis=(0, 1), method="higher")
        return bounds

    def fill(self, net: Any, batch: Batch) -> Tensor:
        """Return windows with what is missing filled in, and all else as it was."""
        x = batch.x
        if batch.mask is None:
            return x
        rows = (~batch.mask).flatten(1).any(1).nonzero().squeeze(1)
        if not len(rows):
            return x
        filled, _ = self.impute(net, x[rows], batch.mask[rows], judging=False)
        return x.index_copy(0, rows, torch.where(batch.mask[rows], x[rows], filled))

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Score the steps of windows with each span hidden in turn; asked for restorations alone, only fill in."""
        if want == {"restored"}:
            return Inference(torch.zeros_like(batch.x[..., 0]), None, self.fill(net, batch))
        surprise = self.surprise(net, batch)
        if self.level:
            surprise = surprise + batch.keep_observed(self.level * miss(self.around(batch), net.levels[:, None, None]))
        return Inference(
            batch.step_mean(surprise),
            surprise if "map" in want else None,
            self.fill(net, batch) if "restored" in want else None,
        )

    def suspicious(self, answer: Answer) -> Tensor:
        """Return the steps (n,) of a series to restore: those flagged, and the margin around them."""
        flagged = torch.from_numpy(self._flagged(answer)).to(torch.float32).view(1, 1, -1)
        return F.max_pool1d(flagged, 2 * self.margin + 1, stride=1, padding=self.margin).flatten() > 0

    def _flagged(self, answer: Answer) -> NDArray[np.bool_]:
        """Return which steps the detector flags; none in a fit, and none that no window holds."""
        flags = ~np.isnan(answer.scores)
        if not hasattr(self, "threshold_"):
            return np.zeros_like(flags)
        scores, head = answer.scores[flags], self.head_
        if head is not None:
            scores = head.judge(scores, self._traits(answer)[flags])
        flags[flags] = self.threshold_.flag(scores)
        return flags

    def _run(self, samples: Samples, *want: Want, known: bool = False) -> Answer:
        """Score first; then hide the steps that all windows together find surprising, and fill in."""
        if "restored" not in want:
            return super()._run(samples, *want, known=known)
        # What labels taught is judged by the map too.
        wanted = {*want, *(() if self.head_ is None else ("map",))} - {"restored"}
        answer = super()._run(samples, *wanted, known=known)
        windows = as_windows(samples)
        x = windows.x
        odd = self.suspicious(answer).to(x.device)
        if "map" not in want:
            answer.maps = None
        seen = (~odd).unsqueeze(1).expand_as(x)
        seen = seen if windows.mask is None else seen & windows.mask
        hidden = WindowSamples(x * seen, windows.starts, windows.length, seen)
        filled = super()._run(hidden, "restored").restored
        assert filled is not None  # noqa: S101 - asked for
        # Averages over windows are rounded; what was seen is not.
        answer.restored = torch.where(seen.cpu(), x.cpu(), torch.from_numpy(filled)).numpy()
        return answer


def _chunks(batch: Batch, size: int) -> list[Batch]:
    masks = [None] * len(batch) if batch.mask is None else batch.mask.split(size)
    return [Batch(x, mask) for x, mask in zip(batch.x.split(size), masks, strict=False)]
