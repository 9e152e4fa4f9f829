from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

import genad
from genad.applications.logs import is_log_source
from genad.applications.reading import read
from genad.data.kinds import Kind
from genad.data.log import holds_log
from genad.errors import InputError

LINES = [f"2024-01-31 13:00:{i % 60:02d},000 INFO [main] app.Job - read block {i}" for i in range(40)]
MESSAGES = [json.dumps({"ts": i, "level": "INFO", "msg": f"job {i} done"}) for i in range(40)]
ROWS = [json.dumps({"load": float(value), "heat": float(value) ** 2}) for value in np.linspace(-1, 1, 200)]

FILES = {
    "app.log": (LINES, True),
    "app.log.2024-01-31": (LINES, True),
    "syslog": (LINES, True),
    "APP.LOG": (LINES, True),
    "poem.log": (["roses are red", "violets are blue"], True),
    "app.jsonl": (MESSAGES, True),
    "app.ndjson": (MESSAGES, True),
    "rows.jsonl": (ROWS, False),
    "rows.ndjson": (ROWS, False),
    "broken.jsonl": (["{", "}"], False),
    "app.txt": (LINES, True),
    "nohup.out": (LINES, True),
    "poem.txt": (["roses are red", "violets are blue"], False),
    "measured.txt": ([f"2024-01-31 13:00:{i:02d},{i},{2 * i}" for i in range(40)], False),
    "app.csv": (LINES, False),
    "app.log.csv": (LINES, False),
    "app.md": (LINES, False),
}


def put(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_a_log_by_its_name_or_its_lines(name, tmp_path):
    lines, expected = FILES[name]
    path = put(tmp_path / name, lines)
    assert holds_log(path) is holds_log(str(path)) is expected
    # Commands go by the same rule.
    assert is_log_source(path) is expected


def test_packed_files_are_looked_into(tmp_path):
    for name, lines, expected in (("a.jsonl.gz", MESSAGES, True), ("b.jsonl.gz", ROWS, False), ("c.gz", LINES, True)):
        with gzip.open(tmp_path / name, "wt") as file:
            file.write("\n".join(lines) + "\n")
        assert holds_log(tmp_path / name) is expected


def test_what_cannot_be_read_goes_by_its_name(tmp_path):
    assert holds_log("nowhere.log")
    assert not holds_log("nowhere.jsonl")
    assert not holds_log("-")
    (tmp_path / "binary.jsonl").write_bytes(b"\0\1\2" * 500)
    assert not holds_log(tmp_path / "binary.jsonl")


def test_a_detector_and_a_command_read_json_lines_alike(tmp_path):
    rows, messages = put(tmp_path / "rows.jsonl", ROWS), put(tmp_path / "app.jsonl", MESSAGES)
    detector = genad.create("ppca", threshold=genad.Conformal(0.1)).fit(rows)
    assert detector.adapter_.kind is read(rows).kind is Kind.TABLE
    assert detector.adapter_.names == ["load", "heat"]
    assert detector.anomaly_score(rows).shape == (200,)
    with pytest.warns(genad.errors.CalibrationWarning):
        counts = genad.create("ppca").fit(messages)
    assert counts.adapter_.kind is read(messages).kind is Kind.LOG
    with pytest.raises(InputError, match="something else than a log was given; this PPCA was fitted on a log"):
        counts.anomaly_score(rows)
    with pytest.raises(InputError, match="sessions of a log were given; this PPCA was fitted on a table"):
        detector.anomaly_score(messages)
