"""Convolutional encoder, decoder and U-Net for any number of spatial axes and any size."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from genad.nn.activation import activation_module, scaled_init_

if TYPE_CHECKING:
    from genad.nn.backbone import Backbone

CONV: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
CONV_TRANSPOSE: dict[int, type[nn.Module]] = {
    1: nn.ConvTranspose1d,
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
HALF_FROM = 24  # px; from here on a U-Net works at half resolution inside
CHANNEL_DROPOUT: dict[int, type[nn.Module]] = {1: nn.Dropout1d, 2: nn.Dropout2d, 3: nn.Dropout3d}


def conv_widths(size: tuple[int, ...]) -> tuple[int, ...]:
    """Choose the channel widths for a spatial size: one width per halving.

    Parameters
    ----------
    size : tuple of int
        Spatial size.

    Returns
    -------
    tuple of int
        16, 32, 64, then 64 for every further halving.

    Examples
    --------
    >>> conv_widths((8, 8)), conv_widths((28, 28)), conv_widths((256, 256))
    ((16,), (16, 32, 64), (16, 32, 64, 64, 64))
    """
    bits = (max(size) - 1).bit_length()  # halvings down to one pixel
    depth = max(1, min(3, bits - 2), bits - 3)
    return tuple(min(64, 16 << level) for level in range(depth))


def halving(size: tuple[int, ...]) -> tuple[int, ...]:
    """Return the stride per axis: 2, or 1 for an axis that is already shorter than 4."""
    return tuple(2 if s >= 4 else 1 for s in size)


def pyramid(size: tuple[int, ...], depth: int) -> list[tuple[int, ...]]:
    """List the sizes from full resolution down through ``depth`` halvings.

    Examples
    --------
    >>> pyramid((9, 4), 2)
    [(9, 4), (5, 2), (3, 2)]
    """
    sizes = [size]
    for _ in range(depth):
        last = sizes[-1]
        sizes.append(tuple(-(-s // step) for s, step in zip(last, halving(last), strict=True)))
    return sizes


def downsampling(before: int, after: int, size: tuple[int, ...], activation: str | None) -> nn.Module:
    """Convolution from ``size`` to the next size of the pyramid."""
    conv = CONV[len(size)](before, after, 3, stride=halving(size), padding=1)
    return scaled_init_(conv, activation)


class Upsampling(nn.Module):
    """Transposed convolution to an exact size: it may overshoot by one, which is cropped."""

    def __init__(self, before: int, after: int, size: tuple[int, ...], activation: str | None) -> None:
        super().__init__()
        stride = halving(size)
        # kernel 4 with stride 2 covers every output position equally often: no checkerboard
        kernel = tuple(4 if step == 2 else 3 for step in stride)
        conv = CONV_TRANSPOSE[len(size)](before, after, kernel, stride=stride, padding=1)
        self.conv = scaled_init_(conv, activation)
        odd = any(step == 2 and s % 2 for s, step in zip(size, stride, strict=True))
        self._crop = (..., *(slice(0, s) for s in size)) if odd else None

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, before, ...)`` to ``(B, after, *size)``."""
        y = self.conv(x)
        result: Tensor = y if self._crop is None else y[self._crop]
        return result


def _stage(layer: nn.Module, ndim: int, activation: str, dropout: float) -> list[nn.Module]:
    stage = [layer, activation_module(activation)]
    if dropout > 0:
        stage.append(CHANNEL_DROPOUT[ndim](dropout))
    return stage


def conv_encoder(channels: int, size: tuple[int, ...], out: int, spec: Backbone) -> nn.Sequential:
    """Build ``(B, channels, *size) -> (B, out)`` from strided convolutions and a linear layer.

    Parameters
    ----------
    channels : int
        Input channels.
    size : tuple of int
        Spatial size, 1 to 3 axes.
    out : int
        Length of the output vector.
    spec : Backbone
        One width per stage, activation and (channel) dropout.

    Returns
    -------
    torch.nn.Sequential
        The network; it has no normalisation layer, so a sample's scale reaches the code.
    """
    widths = spec.hidden or conv_widths(size)
    sizes = pyramid(size, len(widths))
    layers: list[nn.Module] = []
    for (before, after), at in zip(itertools.pairwise((channels, *widths)), sizes[:-1], strict=True):
        layer = downsampling(before, after, at, spec.activation)
        layers += _stage(layer, len(size), spec.activation, spec.dropout)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * math.prod(sizes[-1]), out))


def conv_decoder(channels: int, size: tuple[int, ...], latent: int, spec: Backbone) -> nn.Sequential:
    """Build ``(B, latent) -> (B, channels, *size)``, the mirror of `conv_encoder`.

    Parameters
    ----------
    channels : int
        Output channels.
    size : tuple of int
        Spatial size, 1 to 3 axes; any size is met exactly.
    latent : int
        Length of the code.
    spec : Backbone
        Widths from input to code; they are used in reverse.

    Returns
    -------
    torch.nn.Sequential
        The network, with linear output.
    """
    widths = spec.hidden or conv_widths(size)
    sizes = pyramid(size, len(widths))
    layers: list[nn.Module] = [
        nn.Linear(latent, widths[-1] * math.prod(sizes[-1])),
        activation_module(spec.activation),
        nn.Unflatten(1, (widths[-1], *sizes[-1])),
    ]
    for level in range(len(widths) - 1, 0, -1):
        layer = Upsampling(widths[level], widths[level - 1], sizes[level], spec.activation)
        layers += _stage(layer, len(size), spec.activation, spec.dropout)
    return nn.Sequential(*layers, Upsampling(widths[0], channels, size, None))


class ResidualBlock(nn.Module):
    """Two convolutions with group normalisation, a shortcut, and FiLM conditioning in between.

    Parameters
    ----------
    before, after : int
        Input and output channels.
    ndim : int
        Number of spatial axes.
    activation : str
        Activation.
    cond : int, default=0
        Length of the condition vector; 0 for none.
    dropout : float, default=0.0
        Share of channels dropped in training.
    dilation : int, default=1
        Spacing of the kernel's taps.
    """

    def __init__(
        self,
        before: int,
        after: int,
        ndim: int,
        activation: str,
        cond: int = 0,
        dropout: float = 0.0,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        conv = CONV[ndim]
        self.norm1 = _group_norm(before)
        self.conv1 = conv(before, after, 3, padding=dilation, dilation=dilation)
        self.norm2 = _group_norm(after)
        self.conv2 = conv(after, after, 3, padding=dilation, dilation=dilation)
        self.shortcut = conv(before, after, 1) if before != after else nn.Identity()
        self.film = nn.Linear(cond, 2 * after) if cond > 0 else None
        self.act = activation_module(activation)
        self.drop = CHANNEL_DROPOUT[ndim](dropout) if dropout > 0 else nn.Identity()
        self._axes = (1,) * ndim

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Map ``(B, before, ...)`` to ``(B, after, ...)`` at the same resolution."""
        h = self.norm2(self.conv1(self.act(self.norm1(x))))
        if self.film is not None:
            scale, shift = self.film(cond).unflatten(-1, (-1, *self._axes)).chunk(2, dim=1)
            h = h * (1 + scale) + shift
        result: Tensor = self.shortcut(x) + self.conv2(self.drop(self.act(h)))
        return result


def _group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with about 8 channels a group, whatever the width."""
    return nn.GroupNorm(math.gcd(channels, max(1, channels // 8)), channels)


class UNet(nn.Module):
    """U-Net of residual blocks: ``(B, channels, *size) [, (B, cond)] -> (B, channels, *size)``.

    Parameters
    ----------
    channels : int
        Input channels, and output channels unless ``out_channels`` is given.
    size : tuple of int
        Spatial size, 1 to 3 axes, any length.
    widths : tuple of int
        One width per resolution, full resolution first.
    activation : str, default="silu"
        Activation.
    dropout : float, default=0.0
        Share of channels dropped inside the blocks in training.
    cond : int, default=0
        Length of the condition vector; 0 for none.
    out_channels : int or None, default=None
        Output channels.
    half : bool, default=False
        Work at half resolution inside: about a quarter of the time. The input itself joins the last
        layer, so fine detail is not lost. ``widths`` then starts at half resolution.

    References
    ----------
    Ronneberger, Fischer and Brox (2015), U-Net, MICCAI.
    Ho, Jain and Abbeel (2020), Denoising diffusion probabilistic models, NeurIPS.

    Examples
    --------
    >>> net = UNet(1, (9, 7), widths=(8, 16))
    >>> net(torch.zeros(2, 1, 9, 7)).shape
    torch.Size([2, 1, 9, 7])
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, ...],
        widths: tuple[int, ...],
        activation: str = "silu",
        dropout: float = 0.0,
        cond: int = 0,
        out_channels: int | None = None,
        half: bool = False,
    ) -> None:
        super().__init__()
        ndim = len(size)
        full, size = size, pyramid(size, 1)[1] if half else size
        sizes = pyramid(size, len(widths) - 1)

        def block(before: int, after: int) -> ResidualBlock:
            return ResidualBlock(before, after, ndim, activation, cond, dropout)

        stem = CONV[ndim](channels, widths[0], 3, padding=1)
        self.stem = downsampling(channels, widths[0], full, None) if half else stem
        self.down_blocks = nn.ModuleList(block(w, w) for w in widths[:-1])
        self.downs = nn.ModuleList(
            downsampling(a, b, at, None) for (a, b), at in zip(itertools.pairwise(widths), sizes[:-1], strict=True)
        )
        self.middle = block(widths[-1], widths[-1])
        self.ups = nn.ModuleList(
            Upsampling(b, a, at, None) for (a, b), at in zip(itertools.pairwise(widths), sizes[:-1], strict=True)
        )
        self.up_blocks = nn.ModuleList(block(2 * w, w) for w in widths[:-1])
        out = channels if out_channels is None else out_channels
        self.finish = nn.Sequential(_group_norm(widths[0]), activation_module(activation))
        self.enlarge = Upsampling(widths[0], widths[0], full, activation) if half else None
        self.act = activation_module(activation)
        joined = widths[0] + channels if half else widths[0]
        self.head = CONV[ndim](joined, out, 3, padding=1)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Map ``(B, channels, *size)`` to the same resolution."""
        h = self.stem(x)
        skips: list[Tensor] = []
        for block, down in zip(self.down_blocks, self.downs, strict=True):
            h = block(h, cond)
            skips.append(h)
            h = down(h)
        h = self.middle(h, cond)
        for level in range(len(skips) - 1, -1, -1):
            h = torch.cat([self.ups[level](h), skips[level]], dim=1)
            h = self.up_blocks[level](h, cond)
        h = self.finish(h)
        if self.enlarge is not None:
            h = torch.cat([self.act(self.enlarge(h)), x], dim=1)
        result: Tensor = self.head(h)
        return result


def unet_widths(size: tuple[int, ...]) -> tuple[int, ...]:
    """Choose the widths of a U-Net: as for the encoder, with at least one halving from 4 px up.

    Examples
    --------
    >>> unet_widths((8, 8)), unet_widths((32, 32)), unet_widths((3, 3))
    ((16, 32), (16, 32, 64), (16,))
    """
    widths = conv_widths(size)
    return (16, 32) if len(widths) == 1 and max(size) >= 4 else widths


def image_encoder(shape: tuple[int, ...], out: int, spec: Backbone) -> nn.Module:
    """Build the encoder of images ``(C, H, W)``."""
    return conv_encoder(shape[0], shape[1:], out, spec)


def image_decoder(shape: tuple[int, ...], latent: int, spec: Backbone, heads: int = 1) -> nn.Module:
    """Build the decoder of images ``(C, H, W)``."""
    net = conv_decoder(heads * shape[0], shape[1:], latent, spec)
    return net if heads == 1 else nn.Sequential(*net, nn.Unflatten(1, (heads, shape[0])))


def image_translator(shape: tuple[int, ...], spec: Backbone, cond: int = 0) -> nn.Module:
    """Build the U-Net of images ``(C, H, W)``, at half resolution inside from 24 px up."""
    channels, *space = shape
    size = tuple(space)
    half = max(size) >= HALF_FROM
    widths = spec.hidden or unet_widths(pyramid(size, 1)[1] if half else size)
    return UNet(channels, size, widths, spec.activation, spec.dropout, cond, half=half)
