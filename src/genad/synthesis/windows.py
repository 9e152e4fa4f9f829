"""Square windows about defects: cut out at one working size, and put back where they came from."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from genad.synthesis.masks import sample_at
from genad.synthesis.noise import uniform

# A window's side, in sides of the defect's bounding box: shows some of the surroundings.
_MARGIN = 1.6


def frame_masks(masks: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """Find the square window about each mask.

    Parameters
    ----------
    masks : Tensor of bool, shape (n, 1, H, W)
        None of them empty.
    least : int
        Smallest side of a window; a smaller image bounds it.

    Returns
    -------
    tuple of (Tensor, Tensor)
        Centres (n, 2), rows before columns, and sides (n,), in pixels.
    """
    height, width = masks.shape[2:]
    sides, centres = [], []
    for marked, size in ((masks.any(3)[:, 0], height), (masks.any(2)[:, 0], width)):
        number = marked.int()
        first, last = number.argmax(1), size - number.flip(1).argmax(1)
        sides.append(last - first)
        centres.append((first + last) / 2)
    longest = torch.stack(sides, 1).amax(1).float()
    whole_image = float(max(height, width))
    return torch.stack(centres, 1), (_MARGIN * longest).clamp_min(min(least, whole_image)).clamp_max(whole_image)


def move_inside(centres: Tensor, sides: Tensor, height: int, width: int) -> Tensor:
    """Move windows that reach over the border of an image into it; one larger than the image is centred."""
    size = torch.tensor([height, width], device=centres.device)
    half = torch.minimum(sides[:, None], size) / 2
    return torch.minimum(torch.maximum(centres, half), size - half)


def cut(images: Tensor, centres: Tensor, sides: Tensor, resolution: int, *, padding: str = "reflection") -> Tensor:
    """Cut windows out of images (B, C, H, W) and bring them to (B, C, resolution, resolution)."""
    offset = (torch.arange(resolution, device=images.device) + 0.5 - resolution / 2) / resolution
    rows = centres[:, 0, None] + sides[:, None] * offset
    columns = centres[:, 1, None] + sides[:, None] * offset
    size = (len(images), resolution, resolution)
    return sample_at(images, rows[:, :, None].expand(size), columns[:, None, :].expand(size), padding=padding)


def put_back(windows: Tensor, centres: Tensor, sides: Tensor, height: int, width: int) -> Tensor:
    """Lay windows (B, C, R, R) over black images (B, C, height, width): the inverse of :func:`cut`."""
    offset_rows = torch.arange(height, device=windows.device) + 0.5 - centres[:, 0, None]
    offset_columns = torch.arange(width, device=windows.device) + 0.5 - centres[:, 1, None]
    v, u = 2 * offset_rows / sides[:, None], 2 * offset_columns / sides[:, None]
    size = (len(windows), height, width)
    grid = torch.stack([u[:, None, :].expand(size), v[:, :, None].expand(size)], -1)
    # Pixels at the rim of a window keep their value instead of fading into the black outside.
    found = functional.grid_sample(
        windows, grid.to(windows), mode="bilinear", padding_mode="border", align_corners=False
    )
    return found * (grid.abs().amax(-1) <= 1)[:, None]


def quarter_turns(values: Tensor, turns: Tensor, mirrored: Tensor) -> Tensor:
    """Turn each of (B, C, R, R) by a number of quarter turns, and mirror those asked for."""
    turned = torch.stack([values, *(values.rot90(k, (2, 3)) for k in (1, 2, 3))], 1)
    chosen = turned[torch.arange(len(values), device=values.device), turns]
    return torch.where(mirrored.view(-1, 1, 1, 1), chosen.flip(3), chosen)


def vary_masks(masks: Tensor, generator: torch.Generator, zoom: float, turn: float) -> Tensor:
    """Turn masks (B, 1, R, R) by up to ``turn`` degrees, stretch each axis by up to ``zoom``, and bend them a little.

    Returns
    -------
    Tensor of bool, shape (B, 1, R, R)
        Still centred; never empty, for a mask that is lost is returned as it was.
    """
    batch, _, size, _ = masks.shape
    angle = torch.deg2rad(uniform((batch, 1, 1), -turn, turn, generator)).to(masks.device)
    stretch = (uniform((2, batch, 1, 1), -1, 1, generator).to(masks.device) * torch.tensor(1 + zoom).log()).exp()
    bend = functional.interpolate(uniform((batch, 2, 4, 4), -1, 1, generator), (size, size), mode="bicubic")
    bend = 0.04 * size * bend.to(masks.device)
    axis = torch.arange(size, device=masks.device) + 0.5 - size / 2
    rows, columns = axis.view(1, -1, 1), axis.view(1, 1, -1)
    along = (angle.cos() * rows - angle.sin() * columns) / stretch[0] + size / 2 + bend[:, 0]
    across = (angle.sin() * rows + angle.cos() * columns) / stretch[1] + size / 2 + bend[:, 1]
    grid = torch.stack([2 * across / size - 1, 2 * along / size - 1], -1)
    varied = functional.grid_sample(masks.float(), grid, padding_mode="zeros", align_corners=False) > 0.5
    return torch.where(varied.flatten(1).any(1).view(-1, 1, 1, 1), varied, masks)
