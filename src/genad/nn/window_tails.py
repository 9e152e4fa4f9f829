"""How unusual the last step of a window is among the steps before it, as a few numbers a channel."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

# Steps of the moving average; places by which a window is extended before its spectrum is taken, as extrapolated from
# as many steps; and neighbours over which a log spectrum is smoothed.
_AVERAGE, _EXTENT, _SMOOTH = 5, 5, 3
# Smallest probability that is told apart, and smallest bandwidth in standard deviations of the training data.
_RAREST, _NARROWEST = 1e-6, 0.05
# Share of the operators' values on training windows that lie within the range which others are pulled into.
_USUAL = 0.99
_TINY = 1e-6


def moving_average_residual(x: Tensor) -> Tensor:
    """Return each step of ``(B, T, C)`` less the mean of the five before it, or of as many as there are."""
    total = x.cumsum(1)
    total = torch.cat([torch.zeros_like(x[:, :1]), total], 1)
    steps = torch.arange(x.shape[1], device=x.device)
    first = (steps - _AVERAGE).clamp_min(0)
    count = (steps - first).clamp_min(1)[:, None]
    before = (total[:, steps] - total[:, first]) / count
    return torch.cat([torch.zeros_like(x[:, :1]), (x - before)[:, 1:]], 1)


def spectral_residual(x: Tensor) -> Tensor:
    """Return how salient each step is: what is left of a window when its smooth log spectrum is taken away.

    Parameters
    ----------
    x : Tensor of shape (B, T, C)
        Windows.

    Returns
    -------
    Tensor of shape (B, T, C)
        The saliency, less its mean over the window and in units of it.

    References
    ----------
    Ren et al. (2019), Time-series anomaly detection service at Microsoft, KDD.

    Examples
    --------
    >>> x = torch.sin(torch.arange(64) / 3)[None, :, None].clone()
    >>> x[0, 40] += 3
    >>> int(spectral_residual(x)[0, :, 0].argmax())
    40
    """
    steps = x.shape[1]
    back = min(_EXTENT, steps - 1)
    # The edge of a window is salient in itself, so it is moved away from the last step.
    lags = torch.arange(1, back + 1, device=x.device, dtype=x.dtype)[:, None]
    slope = ((x[:, -1:] - x[:, -1 - back : -1].flip(1)) / lags).mean(1, keepdim=True)
    ahead = x[:, steps - back : steps - back + 1] + slope * back
    spectrum = torch.fft.fft(torch.cat([x, ahead.expand(-1, _EXTENT, -1)], 1), dim=1)
    size = spectrum.abs()
    logs = torch.log(size + _TINY)
    around = torch.nn.functional.avg_pool1d(
        logs.transpose(1, 2), _SMOOTH, 1, _SMOOTH // 2, count_include_pad=False
    ).transpose(1, 2)
    saliency = torch.fft.ifft(torch.exp(logs - around) * spectrum / (size + _TINY), dim=1).abs()[:, :steps]
    mean = saliency.mean(1, keepdim=True)
    return (saliency - mean) / (mean + _TINY)


def kernel_cdf(values: Tensor, at: Tensor, weights: Tensor) -> Tensor:
    """Return the share of values below points, by a kernel density estimate with normal kernels.

    Parameters
    ----------
    values : Tensor of shape (B, T, C)
        Samples.
    at : Tensor of shape (B, S, C)
        Points.
    weights : Tensor broadcasting to (B, S, T, C)
        How much each sample counts at each point, at least 0. A point whose samples all count 0 gets 1/2.

    Returns
    -------
    Tensor of shape (B, S, C)

    Examples
    --------
    >>> values = torch.linspace(-1, 1, 101)[None, :, None]
    >>> found = kernel_cdf(values, torch.tensor([[[-9.0], [0.0], [9.0]]]), torch.ones(1, 1, 1, 1))
    >>> [round(float(p), 3) for p in found.flatten()]
    [0.0, 0.5, 1.0]
    """
    count = max(values.shape[1], 2)
    width = (4.0 / 3.0 / count) ** 0.2 * values.std(1, correction=0) + _NARROWEST
    below = torch.special.ndtr((at[:, :, None] - values[:, None]) / width[:, None, None])
    total = weights.expand_as(below).sum(2)
    return torch.where(total > 0, (below * weights).sum(2) / total.clamp_min(_TINY), 0.5)


def rarity(p: Tensor) -> Tensor:
    """Return ``log p`` on a scale from 0, where p is 1, to 1, where it is one in a million or less."""
    return torch.log(p.clamp(_RAREST, 1.0)) / math.log(_RAREST)


class WindowTails(nn.Module):
    """Features in [0, 1] of steps: how far out they are among the other steps of their window.

    Operators look at a step: its value among the last steps and among those a period ago, its difference from a moving
    average, and its spectral residual; for a single channel also its difference from a period (or a quarter of a
    window) ago, from the step before, and its value among all of the window. What an operator finds at a step is placed
    among what it finds at the other steps by a kernel density estimate, and the tail probability becomes a rarity, 1 at
    one in a million. Values of other steps are first pulled into the range usual in training, so that one anomaly does
    not hide the next.

    Parameters
    ----------
    shape : tuple of int
        Steps T and channels C of a window.
    period : int or None, default=None
        Steps after which the series comes back to the same time of day, below T.

    Attributes
    ----------
    each : int
        Features of a channel: 12 of a single one, else 6.
    low, high : Tensor of shape (K, C)
        Range of each operator.

    Examples
    --------
    >>> x = torch.sin(torch.arange(64) / 3)[None, :, None].repeat(2, 1, 2)
    >>> x[1, -1, 0] = 5.0
    >>> tails = WindowTails((64, 2))
    >>> quiet, loud = tails(x)[:, 0].unflatten(1, (2, 6))[:, 0].amax(1)
    >>> bool(quiet < 0.4), bool(loud > 0.9)
    (True, True)
    """

    low: Tensor
    high: Tensor
    near: Tensor

    def __init__(self, shape: tuple[int, ...], period: int | None = None) -> None:
        super().__init__()
        steps, channels = shape
        self.single = channels == 1
        self.each = 12 if self.single else 6
        self.lag = period or max(1, steps // 4)
        operators = 5 if self.single else 3
        self.register_buffer("low", torch.full((operators, channels), -float("inf")))
        self.register_buffer("high", torch.full((operators, channels), float("inf")))
        apart = (torch.arange(steps)[:, None] - torch.arange(steps)).abs()
        # Two hours before and one after, of a day.
        around = apart <= max(2, self.lag // 12 if period else self.lag)
        if period:
            around |= (apart >= period - max(1, period // 24)) & (apart <= period + max(1, period // 12))
        self.register_buffer("near", (around & (apart > 0)).float(), persistent=False)

    def operators(self, x: Tensor) -> Tensor:
        """Return what the operators find at every step, ``(K, B, T, C)``."""
        found = [x, moving_average_residual(x), spectral_residual(x)]
        if self.single:
            past = torch.cat([x[:, :1].expand(-1, min(self.lag, x.shape[1]), -1), x], 1)[:, : x.shape[1]]
            found += [x - past, torch.diff(x, dim=1, prepend=x[:, :1])]
        return torch.stack(found)

    def settle(self, x: Tensor) -> None:
        """Take the usual ranges from training windows ``(B, T, C)``."""
        found = self.operators(x)[:, :, -1].transpose(1, 2)
        edge = (1.0 - _USUAL) / 2
        self.low, self.high = torch.quantile(found, edge, dim=2), torch.quantile(found, 1.0 - edge, dim=2)

    def forward(self, x: Tensor, mask: Tensor | None = None, *, whole: bool = False) -> Tensor:
        """Return the features of the last step of each window, or of all its steps.

        Parameters
        ----------
        x : Tensor of shape (B, T, C)
            Windows.
        mask : Tensor of bool, same shape, or None
            True where observed. Missing values count nowhere and have features of 0.
        whole : bool
            Judge every step among all others, also those after it: for the opening of a series.

        Returns
        -------
        Tensor of shape (B, 1, C * each) or (B, T, C * each)
        """
        if mask is not None:
            x = _carried(x, mask)
        found = self.operators(x)
        at = found if whole else found[:, :, -1:]
        pulled = found.clamp(self.low[:, None, None], self.high[:, None, None])
        near = self.near if whole else self.near[-1:]
        others = 1.0 - torch.eye(x.shape[1], device=x.device)
        others = others if whole else others[-1:]
        seen = torch.ones_like(x[:1, None]) if mask is None else mask[:, None].to(x.dtype)

        def below(k: int, weights: Tensor) -> Tensor:
            return kernel_cdf(pulled[k], at[k], weights[None, :, :, None] * seen)

        def both(k: int) -> list[Tensor]:
            p = below(k, others)
            return [rarity(1.0 - p), rarity(p)]

        level, salient = below(0, near), at[2].abs()
        features = [rarity(2.0 * torch.minimum(level, 1.0 - level)), *both(1), salient / (1.0 + salient), *both(2)]
        if self.single:
            features += [*both(3), *both(4), *both(0)]
        result = torch.stack(features, 3)
        if mask is not None:
            result = result * (mask if whole else mask[:, -1:])[..., None]
        return result.flatten(2)


def _carried(x: Tensor, mask: Tensor) -> Tensor:
    """Fill missing values with the last ones observed before them in the window."""
    steps = torch.arange(x.shape[1], device=x.device)[:, None]
    last = torch.where(mask, steps, 0).cummax(1).values
    return x.gather(1, last)
