"""Contrastive learning of windows: masked views of them, and the loss that brings two views together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

if TYPE_CHECKING:
    from collections.abc import Sequence

# Keeps logarithms of uniform draws finite.
_TINY = 1e-12


def geometric_mask(shape: Sequence[int], share: float, length: float) -> Tensor:
    """Draw runs of masked steps, of geometric length, for each channel of each window alone.

    Masked and open runs take turns, open ones with a mean of ``length (1 - share) / share`` steps. A window begins
    anywhere in such a sequence, so that every step is masked with the same probability.

    Parameters
    ----------
    shape : sequence of int
        Windows, steps and channels (B, T, C).
    share : float
        Steps masked on average, in (0, 1) and at most ``length / (length + 1)``.
    length : float
        Mean steps of a masked run, at least 1.

    Returns
    -------
    Tensor of bool, shape (B, T, C)
        True where masked; drawn from torch's global generator.

    References
    ----------
    Zerveas et al. (2021), A transformer-based framework for multivariate time series representation learning, KDD.

    Examples
    --------
    >>> mask = geometric_mask((64, 100, 8), share=0.15, length=3.0)
    >>> mask.shape, abs(float(mask.float().mean()) - 0.15) < 0.02
    (torch.Size([64, 100, 8]), True)
    """
    batch, steps, channels = shape
    begins = torch.rand(batch, channels, 1) < share
    # The ends of masked and of open runs are as likely at every step: that is what makes their lengths geometric.
    ends = torch.tensor([share / (length * (1.0 - share)), 1.0 / length], dtype=torch.float64).clamp_max(1.0)
    masked = begins ^ (torch.arange(steps) % 2 == 1)
    chance = torch.rand(batch, channels, steps, dtype=torch.float64).clamp_min(_TINY)
    runs = (chance.log() / torch.log1p(-ends[masked.long()])).ceil().clamp_min(1.0)
    over = torch.searchsorted(
        runs.cumsum(2), torch.arange(steps, dtype=torch.float64).expand_as(runs).contiguous(), right=True
    )
    return (begins ^ (over % 2 == 1)).transpose(1, 2)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return the normalised, temperature-scaled cross-entropy of telling each view's partner from all other views.

    Parameters
    ----------
    first, second : Tensor of shape (B, D)
        Two views of the same B things, in the same order; their lengths do not count.
    temperature : float
        Above 0; the smaller, the more the nearest of the others matter.

    Returns
    -------
    Tensor
        A scalar, 0 when there is nothing else to be told from.

    References
    ----------
    Chen, Kornblith, Norouzi and Hinton (2020), A simple framework for contrastive learning of visual representations,
    ICML.

    Examples
    --------
    Views that agree and differ from all others cost next to nothing; views that all agree cost log(2 B - 1).

    >>> one = torch.eye(4)
    >>> round(float(nt_xent(one, one, 0.1)), 3), round(float(nt_xent(torch.ones(4, 4), torch.ones(4, 4), 0.1)), 3)
    (0.0, 1.946)
    """
    views = F.normalize(torch.cat([first, second]), dim=1)
    alike = (views @ views.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(views), device=views.device).roll(len(first))
    return F.cross_entropy(alike, partner)
