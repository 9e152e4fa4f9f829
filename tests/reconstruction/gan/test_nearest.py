from __future__ import annotations

import torch

from genad.data.samples import Batch
from genad.reconstruction.gan.nearest import nearest_kept


def test_the_nearest_in_observed_values_comes_back_in_the_batchs_shape():
    bank = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 9.0]])
    x = torch.tensor([[[0.2, 0.1], [0.0, 0.1]], [[0.9, 1.1], [1.0, 0.0]]])
    assert torch.equal(nearest_kept(Batch(x), bank), bank[[0, 0]].view(2, 2, 2))
    # without the last value the second is nearer to the other one
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[1, 1, 1] = False
    assert torch.equal(nearest_kept(Batch(x * mask, mask), bank), bank.view(2, 2, 2))
