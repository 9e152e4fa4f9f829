"""Random changes of images that keep them normal, as operations on a whole batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from genad.errors import InputError

__all__ = ["Augment"]


@dataclass(frozen=True)
class Augment:
    """Change each image of a batch at random, every one in its own way.

    Choose only what a normal image may undergo: where parts always lie the same way up, a flipped part is a defect.
    Randomness is torch's own generator; the training loop seeds and isolates it.

    Parameters
    ----------
    flip_horizontal, flip_vertical : bool, default False
        Mirror every second image, on average.
    rotate90 : bool, default False
        Turn by 0, 90, 180 or 270 degrees; images that are not square by 0 or 180.
    shift : float, default 0
        Largest shift along either axis, as a share of the size, from 0 to 1. What comes in repeats the border.
    rotate : float, default 0
        Largest rotation either way, in degrees, from 0 to 180.
    brightness : float, default 0
        Largest value added to all pixels, in units of the input, at least 0.
    contrast : float, default 0
        Distances from the image's mean are multiplied by 1 - contrast to 1 + contrast; from 0 to 1.
    noise : float, default 0
        Standard deviation of Gaussian noise added to each value, in units of the input, at least 0.

    Raises
    ------
    InputError
        A value outside its range.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> x = torch.arange(4.0).view(1, 1, 1, 4).repeat(3, 1, 1, 1)
    >>> Augment(flip_horizontal=True)(x)[:, 0, 0].tolist()
    [[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0], [3.0, 2.0, 1.0, 0.0]]
    """

    flip_horizontal: bool = False
    flip_vertical: bool = False
    rotate90: bool = False
    shift: float = 0.0
    rotate: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        limits = {"shift": 1.0, "rotate": 180.0, "brightness": math.inf, "contrast": 1.0, "noise": math.inf}
        for name, high in limits.items():
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and 0 <= value <= high and math.isfinite(value)):
                wanted = "of at least 0" if high == math.inf else f"from 0 to {high:g}"
                raise InputError(f"{name}: {value!r} was given; use a number {wanted}.")

    def __call__(self, x: Tensor) -> Tensor:
        """Return changed copies of the images.

        Parameters
        ----------
        x : Tensor of shape (B, C, H, W)
            Floats.

        Returns
        -------
        Tensor of the same shape
            ``x`` itself where nothing is asked for.

        Raises
        ------
        InputError
            Another rank.
        """
        if x.ndim != 4:
            raise InputError(f"x: shape {tuple(x.shape)} was given; use a batch (B, C, H, W).")
        return self._values(self._places(x))

    def _places(self, x: Tensor) -> Tensor:
        """Move pixels: mirrors and quarter turns exactly, shifts and rotations by bilinear sampling."""
        if self.flip_horizontal:
            x = torch.where(_coins(x), x.flip(3), x)
        if self.flip_vertical:
            x = torch.where(_coins(x), x.flip(2), x)
        if self.rotate90:
            half = _coins(x)
            x = torch.where(half, x.flip((2, 3)), x)
            if x.shape[2] == x.shape[3]:
                x = torch.where(_coins(x), x.rot90(1, (2, 3)), x)
        if self.shift or self.rotate:
            x = functional.grid_sample(x, self._grid(x), mode="bilinear", padding_mode="border", align_corners=False)
        return x

    def _grid(self, x: Tensor) -> Tensor:
        """Return where each pixel is taken from, in the coordinates of ``grid_sample`` (-1 to 1 across the image)."""
        count, _, height, width = x.shape
        angle = (2 * torch.rand(count, device=x.device) - 1) * math.radians(self.rotate)
        # A shift by a share s of the size is 2 s in coordinates that run from -1 to 1.
        move = (2 * torch.rand(count, 2, device=x.device) - 1) * (2 * self.shift)
        cos, sin = angle.cos(), angle.sin()
        # Coordinates are stretched by the sides, in which a rotation is none: turn in pixels.
        rows = torch.stack([cos, -sin * (height / width), move[:, 0]], 1)
        columns = torch.stack([sin * (width / height), cos, move[:, 1]], 1)
        grid = functional.affine_grid(torch.stack([rows, columns], 1), [count, 1, height, width], align_corners=False)
        return grid.to(x.dtype)

    def _values(self, x: Tensor) -> Tensor:
        """Change values: contrast about the image's own mean, brightness, noise."""
        if self.contrast:
            mean = x.mean((1, 2, 3), keepdim=True)
            x = mean + (x - mean) * (1 + self.contrast * _spread(x))
        if self.brightness:
            x = x + self.brightness * _spread(x)
        if self.noise:
            x = x + self.noise * torch.randn_like(x)
        return x


def _coins(x: Tensor) -> Tensor:
    return torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5


def _spread(x: Tensor) -> Tensor:
    """Return one number from -1 to 1 for each image."""
    return 2 * torch.rand(len(x), 1, 1, 1, device=x.device, dtype=x.dtype) - 1
