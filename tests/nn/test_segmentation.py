from __future__ import annotations

import math

import pytest
import torch

from genad.nn.segmentation import (
    PixelFrame,
    Segmenter,
    dice_loss,
    fill_in,
    focal_loss,
    map_window,
    segmenter_widths,
    smooth,
    top_mean,
)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 3), (8, 8), (23, 24), (33, 70)])
def test_a_segmenter_takes_any_size(size):
    net = Segmenter(3, size)
    assert net(torch.randn(2, 3, *size)).shape == (2, 1, *size)


def test_a_segmenter_starts_from_its_prior():
    torch.manual_seed(0)
    p = torch.sigmoid(Segmenter(1, (16, 16), prior=0.01)(torch.randn(8, 1, 16, 16)))
    assert 0.001 < p.median() < 0.1


def test_an_image_is_segmented_whatever_is_beside_it():
    torch.manual_seed(0)
    net = Segmenter(1, (32, 32)).eval()
    x = torch.randn(4, 1, 32, 32)
    other = torch.cat([x[:1], 100 * torch.randn(3, 1, 32, 32)])
    torch.testing.assert_close(net(x)[:1], net(other)[:1])


def test_widths_stay_within_bounds():
    for side in (1, 4, 8, 16, 28, 32, 48, 64, 128, 512):
        widths = segmenter_widths((side, side))
        assert 1 <= len(widths) <= 4
        assert max(widths) <= 64


def test_focal_loss_with_gamma_0_is_the_cross_entropy():
    torch.manual_seed(0)
    p, target = torch.rand(100).clamp(0.01, 0.99), (torch.rand(100) < 0.3).float()
    expected = torch.nn.functional.binary_cross_entropy(p, target, reduction="none")
    torch.testing.assert_close(focal_loss(p, target, gamma=0.0), expected, rtol=1e-2, atol=1e-3)


def test_focal_loss_follows_its_formula_and_weighs_the_classes():
    p = torch.tensor([0.9, 0.9])
    target = torch.tensor([1.0, 0.0])
    right, wrong = -(0.1**4) * math.log(0.9), -(0.9**4) * math.log(0.1)
    torch.testing.assert_close(focal_loss(p, target, gamma=4.0), torch.tensor([right, wrong]), rtol=2e-3, atol=1e-6)
    weighed = focal_loss(p, target, gamma=4.0, alpha=0.75)
    torch.testing.assert_close(weighed, torch.tensor([0.75 * right, 0.25 * wrong]), rtol=2e-3, atol=1e-6)


def test_focal_loss_and_its_slope_stay_finite_at_certain_mistakes():
    p = torch.tensor([0.0, 1.0, 0.0, 1.0], requires_grad=True)
    loss = focal_loss(p, torch.tensor([1.0, 0.0, 0.0, 1.0]))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(p.grad).all()
    assert (loss[:2] > 9).all()
    assert (loss[2:].abs() < 1e-6).all()


def test_dice_loss_is_0_for_a_match_and_near_1_for_a_miss():
    mask = torch.zeros(3, 1, 8, 8)
    mask[:2, :, 2:6, 2:6] = 1
    p = mask.clone()
    p[1] = 1 - mask[1]
    loss = dice_loss(p, mask)
    assert loss.shape == (3,)
    assert loss[0] == 0
    assert loss[1] > 0.95
    assert loss[2] == 0
    assert dice_loss(torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)) > 0.95


@pytest.mark.parametrize(
    ("shape", "size"), [((1, 64, 64), (64, 64)), ((3, 200, 100), (64, 32)), ((1, 1, 300), (1, 64))]
)
def test_a_frame_reduces_to_its_resolution_and_back(shape, size):
    frame = PixelFrame(shape, 64, torch.ones(shape[0]), torch.zeros(shape[0]))
    assert frame.size == size
    x = torch.full((2, *shape), 3.0)
    small = frame.down(x)
    assert small.shape == (2, shape[0], *size)
    torch.testing.assert_close(frame.up(small), x)


def test_a_frame_turns_values_into_pixels_and_back():
    frame = PixelFrame((2, 4, 4), 64, torch.tensor([0.1, 0.5]), torch.tensor([0.4, 0.2]))
    z = torch.randn(3, 2, 4, 4)
    pixels = frame.pixels(z)
    torch.testing.assert_close(pixels[:, 1], 0.5 * z[:, 1] + 0.2)
    torch.testing.assert_close(frame.standardised(pixels), z)


def test_values_out_of_range_are_known_to_be():
    frame = PixelFrame((2, 1, 4), 64, torch.ones(2), torch.zeros(2))
    pixels = torch.tensor([0.0, 1.0, 1.1, -1e15]).expand(1, 2, 1, 4).clone()
    pixels[:, 0] = 0.5
    expected = torch.tensor([0.0, 0.0, 1 - math.exp(-1), 1.0])
    torch.testing.assert_close(frame.beyond(pixels)[0, 0, 0], expected, rtol=1e-5, atol=1e-6)


def test_smoothing_keeps_a_constant_and_spreads_a_peak():
    torch.testing.assert_close(smooth(torch.full((1, 1, 7, 9), 0.3), 5), torch.full((1, 1, 7, 9), 0.3))
    peak = torch.zeros(1, 1, 9, 9)
    peak[..., 4, 4] = 1.0
    smoothed = smooth(peak, 3)
    torch.testing.assert_close(smoothed[0, 0, 3:6, 3:6], torch.full((3, 3), 1 / 9))
    assert smoothed.sum() == pytest.approx(1.0)
    assert all(map_window((side, side)) % 2 == 1 for side in range(1, 300))


def test_top_mean_takes_the_largest():
    maps = torch.arange(20.0).view(2, 1, 2, 5)
    assert top_mean(maps, 0.0).tolist() == [9.0, 19.0]
    assert top_mean(maps, 0.3).tolist() == [8.0, 18.0]
    assert top_mean(maps, 0.0, at_least=50).tolist() == [4.5, 14.5]


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (13, 10), (64, 64)])
def test_what_is_kept_stays_and_what_is_not_is_filled_smoothly(size):
    grid = torch.linspace(0, 1, size[1]).expand(1, 2, *size).clone()
    torch.testing.assert_close(fill_in(grid, torch.ones(1, 1, *size)), grid)
    hole = torch.ones(1, 1, *size)
    hole[..., size[0] // 3 : 2 * size[0] // 3, size[1] // 3 : 2 * size[1] // 3] = 0
    spoiled = torch.where(hole > 0, grid, 50.0)
    filled = fill_in(spoiled, hole)
    assert torch.equal(filled[hole.expand_as(filled) > 0], grid[hole.expand_as(grid) > 0])
    assert (filled - grid).abs().max() < 0.35


def test_nothing_to_keep_gives_finite_values():
    assert torch.isfinite(fill_in(torch.randn(2, 1, 9, 9), torch.zeros(2, 1, 9, 9))).all()
