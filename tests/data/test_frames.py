"""Restored columns in the user's dataframe: index, labels and types stay where they hold the values."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from genad import Windowed
from genad.core.calibration import Conformal
from genad.data.frames import like_frame
from genad.density.explicit.ppca import PPCA

RULE = Conformal(alpha=0.1)
START = np.datetime64("2024-01-01T00:00:00")


def mixed(n=200):
    rng = np.random.default_rng(0)
    hours = pd.date_range("2024-01-01", periods=n, freq="h")
    days = [dt.date(2024, 1, 1) + dt.timedelta(days=i) for i in range(n)]
    columns = {
        "offset": hours.tz_localize("UTC").tz_convert(dt.timezone(dt.timedelta(hours=1))),
        "zone": hours.tz_localize("UTC").tz_convert("Europe/Berlin"),
        "arrow": pd.array(hours, dtype=pd.ArrowDtype(pa.timestamp("ms", "UTC"))),
        "plain": hours,
        "day": pd.array(days, dtype=pd.ArrowDtype(pa.date32())),
        "single": rng.normal(size=n).astype(np.float32),
        "nullable": pd.array(rng.normal(size=n), dtype="Float64"),
        "ordered": pd.Categorical(rng.choice(["u", "v"], n), categories=["v", "u", "w"], ordered=True),
        "codes": pd.Categorical(rng.choice([3, 7], n)),
        "on": rng.random(n) < 0.5,
        "known": pd.array(rng.random(n) < 0.5, dtype="boolean"),
        "text": rng.choice(["p", "q"], n),
        "string": pd.array(rng.choice(["p", "q"], n), dtype="string"),
    }
    return pd.DataFrame(columns, index=[f"r{i}" for i in range(n)])


def test_pandas_keeps_index_and_types():
    frame = mixed()
    before = frame.copy(deep=True)
    detector = PPCA(threshold=RULE).fit(frame)
    restored = detector.restore(frame)
    assert restored.index.equals(frame.index)
    pd.testing.assert_series_equal(restored.dtypes, frame.dtypes)
    pd.testing.assert_frame_equal(frame, before)
    assert not (frame["single"] - restored["single"]).isna().any()
    for name in ("offset", "zone", "arrow", "plain"):
        assert (restored[name] - frame[name]).abs().max() < pd.Timedelta(hours=3)
    for name in ("ordered", "codes", "on", "known", "text", "string"):
        assert (restored[name] == frame[name]).mean() > 0.9
    assert set(restored["codes"]) == {3, 7}
    pd.testing.assert_frame_equal(detector.detect(frame).restored, restored)


def test_integers_become_floats_of_their_family():
    frame = pd.DataFrame({
        "whole": np.arange(60), "nullable": pd.array([*range(59), None], dtype="Int64"),
        "arrow": pd.array(range(60), dtype="int64[pyarrow]"), "half": np.arange(60, dtype=np.float16),
    })  # fmt: skip
    restored = PPCA(threshold=RULE).fit(frame).restore(frame)
    assert [str(dtype) for dtype in restored.dtypes] == ["float64", "Float64", "double[pyarrow]", "float16"]
    assert not restored.isna().any(axis=None)


def test_labels_that_are_not_text_stay():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=[5, 6, 7])
    part = frame[frame[5] > 0]
    restored = PPCA(threshold=RULE).fit(frame).restore(part)
    assert restored.columns.tolist() == [5, 6, 7]
    assert restored.index.equals(part.index)


def test_a_series_keeps_index_types_and_time():
    frame = mixed().loc[:, ["zone", "single", "nullable"]]
    restored = Windowed(PPCA(), window=8, threshold=RULE).fit(frame).restore(frame)
    assert restored.index.equals(frame.index)
    pd.testing.assert_series_equal(restored.dtypes, frame.dtypes)
    pd.testing.assert_series_equal(restored["zone"], frame["zone"])
    assert not (frame["single"] - restored["single"]).isna().any()


@pytest.mark.parametrize("form", [lambda frame: frame, lambda frame: frame.to_arrow()])
def test_polars_and_arrow_keep_types(form):
    rng = np.random.default_rng(0)
    hours = pl.Series((START + np.arange(200) * np.timedelta64(3600, "s")).astype("datetime64[us]"))
    tokyo = hours.dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo").cast(pl.Datetime("ms", "Asia/Tokyo"))
    frame = form(pl.DataFrame({
        "when": hours, "day": [dt.date(2024, 1, 1) + dt.timedelta(days=i) for i in range(200)],
        "zone": tokyo,
        "level": pl.Series(rng.choice(["u", "v"], 200)).cast(pl.Categorical),
        "single": rng.normal(size=200).astype(np.float32), "on": rng.random(200) < 0.5,
        "text": rng.choice(["p", "q"], 200), "whole": rng.integers(0, 9, 200),
    }))  # fmt: skip
    detector = PPCA(threshold=RULE).fit(frame)
    restored = detector.restore(frame)
    assert type(restored) is type(frame)
    found, given = (pl.DataFrame(data) for data in (restored, frame))
    assert found.drop("whole").schema == given.drop("whole").schema
    assert found["whole"].dtype == pl.Float64
    assert (found["zone"] - given["zone"]).abs().max() < dt.timedelta(hours=3)
    detector.detect(frame)


def test_a_date_becomes_the_nearest_day():
    given = pl.DataFrame({"day": [dt.date(2024, 1, 1), dt.date(2024, 1, 2)]})
    stamps = START + np.array([-1, 86_401], "timedelta64[s]")
    assert like_frame(given, {"day": stamps}).equals(given)


def test_levels_that_a_type_lacks_are_added():
    levels = np.array(["b", "(other)"], dtype=object)
    made = like_frame(pd.DataFrame({"c": pd.Categorical(["a", "b"], ordered=True)}), {"c": levels})["c"]
    assert made.tolist() == ["b", "(other)"]
    assert made.cat.categories.tolist() == ["a", "b", "(other)"]
    assert made.cat.ordered
    made = like_frame(pl.DataFrame({"c": pl.Series(["a", "b"], dtype=pl.Enum(["a", "b"]))}), {"c": levels})["c"]
    assert made.to_list() == ["b", "(other)"]
    assert made.dtype == pl.Enum(["a", "b", "(other)"])


def test_categories_of_any_kind_are_found_by_their_spelling():
    given = pd.DataFrame({"c": pd.Categorical([dt.date(2024, 1, 1), "x"])})
    made = like_frame(given, {"c": np.array(["x", "2024-01-01"], dtype=object)})["c"]
    assert made.tolist() == ["x", dt.date(2024, 1, 1)]
