"""The contract of synthesizers of tables and series, as tests/contract/test_synthesizers.py has it for images."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from sklearn.base import clone

from genad.data.series import Series, as_series
from genad.data.table import as_table
from genad.errors import InputError, InputTypeError
from genad.synthesis.registry import create_synthesizer, list_synthesizers, synthesizers

TABLES = list_synthesizers(kind="table")
SERIES = list_synthesizers(kind="series")


def rows(n: int = 60, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 3)) @ rng.normal(size=(3, 4)) + 0.1 * rng.normal(size=(n, 4))


def series(n: int = 900, seed: int = 0) -> np.ndarray:
    t = np.arange(n)
    return np.c_[np.sin(t / 6), np.cos(t / 9)] + 0.05 * np.random.default_rng(seed).normal(size=(n, 2))


def make(name: str, X, n: int = 6, **options):
    return create_synthesizer(name).fit(X).synthesize(X, n, **options)


def test_every_synthesizer_is_covered():
    assert {"tabular_anomalies"} <= set(TABLES)
    assert {"series_taxonomy", "cut_add_paste"} <= set(SERIES)
    assert set(list_synthesizers()) == set(TABLES) | set(SERIES) | set(list_synthesizers(kind="image"))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", TABLES)
def test_the_mask_of_rows_is_what_changed(name, dtype):
    X = rows().astype(dtype)
    before = X.copy()
    made = make(name, X, 130, random_state=1)
    assert made.samples.dtype == dtype
    assert made.samples.shape == made.masks.shape == (130, 4)
    assert made.labels.tolist() == [1] * 130
    np.testing.assert_array_equal(made.masks, made.samples != X[made.sources])
    assert made.masks.any(1).all()
    assert set(np.bincount(made.sources, minlength=60)) == {2, 3}
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", SERIES)
def test_the_mask_of_a_series_is_what_changed(name, dtype):
    X = series(2000).astype(dtype)
    before = X.copy()
    made = make(name, X, 4, random_state=1)
    assert made.samples.dtype == dtype
    assert made.samples.shape == made.masks.shape == (2000, 2)
    np.testing.assert_array_equal(made.masks, made.samples != X)
    np.testing.assert_array_equal(made.labels, made.masks.any(1))
    np.testing.assert_array_equal(X, before)
    ends = 0
    assert len(made.meta) == 4
    for event in made.meta:
        assert event["start"] > ends  # apart from the event before, and from the start
        assert made.labels[event["start"] : event["stop"]].any()
        ends = event["stop"]
    outside = np.ones(2000, bool)
    for event in made.meta:
        outside[event["start"] : event["stop"]] = False
    assert not made.labels[outside].any()


@pytest.mark.parametrize("name", TABLES + SERIES)
def test_the_seed_decides_everything_and_nothing_else_does(name):
    X = rows() if name in TABLES else series()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = (make(name, X, 2, random_state=seed) for seed in (7, 7, 8))
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
    np.testing.assert_array_equal(first.samples, again.samples)
    assert first.meta == again.meta
    assert not np.array_equal(first.samples, other.samples)
    assert json.loads(json.dumps(first.meta)) == first.meta
    assert all(row["method"] == name for row in first.meta)


@pytest.mark.parametrize("name", TABLES)
def test_missing_cells_stay_missing_and_frames_become_tables(name):
    X = rows()
    X[::3, 1] = np.nan
    made = make(name, X, 60)
    np.testing.assert_array_equal(np.isnan(made.samples), np.isnan(X[made.sources]))
    assert not made.masks[np.isnan(made.samples)].any()
    rng = np.random.default_rng(0)
    table = as_table(
        {
            "number": rows()[:, 0],
            "count": rng.integers(0, 500, 60),
            "colour": rng.choice(["red", "green", "blue"], 60),
            "flag": rng.random(60) < 0.5,
            "still": np.full(60, 3.0),
        }
    )
    made = make(name, table, 80)
    assert made.samples.kinds == table.kinds
    assert made.samples.names == made.names == table.names
    assert set(made.samples.column("colour")) <= {"red", "green", "blue"}
    assert (made.samples.column("still") == 3.0).all()
    whole = made.samples.column("count").astype(float)
    np.testing.assert_array_equal(whole, np.rint(whole))


@pytest.mark.parametrize("name", SERIES)
def test_missing_steps_gaps_and_entities_are_respected(name):
    values = series(1500)
    values[200:230, 0] = np.nan
    whole = as_series(np.r_[values, values], entity=np.repeat(["a", "b"], 1500))
    made = create_synthesizer(name).synthesize(whole, 8)
    assert isinstance(made.samples, Series)
    np.testing.assert_array_equal(np.isnan(made.samples.values), np.isnan(whole.values))
    assert made.samples.segments.tolist() == [[0, 1500], [1500, 3000]]
    for event in made.meta:
        assert event["start"] // 1500 == (event["stop"] - 1) // 1500
    np.testing.assert_array_equal(made.masks.any(1), made.labels)


@pytest.mark.parametrize("name", SERIES)
def test_constant_channels_change_and_vectors_stay_vectors(name):
    made = make(name, np.full(800, 5.0), 3)
    assert made.samples.shape == (800,)
    assert made.labels.any()
    assert create_synthesizer(name).synthesize(np.full(800, 5.0)).labels.any()


@pytest.mark.parametrize("name", TABLES + SERIES)
def test_parameters_can_be_read_set_cloned_and_kept(name):
    synthesizer = create_synthesizer(name)
    params = synthesizer.get_params()
    assert clone(synthesizer).get_params() == params
    assert type(synthesizer)(**params).get_params() == params
    assert json.loads(json.dumps(synthesizer.to_dict()))["name"] == name
    X = rows() if name in TABLES else series()
    assert copy.deepcopy(synthesizer.fit(X)).synthesize(X, 1).labels.any()


@pytest.mark.parametrize("name", TABLES + SERIES)
def test_cards_and_docstrings_say_where_and_when(name):
    cls = synthesizers()[name]
    for text in (cls.card.title, cls.card.authors, cls.card.venue, cls.card.summary, cls.card.row):
        assert text
    for part in ("When to use", "When it fails", "References", "Examples", "Parameters"):
        assert part in cls.__doc__


@pytest.mark.parametrize("name", TABLES + SERIES)
def test_requests_that_cannot_be_met_are_refused(name):
    X = rows() if name in TABLES else series()
    synthesizer = create_synthesizer(name).fit(X)
    for n in (0, -1, 2.5, True):
        with pytest.raises(InputError, match=f"n: {n!r} was given"):
            synthesizer.synthesize(X, n)
    with pytest.raises(InputTypeError, match=r"random_state: 0\.5 was given"):
        synthesizer.synthesize(X, 1, random_state=0.5)
    with pytest.raises(InputError, match="random_state: -1 was given"):
        synthesizer.synthesize(X, 1, random_state=-1)
    with pytest.raises(InputError, match="infinite"):
        synthesizer.synthesize(np.where(X > 0, np.inf, X), 1)


@pytest.mark.parametrize("name", TABLES)
def test_unusable_tables_are_refused(name):
    synthesizer = create_synthesizer(name)
    with pytest.raises(InputError, match="Expected 2D array"):
        synthesizer.fit(np.zeros(5))
    with pytest.raises(InputError, match="normal: 4 rows were given; at least 5"):
        synthesizer.fit(rows(4))
    with pytest.raises(InputError, match="normal: every column is constant"):
        synthesizer.fit(np.ones((20, 3)))
    with pytest.raises(InputError, match="X has 0 sample"):
        synthesizer.fit(rows()).synthesize(np.zeros((0, 4)), 1)
    with pytest.raises(InputError, match="X: the columns x3 of the fit are missing"):
        synthesizer.synthesize(rows()[:, :3], 1)


@pytest.mark.parametrize("name", SERIES)
def test_unusable_series_are_refused(name):
    synthesizer = create_synthesizer(name).fit(series())
    with pytest.raises(InputError, match="X: a series of 3 channels was given"):
        synthesizer.synthesize(np.zeros((900, 3)), 1)
    with pytest.raises(InputError, match=r"X: the longest unbroken stretch of the series has 9 steps"):
        synthesizer.synthesize(series()[:9], 1)
    with pytest.raises(InputError, match=r"n: 900 events were asked for; the series has room for \d+"):
        synthesizer.synthesize(series(), 900)
