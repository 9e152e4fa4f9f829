"""Restoring from what was seen: the training sample nearest to each sample."""

from __future__ import annotations

import torch
from torch import Tensor

from genad.data.samples import Batch


def nearest_kept(batch: Batch, bank: Tensor) -> Tensor:
    """Return the kept sample nearest to each one of a batch in its observed values.

    Parameters
    ----------
    batch : Batch
        Samples (B, *shape).
    bank : Tensor of shape (m, d)
        Kept samples, flattened to their d values; at least 1.

    Returns
    -------
    Tensor of shape (B, *shape)

    Examples
    --------
    >>> bank = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    >>> nearest_kept(Batch(torch.tensor([[2.0, 3.0]])), bank)
    tensor([[3., 4.]])
    """
    x = batch.x.flatten(1)
    if batch.mask is None:
        nearest = torch.cdist(x, bank, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
    else:
        seen = batch.mask.flatten(1).to(x.dtype)
        nearest = (seen @ bank.square().T - 2.0 * (x * seen) @ bank.T).argmin(1)
    return bank[nearest].view_as(batch.x)
