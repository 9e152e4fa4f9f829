"""Gaussians of feature vectors with shrunk covariances: one for all, or one at every position of a map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genad.nn.spectrum import spectrum

# Added to variances of scaled features, so that what never varies can be measured.
_FLOOR = 1e-4


def whitener(covariance: Tensor, shrink: float) -> Tensor:
    """Return the matrix W for which ``x @ W`` is white, of a covariance shrunk towards a multiple of the identity.

    Parameters
    ----------
    covariance : Tensor of shape (k, k)
    shrink : float
        Share of the identity, in (0, 1]; at 1 all directions are scaled alike.

    Examples
    --------
    >>> whitener(torch.diag(torch.tensor([1.0, 9.0])), shrink=0.5).diagonal().round(decimals=2)
    tensor([0.5800, 0.3800])
    """
    identity = torch.eye(len(covariance), device=covariance.device, dtype=covariance.dtype)
    spread = covariance.diagonal().mean() + _FLOOR
    factor = torch.linalg.cholesky((1.0 - shrink) * covariance + shrink * spread * identity)
    return torch.linalg.solve_triangular(factor, identity, upper=False).T.contiguous()


class SharedGaussian(nn.Module):
    """One Gaussian of feature vectors: channels scaled by their spread, then whitened.

    Attributes
    ----------
    mean : Tensor of shape (C,)
    whitener : Tensor of shape (C, C)
        The scale of the channels included.

    Examples
    --------
    >>> x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor([[1.0, 2.0], [0.0, 1.0]])
    >>> gaussian = SharedGaussian()
    >>> gaussian.fit(x, shrink=0.01)
    >>> torch.allclose(torch.cov(gaussian(x).T), torch.eye(2), atol=0.1)
    True
    """

    mean: Tensor
    whitener: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("mean", "whitener"):
            self.register_buffer(name, torch.zeros(0))

    def fit(self, x: Tensor, shrink: float) -> None:
        """Estimate it from vectors (n, C); ``shrink`` as in :func:`whitener`."""
        self.mean = x.mean(0)
        scale = 1.0 / x.std(0, correction=0).clamp_min(_FLOOR)
        scaled = (x - self.mean) * scale
        covariance = (scaled.T @ scaled).double() / len(x)
        self.whitener = scale[:, None] * whitener(covariance, shrink).float()

    def forward(self, x: Tensor) -> Tensor:
        """Whiten vectors (..., C)."""
        return (x - self.mean) @ self.whitener


class PositionGaussian(nn.Module):
    """Gaussians of feature vectors, one a position, on shared principal axes.

    The channels are scaled by their spread over all positions and projected on the leading axes of the covariance
    within positions, averaged over these. Along those axes each position has its own mean and its own covariance,
    which is shrunk towards a multiple of the identity.

    Attributes
    ----------
    axes : Tensor of shape (C, k)
        Projection of the raw channels, their scale included.
    means : Tensor of shape (P, k)
        On the axes.
    whiteners : Tensor of shape (P, k, k)
        ``(x @ axes - means[p]) @ whiteners[p]`` is white at position p.

    Examples
    --------
    >>> x = torch.randn(500, 4, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0, 0.1])
    >>> gaussian = PositionGaussian()
    >>> gaussian.fit(x, components=3, shrink=0.01)
    >>> round(float(gaussian(x).square().mean()), 1)
    1.0
    """

    axes: Tensor
    means: Tensor
    whiteners: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("axes", "means", "whiteners"):
            self.register_buffer(name, torch.zeros(0))

    def fit(self, x: Tensor, components: int, shrink: float) -> None:
        """Estimate everything from vectors (n, P, C).

        Parameters
        ----------
        x : Tensor of shape (n, P, C)
        components : int
            Most axes kept.
        shrink : float
            Share of the identity in each covariance, in (0, 1].
        """
        n, positions, channels = x.shape
        scale = 1.0 / x.flatten(0, 1).std(0, correction=0).clamp_min(_FLOOR)
        within = (x - x.mean(0)) * scale
        k = min(components, channels)
        _, axes = spectrum((within.flatten(0, 1).T @ within.flatten(0, 1)).double() / (n * positions))
        axes = axes.flip(1)[:, :k].float()
        # Contiguous, so that a loaded model multiplies in the same order.
        self.axes = (scale[:, None] * axes).contiguous()
        self.means = x.mean(0) @ self.axes
        whiteners = torch.empty(positions, k, k, device=x.device)
        for p in range(positions):
            centred = within[:, p] @ axes
            whiteners[p] = whitener(centred.T @ centred / n, shrink)
        self.whiteners = whiteners

    def forward(self, x: Tensor) -> Tensor:
        """Whiten vectors (B, P, C) to (B, P, k)."""
        centred = (x @ self.axes - self.means).transpose(0, 1)
        return torch.bmm(centred, self.whiteners).transpose(0, 1)
