"""Detections on a log: lines, shares, what was expected, words, events and columns."""

from __future__ import annotations

import re

import numpy as np
import pytest

import genad
from genad.core.detections import Detections
from genad.core.log_detections import LogDetections
from genad.data.log import Log, Sessions
from genad.errors import InputError
from genad.foundation.scripted import Scripted


def lines_of(sessions):
    """Messages of interleaved jobs with an id each, and a time a second."""
    left = [list(steps) for steps in sessions]
    found = []
    while any(left):
        for i, steps in enumerate(left):
            if steps:
                found.append(f"{steps.pop(0)} file of job_id={i}x done")
    return found


def log_of(sessions, miner=None, start="2024-01-31T13:00:00"):
    messages = lines_of(sessions)
    time = np.datetime64(start) + np.arange(len(messages)) * np.timedelta64(1, "s")
    log = Log.from_messages(messages, time=time, level=["INFO"] * len(messages), miner=miner)
    return log.sessions(pattern=r"job_id=(\w+)")


USUAL = ["open", "read", "close"]


@pytest.fixture(scope="module")
def learnt():
    return log_of([USUAL, ["open", "read", "read", "close"]] * 300)


@pytest.fixture(scope="module")
def judged(learnt):
    new = [USUAL] * 30
    new[4], new[9], new[10] = ["open", "panic", "close"], ["open", "close", "read"], ["read", "open", "close"]
    new[20] = ["open", *["read"] * 9, "close"]
    return log_of(new, miner=learnt.log.miner)


def answer(name, learnt, judged, **params):
    detector = genad.create(name, random_state=0, **params).fit(learnt)
    return LogDetections.of(detector.detect(judged), judged, detector)


@pytest.fixture(scope="module")
def found(learnt, judged):
    return answer("directly_follows", learnt, judged)


def test_each_line_has_its_number_time_share_and_what_was_expected(found):
    lines = found.lines(4)
    assert [line.line for line in lines] == [5, 35, 65]
    assert str(lines[1].time) == "2024-01-31T13:00:34.000000"
    assert [line.level for line in lines] == ["INFO"] * 3
    assert [line.unseen for line in lines] == [False, True, False]
    assert lines[1].text == "panic file of job_id=4x done"
    assert lines[1].expected == "read file of job_id=<*>x done"
    assert sum(line.share for line in lines) == pytest.approx(1.0)
    assert all(not line.expected for line in found.lines(0))


def test_words_name_what_was_never_learnt_and_what_came_in_whose_place(found):
    assert found.why(4)[0] == (
        "never learnt: 'panic file of job_id=<*>x done' (line 35), where 'read file of job_id=<*>x done' was expected"
    )
    assert any(
        "'close file of job_id=<*>x done' came where 'read file of job_id=<*>x done' was expected" in w
        for w in found.why(9)
    )
    assert found.why(9)[0].startswith("line 40: ")


def test_lines_and_times_of_sessions(found, judged):
    first, last = found.line_numbers()
    begin, end = found.spans()
    assert (first[4], last[4]) == (5, 65)
    assert (begin[4], end[4]) == (judged.log.time[4], judged.log.time[64])
    assert len(found.time) == 30


def test_columns_hold_reasons_for_flagged_sessions(found):
    columns = found.columns()
    assert list(columns) == [
        "session", "first_line", "last_line", "events", "start", "end", "score", "p_value", "is_anomaly", "why",
    ]  # fmt: skip
    assert np.flatnonzero(columns["is_anomaly"]).tolist() == [4, 9, 10]
    assert all(columns["why"][i] for i in (4, 9, 10))
    assert (columns["why"] == "").sum() == 20
    assert columns["session"][4] == "4x"


def test_flagged_sessions_that_begin_one_after_the_other_are_an_event(found):
    events = found.events()
    assert [(event.start, event.stop) for event in events] == [(4, 5), (9, 11)]
    assert events[1].start_time == found.spans()[0][9]
    assert events[1].stop_time == found.spans()[1][9:11].max()
    assert len(found.events(gap=4)) == 1


def test_explanations_go_by_line(found):
    part = found.explain(4, parts=1).parts[0]
    assert part.name == "line 35"
    assert part.observed == "panic file of job_id=4x done"
    assert part.expected == "read file of job_id=<*>x done"
    with pytest.raises(InputError, match="use 0 to 29"):
        found.explain(30)


def test_counts_share_the_score_out_among_the_events_they_count(learnt, judged):
    found = answer("ppca", learnt, judged)
    assert found.why(4)[0].startswith("never learnt: 'panic")
    shares = [line.share for line in found.lines(4)]
    assert int(np.argmax(shares)) == 1
    reads = [line.share for line in found.lines(20)][1:10]
    assert min(reads) == pytest.approx(max(reads))
    assert min(reads) > 0.05
    assert "'read file of job_id=<*>x done' is there 9 times, expected" in " ".join(found.why(20))


def test_the_mean_of_embeddings_tells_no_line(learnt, judged):
    def embed(texts):
        return [[text.count("a"), text.count("e"), text.count("o"), 1.0] for text in texts]

    found = answer("line_embedding", learnt, judged, embedder=embed)
    assert found.event_scores(4) is None
    assert {line.share for line in found.lines(4)} == {0.0}
    assert found.why(4) == ["never learnt: 'panic file of job_id=<*>x done' (line 35)"]


def test_rare_and_missing_events_are_told():
    many = [USUAL] * 599 + [["open", "read"]]
    many[5] = ["open", "read", "close", "archive"]
    sessions = log_of(many)
    found = answer("template_count_pca", sessions, sessions)
    assert "no other session has 'archive file of job_id=<*>x done'" in found.why(5)
    assert "'close file of job_id=<*>x done' is missing, which 599 of 600 sessions have" in found.why(599)
    assert found.why(0) == ["no single line stands out; the session is unusual as a whole"]


def test_a_session_that_breaks_off_is_told_by_its_last_event(learnt):
    cut = log_of([USUAL] * 30 + [["open", "read", "read"]], miner=learnt.log.miner)
    found = answer("directly_follows", learnt, cut)
    assert re.fullmatch(
        r"line \d+: 'read file of \S+ done' after 'read file of \S+ done', with which it ends, has 100% of the score",
        found.why(30)[0],
    )
    assert found.why(30)[1] == "'close file of job_id=<*>x done' is missing, which 30 of 31 sessions have"


def test_reasons_and_states_of_a_language_model():
    def word(prompt, candidate):
        return -1.0 if ("disk failed" in prompt) == (candidate == " abnormal") else -4.0

    sessions = Sessions.from_sequences([["disk ready", "job started"]] * 499 + [["disk ready", "disk failed"]])
    detector = genad.create("log_prompt", llm=Scripted(next_token=word), score_by="log_odds").fit(sessions)
    found = LogDetections.of(detector.detect(sessions), sessions, detector)
    assert found.status == ["ok"] * 500
    assert found.why(499)[0] == "event 2: log-odds 6.00"
    assert "status" in found.columns()
    assert found.line_numbers() is None
    assert found.lines(499)[1].line is None
    assert found.explain(499).parts[0].name == "event 2"


def test_an_answer_without_sessions_says_so(found):
    plain = {name: getattr(found, name) for name in Detections.__dataclass_fields__}
    bare = LogDetections(**plain)
    with pytest.raises(InputError, match="the answer does not hold them"):
        bare.lines(0)
    assert "score" in bare.columns()
