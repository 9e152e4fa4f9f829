"""A small denoising U-Net steered by tokens: what an anomaly looks like, and where it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from genad.nn.conv import ResidualBlock
from genad.nn.embedding import TimeEmbedding

_TIME = 64


class CrossAttention(nn.Module):
    """Let every position of a feature map read from tokens, with weights on the logits.

    Parameters
    ----------
    channels : int
        Of the feature map.
    dim : int
        Of a token.
    """

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.query = nn.Linear(channels, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, channels)

    def forward(self, features: Tensor, tokens: Tensor, weights: Tensor | None = None) -> Tensor:
        """Add what is read to the features.

        Parameters
        ----------
        features : Tensor of shape (B, C, h, w)
        tokens : Tensor of shape (B, K, dim)
        weights : Tensor of shape (B, h * w, K), optional
            Factors on the attention logits, before the softmax.
        """
        batch, _, height, width = features.shape
        query = self.query(self.norm(features).flatten(2).transpose(1, 2))
        key, value = self.key_value(tokens).chunk(2, -1)
        logits = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
        if weights is not None:
            logits = logits * weights
        read = self.out(logits.softmax(-1) @ value)
        return features + read.transpose(1, 2).reshape(batch, -1, height, width)


class MaskEncoder(nn.Module):
    """Encode a mask into spatial tokens: where the anomaly is, and nothing of what it looks like.

    Parameters
    ----------
    tokens, dim : int
        Number and length of the tokens.
    """

    def __init__(self, tokens: int, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1), nn.SiLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.SiLU(), nn.AdaptiveAvgPool2d(4)
        )
        self.out = nn.Linear(32 * 16, tokens * dim)
        self.tokens = tokens

    def forward(self, masks: Tensor) -> Tensor:
        """Map (B, 1, R, R) to (B, tokens, dim)."""
        return self.out(self.net(masks).flatten(1)).unflatten(1, (self.tokens, -1))


class TokenDenoiser(nn.Module):
    """Predict the noise in a window whose masked part is to be filled.

    Parameters
    ----------
    channels : int
        Of the images.
    widths : tuple of int
        Channels at full, half and quarter resolution.
    tokens, dim : int
        Number of appearance tokens, and of spatial tokens, and their length.

    Attributes
    ----------
    appearance : nn.Parameter of shape (2, tokens, dim)
        The learnt embeddings: of normal content, and of the anomaly.
    """

    def __init__(self, channels: int, widths: tuple[int, int, int], tokens: int, dim: int) -> None:
        super().__init__()
        full, half, quarter = widths
        self.appearance = nn.Parameter(torch.randn(2, tokens, dim))
        self.mask_encoder = MaskEncoder(tokens, dim)
        self.time = nn.Sequential(TimeEmbedding(_TIME), nn.Linear(_TIME, _TIME), nn.SiLU())
        self.stem = nn.Conv2d(2 * channels + 1, full, 3, padding=1)
        self.full_in = ResidualBlock(full, full, 2, "silu", _TIME)
        self.to_half = nn.Conv2d(full, half, 3, 2, 1)
        self.half_in = ResidualBlock(half, half, 2, "silu", _TIME)
        self.to_quarter = nn.Conv2d(half, quarter, 3, 2, 1)
        self.middle = ResidualBlock(quarter, quarter, 2, "silu", _TIME)
        self.attention = CrossAttention(quarter, dim)
        self.middle_out = ResidualBlock(quarter, quarter, 2, "silu", _TIME)
        self.half_out = ResidualBlock(quarter + half, half, 2, "silu", _TIME)
        self.full_out = ResidualBlock(half + full, full, 2, "silu", _TIME)
        self.head = nn.Sequential(nn.GroupNorm(1, full), nn.SiLU(), nn.Conv2d(full, channels, 3, padding=1))

    def forward(
        self, noisy: Tensor, t: Tensor, canvas: Tensor, mask: Tensor, kind: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """Predict the noise.

        Parameters
        ----------
        noisy, canvas : Tensor of shape (B, C, R, R)
            The window at step t, and the clean window, of which only what lies outside the mask is looked at.
        t : Tensor of shape (B,)
            Diffusion steps.
        mask : Tensor of shape (B, 1, R, R)
            1 where the anomaly is.
        kind : Tensor of int64, shape (B,)
            0 fills the mask with normal content, 1 with the anomaly.
        weights : Tensor of shape (B, 1, R, R), optional
            Attention paid to the appearance tokens, at least 1.

        Returns
        -------
        Tensor of shape (B, C, R, R)
        """
        cond = self.time(t)
        spatial = self.mask_encoder(mask)
        tokens = torch.cat([self.appearance[kind], spatial], 1)
        first = self.full_in(self.stem(torch.cat([noisy, canvas * (1 - mask), mask], 1)), cond)
        second = self.half_in(self.to_half(first), cond)
        third = self.middle(self.to_quarter(second), cond)
        logit_weights = None
        if weights is not None:
            seen = functional.adaptive_avg_pool2d(weights, third.shape[2:]).flatten(2).transpose(1, 2)
            # Only the columns of the appearance tokens are weighted.
            logit_weights = torch.cat(
                [
                    seen.expand(-1, -1, spatial.shape[1]),
                    torch.ones_like(spatial[:, :1, :1]).expand(-1, seen.shape[1], spatial.shape[1]),
                ],
                2,
            )
        third = self.middle_out(self.attention(third, tokens, logit_weights), cond)
        up = functional.interpolate(third, second.shape[2:], mode="nearest")
        up = self.half_out(torch.cat([up, second], 1), cond)
        up = functional.interpolate(up, first.shape[2:], mode="nearest")
        result: Tensor = self.head(self.full_out(torch.cat([up, first], 1), cond))
        return result
