"""Proximal operators: the closed-form steps that shrink values or whole samples to exact zeros."""

from __future__ import annotations

import torch
from torch import Tensor


def soft_threshold(values: Tensor, threshold: Tensor | float) -> Tensor:
    """Return the proximal step of ``threshold * ||values||_1``: every value moves towards 0 and stops there.

    Examples
    --------
    >>> soft_threshold(torch.tensor([3.0, -0.5, -2.0]), 1.0)
    tensor([ 2., 0., -1.])
    """
    return values - values.clamp(-torch.as_tensor(threshold), torch.as_tensor(threshold))


def group_shrink(values: Tensor, threshold: Tensor | float) -> Tensor:
    """Return the proximal step of ``threshold * ||values||_{2,1}``: every sample shrinks, short ones to exact zeros.

    Parameters
    ----------
    values : Tensor of shape (B, ...)
        A group is all that belongs to one index of the first axis.
    threshold : Tensor or float
        At least 0, in the units of the Euclidean norm of a sample.

    Returns
    -------
    Tensor
        ``v (1 - threshold / ||v||)`` where ``||v|| > threshold``, otherwise 0.

    Examples
    --------
    >>> group_shrink(torch.tensor([[3.0, 4.0], [0.3, 0.4]]), 1.0)
    tensor([[2.4000, 3.2000],
            [0.0000, 0.0000]])
    """
    norm = torch.linalg.vector_norm(values.flatten(1), dim=1)
    keep = (1.0 - threshold / norm.clamp_min(torch.finfo(values.dtype).tiny)).clamp_min(0.0)
    return values * keep.view(-1, *[1] * (values.ndim - 1))
