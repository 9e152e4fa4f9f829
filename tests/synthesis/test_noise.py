"""Noise fields: their spectra, symmetries and seeds."""

from __future__ import annotations

import math

import torch

from genad.synthesis.noise import coarse_gaussian, perlin, simplex_octaves


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_perlin_vanishes_on_its_lattice_and_is_smooth():
    # With 2 cells over 64 px the lattice lies between pixels 31 and 32: values there are close to 0.
    field = perlin(64, 64, torch.tensor([[2, 2]]), generator())[0]
    assert field[31:33, 31:33].abs().max() < 0.07
    assert field.abs().max() > 0.3
    assert (field[1:] - field[:-1]).abs().max() < 0.15


def test_more_cells_mean_finer_noise():
    field = perlin(64, 64, torch.tensor([[2, 2], [4, 4], [16, 16]]), generator(1))
    crossings = ((field[:, 1:] > 0) != (field[:, :-1] > 0)).sum((1, 2)).tolist()
    # Sign changes along a line grow in proportion to the number of cells.
    assert 1.4 < crossings[1] / crossings[0] < 4.0
    assert 2.5 < crossings[2] / crossings[1] < 6.0


def test_perlin_takes_its_own_cells_for_each_axis_and_sample():
    field = perlin(32, 48, torch.tensor([[1, 16], [16, 1]]), generator())
    along = (field[:, 1:] - field[:, :-1]).abs().mean((1, 2))
    across = (field[:, :, 1:] - field[:, :, :-1]).abs().mean((1, 2))
    assert across[0] > 2 * along[0]
    assert along[1] > 2 * across[1]


def test_turning_perlin_turns_its_lattice():
    # 16 cells down and 1 across: fine along rows; turned by a right angle, fine along columns.
    cells = torch.tensor([[16, 1]])
    upright = perlin(32, 32, cells, generator(3))[0]
    turned = perlin(32, 32, cells, generator(3), torch.tensor([math.pi / 2]))[0]
    for field, fine, smooth in ((upright, 0, 1), (turned, 1, 0)):
        step = [(field[1:] - field[:-1]).abs().mean(), (field[:, 1:] - field[:, :-1]).abs().mean()]
        assert step[fine] > 2 * step[smooth]


def test_octaves_are_standardised_and_longer_waves_are_smoother():
    rough, smooth = (simplex_octaves(4, 48, 40, w, generator(2)) for w in (4.0, 32.0))
    for field in (rough, smooth):
        assert field.shape == (4, 48, 40)
        torch.testing.assert_close(field.mean((1, 2)), torch.zeros(4), atol=1e-5, rtol=0)
        torch.testing.assert_close(field.std((1, 2), unbiased=False), torch.ones(4), atol=1e-4, rtol=0)
    roughness = [(f[:, 1:] - f[:, :-1]).square().mean() for f in (rough, smooth)]
    assert roughness[0] > 2 * roughness[1]


def test_low_frequencies_dominate_the_octaves():
    field = simplex_octaves(8, 64, 64, 32.0, generator(4), octaves=5)
    power = torch.fft.rfft2(field).abs().square().mean(0)
    radius = (torch.fft.fftfreq(64)[:, None].square() + torch.fft.rfftfreq(64)[None].square()).sqrt()
    assert power[(radius > 0) & (radius < 0.1)].mean() > 20 * power[radius > 0.3].mean()


def test_samples_of_a_batch_are_different_slices():
    field = simplex_octaves(3, 32, 32, 8.0, generator()).flatten(1)
    correlation = torch.corrcoef(field)
    assert correlation.triu(1).abs().max() < 0.4


def test_coarse_noise_is_coarse_and_moves():
    field = coarse_gaussian((6, 2, 32, 32), 4, generator())
    assert field.shape == (6, 2, 32, 32)
    assert (field[:, :, 1:] - field[:, :, :-1]).abs().mean() < 0.25 * field.std()
    still = coarse_gaussian((1, 1, 32, 32), 4, generator(1), translate=False)
    moved = coarse_gaussian((1, 1, 32, 32), 4, generator(1))
    assert not torch.equal(still, moved)
    torch.testing.assert_close(still.flatten().sort().values, moved.flatten().sort().values)


def test_noise_comes_from_the_generator_alone():
    for draw in (
        lambda g: perlin(9, 11, torch.tensor([[2, 3]]), g),
        lambda g: simplex_octaves(1, 9, 11, 4.0, g),
        lambda g: coarse_gaussian((1, 1, 9, 11), 3, g),
    ):
        torch.manual_seed(0)
        first = draw(generator(5))
        torch.manual_seed(1)
        assert torch.equal(first, draw(generator(5)))
        assert not torch.equal(first, draw(generator(6)))
