"""Where an anomaly goes: Perlin regions, turned boxes, and the foreground of an image."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from genad.synthesis.noise import perlin, uniform, whole

_LEVELS = 64
# An object stands before a background when this share of the border lies on one side of Otsu's threshold, and the
# threshold explains this share of the variance (0.64 for a single Gaussian). Normal images of brains and digits have
# at least 0.98 of their border on one side, bare surfaces about two thirds.
_ONE_SIDED = 0.9
_PARTED = 0.6


def perlin_mask(
    batch: int,
    height: int,
    width: int,
    generator: torch.Generator,
    *,
    exponents: int = 6,
    threshold: float = 0.5,
    smallest_cell: float = 4.0,
    turn: float = 90.0,
) -> tuple[Tensor, Tensor]:
    """Draw regions as thresholded Perlin noise of 2**k cells, with k random for each axis, turned at random.

    Parameters
    ----------
    batch, height, width : int
        Number and size of the masks.
    generator : torch.Generator
        Source of randomness.
    exponents : int
        k is drawn from 0 to ``exponents - 1``.
    threshold : float
        Where the noise, in about -1..1, becomes the region.
    smallest_cell : float
        Pixels of the smallest cell allowed: bounds k on small images.
    turn : float
        Largest rotation to either side, in degrees.

    Returns
    -------
    tuple of (Tensor, Tensor)
        Bool masks (batch, 1, height, width), some of which may be empty, and the cells (batch, 2).

    Examples
    --------
    >>> masks, cells = perlin_mask(4, 32, 32, torch.Generator().manual_seed(0))
    >>> tuple(masks.shape), bool(cells.max() <= 8)
    ((4, 1, 32, 32), True)
    """
    limits = [min(exponents, 1 + int(math.log2(max(1.0, size / smallest_cell)))) for size in (height, width)]
    cells = torch.stack([2 ** whole((batch,), 0, limit, generator) for limit in limits], 1)
    angle = torch.deg2rad(uniform((batch,), -turn, turn, generator))
    return (perlin(height, width, cells, generator, angle) > threshold)[:, None], cells


def turned_boxes(height: int, width: int, centre: Tensor, half: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Draw boxes turned about their own centres.

    Parameters
    ----------
    height, width : int
        Size of the masks.
    centre, half : Tensor of shape (B, 2)
        Centres and half sides in pixels, rows before columns; pixel i covers i to i + 1.
    angle : Tensor of shape (B,)
        In radians.

    Returns
    -------
    tuple of (Tensor, Tensor)
        Bool masks (B, 1, height, width), and each pixel's coordinates in its box's own frame (B, 2, height, width).
    """
    rows = torch.arange(height, device=centre.device).view(1, -1, 1) + 0.5 - centre[:, 0].view(-1, 1, 1)
    columns = torch.arange(width, device=centre.device).view(1, 1, -1) + 0.5 - centre[:, 1].view(-1, 1, 1)
    cos, sin = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    along = torch.stack([cos * rows - sin * columns, sin * rows + cos * columns], 1)
    return (along.abs() <= half[:, :, None, None]).all(1, keepdim=True), along


def sample_at(images: Tensor, rows: Tensor, columns: Tensor, *, padding: str = "reflection") -> Tensor:
    """Read images at real coordinates, bilinearly; beyond the border they are mirrored unless said otherwise.

    Parameters
    ----------
    images : Tensor of shape (B, C, H, W)
    rows, columns : Tensor of shape (B, h, w)
        Where to read, in pixels; the centre of pixel i is at i + 0.5.
    padding : {"reflection", "zeros", "border"}
        What lies beyond the border.

    Returns
    -------
    Tensor of shape (B, C, h, w)
    """
    height, width = images.shape[2:]
    grid = torch.stack([2 * columns / width - 1, 2 * rows / height - 1], -1).to(images)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def separability(x: Tensor) -> tuple[Tensor, Tensor]:
    """Find Otsu's threshold of each image and how well it parts the greys.

    Parameters
    ----------
    x : Tensor of shape (B, C, H, W)
        Images in 0..1; channels are averaged.

    Returns
    -------
    tuple of (Tensor, Tensor)
        Thresholds (B,) on the scale of the averaged channels, and the share of the variance that lies between the
        two sides (B,), 0 for a constant image.

    References
    ----------
    Otsu, N., "A threshold selection method from gray-level histograms", IEEE Transactions on Systems, Man, and
    Cybernetics, 1979.
    """
    grey = x.mean(1).flatten(1)
    low, high = grey.amin(1, keepdim=True), grey.amax(1, keepdim=True)
    span = (high - low).clamp_min(1e-6)
    level = ((grey - low) / span * (_LEVELS - 1)).round().long()
    counts = torch.zeros(len(x), _LEVELS, device=x.device).scatter_add_(1, level, torch.ones_like(level).float())
    share = counts / grey.shape[1]
    value = torch.arange(_LEVELS, device=x.device, dtype=share.dtype)
    below = share.cumsum(1)
    moment = (share * value).cumsum(1)
    mean = moment[:, -1:]
    between = (mean * below - moment).square() / (below * (1 - below)).clamp_min(1e-9)
    best, at = between[:, :-1].max(1)
    total = (share * (value - mean).square()).sum(1)
    threshold = low[:, 0] + (at + 0.5) / (_LEVELS - 1) * span[:, 0]
    parted = torch.where(total > 1e-9, best / total.clamp_min(1e-9), torch.zeros_like(total))
    return threshold, parted


def shows_object(x: Tensor) -> Tensor:
    """Tell images of an object before a background from images of a surface, by the border of each.

    Parameters
    ----------
    x : Tensor of shape (B, C, H, W)
        Images in 0..1.

    Returns
    -------
    Tensor of bool, shape (B,)
    """
    threshold, parted = separability(x)
    bright = _border(x.mean(1, keepdim=True) > threshold.view(-1, 1, 1, 1)).float().mean(1)
    return (torch.maximum(bright, 1 - bright) >= _ONE_SIDED) & (parted >= _PARTED)


def _border(values: Tensor) -> Tensor:
    """Return the outermost pixels of (B, 1, H, W) as (B, n)."""
    return torch.cat([values[:, 0, 0], values[:, 0, -1], values[:, 0, :, 0], values[:, 0, :, -1]], 1)


def _filled(found: Tensor) -> Tensor:
    """Add the pixels that have something of the object above, below, left and right of them."""
    number = found.to(torch.uint8)
    enclosed = torch.ones_like(found)
    for axis in (2, 3):
        before = number.cummax(axis).values
        after = number.flip(axis).cummax(axis).values.flip(axis)
        enclosed &= (before & after).bool()
    return found | enclosed


def foreground(x: Tensor, *, objects: bool | None = None) -> Tensor:
    """Find the object in each image: Otsu's threshold, with the side that fills most of the border as background.

    Parameters
    ----------
    x : Tensor of shape (B, C, H, W)
        Images in 0..1.
    objects : bool, optional
        Whether the images show an object before a background; None decides for each image by its border. Without an
        object everything is foreground.

    Returns
    -------
    Tensor of bool, shape (B, 1, H, W)
        Without holes, and never empty.

    Examples
    --------
    >>> x = torch.zeros(1, 1, 8, 8)
    >>> x[..., 2:6, 2:6] = 0.9
    >>> int(foreground(x).sum()), int(foreground(torch.rand(1, 1, 8, 8), objects=False).sum())
    (16, 64)
    """
    threshold, _ = separability(x)
    bright = x.mean(1, keepdim=True) > threshold.view(-1, 1, 1, 1)
    inverted = _border(bright).float().mean(1) > 0.5
    found = _filled(bright ^ inverted.view(-1, 1, 1, 1))
    surface = ~shows_object(x) if objects is None else torch.full_like(inverted, not objects)
    surface = surface | ~found.flatten(1).any(1)
    return found | surface.view(-1, 1, 1, 1)
