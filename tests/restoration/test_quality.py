"""A good restoration is faithful outside of the defect and normal inside it."""

from __future__ import annotations

import numpy as np
import pytest

import genad
from genad.core.registry import registered
from genad.errors import InputError
from genad.restoration.quality import Restorer, restoration_quality


@pytest.fixture
def planted():
    """Smooth images, the same with a bright square, and the squares."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, 12)[:, None] * np.ones(12)
    truth = (ramp + 0.02 * rng.normal(size=(80, 12, 12)))[:, None]
    mask = np.zeros((80, 12, 12), bool)
    mask[:, 4:8, 4:8] = True
    return truth, np.where(mask[:, None], 1.5, truth), mask


def test_every_detector_is_a_restorer():
    assert all(issubclass(cls, Restorer) for cls in registered().values())


def test_perfect_and_idle_restorations(planted):
    truth, before, mask = planted
    perfect = restoration_quality(before, truth, mask, truth=truth)
    assert (perfect.fidelity, perfect.error, perfect.normality) == (0.0, 0.0, None)
    idle = restoration_quality(before, before, mask, truth=truth)
    assert (idle.fidelity, idle.error) == (0.0, 1.0)


def test_changes_outside_cost_fidelity_and_nothing_else(planted):
    truth, before, mask = planted
    span = before.max() - before.min()
    shifted = np.where(mask[:, None], truth, before + 0.1)
    found = restoration_quality(before, shifted, mask, truth=truth)
    assert found.fidelity == pytest.approx(0.1 / span)
    assert found.error == 0.0


def test_a_judge_tells_normal_from_abnormal_insides(planted):
    truth, before, mask = planted
    judge = genad.Autoencoder(
        latent=2, training=genad.Training(updates=150), threshold=genad.Conformal(0.1), holdout=0.4
    ).fit(truth)
    good = restoration_quality(before, truth, mask, judge=judge, pixel_alpha=0.05).normality
    bad = restoration_quality(before, before, mask, judge=judge, pixel_alpha=0.05).normality
    assert good > 0.8
    assert bad < 0.2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda b, r, m: (b, r[:3], m), "restored: shape"),
        (lambda b, r, m: (b, r, m.astype(int)), "mask: int64"),
        (lambda b, r, m: (b, r, m[:, :3]), "mask: bool of shape"),
        (lambda b, r, m: (b, r, np.zeros_like(m)), "none of the pixels"),
        (lambda b, r, m: (b, r, np.ones_like(m)), "all of the pixels"),
    ],
)
def test_what_does_not_fit_is_named(planted, change, said):
    truth, before, mask = planted
    with pytest.raises(InputError, match=said):
        restoration_quality(*change(before, truth, mask))
