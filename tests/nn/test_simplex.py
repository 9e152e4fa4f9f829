from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from genad.errors import InputError
from genad.nn.simplex import SimplexLattice, SimplexNoise, simplex_fields, simplex_wavelengths


def test_the_noise_is_continuous_bounded_and_zero_at_lattice_points():
    lattice = SimplexLattice(np.random.default_rng(0))
    t = np.linspace(0, 10, 50_001, dtype=np.float32)
    line = lattice(t, 0.3 * t + 2, 0.7 * t)
    # across faces of the tetrahedra too: a step of 2e-4 moves the value by its slope alone
    assert np.abs(np.diff(line)).max() < 2e-3
    points = np.random.default_rng(1).uniform(0, 100, (3, 50_000)).astype(np.float32)
    values = lattice(*points)
    assert 0.3 < values.std() < 0.45
    assert np.abs(values).max() <= 1
    # unskewed, every lattice point is a corner, at which all four contributions vanish
    cell = np.array([[3.0], [5.0], [8.0]])
    corner = (cell - cell.sum() / 6).astype(np.float32)
    assert lattice(*corner)[0] == pytest.approx(0, abs=1e-5)


def test_two_generators_give_two_noises():
    points = np.random.default_rng(0).uniform(0, 50, (3, 1000)).astype(np.float32)
    one, again, two = (SimplexLattice(np.random.default_rng(seed))(*points) for seed in (0, 0, 1))
    assert np.array_equal(one, again)
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.1


def test_wavelengths_scale_with_the_image():
    assert simplex_wavelengths((64, 64)) == [16, 8, 4, 2]
    assert simplex_wavelengths((32, 20)) == [8, 4, 2]
    assert simplex_wavelengths((256, 256), octaves=6, wavelength=64) == [64, 32, 16, 8, 4, 2]
    assert simplex_wavelengths((1, 1)) == [2]


def autocorrelation(fields, lag):
    return float((fields[..., :-lag] * fields[..., lag:]).mean() / (fields**2).mean())


def test_noise_is_smooth_where_white_noise_is_not():
    rng = np.random.default_rng(0)
    fields = simplex_fields(60, (64, 64), simplex_wavelengths((64, 64)), 0.8, rng)
    white = rng.normal(size=fields.shape)
    assert abs(autocorrelation(white, 4)) < 0.02
    assert autocorrelation(fields, 4) > 0.15
    assert autocorrelation(fields, 1) > 0.6
    assert abs(autocorrelation(fields, 32)) < 0.1
    # both axes alike
    assert autocorrelation(fields, 2) == pytest.approx(autocorrelation(fields.swapaxes(1, 2), 2), abs=0.05)


def test_fields_have_unit_variance_and_differ():
    fields = simplex_fields(100, (20, 30), [8.0, 4.0], 0.8, np.random.default_rng(0))
    assert fields.shape == (100, 20, 30)
    assert fields.dtype == np.float32
    assert fields.std() == pytest.approx(1, abs=1e-3)
    assert abs(fields.mean()) < 0.05
    correlation = np.corrcoef(fields.reshape(100, -1))
    assert np.abs(correlation - np.eye(100)).max() < 0.8


def test_octaves_weigh_by_persistence():
    flat = simplex_fields(50, (32, 32), [16.0, 2.0], 0.01, np.random.default_rng(0))
    rough = simplex_fields(50, (32, 32), [16.0, 2.0], 5.0, np.random.default_rng(0))
    assert autocorrelation(flat, 1) > 0.9 > 0.5 > autocorrelation(rough, 1)


def test_draws_are_per_sample_and_channel_and_follow_the_generator():
    source = SimplexNoise((3, 16, 24), fields=30)
    one = source.draw(5, torch.Generator().manual_seed(3))
    again = source.draw(5, torch.Generator().manual_seed(3))
    assert one.shape == (5, 3, 16, 24)
    assert torch.equal(one, again)
    flat = one.view(15, -1)
    assert torch.pdist(flat).min() > 5
    many = source.draw(2000, torch.Generator().manual_seed(0))
    assert abs(float(many.mean())) < 0.05
    assert float(many.std()) == pytest.approx(1, abs=0.05)


def test_the_pool_follows_its_seed_and_is_not_saved():
    one, again, two = (SimplexNoise((1, 8, 8), fields=4, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.pool, again.pool)
    assert not torch.equal(one.pool, two.pool)
    assert not one.state_dict()


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 9), (1, 3, 2)])
def test_any_size(shape):
    noise = SimplexNoise(shape, fields=20).draw(6, torch.Generator().manual_seed(0))
    assert noise.shape == (6, *shape)
    assert torch.isfinite(noise).all()


def test_a_pool_takes_about_a_second():
    start = time.process_time()
    SimplexNoise((1, 64, 64), fields=256)
    # 0.8 s on an idle core; point by point in Python it would be minutes
    assert time.process_time() - start < 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"octaves": 0}, "octaves: 0"),
        ({"fields": 0}, "fields: 0"),
        ({"wavelength": 0.0}, "wavelength: 0"),
        ({"persistence": -1.0}, "persistence: -1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        SimplexNoise((1, 8, 8), **arguments)
