"""`genad detect`: the answer, its files, its options and its failures."""

from __future__ import annotations

import json

import numpy as np
import pytest

import genad as library
from genad.data.io import read_table


def python_answer(folder, **options):
    """The same job through the Python API."""
    return library.detect(
        folder / "table.csv",
        labels="bad",
        method="autoencoder",
        training=library.Training(updates=50),
        random_state=0,
        **options,
    )


def test_finds_the_planted_row_and_agrees_with_python(folder, genad_json, quick, tmp_path):
    facts = genad_json("detect", folder / "table.csv", "--labels", "bad", "-o", tmp_path, *quick)
    found = python_answer(folder)
    assert facts["data"] | {"path": ""} == {
        "path": "", "rows": 600, "columns": 4, "missing_cells": 1, "kind": "table",
        "why": "it is not numbers over time", "labelled": {"anomalies": 1, "normal": 599},
    }  # fmt: skip
    assert facts["train"] is None
    assert facts["detector"]["name"] == "autoencoder"
    assert facts["detector"]["updates"] == 50
    assert facts["threshold"]["value"] == found.threshold.value
    assert facts["threshold"]["promise"] == found.threshold.promise
    assert facts["flagged"] == found.is_anomaly.sum()
    first = facts["top"][0]
    assert first["row"] == 7
    assert first["flagged"]
    part = found.explain(7).parts[0]
    assert (first["feature"], first["observed"], first["expected"]) == (
        part.name,
        part.observed,
        part.expected,
    )
    assert facts["against_labels"]["auroc"] == 1.0
    scores = read_table(tmp_path / "scores.csv")
    assert scores.names == ["score", "p_value", "is_anomaly", "top_feature"]
    np.testing.assert_array_equal(scores.column("score"), found.scores)
    np.testing.assert_array_equal(scores.column("p_value"), found.p_values)
    np.testing.assert_array_equal(scores.column("is_anomaly").astype(bool), found.is_anomaly)
    assert list(scores.column("top_feature")) == list(found.columns()["top_feature"])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "model.genad", "report.html", "scores.csv",
    ]  # fmt: skip
    loaded = library.load(tmp_path / "model.genad")
    data = library.read(folder / "plain.csv", kind="table")
    np.testing.assert_array_equal(loaded.anomaly_score(data.X), found.scores)
    assert loaded.training == library.Training(updates=50)  # neither checkpoint nor progress bar
    assert loaded.verbose is False


def test_same_bytes_on_repeat(folder, genad, quick, tmp_path):
    for name in ("one", "two"):
        genad("detect", folder / "plain.csv", "-o", tmp_path / name, "--no-report", "-q", *quick)
    one, two = ((tmp_path / name / "scores.csv").read_bytes() for name in ("one", "two"))
    assert one == two
    genad("detect", folder / "plain.csv", "-o", tmp_path / "3", "--no-report", "--seed", 1, *quick)
    assert (tmp_path / "3" / "scores.csv").read_bytes() != one


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_formats_and_left_out_files(kind, folder, genad, quick, tmp_path):
    genad(
        "detect", folder / "plain.csv", "-o", tmp_path, "--format", kind, "--no-report",
        "--no-model", *quick,
    )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == [f"scores.{kind}"]
    assert len(read_table(tmp_path / f"scores.{kind}")) == 600


def test_summary_for_people(folder, genad, quick, tmp_path):
    result = genad("detect", folder / "plain.csv", "-o", tmp_path, *quick)
    for said in (
        "600 rows x 4 columns, 1 missing cell; a table",
        "the same data, so anomalies in them may have been learnt as normal",
        "autoencoder (asked for)",
        "flagged",
        "split-conformal",
        "Look at      row 7: ",
        ", expected ",
        str(tmp_path / "scores.csv"),
        str(tmp_path / "report.html"),
        str(tmp_path / "model.genad"),
    ):
        assert said in result.stdout
    assert "Traceback" not in result.stderr


def test_quiet_says_nothing(folder, genad, quick, tmp_path):
    result = genad("detect", folder / "plain.csv", "-o", tmp_path, "-q", "--no-report", *quick)
    assert result.stdout == ""
    assert result.stderr == ""


def test_standard_input(folder, genad_json, quick, tmp_path):
    text = (folder / "plain.csv").read_text()
    facts = genad_json("detect", "-", "-o", tmp_path, "--no-report", *quick, stdin=text)
    assert facts["data"]["path"] == "standard input"
    assert facts["data"]["rows"] == 600
    assert facts["top"][0]["row"] == 7


def test_train_and_test(folder, genad_json, quick, tmp_path):
    facts = genad_json(
        "detect", folder / "table.csv", "--train", folder / "clean.csv", "--labels", "bad",
        "-o", tmp_path, "--no-report", *quick,
    )  # fmt: skip
    assert facts["train"]["rows"] == 500
    assert facts["detector"]["training_samples"] == 400
    assert facts["data"]["labelled"]["anomalies"] == 1
    assert facts["top"][0]["row"] == 7


def test_labels_in_a_file(folder, genad_json, quick, tmp_path):
    facts = genad_json(
        "detect", folder / "plain.csv", "--labels", folder / "labels.txt", "-o", tmp_path,
        "--no-report", *quick,
    )  # fmt: skip
    assert facts["data"]["labelled"] == {"anomalies": 1, "normal": 599}
    assert facts["against_labels"]["average_precision"] == 1.0


def test_fdr_and_alpha(folder, genad_json, quick, tmp_path):
    at = ("detect", folder / "plain.csv", "-o", tmp_path, "--no-report", *quick)
    found = library.detect(
        folder / "plain.csv",
        method="autoencoder",
        training=library.Training(updates=50),
        fdr=0.5,
    )
    facts = genad_json(*at, "--fdr", "0.5")
    assert facts["fdr"] == 0.5
    assert facts["flagged"] == found.is_anomaly.sum()
    loose = genad_json(*at, "--alpha", "0.2")
    assert "At most 20 % of normal rows" in loose["threshold"]["promise"]
    assert loose["flagged"] > genad_json(*at)["flagged"]


def test_settings_reach_the_detector(folder, genad, genad_json, quick, tmp_path):
    at = ("detect", folder / "plain.csv", "-o", tmp_path, "--no-report", *quick)
    facts = genad_json(
        *at, "--set", "latent=2", "--set", "training.updates=20", "--set", "holdout=0.5",
        "--set", "backbone.hidden=[8]", "--set", "threshold.rule=Quantile",
        "--set", "threshold.contamination=0.1",
    )  # fmt: skip
    assert facts["detector"]["updates"] == 20
    assert facts["detector"]["calibration_units"] == 300
    assert facts["threshold"]["rule"] == "Quantile"
    loaded = library.load(tmp_path / "model.genad")
    assert loaded.latent == 2
    assert loaded.backbone == library.Backbone(hidden=(8,))


def test_series_with_time_and_entities(folder, genad_json, quick, tmp_path):
    facts = genad_json(
        "detect", folder / "series.csv", "--time", "stamp", "--entity", "machine",
        "--window", "12", "-o", tmp_path, "--no-report", *quick,
    )  # fmt: skip
    assert facts["data"]["kind"] == "series"
    assert facts["data"]["entities"] == 2
    assert facts["data"]["columns"] == 2
    assert facts["detector"]["windows_of"] == 12
    event = facts["events"][0]
    assert event["entity"] == "B"
    assert event["peak"]["feature"] == "load"
    # Machine B breaks at hours 100 to 103, which are the odd rows 201 to 207 of the file.
    assert event["first_row"] <= 207
    assert event["last_row"] >= 201
    assert event["first_row"] % 2 == 1
    scores = read_table(tmp_path / "scores.csv")
    given = read_table(folder / "series.csv")
    assert list(scores.column("entity")) == list(given.column("machine"))
    np.testing.assert_array_equal(scores.column("time"), given.column("stamp"))
    peak = event["peak"]
    assert scores.column("score")[peak["row"]] == peak["score"]


def test_series_is_recognised_by_its_time(folder, genad_json, quick, tmp_path):
    lines = (folder / "series.csv").read_text().splitlines()
    one = [",".join(line.split(",")[::2]) for line in lines[:1] + lines[1::2]]
    (tmp_path / "one.csv").write_text("\n".join(one) + "\n")
    out = tmp_path / "out"
    facts = genad_json("detect", tmp_path / "one.csv", "-o", out, "--no-report", *quick)
    assert (facts["data"]["kind"], facts["data"]["why"]) == ("series", "it has ascending time stamps")
    facts = genad_json("detect", tmp_path / "one.csv", "-o", out, "--no-report", "--kind", "table", *quick)
    assert (facts["data"]["kind"], facts["data"]["columns"]) == ("table", 2)


@pytest.mark.parametrize(("name", "kind"), [("plain.csv", "table"), ("series.csv", "series")])
def test_default_detector(name, kind, folder, genad_json, tmp_path):
    more = ["--entity", "machine"] if kind == "series" else []
    facts = genad_json(
        "detect", folder / name, *more, "-o", tmp_path, "--no-report",
        "--set", "training.updates=50",
    )  # fmt: skip
    assert facts["detector"]["name"] == f"{kind}_committee"
    assert facts["detector"]["why"] == f"the default for a {kind}"
    top = facts["top"][0]
    assert top["row"] == 7 if kind == "table" else top["entity"] == "B"


BAD_INPUT = {
    "missing file": (["nowhere.csv"], "nowhere.csv does not exist"),
    "ragged row": (["ragged.csv"], "ragged.csv"),
    "empty file": (["empty.csv"], "empty"),
    "unknown method": (["table.csv", "--method", "autoencder"], "did you mean autoencoder"),
    "unknown setting": (["table.csv", "--set", "latnt=3"], "Did you mean latent?"),
    "unknown training": (["table.csv", "--set", "training.epoch=3"], "Did you mean training.epochs?"),
    "wrong type": (["table.csv", "--set", "latent=few"], "accepted is a whole number or null"),
    "out of range": (["table.csv", "--set", "latent=0"], "at least 1"),
    "no value": (["table.csv", "--set", "latent"], "write name=value"),
    "own option": (["table.csv", "--set", "random_state=3"], "use --seed"),
    "no parts": (["table.csv", "--set", "latent.size=3"], "latent has no parts"),
    "whole group": (["table.csv", "--method", "autoencoder", "--set", "training=3"], "training.PART=VALUE"),
    "both": (["table.csv", "--set", "training=3", "--set", "training.lr=1"], "give one of them"),
    "unknown rule": (["table.csv", "--set", "threshold.rule=Magic"], "use one of Conformal"),
    "rule's part": (
        ["table.csv", "--set", "threshold.rule=Quantile", "--set", "threshold.alpha=0.1"],
        "it takes threshold.contamination",
    ),
    "two thresholds": (
        ["table.csv", "--alpha", "0.1", "--set", "threshold.alpha=0.1"],
        "give one of the two",
    ),
    "alpha": (["table.csv", "--alpha", "1.5"], "above 0 and below 1"),
    "fdr": (["table.csv", "--fdr", "0"], "above 0 and below 1"),
    "window": (["table.csv", "--window", "1"], "--window"),
    "kind": (["table.csv", "--kind", "picture"], "--kind"),
    "labels": (["table.csv", "--labels", "worse"], "neither a column of the data"),
    "label values": (["table.csv", "--labels", "colour"], "use 1 for anomalies"),
    "text channel": (["table.csv", "--kind", "series"], "colour"),
    "time column": (["table.csv", "--time", "when"], "no column named 'when'"),
    "drop": (["table.csv", "--drop", "zzz"], "no column named 'zzz'"),
    "columns differ": (["table.csv", "--train", "series.csv"], "lacks"),
    "device": (["table.csv", "--device", "toaster"], "is not a device"),
    "twice stdin": (["-", "--train", "-"], "only one can be standard input"),
    "unknown option": (["table.csv", "--metod", "x"], "--metod"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(case, folder, genad, quick, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "ragged.csv").write_text("a,b\n1,2\n3\n4,5\n")
    (folder / "empty.csv").write_text("")
    args, said = BAD_INPUT[case]
    method = () if "--method" in args else quick
    result = genad("detect", *args, *method, "-o", tmp_path, "--no-report", code=2, stdin="a\n1\n")
    assert said in " ".join(result.stderr.replace("│", " ").split())
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_out_that_is_a_file(folder, genad, quick, tmp_path):
    (tmp_path / "taken").write_text("mine")
    result = genad("detect", folder / "plain.csv", "-o", tmp_path / "taken", *quick, code=2)
    assert "cannot be made a folder" in result.stderr
    assert (tmp_path / "taken").read_text() == "mine"


def test_debug_shows_the_traceback(genad):
    plain = genad("detect", "nowhere.csv", code=2).stderr
    assert len(plain.splitlines()) == 1
    for args in (["--debug", "detect", "nowhere.csv"], ["detect", "nowhere.csv", "--debug"]):
        shown = genad(*args, code=2).stderr
        assert "Traceback" in shown
        assert shown.splitlines()[-1] == plain.strip()


def test_failed_training_is_code_4(folder, genad, quick, tmp_path):
    result = genad(
        "detect", folder / "plain.csv", *quick, "--set", "training.lr=1e30",
        "--set", "training.optimizer=sgd", "-o", tmp_path, code=4,
    )  # fmt: skip
    assert result.stderr.splitlines()[-1].startswith("genad: ")
    assert not list(tmp_path.iterdir())


def test_unexpected_error_is_code_1(folder, genad, quick, tmp_path, monkeypatch):
    from genad.cli import detect

    def broken(*args, **options):
        raise RuntimeError("the roof is down")

    monkeypatch.setattr(detect, "write", broken)
    result = genad("detect", folder / "plain.csv", *quick, "-o", tmp_path, code=1)
    assert result.stderr.strip().endswith(
        "genad: RuntimeError: the roof is down (run it again with --debug to see where)"
    )


def test_foreign_checkpoint_is_code_3(folder, genad, quick, tmp_path):
    (tmp_path / "fit.ckpt").write_bytes(b"not a checkpoint")
    result = genad("detect", folder / "plain.csv", *quick, "-o", tmp_path, code=3)
    assert "fit.ckpt" in result.stderr
    assert (tmp_path / "fit.ckpt").read_bytes() == b"not a checkpoint"


def test_notes_are_short_and_on_stderr(folder, genad, quick, tmp_path):
    few = "\n".join((folder / "plain.csv").read_text().splitlines()[:61])
    result = genad("detect", "-", *quick, "-o", tmp_path, "--no-report", "--json", stdin=few)
    facts = json.loads(result.stdout)
    notes = [line for line in result.stderr.splitlines() if line.startswith("note: ")]
    assert [f"note: {note}" for note in facts["notes"]] == notes
    assert any("alpha=0.01 is not attainable" in note for note in notes)
    assert "Warning" not in result.stderr


def test_text_that_is_not_utf8_and_a_cell_that_is_no_number(genad_json, genad, quick, tmp_path):
    rng = np.random.default_rng(0)
    cells = [f"{v:.3f}" for v in rng.normal(50, 10, 200)]
    cells[20], cells[60] = "-", "5000"
    path = tmp_path / "t.csv"
    path.write_bytes(
        ("größe,w\n" + "".join(f"{c},{v:.3f}\n" for c, v in zip(cells, rng.normal(size=200), strict=True))).encode(
            "latin-1"
        )
    )
    asked = ("detect", path, "-o", tmp_path, "--no-report", *quick)
    assert "encoding='latin-1'" in genad(*asked, code=2).stderr
    facts = genad_json(*asked, "--encoding", "latin-1")
    assert any("'größe'" in note and "'-' in row 20" in note for note in facts["notes"])
    assert facts["top"][0]["row"] == 60
    scores = genad("score", path, "-m", tmp_path / "model.genad", "--encoding", "latin-1").stdout
    assert scores.count("\n") == 201
    security = ("cybersecurity", path, "-o", tmp_path / "s", "--encoding", "latin-1", *quick)
    assert genad_json(*security)["data"]["rows"] == 200
