"""Thresholds by segment: fair to each, shrunk where data are few, valid, and backed off where nothing is known."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from genad.core.calibration import conformal_p_values
from genad.core.calibration.segments import FittedSegments, Segmented
from genad.errors import CalibrationWarning, InputError, InputTypeError


def fleet(n_each: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and machines whose level is 10 times, and whose spread is once, their number from 1 on."""
    rng = np.random.default_rng(seed)
    machine = np.repeat(np.arange(1, len(n_each) + 1), n_each)
    return 10.0 * machine + machine * rng.normal(size=len(machine)), np.array([f"m{k}" for k in machine])


def test_a_rich_segment_is_judged_by_itself_exactly() -> None:
    scores, machine = fleet([1500, 1200, 300])
    fitted = Segmented(alpha=0.01).fit(scores, machine)
    new = np.linspace(5, 30, 40)
    for name in ("m1", "m2"):
        expected = conformal_p_values(scores[machine == name], new)
        np.testing.assert_allclose(fitted.p_values(new, [name] * 40), expected)
    assert [fitted.basis(f"m{k}") for k in (1, 2, 3)] == ["own", "own", "pooled"]


def test_every_machine_gets_its_share_of_flags_where_one_threshold_gives_all_to_one() -> None:
    scores, machine = fleet([800] * 5)
    fitted = Segmented(alpha=0.02).fit(scores, machine)
    new, of = fleet([4000] * 5, seed=1)
    flags = fitted.flag(new, of)
    rates = [flags[of == f"m{k}"].mean() for k in range(1, 6)]
    np.testing.assert_allclose(rates, 0.02, atol=0.015)
    one = np.quantile(scores, 0.98)
    assert (new[of == "m1"] > one).mean() == 0
    assert (new[of == "m5"] > one).mean() > 0.05


def test_poor_segments_keep_the_promise_together() -> None:
    # The mean over many calibrations, for a promise is one on average.
    rates = []
    for seed in range(60):
        scores, machine = fleet([12] * 25, seed)
        fitted = Segmented(alpha=0.05).fit(scores, machine)
        new, of = fleet([12] * 25, seed + 1000)
        rates.append(fitted.flag(new, of).mean())
    assert 0.025 < np.mean(rates) < 0.055


def test_few_scores_are_drawn_towards_the_parent() -> None:
    scores = np.r_[np.tile([-1.0, 1.0], 200), np.full(20, 30.0)]
    segments = np.array(["many"] * 400 + ["few"] * 20)
    drawn = Segmented(alpha=0.1, shrinkage=50).fit(scores, segments).scales["=few"][0]
    free = Segmented(alpha=0.1, shrinkage=0).fit(scores, segments).scales["=few"][0]
    base = Segmented(alpha=0.1, shrinkage=50).fit(scores, segments).scales[""][0]
    assert free == 30.0
    # Half of the twenty scores set the scale.
    assert drawn == pytest.approx((10 * 30.0 + 50 * base) / 60)


def test_unseen_segments_fall_back_to_their_parent_and_then_to_all() -> None:
    scores, machine = fleet([600, 600])
    fitted = Segmented(alpha=0.05).fit(scores, machine, {"m2": "north", "m9": "north"})
    assert fitted.basis("m9") == "parent"
    assert fitted.basis("m7") == "all"
    np.testing.assert_allclose(fitted.standardise([20.0, 15.0], ["m9", "m7"]), 0, atol=0.5)
    assert fitted.threshold("m9") != fitted.threshold("m7")
    assert fitted.scales["^north"][0] == pytest.approx(20, abs=2)
    assert 0 < fitted.p_values([20.0], ["m7"])[0] <= 1


def test_threshold_and_flag_agree() -> None:
    scores, machine = fleet([1500, 80, 50, 70])
    fitted = Segmented(alpha=0.02).fit(scores, machine)
    new, of = fleet([500] * 4, seed=5)
    above = new > np.array([fitted.threshold(name) for name in of])
    np.testing.assert_array_equal(fitted.flag(new, of), above)


def test_too_small_a_pool_warns_and_flags_what_is_above_all_of_it() -> None:
    scores, machine = fleet([10, 10])
    with pytest.warns(CalibrationWarning, match="alpha=0.01 is not attainable with 10"):
        fitted = Segmented(alpha=0.01).fit(scores, machine)
    assert fitted.flag([1e6, 10.0], ["m1", "m1"]).tolist() == [True, False]
    assert "9.09 %" in fitted.promise


def test_segments_sick_from_the_start_stand_out_among_the_others() -> None:
    rng = np.random.default_rng(0)
    segments = np.repeat([f"s{k}" for k in range(12)], 50)
    scores = rng.normal(size=600) + np.where(segments == "s7", 8.0, 0.0)
    fitted = Segmented(alpha=0.05).fit(scores, segments)
    assert list(fitted.unlike()) == ["s7"]
    assert fitted.flag(scores[segments == "s7"], ["s7"] * 50).mean() < 0.5
    assert Segmented(alpha=0.05).fit(scores[:100], segments[:100]).unlike() == {}


def test_a_segment_follows_a_slow_change_and_freezes_on_alarms() -> None:
    rng = np.random.default_rng(0)
    scores, machine = fleet([1500, 1500])
    moving = Segmented(alpha=0.01, half_life=100).fit(scores, machine)
    still = Segmented(alpha=0.01).fit(scores, machine)
    first = FittedSegments.from_dict(moving.to_dict())
    np.testing.assert_array_equal(first.update(11.5, "m1"), still.p_values([11.5], ["m1"])[0])
    path = 10 + np.linspace(0, 4, 3000) + rng.normal(size=3000)
    p = np.array([moving.update(score, "m1") for score in path])
    assert (p <= 0.01).mean() < 0.04
    assert still.flag(path, ["m1"] * 3000).mean() > 0.3
    held = dict(moving.scales)
    for _ in range(200):
        assert moving.update(60.0, "m1") <= 0.01
    assert moving.scales == held
    assert moving.scales["=m2"] == still.scales["=m2"]


def test_following_rests_at_the_median_and_spread() -> None:
    rng = np.random.default_rng(0)
    fitted = Segmented(alpha=0.001, half_life=300, own=1).fit(rng.normal(size=1500), ["a"] * 1500)
    for score in rng.normal(size=4000):
        fitted.update(score, "a")
    assert fitted.scales["=a"] == pytest.approx((0.0, 1.0), abs=0.15)


def test_equal_scores_do_no_harm() -> None:
    fitted = Segmented(alpha=0.1).fit(np.zeros(100), ["a"] * 50 + ["b"] * 50)
    assert fitted.flag([0.0, 1.0], ["a", "b"]).tolist() == [False, True]


def test_saved_and_read_again_it_judges_alike() -> None:
    scores, machine = fleet([1500, 120])
    fitted = Segmented(alpha=0.02).fit(scores, machine, {"m9": "m1"})
    again = FittedSegments.from_dict(json.loads(json.dumps(fitted.to_dict())))
    new, of = fleet([50, 50], seed=3)
    np.testing.assert_array_equal(again.p_values(new, of), fitted.p_values(new, of))
    assert again.to_dict() == fitted.to_dict()
    assert fitted.p_values([], []).shape == (0,)


def test_labels_may_be_numbers() -> None:
    fitted = Segmented(alpha=0.1).fit([1.0, 2.0] * 100, [1, 2] * 100)
    assert fitted.basis(1) == "own"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"alpha": 0}, "alpha must lie in"),
        ({"shrinkage": -1}, "shrinkage must lie in"),
        ({"own": 0}, "own must lie in"),
        ({"share": 1}, "share must lie in"),
        ({"half_life": 0}, "half_life must be at least 1"),
    ],
)
def test_parameters_out_of_range_are_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Segmented(**change)


def test_what_cannot_be_used_is_named() -> None:
    with pytest.raises(InputError, match="one label per score"):
        Segmented().fit([1.0, 2.0], ["a"])
    with pytest.raises(InputError, match="missing labels"):
        Segmented().fit([1.0, 2.0], ["a", None])
    with pytest.raises(InputError, match="infinite"):
        Segmented().fit([1.0, np.inf], ["a", "a"])
    fitted = Segmented(alpha=0.1).fit([1.0, 2.0] * 50, ["a", "b"] * 50)
    with pytest.raises(InputError, match="limit must lie in"):
        fitted.unlike(0)
    with pytest.raises(InputError, match="score must lie in"):
        fitted.update(float("nan"), "a")
    with pytest.raises(InputError, match="the saved form is broken"):
        FittedSegments.from_dict({"rule": "Segmented"})
    with pytest.raises(InputTypeError, match="is read from a dict"):
        FittedSegments.from_dict(3)  # type: ignore[arg-type]


def test_whole_numbers_name_one_segment_however_they_are_kept():
    rng = np.random.default_rng(0)
    machine = np.repeat([1, 2], 300)
    fitted = Segmented(alpha=0.05).fit(rng.normal(size=600) + 50.0 * machine, machine, parents={1.0: 9, 2: 9.0})
    scores = [50.0, 55.0, 100.0, 50.0]
    np.testing.assert_array_equal(fitted.flag(scores, [1.0, 1.0, 2.0, 2.0]), fitted.flag(scores, ["1", "1", "2", "2"]))
    assert fitted.basis(1.0) == fitted.basis(1) == "own"
    assert fitted.threshold(2.0) == fitted.threshold("2")
    fitted.update(50.0, np.float64(1.0))
    assert "=1.0" not in fitted.scales
    assert "^9" in fitted.scales
