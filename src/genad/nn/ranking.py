"""Ranking losses: how often one group of scores lies above another, smoothly."""

from __future__ import annotations

from torch import Tensor


def soft_auc(higher: Tensor, lower: Tensor) -> Tensor:
    """Return the share of pairs in which a value of ``higher`` exceeds one of ``lower``, with a sigmoid for the step.

    Its gradient fades where a pair is in order by far, so that pushing the groups apart without end gains nothing.

    Parameters
    ----------
    higher : Tensor of shape (n,)
        Values that should be high, for instance log-likelihoods of normal samples.
    lower : Tensor of shape (m,)
        Values that should be low; at least one of each.

    Returns
    -------
    Tensor
        A scalar in [0, 1], differentiable in both.

    References
    ----------
    Yan, Dodier, Mozer and Wolniewicz (2003), Optimizing classifier performance via an approximation to the
    Wilcoxon-Mann-Whitney statistic, ICML.

    Examples
    --------
    >>> import torch
    >>> soft_auc(torch.tensor([9.0, 10.0]), torch.tensor([-9.0, 9.5])).round(decimals=2)
    tensor(0.7500)
    """
    return (higher[:, None] - lower).sigmoid().mean()
