"""What detectors of sessions of events promise beyond the contract of all: places in a session, forms of a log."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest

from genad.core.calibration import Conformal
from genad.core.training import Training
from genad.data.log import Log, Sessions
from genad.errors import InputError, InputTypeError

#: The map of the mean embedding of a session is on the dimensions of that embedding, and it is what is restored.
EMBEDDED = ("line_embedding",)
#: Judges the session as one text and knows no place in it.
PLACELESS = ("unstable_logs",)
#: Calibrates by leaving out each held-out line, also those that come again and again: its p-values are cautious.
CAUTIOUS = ("aesop",)
LONG = ["open file", *["read block", "check block"] * 150, "close file"]


def spoilt(case, n, seed):
    """Return normal sessions with one alien event each, and its places."""
    rng = np.random.default_rng(seed)
    sessions = [list(session) for session in case.normal(n, seed=seed).tolist()]
    places = [int(rng.integers(1, len(session))) for session in sessions]
    for session, place in zip(sessions, places, strict=True):
        session.insert(place, case.anomalous(1).tolist()[0][-1])
    return sessions, places


# ---------------------------------------------------------------------- p-values


def test_p_values_of_fresh_normal_sessions_are_uniform(log_case):
    case, rng = log_case, np.random.default_rng(0)
    smooth, plain = [], []
    for seed in range(3):
        detector = case.fit(case.make(holdout=0.5, random_state=seed), case.normal(500, seed=10 + seed))
        fresh = case.wrap(case.normal(500, seed=20 + seed))
        held, scores = detector.calibration_scores_, detector.anomaly_score(fresh)
        above = (held[:, None] > scores).sum(0)
        equal = (held[:, None] == scores).sum(0) + 1
        np.testing.assert_allclose(detector.p_value(fresh), (above + equal) / (len(held) + 1))
        # Sessions have few different scores; drawing where among its equals one stands makes the level exact.
        smooth.append((above + rng.random(len(scores)) * equal) / (len(held) + 1))
        plain.append(detector.p_value(fresh))
    smooth, plain = np.concatenate(smooth), np.concatenate(plain)
    for level in (0.05, 0.1, 0.25, 0.5):
        # Three calibration sets of 250 are averaged.
        band = 4 * np.sqrt(level * (1 - level) * (1 / 750 + 1 / 1500))
        assert (plain <= level).mean() < level + band
        if case.name not in CAUTIOUS:
            assert abs((smooth <= level).mean() - level) < band


# ---------------------------------------------------------------------- places in a session


def test_maps_have_a_value_for_each_event_and_none_beyond(log_case):
    case = log_case
    X = case.wrap(case.normal(seed=1))
    maps = case.fitted.anomaly_map(X)
    assert np.isfinite(maps).all()
    assert maps.min() >= 0
    lengths = np.array([len(session) for session in X])
    if case.name in EMBEDDED:
        assert maps.shape == (len(X), case.fitted.adapter_.dimensions)
        return
    assert maps.shape == (len(X), lengths.max())
    beyond = np.arange(lengths.max()) >= lengths[:, None]
    assert (maps[beyond] == 0).all()


def test_the_map_points_at_the_alien_event(log_case):
    case = log_case
    if case.name in EMBEDDED + PLACELESS:
        pytest.skip("its map is on something else than events")
    sessions, places = spoilt(case, 60, seed=5)
    maps = case.trained.anomaly_map(sessions)
    found = np.argmax(maps, axis=1)
    # What comes next may be as surprising as the event itself.
    assert np.mean([place <= at <= place + 1 for at, place in zip(found, places, strict=True)]) > 0.9


def test_an_alien_event_raises_the_score(log_case):
    case = log_case
    sessions, _ = spoilt(case, 60, seed=5)
    usual = case.trained.anomaly_score(case.wrap(case.normal(60, seed=5)))
    assert (case.trained.anomaly_score(sessions) > usual).mean() > 0.9


def test_explanations_name_events_as_people_count_them(log_case):
    case = log_case
    sessions, places = spoilt(case, 10, seed=5)
    found = case.trained.detect(sessions)
    if case.name in EMBEDDED:
        assert found.explain(0).parts[0].name.startswith("dimension ")
        return
    named = {part.name: part for part in found.explain(3, parts=1000)}
    for i, event in enumerate(sessions[3], 1):
        assert named[f"event {i}"].observed in (event, "an unseen event")
    assert f"event {places[3] + 1}: {sessions[3][places[3]]}" in str(found.explain(3))


def test_restored_normal_sessions_keep_their_events(log_case):
    case = log_case
    X = case.wrap(case.normal(seed=1))
    restored = case.trained.restore(X)
    assert len(restored) == len(X)
    if case.name in EMBEDDED:
        gap = np.linalg.norm(restored - case.trained.detect(X).restored, axis=1)
        assert gap.max() < 1e-6
        return
    kept = [a == b for one, other in zip(restored, X, strict=True) for a, b in zip(one, other, strict=False)]
    assert np.mean(kept) > 0.9
    assert all(isinstance(event, str) for session in restored for event in session)


# ---------------------------------------------------------------------- independence


def test_a_long_session_beside_changes_no_score(log_case):
    case = log_case
    X = case.wrap(case.normal(40, seed=1))
    alone = case.fitted.anomaly_score(X)
    beside = case.fitted.anomaly_score([*X[:20], LONG, *X[20:]])
    assert np.isfinite(beside[20])
    np.testing.assert_allclose(np.delete(beside, 20), alone, rtol=1e-5, atol=1e-6)


def test_fit_and_score_leave_the_sessions_alone(log_case):
    case = log_case
    X, fresh = case.wrap(case.normal()), case.wrap(case.normal(seed=1))
    kept, kept_fresh = copy.deepcopy((X, fresh))
    case.fit(case.make(), case.normal()).detect(fresh)
    case.make(Training(updates=4)).fit(X)
    assert kept == X
    assert kept_fresh == fresh


# ---------------------------------------------------------------------- forms of a log


def test_numbers_will_do_for_names(log_case):
    case = log_case
    X, fresh = case.wrap(case.normal()), case.wrap(case.normal(seed=1))
    numbers = {name: i for i, name in enumerate(dict.fromkeys(event for session in X + fresh for event in session))}
    coded, later = ([[numbers[event] for event in session] for session in part] for part in (X, fresh))
    detector = case.make().fit(coded)
    found = detector.detect(later)
    assert np.isfinite(found.scores).all()
    assert np.isfinite(found.maps).all()


def test_sessions_and_lists_are_the_same_data(log_case):
    case = log_case
    fresh = case.wrap(case.normal(seed=1))
    expected = case.fitted.anomaly_score(fresh)
    np.testing.assert_array_equal(case.fitted.anomaly_score(Sessions.from_sequences(fresh)), expected)
    np.testing.assert_array_equal(case.fitted.anomaly_score(tuple(map(tuple, fresh))), expected)
    np.testing.assert_array_equal(case.fitted.anomaly_score(case.normal(seed=1)), expected)


def test_a_log_and_its_file_are_the_same_data(log_case, tmp_path):
    case = log_case
    # Lines without ids become sessions by their order, a few of them.
    lines = [event for session in case.normal(120) for event in session]
    make = functools.partial(case.make, Training(updates=4), threshold=Conformal(alpha=0.4))
    path = tmp_path / "app.log"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    one, other = (make().fit(data) for data in (Log.from_messages(lines), path))
    fresh = Log.from_messages([*lines[:60], "fatal error: invalid address, exception in worker", *lines[60:90]])
    np.testing.assert_array_equal(one.anomaly_score(fresh), other.anomaly_score(fresh))
    assert np.isfinite(one.detect(fresh).maps).all()


def test_sessions_of_nothing_but_unseen_events_score_high(log_case):
    case = log_case
    usual = case.trained.anomaly_score(case.wrap(case.normal(seed=1)))
    found = case.trained.detect([["fatal error: exception"], ["fatal error: invalid", "fatal error: warn"] * 3])
    assert np.isfinite(found.maps).all()
    assert (found.scores > np.quantile(usual, 0.9)).all()


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ([], InputError, "X: no session was given; give at least 1"),
        ([["open file"], []], InputError, r"X: session 1 has shape \(0,\); give a sequence of at least 1 event"),
        ([["open file"], "close file"], InputError, r"X: session 1 has shape \(\); give a sequence"),
        (
            [["open file"], [1]],
            InputTypeError,
            "X: events of type object were given; use whole numbers from 0 or names",
        ),
        ([[1.5, 2.0]], InputTypeError, "X: events of type float64 were given"),
        ([[0, -1]], InputError, "X: event -1 was given; use 0 to"),
        (3, InputTypeError, "X: a int was given; use a log file, a Log, Sessions, or a list of sequences"),
        (np.zeros((4, 3)), InputTypeError, "X: a ndarray was given; use a log file"),
    ],
)
def test_what_is_no_session_is_refused(log_case, data, error, message):
    for call in (log_case.make().fit, log_case.fitted.anomaly_score):
        with pytest.raises(error, match=message):
            call(data)


def test_a_mask_has_no_meaning(log_case):
    X = log_case.wrap(log_case.normal(3, seed=1))
    with pytest.raises(InputError, match=r"^mask: "):
        log_case.fitted.restore(X, mask=np.ones((3, 4), bool))


def test_the_promise_names_sessions(log_case):
    detector = log_case.copy()
    detector.threshold = Conformal(alpha=0.2)
    detector.calibrate(log_case.wrap(log_case.normal(seed=2)))
    assert "normal sessions are flagged by mistake" in detector.threshold_.promise
