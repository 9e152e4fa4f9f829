"""A block that predicts every feature from its corners alone, and so notices where features do not fit together."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.errors import InputError


class MaskedCornerConv(nn.Module):
    """Convolution that sees only the four corners of its field, never the middle row, the middle column or the centre.

    Four kernels of ``size x size`` look up-left, up-right, down-left and down-right: on either axis at the offsets
    ``-(size + gap) .. -(gap + 1)`` or ``gap + 1 .. gap + size``. Their answers are added. Beyond the border is 0.

    Parameters
    ----------
    channels : int
        Input and output channels.
    size : int, default=1
        Side of a corner's kernel, at least 1.
    gap : int, default=1
        Pixels on either side of the centre that are skipped, at least 0.

    Examples
    --------
    Which pixels a value in the middle of a 7 x 7 map is made of:

    >>> conv = MaskedCornerConv(1, size=1, gap=1)
    >>> x = torch.ones(1, 1, 7, 7, requires_grad=True)
    >>> conv(x)[0, 0, 3, 3].backward()
    >>> x.grad[0, 0].nonzero().tolist()
    [[1, 1], [1, 5], [5, 1], [5, 5]]
    """

    def __init__(self, channels: int, size: int = 1, gap: int = 1) -> None:
        super().__init__()
        for name, value, least in (("channels", channels, 1), ("size", size, 1), ("gap", gap, 0)):
            if value < least:
                msg = f"{name}: found {value}; accepted is a whole number of at least {least}."
                raise InputError(msg)
        self.pad = size + gap
        self.far = size + 2 * gap + 1  # from the first row of an upper corner to that of a lower one
        # One bias is enough for a sum of four.
        convs = [nn.Conv2d(channels, channels, size, bias=corner == 0) for corner in range(4)]
        # Starting near the mean of the corners: from plain random kernels on features that are never negative, about
        # half of the channels would stay below 0 everywhere, and a rectifier behind would keep them there for good.
        mean = torch.eye(channels)[..., None, None] / (4 * size**2)
        with torch.no_grad():
            for conv in convs:
                conv.weight.mul_(0.1).add_(mean)
        self.corners = nn.ModuleList(convs)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, channels, H, W)`` to the same shape."""
        wide = F.pad(x, (self.pad,) * 4)
        near, far = slice(None, -self.far), slice(self.far, None)
        views = ((near, near), (near, far), (far, near), (far, far))
        parts = [conv(wide[..., rows, columns]) for conv, (rows, columns) in zip(self.corners, views, strict=True)]
        return parts[0] + parts[1] + parts[2] + parts[3]


class ChannelTokenGate(nn.Module):
    """Transformer over channels: each channel is one token, and gets one gate between 0 and 1.

    A channel's mean over the map is embedded, its learnt position added; multi-head self-attention lets the channels
    look at each other; the mean of a token's features, through a sigmoid, is the channel's gate.

    Parameters
    ----------
    channels : int
        Number of channels, fixed from the start since every channel has a position of its own.
    width : int, default=64
        Length of a token, and of a head's queries and keys.
    heads : int, default=5
        Attention heads.

    Examples
    --------
    >>> gate = ChannelTokenGate(8)
    >>> gate(torch.zeros(2, 8, 5, 5)).shape
    torch.Size([2, 8])
    """

    def __init__(self, channels: int, width: int = 64, heads: int = 5) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.embed = nn.Linear(1, width)
        self.position = nn.Parameter(torch.randn(channels, width))
        self.qkv = nn.Linear(width, 3 * heads * width, bias=False)
        self.merge = nn.Linear(heads * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the gates ``(B, channels)`` of features ``(B, channels, H, W)``."""
        tokens = self.embed(x.mean((-2, -1)).unsqueeze(-1)) + self.position
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, self.width)).permute(2, 0, 3, 1, 4)
        attention = (query @ key.transpose(-2, -1) / self.width**0.5).softmax(-1)
        mixed = self.merge((attention @ value).transpose(1, 2).flatten(2))
        return torch.sigmoid(mixed.mean(-1))


class SSMCTBlock(nn.Module):
    """Self-supervised masked convolutional transformer block: a layer that learns to predict its own input.

    Masked convolution, ReLU, then channel gates. The output takes the place of the input in the host network, and
    its own loss asks it to equal that input, of which each position has seen only the corners. On normal
    features that succeeds; on anomalous ones it does not. Any network of 2-D features can take it:

        features, surprise = block(features)
        loss = host_loss + 0.1 * surprise.mean()

    Parameters
    ----------
    channels : int
        Channels of the features.
    size, gap : int, default=1
        As in `MaskedCornerConv`.
    loss : {"huber", "squared"}, default="huber"
        Penalty of ``block(x) - x``; Huber's turns linear at 1.

    Raises
    ------
    InputError
        If a size is out of range or the loss unknown.

    References
    ----------
    Madan et al. (2024), Self-supervised masked convolutional transformer block for anomaly detection, IEEE TPAMI 46.
    Ristea et al. (2022), Self-supervised predictive convolutional attentive block for anomaly detection, CVPR.

    Examples
    --------
    >>> block = SSMCTBlock(16)
    >>> features, surprise = block(torch.randn(2, 16, 8, 8))
    >>> features.shape, surprise.shape
    (torch.Size([2, 16, 8, 8]), torch.Size([2, 8, 8]))
    """

    def __init__(self, channels: int, size: int = 1, gap: int = 1, loss: Literal["huber", "squared"] = "huber") -> None:
        super().__init__()
        if loss not in {"huber", "squared"}:
            msg = f"loss: found {loss!r}; accepted are 'huber' and 'squared'."
            raise InputError(msg)
        self.conv = MaskedCornerConv(channels, size, gap)
        self.gate = ChannelTokenGate(channels)
        self.huber = loss == "huber"

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the block's output, and its penalty by position; gradients of the latter reach ``x`` as well.

        Parameters
        ----------
        x : torch.Tensor
            Features ``(B, channels, H, W)``.

        Returns
        -------
        output : torch.Tensor
            ``(B, channels, H, W)``.
        surprise : torch.Tensor
            Penalty of ``output - x``, mean over the channels, ``(B, H, W)``; its mean is the loss term.
        """
        predicted = F.relu(self.conv(x))
        output = predicted * self.gate(predicted)[..., None, None]
        error = output - x
        penalty = F.huber_loss(output, x, reduction="none") if self.huber else error.square()
        return output, penalty.mean(1)
