"""Three-dimensional convolutions for clips ``(T, C, H, W)``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor, nn

from genad.nn.conv import (
    HALF_FROM,
    UNet,
    conv_decoder,
    conv_encoder,
    conv_widths,
    pyramid,
    unet_widths,
)

if TYPE_CHECKING:
    from genad.nn.backbone import Backbone


def clip_widths(size: tuple[int, ...]) -> tuple[int, ...]:
    """Choose the widths for a clip of size ``(T, H, W)`` from its frame size.

    A long clip of small frames gets further stages until the coarsest map has at most 512 cells,
    so that the linear layer next to the code stays small.

    Examples
    --------
    >>> clip_widths((8, 32, 32)), clip_widths((2, 8, 8))
    ((16, 32, 64), (16,))
    """
    widths = conv_widths(size[1:])
    cells = [math.ceil(s / 2 ** len(widths)) for s in size]
    while math.prod(cells) > 512:
        widths = (*widths, min(64, 2 * widths[-1]))
        cells = [math.ceil(s / 2) for s in cells]
    return widths


class ChannelsFirst(nn.Module):
    """Swap the time and channel axes: ``(B, T, C, ...) -> (B, C, T, ...)``, or with a head axis.

    Parameters
    ----------
    axis : int, default=1
        First of the two axes that change places.
    """

    def __init__(self, axis: int = 1) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """Return a view with axes ``axis`` and ``axis + 1`` swapped."""
        return x.transpose(self.axis, self.axis + 1)


def _resolved(spec: Backbone, widths: tuple[int, ...]) -> Backbone:
    return type(spec)(spec.name, spec.hidden or widths, spec.activation, spec.dropout)


def clip_encoder(shape: tuple[int, ...], out: int, spec: Backbone) -> nn.Module:
    """Build the encoder of clips ``(T, C, H, W)``.

    Parameters
    ----------
    shape : tuple of int
        Frames, channels, height, width.
    out : int
        Length of the output vector.
    spec : Backbone
        Widths, activation and dropout.

    Returns
    -------
    torch.nn.Module
        ``(B, T, C, H, W) -> (B, out)``.
    """
    frames, channels, *space = shape
    size = (frames, *space)
    return nn.Sequential(ChannelsFirst(), *conv_encoder(channels, size, out, _resolved(spec, clip_widths(size))))


def clip_decoder(shape: tuple[int, ...], latent: int, spec: Backbone, heads: int = 1) -> nn.Module:
    """Build the decoder of clips ``(T, C, H, W)``.

    Parameters
    ----------
    shape : tuple of int
        Frames, channels, height, width.
    latent : int
        Length of the code.
    spec : Backbone
        Widths, activation and dropout.
    heads : int, default=1
        Number of outputs of the sample's shape.

    Returns
    -------
    torch.nn.Module
        ``(B, latent) -> (B, T, C, H, W)``, with a head axis after the batch if ``heads > 1``.
    """
    frames, channels, *space = shape
    size = (frames, *space)
    net = conv_decoder(heads * channels, size, latent, _resolved(spec, clip_widths(size)))
    if heads == 1:
        return nn.Sequential(*net, ChannelsFirst())
    return nn.Sequential(*net, nn.Unflatten(1, (heads, channels)), ChannelsFirst(2))


class ClipUNet(nn.Module):
    """U-Net over time and space for clips: ``(B, T, C, H, W) -> (B, T, C, H, W)``.

    Frames of 24 px or more are processed at half resolution (see `UNet`).

    Parameters
    ----------
    shape : tuple of int
        Frames, channels, height, width.
    widths, activation, dropout, cond
        As in `UNet`.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        widths: tuple[int, ...],
        activation: str,
        dropout: float = 0.0,
        cond: int = 0,
    ) -> None:
        super().__init__()
        frames, channels, *space = shape
        half = max(space) >= HALF_FROM
        self.unet = UNet(channels, (frames, *space), widths, activation, dropout, cond, half=half)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Map ``(B, T, C, H, W)`` and the optional ``(B, cond)`` to ``(B, T, C, H, W)``."""
        result: Tensor = self.unet(x.transpose(1, 2), cond).transpose(1, 2)
        return result


def clip_translator(shape: tuple[int, ...], spec: Backbone, cond: int = 0) -> nn.Module:
    """Build the U-Net of clips ``(T, C, H, W)``, at half resolution inside from 24 px up."""
    space = shape[2:]
    widths = spec.hidden or unet_widths(pyramid(space, 1)[1] if max(space) >= HALF_FROM else space)
    return ClipUNet(shape, widths, spec.activation, spec.dropout, cond)
