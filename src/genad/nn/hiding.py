"""Which values of a window to hide, the straight line in their place, and how far from it they usually lie."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# What weighs as much in the usual distance of a level as that many values, and the least distance.
_PRIOR, _FLOOR = 10.0, 0.01


def random_cells(shape: tuple[int, ...], ratio: Tensor) -> Tensor:
    """Hide single cells at random.

    Parameters
    ----------
    shape : tuple of int
        Samples B, steps T and channels C.
    ratio : Tensor of shape (B,)
        Share of the cells that is hidden in each sample, in [0, 1].

    Returns
    -------
    Tensor of bool, shape (B, T, C)
        True where hidden.
    """
    return torch.rand(shape, device=ratio.device) < ratio.view(-1, 1, 1)


def random_spans(shape: tuple[int, ...], ratio: Tensor, longest: int) -> Tensor:
    """Hide stretches of up to ``longest`` steps at random, each in all channels or in some.

    Parameters
    ----------
    shape : tuple of int
        Samples B, steps T and channels C.
    ratio : Tensor of shape (B,)
        Share of the cells that is hidden in each sample on average, in [0, 1].
    longest : int
        Most steps of a stretch, at least 1. Neighbouring ones may join.

    Returns
    -------
    Tensor of bool, shape (B, T, C)
        True where hidden.

    Examples
    --------
    >>> hidden = random_spans((1, 100, 2), torch.tensor([0.5]), 10)
    >>> hidden.shape, bool(0.2 < hidden.float().mean() < 0.8)
    (torch.Size([1, 100, 2]), True)
    """
    size, steps, channels = shape
    device = ratio.device
    length = torch.randint(1, longest + 1, (size, 1), device=device)
    # Time is cut into stretches of this length from a random first cut on, and stretches are drawn.
    first = (torch.rand(size, 1, device=device) * length).long()
    block = (torch.arange(steps, device=device) + first) // length
    drawn = torch.rand(size, steps + 1, channels, device=device)
    together = torch.rand(size, 1, 1, device=device) < 0.5
    drawn = torch.where(together, drawn[..., :1], drawn)
    return drawn.gather(1, block.unsqueeze(2).expand(shape)) < ratio.view(-1, 1, 1)


def cells_or_spans(shape: tuple[int, ...], ratio: Tensor, longest: int) -> Tensor:
    """Hide single cells in half of the samples, drawn at random, and stretches in the others.

    Single cells alone do not teach to fill stretches, which is what anomalies are. Parameters as in
    :func:`random_spans`.
    """
    spans = torch.rand(shape[0], 1, 1, device=ratio.device) < 0.5
    return torch.where(spans, random_spans(shape, ratio, longest), random_cells(shape, ratio))


def spans_in_turn(steps: int, channels: int, span: int) -> Tensor:
    """Return two patterns that together hide each cell of a window once.

    A cell is hidden with the ``span`` steps around it, while other stretches of its channel, and every other channel
    at its time, are seen.

    Parameters
    ----------
    steps, channels : int
        Shape of a window.
    span : int
        Steps of a stretch, at least 1; at most half of the window is taken.

    Returns
    -------
    Tensor of bool, shape (2, steps, channels)
        True where hidden.

    Examples
    --------
    >>> spans_in_turn(4, 2, 2)[0].int()
    tensor([[1, 0],
            [1, 0],
            [0, 1],
            [0, 1]], dtype=torch.int32)
    """
    size = max(1, min(span, steps // 2))
    block = (torch.arange(steps) // size)[:, None] + torch.arange(channels)
    hidden = block % 2 == 0
    return torch.stack([hidden, ~hidden])


def straight_line(x: Tensor, seen: Tensor) -> Tensor:
    """Fill what is not seen of each channel by the straight line between its neighbours in time.

    Parameters
    ----------
    x : Tensor of shape (B, T, C)
        Windows; where not seen they do not matter.
    seen : Tensor of bool, same shape

    Returns
    -------
    Tensor of shape (B, T, C)
        ``x`` where seen. Beyond the first and the last seen value these go on; 0 in a channel with none.

    Examples
    --------
    >>> x = torch.tensor([9.0, 1.0, 9.0, 3.0, 9.0]).view(1, 5, 1)
    >>> straight_line(x, x != 9.0).flatten().tolist()
    [1.0, 1.0, 2.0, 3.0, 3.0]
    """
    steps = x.shape[1]
    place = torch.arange(steps, device=x.device).view(1, -1, 1).expand_as(x)
    before = torch.where(seen, place, -1).cummax(1).values
    after = torch.where(seen, place, steps).flip(1).cummin(1).values.flip(1)
    # At an end the one neighbour there is stands for both.
    left = torch.where(before < 0, after, before).clamp(0, steps - 1)
    right = torch.where(after >= steps, before, after).clamp(0, steps - 1)
    low, high = x.gather(1, left), x.gather(1, right)
    share = (place - left) / (right - left).clamp_min(1)
    return (low + share.clamp(0.0, 1.0) * (high - low)).where(seen.any(1, keepdim=True), 0.0)


def remoteness_levels(steps: int) -> int:
    """Return how many levels :func:`remoteness` has in windows of so many steps."""
    return 2 + round(2 * math.log2(2 * steps))


def remoteness(seen: Tensor) -> Tensor:
    """Say how far each cell is from what is seen of its channel.

    With a seen value ``a`` steps before and one ``b`` steps after, ``a b / (a + b)`` is the variance of a random walk
    around the straight line between the two, in that of a step; at an end of the window the one distance there is
    takes its place. Two levels double it.

    Parameters
    ----------
    seen : Tensor of bool, shape (B, T, C)

    Returns
    -------
    Tensor of int, same shape
        0 and up; the last level stands for channels of which nothing is seen. Where a value is seen it means nothing.

    Examples
    --------
    >>> remoteness(torch.tensor([1, 0, 1, 0, 0, 0, 0, 0]).bool().view(1, 8, 1)).flatten().tolist()
    [0, 0, 0, 2, 4, 5, 6, 7]
    """
    steps, last = seen.shape[1], remoteness_levels(seen.shape[1]) - 1
    place = torch.arange(steps, device=seen.device, dtype=torch.float32).view(1, -1, 1).expand(seen.shape)
    before = place - torch.where(seen, place, -torch.inf).cummax(1).values
    after = torch.where(seen, place, torch.inf).flip(1).cummin(1).values.flip(1) - place
    # a b / (a + b), with one of them infinite too; 0 where seen.
    apart = (1 / (1 / before + 1 / after)).clamp(0.5, steps)
    level = (2 * (2 * apart).log2()).round().long()
    return torch.where(seen.any(1, keepdim=True), level.clamp_max(last - 1), last)


def usual_distances(rest: Tensor, target: Tensor, level: Tensor, levels: int) -> Tensor:
    """Return how far values usually lie from the straight line, at each level of :func:`remoteness`.

    Parameters
    ----------
    rest : Tensor of shape (B, T, C)
        Distances from the line.
    target : Tensor of the same shape
        1 where a distance counts and 0 elsewhere.
    level : Tensor of int, same shape
        As :func:`remoteness` gives it.
    levels : int
        How many there are.

    Returns
    -------
    Tensor of shape (levels, C)
        Root mean squares, at least 0.01. That of a level with few values is drawn to the channel's.
    """
    count = rest.new_zeros(levels, rest.shape[2]).scatter_add(0, level.flatten(0, 1), target.flatten(0, 1))
    total = torch.zeros_like(count).scatter_add(0, level.flatten(0, 1), (rest.square() * target).flatten(0, 1))
    channel = total.sum(0) / count.sum(0).clamp_min(1.0)
    return ((total + _PRIOR * channel) / (count + _PRIOR)).sqrt().clamp_min(_FLOOR)
