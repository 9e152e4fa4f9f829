"""What series VAEs share: sums over the channels of a step, and scores as of each step."""

from __future__ import annotations

from torch import Tensor

from genad.data.samples import Batch

# Rows of a block at least: the cost of a recurrent step hardly depends on them below this.
ROWS = 512


def step_sum(batch: Batch, values: Tensor) -> Tensor:
    """Add up the channels of each step, missing ones counted at the mean of the observed.

    Parameters
    ----------
    batch : Batch
        Windows (B, T, C).
    values : Tensor of shape (B, T, C)
        One number a value.

    Returns
    -------
    Tensor of shape (B, T)
        0 where a step has no observed value.

    Examples
    --------
    >>> import torch
    >>> x = torch.ones(1, 2, 2)
    >>> step_sum(Batch(x), x)
    tensor([[2., 2.]])
    >>> step_sum(Batch(x, torch.tensor([[[True, False], [False, False]]])), x)
    tensor([[2., 0.]])
    """
    if batch.mask is None:
        return values.sum(-1)
    seen = batch.mask.sum(-1).clamp_min(1)
    return batch.keep_observed(values).sum(-1) / seen * values.shape[-1]
