from __future__ import annotations

import numpy as np
import pytest
import torch

from genad.nn.window_tails import (
    WindowTails,
    kernel_cdf,
    moving_average_residual,
    rarity,
    spectral_residual,
)


def waves(n=20, steps=64, channels=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(n, 1, channels, generator=generator) * 6
    return torch.sin(torch.arange(steps)[:, None] / 4 + start) + 0.1 * torch.randn(
        n, steps, channels, generator=generator
    )


def test_the_moving_average_is_of_the_five_steps_before():
    x = torch.randn(2, 12, 3)
    found = moving_average_residual(x)
    torch.testing.assert_close(found[:, 9], x[:, 9] - x[:, 4:9].mean(1))
    torch.testing.assert_close(found[:, 2], x[:, 2] - x[:, :2].mean(1))
    assert (found[:, 0] == 0).all()


def test_the_spectral_residual_points_at_a_spike():
    for place in (20, 55):
        x = waves(1, channels=1)
        x[0, place] += 3
        assert int(spectral_residual(x)[0, :, 0].argmax()) == place
    assert torch.isfinite(spectral_residual(torch.full((1, 16, 2), 3.0))).all()
    assert torch.isfinite(spectral_residual(torch.randn(1, 2, 1))).all()


def test_the_kernel_estimate_is_smooth_and_weights_say_what_counts():
    values = torch.tensor([[[0.0], [1.0], [5.0]]])
    at = torch.tensor([[[0.5]]])
    width = (4 / 9) ** 0.2 * np.sqrt(np.var([0, 1, 5])) + 0.05
    cdf = torch.special.ndtr((0.5 - values[0, :, 0]) / width)
    assert float(kernel_cdf(values, at, torch.ones(1, 1, 3, 1))) == pytest.approx(float(cdf.mean()), rel=1e-5)
    only = kernel_cdf(values, at, torch.tensor([1.0, 1, 0]).view(1, 1, 3, 1))
    assert float(only) == pytest.approx(float(cdf[:2].mean()), rel=1e-5)
    assert float(kernel_cdf(values, at, torch.zeros(1, 1, 3, 1))) == 0.5


def test_rarity_is_one_at_one_in_a_million():
    assert rarity(torch.tensor([1.0, 1e-3, 1e-6, 0.0])).tolist() == pytest.approx([0.0, 0.5, 1.0, 1.0])


@pytest.mark.parametrize(("channels", "each"), [(1, 12), (3, 6)])
def test_features_lie_between_0_and_1_and_there_are_6_or_12_a_channel(channels, each):
    tails = WindowTails((64, channels))
    x = waves(channels=channels) * 3
    tails.settle(x)
    found = tails(x)
    assert tails.each == each
    assert found.shape == (20, 1, channels * each)
    assert 0 <= float(found.min()) < float(found.max()) <= 1


@pytest.mark.parametrize(("size", "left", "right"), [(4.0, 2, 1), (-4.0, 1, 2)])
def test_one_sided_features_know_the_direction_and_the_channel(size, left, right):
    tails = WindowTails((64, 2))
    x = waves()
    tails.settle(x)
    x[:, -1, 1] += size
    found = tails(x)[:, 0].unflatten(1, (2, 6))
    # two-sided level, then the residual upwards and downwards
    assert (found[:, 1, 0] > 0.8).all()
    assert (found[:, 1, right] > 0.9).all()
    assert (found[:, 1, left] < 0.05).all()
    assert float(found[:, 0].median()) < 0.2


def test_one_anomaly_does_not_hide_the_next():
    x = waves(1)
    tails = WindowTails((64, 2))
    tails.settle(waves())
    x[0, 40:, 0] = torch.where(torch.arange(24) % 2 == 0, 8.0, -8.0)
    assert float(tails(x)[0, 0, :6].max()) > 0.9
    free = WindowTails((64, 2))
    assert float(free(x)[0, 0, :3].max()) < 0.5


def test_a_period_brings_in_the_same_time_of_day():
    # high only at one time of day: rare among its neighbours, usual at that time
    x = torch.zeros(1, 60, 2) + 0.02 * torch.randn(1, 60, 2, generator=torch.Generator().manual_seed(0))
    x[:, [11, 59]] += 3.0
    plain, daily = WindowTails((60, 2)), WindowTails((60, 2), period=48)
    assert float(plain(x)[0, 0, 0]) > 0.5 > 0.3 > float(daily(x)[0, 0, 0])


def test_all_steps_of_a_window_are_judged_among_the_others():
    tails = WindowTails((64, 2))
    x = waves()
    tails.settle(x)
    whole = tails(x, whole=True)
    assert whole.shape == (20, 64, 12)
    torch.testing.assert_close(whole[:, -1:], tails(x))
    x[3, 5, 0] = 6.0
    assert float(tails(x, whole=True)[3, 5, :6].max()) > 0.9


def test_missing_values_count_nowhere():
    tails = WindowTails((64, 2))
    x = waves()
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:, 30:34, 0] = False
    mask[0, -1, 1] = False
    one, other = x.clone(), x.clone()
    one[~mask], other[~mask] = 0.0, 7.0
    found = tails(one, mask)
    torch.testing.assert_close(found, tails(other, mask))
    assert (found[0, 0, 6:] == 0).all()
    assert torch.isfinite(tails(one, torch.zeros_like(mask))).all()
