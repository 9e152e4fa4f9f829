from __future__ import annotations

import numpy as np
import pytest

from genad.data.log import Log, Sessions, as_sessions, read_log
from genad.data.log.counts import template_counts
from genad.errors import InputError, InputTypeError

TIMES = np.array("2024-01-01T00:00:00", "datetime64[us]") + np.array([0, 5, 70, 75, 400, 380], "timedelta64[s]")


@pytest.fixture
def log():
    messages = [
        "open blk_1",
        "open blk_-2",
        "copy blk_1 to blk_-2",
        "start of the service",
        "close blk_1",
        "close blk_-2",
    ]
    return Log.from_messages(messages, time=TIMES, host=["a", "b", "a", "a", None, "b"])


def words(sessions, i):
    return sessions.texts(i)


def test_by_a_known_id_found_by_itself(log):
    found = log.sessions()
    assert found.names == ["blk_1", "blk_-2"]
    assert words(found, 0) == ["open blk_1", "copy blk_1 to blk_-2", "close blk_1"]
    # A record with two ids is in both sessions.
    assert words(found, 1) == ["open blk_-2", "copy blk_1 to blk_-2", "close blk_-2"]
    assert "sessions by block in the message" in found.notes
    assert "1 of 6 records belong to no session and are left out" in found.notes


def test_records_without_an_id_can_be_sessions_of_their_own_or_an_error(log):
    found = log.sessions("id", pattern="block", missing="own")
    assert found.names == ["blk_1", "blk_-2", "line 4"]
    assert "1 of 6 records belong to no session and are a session each" in found.notes
    with pytest.raises(InputError, match="missing: 1 of 6 records belong to no session"):
        log.sessions("id", missing="error")


def test_by_a_pattern_and_by_a_field(log):
    assert log.sessions(pattern=r"blk_-?(\d)").names == ["1", "2"]
    found = log.sessions(field="host")
    assert [len(found[i]) for i in range(len(found))] == [3, 2]
    assert found.names == ["a", "b"]


def test_by_windows_of_lines_and_of_time(log):
    assert log.sessions(lines=4).lengths.tolist() == [4, 2]
    assert log.sessions(lines=4).names == ["lines 1 to 4", "lines 5 to 6"]
    found = log.sessions(seconds=60)
    assert found.lengths.tolist() == [2, 2, 2]
    assert found.names[1] == "from 2024-01-01T00:01:00.000000"


def test_by_gaps_and_a_clock_set_back_is_none(log):
    assert log.sessions("gap", seconds=60).lengths.tolist() == [2, 2, 2]
    apart = log.sessions("gap", seconds=100, field="host")
    assert apart.lengths.tolist() == [3, 1, 1, 1]


def test_each_line_by_itself(log):
    found = log.sessions("line")
    assert found.lengths.tolist() == [1] * 6
    assert found.names == ["1", "2", "3", "4", "5", "6"]


def test_windows_are_taken_when_nothing_is_known():
    log = Log.from_messages([f"event {i}" for i in range(120)])
    found = log.sessions()
    assert found.lengths.tolist() == [50, 50, 20]
    assert any("sessions are windows of 50 lines; pass by=" in note for note in found.notes)


def test_long_sessions_are_cut_and_said(log):
    found = log.sessions("id", most=2)
    assert found.names == ["blk_1", "blk_1 (part 2)", "blk_-2", "blk_-2 (part 2)"]
    assert found.lengths.tolist() == [2, 1, 2, 1]
    assert "2 sessions of more than 2 events were cut into parts" in found.notes


def test_records_without_a_time_are_in_no_window():
    time = TIMES[:3].copy()
    time[1] = "NaT"
    found = Log.from_messages(["a", "b", "c"], time=time).sessions(seconds=30)
    assert [found.texts(i) for i in range(2)] == [["a"], ["c"]]
    assert "1 of 3 records belong to no session and are left out" in found.notes


def test_hdfs_blocks(data_dir):
    log = read_log(data_dir / "logs" / "hdfs_2k.log")
    found = log.sessions()
    assert len(found) == 2200
    assert all(name in text for name, i in zip(found.names[:50], range(50), strict=True) for text in found.texts(i))


def test_take_and_lines(log):
    found = log.sessions()
    some = found.take([1])
    assert some.names == ["blk_-2"]
    assert some.texts(0) == found.texts(1)
    assert found.take(np.array([False, True])).names == ["blk_-2"]
    values = np.array([[1.0, 5.0, 2.0, 99.0], [3.0, 4.0, 6.0, 99.0]])
    # Record 3 is in both sessions and gets the higher value; record 4 is in none.
    np.testing.assert_array_equal(found.to_lines(values), [1.0, 3.0, 5.0, np.nan, 2.0, 6.0])


def test_sequences_of_numbers_and_names():
    numbers = Sessions.from_sequences([[7, 3], np.array([3], np.int8)], names=["x", "y"])
    assert (numbers.vocabulary, numbers.events.tolist(), numbers.names) == (["3", "7"], [1, 0, 0], ["x", "y"])
    assert numbers.texts(0) == ["7", "3"]
    named = as_sessions([("b", "a"), ["a"]])
    assert (named.vocabulary, named.events.tolist()) == (["b", "a"], [0, 1, 1])
    assert as_sessions(named) is named
    assert len(as_sessions(np.array([[1, 2], [3, 4]]))) == 2
    assert repr(named) == "Sessions(2 of 1 to 2 events, 2 different)"


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ([], InputError, "X: no session was given"),
        ([[1], []], InputError, "X: session 1 has shape"),
        ([[1, -2]], InputError, "X: event -2 was given; use 0 to 16777215"),
        ([[2**30]], InputError, "X: event 1073741824"),
        ([[0.5]], InputTypeError, "X: events of type float64"),
        ([[1], ["a"]], InputTypeError, "of one kind for all"),
        (3, InputTypeError, "X: a int was given; use a log file, a Log, Sessions"),
        (np.zeros((2, 2)), InputTypeError, "X: a ndarray was given"),
    ],
)
def test_what_is_no_session_is_refused(given, error, says):
    with pytest.raises(error, match=says):
        as_sessions(given)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"by": "user"}, "by: 'user' was given; use 'id'"),
        ({"by": "gap"}, "seconds: none was given with by='gap'"),
        ({"by": "gap", "seconds": -1}, "seconds: -1 was given; use a number above 0"),
        ({"by": "line", "lines": 3}, "lines: it was given with by='line', which takes none"),
        ({"by": "id", "seconds": 3}, "seconds: it was given with by='id', which takes pattern and field"),
        ({"lines": 3, "seconds": 3}, "lines: lines and seconds were both given"),
        ({"lines": 0}, "lines: 0 was given"),
        ({"pattern": "("}, r"pattern: '\(' is no regular expression"),
        ({"pattern": "nothing here"}, "pattern: no record belongs to a session"),
        ({"field": "user"}, "field: the log has no column 'user'"),
        ({"missing": "drop"}, "missing: 'drop' was given"),
        ({"most": 0}, "most: 0 was given"),
    ],
)
def test_options_that_cannot_be_used(log, options, says):
    with pytest.raises(InputError, match=says):
        log.sessions(**options)


def test_time_is_needed_for_windows_of_time_and_an_id_for_ids():
    log = Log.from_messages(["a", "b"])
    with pytest.raises(InputError, match="seconds: the log has no time stamps"):
        log.sessions(seconds=3)
    with pytest.raises(InputError, match="pattern: none was given and the messages carry no known id"):
        log.sessions("id")
    with pytest.raises(InputError, match="names: 1 were given for 2 sessions"):
        Sessions.from_sequences([[1], [2]], names=["a"])
    with pytest.raises(InputError, match="the sessions come from no log"):
        Sessions.from_sequences([[1]]).to_lines(np.zeros((1, 1)))


def test_unseen_templates_follow_the_known_ones():
    train = Log.from_messages(["disk full", "fan broken"])
    test = Log.from_messages(["disk full", "new 7 thing here", "new 8 thing here"], miner=train.miner).sessions(lines=3)
    assert test.vocabulary == ["disk full", "fan broken", "new <*> thing here"]
    assert test.events.tolist() == [0, 2, 2]


def test_sessions_can_be_read_by_another_miner():
    train = Log.from_messages(["disk full", "fan broken"])
    other = Log.from_messages(["fan broken", "disk full"]).sessions(lines=2)
    assert other.events.tolist() == [0, 1]
    again = other.matched(train.miner)
    assert again.events.tolist() == [1, 0]
    assert again.matched(train.miner) is again
    with pytest.raises(InputError, match="X: sessions of plain events were given"):
        Sessions.from_sequences([[1]]).matched(train.miner)


def test_counts_of_templates():
    train = Sessions.from_sequences([["a", "b", "a"], ["c"]])
    table = template_counts(train)
    assert table.names == ["a", "b", "c", "unseen events"]
    rows = np.column_stack([table.column(name) for name in table.names])
    np.testing.assert_array_equal(rows, [[2, 1, 0, 0], [0, 0, 1, 0]])
    fresh = template_counts(Sessions.from_sequences([["x", "a", "y"]]), table.names[:-1])
    np.testing.assert_array_equal([fresh.column(name)[0] for name in fresh.names], [1, 0, 0, 2])
