"""Textures to fill anomalies with: the user's own pictures, or ones drawn by formula."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from genad.errors import InputError
from genad.extras import require
from genad.synthesis.noise import coarse_gaussian, perlin, simplex_octaves, uniform, whole
from genad.synthesis.pixels import read_pixels

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
# Longer side, in pixels, to which texture files are reduced: enough for a crop at any size used in training.
_KEPT = 512


class TextureBank:
    """Pictures of surfaces unrelated to the product, from which random crops are taken.

    Parameters
    ----------
    textures : path, sequence of paths, or array of shape (n, C, H, W)
        A folder (searched with its sub-folders), files, or images: uint8, uint16, or floats in 0..1.

    Raises
    ------
    InputError
        When there is no picture, or one cannot be read.

    Examples
    --------
    >>> bank = TextureBank(np.random.default_rng(0).random((2, 3, 40, 50)))
    >>> len(bank), tuple(bank.draw(4, 1, 16, 16, torch.Generator().manual_seed(0)).shape)
    (2, (4, 1, 16, 16))
    """

    def __init__(self, textures: Any) -> None:
        if isinstance(textures, str | Path):
            textures = [textures]
        if isinstance(textures, Sequence) and textures and all(isinstance(t, str | Path) for t in textures):
            self.images = [_read(path) for path in _files([Path(t) for t in textures])]
            return
        values, limits = read_pixels(textures, "textures")
        self.images = list(limits.to_unit(values))

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, batch: int, channels: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Return random crops (batch, channels, height, width) of random pictures, in 0..1."""
        chosen = whole((batch,), 0, len(self.images), generator).tolist()
        place = uniform((batch, 3), 0, 1, generator).tolist()
        return torch.stack(
            [_crop(self.images[i], channels, height, width, *p) for i, p in zip(chosen, place, strict=True)]
        ).to(generator.device)


def _files(paths: list[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES)
        elif path.is_file():
            found.append(path)
        else:
            raise InputError(f"textures: {path} is neither a folder nor a file; check the path.")
    if not found:
        raise InputError(f"textures: there is no picture in {', '.join(map(str, paths))}; use {', '.join(_SUFFIXES)}.")
    return found


def _read(path: Path) -> Tensor:
    image = require("PIL.Image", "image")
    try:
        with image.open(path) as picture:
            picture.thumbnail((_KEPT, _KEPT))
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, image.DecompressionBombError) as error:
        raise InputError(f"textures: {path} cannot be read as a picture ({error}); remove it.") from error
    return torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)


def _crop(image: Tensor, channels: int, height: int, width: int, down: float, right: float, size: float) -> Tensor:
    """Cut a random part, from the size wanted up to the whole picture, and bring it to size and channels."""
    if image.shape[0] != channels:
        image = image.mean(0, keepdim=True).expand(channels, -1, -1) if image.shape[0] > 1 or channels > 1 else image
    tall, wide = image.shape[1:]
    zoom = min(tall / height, wide / width)
    zoom = zoom if zoom < 1 else 1 + (zoom - 1) * size
    rows, columns = max(1, min(tall, int(height * zoom))), max(1, min(wide, int(width * zoom)))
    top, left = int(down * (tall - rows + 1)), int(right * (wide - columns + 1))
    part = image[None, :, min(top, tall - rows) :, min(left, wide - columns) :][..., :rows, :columns]
    return functional.interpolate(part, (height, width), mode="bilinear", antialias=zoom > 1)[0]


#: The families of textures that :func:`procedural` draws, in the order of the numbers it returns.
FAMILIES = ("fractal", "stripes", "cells", "checks", "grain")


def procedural(batch: int, channels: int, height: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw textures by formula: fractal clouds, warped stripes, cells, checks and grain, in two random colours.

    They stand in for a set of texture photographs when there is none: varied, unrelated to the product, but poorer
    than photographs.

    Parameters
    ----------
    batch, channels, height, width : int
        Number and shape of the textures.
    generator : torch.Generator
        Source of randomness.

    Returns
    -------
    tuple of (Tensor, Tensor)
        Textures (batch, channels, height, width) in 0..1, and the family of each, an index into :data:`FAMILIES`.
    """
    family = whole((batch,), 0, len(FAMILIES), generator)
    field = torch.zeros(batch, height, width, device=generator.device)
    for k, draw in enumerate((_fractal, _stripes, _cells, _checks, _grain)):
        chosen = (family == k).nonzero().flatten()
        if len(chosen):
            field[chosen] = draw(len(chosen), height, width, generator)
    low, high = uniform((2, batch, channels, 1, 1), 0, 1, generator)
    return low + (high - low) * field[:, None], family


def _fractal(batch: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    wavelength = max(height, width) / 2 ** float(uniform((), 0.5, 3.0, generator))
    return torch.sigmoid(1.5 * simplex_octaves(batch, height, width, wavelength, generator, octaves=5))


def _waves(batch: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw the phase of plane waves of 2 to 16 periods, bent by gradient noise."""
    angle, periods, bend = (
        uniform((batch, 1, 1), low, high, generator) for low, high in ((0, math.pi), (2, 16), (0, 1.5))
    )
    rows = torch.arange(height, device=generator.device).view(1, -1, 1) / max(height, width)
    columns = torch.arange(width, device=generator.device).view(1, 1, -1) / max(height, width)
    warp = perlin(height, width, torch.full((batch, 2), 3), generator)
    return 2 * math.pi * (periods * (angle.cos() * rows + angle.sin() * columns) + bend * warp)


def _stripes(batch: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    return 0.5 + 0.5 * torch.sin(_waves(batch, height, width, generator))


def _checks(batch: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    product = _waves(batch, height, width, generator).sin() * _waves(batch, height, width, generator).sin()
    return (product > 0).float()


def _cells(batch: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw the distance to the nearest of random points: a pebbled surface."""
    points = uniform((batch, 24, 2), 0, 1, generator)
    rows = (torch.arange(height, device=points.device) + 0.5) / height
    columns = (torch.arange(width, device=points.device) + 0.5) / width
    apart = (rows[None, None, :, None] - points[:, :, 0, None, None]).square() + (
        columns[None, None, None, :] - points[:, :, 1, None, None]
    ).square()
    nearest = apart.amin(1).sqrt()
    return nearest / nearest.amax((1, 2), keepdim=True).clamp_min(1e-6)


def _grain(batch: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    cells = max(2, max(height, width) // int(whole((), 1, 5, generator)))
    return torch.sigmoid(1.5 * coarse_gaussian((batch, 1, height, width), cells, generator)[:, 0])
