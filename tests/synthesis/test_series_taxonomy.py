"""The taxonomy of anomalies in series, kind by kind, and the mistakes of the published code that are not made."""

from __future__ import annotations

import numpy as np
import pytest

from genad.data.series import as_series
from genad.errors import InputError
from genad.synthesis.series_taxonomy import SeriesTaxonomy
from genad.synthesis.spans import place

T = 2000


def sine(noise: float = 0.05, channels: int = 1) -> np.ndarray:
    t = np.arange(T)[:, None]
    wave = 1.5 * np.sin(2 * np.pi * 0.04 * t + np.arange(channels))
    return wave + 1.5 * noise * np.random.default_rng(0).normal(size=(T, channels))


def events(kind: str, X=None, n: int = 20, **params):
    X = sine() if X is None else X
    made = SeriesTaxonomy(kind, **params).synthesize(X, n)
    return X, made, [(event["start"], event["stop"]) for event in made.meta]


def test_global_points_leave_the_range_and_contextual_ones_do_not():
    X, made, where = events("global", n=40)
    at = np.array([start for start, _ in where])
    assert all(stop == start + 1 for start, stop in where)
    assert ((made.samples[at] > X.max()) | (made.samples[at] < X.min())).all()
    X, made, where = events("contextual", n=40)
    at = np.array([start for start, _ in where])
    assert (made.samples[at] <= X.max()).all()
    assert (made.samples[at] >= X.min()).all()
    assert np.median(np.abs(made.samples[at] - X[at])) > 0.5


def test_points_move_by_local_deviations_and_do_not_vanish_where_the_series_crosses_zero():
    X = sine(0.0)
    _, made, where = events("contextual", X, n=60)
    crossing = [start for start, _ in where if abs(X[start, 0]) < 0.3]
    assert len(crossing) > 3
    assert all(abs(made.samples[at, 0] - X[at, 0]) > 0.2 for at in crossing)


def test_the_papers_rule_for_points():
    X = sine(0.0)
    _, made, where = events("global", X, n=60, rule="paper")
    for at, _ in where:
        deviation = X[at - 5 : at + 6, 0].std()
        value = X[at, 0] * 3.5 * deviation
        if X.min() <= value <= X.max():
            value = X.max() if X[at, 0] >= 0 else X.min()
        assert made.samples[at, 0] == pytest.approx(value, abs=1e-6)
    _, made, where = events("contextual", X, n=60, rule="paper")
    at = [start for start, _ in where]
    assert (np.abs(made.samples[at]) <= np.abs(X).max() + 1e-9).all()


def test_a_shapelet_is_a_square_wave_of_the_channels_own_rhythm():
    X, made, where = events("shapelet", sine(0.0), radius=50, n=3)
    assert SeriesTaxonomy().fit(X).frequency_ == pytest.approx([0.04], abs=1e-3)
    for start, stop in where:
        span = made.samples[start:stop, 0]
        assert np.mean(np.abs(np.abs(span) - 1.5 * 0.785) < 0.35) > 0.8  # two levels, hardly anything between
        assert np.std(np.abs(span)) < 0.7 * np.std(np.abs(X[start:stop, 0]))


def test_a_season_runs_at_another_speed():
    X, made, where = events("seasonal", sine(0.0), radius=50, n=3, factor=3.0)

    def speed(x):
        return np.abs(np.fft.rfft(x - x.mean())).argmax()

    for start, stop in where:
        assert speed(X[start:stop, 0]) == 4
        assert speed(made.samples[start:stop, 0]) == 12


def test_repeated_calls_do_not_multiply_the_speed():
    synthesizer = SeriesTaxonomy("seasonal", radius=50).fit(sine(0.0))
    first, again = (synthesizer.synthesize(sine(0.0), 3).samples for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_a_trend_has_its_slope_and_ends_with_its_event():
    X, made, where = events("trend", radius=10, factor=0.5)
    for start, stop in where:
        rise = (made.samples - X)[start:stop, 0] / X.std()
        np.testing.assert_allclose(np.abs(rise), 0.5 * np.arange(20), atol=1e-9)
        assert made.samples[stop, 0] == X[stop, 0]


def test_the_common_faults_of_sensors():
    X, made, where = events("flatline", radius=10)
    assert all(np.ptp(made.samples[a:b]) < 1e-12 < np.ptp(X[a:b]) for a, b in where)
    X, made, where = events("level", factor=2.0)
    assert all(np.allclose(np.abs(made.samples[a:b] - X[a:b]), 2 * X.std()) for a, b in where)
    X, made, where = events("noise", factor=1.0, radius=10)
    moved = np.concatenate([(made.samples - X)[a:b] for a, b in where])
    assert moved.std() == pytest.approx(X.std(), rel=0.15)


def test_ratio_decides_how_many_and_mixed_makes_the_five_kinds():
    X = sine()
    assert len(SeriesTaxonomy("global", ratio=0.02).synthesize(X).meta) == 40
    assert len(SeriesTaxonomy("trend", ratio=0.02, radius=5).synthesize(X).meta) == 4
    made = SeriesTaxonomy(ratio=0.1).synthesize(X, 20)
    assert sorted({event["kind"] for event in made.meta}) == sorted(SeriesTaxonomy.KINDS)


def test_a_share_of_the_channels_is_touched():
    made = SeriesTaxonomy("level", channels=0.5).synthesize(sine(channels=4), 10)
    for event in made.meta:
        assert made.masks[event["start"] : event["stop"]].any(0).sum() == 2
        assert len(event["channels"]) == 2


def test_events_keep_apart_and_off_the_ends():
    found = place(np.array([[0, 300], [300, 340], [340, 700]]), 9, 10, 5, np.random.default_rng(0), asked=True)
    starts = found.starts
    assert len(starts) == 9
    assert (np.diff(starts) >= 15).all()
    for start, first, last in zip(starts, found.first, found.last, strict=True):
        assert first + 20 <= start
        assert start + 10 <= last - 20
    assert not ((starts >= 300) & (starts < 340)).any()


def test_positions_are_uniform_over_the_room_there_is():
    starts = np.concatenate(
        [place(np.array([[0, 1000]]), 3, 5, 5, np.random.default_rng(k), asked=True).starts for k in range(300)]
    )
    assert abs(starts.mean() - 500) < 40
    assert starts.min() < 80
    assert starts.max() > 920


def test_answers_stand_in_the_order_of_the_user():
    values = sine()[:, 0]
    table = {"id": np.tile(["a", "b"], T // 2), "load": values}
    made = SeriesTaxonomy("level").synthesize(as_series(table, entity="id"), 6)
    assert made.samples.values.shape == (T, 1)
    back = np.empty(T)
    back[made.samples.order] = made.samples.values[:, 0]
    np.testing.assert_array_equal(back != values, made.labels == 1)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"kind": "odd"}, "kind: 'odd' was given"),
        ({"ratio": 0.6}, r"ratio: 0.6 was given; use a number in \(0, 0.5\]"),
        ({"radius": 0}, "radius: 0 was given"),
        ({"factor": 0.0}, "factor: 0.0 was given"),
        ({"channels": 1.5}, "channels: 1.5 was given"),
        ({"rule": "none"}, "rule: 'none' was given"),
    ],
)
def test_unusable_parameters_are_refused(params, message):
    with pytest.raises(InputError, match=message):
        SeriesTaxonomy(**params).fit(sine())
