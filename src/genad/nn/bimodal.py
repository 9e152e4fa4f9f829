"""Two Gaussians on a line: how clearly numbers fall into two groups."""

from __future__ import annotations

import torch
from torch import Tensor

# Steps of expectation maximisation, and the least standard deviation in units of the range of the numbers.
_STEPS, _LEAST = 30, 1e-3


def two_gaussians(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fit a mixture of two Gaussians to numbers on a line, for each row of ``values`` its own.

    Expectation maximisation starts from the largest tenth against the rest, since the smaller group is looked for at
    the top; it draws nothing.

    Parameters
    ----------
    values : Tensor of shape (M, n)
        Finite numbers, at least one a row.

    Returns
    -------
    weights, means, stds : Tensor of shape (M, 2), float64

    Examples
    --------
    >>> values = torch.cat([torch.linspace(-0.1, 0.1, 80), torch.linspace(0.8, 1.0, 20)])[None]
    >>> weights, means, stds = two_gaussians(values)
    >>> weights.round(decimals=2).tolist(), means.abs().round(decimals=2).tolist()
    ([[0.8, 0.2]], [[0.0, 0.9]])
    """
    x = values.double()
    least = (_LEAST * (x.amax(1) - x.amin(1)))[:, None].clamp_min(1e-12)
    cut = torch.quantile(x, 0.9, dim=1, keepdim=True)
    top = (x > cut).double().clamp(0.01, 0.99)
    share = torch.stack([1 - top, top], 1)
    for step in range(_STEPS + 1):
        mass = share.sum(2)
        means = (share * x[:, None]).sum(2) / mass
        spread = (share * (x[:, None] - means[..., None]).square()).sum(2) / mass
        weights, stds = mass / x.shape[1], torch.maximum(spread.sqrt(), least)
        if step == _STEPS:
            break
        far = (x[:, None] - means[..., None]) / stds[..., None]
        # An empty group keeps a trace of every number, so that no division is by nothing.
        share = ((weights / stds).log()[..., None] - 0.5 * far.square()).softmax(1).clamp_min(1e-9)
    return weights, means, stds


def separation(values: Tensor) -> Tensor:
    """Return how far apart the two groups of numbers are, on the scale of their range.

    The numbers of a row are scaled to [0, 1]; the answer is the squared Wasserstein distance of the two Gaussians
    fitted to them, ``(m1 - m2)^2 + (s1 - s2)^2``.

    Parameters
    ----------
    values : Tensor of shape (M, n)
        Finite numbers, at least one a row.

    Returns
    -------
    Tensor of shape (M,), float64
        0 where all numbers are the same.

    Examples
    --------
    >>> clear, vague = torch.tensor([0.0, 0.1, 0.0, 0.1, 1.0]), torch.linspace(0, 1, 5)
    >>> found = separation(torch.stack([clear, vague]))
    >>> bool(found[0] > found[1])
    True
    """
    x = values.double()
    low = x.amin(1, keepdim=True)
    span = x.amax(1, keepdim=True) - low
    _, means, stds = two_gaussians((x - low) / span.clamp_min(torch.finfo(torch.float64).tiny))
    apart = (means[:, 0] - means[:, 1]).square() + (stds[:, 0] - stds[:, 1]).square()
    return torch.where(span[:, 0] > 0, apart, 0.0)
