"""Each change keeps what it should keep, and every image of a batch has its own."""

from __future__ import annotations

import pytest
import torch

from genad.data.image.augment import Augment
from genad.errors import InputError


@pytest.fixture
def x():
    return torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def run(augment, x, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return augment(x)


def test_nothing_asked_for_changes_nothing(x):
    assert Augment()(x) is x


@pytest.mark.parametrize(("name", "axis"), [("flip_horizontal", 3), ("flip_vertical", 2)])
def test_flips_are_mirrors_of_about_half(x, name, axis):
    flip = Augment(**{name: True})
    once = run(flip, x)
    same = (once == x).flatten(1).all(1)
    mirrored = (once == x.flip(axis)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 16 < int(same.sum()) < 48
    # The same draws twice give back the images: a mirror is its own inverse.
    assert torch.equal(run(flip, once), x)


def test_quarter_turns(x):
    turned = run(Augment(rotate90=True), x)
    counts = [sum(torch.equal(a, b.rot90(k, (1, 2))) for a, b in zip(turned, x, strict=True)) for k in range(4)]
    assert sum(counts) == len(x)
    assert min(counts) >= 4
    wide = x[..., :5]
    halves = run(Augment(rotate90=True), wide)
    assert halves.shape == wide.shape
    counts = [sum(torch.equal(a, b.rot90(k, (1, 2))) for a, b in zip(halves, wide, strict=True)) for k in (0, 2)]
    assert sum(counts) == len(x)


def test_shift_moves_by_at_most_its_share():
    x = torch.zeros(128, 1, 20, 40)
    x[:, :, 10, 20] = 1.0
    moved = run(Augment(shift=0.2), x)
    total = moved.sum((1, 2, 3), keepdim=True)
    rows = (moved * torch.arange(20.0)[:, None]).sum((1, 2, 3), keepdim=True) / total - 10
    columns = (moved * torch.arange(40.0)).sum((1, 2, 3), keepdim=True) / total - 20
    assert rows.abs().max() <= 4 + 1e-3
    assert rows.abs().max() > 3
    assert 6 < columns.abs().max() <= 8 + 1e-3
    assert torch.allclose(total, torch.ones_like(total), atol=1e-4)


def test_rotation_keeps_distances_of_images_that_are_not_square():
    x = torch.zeros(64, 1, 21, 41)
    x[:, :, 10, 28] = 1.0
    turned = run(Augment(rotate=90.0), x)
    total = turned.sum((1, 2, 3))
    rows = (turned * torch.arange(21.0)[:, None]).sum((1, 2, 3)) / total - 10
    columns = (turned * torch.arange(41.0)).sum((1, 2, 3)) / total - 20
    assert torch.allclose((rows**2 + columns**2).sqrt(), torch.full((64,), 8.0), atol=0.1)
    assert rows.max() > 6
    assert rows.min() < -6


def test_border_is_repeated():
    flat = torch.full((8, 2, 6, 9), 3.5)
    assert torch.allclose(run(Augment(shift=0.5, rotate=180.0), flat), flat)


def test_brightness_adds_one_number_an_image(x):
    difference = run(Augment(brightness=0.3), x) - x
    assert torch.allclose(difference, difference[:, :1, :1, :1].expand_as(x), atol=1e-6)
    assert 0.2 < difference.abs().max() <= 0.3 + 1e-6
    assert len(difference[:, 0, 0, 0].unique()) > 32


def test_contrast_keeps_the_mean_of_each_image(x):
    changed = run(Augment(contrast=0.5), x)
    assert torch.allclose(changed.mean((1, 2, 3)), x.mean((1, 2, 3)), atol=1e-5)
    ratio = changed.std((1, 2, 3)) / x.std((1, 2, 3))
    assert 0.5 - 1e-4 <= ratio.min() < 0.7
    assert 1.3 < ratio.max() <= 1.5 + 1e-4


def test_noise_has_its_standard_deviation(x):
    difference = run(Augment(noise=0.1), x) - x
    assert difference.std() == pytest.approx(0.1, rel=0.03)
    assert abs(float(difference.mean())) < 0.005


def test_same_state_of_the_generator_same_images_and_no_change_in_place(x):
    before = x.clone()
    everything = Augment(True, True, True, 0.1, 10.0, 0.1, 0.1, 0.1)
    first = run(everything, x)
    assert torch.equal(first, run(everything, x))
    assert not torch.equal(first, run(everything, x, seed=1))
    assert first.shape == x.shape
    assert torch.equal(x, before)
    assert run(everything, x[:1, :, :1, :1]).shape == (1, 3, 1, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shift": 1.5}, "shift: 1.5 was given; use a number from 0 to 1"),
        ({"rotate": -1}, "rotate: -1 was given; use a number from 0 to 180"),
        ({"noise": float("nan")}, "noise: nan was given; use a number of at least 0"),
        ({"brightness": float("inf")}, "brightness: inf"),
        ({"contrast": True}, "contrast: True"),
    ],
)
def test_messages(options, message):
    with pytest.raises(InputError, match=message):
        Augment(**options)


def test_rank():
    with pytest.raises(InputError, match=r"x: shape \(3, 8, 8\)"):
        Augment()(torch.zeros(3, 8, 8))
