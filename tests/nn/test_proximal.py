from __future__ import annotations

import pytest
import torch

from genad.nn.proximal import group_shrink, soft_threshold


@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 2), (2, 1, 3, 3)])
@pytest.mark.parametrize(("step", "groups"), [(soft_threshold, False), (group_shrink, True)])
def test_is_the_minimum_of_its_objective(shape, step, groups):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(shape, generator=generator, dtype=torch.float64)

    def objective(x):
        norm = x.flatten(1).norm(dim=1).sum() if groups else x.abs().sum()
        return 0.5 * (x - values).square().sum() + 0.7 * norm

    found = step(values, 0.7)
    best = objective(found)
    for _ in range(50):
        assert objective(found + 0.05 * torch.randn(shape, generator=generator, dtype=torch.float64)) >= best


def test_short_samples_become_exact_zeros_and_long_ones_keep_their_direction():
    values = torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]])
    found = group_shrink(values, 0.75)
    assert torch.allclose(found[0], values[0] * 0.25)
    assert (found[1:] == 0).all()


def test_threshold_zero_changes_nothing():
    values = torch.tensor([[1.0, -2.0], [0.0, 0.0]])
    assert torch.equal(group_shrink(values, 0.0), values)
    assert torch.equal(soft_threshold(values, torch.tensor(0.0)), values)
