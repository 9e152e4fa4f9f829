"""Changes of colour and shape for pieces and textures, a batch at a time, each sample with its own strength."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from genad.synthesis.masks import sample_at
from genad.synthesis.noise import uniform

Change = Callable[[Tensor, torch.Generator], Tensor]

# Weights of red, green and blue in brightness.
_LUMA = (0.299, 0.587, 0.114)


def _each(x: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Draw one number a sample, shaped to broadcast over an image."""
    return uniform((len(x), 1, 1, 1), low, high, generator).to(x)


def grey(x: Tensor) -> Tensor:
    """Return the brightness (B, 1, H, W): luma of the first three channels, or the mean of another number."""
    if x.shape[1] not in (3, 4):
        return x.mean(1, keepdim=True)
    return (x[:, :3] * x.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def saturate(x: Tensor, strength: Tensor) -> Tensor:
    """Move colours away from their grey by a factor (B, 1, 1, 1); greys stay, and so does a fourth channel."""
    if x.shape[1] not in (3, 4):
        return x
    brightness = grey(x)
    return torch.cat([brightness + strength * (x[:, :3] - brightness), x[:, 3:]], 1)


def turn_hue(x: Tensor, angle: Tensor) -> Tensor:
    """Turn colours about the grey axis by an angle (B, 1, 1, 1) in radians; greys and a fourth channel stay."""
    if x.shape[1] not in (3, 4):
        return x
    cos, sin = angle.cos(), angle.sin()
    mean = x[:, :3].mean(1, keepdim=True)
    offset = x[:, :3] - mean
    # Rotation about the axis (1, 1, 1) / sqrt(3) of a vector orthogonal to it.
    across = (offset.roll(1, 1) - offset.roll(-1, 1)) / math.sqrt(3.0)
    return torch.cat([mean + cos * offset + sin * across, x[:, 3:]], 1)


def colour_jitter(x: Tensor, region: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue, each by a random amount up to ``strength``.

    Parameters
    ----------
    x : Tensor of shape (B, C, H, W)
        In 0..1.
    region : Tensor of bool, shape (B, 1, H, W)
        Contrast is stretched about the mean brightness of this part.
    strength : float
        0.1 means factors of 0.9 to 1.1 and a turn of hue by up to a tenth of the circle.
    generator : torch.Generator

    Returns
    -------
    Tensor of shape (B, C, H, W)
        In 0..1.
    """
    if strength == 0:
        return x
    brightness, contrast, saturation = (_each(x, 1 - strength, 1 + strength, generator) for _ in range(3))
    angle = 2 * math.pi * _each(x, -strength, strength, generator)
    y = x * brightness
    weight = region.to(x.dtype)
    mean = (grey(y) * weight).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp_min(1.0)
    y = mean + contrast * (y - mean)
    return turn_hue(saturate(y, saturation), angle).clamp(0.0, 1.0)


def _gamma(x: Tensor, generator: torch.Generator) -> Tensor:
    return x.clamp_min(1e-6) ** _each(x, 0.5, 2.0, generator)


def _brighten(x: Tensor, generator: torch.Generator) -> Tensor:
    return x * _each(x, 0.8, 1.2, generator) + _each(x, -30 / 255, 30 / 255, generator)


def _sharpen(x: Tensor, generator: torch.Generator) -> Tensor:
    blurred = functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    return x + _each(x, 0.5, 2.0, generator) * (x - blurred)


def _recolour(x: Tensor, generator: torch.Generator) -> Tensor:
    saturation, angle = _each(x, 0.3, 1.7, generator), _each(x, -math.pi / 2, math.pi / 2, generator)
    return turn_hue(saturate(x, saturation), angle)


def _solarize(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.where(x > _each(x, 0.125, 0.5, generator), 1 - x, x)


def _posterize(x: Tensor, generator: torch.Generator) -> Tensor:
    levels = _each(x, 2.0, 9.0, generator).floor()
    return (x * levels).round() / levels


def _invert(x: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG001 - the signature of every change
    return 1 - x


def _stretch(x: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG001 - the signature of every change
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return (x - low) / (high - low).clamp_min(1e-6)


def _equalize(x: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG001 - the signature of every change
    flat = x.flatten(2)
    return (flat.argsort(2).argsort(2).to(x.dtype) / max(1, flat.shape[2] - 1)).view_as(x)


def _turn(x: Tensor, generator: torch.Generator) -> Tensor:
    height, width = x.shape[2:]
    angle = _each(x, -math.pi / 4, math.pi / 4, generator)[:, 0]
    rows = torch.arange(height, device=x.device, dtype=x.dtype).view(1, -1, 1) + 0.5 - height / 2
    columns = torch.arange(width, device=x.device, dtype=x.dtype).view(1, 1, -1) + 0.5 - width / 2
    along = angle.cos() * rows - angle.sin() * columns + height / 2
    across = angle.sin() * rows + angle.cos() * columns + width / 2
    return sample_at(x, along, across)


#: The ten changes a texture is put through, three at a time.
CHANGES: tuple[Change, ...] = (
    _gamma, _brighten, _sharpen, _recolour, _solarize, _posterize, _invert, _stretch, _equalize, _turn,
)  # fmt: skip


def strong_augment(x: Tensor, generator: torch.Generator, changes: int = 3) -> Tensor:
    """Put every image through some of :data:`CHANGES`, chosen at random for each.

    Parameters
    ----------
    x : Tensor of shape (B, C, H, W)
        In 0..1.
    generator : torch.Generator
        Source of randomness.
    changes : int
        How many of the ten.

    Returns
    -------
    Tensor of shape (B, C, H, W)
        In 0..1.
    """
    order = uniform((len(x), len(CHANGES)), 0, 1, generator).argsort(1).argsort(1).to(x.device)
    y = x.clone()
    for k, change in enumerate(CHANGES):
        chosen = (order[:, k] < changes).nonzero().flatten()
        if len(chosen):
            y[chosen] = change(y[chosen], generator).clamp(0.0, 1.0)
    return y
