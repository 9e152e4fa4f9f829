from __future__ import annotations

import bz2
import gzip
import lzma

import numpy as np
import pyarrow.parquet as pq
import pytest

from genad.data.log import Drain, Log, read_log, stream_log
from genad.errors import InputError, InputTypeError

LINE = "2024-01-31 13:05:{:02d},000 INFO  [main] a.Job - step {} of 9 done"


def write(path, lines, **options):
    path.write_text("\n".join(lines) + "\n", **options)
    return path


@pytest.mark.parametrize(
    ("name", "layout", "column", "truth"),
    [
        ("hdfs", "HDFS", "component", "Component"),
        ("bgl", "BGL", "level", "Level"),
        ("linux", "syslog", "component", "Component"),
        ("apache", "Apache error", "level", "Level"),
        ("zookeeper", "Zookeeper", "level", "Level"),
        ("openstack", "OpenStack", "component", "Component"),
    ],
)
def test_samples_are_read_as_by_hand(data_dir, name, layout, column, truth):
    log = read_log(data_dir / "logs" / f"{name}_2k.log", year=2005)
    table = pq.read_table(data_dir / "logs" / f"{name}_2k.parquet")
    assert (log.layout, len(log)) == (layout, 2000)
    assert [text.split() for text in log.message] == [str(text).split() for text in table["Content"].to_pylist()]
    found = [None if value is None else value.upper() for value in log.column(column)]
    assert np.mean([a == str(b).upper() for a, b in zip(found, table[truth].to_pylist(), strict=True)]) > 0.99
    assert not np.isnat(log.time).any()
    assert log.line.tolist() == list(range(1, 2001))
    assert any(layout in note for note in log.notes)


def test_stack_traces_stay_with_their_message(tmp_path):
    trace = ["java.io.IOException: no", "\tat a.B.c(B.java:1)", "Caused by: x.Y: z", "", ""]
    log = read_log(write(tmp_path / "a.log", [LINE.format(1, 1), *trace, LINE.format(2, 2)]))
    assert log.message.tolist() == ["step 1 of 9 done\n" + "\n".join(trace[:3]), "step 2 of 9 done"]
    assert log.line.tolist() == [1, 7]
    # The trace does not change the template.
    assert log.template.tolist() == [0, 0]
    assert any("3 lines" in note and "kept with the message" in note for note in log.notes)


def test_python_tracebacks_in_plain_text(tmp_path):
    lines = ["all well", "Traceback (most recent call last):", '  File "a.py", line 1', "ValueError: no", "all well"]
    log = read_log(write(tmp_path / "a.txt", lines))
    assert log.message.tolist() == ["\n".join(lines[:4]), "all well"]


@pytest.mark.parametrize(("opener", "suffix"), [(gzip.open, "gz"), (bz2.open, "bz2"), (lzma.open, "xz")])
def test_compressed_files(tmp_path, opener, suffix):
    path = tmp_path / f"a.log.{suffix}"
    with opener(path, "wt") as file:
        file.write("\n".join(LINE.format(i, i) for i in range(5)))
    assert len(read_log(path)) == 5
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(InputError, match=r"path: .*damaged archive|path: .*cannot be read"):
        read_log(path)


def test_parts_are_the_whole(tmp_path):
    path = write(tmp_path / "a.log", [LINE.format(i % 60, i) for i in range(1000)])
    whole, parts = read_log(path), list(stream_log(path, rows=64))
    assert [len(part) for part in parts] == [64] * 15 + [40]
    joined = Log.concat(parts)
    for name, column in whole.columns().items():
        np.testing.assert_array_equal(joined.columns()[name], column, err_msg=name)
    assert sorted(joined.notes) == sorted(whole.notes)


def test_a_long_line_is_cut_and_said(tmp_path):
    path = tmp_path / "a.log"
    path.write_bytes(b"first\n" + b"x" * 10_000_000 + b"\nlast \xc3\xa4\n")
    log = read_log(path)
    assert [len(text) for text in log.message] == [5, 65_536, 6]
    assert log.message[2] == "last ä"
    assert any("1 lines were cut to their first 65,536 bytes, the first of them line 2" in note for note in log.notes)
    short = read_log(path, longest=300)
    assert len(short.message[1]) == 300


def test_a_cut_through_a_character_is_clean(tmp_path):
    path = tmp_path / "a.log"
    path.write_bytes("é".encode() * 400 + b"\nend")
    log = read_log(path, longest=301)
    assert log.message[0] == "é" * 150
    assert not any("valid" in note for note in log.notes)


def test_mixed_encodings(tmp_path):
    path = tmp_path / "a.log"
    path.write_bytes("grün 1\n".encode() + "grün 2\n".encode("cp1252") + b"last\r\n")
    log = read_log(path)
    assert log.message.tolist() == ["grün 1", "grün 2", "last"]
    assert any("1 lines are not valid utf-8" in note and "line 2" in note for note in log.notes)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-16-le", "latin-1"])
def test_other_encodings(tmp_path, encoding):
    path = write(tmp_path / "a.log", ["größe 1", "größe 2"] * 30_000, encoding=encoding)
    given = None if encoding in ("utf-16", "utf-8-sig") else encoding
    log = read_log(path, encoding=given)
    assert len(log) == 60_000
    assert set(log.message) == {"größe 1", "größe 2"}
    assert not any("valid" in note for note in log.notes)


def test_colours_and_line_ends_are_taken_off(tmp_path):
    path = tmp_path / "a.log"
    path.write_bytes(b"\x1b[31merror\x1b[0m here\r\nnext\r\n")
    assert read_log(path).message.tolist() == ["error here", "next"]


def test_binary_files_are_refused(tmp_path):
    path = tmp_path / "a.log"
    path.write_bytes(np.random.default_rng(0).bytes(4096))
    with pytest.raises(InputError, match=r"path: .*a\.log is a binary file.*export the log as text"):
        read_log(path)


def test_a_clock_that_goes_backwards_is_noted_across_parts(tmp_path):
    lines = [LINE.format(second, 1) for second in (1, 2, 3, 1, 4, 0)]
    path = write(tmp_path / "a.log", lines)
    for notes in (read_log(path).notes, Log.concat(list(stream_log(path, rows=3))).notes):
        assert any("the clock goes backwards 2 times, first at line 4" in note for note in notes)
    assert not any("clock" in note for note in read_log(write(path, sorted(lines))).notes)


def test_stamps_without_a_year(tmp_path):
    path = write(tmp_path / "a.log", ["Dec 31 10:00:00 host app[1]: hello", "Jan  1 10:00:00 host app[1]: hello"])
    log = read_log(path)
    assert str(log.time[0])[:4] == "1970"
    assert any("1970 is assumed, pass year=" in note for note in log.notes)
    assert [str(t)[:4] for t in read_log(path, year=2020).time] == ["2020", "2021"]


def test_lines_of_another_layout_are_told(tmp_path):
    lines = [LINE.format(1, 1), LINE.format(2, 2), *[f"note {i}" for i in range(1500)]]
    log = read_log(write(tmp_path / "a.log", lines), layout="log4j")
    # A thousand further lines may belong to a message; those after them stand for themselves.
    assert len(log) == 2 + 500
    assert log.message[-1] == "note 1499"
    assert any("500 lines do not follow the layout" in note for note in log.notes)


def test_unseen_templates_are_marked(tmp_path):
    train = read_log(write(tmp_path / "a.log", [LINE.format(i, i) for i in range(9)]))
    lines = [LINE.format(1, 7), "2024-01-31 13:05:09,000 ERROR [main] a.Job - disk 3 is full"]
    test = read_log(write(tmp_path / "b.log", lines), miner=train.miner)
    assert test.template.tolist() == [0, -1]
    assert test.unseen.tolist() == [False, True]
    assert test.event.tolist() == ["step <*> of <*> done", "disk <*> is full"]
    assert test.parameters.tolist() == [("7", "9"), ("3",)]
    assert len(train.miner) == 1
    assert repr(test) == "Log(2 messages, 1 templates, 1 messages of unseen templates, log4j)"


def test_json_lines(tmp_path):
    lines = ['{"time": 1077804742, "level": "warning", "msg": "a\\nb", "n": 1}', '{"time": 1077804743, "msg": "c"}']
    log = read_log(write(tmp_path / "a.json", lines))
    assert log.message.tolist() == ["a\nb", "c"]
    assert log.level.tolist() == ["WARN", None]
    assert log.fields["n"].tolist() == ["1", None]
    assert str(log.time[1]) == "2004-02-26T14:12:23.000000"


@pytest.mark.parametrize(
    ("content", "options", "says"),
    [
        ("", {}, "is empty"),
        ("\n\n", {}, "blank lines only"),
        ("a\n", {"layout": "xml"}, "layout: 'xml' is not known; use None"),
        ("a\n", {"encoding": "klingon"}, "encoding: 'klingon' is not known"),
        ("a\n", {"longest": 10}, "longest: 10 was given"),
        ("a\n", {"year": 12}, "year: 12 was given"),
        ("a\n", {"rows": 0}, "rows: 0 was given"),
    ],
)
def test_bad_files_and_options_are_refused(tmp_path, content, options, says):
    path = tmp_path / "a.log"
    path.write_text(content)
    with pytest.raises(InputError, match=says):
        read_log(path, **options)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_log(tmp_path / "none.log")
    with pytest.raises(InputError, match="cannot be read"):
        read_log(tmp_path)


def test_messages_in_memory():
    log = Log.from_messages(["a 1", "b"], time=["2024-01-01", "2024-01-02"], host=["x", "y"], shard=["p", "q"])
    assert log.column("shard").tolist() == ["p", "q"]
    assert log.take([1]).host.tolist() == ["y"]
    assert log.take(log.host == "x").message.tolist() == ["a 1"]
    with pytest.raises(InputError, match="field: the log has no column 'pid'; it has line, time"):
        log.column("pid")
    with pytest.raises(InputError, match="host: 1 were given for 2 messages"):
        Log.from_messages(["a", "b"], host=["x"])
    with pytest.raises(InputError, match="messages: none was given"):
        Log.from_messages([])
    with pytest.raises(InputTypeError, match="messages: something else than text"):
        Log.from_messages([1, 2])
    with pytest.raises(InputError, match="different miners"):
        Log.concat([log, log.matched(Drain())])
