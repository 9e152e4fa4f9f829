"""A transformer over patches of a channel's past that forecasts quantiles of its next steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.nn.instance_norm import window_moments
from genad.nn.transformer import encoder_stack


class PatchForecaster(nn.Module):
    """Forecast three quantiles of the next steps of each channel from patches of its own past alone.

    Parameters
    ----------
    context, horizon : int
        Steps read and steps forecast.
    patch, stride : int
        Steps of a patch, and between the starts of two; cut down for a short context.
    width, heads, layers, inner : int
        Of the transformer.
    dropout : float
        Share of values dropped in training.

    Examples
    --------
    >>> net = PatchForecaster(context=32, horizon=4, patch=8, stride=4, width=8, heads=2, layers=1, inner=16)
    >>> net(torch.zeros(5, 32, 3)).shape
    torch.Size([3, 5, 4, 3])
    """

    def __init__(
        self,
        context: int,
        horizon: int,
        patch: int,
        stride: int,
        width: int,
        heads: int,
        layers: int,
        inner: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.context, self.horizon = context, horizon
        self.patch = min(patch, context)
        self.stride = min(stride, self.patch)
        # The last value is repeated for one stride more, so that the newest steps lie within a patch too.
        count = (context + self.stride - self.patch) // self.stride + 1
        self.embed = nn.Linear(self.patch, width)
        self.place = nn.Parameter(0.02 * torch.randn(count, width))
        self.encoder = encoder_stack(width, heads, layers, inner, dropout)
        self.head = nn.Linear(count * width, 3 * horizon)

    def patches(self, x: Tensor) -> Tensor:
        """Cut series (N, context) into patches (N, count, patch)."""
        return F.pad(x.unsqueeze(1), (0, self.stride), mode="replicate").squeeze(1).unfold(1, self.patch, self.stride)

    def forward(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """Forecast the quantiles (3, B, horizon, C), ascending, from contexts (B, context, C).

        Each channel of each context is normalised by its own mean and standard deviation, which are put back onto the
        forecast.
        """
        mean, std = window_moments(x, observed)
        normal = (x - mean) / std
        if observed is not None:
            normal = normal * observed
        rows = normal.transpose(1, 2).flatten(0, 1)
        tokens = self.encoder(self.embed(self.patches(rows)) + self.place)
        low, middle, high = self.head(tokens.flatten(1)).chunk(3, 1)
        # Distances from the median, so that quantiles never cross.
        quantiles = torch.stack([middle - F.softplus(low), middle, middle + F.softplus(high)])
        return quantiles.unflatten(1, (len(x), -1)).transpose(2, 3) * std + mean
