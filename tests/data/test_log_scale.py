"""Columns on a log scale: marked on a table, learnt by the encoder, undone on the way back."""

from __future__ import annotations

import json

import numpy as np
import pytest

import genad
from genad.data.encoder import TableEncoder
from genad.data.moments import bend, unbend
from genad.data.table import as_table
from genad.errors import DataWarning, InputError


@pytest.fixture
def sizes():
    """A table of sizes over many powers of ten, one cell missing, beside plain numbers and a category."""
    rng = np.random.default_rng(0)
    values = 10.0 ** rng.uniform(0, 8, 600)
    values[5] = np.nan
    return as_table({"bytes": values, "rate": rng.uniform(0, 1, 600), "flag": list("ab") * 300})


def test_bend_and_unbend_are_inverse_odd_and_monotone():
    values = np.r_[-(10.0 ** np.arange(12)), 0, 10.0 ** np.arange(12), np.nan]
    np.testing.assert_allclose(unbend(bend(values, 42.0), 42.0), values, rtol=1e-9)
    np.testing.assert_array_equal(bend(-values, 3.0), -bend(values, 3.0))
    assert (np.diff(bend(np.sort(values[:-1]), 3.0)) > 0).all()
    assert bend(np.array([1e-3]), 1.0)[0] == pytest.approx(1e-3, rel=1e-3)  # linear near 0
    assert np.isfinite(unbend(np.array([1e9, -1e9]), 1e6)).all()
    assert np.isinf(bend(np.array([np.inf]), 1.0)).all()


def test_encoded_column_is_standardised_on_the_log_scale(sizes):
    encoder = TableEncoder().fit(sizes.on_log_scale(["bytes"]))
    x, mask = encoder.transform(sizes)
    values = sizes.column("bytes")
    unit = np.quantile(values[np.isfinite(values)], 0.05)
    bent = np.log1p(values / unit)
    wanted = (bent - np.nanmean(bent)) / np.nanstd(bent)
    np.testing.assert_allclose(x[:, 0][mask[:, 0]], wanted[np.isfinite(wanted)], rtol=1e-4, atol=1e-5)
    assert x[5, 0] == 0
    assert not mask[5, 0]
    plain, _ = TableEncoder().fit(sizes).transform(sizes)
    np.testing.assert_array_equal(x[:, 1:], plain[:, 1:])


def test_the_way_back_is_in_the_users_units(sizes):
    encoder = TableEncoder().fit(sizes.on_log_scale(["bytes"]))
    x, mask = encoder.transform(sizes)
    np.testing.assert_allclose(encoder.inverse(x)["bytes"][mask[:, 0]], sizes.column("bytes")[mask[:, 0]], rtol=1e-4)
    assert np.isnan(encoder.scale_of("bytes"))
    assert encoder.scale_of("rate") > 0


def test_arrays_take_the_same_scale(sizes):
    numbers = sizes.select(["bytes", "rate"])
    encoder = TableEncoder().fit(numbers.on_log_scale(["bytes"]))
    wanted, _ = encoder.transform(numbers)
    array = np.column_stack([numbers.column("bytes"), numbers.column("rate")])
    for dtype in (np.float64, np.float32):
        x, _ = encoder.transform_array(array.astype(dtype))
        np.testing.assert_allclose(x, wanted, rtol=1e-4, atol=1e-5)
    back = encoder.inverse_numeric(wanted)
    seen = np.isfinite(array[:, 0])
    np.testing.assert_allclose(back[seen], array[seen], rtol=1e-4)


def test_state_survives_json_and_old_states_have_no_log_scale(sizes):
    encoder = TableEncoder().fit(sizes.on_log_scale(["bytes"]))
    state = json.loads(json.dumps(encoder.to_dict()))
    x, _ = TableEncoder.from_dict(state).transform(sizes)
    np.testing.assert_array_equal(x, encoder.transform(sizes)[0])
    old = TableEncoder().fit(sizes)
    state = old.to_dict()
    for column in state["columns"]:
        column.pop("unit", None)
    np.testing.assert_array_equal(TableEncoder.from_dict(state).transform(sizes)[0], old.transform(sizes)[0])


def test_mark_stays_with_columns_and_rows_and_shares_memory(sizes):
    marked = sizes.on_log_scale(["bytes"])
    assert sizes.logarithmic == frozenset()
    assert marked.take(np.arange(3)).logarithmic == {"bytes"}
    assert marked.select(["bytes", "flag"]).logarithmic == {"bytes"}
    assert marked.drop(["bytes"]).logarithmic == frozenset()
    assert np.shares_memory(marked.column("bytes"), sizes.column("bytes"))
    array = as_table(np.random.default_rng(0).lognormal(size=(50, 2)))
    assert array.on_log_scale(["x1"]).take(slice(0, 5)).logarithmic == {"x1"}


def test_zeros_negatives_and_infinities():
    with pytest.warns(DataWarning, match="constant"):
        zeros = TableEncoder().fit(as_table({"v": [0.0, 0.0, 0.0]}).on_log_scale(["v"]))
    assert zeros.transform(as_table({"v": [0.0]}))[0].tolist() == [[0.0]]
    signed = as_table({"v": [-100.0, -1.0, 0.0, 1.0, 100.0]}).on_log_scale(["v"])
    x, _ = TableEncoder().fit(signed).transform(signed)
    np.testing.assert_allclose(x[:, 0], -x[::-1, 0], atol=1e-6)
    with pytest.raises(InputError, match="infinite"):
        TableEncoder().fit(signed).transform(as_table({"v": [np.inf]}))


def test_only_numbers_can_be_marked(sizes):
    with pytest.raises(InputError, match="'flag' hold no numbers"):
        sizes.on_log_scale(["flag"])
    with pytest.raises(InputError, match="no column named 'size'"):
        sizes.on_log_scale(["size"])


def test_bounds_of_such_a_column_are_left_out(sizes):
    found = genad.create("nearest_memory").fit(sizes.on_log_scale(["bytes"])).detect(sizes)
    parts = {part.name: part for part in found.explain(0)}
    assert parts["bytes"].lower is None
    assert parts["rate"].lower is not None
