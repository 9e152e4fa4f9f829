"""Merged p-values stay p-values, whatever the dependence between the detectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from genad import merge_p_values
from genad.core.calibration.merging import MERGERS
from genad.errors import InputError

N = 200_000
LEVELS = (0.01, 0.05, 0.1)


def dependent(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Draw uniform p-values of four detectors that depend on each other in some way."""
    u = rng.random(N)
    if kind == "independent":
        return rng.random((4, N))
    if kind == "identical":
        return np.tile(u, (4, 1))
    if kind == "opposed":
        return np.array([u, 1 - u, u, 1 - u])
    if kind == "shifted":
        return np.array([(u + k / 4) % 1 for k in range(4)])
    # correlated normal scores, as detectors of the same rows have
    from scipy.stats import norm

    common = rng.normal(size=N)
    return norm.sf(0.8 * common + 0.6 * rng.normal(size=(4, N)))


@pytest.mark.parametrize("kind", ["independent", "identical", "opposed", "shifted", "correlated"])
@pytest.mark.parametrize("method", ["average", "bonferroni"])
def test_small_values_are_as_rare_as_promised_under_any_dependence(method: str, kind: str) -> None:
    merged = merge_p_values(dependent(kind, np.random.default_rng(0)), method)
    for level in LEVELS:
        # four standard errors of the simulation above the promise
        assert np.mean(merged <= level) <= level + 4 * np.sqrt(level / N)


@pytest.mark.parametrize("kind", ["independent", "identical", "correlated"])
def test_cauchy_is_nearly_exact_under_usual_dependence(kind: str) -> None:
    merged = merge_p_values(dependent(kind, np.random.default_rng(1)), "cauchy")
    assert np.mean(merged <= 0.01) == pytest.approx(0.01, rel=0.25)


def test_a_plain_mean_would_be_no_p_value() -> None:
    u = np.random.default_rng(2).random(N)
    other = np.where(u < 0.2, 0.2 - u, u)  # uniform too, and small when the first one is not so small
    both = np.array([u, other])
    assert np.mean(both.mean(axis=0) <= 0.1 + 1e-12) == pytest.approx(0.2, abs=0.005)
    assert np.mean(merge_p_values(both) <= 0.2 + 1e-12) <= 0.2 + 4 * np.sqrt(0.2 / N)


def test_cauchy_finds_what_one_detector_is_sure_of_and_average_what_all_suspect() -> None:
    one_sure = [[1e-6], [0.5], [0.5], [0.5]]
    all_suspect = [[0.03], [0.03], [0.03], [0.03]]
    assert merge_p_values(one_sure, "cauchy")[0] == pytest.approx(4e-6, rel=0.01)
    assert merge_p_values(one_sure, "average")[0] > 0.5
    assert merge_p_values(all_suspect, "cauchy")[0] == pytest.approx(0.03)
    assert merge_p_values(all_suspect, "bonferroni")[0] == pytest.approx(0.12)


@given(
    arrays(np.float64, (3, 5), elements=st.floats(0, 1)),
    st.sampled_from(MERGERS),
    st.lists(st.floats(0.1, 10), min_size=3, max_size=3),
)
def test_merging_is_bounded_symmetric_and_monotone(p: np.ndarray, method: str, weights: list[float]) -> None:
    merged = merge_p_values(p, method, weights)
    assert np.all((merged >= 0) & (merged <= 1))
    np.testing.assert_allclose(merge_p_values(p[::-1], method, weights[::-1]), merged, rtol=1e-9, atol=1e-300)
    assert np.all(merge_p_values(p / 2, method, weights) <= merged * (1 + 1e-9) + 1e-15)


@pytest.mark.parametrize("method", MERGERS)
def test_one_detector_keeps_its_p_values(method: str) -> None:
    p = np.array([[1e-12, 0.01, 0.5, 1.0]])
    np.testing.assert_allclose(merge_p_values(p, method), p[0], rtol=1e-9)


@pytest.mark.parametrize(
    ("p", "options", "found"),
    [
        ([0.1, 0.2], {}, r"p: an array of shape \(2,\)"),
        (np.empty((0, 3)), {}, r"p: an array of shape \(0, 3\)"),
        ([[0.1, 1.2]], {}, "1.2"),
        ([[0.1], [np.nan]], {}, "NaN|nan"),
        ([[0.1]], {"method": "fisher"}, "method: 'fisher' was given; use 'average'"),
        ([[0.1], [0.2]], {"weights": [1.0]}, "weights: .* was given for 2 detectors"),
        ([[0.1], [0.2]], {"weights": [1.0, 0.0]}, "give one above 0 for each"),
    ],
)
def test_bad_input_is_named(p: object, options: dict[str, object], found: str) -> None:
    with pytest.raises(InputError, match=found):
        merge_p_values(p, **options)
