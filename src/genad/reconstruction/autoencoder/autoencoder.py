"""Autoencoders: reconstruct, and score what cannot be reconstructed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from genad.core.families import ReconstructionDetector
from genad.core.registry import Card, Family, register
from genad.core.training import Training
from genad.data.kinds import DENSE
from genad.data.samples import Batch
from genad.nn import decoder, default_latent, encoder


class AutoencoderNet(nn.Module):
    """An encoder and a decoder."""

    def __init__(self, encode: nn.Module, decode: nn.Module) -> None:
        super().__init__()
        self.encode = encode
        self.decode = decode

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct a batch."""
        return self.decode(self.encode(x))


@register(
    Card(
        title="Anomaly detection using autoencoders with nonlinear dimensionality reduction",
        authors="Sakurada, Yairi",
        venue="MLSDA",
        year=2014,
        family=Family.AUTOENCODER,
        kinds=DENSE,
        row="1.1.1-01",
        summary="Reconstruct through a bottleneck and score the error.",
    )
)
@dataclass(eq=False, repr=False)
class Autoencoder(ReconstructionDetector):
    """PLACEHOLDER."""

    latent: int | None = None
    noise: float = field(default=0.0, kw_only=True)

    defaults = Training(epochs=30, batch_size=256, lr=2e-3)

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        latent = self.latent or default_latent(shape)
        return AutoencoderNet(encoder(shape, latent, self.backbone), decoder(shape, latent, self.backbone))

    def loss(self, net: Any, batch: Batch) -> Tensor:
        x = batch.x
        if self.noise:
            x = x + self.noise * torch.randn_like(x)
        return batch.sample_mean((net(x) - batch.x).square()).mean()
