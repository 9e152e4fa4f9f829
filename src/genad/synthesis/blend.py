"""How an anomaly joins its image: opacity, composition of layers, and Poisson (gradient-domain) cloning."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

# Relative residual at which the Poisson solver stops, far below one grey level, and its most iterations.
_RESIDUAL = 1e-4
_ITERATIONS = 60


def alpha(x: Tensor, source: Tensor, mask: Tensor, opacity: Tensor) -> Tensor:
    """Lay ``source`` over ``x`` inside a mask with an opacity a sample.

    Parameters
    ----------
    x, source : Tensor of shape (B, C, H, W)
    mask : Tensor of shape (B, 1, H, W)
        0..1, or bool.
    opacity : Tensor of shape (B,)
        1 hides ``x`` wholly inside the mask.
    """
    return x + mask.to(x.dtype) * opacity.to(x).view(-1, 1, 1, 1) * (source - x)


def compositional(background: Tensor, layer: Tensor, mask: Tensor) -> Tensor:
    """Compose a layer over a background with a spatial probability: ``(1 - m) background + m layer``."""
    return background + mask.to(background.dtype) * (layer - background)


def gaussian_blur(values: Tensor, sigma: Tensor) -> Tensor:
    """Blur (B, C, H, W) with a Gaussian of its own width, in pixels, for every sample; borders are repeated."""
    radius = max(1, math.ceil(3 * float(sigma.max())))
    taps = torch.arange(-radius, radius + 1, device=values.device, dtype=values.dtype)
    kernel = torch.exp(-0.5 * (taps / sigma.to(values).clamp_min(1e-3)[:, None]).square())
    kernel = kernel / kernel.sum(1, keepdim=True)
    batch, channels, height, width = values.shape
    weight = kernel.repeat_interleave(channels, 0)
    flat = values.reshape(1, batch * channels, height, width)
    for shape, pad in (
        ((-1, 1, 2 * radius + 1, 1), (0, 0, radius, radius)),
        ((-1, 1, 1, 2 * radius + 1), (radius, radius, 0, 0)),
    ):
        padded = functional.pad(flat, pad, mode="replicate")
        flat = functional.conv2d(padded, weight.view(shape), groups=batch * channels)
    return flat.view_as(values)


def poisson(x: Tensor, source: Tensor, region: Tensor, mode: Literal["normal", "mixed"] | Tensor = "normal") -> Tensor:
    """Clone the gradients of ``source`` into a region of ``x``, keeping the values of ``x`` on its border.

    The change u = f - x solves the Poisson equation inside the region with u = 0 outside. It is solved for the whole
    batch by conjugate gradients on each region's bounding box, preconditioned by the exact solution on the box (a
    sine transform), so that a rectangle takes one iteration and any other shape a few.

    Parameters
    ----------
    x, source : Tensor of shape (B, C, H, W)
        Destination, and source moved to where it is to appear.
    region : Tensor of bool, shape (B, 1, H, W)
        Where to clone; pixels at the border of the image stay as they are.
    mode : {"normal", "mixed"} or bool Tensor of shape (B,)
        ``"normal"`` takes the gradients of the source; ``"mixed"`` takes at every pixel the stronger of source and
        destination. A tensor says for each sample whether to mix.

    Returns
    -------
    Tensor of shape (B, C, H, W)
        Not clipped.

    References
    ----------
    Perez, Gangnet and Blake, "Poisson image editing", SIGGRAPH 2003.

    Examples
    --------
    A source that differs by a constant has the same gradients, so that nothing changes:

    >>> x = torch.rand(1, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    >>> inside = torch.ones(1, 1, 9, 9, dtype=torch.bool)
    >>> bool(torch.allclose(poisson(x, x + 0.3, inside), x, atol=1e-5))
    True
    """
    height, width = x.shape[2:]
    if min(height, width) < 3 or not region.any():
        return x.clone()
    inside = region.clone()
    inside[:, :, [0, -1]] = False
    inside[:, :, :, [0, -1]] = False
    mixed = torch.full((len(x),), mode == "mixed", device=x.device) if isinstance(mode, str) else mode
    wanted = _divergence(*_guidance(x, source, mixed.view(-1, 1, 1, 1)))
    present = _divergence(*_gradient(x))
    change = _solve(present - wanted, inside)
    return x + change


def _gradient(x: Tensor) -> tuple[Tensor, Tensor]:
    """Forward differences along rows and columns, 0 at the far border."""
    down = functional.pad(x[:, :, 1:] - x[:, :, :-1], (0, 0, 0, 1))
    right = functional.pad(x[:, :, :, 1:] - x[:, :, :, :-1], (0, 1))
    return down, right


def _guidance(x: Tensor, source: Tensor, mixed: Tensor) -> tuple[Tensor, Tensor]:
    (down, right), (own_down, own_right) = _gradient(source), _gradient(x)
    # One choice for all channels, so that mixing does not invent colours.
    stronger = (own_down.square() + own_right.square()).sum(1, keepdim=True)
    keep = mixed & (stronger > (down.square() + right.square()).sum(1, keepdim=True))
    return torch.where(keep, own_down, down), torch.where(keep, own_right, right)


def _divergence(down: Tensor, right: Tensor) -> Tensor:
    """Backward differences of a field of forward differences: its divergence."""
    return down - functional.pad(down[:, :, :-1], (0, 0, 1, 0)) + right - functional.pad(right[:, :, :, :-1], (1, 0))


def _solve(rhs: Tensor, inside: Tensor) -> Tensor:
    """Solve -Laplace(u) = rhs inside, u = 0 outside, for every sample and channel."""
    batch, channels, height, width = rhs.shape
    first_row, rows = _extent(inside.any(3)[:, 0])
    first_column, columns = _extent(inside.any(2)[:, 0])
    tall, wide = int(rows.max()), int(columns.max())
    if tall == 0:
        return torch.zeros_like(rhs)
    # Cut out each bounding box, padded to the largest; what lies beyond a box is outside its region.
    v = (first_row[:, None] + torch.arange(tall, device=rhs.device)).clamp_max(height - 1)
    u = (first_column[:, None] + torch.arange(wide, device=rhs.device)).clamp_max(width - 1)
    place = (v[:, :, None] * width + u[:, None, :]).view(batch, 1, -1)
    within = (torch.arange(tall, device=rhs.device) < rows[:, None])[:, :, None] & (
        torch.arange(wide, device=rhs.device) < columns[:, None]
    )[:, None, :]
    region = inside.flatten(2).gather(2, place).view(batch, 1, tall, wide) & within[:, None]
    active = region.to(rhs.dtype)
    residual = rhs.flatten(2).gather(2, place.expand(-1, channels, -1)).view(batch, channels, tall, wide) * active
    sine_v, value_v = _sines(rows, tall)
    sine_u, value_u = _sines(columns, wide)
    values = (value_v[:, :, None] + value_u[:, None, :])[:, None]
    sine_v, sine_u = sine_v[:, None].to(rhs), sine_u[:, None].to(rhs)

    def precondition(r: Tensor) -> Tensor:
        return active * (sine_v @ ((sine_v @ r @ sine_u) / values) @ sine_u)

    solution = torch.zeros_like(residual)
    limit = _RESIDUAL**2 * _inner(residual, residual)
    z = precondition(residual)
    direction, gain = z, _inner(residual, z)
    for _ in range(_ITERATIONS):
        image = active * _minus_laplace(direction)
        step = gain / _inner(direction, image).clamp_min(1e-20)
        solution = solution + step * direction
        residual = residual - step * image
        if bool((_inner(residual, residual) <= limit).all()):
            break
        z = precondition(residual)
        previous, gain = gain, _inner(residual, z)
        direction = z + gain / previous.clamp_min(1e-20) * direction
    full = torch.zeros_like(rhs).flatten(2)
    # Padding repeats the last pixel of the image, so the boxes are added rather than written.
    full.scatter_add_(2, place.expand(-1, channels, -1), (solution * active).flatten(2))
    return full.view_as(rhs)


def _extent(present: Tensor) -> tuple[Tensor, Tensor]:
    """First index and length of the stretch from the first to the last True of (B, size)."""
    size = present.shape[1]
    number = present.int()
    first = number.argmax(1)
    last = size - 1 - number.flip(1).argmax(1)
    return first, torch.where(present.any(1), last - first + 1, torch.zeros_like(first))


def _sines(lengths: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Sine bases (B, size, size) of the Dirichlet Laplacian on each length, zero-padded, and its eigenvalues."""
    k = torch.arange(1, size + 1, device=lengths.device, dtype=torch.float64)
    period = (lengths.double() + 1)[:, None, None]
    basis = (2 / period).sqrt() * torch.sin(math.pi * k[:, None] * k[None, :] / period)
    valid = k <= lengths[:, None]
    basis = basis * (valid[:, :, None] & valid[:, None, :])
    values = torch.where(valid, 2 - 2 * torch.cos(math.pi * k / period[:, 0]), 1.0)
    return basis, values.float()


def _minus_laplace(u: Tensor) -> Tensor:
    padded = functional.pad(u, (1, 1, 1, 1))
    around = padded[:, :, :-2, 1:-1] + padded[:, :, 2:, 1:-1] + padded[:, :, 1:-1, :-2] + padded[:, :, 1:-1, 2:]
    return 4 * u - around


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((2, 3), keepdim=True)
