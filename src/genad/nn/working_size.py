"""The size that images are worked on at: large ones are shrunk for a network, and its maps enlarged again."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class WorkingSize(nn.Module):
    """Go to a smaller image by averaging areas, and back by bilinear interpolation.

    Parameters
    ----------
    shape : tuple of int
        Channels, height and width of a sample.
    resolution : int
        Longest side of the smaller image, in pixels; images within it are left as they are.

    Attributes
    ----------
    shape : tuple of int
        Channels, height and width of the smaller image.

    Examples
    --------
    >>> size = WorkingSize((3, 128, 64), 32)
    >>> size.shape, size.up(size.down(torch.zeros(2, 3, 128, 64))).shape
    ((3, 32, 16), torch.Size([2, 3, 128, 64]))
    """

    def __init__(self, shape: tuple[int, ...], resolution: int) -> None:
        super().__init__()
        channels, *full = shape
        shrink = min(1.0, resolution / max(full))
        self.full = tuple(full)
        self.size = tuple(max(1, round(side * shrink)) for side in full)
        self.shape = (channels, *self.size)

    def down(self, x: Tensor) -> Tensor:
        """Average ``(B, ..., H, W)`` to the smaller size."""
        return x if self.size == self.full else F.interpolate(x, self.size, mode="area")

    def down_observed(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Average what was observed; a pixel counts as observed when at least half of its area was."""
        if mask is None:
            return self.down(x), None
        share = self.down(mask.to(x.dtype))
        mean = self.down(x * mask) / share.clamp_min(1e-6)
        seen = share >= 0.5
        return torch.where(seen, mean, torch.zeros_like(mean)), seen

    def up(self, x: Tensor) -> Tensor:
        """Enlarge to the full size."""
        return x if self.size == self.full else F.interpolate(x, self.full, mode="bilinear", align_corners=False)
