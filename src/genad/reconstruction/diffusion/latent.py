"""The small networks around a latent diffusion: an autoencoder of images, and features learnt on normal images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.nn.activation import activation_module
from genad.nn.conv import ResidualBlock, Upsampling, downsampling, pyramid

# Channels of a latent, and widths of the autoencoder and of the feature extractor.
_LATENT, _WIDTH, _FEATURES = 4, 16, (16, 32, 32)
# Weight of the latents' squared size, which keeps them from growing without bound.
_SHRINK = 1e-3
# Share of a batch's moments in the running ones.
_FOLLOW = 0.1
# Features are averaged to this many pixels a side before images are compared, and taken from this layer.
_POOLED, _COMPARED = 4, 1


class LatentCoder(nn.Module):
    """A small autoencoder that halves the resolution: images to latents of four channels and back.

    Parameters
    ----------
    shape : tuple of int
        Channels, height and width of an image.

    Attributes
    ----------
    mean, std : torch.Tensor
        Buffers ``(4, 1, 1)``: running moments of the latents in training, by which they get unit variance.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        channels, *full = shape
        size = tuple(full)
        self.shape = (_LATENT, *pyramid(size, 1)[1])
        self.encoder = nn.Sequential(
            downsampling(channels, _WIDTH, size, "silu"),
            ResidualBlock(_WIDTH, _WIDTH, 2, "silu"),
            nn.Conv2d(_WIDTH, _LATENT, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(_LATENT, _WIDTH, 3, padding=1),
            ResidualBlock(_WIDTH, _WIDTH, 2, "silu"),
            nn.SiLU(),
            Upsampling(_WIDTH, channels, size, None),
        )
        self.register_buffer("mean", torch.zeros(_LATENT, 1, 1))
        self.register_buffer("std", torch.ones(_LATENT, 1, 1))

    def encode(self, x: Tensor) -> Tensor:
        """Return latents of mean 0 and variance 1 over the training data."""
        latents: Tensor = (self.encoder(x) - self.mean) / self.std
        return latents

    def decode(self, z: Tensor) -> Tensor:
        """Turn such latents into images."""
        image: Tensor = self.decoder(z * self.std + self.mean)
        return image

    def loss(self, x: Tensor) -> Tensor:
        """Return the reconstruction error, and follow the moments of the latents."""
        raw = self.encoder(x)
        with torch.no_grad():
            values = raw.transpose(0, 1).flatten(1)
            self.mean.lerp_(values.mean(1).view_as(self.mean), _FOLLOW)
            self.std.lerp_(values.std(1, correction=0).clamp_min(1e-4).view_as(self.std), _FOLLOW)
        return F.mse_loss(self.decoder(raw), x) + _SHRINK * raw.square().mean()


class FeatureExtractor(nn.Module):
    """Features at three resolutions, learnt on the normal images themselves by reconstructing them.

    Parameters
    ----------
    shape : tuple of int
        Channels, height and width of an image.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        channels, *full = shape
        widths = (channels, *_FEATURES)
        sizes = pyramid(tuple(full), len(_FEATURES))
        stages = list(zip(widths[:-1], widths[1:], sizes[:-1], strict=True))
        self.levels = nn.ModuleList(
            nn.Sequential(downsampling(a, b, at, "silu"), activation_module("silu")) for a, b, at in stages
        )
        back: list[nn.Module] = []
        for a, b, at in reversed(stages):
            back += [Upsampling(b, a, at, "silu"), activation_module("silu")]
        self.back = nn.Sequential(*back[:-1])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of images, the finest first."""
        found = []
        for level in self.levels:
            x = level(x)
            found.append(x)
        return found

    def loss(self, x: Tensor) -> Tensor:
        """Return the error of images reconstructed from the coarsest features."""
        return F.mse_loss(self.back(self(x)[-1]), x)

    def vector(self, x: Tensor) -> Tensor:
        """Return one vector an image, by which images are compared."""
        features = self(x)[_COMPARED]
        height, width = (min(_POOLED, side) for side in features.shape[2:])
        return F.adaptive_avg_pool2d(features, (height, width)).flatten(1)
