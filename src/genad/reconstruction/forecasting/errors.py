"""What forecasting detectors share: errors at the opening of a stretch brought to the size of all others."""

from __future__ import annotations

import torch
from torch import Tensor

from genad.data.samples import Batch, Samples, everything

# Numbers a closed-form estimate looks at, and the most windows it takes.
_NUMBERS, _WINDOWS = 2**23, 2000


def some_windows(samples: Samples, device: torch.device, copies: int = 1) -> Batch:
    """Return evenly spaced training windows, as many as estimates need and memory allows.

    Parameters
    ----------
    samples : Samples
        Windows (T, C).
    device : torch.device
        Where to.
    copies : int
        Numbers computed of each value of a window.
    """
    steps, channels = samples.shape
    return everything(samples, device, max(16, min(_WINDOWS, _NUMBERS // (steps * channels * copies))))


def opening_gain(errors: Tensor, observed: Tensor | None = None) -> Tensor:
    """Return the factors that bring errors made from few steps to the size of those made from many.

    Only the first window of an unbroken stretch is read from its beginning; its first steps are expected from little,
    miss by more, and would be flagged at every start of a series.

    Parameters
    ----------
    errors : Tensor of shape (B, T, ...)
        Errors of training windows.
    observed : Tensor of bool, same shape or broadcasting to it, optional
        What counts.

    Returns
    -------
    Tensor of shape (T, ...)
        The root mean square error of the last step over that of each step, at most 1.

    Examples
    --------
    >>> opening_gain(torch.tensor([[[4.0], [1.0], [2.0]]])).flatten()
    tensor([0.5000, 1.0000, 1.0000])
    """
    square = errors.square()
    if observed is None:
        mean = square.mean(0)
    else:
        weight = observed.expand_as(square).to(square.dtype)
        mean = (square * weight).sum(0) / weight.sum(0).clamp_min(1.0)
    return (mean[-1:].clamp_min(1e-8) / mean.clamp_min(1e-8)).sqrt().clamp_max(1.0)
