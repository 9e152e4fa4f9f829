"""Series: time is found and checked, windows stay within gaps and entities, order comes back."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genad.data.series import Series, as_series
from genad.data.timeaxis import inspect_time
from genad.errors import DataWarning, InputError, InputTypeError

HOURS = np.datetime64("2024-01-01T00", "h") + np.arange(48)


def test_a_regular_axis_gives_no_warning():
    axis = inspect_time(HOURS)
    assert (axis.step, axis.irregular, axis.gaps, axis.n_missing_steps) == (3600.0, False, [], 0)
    assert axis.segments.tolist() == [[0, 48]]
    months = np.arange("2020-01", "2024-01", dtype="M8[M]").astype("M8[D]")
    assert not inspect_time(months).irregular
    assert np.isnan(inspect_time([5.0]).step)


def test_gaps_cut_segments():
    kept = np.delete(HOURS, [10, 11, 30])
    with pytest.warns(DataWarning, match=r"2 gaps \(largest 10800 s, before row 10; 3 steps miss"):
        axis = inspect_time(kept)
    assert axis.gaps == [(10, 10800.0), (28, 7200.0)]
    assert axis.n_missing_steps == 3
    assert axis.segments.tolist() == [[0, 10], [10, 28], [28, 45]]


def test_irregular_sampling_is_told_once():
    rng = np.random.default_rng(0)
    time = np.cumsum(rng.exponential(1.0, 500))
    with pytest.warns(DataWarning, match=r"time is irregular in the series .*Resample"):
        axis = inspect_time(time)
    assert axis.irregular
    assert len(axis.segments) == 1
    business = [d for d in np.arange("2024-01-01", "2024-04-01", dtype="M8[D]") if np.is_busday(d)]
    axis = inspect_time(np.array(business), warn=False)
    assert axis.gaps == []
    assert axis.irregular


@pytest.mark.parametrize(
    ("time", "message"),
    [
        ([0.0, 1.0, 1.0, 2.0], r"time 1\.0 of row 2 is the same as in row 1 \(1 duplicates.*avera"),
        ([3.0, 2.0, 1.0], r"time runs backwards: row 1 is 2\.0, before row 0 .*X\[::-1\]"),
        ([0.0, 2.0, 1.0], r"time steps back in row 2: 1\.0 comes after 2\.0 of row 1\. Sort"),
        ([0.0, np.nan], r"time is missing or infinite in row 1 \(1 rows in all\): drop"),
        (["2024-01-01", "soon"], r"no ISO date, such as '2024-01-01'.*2024-05-31T13:45:00"),
        (np.zeros((2, 2)), r"time has shape \(2, 2\): give one time stamp per row"),
    ],
)
def test_bad_time(time, message):
    with pytest.raises(InputError, match=message):
        inspect_time(time)


def test_time_of_truth_values():
    with pytest.raises(InputTypeError, match="truth values"):
        inspect_time([True, False])


def test_lenient_inspection_counts():
    axis = inspect_time([0, 1, 1, 0, 2], strict=False, warn=False)
    assert (axis.duplicates, axis.descending) == (1, True)


def test_arrays():
    X = np.arange(6, dtype=np.float32).reshape(3, 2)
    series = as_series(X, columns=["a", "b"])
    assert (series.names, series.time, series.entity) == (["a", "b"], None, None)
    assert np.shares_memory(series.values, X)
    assert series.values.dtype == np.float32
    assert series.segments.tolist() == [[0, 3]]
    assert as_series(series) is series
    assert as_series([1, 2, 3]).values.shape == (3, 1)
    assert as_series(np.arange(3)).values.dtype == np.float64
    assert (len(series), series.n_channels) == (3, 2)
    assert "3 steps, 2 channels" in repr(series)
    assert series.to_table().names == ["a", "b"]
    with pytest.raises(InputError, match=r"shape \(2, 2, 2\); a series is \(steps, channels\)"):
        as_series(np.zeros((2, 2, 2)))
    with pytest.raises(InputError, match=r"time has shape \(2,\) for 3 rows"):
        as_series(X, time=[0, 1])
    with pytest.raises(InputError, match=r"entity has shape \(1,\) for 3 rows"):
        as_series(X, entity=["a"])


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, dict])
def test_time_is_found(make):
    dates = as_series(make({"v": np.arange(48.0), "stamp": HOURS.astype("M8[us]")}))
    assert dates.names == ["v"]
    assert dates.time.dtype == "datetime64[ns]"
    numbers = as_series(make({"Time": np.arange(3), "v": np.ones(3)}))
    assert numbers.names == ["v"]
    assert numbers.time.tolist() == [0.0, 1.0, 2.0]
    channel = as_series(make({"t": np.array([2.0, 1.0, 3.0]), "v": np.ones(3)}))
    assert channel.names == ["t", "v"]
    assert channel.time is None
    assert as_series(make({"t": np.arange(3), "v": np.ones(3)}), time=False).names == ["t", "v"]
    picked = as_series(make({"t": np.arange(3), "v": np.ones(3), "w": np.ones(3)}), columns=["w"])
    assert picked.names == ["w"]
    assert picked.time is not None


def test_table_faults():
    two = {"a": HOURS, "b": HOURS, "v": np.ones(48)}
    with pytest.raises(InputError, match=r"2 columns of dates, 'a', 'b'.*time='a'"):
        as_series(two)
    with pytest.raises(InputError, match=r"'b' holds dates .*give it as time='b'"):
        as_series(two, time="a")
    with pytest.raises(InputError, match=r"'s' holds text \('x'\).*entity='s'"):
        as_series({"s": ["x", "y"], "v": [1.0, 2.0]})
    with pytest.raises(InputError, match="no channel beside time"):
        as_series({"t": [0, 1]})
    with pytest.raises(InputError, match="no column named 'q'"):
        as_series({"v": [0, 1]}, time="q")
    with pytest.raises(InputError, match="time column 't': 1 of row 1 is the same as in row 0"):
        as_series({"t": [1, 1], "v": [0.0, 1.0]})
    with pytest.raises(InputError, match="entity column 'e' is missing in row 1"):
        as_series({"e": ["x", None], "v": [0.0, 1.0]}, entity="e")
    old = {"when": ["0001-01-01", "0001-01-02"], "v": [0.0, 1.0]}
    with pytest.raises(InputError, match="outside the years 1678 to 2261"):
        as_series(old)


def test_entities_are_grouped_and_order_comes_back():
    X = {
        "time": [0, 0, 1, 1, 2, 2],
        "id": ["b", "a", "b", "a", "b", "a"],
        "v": [1.0, 10.0, 2.0, 20.0, 3.0, 30.0],
    }
    series = as_series(X, entity="id")
    assert series.values.ravel().tolist() == [1.0, 2.0, 3.0, 10.0, 20.0, 30.0]
    assert series.entity.tolist() == ["b"] * 3 + ["a"] * 3
    assert series.segments.tolist() == [[0, 3], [3, 6]]
    assert series.time.tolist() == [0, 1, 2, 0, 1, 2]
    assert series.restore_order(series.values[:, 0]).tolist() == X["v"]
    assert len(series.axes) == 2
    with pytest.raises(InputError, match="per_row has 2 rows for a series of 6"):
        series.restore_order(np.zeros(2))
    with pytest.raises(InputError, match=r"steps back in row 4: 0 comes after 1 of row 2"):
        as_series({**X, "time": [0, 0, 1, 1, 0, 2]}, entity="id", time="time")
    with pytest.raises(InputError, match=r"entity= with the column"):
        as_series(X, time="time", columns=["v"])


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_any_interleaving_is_recovered(entity):
    values = np.arange(len(entity), dtype=float)
    series = as_series(values, entity=np.array(entity))
    np.testing.assert_array_equal(series.restore_order(series.values[:, 0]), values)
    for start, stop in series.segments:
        assert len(set(series.entity[start:stop])) == 1
        assert (np.diff(series.order[start:stop]) > 0).all()
    assert len(series.segments) == len(set(entity))


def test_gaps_of_entities_are_one_warning():
    time = np.tile(np.r_[0:20, 25:40], 2)
    with pytest.warns(DataWarning, match=r"2 gaps in 2 series \(largest 6 units of time;") as found:
        series = as_series(np.arange(70.0), time=time, entity=np.repeat([1, 2], 35))
    assert len(found) == 1
    assert series.segments.tolist() == [[0, 20], [20, 35], [35, 55], [55, 70]]


def test_a_path_is_read(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("date,v\n2024-01-01,1\n2024-01-02,2\n")
    assert as_series(path).values.ravel().tolist() == [1.0, 2.0]
    assert isinstance(as_series(str(path)), Series)


def test_answers_in_the_kind_that_came_in():
    line = as_series(np.arange(3, dtype=np.float32))
    back = line.like_original({"x0": np.array([5.0, 6.0, 7.0])})
    assert (back.shape, back.dtype, back.tolist()) == ((3,), np.float32, [5.0, 6.0, 7.0])
    cells = {"id": ["b", "a", "b"], "v": [1.0, 10.0, 2.0]}
    for library in (pd, pl):
        series = as_series(library.DataFrame(cells), entity="id")
        made = series.like_original({"v": np.array([1.0, 2.0, 10.0]) + 1})
        assert isinstance(made, library.DataFrame)
        assert list(made["v"]) == [2.0, 11.0, 3.0]
        assert list(made["id"]) == cells["id"]
    table = as_series(cells, entity="id").like_original({"v": np.zeros(3)})
    assert table.column("v").tolist() == [0.0] * 3
    with pytest.raises(InputError, match="2 entries for 1 channels"):
        line.like_original({"a": np.zeros(3), "b": np.zeros(3)})


def test_taken_rows_leave_gaps_and_keep_their_entities():
    given = {"v": np.arange(10.0), "id": list("aabbababab")}
    series = as_series(given, entity="id", time=False)
    taken = series.take(np.setdiff1d(np.arange(10), [1, 7]))
    assert taken.values.ravel().tolist() == [0.0, 4.0, 6.0, 8.0, 2.0, 3.0, 5.0, 9.0]
    assert taken.entity.tolist() == ["a"] * 4 + ["b"] * 4
    assert taken.restore_order(taken.values.ravel()).tolist() == [0.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 9.0]
    whole = as_series(np.arange(6.0)).take(np.array([5, 0, 1, 3]))
    assert whole.segments.tolist() == [[0, 2], [2, 3], [3, 4]]
    assert as_series(np.arange(6.0)).take(np.arange(6)).segments.tolist() == [[0, 6]]


def test_the_dates_of_an_index_are_time():
    days = pd.date_range("2024-01-01", periods=4, freq="D")
    for index in (days, days.to_period("D"), days.tz_localize("UTC")):
        series = as_series(pd.DataFrame({"load": [1.0, 2, 3, 4]}, index=index))
        np.testing.assert_array_equal(series.time, days.to_numpy())
    # A column of dates comes first, and False takes no time.
    frame = pd.DataFrame({"day": days, "load": [1.0, 2, 3, 4]}, index=days + pd.Timedelta("1h"))
    np.testing.assert_array_equal(as_series(frame).time, days.to_numpy())
    assert as_series(frame[["load"]], time=False).time is None
    with pytest.raises(InputError, match=r"^time"):
        as_series(frame[["load"]][::-1])
