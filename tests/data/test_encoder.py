"""The encoder: moments, categories, dates, masks, memory, and the way back."""

from __future__ import annotations

import json
import tracemalloc
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import genad
from genad.data.coding import OTHER
from genad.data.encoder import TableEncoder
from genad.data.table import as_table
from genad.errors import DataWarning, InputError


def mixed(n: int = 200, seed: int = 0) -> dict[str, list]:
    rng = np.random.default_rng(seed)
    start = np.datetime64("2024-01-01T00:00:00")
    flow = rng.normal(5.0, 3.0, n)
    return {
        "flow": [None if i % 10 == 3 else float(v) for i, v in enumerate(flow)],
        "state": [None if i % 17 == 5 else "abc"[v] for i, v in enumerate(rng.integers(0, 3, n))],
        "open": [bool(v) for v in rng.integers(0, 2, n)],
        "when": [(start + np.timedelta64(int(h), "h")).astype(object) for h in range(n)],
        "count": [int(v) for v in rng.integers(0, 9, n)],
    }


def test_moments_are_those_of_the_observed_cells():
    rng = np.random.default_rng(0)
    X = rng.normal(1e6, 2.0, (20_000, 15))
    X[rng.random(X.shape) < 0.1] = np.nan
    encoder = TableEncoder().fit(X)
    x, mask = encoder.transform(X)
    assert x.dtype == np.float32
    assert x.flags.c_contiguous
    np.testing.assert_array_equal(mask, ~np.isnan(X))
    assert (x[~mask] == 0).all()
    np.testing.assert_allclose([c.mean for c in encoder.codes], np.nanmean(X, 0), rtol=1e-12)
    np.testing.assert_allclose([c.scale for c in encoder.codes], np.nanstd(X, 0), rtol=1e-9)
    assert encoder.scale_of("x0") == encoder.codes[0].scale


@settings(deadline=None, max_examples=50, derandomize=True)
@given(arrays(np.float64, (7, 3), elements=st.floats(-1e6, 1e6, width=32)))
def test_numeric_round_trip(X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        encoder = TableEncoder().fit(X)
    x, mask = encoder.transform_array(X)
    assert mask is None
    back = encoder.inverse_numeric(x)
    spread = np.array([encoder.scale_of(n) for n in encoder.feature_names])
    assert (np.abs(back - X) <= 1e-6 * (np.abs(X - X.mean(0)) + np.abs(X) + spread)).all()
    np.testing.assert_array_equal(np.stack(list(encoder.inverse(x).values()), 1), back)


def test_mixed_columns_and_groups():
    table = as_table(mixed())
    encoder = TableEncoder().fit(table)
    x, mask = encoder.transform(table)
    assert x.shape == (200, encoder.n_encoded) == mask.shape
    # flow, state (3 levels and other), open, when (seconds, hour, weekday), count
    assert [s.stop - s.start for _, s in encoder.groups] == [1, 4, 1, 5, 1]
    assert len(encoder.encoded_names) == encoder.n_encoded
    where = dict(encoder.groups)
    missing = np.array([v is None for v in mixed()["state"]])
    assert (mask[:, where["state"]] == ~missing[:, None]).all()
    assert (x[missing][:, where["state"]] == 0).all()
    block = x[~missing][:, where["state"]].astype(np.float64)
    assert block.var(axis=0).sum() == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(block.mean(axis=0), 0, atol=1e-6)
    maps = np.random.default_rng(0).normal(size=(4, 6, encoder.n_encoded))
    sums = encoder.collapse(maps)
    assert sums.shape == (4, 6, 5)
    np.testing.assert_allclose(sums[..., 1], maps[..., where["state"]].sum(-1))
    back = encoder.inverse(x)
    assert [b for b, m in zip(back["state"], missing, strict=True) if not m] == [
        v for v in mixed()["state"] if v is not None
    ]
    assert back["open"].tolist() == mixed()["open"]
    assert back["when"].dtype == "datetime64[s]"
    np.testing.assert_array_equal(back["when"], np.array(mixed()["when"], dtype="M8[s]"))
    np.testing.assert_allclose(back["count"], mixed()["count"], atol=1e-5)


def test_category_shares_and_unseen_levels():
    encoder = TableEncoder().fit({"c": ["a"] * 5 + ["b"] * 3 + ["r1", "r2"]})
    code = encoder.codes[0]
    assert (code.levels, code.rare, code.shares) == (("a", "b"), ("r1", "r2"), (0.5, 0.3, 0.2))
    root = np.sqrt(0.5 * 0.5 + 0.3 * 0.7 + 0.2 * 0.8)
    x, mask = encoder.transform({"c": ["a", "new", "r1", None]})
    np.testing.assert_allclose(x[0], np.array([0.5, -0.3, -0.2]) / root, rtol=1e-6)
    np.testing.assert_allclose(x[1], np.array([-0.5, -0.3, 0.8]) / root, rtol=1e-6)
    np.testing.assert_array_equal(x[1], x[2])
    assert mask.all(axis=1).tolist() == [True, True, True, False]
    assert encoder.count_unseen({"c": ["a", "new", "r1", None]}) == {"c": 1}
    assert encoder.inverse(x)["c"].tolist()[:2] == ["a", OTHER]
    assert len(TableEncoder(max_levels=1).fit({"c": list("aabbb")}).codes[0].levels) == 1


def test_levels_read_as_numbers_are_still_levels():
    encoder = TableEncoder().fit({"c": ["1", "1", "x", "x", "True", "True"]})
    as_text, _ = encoder.transform({"c": ["1", "x", "True"]})
    as_number, _ = encoder.transform({"c": [1.0, 1.0]})
    as_truth, _ = encoder.transform({"c": [True, True]})
    empty, mask = encoder.transform({"c": [None]})
    np.testing.assert_array_equal(as_number[0], as_text[0])
    np.testing.assert_array_equal(as_truth[0], as_text[2])
    assert (empty == 0).all()
    assert not mask.any()


def test_levels_do_not_depend_on_the_rows_beside_them():
    cells = ["01", "NA", "x", "2024-01-01", "true", "1", "None", ""] * 3
    encoder = TableEncoder().fit({"c": cells, "v": list(range(len(cells)))})
    whole, mask = encoder.transform({"c": cells, "v": [0] * len(cells)})
    assert mask[:7].all()
    for i in range(8):
        one, seen = encoder.transform({"c": cells[i : i + 1], "v": [0]})
        np.testing.assert_array_equal(one[0], whole[i])
        assert (seen is None) == (i < 7)
    table = as_table({"c": ["01", "NA", "1"], "v": [0, 0, 0]})
    for rows in (slice(0, 2), [0, 1], np.array([True, True, False]), [-3, -2]):
        np.testing.assert_array_equal(encoder.transform(table.take(rows))[0], whole[:2])
    from_numbers, _ = TableEncoder().fit({"c": ["007", "007", "x", "x"]}).transform({"c": [7]})
    assert from_numbers[0].argmax() == 0


def test_dates_by_hand():
    days = np.array(["2024-01-01", "2024-01-02", "2024-01-03"], dtype="M8[D]")  # from a Monday
    encoder = TableEncoder().fit({"d": days})
    assert encoder.encoded_names == ["d", "sin(weekday of d)", "cos(weekday of d)"]
    x, _ = encoder.transform({"d": days})
    scale = 86_400 * np.sqrt(2 / 3)
    assert encoder.scale_of("d") == pytest.approx(scale)
    np.testing.assert_allclose(x[:, 0], np.array([-1, 0, 1]) * 86_400 / scale, rtol=1e-6)
    np.testing.assert_allclose(x[:, 1], np.sin(2 * np.pi * np.arange(3) / 7), atol=1e-6)
    gone, mask = encoder.transform({"d": [None, None]})
    assert not mask.any()
    assert (gone == 0).all()
    assert np.isnat(encoder.inverse(np.full((1, 3), np.nan))["d"]).all()


def test_frames_give_identical_bytes():
    cells = mixed()
    frames = [pd.DataFrame(cells), pl.DataFrame(cells), pa.table(cells)]
    states, outputs = [], []
    for frame in frames:
        encoder = TableEncoder().fit(frame)
        states.append(json.dumps(encoder.to_dict(), sort_keys=True))
        x, mask = encoder.transform(frame)
        outputs.append(x.tobytes() + mask.tobytes())
    assert states[0] == states[1] == states[2]
    assert outputs[0] == outputs[1] == outputs[2]


def test_json_round_trip_gives_the_same_bytes():
    table = as_table(mixed())
    encoder = TableEncoder(max_levels=2).fit(table)
    again = TableEncoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    assert again.transform(table)[0].tobytes() == encoder.transform(table)[0].tobytes()
    assert again.to_dict() == encoder.to_dict()
    assert again.groups == encoder.groups
    for bad in ({}, {"version": 9, "columns": []}, []):
        with pytest.raises(InputError, match="not one this version reads"):
            TableEncoder.from_dict(bad)
    for column in ({"code": "numeric", "nme": "a"}, {"code": "spell"}):
        with pytest.raises(InputError, match="stored encoder has a column with fields"):
            TableEncoder.from_dict({"version": 1, "columns": [column]})


def test_rows_do_not_depend_on_their_batch():
    table = as_table(mixed())
    encoder = TableEncoder().fit(table)
    whole, _ = encoder.transform(table)
    for i in (0, 3, 199):
        np.testing.assert_array_equal(encoder.transform(table.take([i]))[0][0], whole[i])
    X = np.random.default_rng(0).normal(size=(50_000, 12))
    encoder = TableEncoder().fit(X)
    whole, _ = encoder.transform_array(X)
    np.testing.assert_array_equal(encoder.transform_array(X[::-1])[0][::-1], whole)


def test_columns_are_matched_by_name_or_number():
    encoder = TableEncoder().fit({"a": [1.0, 2.0], "b": [5.0, 9.0]})
    x, _ = encoder.transform({"a": [1.0], "b": [9.0]})
    np.testing.assert_array_equal(encoder.transform({"b": [9.0], "a": [1.0]})[0], x)
    np.testing.assert_array_equal(encoder.transform(np.array([[1.0, 9.0]]))[0], x)
    with pytest.raises(InputError, match="X lacks 'b' and has 'c' that fit did not see"):
        encoder.transform({"a": [1.0], "c": [1.0]})
    with pytest.raises(InputError, match="X has 1 features, but TableEncoder is expecting 2 feat"):
        encoder.transform(np.ones((3, 1)))
    with pytest.raises(InputError, match="X has 3 features, but TableEncoder is expecting 2 feat"):
        encoder.transform_array(np.ones((3, 3)))
    unnamed = TableEncoder().fit(np.array([[1.0, 5.0], [2.0, 9.0]]))
    np.testing.assert_array_equal(unnamed.transform({"q": [1.0], "r": [9.0]})[0], x)


def test_wrong_kinds():
    encoder = TableEncoder().fit({"a": [1.0, 2.0], "d": ["2024-01-01", "2024-01-02"]})
    with pytest.raises(InputError, match=r"'a' held numbers .* categorical here \(row 1: 'x'\)"):
        encoder.transform({"a": ["1", "x"], "d": ["2024-01-01", "2024-01-02"]})
    with pytest.raises(InputError, match=r"'d' held dates .* numeric here"):
        encoder.transform({"a": [1.0], "d": [1.0]})
    with pytest.raises(InputError, match="use inverse"):
        encoder.inverse_numeric(np.zeros((1, encoder.n_encoded)))
    with pytest.raises(InputError, match=r"last axis must have \d encoded columns"):
        encoder.collapse(np.zeros((1, 99)))
    with pytest.raises(InputError, match="give rows"):
        encoder.inverse(np.zeros(encoder.n_encoded))
    with pytest.raises(InputError, match="no column named 'q'"):
        encoder.scale_of("q")
    with pytest.raises(InputError, match="not fitted: call fit first"):
        TableEncoder().transform(np.ones((1, 1)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_infinite_values_are_named(dtype):
    X = np.random.default_rng(0).normal(size=(50_000, 10)).astype(dtype)
    encoder = TableEncoder().fit(X)
    X[44_000, 7] = -np.inf
    for call in (encoder.transform, encoder.transform_array, TableEncoder().fit):
        with pytest.raises(InputError, match=r"'x7' holds an infinite value \(inf\) in row 44000"):
            call(X)
    with pytest.raises(InputError, match="'x0' holds values so large that their square"):
        TableEncoder().fit(np.array([[1e300], [-1e300]]))


def test_far_values_are_clipped_and_finite():
    encoder = TableEncoder().fit(np.array([[0.0], [1.0], [2.0]]))
    x, mask = encoder.transform_array(np.array([[1e300], [-1e300], [np.nan]]))
    assert mask.ravel().tolist() == [True, True, False]
    assert np.square(x).sum() < np.inf
    np.testing.assert_allclose(x.ravel(), [1e15, -1e15, 0.0])


def test_warnings_name_columns():
    X = {"k": [0.1] * 30, "e": [None] * 30, "id": [f"u{i}" for i in range(30)], "c": ["z"] * 30}
    X["ok"] = list(range(30))
    with pytest.warns(DataWarning) as caught:
        encoder = TableEncoder().fit(X)
    text = [str(w.message) for w in caught]
    assert len(text) == 3
    assert "constant columns 'k', 'c' (2 of 5)" in text[0]
    assert "columns 'e' hold no value" in text[1]
    assert "'id' (30 levels in 30 rows) look like identifiers" in text[2]
    x, mask = encoder.transform(X)
    assert mask is None
    assert [s.stop - s.start for _, s in encoder.groups] == [1, 0, 0, 2, 1]
    assert encoder.scale_of("k") == 1.0
    assert np.isnan(encoder.scale_of("id"))
    assert (encoder.collapse(np.ones_like(x))[:, 1:3] == 0).all()
    assert set(encoder.inverse(x)) == {"k", "c", "ok"}
    with pytest.raises(InputError, match="no column of X can be used: 'a'"):
        TableEncoder().fit({"a": [None, None]})


def test_left_out_numeric_columns_come_back_as_nan():
    X = np.array([[1.0, np.nan, 2.0], [3.0, np.nan, 5.0]])
    with pytest.warns(DataWarning, match="'x1' hold no value"):
        encoder = TableEncoder().fit(X)
    x, mask = encoder.transform_array(X)
    assert x.shape == (2, 2)
    assert mask is None
    np.testing.assert_allclose(encoder.inverse_numeric(x), X)


def test_memory_stays_near_the_output():
    X = np.random.default_rng(0).normal(size=(200_000, 30)).astype(np.float32)
    tracemalloc.start()
    try:
        encoder = TableEncoder().fit(X)
        fit_peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        x, _ = encoder.transform(X)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert fit_peak < 0.5 * x.nbytes
    assert peak < 1.5 * x.nbytes


def test_levels_that_are_rare_share_a_column():
    rng = np.random.default_rng(0)
    city = np.array([f"c{i}" for i in rng.integers(0, 300, 4000)], dtype=object)
    city[rng.random(4000) < 0.5] = "home"
    city[:15] = "seldom"
    (code,) = TableEncoder().fit(as_table({"city": city})).codes
    assert (code.levels, "seldom" in code.rare, code.scattered) == (("home",), True, False)


def test_text_of_very_many_levels_leaves_the_numbers_heard():
    rng = np.random.default_rng(0)
    X = {"a": rng.normal(size=6000), "b": rng.normal(size=6000)}
    X["user"] = np.array([f"u{i}" for i in rng.integers(0, 10_000, 6000)], dtype=object)
    with pytest.warns(DataWarning, match=r"'user' \(\d+ levels in 6000 rows\) .* are left out"):
        detector = genad.create("ppca").fit(X)
    gross = {name: values[:200] for name, values in X.items()} | {"a": np.full(200, 6.0)}
    assert (detector.p_value(gross) <= 0.01).mean() > 0.95
