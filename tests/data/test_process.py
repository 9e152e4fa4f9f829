"""Event logs of processes: tables and labelled JSON become traces, in the order of time."""

from __future__ import annotations

import gzip
import json
from collections import Counter

import numpy as np
import pytest

from genad.data.process import as_process, read_process
from genad.errors import InputError


def test_events_of_mixed_cases_come_in_the_order_of_time_and_ties_in_that_of_the_file(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(
        "case:concept:name,concept:name,time:timestamp,org:resource\n"
        "7,pay,2024-01-03T10:00:00,Ada\n"
        "8,order,2024-01-02T10:00:00,Bob\n"
        "7,order,2024-01-01T10:00:00,Ada\n"
        "7,ship,2024-01-03T10:00:00,\n"
    )
    log = read_process(path)
    assert log.sessions.names == ["7", "8"]
    assert log.traces() == [["order", "pay", "ship"], ["order"]]
    assert log.labels is None
    named = read_process(path, attributes=["org:resource"])
    assert named.traces()[0] == ["order (org:resource Ada)", "pay (org:resource Ada)", "ship"]
    assert read_process(path, timestamp="case:concept:name").traces()[0] == ["pay", "order", "ship"]


def test_labels_are_of_the_case():
    columns = {
        "case": ["a", "a", "b", "c", "c"],
        "activity": ["x", "y", "x", "x", "z"],
        "label": ["normal", "normal", "", "normal", "Rework"],
    }
    log = as_process(columns)
    assert log.types == ["normal", "normal", "Rework"]
    assert log.labels.tolist() == [0, 0, 1]
    assert log.take([2]).types == ["Rework"]
    assert log.take(np.array([False, True, True])).traces() == [["x"], ["x", "z"]]
    flags = as_process({"case": ["a", "b"], "activity": ["x", "y"], "label": [0, 1]})
    assert flags.types == ["normal", "anomaly"]


def test_the_public_logs_are_read_whole(data_dir):
    for name, cases, events, activities in (("helpdesk", 4580, 21348, 14), ("receipt", 1434, 8577, 27)):
        log = read_process(data_dir / "process" / f"{name}.parquet")
        assert len(log) == cases
        assert len(log.sessions.events) == events
        assert len(log.sessions.vocabulary) == activities
    first = read_process(data_dir / "process" / "helpdesk.parquet").traces()[0]
    assert first[0] == "Assign seriousness"


def test_the_labelled_log_and_where_its_anomalies_are(data_dir):
    log = read_process(data_dir / "process" / "p2p_labelled.json.gz")
    assert Counter(log.types) == {
        "normal": 4729, "Insert": 43, "Rework": 46, "SkipSequence": 42, "Attribute": 55, "Early": 38, "Late": 47,
    }  # fmt: skip
    assert log.labels.sum() == 271
    for kind, places, trace in zip(log.types, log.places, log.traces(), strict=True):
        if kind == "Insert":
            assert all(trace[i].startswith("Random activity") for i in places)
        assert bool(places) == (kind not in ("normal", "SkipSequence"))
    moved = log.types.index("Late")
    assert [log.traces()[moved][i] for i in log.places[moved]] == ["Create PO", "Release PO"]
    users = read_process(data_dir / "process" / "p2p_labelled.json.gz", attributes=["user"])
    assert users.traces()[0][0] == "Create SC (user Jamika)"


@pytest.mark.parametrize(
    ("columns", "settings", "words"),
    [
        ({"id": ["a"], "activity": ["x"]}, {}, "case: no column has a usual name.*'id', 'activity' by case="),
        ({"case": ["a"], "what": ["x"]}, {}, "activity: no column"),
        ({"case": ["a"], "activity": ["x"]}, {"case": "id"}, "case: there is no column 'id'"),
        ({"case": ["a"], "activity": ["x"]}, {"attributes": ["user"]}, "attributes: there is no column 'user'"),
        ({"case": ["a"], "activity": ["x"]}, {"timestamp": "when"}, "timestamp: there is no column 'when'"),
        ({"case": ["a", None], "activity": ["x", "y"]}, {}, "case: row 1 has none"),
        ({"case": ["a", "a"], "activity": ["x", " "]}, {}, "activity: row 1 has none"),
        ({"case": ["a", "a"], "activity": ["x", "y"], "time": [1.0, np.nan]}, {}, "'time' has rows without a time"),
        ({"case": ["a", "a"], "activity": ["x", "y"], "time": ["9:00", None]}, {}, "row 1 of 'time' has none"),
    ],
)
def test_columns_that_cannot_be_used(columns, settings, words):
    with pytest.raises(InputError, match=words):
        as_process(columns, **settings)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"{", "not whole JSON"),
        (gzip.compress(b'{"cases": []}', mtime=0)[:-9], "not whole JSON"),
        (json.dumps({"events": []}).encode(), "not an event log.*KeyError"),
        (json.dumps({"cases": [{"events": [3]}]}).encode(), "not an event log"),
        (json.dumps({"cases": []}).encode(), "no session was given"),
    ],
)
def test_json_that_is_no_event_log(tmp_path, content, words):
    path = tmp_path / "log.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_process(path)


def test_json_without_labels(tmp_path):
    path = tmp_path / "log.json"
    path.write_text(json.dumps({"cases": [{"events": [{"name": "a"}, {"name": "b"}]}, {"events": []}]}))
    log = read_process(path)
    assert log.traces() == [["a", "b"]]
    assert log.labels is None
