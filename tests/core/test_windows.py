"""Series: windows are folded back into steps exactly, and never reach over a gap."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from genad import Autoencoder, Committee, Ensemble, Training, Windowed, create
from genad.core.calibration import Conformal
from genad.core.registry import Card, Family
from genad.core.windows import SeriesDetector
from genad.data.kinds import Kind
from genad.data.series import as_series
from genad.errors import CalibrationWarning, DataWarning, InputError

CARD = Card(title="t", authors="a", venue="v", year=2026, family=Family.WRAPPER, kinds=(Kind.SERIES,))


@dataclass(eq=False, repr=False)
class Told(SeriesDetector):
    """Scores windows by a rule that can be folded by hand; nothing is trained."""

    rule: str = field(default="constant", kw_only=True)

    card: ClassVar[Card] = CARD
    name: ClassVar[str] = "told"

    def build(self, shape):
        return nn.Linear(1, 1)

    def phases(self, net):
        return []

    def score_batch(self, net, batch):
        if self.rule == "constant":
            return torch.full((len(batch),), 2.5)
        if self.rule == "first":
            return batch.x[:, 0, 0]
        return batch.x[:, :, 0]

    def error_map(self, net, batch):
        return batch.x.square()

    def reconstruct(self, net, batch):
        return batch.x * 0.5


class Last(Told):
    fold = "last"


def told(cls=Told, n=60, window=8, rule="constant", X=None):
    X = np.random.default_rng(0).normal(size=(n, 2)) if X is None else X
    detector = cls(rule=rule, window=window, threshold=Conformal(alpha=0.2)).fit(X)
    return detector, X, detector._ingest(X, reset=False).samples.x.numpy().astype(np.float64)


@pytest.mark.parametrize("cls", [Told, Last])
def test_constant_windows_give_that_constant_at_each_step(cls):
    detector, X, _ = told(cls)
    np.testing.assert_array_equal(detector.anomaly_score(X), 2.5)


def test_the_mean_fold_averages_the_windows_that_hold_a_step():
    detector, X, z = told(rule="first", n=40, window=5)
    expected = [np.mean([z[s, 0] for s in range(max(0, t - 4), min(t, 35) + 1)]) for t in range(40)]
    np.testing.assert_allclose(detector.anomaly_score(X), expected, rtol=1e-6, atol=1e-7)


def test_the_last_fold_takes_the_window_that_ends_at_the_step():
    detector, X, z = told(Last, rule="first", n=40, window=5)
    expected = [z[max(0, t - 4), 0] for t in range(40)]
    np.testing.assert_allclose(detector.anomaly_score(X), expected, rtol=1e-6)


@pytest.mark.parametrize("cls", [Told, Last])
def test_scores_by_step_maps_and_restored_values_come_back_whole(cls):
    detector, X, z = told(cls, rule="step")
    np.testing.assert_allclose(detector.anomaly_score(X), z[:, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(detector.anomaly_map(X), z**2, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(detector.restore(X), X.mean(0) + (X - X.mean(0)) / 2, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cls", [Told, Last])
def test_the_blocks_inside_leave_no_seam(cls, monkeypatch):
    X = np.random.default_rng(1).normal(size=(300, 2))
    one, _, _ = told(cls, rule="first", X=X)
    expected = one.anomaly_score(X)
    monkeypatch.setattr(cls, "_block", lambda self, shape: 16)
    np.testing.assert_allclose(one.anomaly_score(X), expected, rtol=1e-6)


def gapped(n=60, gap=30, seed=0):
    time = np.arange(n, dtype=float)
    time[gap:] += 1000.0
    values = np.random.default_rng(seed).normal(size=(n, 2))
    with pytest.warns(DataWarning, match="gap"):
        return as_series({"time": time, "a": values[:, 0], "b": values[:, 1]}, time="time")


@pytest.mark.parametrize("cls", [Told, Last])
def test_gaps_are_never_straddled(cls):
    series = gapped()
    detector, _, _ = told(cls, X=series, rule="first")
    windows = detector._ingest(series, reset=False).samples
    assert not any(start < 30 < start + 8 for start in windows.starts.tolist())
    # What happens on the far side of a gap does not matter on this side.
    scores = detector.anomaly_score(series)
    moved = series.values.copy()
    moved[30:] = 0.0
    object.__setattr__(series, "values", moved)
    np.testing.assert_array_equal(detector.anomaly_score(series)[:30], scores[:30])


def test_a_stretch_shorter_than_a_window_gets_the_typical_score():
    detector, _X, _ = told(rule="first")
    series = gapped(n=60, gap=55, seed=3)
    with pytest.warns(DataWarning, match=r"5 time steps lie in stretches"):
        found = detector.detect(series)
    np.testing.assert_array_equal(found.scores[55:], np.median(detector.calibration_scores_))
    assert (found.maps[55:] == 0).all()
    np.testing.assert_allclose(
        np.column_stack([found.observed[k][55:] for k in found.names]),
        np.column_stack([found.expected[k][55:] for k in found.names]),
        rtol=1e-5, atol=1e-6,
    )  # fmt: skip


def test_interleaved_entities_come_back_in_the_order_of_the_user():
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(50, 2)), 3 + rng.normal(size=(50, 2))
    mixed = np.empty((100, 2))
    mixed[0::2], mixed[1::2] = one, two
    ids = np.array(["one", "two"] * 50)
    together = as_series({"a": mixed[:, 0], "b": mixed[:, 1], "id": ids}, entity="id", time=False)
    detector, _, _ = told(X=together, rule="first")
    scores = detector.anomaly_score(together)
    alone = [as_series({"a": part[:, 0], "b": part[:, 1]}, time=False) for part in (one, two)]
    np.testing.assert_array_equal(scores[0::2], detector.anomaly_score(alone[0]))
    np.testing.assert_array_equal(scores[1::2], detector.anomaly_score(alone[1]))
    maps = detector.anomaly_map(together)
    np.testing.assert_array_equal(maps[0::2], detector.anomaly_map(alone[0]))
    found = detector.detect(together)
    assert found.entity.tolist() == ["one"] * 50 + ["two"] * 50
    np.testing.assert_array_equal(ids[found.rows], found.entity)
    np.testing.assert_array_equal(found.scores, scores[found.rows])


def test_labels_of_interleaved_entities_follow_their_rows():
    values = np.zeros((80, 1))
    values[1::2] = np.random.default_rng(0).normal(size=(40, 1))
    ids = np.array(["quiet", "loud"] * 40)
    series = as_series({"a": values[:, 0], "id": ids}, entity="id", time=False)
    y = np.zeros(80, int)
    y[0] = 1  # the first step of "quiet"
    detector = Told(window=4, threshold=Conformal(alpha=0.2))
    detector.fit(series, y)
    loaded = detector._ingest(series, reset=False)
    labels = detector._labels(y, loaded)
    assert np.flatnonzero(labels.anomalous).tolist() == [0]
    train, _held = detector._split(loaded.samples, labels)
    assert 0 not in train.starts.tolist()
    assert 1 in train.starts.tolist()


def test_the_part_held_out_is_the_end_and_shares_no_step():
    detector, X, _ = told(n=100)
    loaded = detector._ingest(X, reset=False)
    train, held = detector._split(loaded.samples, detector._labels(None, loaded))
    assert int(train.starts.max()) + 8 <= 80 <= int(held.starts.min())
    assert len(detector.calibration_scores_) == 20


def test_a_short_series_is_calibrated_on_what_it_was_trained_on():
    X = np.random.default_rng(0).normal(size=(12, 2))
    with pytest.warns(CalibrationWarning, match="too few to keep some apart"):
        detector = Told(window=8, threshold=Conformal(alpha=0.2)).fit(X)
    assert len(detector.calibration_scores_) == 10  # three windows lie before the end kept apart


def test_all_windows_labelled_is_refused():
    y = np.zeros(60, int)
    y[::7] = 1
    with pytest.raises(InputError, match="every window of 8 steps holds a labelled anomaly"):
        Told(window=8).fit(np.zeros((60, 1)) + np.arange(60)[:, None], y)


@pytest.mark.parametrize("window", [0, 1, 2.5, "long", -4])
def test_a_wrong_window_is_named(window):
    with pytest.raises(InputError, match=r"^window: "):
        Told(window=window).fit(np.random.default_rng(0).normal(size=(60, 1)))


def test_a_window_longer_than_the_series_is_named():
    with pytest.raises(InputError, match="longest unbroken stretch of the series has 20 steps"):
        Told(window=21).fit(np.random.default_rng(0).normal(size=(20, 1)))


def test_events_merge_runs_and_know_their_place():
    detector, X, _ = told(rule="step", n=100, window=4)
    X = np.zeros((100, 2)) + X.mean(0)
    X[20:25, 0] += 50.0
    X[22, 0] += 10.0
    X[27:29, 0] += 50.0
    found = detector.detect(X)
    assert [(e.start, e.stop, e.length) for e in found.events()] == [(20, 25, 5), (27, 29, 2)]
    (whole,) = found.events(gap=2)
    assert (whole.start, whole.stop) == (20, 29)
    assert found.events()[0].score == found.scores[found.events()[0].peak]


# ---------------------------------------------------------------------- Windowed


def windowed(**params):
    inner = Autoencoder(training=Training(updates=20))
    return Windowed(inner, window=8, threshold=Conformal(alpha=0.1), **params)


def wave(n=300):
    t = np.arange(n) / 5
    return np.c_[np.sin(t), np.cos(t)] + 0.05 * np.random.default_rng(0).normal(size=(n, 2))


def test_windowed_folds_what_its_detector_says_of_each_window():
    X = wave()
    detector = windowed().fit(X)
    windows = detector._ingest(X, reset=False).samples
    batch = windows.batch(torch.arange(len(windows)))
    with torch.inference_mode():
        scores = detector.detector_.score_batch(detector.net_, batch).numpy().astype(float)
    total, count = np.zeros(len(X)), np.zeros(len(X))
    for start, score in enumerate(scores):
        total[start : start + 8] += score
        count[start : start + 8] += 1
    np.testing.assert_allclose(detector.anomaly_score(X), total / count, rtol=1e-5)


def test_spread_by_step_is_the_mean_of_the_map():
    X = wave()
    detector = windowed(spread="step").fit(X)
    np.testing.assert_allclose(detector.anomaly_score(X), detector.anomaly_map(X).mean(1), rtol=1e-5)


def test_spread_by_step_is_sharper():
    X = wave()
    bad = X.copy()
    bad[150] += 4.0
    window, step = windowed().fit(X).anomaly_score(bad), windowed(spread="step").fit(X).anomaly_score(bad)
    assert np.argmax(step) == 150
    near = np.r_[143:150, 151:158]
    assert step[150] / step[near].mean() > window[150] / window[near].mean()


@pytest.mark.parametrize(("params", "message"), [
    ({"detector": None}, "^detector: None"), ({"detector": windowed()}, "^detector: "),
    ({"spread": "day"}, "^spread: 'day'"), ({"detector": Autoencoder(latent=-1)}, "^latent: -1"),
    ({"detector": create("mem_stream")}, "^detector: mem_stream takes table data, not windows"),
    ({"detector": Ensemble(create("meter"))}, "^detector: meter takes table data"),
    ({"detector": Committee((Autoencoder(), create("mem_stream")))}, "^detector: mem_stream takes table data"),
])  # fmt: skip
def test_wrong_parameters_of_windowed_are_named(params, message):
    with pytest.raises(InputError, match=message):
        Windowed(**({"detector": Autoencoder()} | params)).fit(wave())


def test_the_detector_inside_is_left_as_it_was():
    inner = Autoencoder(training=Training(updates=3))
    before = set(vars(inner))
    Windowed(inner, window=8, threshold=Conformal(alpha=0.1)).fit(wave())
    assert set(vars(inner)) == before


def test_a_plain_detector_points_to_windowed():
    with pytest.raises(InputError, match=r"use Windowed\(Autoencoder\(\)\)"):
        Autoencoder().fit(as_series(wave()))


@pytest.mark.parametrize("name", ["nearest_memory", "ppca"])
def test_held_out_windows_are_scored_before_they_are_taken_in(name):
    # Once in the model, a window would find neighbours that share all but one of its steps, and look far too normal.
    def walk(seed):
        noise, values = np.random.default_rng(seed).normal(size=(1700, 2)), np.zeros((1700, 2))
        for t in range(1, len(noise)):
            values[t] = 0.8 * values[t - 1] + noise[t]
        return values[200:]

    shares = [np.mean(Windowed(create(name)).fit(walk(k)).p_value(walk(10 + k)) <= 0.3) for k in range(3)]
    assert 0.05 < np.mean(shares) < 0.6


def test_labelled_steps_set_no_scales():
    t = np.arange(900)
    series, y = np.c_[np.sin(t / 5), np.cos(t / 5)], np.zeros(900, int)
    y[300:340] = 1
    wild = series.copy()
    wild[300:340] *= 1000
    plain, told = (Windowed(create("ppca")).fit(values, y).anomaly_score(series) for values in (series, wild))
    assert plain.tobytes() == told.tobytes()
