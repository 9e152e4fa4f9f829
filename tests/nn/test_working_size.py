from __future__ import annotations

import torch

from genad.nn.working_size import WorkingSize


def test_working_size_keeps_small_images_and_averages_large_ones():
    same = WorkingSize((1, 20, 32), 32)
    x = torch.randn(2, 1, 20, 32)
    assert same.shape == (1, 20, 32)
    assert same.down(x) is x
    half = WorkingSize((3, 64, 40), 32)
    assert half.shape == (3, 32, 20)
    big = torch.randn(2, 3, 64, 40)
    torch.testing.assert_close(half.down(big)[:, :, 0, 0], big[:, :, :2, :2].mean((2, 3)))
    assert half.up(half.down(big)).shape == big.shape
    assert WorkingSize((1, 100, 1), 10).size == (10, 1)


def test_what_is_missing_does_not_enter_the_average():
    half = WorkingSize((1, 4, 4), 2)
    x, mask = torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4, dtype=torch.bool)
    x[..., 0, 0], mask[..., 0, 0] = 0.0, False
    mask[..., 2:, 2:] = False
    mean, seen = half.down_observed(x, mask)
    assert mean[0, 0].tolist() == [[1.0, 1.0], [1.0, 0.0]]
    assert seen[0, 0].tolist() == [[True, True], [True, False]]
    assert half.down_observed(x, None)[1] is None
