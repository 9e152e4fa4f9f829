"""NSA: sizes, places, seams and graded labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genad.errors import InputError
from genad.synthesis.poisson_blend import PoissonBlend, _gamma, intensity_label


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def surfaces(n: int, size: int = 40, seed: int = 0) -> np.ndarray:
    """Make stripes of random direction and phase."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size
    angle, phase = rng.random((2, n, 1, 1, 1)) * 2 * np.pi
    waves = np.sin(20 * (np.cos(angle) * rows + np.sin(angle) * columns) + phase)
    return (0.5 + 0.2 * waves + 0.05 * rng.standard_normal((n, 1, size, size))).clip(0, 1).astype(np.float32)


@pytest.mark.parametrize("shape", [0.5, 2.0])
def test_the_gamma_law_has_its_mean_and_variance(shape):
    drawn = _gamma(shape, (40_000,), generator())
    assert float(drawn.mean()) == pytest.approx(shape, rel=0.03)
    assert float(drawn.var()) == pytest.approx(shape, rel=0.06)
    assert float(drawn.min()) > 0


def test_sides_follow_the_gamma_law_within_their_bounds():
    X = surfaces(6, 64)
    meta = PoissonBlend(patches=1, resize=(1.0, 1.0), least_change=0).fit(X).synthesize(X, 300).meta
    half = np.array([row["first_patch"][2:] for row in meta]) / 2 / 64
    assert half.min() >= 0.03 - 1e-6
    assert half.max() <= 0.4 + 1e-6
    assert half.mean() == pytest.approx(0.03 + 2 * 0.05, rel=0.15)
    assert {row["patches"] for row in meta} == {1}


def test_further_patches_come_with_probability_one_half():
    X = surfaces(6)
    counts = np.bincount([row["patches"] for row in PoissonBlend(patches=3).fit(X).synthesize(X, 200).meta])
    assert counts.shape == (4,)
    assert counts[1] == pytest.approx(100, abs=25)
    assert counts[2] == pytest.approx(50, abs=25)
    assert counts[3] == pytest.approx(50, abs=25)


def test_seams_do_not_show():
    X = surfaces(8)
    made = PoissonBlend(patches=1, mode="normal", least_change=0).fit(X).synthesize(X, 40, random_state=2)
    change = np.abs(made.samples - X[made.sources])[:, 0]
    near = made.masks.copy()
    near[:, 1:-1, 1:-1] &= made.masks[:, :-2, 1:-1] & made.masks[:, 2:, 1:-1]
    near[:, 1:-1, 1:-1] &= made.masks[:, 1:-1, :-2] & made.masks[:, 1:-1, 2:]
    rim = made.masks & ~near
    # Pixels at the rim of a patch are held by the fixed values outside, those in the middle are not.
    assert change[rim].mean() < 0.6 * change[near].mean()


def test_modes_are_chosen_by_whether_there_is_an_object():
    X = surfaces(4)
    assert {row["mode"] for row in PoissonBlend().fit(X).synthesize(X, 8).meta} == {"mixed"}
    objects = 0.05 * X
    objects[:, :, 10:30, 10:30] += 0.8
    fitted = PoissonBlend().fit(objects)
    assert fitted.objects is True
    assert {row["mode"] for row in fitted.synthesize(objects, 8).meta} == {"normal"}
    assert {row["mode"] for row in PoissonBlend(mode="mixed").fit(objects).synthesize(objects, 8).meta} == {"mixed"}


def test_patches_land_on_the_object():
    X = 0.05 * surfaces(6, 48)
    X[:, :, 4:20, 4:20] += 0.3 + 0.6 * surfaces(6, 48, 1)[:, :, :16, :16]
    made = PoissonBlend(patches=1, scale=0.02).fit(X).synthesize(X, 60)
    centres = np.array([row["first_patch"][:2] for row in made.meta])
    assert (centres < 24).all(1).mean() > 0.95


def test_resizing_is_bounded_and_depends_on_objects():
    fitted = PoissonBlend()
    factor = fitted._factor(torch.tensor([True] * 500 + [False] * 500), generator())
    assert factor[:500].min() == pytest.approx(0.7)
    assert factor[:500].max() == pytest.approx(1.3)
    assert factor[500:].min() == pytest.approx(0.5)
    assert factor[500:].max() == pytest.approx(2.0)


def test_an_image_alone_is_its_own_donor():
    X = surfaces(1)
    made = PoissonBlend().synthesize(X, 3)
    assert made.masks.any((1, 2)).all()
    assert not any(row.get("plain_contrast") for row in made.meta)


def test_the_graded_label_follows_the_logistic_curve():
    before = torch.full((1, 3, 16, 16), 0.5)
    after = before.clone()
    after[..., 2:8, 2:8] += 24 / 255
    after[..., 10:15, 10:15] += 0.9 / 255
    after[..., 12, 3] += 0.4
    label = intensity_label(before, after, steepness=1 / 12, middle=24.0)
    assert float(label[0, 0, 4, 4]) == pytest.approx(0.5, abs=1e-3)
    # What stays below a level is cut off, and a lone pixel is lost in the median.
    assert float(label[0, 0, 12, 12]) == 0.0
    assert float(label[0, 0, 12, 3]) == 0.0
    assert label.shape == (1, 1, 16, 16)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"patches": 0}, "patches: 0 was given"),
        ({"most": 0.5}, "most: 0.5 was given"),
        ({"least": 0.45}, "least: 0.45 was given"),
        ({"mode": "soft"}, "mode: 'soft' was given"),
        ({"resize": (0, 1)}, r"resize: \(0, 1\) was given"),
        ({"on_object": 2}, "on_object: 2 was given"),
        ({"shape": 0}, "shape: 0 was given"),
        ({"least_change": 1.0}, "least_change: 1.0 was given"),
    ],
)
def test_parameters_that_cannot_work_are_refused(params, message):
    with pytest.raises(InputError, match=message):
        PoissonBlend(**params).apply(torch.rand(1, 1, 8, 8), generator())
