"""Simplex lesions: area, sign, strength, borders; and coarse noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from genad.errors import InputError
from genad.synthesis.noise_lesions import NoiseLesions


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def organs(n: int, size: int = 48) -> np.ndarray:
    """Make bright discs with some texture on black."""
    rng = np.random.default_rng(0)
    away = np.hypot(*(np.mgrid[:size, :size] - size / 2))
    tissue = 0.6 + 0.5 * ndimage.gaussian_filter(rng.standard_normal((n, 1, size, size)), (0, 0, 3, 3))
    return np.where(away < 0.4 * size, tissue, 0.0).clip(0, 1).astype(np.float32)


def test_lesions_stay_in_the_organ_and_have_their_area():
    X = organs(6)
    made = NoiseLesions(area=(0.05, 0.05), border=(0.01, 0.01)).fit(X).synthesize(X, 30)
    inside = X[0, 0] > 0
    assert not made.masks[:, ~inside].any()
    share = made.masks.sum((1, 2)) / inside.sum()
    assert np.median(share) == pytest.approx(0.05, rel=0.15)


@pytest.mark.parametrize(("sign", "low", "high"), [("bright", 0.0, 1.0), ("dark", -1.0, 0.0)])
def test_the_sign_can_be_chosen(sign, low, high):
    X = organs(4)
    made = NoiseLesions(sign=sign).fit(X).synthesize(X, 10)
    change = made.samples - X[made.sources]
    assert low <= change.min() <= change.max() <= high
    assert {row["sign"] for row in made.meta} == {sign}


def test_both_signs_occur_and_the_shift_is_a_share_of_the_organs_range():
    X = organs(4)
    made = NoiseLesions(shift=(0.5, 0.5)).fit(X).synthesize(X, 40)
    assert {row["sign"] for row in made.meta} == {"bright", "dark"}
    for row, source in zip(made.meta, made.sources, strict=True):
        low, high = np.quantile(X[source][X[source] > 0], [0.05, 0.95])
        assert abs(row["shift"]) == pytest.approx(0.5 * (high - low), rel=0.02)
        assert (row["shift"] > 0) == (row["sign"] == "bright")


def test_borders_are_soft_and_the_middle_has_the_full_shift():
    X = (0.3 + 0.2 * np.random.default_rng(0).random((1, 1, 48, 48))).astype(np.float32)
    made = NoiseLesions(border=(2.0, 2.0), area=(0.08, 0.08), sign="bright").synthesize(X, 5)
    change = (made.samples - X[made.sources])[:, 0]
    for i, row in enumerate(made.meta):
        assert change[i].max() == pytest.approx(row["shift"], rel=1e-3)
        levels = change[i][made.masks[i]] / row["shift"]
        assert ((levels > 0.15) & (levels < 0.85)).mean() > 0.2


def test_focus_gathers_a_lesion_in_one_place():
    X = np.random.default_rng(0).random((4, 1, 48, 48)).astype(np.float32)
    counts = {}
    for focus in (0.0, 1.0):
        made = NoiseLesions(focus=focus, area=(0.06, 0.06)).synthesize(X, 20)
        counts[focus] = np.mean([ndimage.label(mask)[1] for mask in made.masks])
    assert counts[1.0] < 2.5
    assert counts[0.0] > 2 * counts[1.0]


def test_coarse_noise_covers_the_organ_and_nothing_else():
    X = organs(4)
    made = NoiseLesions(variant="coarse", coarse=8, strength=0.2).fit(X).synthesize(X, 8)
    inside = X[0, 0] > 0
    assert not made.masks[:, ~inside].any()
    assert made.masks[:, inside].mean() > 0.9
    change = (made.samples - X[made.sources])[:, 0][:, inside]
    assert 0.08 < change.std() < 0.2


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"variant": "white"}, "variant: 'white' was given"),
        ({"sign": "grey"}, "sign: 'grey' was given"),
        ({"area": (0.0, 0.1)}, r"area: \(0.0, 0.1\) was given"),
        ({"shift": (0.1, 1.5)}, r"shift: \(0.1, 1.5\) was given"),
        ({"octaves": 0}, "octaves: 0 was given"),
        ({"persistence": 0.0}, "persistence: 0.0 was given"),
        ({"wavelength": 0.0}, "wavelength: 0.0 was given"),
        ({"focus": -1}, "focus: -1 was given"),
    ],
)
def test_parameters_that_cannot_work_are_refused(params, message):
    with pytest.raises(InputError, match=message):
        NoiseLesions(**params).apply(torch.rand(1, 1, 8, 8), generator())
