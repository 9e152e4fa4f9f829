"""What is made of the errors of steps: a Gaussian of their vectors, and one size from the opening of a stretch on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genad.data.samples import Batch, Samples, everything
from genad.nn.spectrum import spectrum

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


class ErrorGaussian(nn.Module):
    """A Gaussian of error vectors, by which vectors are whitened so that their squares add up to a distance.

    Parameters
    ----------
    size : int
        Values of an error vector.
    """

    mean: Tensor
    whiten: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("whiten", torch.eye(size))

    def settle(self, errors: Tensor, shrinkage: float) -> None:
        """Fit mean and covariance to errors (n, size).

        ``shrinkage`` is the share of the covariance that is replaced by a multiple of the identity with its trace.
        """
        errors = errors.double()
        self.mean.copy_(errors.mean(0))
        centred = errors - errors.mean(0)
        covariance = centred.T @ centred / len(errors)
        size = len(covariance)
        level = covariance.diagonal().mean().clamp_min(1e-6)
        covariance = (1 - shrinkage) * covariance
        covariance.diagonal().add_(shrinkage * level)
        values, vectors = spectrum(covariance)
        # The symmetric root, so that a whitened error still belongs to its channel.
        self.whiten.copy_(vectors @ torch.diag(values.clamp_min(1e-9).rsqrt()) @ vectors.T / size**0.5)

    def deviation(self, errors: Tensor) -> Tensor:
        """Return errors (..., size) less their mean and whitened: their squares add up to 1 on average."""
        centred: Tensor = errors - self.mean
        return centred @ self.whiten
