from __future__ import annotations

import json

import numpy as np
import pytest

from genad.core.calibration import threshold_from_dict
from genad.core.calibration.dynamic import NonparametricDynamicThreshold
from genad.errors import InputError, InputTypeError

RULE = NonparametricDynamicThreshold(buffer=10)


def noise(n=3000, seed=0):
    return np.abs(np.random.default_rng(seed).normal(size=n)) + 1.0


def test_threshold_is_the_candidate_of_the_largest_drop_per_flag():
    scores = noise(1000)
    scores[300:310] += 10
    scores[700] += 3
    fitted = NonparametricDynamicThreshold(buffer=2).fit(scores)
    mean, std = scores.mean(), scores.std()
    gains = {}
    for z in np.arange(2.5, 12, 0.5):
        above = np.flatnonzero(scores > mean + z * std)
        if not len(above):
            continue
        kept = np.delete(scores, above)
        wide = np.unique(np.concatenate([above + k for k in range(-2, 3)]))
        runs = 1 + int((np.diff(wide) > 1).sum())
        drop = (mean - kept.mean()) / mean + (std - kept.std()) / std
        gains[z] = drop / (runs**2 + len(wide)) if runs <= 5 else -1.0
    best = max(gains.values())
    z = max(z for z, gain in gains.items() if gain == best)
    assert fitted.parameters["deviations"] == z
    assert fitted.value == pytest.approx(mean + z * std)
    assert fitted.flag(scores).sum() == 10
    assert "no false-alarm rate" in fitted.promise


def test_calm_scores_put_the_value_at_twelve_deviations():
    scores = np.tile([1.0, 2.0], 500)
    assert RULE.fit(scores).value == pytest.approx(1.5 + 12 * 0.5)
    assert RULE.fit(np.full(50, 3.0)).value == 3.0
    assert not RULE.flag(np.full(50, 3.0)).any()


def test_more_than_five_sequences_are_refused():
    scores = noise(4000)
    scores[200:3800:300] += 15
    assert RULE.fit(scores).parameters["deviations"] == 12.0


def test_flags_hold_the_anomaly_and_its_neighbours_only():
    scores = noise()
    scores[1000:1020] += 15
    assert np.flatnonzero(RULE.flag(scores)).tolist() == list(range(990, 1030))


def test_a_sequence_at_the_very_end_is_found():
    scores = noise()
    scores[-1] += 15
    flags = RULE.flag(scores)
    assert flags[2989:].all()
    assert not flags[2900:2989].any()


def test_unusually_low_scores_are_flagged():
    scores = noise() + 20
    scores[1000:1005] = 0.0
    flags = RULE.flag(scores)
    assert flags[1000:1005].all()
    assert not RULE.fit(scores).flag(scores)[1000:1005].any()


def test_pruning_drops_what_is_below_the_last_large_step_down():
    scores = np.tile([1.0, 1.2], 500)
    scores[200], scores[600], scores[800] = 20.0, 19.5, 1.25
    keep = NonparametricDynamicThreshold(buffer=0, prune=0.13)
    assert np.flatnonzero(keep.flag(scores)).tolist() == [200, 600]
    # No step is as large as this, so nothing stands out.
    assert not NonparametricDynamicThreshold(buffer=0, prune=0.95).flag(scores).any()


def test_the_window_moves_along_with_the_stream():
    scores = np.concatenate([noise(2000), 30 * noise(2000, seed=1)])
    scores[500:505] += 20
    whole = NonparametricDynamicThreshold(window=4000, buffer=5).flag(scores)
    moving = NonparametricDynamicThreshold(window=600, buffer=5).flag(scores)
    assert moving[500:505].all()
    assert not whole[500:505].any()


def test_beginning_and_least_are_respected():
    scores = noise()
    scores[1000:1020] += 15
    assert not NonparametricDynamicThreshold(ignore=1500).flag(scores).any()
    assert not NonparametricDynamicThreshold(least=50.0).flag(scores).any()
    assert NonparametricDynamicThreshold(least=50.0).fit(scores).value == 50.0


def test_round_trip_through_json():
    saved = json.loads(json.dumps(RULE.to_dict(), allow_nan=False))
    assert threshold_from_dict(saved) == RULE


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"window": 10}, InputError, "window must be at least 30"),
        ({"buffer": -1}, InputError, "buffer must be at least 0"),
        ({"prune": 1.0}, InputError, "prune must lie in"),
        ({"ignore": 0.5}, InputTypeError, "ignore must be a whole number"),
        ({"least": -1.0}, InputError, "least must lie in"),
    ],
)
def test_parameters_are_checked(params, error, message):
    with pytest.raises(error, match=message):
        NonparametricDynamicThreshold(**params)


def test_scores_are_checked():
    with pytest.raises(InputError, match="scores is empty"):
        RULE.flag([])
    with pytest.raises(InputError, match="NaN or infinite"):
        RULE.flag([1.0, np.inf])
    with pytest.raises(InputError, match="NaN"):
        RULE.fit([1.0, np.nan])
