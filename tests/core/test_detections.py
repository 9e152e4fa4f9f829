"""The answer: order, events, shares and forms of output, on answers made by hand."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genad.core.calibration import FittedThreshold
from genad.core.detections import Detections, jsonable, merge_runs
from genad.data.kinds import Kind
from genad.errors import InputError

THRESHOLD = FittedThreshold(2.0, "FixedValue", "Flags scores above 2.", n=0)


def table(scores=(1.0, 5.0, 3.0, 5.0), maps=None, **others):
    n = len(scores)
    scores = np.asarray(scores)
    observed = {"a": np.arange(n, dtype=float), "b": np.array(["x"] * n, dtype=object)}
    fields = {
        "scores": scores, "p_values": 1 / (1 + scores), "is_anomaly": scores > 2, "threshold": THRESHOLD,
        "kind": Kind.TABLE, "names": ["a", "b"], "observed": observed,
        "expected": {"a": np.zeros(n), "b": np.array(["y"] * n, dtype=object)},
        "maps": np.tile([3.0, 1.0], (n, 1)) if maps is None else np.asarray(maps),
        "bounds": np.array([0.5, np.nan]),
    }  # fmt: skip
    return Detections(**(fields | others))


def series(flags, **others):
    scores = np.where(flags, 5.0, 1.0) + np.arange(len(flags)) / 1000
    return table(scores, kind=Kind.SERIES, is_anomaly=np.asarray(flags, bool), **others)


def test_top_is_stable_and_complete():
    assert table().top(3).tolist() == [1, 3, 2]
    assert table().top(100).tolist() == [1, 3, 2, 0]
    with pytest.raises(InputError, match=r"^k: 0"):
        table().top(0)


def test_length_and_words():
    assert len(table()) == 4
    assert repr(table()) == "Detections(4 rows, 3 flagged, threshold=2)"
    assert repr(table(fdr=0.1)).endswith("fdr=0.1)")


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.lists(st.booleans(), max_size=40), st.integers(0, 4))
def test_merged_runs_cover_every_flag(flags, gap):
    flags = np.array(flags, bool)
    runs = merge_runs(flags, gap)
    inside = np.zeros(len(flags), bool)
    for start, stop in runs:
        assert flags[start]
        assert flags[stop - 1]
        inside[start:stop] = True
    assert inside[flags].all()
    assert all(b[0] - a[1] > gap for a, b in itertools.pairwise(runs))
    if gap == 0:
        np.testing.assert_array_equal(inside, flags)


def test_runs_never_cross_groups():
    flags = np.ones(6, bool)
    assert merge_runs(flags, 3, ["a", "a", "b", "b", "b", "c"]) == [(0, 2), (2, 5), (5, 6)]


def test_events_carry_time_entity_and_peak():
    time = np.datetime64("2024-01-01") + np.arange(6)
    entity = np.array(["p", "p", "p", "q", "q", "q"])
    found = series([0, 1, 1, 1, 0, 0], time=time, entity=entity).events()
    assert [(e.start, e.stop, e.peak, e.entity) for e in found] == [(1, 3, 2, "p"), (3, 4, 3, "q")]
    assert found[0].start_time == time[1]
    assert found[0].stop_time == time[2]
    assert found[0].score == 5.002
    assert found[0].p_value == 1 / 6.002
    assert found[0].length == 2
    assert series([0, 0, 0]).events() == []


def test_events_need_a_series():
    with pytest.raises(InputError, match="only a series has events"):
        table().events()


def test_an_explanation_shares_out_the_score():
    explanation = table().explain(1)
    assert [(part.name, part.share) for part in explanation] == [("a", 0.75), ("b", 0.25)]
    first, second = explanation.parts
    assert (first.observed, first.expected, first.lower, first.upper) == (1.0, 0.0, -0.5, 0.5)
    assert (second.observed, second.expected, second.lower, second.upper) == ("x", "y", None, None)
    assert "75.0%  a: 1, expected 0 (normal -0.5 to 0.5)" in str(explanation)
    assert json.loads(json.dumps(explanation.to_dict()))["parts"][0]["share"] == 0.75


@pytest.mark.parametrize(("row", "expected"), [
    ([0.0, 0.0], [0.5, 0.5]), ([-1.0, 1.0], [1.0, 0.0]), ([0.0, 7.0], [1.0, 0.0]), ([1e30, 1e-30], [1.0, 0.0]),
])  # fmt: skip
def test_shares_add_up_whatever_the_map(row, expected):
    shares = [part.share for part in table(maps=[row] * 4).explain(0)]
    assert shares == pytest.approx(expected)
    assert sum(shares) == pytest.approx(1)


def test_parts_can_be_cut_and_counted_from_the_end():
    assert [part.name for part in table().explain(-1, parts=1)] == ["a"]
    assert table().explain(-1).index == 3
    for i in (4, -5, 1.5, "a"):
        with pytest.raises(InputError, match=f"^i: {i!r} was given; the data have 4 units"):
            table().explain(i)


@pytest.mark.parametrize("missing", ["maps", "expected"])
def test_an_explanation_needs_maps_and_restored_values(missing):
    found = table()
    setattr(found, missing, None)
    with pytest.raises(InputError, match="maps and restored values were left out"):
        found.explain(0)


def test_missing_cells_are_said_to_be_missing():
    found = table(observed={"a": np.full(4, np.nan), "b": np.array([None] * 4, dtype=object)})
    assert [part.observed for part in found.explain(0)] == [None, None]
    assert "missing, expected 0" in str(found.explain(0))


def test_places_of_images_are_named():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2, 3, 4, 5))
    maps = np.zeros(X.shape)
    maps[1, 2, 3, 4] = 1.0
    found = table([1.0, 9.0], maps=maps, kind=Kind.IMAGE, observed=X, expected=X - 1, bounds=np.ones(3))
    part = found.explain(1).parts[0]
    assert part.name == "channel 2, row 3, column 4"
    assert (part.share, part.observed) == (1.0, X[1, 2, 3, 4])
    assert part.upper - part.lower == pytest.approx(2.0)
    assert len(found.explain(1).parts) == 50


def test_columns_name_the_most_telling_feature():
    columns = table(maps=[[1.0, 2.0], [3.0, 1.0], [0.0, 0.0], [0.0, 1.0]]).columns()
    assert list(columns) == ["score", "p_value", "is_anomaly", "top_feature"]
    assert columns["top_feature"].tolist() == ["b", "a", "a", "b"]
    rows = series([1, 0], rows=np.array([1, 0]), entity=np.array(["q", "p"]), time=np.arange(2)).columns()
    assert list(rows)[:3] == ["row", "entity", "time"]
    assert rows["row"].tolist() == [1, 0]


@pytest.mark.parametrize(("backend", "kind"), [
    ("pyarrow", pa.Table), ("pandas", pd.DataFrame), ("polars", pl.DataFrame),
])  # fmt: skip
def test_frames_of_every_library(backend, kind):
    frame = table().to_frame(backend)
    assert isinstance(frame, kind)
    assert [str(name) for name in (frame.column_names if backend == "pyarrow" else frame.columns)] == [
        "score", "p_value", "is_anomaly", "top_feature",
    ]  # fmt: skip


@pytest.mark.parametrize(("value", "plain"), [
    (np.float32(1.5), 1.5), (np.int64(3), 3), (np.bool_(True), True), (float("nan"), None), (float("inf"), "inf"),
    (np.datetime64("2024-01-01"), "2024-01-01"), ({1: [np.float64(2.0)]}, {"1": [2.0]}), ((1, 2), [1, 2]),
    (None, None), (object, str(object)),
])  # fmt: skip
def test_plain_json_values(value, plain):
    assert jsonable(value) == plain
    json.dumps(jsonable(value), allow_nan=False)
