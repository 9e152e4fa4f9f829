"""Evidential classification: a Dirichlet distribution over class probabilities, and how sure it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

_TINY = 1e-7


class DirichletHead(nn.Module):
    """Map features to the concentrations of a Dirichlet distribution, each at least 1.

    Parameters
    ----------
    features, classes : int
        Lengths of input and output.

    Examples
    --------
    >>> alpha = DirichletHead(4, 2)(torch.zeros(3, 4))
    >>> alpha.shape, bool((alpha > 1).all())
    (torch.Size([3, 2]), True)
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(..., features)`` to ``(..., classes)``."""
        return F.softplus(self.linear(features)) + 1.0


def uncertainties(alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Split the entropy of the expected class into what the data leave open and what the head does not know.

    Parameters
    ----------
    alpha : Tensor of shape (..., classes)
        Concentrations, at least 1.

    Returns
    -------
    data, distributional : Tensor of shape (...)
        ``E[H[p]]`` and ``H[E[p]] - E[H[p]]``, in nats.

    Examples
    --------
    No evidence at all, evidence for both classes, and evidence for one.

    >>> data, unknown = uncertainties(torch.tensor([[1.0, 1.0], [500.0, 500.0], [1000.0, 1.0]]))
    >>> [round(float(value), 2) for value in unknown], [round(float(value), 2) for value in data]
    ([0.19, 0.0, 0.0], [0.5, 0.69, 0.01])
    """
    total = alpha.sum(-1, keepdim=True)
    p = alpha / total
    entropy = -(p * torch.log(p + _TINY)).sum(-1)
    data = (p * (torch.digamma(total + 1.0) - torch.digamma(alpha + 1.0))).sum(-1)
    return data, entropy - data


def evidential_loss(alpha: Tensor, target: Tensor, kl_weight: float = 1e-3) -> Tensor:
    """Return the expected squared error under the Dirichlet, and a pull of wrong evidence towards none.

    Parameters
    ----------
    alpha : Tensor of shape (B, classes)
        Concentrations.
    target : Tensor of shape (B, classes)
        One-hot labels.
    kl_weight : float
        Weight of ``KL(Dir(alpha without the right class) || Dir(1, ..., 1))``.

    Returns
    -------
    Tensor of shape (B,)

    References
    ----------
    Sensoy, Kaplan and Kandemir (2018), Evidential deep learning to quantify classification uncertainty, NeurIPS.

    Examples
    --------
    >>> right, wrong = evidential_loss(torch.tensor([[9.0, 1.0], [1.0, 9.0]]), torch.tensor([[1.0, 0.0]] * 2))
    >>> round(float(right), 3), bool(wrong > 1.5)
    (0.036, True)
    """
    total = alpha.sum(-1, keepdim=True)
    p = alpha / total
    error = ((target - p).square() + p * (1.0 - p) / (total + 1.0)).sum(-1)
    wrong = target + (1.0 - target) * alpha
    evidence = wrong.sum(-1)
    classes = torch.tensor(float(alpha.shape[-1]), dtype=alpha.dtype, device=alpha.device)
    divergence = (
        torch.lgamma(evidence)
        - torch.lgamma(classes)
        - torch.lgamma(wrong).sum(-1)
        + ((wrong - 1.0) * (torch.digamma(wrong) - torch.digamma(evidence[..., None]))).sum(-1)
    )
    return error + kl_weight * divergence
