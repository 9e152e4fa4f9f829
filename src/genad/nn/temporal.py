"""Temporal networks for windows ``(T, C)``: dilated convolutions (TCN) and gated recurrence."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from genad.nn.activation import activation_module, scaled_init_
from genad.nn.conv import ResidualBlock, Upsampling, downsampling, pyramid

if TYPE_CHECKING:
    from genad.nn.backbone import Backbone


def tcn_widths(steps: int, channels: int = 1) -> tuple[int, ...]:
    """Choose one width per halving of the time axis, down to 8 steps or fewer.

    The first width, which costs most of the time, is 16, or 32 for more than 8 channels.

    Examples
    --------
    >>> tcn_widths(5), tcn_widths(100), tcn_widths(100, channels=38)
    ((32,), (16, 32, 64, 64), (32, 32, 64, 64))
    """
    depth = max(1, (steps - 1).bit_length() - 3)
    widths = tuple(32 if level < 2 else 64 for level in range(depth))
    return (16, *widths[1:]) if depth > 1 and channels <= 8 else widths


class DilatedBlock(nn.Module):
    """Residual dilated convolution: ``x + act(conv(x))``, the length unchanged, not causal.

    Parameters
    ----------
    width : int
        Channels.
    dilation : int
        Spacing of the three taps in steps.
    activation : str
        Activation.
    dropout : float, default=0.0
        Share of channels dropped in training.

    References
    ----------
    Bai, Kolter and Koltun (2018), An empirical evaluation of generic convolutional and recurrent
    networks for sequence modeling, arXiv 1803.01271.
    """

    def __init__(self, width: int, dilation: int, activation: str, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.act = activation_module(activation)
        self.drop = nn.Dropout1d(dropout) if dropout > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, width, T)`` to the same shape."""
        result: Tensor = x + self.drop(self.act(self.conv(x)))
        return result


def _dilated_pair(width: int, spec: Backbone) -> list[nn.Module]:
    return [DilatedBlock(width, step, spec.activation, spec.dropout) for step in (1, 2)]


class StepsFirst(nn.Module):
    """Swap the last two axes: ``(..., T, C)`` to ``(..., C, T)`` and back."""

    def forward(self, x: Tensor) -> Tensor:
        """Return a view with the last two axes swapped."""
        result: Tensor = x.transpose(-1, -2)
        return result


def tcn_encoder(shape: tuple[int, ...], out: int, spec: Backbone) -> nn.Module:
    """Build ``(B, T, C) -> (B, out)``: dilated blocks and halvings in turn, then a linear layer.

    Parameters
    ----------
    shape : tuple of int
        Steps and channels of one window.
    out : int
        Length of the output vector.
    spec : Backbone
        One width per halving, activation and dropout.

    Returns
    -------
    torch.nn.Module
        The network; every step sees both its past and its future.
    """
    steps, channels = shape
    widths = spec.hidden or tcn_widths(steps, channels)
    sizes = pyramid((steps,), len(widths))
    stem = scaled_init_(nn.Conv1d(channels, widths[0], 3, padding=1), spec.activation)
    layers: list[nn.Module] = [StepsFirst(), stem, activation_module(spec.activation)]
    nexts = (*widths[1:], widths[-1])
    for width, after, size in zip(widths, nexts, sizes[:-1], strict=True):
        layers += _dilated_pair(width, spec)
        layers += [
            downsampling(width, after, size, spec.activation),
            activation_module(spec.activation),
        ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * sizes[-1][0], out))


def tcn_decoder(shape: tuple[int, ...], latent: int, spec: Backbone, heads: int = 1) -> nn.Module:
    """Build ``(B, latent) -> (B, T, C)``, the mirror of `tcn_encoder`.

    Parameters
    ----------
    shape : tuple of int
        Steps and channels of one window.
    latent : int
        Length of the code.
    spec : Backbone
        Widths from input to code; they are used in reverse.
    heads : int, default=1
        Number of outputs of the window's shape.

    Returns
    -------
    torch.nn.Module
        The network, with linear output and a head axis after the batch if ``heads > 1``.
    """
    steps, channels = shape
    widths = spec.hidden or tcn_widths(steps, channels)
    sizes = pyramid((steps,), len(widths))
    layers: list[nn.Module] = [
        nn.Linear(latent, widths[-1] * sizes[-1][0]),
        activation_module(spec.activation),
        nn.Unflatten(1, (widths[-1], sizes[-1][0])),
    ]
    nexts = (*widths[1:], widths[-1])
    for width, before, size in zip(widths[::-1], nexts[::-1], sizes[-2::-1], strict=True):
        up = Upsampling(before, width, size, spec.activation)
        layers += [up, activation_module(spec.activation), *_dilated_pair(width, spec)]
    last = scaled_init_(nn.Conv1d(widths[0], heads * channels, 3, padding=1))
    layers.append(last)
    if heads > 1:
        layers.append(nn.Unflatten(1, (heads, channels)))
    return nn.Sequential(*layers, StepsFirst())


class TCNTranslator(nn.Module):
    """Dilated residual network at full resolution: ``(B, T, C) [, (B, cond)] -> (B, T, C)``.

    Parameters
    ----------
    shape : tuple of int
        Steps and channels of one window.
    widths : tuple of int
        Channels of each block; block ``i`` has dilation ``2**i`` (at most the window length).
    activation : str
        Activation.
    dropout : float, default=0.0
        Share of channels dropped in training.
    cond : int, default=0
        Length of the condition vector; 0 for none.
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
        steps, channels = shape
        self.stem = nn.Conv1d(channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(
            ResidualBlock(a, b, 1, activation, cond, dropout, dilation=min(1 << i, max(1, steps - 1)))
            for i, (a, b) in enumerate(itertools.pairwise((widths[0], *widths)))
        )
        self.head = nn.Conv1d(widths[-1], channels, 3, padding=1)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Map ``(B, T, C)`` and the optional ``(B, cond)`` to ``(B, T, C)``."""
        h = self.stem(x.transpose(1, 2))
        for block in self.blocks:
            h = block(h, cond)
        result: Tensor = self.head(h).transpose(1, 2)
        return result


def tcn_translator(shape: tuple[int, ...], spec: Backbone, cond: int = 0) -> nn.Module:
    """Build the translator of windows: enough dilations for every step to see the whole window."""
    depth = max(2, min(8, (shape[0] - 1).bit_length() - 1))
    widths = spec.hidden or (32,) * depth
    return TCNTranslator(shape, widths, spec.activation, spec.dropout, cond)


class GRUStack(nn.Module):
    """Gated recurrent layers of given widths, one above the other.

    Parameters
    ----------
    channels : int
        Values per step.
    widths : tuple of int
        Width of each layer.
    dropout : float, default=0.0
        Share of values dropped between the layers in training.
    bidirectional : bool, default=False
        Also read backwards; the two directions are concatenated.

    Notes
    -----
    ``torch.vmap`` has no rule for recurrent layers: ensembles of these networks run in a loop.
    """

    def __init__(
        self,
        channels: int,
        widths: tuple[int, ...],
        dropout: float = 0.0,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        factor = 2 if bidirectional else 1
        inputs = (channels, *(factor * w for w in widths[:-1]))
        self.layers = nn.ModuleList(
            nn.GRU(a, w, batch_first=True, bidirectional=bidirectional) for a, w in zip(inputs, widths, strict=True)
        )
        self.drop = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.out_features = factor * widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, T, channels)`` to the top layer's states ``(B, T, out_features)``."""
        for i, layer in enumerate(self.layers):
            x, _ = layer(self.drop(x) if i else x)
        result: Tensor = x
        return result


class GRUEncoder(nn.Module):
    """Read a window step by step and map the last state to a vector."""

    def __init__(self, channels: int, widths: tuple[int, ...], out: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.gru = GRUStack(channels, widths, dropout)
        self.head = nn.Linear(self.gru.out_features, out)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, T, C)`` to ``(B, out)``."""
        result: Tensor = self.head(self.gru(x)[:, -1])
        return result


class GRUDecoder(nn.Module):
    """Unroll a code into a window: the code is the input of every step."""

    def __init__(
        self,
        shape: tuple[int, ...],
        widths: tuple[int, ...],
        latent: int,
        heads: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.steps, self.channels = shape
        self.heads = heads
        self.gru = GRUStack(latent, widths[::-1], dropout)
        self.head = nn.Linear(self.gru.out_features, heads * self.channels)

    def forward(self, z: Tensor) -> Tensor:
        """Map ``(B, latent)`` to ``(B, T, C)`` or ``(B, heads, T, C)``."""
        y: Tensor = self.head(self.gru(z.unsqueeze(1).expand(-1, self.steps, -1)))
        if self.heads == 1:
            return y
        return torch.unflatten(y, -1, (self.heads, self.channels)).transpose(1, 2)


class GRUTranslator(nn.Module):
    """Bidirectional GRU from a window to a window; the condition joins the input of every step."""

    def __init__(self, channels: int, widths: tuple[int, ...], cond: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.gru = GRUStack(channels + cond, widths, dropout, bidirectional=True)
        self.head = nn.Linear(self.gru.out_features, channels)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Map ``(B, T, C)`` and the optional ``(B, cond)`` to ``(B, T, C)``."""
        if cond is not None:
            x = torch.cat([x, cond.unsqueeze(1).expand(-1, x.shape[1], -1)], dim=-1)
        result: Tensor = self.head(self.gru(x))
        return result


GRU_WIDTHS = (64,)


def gru_encoder(shape: tuple[int, ...], out: int, spec: Backbone) -> nn.Module:
    """Build the recurrent encoder of windows ``(T, C)``."""
    return GRUEncoder(shape[1], spec.hidden or GRU_WIDTHS, out, spec.dropout)


def gru_decoder(shape: tuple[int, ...], latent: int, spec: Backbone, heads: int = 1) -> nn.Module:
    """Build the recurrent decoder of windows ``(T, C)``."""
    return GRUDecoder(shape, spec.hidden or GRU_WIDTHS, latent, heads, spec.dropout)


def gru_translator(shape: tuple[int, ...], spec: Backbone, cond: int = 0) -> nn.Module:
    """Build the recurrent translator of windows ``(T, C)``."""
    return GRUTranslator(shape[1], spec.hidden or GRU_WIDTHS, cond, spec.dropout)
