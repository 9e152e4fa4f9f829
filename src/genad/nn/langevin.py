"""Langevin sampling of energies: noisy gradient descent, a buffer of chains that go on, and codes on a sphere."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

# Numbers that a buffer may hold, so that large images get fewer chains and not more memory.
_MOST_NUMBERS = 2**22


def langevin(
    energy: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    steps: int,
    step: float,
    noise: float | None = None,
    anneal: bool = False,
    clip: float = 0.0,
    project: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Run one chain a sample: ``x <- x - step grad E(x) + noise N(0, I)``.

    Parameters
    ----------
    energy : callable
        From samples ``(B, *shape)`` to energies ``(B,)``; no gradient flows into its parameters.
    x : Tensor
        Where the chains start.
    steps : int
        Length of the chains.
    step : float
        Step length.
    noise : float or None, default=None
        Standard deviation of the noise; None takes ``sqrt(2 step)``, at which the chains sample ``exp(-E)``.
        Less noise samples ``exp(-E / t)`` at the temperature ``t = noise^2 / (2 step)``.
    anneal : bool, default=False
        Whether the noise of step k is divided by k.
    clip : float, default=0.0
        Largest move of a value in one step, before the noise; 0 sets no limit.
    project : callable, optional
        Applied after every step.

    Returns
    -------
    Tensor
        Where the chains end, detached.

    References
    ----------
    Welling and Teh (2011), Bayesian learning via stochastic gradient Langevin dynamics, ICML.

    Examples
    --------
    >>> with torch.random.fork_rng():
    ...     _ = torch.manual_seed(0)
    ...     wide = langevin(lambda x: 0.5 * x.square().sum(1), torch.zeros(2000, 1), steps=100, step=0.1)
    >>> round(wide.std().item(), 1)
    1.0
    """
    spread = math.sqrt(2 * step) if noise is None else noise
    x = x.detach()
    for k in range(1, steps + 1):
        with torch.enable_grad():
            point = x.requires_grad_()
            (slope,) = torch.autograd.grad(energy(point).sum(), point)
        move = step * slope
        if clip:
            move = move.clamp(-clip, clip)
        x = point.detach() - move + (spread / k if anneal else spread) * torch.randn_like(x)
        if project is not None:
            x = project(x)
    return x


def to_sphere(z: Tensor) -> Tensor:
    """Scale codes ``(B, latent)`` to unit length.

    Examples
    --------
    >>> to_sphere(torch.tensor([[3.0, 4.0]]))
    tensor([[0.6000, 0.8000]])
    """
    return F.normalize(z, dim=1, eps=1e-8)


def uniform_on_sphere(count: int, latent: int) -> Tensor:
    """Draw codes uniformly from the unit sphere, ``(count, latent)``."""
    return to_sphere(torch.randn(count, latent))


class ReplayBuffer(nn.Module):
    """Chains that go on from one update to the next.

    Parameters
    ----------
    fresh : callable
        ``fresh(n)`` draws n starting points on the CPU.
    size : int
        Number of chains; fewer where samples are so large that they would fill the memory.
    renewed : float, default=0.05
        Share of the chains that start afresh when they are drawn.

    Attributes
    ----------
    store : Tensor
        Buffer ``(size, *shape)``: where the chains are.

    References
    ----------
    Du and Mordatch (2019), Implicit generation and modeling with energy-based models, NeurIPS.

    Examples
    --------
    >>> chains = ReplayBuffer(lambda n: torch.zeros(n, 3), 10)
    >>> x, where = chains.draw(4)
    >>> chains.put(where, x + 1)
    >>> chains.store.sum().item()
    12.0
    """

    store: Tensor

    def __init__(self, fresh: Callable[[int], Tensor], size: int, renewed: float = 0.05) -> None:
        super().__init__()
        self.fresh, self.renewed = fresh, renewed
        most = max(16, _MOST_NUMBERS // fresh(1).numel())
        self.register_buffer("store", fresh(min(size, most)))

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the positions of chains drawn without repetition, and which they are; at most all of them."""
        where = torch.randperm(len(self.store), device=self.store.device)[:count]
        x = self.store[where]
        new = torch.rand(len(x), device=x.device) < self.renewed
        return torch.where(new.view(-1, *(1,) * (x.ndim - 1)), self.fresh(len(x)).to(x), x), where

    def put(self, where: Tensor, x: Tensor) -> None:
        """Note where chains have got to."""
        self.store[where] = x.detach()

    def restart(self) -> None:
        """Start all chains afresh."""
        self.store.copy_(self.fresh(len(self.store)))

    def clear(self) -> None:
        """Drop the chains, once training is over and nothing needs them."""
        self.store = self.store[:0].clone()
