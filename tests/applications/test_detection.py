"""Reading for a job, choosing a detector, and the whole job in one call."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import genad
from genad.applications.detection import kind_for, make_detector, wrapped
from genad.applications.reading import read, read_both
from genad.core.windows import Windowed
from genad.data.kinds import Kind
from genad.errors import DataWarning, InputError, InputTypeError


@pytest.fixture
def dated():
    """Ten days of readings with labels."""
    days = np.datetime64("2024-01-01") + np.arange(10)
    bad = np.zeros(10, int)
    bad[4] = 1
    return {"day": days.astype("datetime64[ns]"), "load": np.arange(10.0), "bad": bad}


def test_kind_follows_the_data(dated):
    series = read(dated, labels="bad")
    assert (series.kind, series.X.names) == (Kind.SERIES, ["load"])
    assert series.labels.tolist() == dated["bad"].tolist()
    assert read(dated, kind="table").X.names == ["day", "load", "bad"]
    assert read({"load": [1.0, 2.0]}).kind is Kind.TABLE
    assert read({"k": [1.0, 2.0], "load": [1.0, 2.0]}, time="k").kind is Kind.SERIES
    backwards = dated | {"day": dated["day"][::-1]}
    table = read(backwards)
    assert table.kind is Kind.TABLE
    assert "although it holds dates" in table.notes[0]
    again = read(series.X)
    assert again.kind is Kind.SERIES
    assert again.X is series.X


def test_the_dates_of_an_index_are_time(dated):
    days = pd.DatetimeIndex(dated["day"]).tz_localize("Europe/Vienna")
    frame = pd.DataFrame({"load": dated["load"], "bad": dated["bad"]}, index=days)
    for kind in (None, "series"):
        data = read(frame, labels="bad", kind=kind)
        assert (data.kind, data.X.names) == (Kind.SERIES, ["load"])
        np.testing.assert_array_equal(data.X.time, days.tz_convert(None).to_numpy())
        assert "index of the dataframe" in data.notes[0]
    assert read(frame, kind="table").X.names == ["load", "bad"]
    given, learnt = read_both(frame, frame.iloc[:5], labels="bad")
    assert [len(given.X.time), len(learnt.X.time)] == [10, 5]
    given, learnt = read_both(frame, frame.iloc[:5], labels=np.zeros(10))
    assert (given.kind, learnt.kind, learnt.labels) == (Kind.SERIES, Kind.SERIES, None)
    assert "read as a table although" in read(frame[::-1]).notes[0]
    assert read(frame.reset_index(drop=True)).kind is Kind.TABLE


def test_text_of_another_encoding(tmp_path):
    for encoding in ("latin-1", "utf-16"):
        path = tmp_path / "t.csv"
        path.write_bytes("größe,ort\n1,Köln\n2,Ulm\n".encode(encoding))
        with pytest.raises(InputError, match="encoding="):
            read(path)
        given, learnt = read_both(path, path, encoding=encoding)
        for data in (read(path, encoding=encoding), read_both(path, encoding=encoding)[0], given, learnt):
            assert data.X.names == ["größe", "ort"]
            assert data.X.column("ort").tolist() == ["Köln", "Ulm"]


def test_columns_may_be_ignored():
    assert read({"a": [1.0], "b": [2.0]}, ignore=["b", "c"]).X.names == ["a"]


def test_labels_in_the_sense_of_scikit_learn_are_refused():
    with pytest.raises(InputError, match=r"^labels: 2 labels are 1, 1 are -1 or nothing.*scikit-learn"):
        read([[1.0], [2.0], [3.0]], labels=np.array([1, -1, 1]))


def test_a_gap_is_told_only_when_it_matters(dated):
    holed = {name: np.delete(values, 5) for name, values in dated.items()}
    with pytest.warns(DataWarning):
        assert read(holed).kind is Kind.SERIES
    assert read(holed, kind="table").kind is Kind.TABLE


def test_columns_are_left_out(dated):
    assert read(dated, kind="table", drop=["day", "bad"]).X.names == ["load"]
    data = read(dated, kind="table", drop=["bad"], labels="bad")
    assert data.X.names == ["day", "load"]
    assert data.labels.sum() == 1
    with pytest.raises(InputError, match="keep at least one"):
        read({"a": [1.0]}, drop=["a"])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([1, 0, -1], [1, 0, -1]),
        ([True, False, True], [1, 0, 1]),
        ([1.0, np.nan, 0.0], [1, -1, 0]),
        (np.array([1, None, 0], dtype=object), [1, -1, 0]),
        (["1", "0", "0"], [1, 0, 0]),
    ],
)
def test_labels_in_many_forms(given, expected):
    data = read([[1.0], [2.0], [3.0]], labels=np.asarray(given))
    assert data.labels.tolist() == expected


def test_labels_from_a_file(tmp_path):
    X = [[1.0], [2.0], [3.0]]
    for text in ("label\n0\n1\n0\n", "id,label\n7,0\n8,1\n9,0\n", "0\n1\n0\n"):
        path = tmp_path / "labels.csv"
        path.write_text(text)
        assert read(X, labels=path).labels.tolist() == [0, 1, 0]
    path.write_text("id,mark\n7,0\n8,1\n9,0\n")
    with pytest.raises(InputError, match="name the one of the labels 'label'"):
        read(X, labels=path)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("nowhere", r"neither a column of the data \(columns: x0\) nor a file"),
        (np.array([0, 1]), "2 labels were given for 3 rows"),
        (np.array([0, 1, 2]), "found 2; use 1 for anomalies"),
        (np.array(["a", "b", "b"]), "found a, b; use 1 for anomalies"),
    ],
)
def test_bad_labels(labels, said):
    with pytest.raises(InputError, match=said):
        read([[1.0], [2.0], [3.0]], labels=labels)


def test_a_detector_in_place_of_its_name():
    with pytest.raises(InputTypeError, match="method: a PPCA was given; use the name of a detector"):
        genad.detect([[1.0]], method=genad.PPCA())


def test_unknown_kind():
    with pytest.raises(InputError, match="use 'table', 'series' or 'log'"):
        read([[1.0]], kind="image")
    with pytest.raises(InputError, match="use one of table, series"):
        genad.default_detector("video")


def test_labels_go_where_they_belong():
    three, two = {"a": [1.0, 2.0, 3.0]}, {"a": [1.0, 2.0]}
    given, learnt = read_both(three, two, labels=np.array([0, 0, 1]))
    assert given.labels.tolist() == [0, 0, 1]
    assert learnt.labels is None
    given, learnt = read_both(three, two, labels=np.array([0, 1]))
    assert given.labels is None
    assert learnt.labels.tolist() == [0, 1]
    given, learnt = read_both(three | {"bad": [0, 0, 1]}, two | {"bad": [1, 0]}, labels="bad")
    assert (given.labels.tolist(), learnt.labels.tolist()) == ([0, 0, 1], [1, 0])
    assert given.X.names == learnt.X.names == ["a"]
    given, learnt = read_both(three | {"bad": [0, 0, 1]}, two, labels="bad")
    assert given.X.names == learnt.X.names == ["a"]
    assert learnt.labels is None
    given, learnt = read_both(three, labels=np.array([0, 0, 1]))
    assert given is learnt


def test_labels_that_fit_both_or_neither():
    three = {"a": [1.0, 2.0, 3.0]}
    for labels, other in ((np.array([0, 0, 1]), three), (np.array([0, 1]), three)):
        with pytest.raises(InputError, match="not clear whose they are"):
            read_both(three, other, labels=labels)
    with pytest.raises(InputError, match="neither a column"):
        read_both(three, three, labels="bad")


def test_dropping_where_a_column_is():
    given, learnt = read_both({"a": [1.0, 2.0], "id": [7, 8]}, {"a": [1.0]}, drop=["id"])
    assert given.X.names == learnt.X.names == ["a"]
    with pytest.raises(InputError, match="no column named 'name'"):
        read_both({"a": [1.0]}, {"a": [1.0]}, drop=["name"])


def test_kind_for():
    assert kind_for("autoencoder") is None
    assert kind_for("autoencoder", "table") == "table"
    assert kind_for("autoencoder", window=5) is Kind.SERIES
    assert kind_for("windowed") is Kind.SERIES
    assert wrapped(Kind.SERIES, "autoencoder")
    assert not wrapped(Kind.SERIES, "windowed")
    assert not wrapped(Kind.TABLE, "autoencoder")


def test_a_dense_method_sees_a_series_through_windows():
    settings = {"latent": 3, "random_state": 5, "spread": "step", "holdout": 0.3}
    made = make_detector(Kind.SERIES, "autoencoder", settings, alpha=0.1, window=9)
    assert isinstance(made, Windowed)
    assert (made.window, made.random_state, made.spread, made.holdout) == (9, 5, "step", 0.3)
    assert made.threshold == genad.Conformal(0.1)
    assert made.detector.latent == 3
    assert make_detector(Kind.TABLE, "autoencoder", {}).name == "autoencoder"


def test_alpha_and_threshold_exclude_each_other():
    with pytest.raises(InputError, match="give one of the two"):
        make_detector(Kind.TABLE, "autoencoder", {"threshold": genad.Quantile(0.1)}, alpha=0.1)


def test_detect_equals_its_parts():
    rng = np.random.default_rng(0)
    train, X = rng.normal(size=(600, 3)), rng.normal(size=(50, 3))
    X[3] += 9
    training = genad.Training(updates=30)
    found = genad.detect(X, train=train, method="autoencoder", alpha=0.05, training=training)
    detector = genad.Autoencoder(training=training, threshold=genad.Conformal(0.05)).fit(train)
    np.testing.assert_array_equal(found.scores, detector.anomaly_score(X))
    np.testing.assert_array_equal(found.is_anomaly, detector.predict(X) == -1)
    assert found.top(1)[0] == 3


def test_detect_uses_a_series_method_on_plain_columns():
    t = np.arange(500)
    X = np.column_stack([np.sin(t / 5), np.cos(t / 5)])
    found = genad.detect(X, method="autoencoder", window=10, training=genad.Training(updates=30))
    assert found.kind is Kind.SERIES
    assert len(found) == 500
