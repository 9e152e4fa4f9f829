"""Files of every format come back as written, and every fault is named with its mend."""

from __future__ import annotations

import gzip
import io
import json
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import feather, ipc, parquet

from genad.data import writer
from genad.data.columns import ColumnKind
from genad.data.io import read_table, write_table
from genad.errors import DataWarning, GenadError, InputError, InputTypeError

COLUMNS = {
    "flow": np.array([0.1, np.nan, 1e-300, -2.5]),
    "count": np.array([1, 2, 3, 2**53 + 1]),
    "on": np.array([True, False, True, True]),
    "state": np.array(["a, b", None, 'quo"te', "line\nbreak"], dtype=object),
    "when": np.array(["2024-01-01T00:00:01", "NaT", "2024-01-03", "2024-01-04"], dtype="M8[s]"),
}


def put(folder, name, text, encoding="utf-8"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


@pytest.mark.parametrize(
    "ending",
    ["csv", "tsv", "csv.gz", "parquet", "pq", "feather", "arrow", "jsonl", "ndjson", "jsonl.gz"],
)
def test_round_trip(tmp_path, ending):
    path = write_table(COLUMNS, tmp_path / f"t.{ending}")
    assert [p.name for p in tmp_path.iterdir()] == [f"t.{ending}"]
    table = read_table(path)
    assert table.names == list(COLUMNS)
    for name in ("flow", "count", "on", "when"):
        np.testing.assert_array_equal(table.column(name), COLUMNS[name])
    assert table.column("state").tolist() == COLUMNS["state"].tolist()
    assert table.kinds["on"] is ColumnKind.BOOLEAN
    assert table.column("count").dtype == np.int64
    with path.open("rb") as stream:
        kind = {"pq": "parquet", "arrow": "feather", "ndjson": "jsonl"}
        known = ending.removesuffix(".gz")
        assert read_table(stream, format=kind.get(known, known)).names == table.names


def test_a_single_column_keeps_its_missing_cells(tmp_path):
    path = write_table({"a": np.array([1.0, np.nan, 3.0])}, tmp_path / "a.csv")
    np.testing.assert_array_equal(read_table(path).column("a"), [1.0, np.nan, 3.0])


def test_arrays(tmp_path):
    X = np.arange(6.0).reshape(3, 2)
    np.save(tmp_path / "a.npy", X)
    np.savez(tmp_path / "b.npz", X=X, y=np.zeros((3, 2)))
    np.savez(tmp_path / "c.npz", data=X, y=np.zeros(3))
    for name in ("a.npy", "b.npz", "c.npz"):
        assert read_table(tmp_path / name).matrix.tolist() == X.tolist()
    assert read_table(io.BytesIO((tmp_path / "b.npz").read_bytes())).n_rows == 3
    np.savez(tmp_path / "d.npz", u=X, v=X)
    with pytest.raises(InputError, match=r"d\.npz holds u \(3, 2\), v \(3, 2\); accepted .* 'X'"):
        read_table(tmp_path / "d.npz")
    np.save(tmp_path / "e.npy", np.arange(3))
    with pytest.raises(InputError, match=r"e\.npy: the array has shape \(3,\); a table is 2-D"):
        read_table(tmp_path / "e.npy")
    np.save(tmp_path / "f.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"f\.npy cannot be read .*objects are refused"):
        read_table(tmp_path / "f.npy")


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(tmp_path, mark):
    path = put(tmp_path, "a.csv", f"x{mark}y\n1{mark}u v\n2{mark}w\n")
    assert read_table(path).names == ["x", "y"]


def test_dialects(tmp_path):
    table = read_table(put(tmp_path, "a.csv", "\ufeffx; y\n1,5;a\n-2,25;b\n"))
    assert table.names == ["x", "y"]
    assert table.column("x").tolist() == [1.5, -2.25]
    table = read_table(put(tmp_path, "b.csv", "x\ty\n1\t2\n"), format="tsv")
    assert table.column("y").tolist() == [2]
    late = "x,y\n" + "1,2\n" * 400_000 + "0.5,z\n" * 40_000
    table = read_table(put(tmp_path, "late.csv", late))
    assert table.column("x")[-1] == 0.5
    assert table.kinds["y"] is ColumnKind.CATEGORICAL
    table = read_table(put(tmp_path, "l.csv", "x,y\n1,\xe9\n", "latin-1"), encoding="latin-1")
    assert table.column("y").tolist() == ["\xe9"]
    wide = put(tmp_path, "u.csv", "x,y\n1,2\n", "utf-16")
    assert read_table(wide, encoding="utf-16").column("y").tolist() == [2]
    assert read_table(put(tmp_path, "n.csv", "x,s\nNaN,NaN\n1,NA\n")).column("x")[1] == 1.0


@pytest.mark.parametrize(("mark", "sign"), [(",", "."), (";", ",")])
def test_a_few_bad_cells_leave_a_column_of_numbers(tmp_path, mark, sign):
    cells = [f"{i}{sign}5" for i in range(100)]
    cells[7], cells[9], cells[40] = "-", "", "error"
    text = f"temp{mark}on\n" + "".join(f"{cell}{mark}a\n" for cell in cells)
    with pytest.warns(
        DataWarning, match=r"column 'temp' .* 2 of its 99 cells.* as missing: the first is '-' in row 7\."
    ):
        table = read_table(put(tmp_path, "t.csv", text))
    assert table.kinds["temp"] is ColumnKind.NUMERIC
    assert np.flatnonzero(np.isnan(table.column("temp"))).tolist() == [7, 9, 40]
    assert np.nansum(table.column("temp")) == sum(range(100)) + 50 - (7.5 + 9.5 + 40.5)
    # More names than a few: a category.
    few = "temp\n" + "1\n" * 90 + "a\n" * 10
    assert read_table(put(tmp_path, "f.csv", few)).kinds["temp"] is ColumnKind.CATEGORICAL


def test_streams(monkeypatch):
    assert read_table(io.BytesIO(b"a,b\n1,2\n")).names == ["a", "b"]
    assert read_table(io.StringIO('{"a": 1}\n{"a": 2}\n')).column("a").tolist() == [1, 2]
    for data in (b"a;b\n1;2\n", gzip.compress(b"a;b\n1;2\n")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert read_table("-").names == ["a", "b"]
    sink = io.BytesIO()
    parquet.write_table(pa.table({"a": [1]}), sink)
    assert read_table(io.BytesIO(sink.getvalue())).names == ["a"]
    with ipc.new_stream(sink := io.BytesIO(), pa.schema([("a", pa.int64())])) as out:
        out.write_table(pa.table({"a": [7]}))
    assert read_table(io.BytesIO(sink.getvalue()), format="feather").column("a").tolist() == [7]


def test_json_lines_of_mixed_types_and_nan(tmp_path):
    lines = '{"a": 1, "b": NaN}\n\n{"a": "x"}\n{"a": null, "b": 2}\n'
    table = read_table(put(tmp_path, "a.jsonl", lines))
    assert table.column("a").tolist() == ["1", "x", None]
    np.testing.assert_array_equal(table.column("b"), [np.nan, np.nan, 2.0])
    with pytest.raises(InputError, match=r"b\.jsonl: line 2 is not JSON"):
        read_table(put(tmp_path, "b.jsonl", '{"a": 1}\n{"a": \n'))
    with pytest.raises(InputError, match=r"c\.jsonl: line 1 is a JSON list; accepted"):
        read_table(put(tmp_path, "c.jsonl", "[1]\n"))
    with pytest.raises(InputError, match="is empty: give one JSON object"):
        read_table(put(tmp_path, "d.jsonl", "\n\n"))


def test_a_stored_pandas_index_is_no_column(tmp_path):
    pd.DataFrame({"a": [1.0]}, index=["r"]).to_parquet(tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet").names == ["a"]


def test_no_header_is_a_warning(tmp_path):
    with pytest.warns(DataWarning, match=r"h\.csv has no header.*x0 to x1"):
        table = read_table(put(tmp_path, "h.csv", "1,2\n3,4\n"))
    assert table.column("x1").tolist() == [2, 4]
    assert not table.named
    with pytest.warns(DataWarning, match=r"no name at position 0; named 'x0'.*drop it"):
        table = read_table(put(tmp_path, "i.csv", ",a\n0,5\n1,6\n"))
    assert table.names == ["x0", "a"]


@pytest.mark.parametrize(
    ("name", "text", "options", "message"),
    [
        ("e.csv", b"", {}, r"e\.csv is empty: give a file with a header"),
        ("e.csv", b"\n \n", {}, r"e\.csv is empty"),
        ("h.csv", b"a,b\n", {}, r"h\.csv has a header \('a', 'b'\) but no rows"),
        ("h.csv", b"a,b", {}, r"h\.csv has a header \('a', 'b'\) but no rows"),
        ("r.csv", b"a,b\n1,2\n\n1,2,3\n", {}, r"r\.csv: line 4 has 3 fields where 2 are expected"),
        ("r.csv", b"a,b\n1,2\n1\n", {}, r"r\.csv: line 3 has 1 fields where 2 are expected"),
        ("d.csv", b"a;b\n1;2\n", {"delimiter": ","}, r"';' separates .*; pass delimiter=';'"),
        ("d.tsv", b"a,b\n1,2\n", {}, r"looks like ',' separates .*pass delimiter=','"),
        ("d.csv", b"a;b|c\n1;2|3\n", {}, r"each of ';', '\|' could separate"),
        ("d.csv", b"a,b\n1,2\n", {"delimiter": ",,"}, r"delimiter is ',,': give one character"),
        ("u.csv", b"a,b\n1,x\n2,\xe9t\n", {}, r"line 3 is not utf-8 text \(byte 0xe9\).*latin-1"),
        ("u.csv", "a,b\n1,2\n".encode("utf-16"), {}, r"is UTF-16 text: pass encoding='utf-16'"),
        ("u.csv", b"a,b\n", {"encoding": "klingon"}, r"encoding 'klingon' is not known"),
        ("z.csv", b"a,\0\n", {}, r"holds zero bytes and is no text"),
        ("c.csv", b"a,b,a\n1,2,3\n", {}, r"more than one column named 'a': rename"),
        ("x.xlsx", b"zz", {}, r"the ending '\.xlsx' is not known; accepted are '\.csv'"),
        ("x.csv", b"a\n1\n", {"format": "xls"}, r"format is 'xls'; accepted are 'csv', 'tsv'"),
        ("p.parquet", b"PAR1 no", {}, r"p\.parquet cannot be read as .*pass format="),
        ("p.feather", b"ARROW1 no", {}, r"p\.feather cannot be read as"),
        ("p.npy", b"\x93NUMPY", {}, r"p\.npy cannot be read"),
        ("p.npz", b"PK\x03\x04 no", {}, r"p\.npz cannot be read"),
        ("g.csv.gz", gzip.compress(b"a,b\n1,2\n" * 999, mtime=0)[:30], {}, r"g\.csv\.gz cannot be read"),
    ],
)
def test_faults_are_named(tmp_path, name, text, options, message):
    with pytest.raises(InputError, match=message):
        read_table(put(tmp_path, name, text), **options)


def test_a_late_wrong_byte_is_found(tmp_path):
    text = b"a,b\n" + b"1,x\n" * 100_000 + b"1,\xe9\n"
    with pytest.raises(InputError, match="line 100002 is not utf-8"):
        read_table(put(tmp_path, "u.csv", text))


def test_paths(tmp_path):
    put(tmp_path, "flow.csv", "a\n1\n")
    with pytest.raises(InputError, match=r"flow\.tsv does not exist; the folder has flow\.csv"):
        read_table(tmp_path / "flow.tsv")
    with pytest.raises(InputError, match="is a folder: give the path of one file"):
        read_table(str(tmp_path))
    with pytest.raises(InputTypeError, match="from a path or a stream, not from a int"):
        read_table(3)


def test_tables_without_rows_or_with_names_twice(tmp_path):
    parquet.write_table(pa.table({"a": pa.array([], pa.int64())}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet has columns 'a' but no rows"):
        read_table(tmp_path / "a.parquet")
    feather.write_feather(pa.table({}), str(tmp_path / "b.feather"))
    with pytest.raises(InputError, match=r"b\.feather has no columns"):
        read_table(tmp_path / "b.feather")
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    parquet.write_table(twice, tmp_path / "c.parquet")
    with pytest.raises(InputError, match=r"c\.parquet"):
        read_table(tmp_path / "c.parquet")


def test_writing_faults(tmp_path):
    with pytest.raises(InputError, match=r"the ending '\.xls' is not one that can be written"):
        write_table({"a": [1]}, tmp_path / "a.xls")
    with pytest.raises(InputError, match=r"ending '\.parquet\.gz'"):
        write_table({"a": [1]}, tmp_path / "a.parquet.gz")
    with pytest.raises(InputError, match="columns is empty"):
        write_table({}, tmp_path / "a.csv")
    with pytest.raises(InputError, match=r"shapes a \(1,\), b \(2,\)"):
        write_table({"a": [1], "b": [1, 2]}, tmp_path / "a.csv")
    with pytest.raises(InputError, match="values that no table format has"):
        write_table({"a": np.array([1, "x"], dtype=object)}, tmp_path / "a.csv")
    with pytest.raises(GenadError, match=r"a\.csv could not be written .*folder exists"):
        write_table({"a": [1]}, tmp_path / "none" / "a.csv")
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(InputError, match="is a folder: give the path of a file"):
        write_table({"a": [1]}, tmp_path / "d.csv")


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, fault):
    path = write_table({"a": [1]}, tmp_path / "a.csv")

    def fail(table, file, kind):
        file.write(b"half")
        raise fault

    monkeypatch.setattr(writer, "_write", fail)
    kind = GenadError if isinstance(fault, OSError) else KeyboardInterrupt
    message = r"No space left on device.*nothing was left behind" if kind is GenadError else None
    with pytest.raises(kind, match=message):
        write_table({"a": [2]}, path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]
    assert read_table(path).column("a").tolist() == [1]


def test_json_lines_are_plain_json(tmp_path):
    path = write_table(COLUMNS, tmp_path / "a.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows[1]["flow"] is None
    assert rows[0]["state"] == "a, b"
