"""`genad fit`, `score`, `explain` and `restore`."""

from __future__ import annotations

import json

import numpy as np
import pytest

import genad as library
from genad.cli.output import ENDINGS, check_target
from genad.data.io import read_table
from genad.data.writer import write_table
from genad.errors import InputError


def test_fit_writes_a_model(folder, genad_json, genad, quick, tmp_path):
    path = tmp_path / "new" / "m.genad"
    facts = genad_json("fit", folder / "table.csv", "-m", path, "--labels", "bad", *quick)
    assert facts["files"] == {"model": str(path)}
    assert facts["detector"]["updates"] == 50
    assert library.load(path).training == library.Training(updates=50)
    assert [p.name for p in path.parent.iterdir()] == ["m.genad"]
    told = genad("fit", folder / "table.csv", "-m", path, "--labels", "bad", *quick).stdout
    assert "599 normal" in told
    assert "At most 1 % of normal rows" in told


def test_score_to_standard_output_and_files(folder, genad, model, tmp_path):
    asked = ("score", folder / "plain.csv", "-m", model)
    printed = genad(*asked).stdout_bytes
    genad(*asked, "-o", tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_bytes() == printed
    found = library.load(model).detect(library.read(folder / "plain.csv").X)
    for ending in (".parquet", ".jsonl", ".csv.gz"):
        genad(*asked, "-o", tmp_path / f"s{ending}")
        table = read_table(tmp_path / f"s{ending}")
        np.testing.assert_array_equal(table.column("score"), found.scores)
        np.testing.assert_array_equal(table.column("is_anomaly").astype(bool), found.is_anomaly)


def test_score_with_fdr(folder, genad, model, tmp_path):
    genad("score", folder / "plain.csv", "-m", model, "--fdr", "0.5", "-o", tmp_path / "s.csv")
    found = library.load(model).detect(library.read(folder / "plain.csv").X, fdr=0.5)
    flags = read_table(tmp_path / "s.csv").column("is_anomaly").astype(bool)
    np.testing.assert_array_equal(flags, found.is_anomaly)


def test_score_takes_standard_input(folder, genad, model):
    text = (folder / "plain.csv").read_text()
    direct = genad("score", folder / "plain.csv", "-m", model).stdout
    assert genad("score", "-", "-m", model, stdin=text).stdout == direct


def test_score_of_a_series_is_in_the_order_of_the_file(folder, genad, series_model, tmp_path):
    genad(
        "score", folder / "series.csv", "-m", series_model, "--entity", "machine",
        "-o", tmp_path / "s.parquet",
    )  # fmt: skip
    table = read_table(tmp_path / "s.parquet")
    X = library.read(folder / "series.csv", entity="machine").X
    scores = library.load(series_model).anomaly_score(X)
    np.testing.assert_array_equal(table.column("score"), scores)
    assert list(table.column("entity")[:4]) == ["A", "B", "A", "B"]


def test_explain(folder, genad, genad_json, model):
    asked = ("explain", folder / "plain.csv", "-m", model, "--row", 7)
    facts = genad_json(*asked)
    found = library.load(model).detect(library.read(folder / "plain.csv").X)
    assert facts == json.loads(json.dumps(found.explain(7).to_dict()))
    assert [part["name"] for part in genad_json(*asked, "--top", 2)["parts"]] == [
        part["name"] for part in facts["parts"][:2]
    ]
    lines = genad(*asked, "--top", 2).stdout.splitlines()
    assert lines[0].startswith("row 7: score ")
    assert len(lines) == 3
    assert f"{facts['parts'][0]['name']} is " in lines[1]
    assert ", expected " in lines[1]


def test_explain_names_the_nearest_rows_learnt_from(folder, genad, genad_json, tmp_path):
    path = tmp_path / "memory.genad"
    genad("fit", folder / "plain.csv", "-m", path, "--method", "nearest_memory")
    asked = ("explain", folder / "plain.csv", "-m", path, "--row", 7)
    near = genad_json(*asked)["nearest"]
    data = library.read(folder / "plain.csv").X
    found = library.load(path).nearest(data)
    assert [one["unit"] for one in near] == found.units[7].tolist()
    assert 7 not in found.units[7]
    last = genad(*asked).stdout.splitlines()[-1]
    assert last.startswith(f"  nearest of the normal ones learnt from: {near[0]['unit']} (distance ")


def test_explain_counts_rows_of_the_file(folder, genad_json, series_model):
    facts = genad_json("explain", folder / "series.csv", "-m", series_model, "--entity", "machine", "--row", 203)
    assert facts["index"] == 203
    given = read_table(folder / "series.csv")
    part = facts["parts"][0]
    assert part["name"] == "load"
    assert part["observed"] == given.column("load")[203]


def test_restore_keeps_the_columns(folder, genad, model, tmp_path):
    genad("restore", folder / "plain.csv", "-m", model, "-o", tmp_path / "r.parquet")
    restored, given = read_table(tmp_path / "r.parquet"), read_table(folder / "plain.csv")
    assert restored.names == given.names
    X = library.read(folder / "plain.csv").X
    expected = library.load(model).restore(X)
    for name in given.names:
        np.testing.assert_array_equal(restored.column(name), expected.column(name))
    assert abs(restored.column("a")[7]) < abs(given.column("a")[7])
    assert genad("restore", folder / "plain.csv", "-m", model).stdout.startswith('"a","b","c"')


def test_restore_leaves_time_and_entity_alone(folder, genad, series_model, tmp_path):
    genad(
        "restore", folder / "series.csv", "-m", series_model, "--entity", "machine",
        "-o", tmp_path / "r.parquet",
    )  # fmt: skip
    restored, given = read_table(tmp_path / "r.parquet"), read_table(folder / "series.csv")
    assert restored.names == given.names
    np.testing.assert_array_equal(restored.column("stamp"), given.column("stamp"))
    assert list(restored.column("machine")) == list(given.column("machine"))
    # In the order of the file: machine B's fault is at hour 101, which is row 203.
    assert restored.column("load")[203] < given.column("load")[203] - 1
    quiet = slice(400, 600)
    assert np.abs(restored.column("load")[quiet] - given.column("load")[quiet]).mean() < 1


def test_bad_models_are_code_3(folder, genad, model, tmp_path):
    broken = tmp_path / "cut.genad"
    broken.write_bytes(model.read_bytes()[:-100])
    for path in (tmp_path / "none.genad", folder / "plain.csv", broken):
        for command in ("score", "restore"):
            result = genad(command, folder / "plain.csv", "-m", path, code=3)
            assert path.name in result.stderr
            assert len(result.stderr.splitlines()) == 1
            assert result.stdout == ""


def test_columns_left_out_of_the_fit_may_come_again_or_not(folder, genad, quick, tmp_path):
    path = tmp_path / "m.genad"
    for command in (["fit", "-m", path], ["detect", "-o", tmp_path, "--no-report"]):
        genad(*command, folder / "table.csv", "--labels", "bad", "--drop", "colour", *quick)
        given = path if command[0] == "fit" else tmp_path / "model.genad"
        scores = [genad("score", folder / name, "-m", given).stdout for name in ("table.csv", "plain.csv")]
        assert scores[0] == scores[1]
        assert scores[0].count("\n") == 601


def test_columns_that_differ_are_code_2(folder, genad, model, tmp_path):
    lines = (folder / "plain.csv").read_text().splitlines()
    more = tmp_path / "more.csv"
    more.write_text("\n".join([f"{lines[0]},extra", *(f"{line},1" for line in lines[1:])]))
    for command in (["score"], ["restore"], ["explain", "--row", 0]):
        result = genad(*command, more, "-m", model, code=2)
        assert "'extra' that fit did not see" in result.stderr
        genad(*command, more, "-m", model, "--drop", "extra")
    result = genad("score", folder / "series.csv", "-m", model, code=2)
    assert "lacks 'a', 'b', 'c', 'colour'" in result.stderr


def test_row_beyond_the_end(folder, genad, model):
    result = genad("explain", folder / "plain.csv", "-m", model, "--row", 600, code=2)
    assert "use 0 to 599" in result.stderr


def test_targets_are_checked_before_work(folder, genad, model, tmp_path):
    missing = tmp_path / "no" / "s.csv"
    for out, said in ((tmp_path / "s.xlsx", "it must end in"), (missing, "which is no folder")):
        result = genad("score", folder / "nowhere.csv", "-m", model, "-o", out, code=2)
        assert said in result.stderr
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        check_target(str(tmp_path / "d.csv"))


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_ending_can_be_written(ending, tmp_path):
    check_target(str(tmp_path / f"t{ending}"))
    assert write_table({"x": [1.0, 2.0]}, tmp_path / f"t{ending}").is_file()


def test_a_model_remembers_how_its_file_was_read(folder, genad, tmp_path):
    path = tmp_path / "m.genad"
    named = ("--time", "stamp", "--entity", "machine")
    genad("fit", folder / "series.csv", "-m", path, *named, "--method", "ppca")
    assert dict(library.load(path).reading_) == {"time": "stamp", "entity": "machine"}
    told = genad("score", folder / "series.csv", "-m", path, *named).stdout
    assert genad("score", folder / "series.csv", "-m", path).stdout == told


def test_a_model_remembers_its_sessions(genad, tmp_path):
    lines = [f"2024-01-31 13:{i // 60:02}:{i % 60:02},000 INFO [main] app.Job - step {i % 3} done" for i in range(600)]
    (tmp_path / "app.log").write_text("\n".join(lines) + "\n")
    path, log = tmp_path / "m.genad", tmp_path / "app.log"
    genad("fit", log, "-m", path, "--session", "lines=6", "--method", "template_count_pca")
    assert len(genad("score", log, "-m", path).stdout.splitlines()) == 1 + 100
    assert len(genad("score", log, "-m", path, "--session", "lines=12").stdout.splitlines()) == 1 + 50
