"""Every table-like input ends in the same columns, or in a message that says how to mend it."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse

from genad.data.columns import ColumnKind, from_arrow, from_numpy, number_text
from genad.data.table import Table, as_table
from genad.errors import InputError, InputTypeError

N, C, B, D, E = (
    ColumnKind.NUMERIC,
    ColumnKind.CATEGORICAL,
    ColumnKind.BOOLEAN,
    ColumnKind.DATETIME,
    ColumnKind.EMPTY,
)
NAIVE = [dt.datetime.fromisoformat(f"2024-01-0{day}T03:00:00") for day in (1, 3)]


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ([1, 2], N),
        ([1, None], N),
        (["1", " 2.5", "NaN", ""], N),
        ([Decimal("1.5"), 2], N),
        ([dt.timedelta(seconds=3)], N),
        ([True, False], B),
        ([True, None], B),
        (["true", "False", ""], B),
        (["a", None, "b"], C),
        ([1, "a", 2.0], C),
        (["2024-01-01", None], D),
        (["2024-01-01T10:00:00Z", "2024-01-01T11:00:00Z"], D),
        (["2024-01-01", "last week"], C),
        (["0001-01-01", "2024-01-01"], D),
        ([dt.date(2024, 1, 1), NAIVE[0]], D),
        ([None, float("nan")], E),
        (["", "NaN"], E),
    ],
)
def test_kind_of_cells(cells, kind):
    values = np.empty(len(cells), dtype=object)
    values[:] = cells
    if isinstance(cells[0], dt.timedelta):
        values = values.astype("timedelta64[ms]")
    assert from_numpy(values, "c").kind is kind


def test_values_of_cells():
    assert from_numpy(np.array(["1", "", "3"]), "a").values[[0, 2]].tolist() == [1.0, 3.0]
    assert from_numpy(np.array([b"x", b"y"]), "a").values.tolist() == ["x", "y"]
    flags = from_numpy(np.array([True, None], dtype=object), "a").values
    assert flags[0] == 1.0
    assert np.isnan(flags[1])
    zone = dt.timezone(dt.timedelta(hours=2))
    stamp = np.array([dt.datetime(2024, 1, 1, 2, tzinfo=zone)], dtype=object)
    assert from_numpy(stamp, "a").values[0] == np.datetime64("2024-01-01T00:00")
    mixed = np.array([1, "a", 2.0, True], dtype=object)
    assert from_numpy(mixed, "a").values.tolist() == ["1", "a", "2", "true"]
    assert from_numpy(np.array([1.5, np.nan], dtype=np.longdouble), "a").values.dtype == np.float64
    assert from_numpy(np.array(["NaT"], dtype="M8[s]"), "a").kind is E
    assert number_text(2.5) == "2.5"


def test_arrow_types():
    assert from_arrow(pa.array(["1", "2"]).dictionary_encode(), "a").kind is C
    assert from_arrow(pa.array([1, 2]).dictionary_encode(), "a").values.tolist() == ["1", "2"]
    assert from_arrow(pa.array([dt.time(0, 1)]), "a").values.tolist() == [60.0]
    assert from_arrow(pa.array([dt.timedelta(seconds=2)]), "a").values.tolist() == [2.0]
    assert from_arrow(pa.array([Decimal("1.25")]), "a").values.tolist() == [1.25]
    zoned = pa.array([0], pa.timestamp("s", tz="Europe/Berlin"))
    assert from_arrow(zoned, "a").values[0] == np.datetime64(0, "s")
    with pytest.raises(InputTypeError, match=r"column 'a' has type list.*Drop the column"):
        from_arrow(pa.array([[1]]), "a")


def test_bad_cells():
    with pytest.raises(InputError, match=r"Complex data not supported: column 'x0'"):
        as_table(np.ones((2, 1), dtype=complex))
    cells = np.empty((2, 1), dtype=object)
    cells[:, 0] = [1.0, {"foo": "bar"}]
    with pytest.raises(InputTypeError, match=r"a dict in row 1.*argument must be a string.*number"):
        as_table(cells)
    with pytest.raises(InputTypeError, match="mixes date and str"):
        as_table({"a": [dt.date(2024, 1, 1), "x"]})
    with pytest.raises(InputError, match="too large for a float"):
        as_table({"a": [10**400]})
    with pytest.raises(InputTypeError, match=r"dtype \[\('p'"):
        from_numpy(np.zeros(1, dtype=[("p", float)]), "a")


def test_shapes_and_types():
    with pytest.raises(InputError, match=r"Expected 2D array, got 1D.*Reshape your data with"):
        as_table(np.arange(3.0))
    with pytest.raises(InputError, match=r"got 3D.*X\.reshape\(len\(X\), -1\)"):
        as_table(np.zeros((2, 2, 2)))
    with pytest.raises(InputError, match=r"0 sample\(s\) \(shape=\(0, 2\)\)"):
        as_table(np.zeros((0, 2)))
    with pytest.raises(InputError, match=r"0 feature\(s\) \(shape=\(.*, 0\)\)"):
        as_table(np.zeros((2, 0)))
    with pytest.raises(InputTypeError, match=r"sparse matrix.*X\.toarray\(\)"):
        as_table(scipy.sparse.csr_matrix(np.eye(2)))
    with pytest.raises(InputTypeError, match=r"lazy.*collect"):
        as_table(pl.DataFrame({"a": [1]}).lazy())
    with pytest.raises(InputError, match=r"X is a series.*to_frame"):
        as_table(pd.Series([1.0]))
    with pytest.raises(InputTypeError, match="X is a int; accepted"):
        as_table(3)
    with pytest.raises(InputError, match="rows of X differ in length"):
        as_table([[1, 2], [3]])
    with pytest.raises(InputError, match=r"differ in length \(a: 1, b: 2\)"):
        as_table({"a": [1], "b": [1, 2]})
    with pytest.raises(InputError, match="gives 1 names for 2 columns"):
        as_table(np.zeros((1, 2)), columns=["a"])
    with pytest.raises(InputError, match="more than one column named 'a'"):
        as_table(np.zeros((1, 2)), columns=["a", "a"])
    with pytest.raises(InputError, match="one value per row"):
        as_table({"a": np.zeros((2, 2))})
    with pytest.raises(InputError, match=r"more than one column"):
        as_table(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    with pytest.raises(InputError, match=r"no column named 'z'; the columns are 'a'"):
        as_table({"a": [1]}, columns=["z"])


def test_frames_agree():
    cells = {
        "n": [1.0, None, 3.0],
        "i": [1, 2, 3],
        "s": ["a", None, "b"],
        "b": [True, False, True],
        "d": [NAIVE[0], None, NAIVE[1]],
    }
    made = [pd.DataFrame(cells), pl.DataFrame(cells), pa.table(cells), cells]
    tables = [as_table(x) for x in made]
    for table in tables:
        assert table.kinds == {"n": N, "i": N, "s": C, "b": B, "d": D}
        assert table.column("s").tolist() == ["a", None, "b"]
        np.testing.assert_array_equal(table.column("n"), [1.0, np.nan, 3.0])
        np.testing.assert_array_equal(table.column("d"), tables[1].column("d"))
    assert as_table(pd.DataFrame({3: [1.0]})).names == ["3"]
    assert as_table(pd.DataFrame({"c": pd.Categorical(["1", "2"])})).kinds == {"c": C}
    assert as_table(pd.DataFrame({"o": [1, "a"]}, dtype=object)).kinds == {"o": C}
    assert as_table(pd.DataFrame({"i": pd.array([1, None], dtype="Int64")})).kinds == {"i": N}
    assert as_table(made[0], columns=["i", "n"]).names == ["i", "n"]
    assert as_table([{"a": 1}, {"b": "x"}]).kinds == {"a": N, "b": C}
    records = np.array([(1.0, "x")], dtype=[("u", float), ("v", "U1")])
    assert as_table(records).kinds == {"u": N, "v": C}


def test_table_container():
    X = np.arange(6.0).reshape(3, 2)
    table = as_table(X)
    assert isinstance(table, Table)
    assert as_table(table) is table
    assert np.shares_memory(table.column("x1"), X)
    assert (len(table), table.named) == (3, False)
    assert table.take([2, 0]).column("x0").tolist() == [4.0, 0.0]
    assert table.take(np.array([True, False, False])).matrix.tolist() == [[0.0, 1.0]]
    assert table.head(1).n_rows == 1
    assert table.drop(["x0"]).names == ["x1"]
    assert table.select(["x1", "x0"]).names == ["x1", "x0"]
    mixed = as_table({"a": [1.0, 1.0], "b": ["x", None], "e": [None, None]})
    info = mixed.describe()
    assert (info["a"].constant, info["b"].n_missing, info["e"].constant) == (True, 1, False)
    assert mixed.take([0]).kinds == mixed.kinds
    assert "e: empty" in repr(mixed)
    assert "and 2 more" in repr(as_table(np.zeros((1, 10))))
    for ask in (table.column, lambda n: table.select([n]), lambda n: table.drop([n])):
        with pytest.raises(InputError, match="no column named 'q'"):
            ask("q")
