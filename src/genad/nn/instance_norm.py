"""Mean and standard deviation of each channel of one window, from what was observed of it."""

from __future__ import annotations

from torch import Tensor

# Added to variances: a channel that does not move within a window must not be blown up.
_SMALL = 1e-5


def window_moments(x: Tensor, observed: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel of each window over its observed steps.

    Parameters
    ----------
    x : Tensor of shape (B, T, C)
        Windows; where not observed they do not matter.
    observed : Tensor of bool, same shape, optional
        True where a value counts; all do when absent.

    Returns
    -------
    mean, std : Tensor of shape (B, 1, C)
        0 and 1 where a channel has no observed value. The standard deviation is at least 0.003.

    References
    ----------
    Kim, Kim, Tae, Park, Choi and Choo (2022), Reversible instance normalization for accurate time-series forecasting
    against distribution shift, ICLR.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([1.0, 3.0, 99.0]).view(1, 3, 1)
    >>> mean, std = window_moments(x, torch.tensor([True, True, False]).view(1, 3, 1))
    >>> round(mean.item(), 3), round(std.item(), 3)
    (2.0, 1.0)
    """
    if observed is None:
        mean = x.mean(1, keepdim=True)
        return mean, ((x - mean).square().mean(1, keepdim=True) + _SMALL).sqrt()
    weight = observed.to(x.dtype)
    count = weight.sum(1, keepdim=True)
    mean = (x * weight).sum(1, keepdim=True) / count.clamp_min(1.0)
    variance = ((x - mean) * weight).square().sum(1, keepdim=True) / count.clamp_min(1.0)
    return mean, (variance + _SMALL).sqrt().where(count > 0, 1.0)
