"""An autoencoder whose codes lie on the unit sphere, so that all codes are alike and chains of them stay bounded."""

from __future__ import annotations

import math

from torch import Tensor, nn

from genad.nn.backbone import Backbone, decoder, default_latent, encoder, for_tables
from genad.nn.langevin import to_sphere

_TABLE = Backbone("mlp", hidden=(128, 64), activation="silu")
# Numbers that a code has at the least where nothing calls for a bottleneck.
_FREE = 16


def sphere_latent(shape: tuple[int, ...]) -> int:
    """Choose the length of the code: one number more than without the sphere, whose surface has one dimension less.

    Examples
    --------
    >>> sphere_latent((6,)), sphere_latent((1,))
    (4, 2)
    """
    return default_latent(shape) + 1


def free_latent(shape: tuple[int, ...]) -> int:
    """Choose the length of a code that need not be a bottleneck: with 16 numbers or more where a sample has as many.

    Examples
    --------
    >>> free_latent((6,)), free_latent((20,)), free_latent((1, 28, 28))
    (7, 17, 30)
    """
    return 1 + max(default_latent(shape), min(_FREE, math.prod(shape)))


class SphereAutoencoder(nn.Module):
    """Reconstruct through a code of unit length.

    Parameters
    ----------
    shape : tuple of int
        Shape of one sample.
    latent : int
        Length of the code, at least 2.
    spec : Backbone, str or None, default=None
        Which networks.

    References
    ----------
    Yoon, Noh and Park (2021), Autoencoding under normalization constraints, ICML.

    Examples
    --------
    >>> import torch
    >>> net = SphereAutoencoder((5,), 3)
    >>> net(torch.zeros(2, 5)).shape, net.code(torch.ones(2, 5)).norm(dim=1).round(decimals=4).tolist()
    (torch.Size([2, 5]), [1.0, 1.0])
    """

    def __init__(self, shape: tuple[int, ...], latent: int, spec: Backbone | str | None = None) -> None:
        super().__init__()
        spec = for_tables(shape, spec, _TABLE)
        self.encode = encoder(shape, latent, spec)
        self.decode = decoder(shape, latent, spec)

    def code(self, x: Tensor) -> Tensor:
        """Return the code of each sample, (B, latent), of unit length."""
        return to_sphere(self.encode(x))

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct a batch."""
        restored: Tensor = self.decode(self.code(x))
        return restored

    def energy(self, x: Tensor) -> Tensor:
        """Return the mean squared error of the reconstruction, (B,)."""
        return (x - self(x)).square().flatten(1).mean(1)
