"""`genad list`, `info`, `bench`, `--version` and `--help`."""

from __future__ import annotations

import json
import sys

import pytest

import genad as library
from genad.cli import bench
from genad.cli.terminal import EXIT_CODES
from genad.core.registry import registered


def test_version(genad):
    assert genad("--version").stdout == f"genad {library.__version__}\n"


def test_no_arguments_show_the_help(genad):
    assert "detect" in genad(code=2).output


def test_help_tells_exit_codes(genad):
    for command in ([], ["detect"], ["fit"], ["score"], ["explain"], ["restore"], ["list"], ["bench"]):
        shown = " ".join(genad(*command, "--help").stdout.split())
        assert all(f"{code} {meaning}" in shown for code, meaning in EXIT_CODES.items())


def test_unknown_command(genad):
    assert "detct" in genad("detct", code=2).stderr


def test_list_agrees_with_the_registry(genad, genad_json):
    lines = genad("list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == library.list_detectors()
    series = genad_json("list", "*", "--kind", "series")
    assert [card["name"] for card in series] == library.list_detectors(kind="series")
    some = genad_json("list", "auto*", "--family", "autoencoder")
    assert [card["name"] for card in some] == ["autoencoder"]
    assert some[0]["year"] == 2014
    assert some[0]["kinds"] == ["table", "window", "image", "video"]


def test_list_of_nothing(genad, genad_json):
    result = genad("list", "zzz*")
    assert result.stdout == ""
    assert "No method fits" in result.stderr
    assert genad_json("list", "zzz*") == []


def test_list_refuses_unknown_words(genad):
    assert "use one of table" in genad("list", "--kind", "smell", code=2).stderr
    assert "use one of autoencoder" in genad("list", "--family", "smith", code=2).stderr


def test_info(genad, genad_json):
    facts = genad_json("info", "autoencoder")
    assert facts["title"] == library.Autoencoder.card.title
    latent = next(entry for entry in facts["parameters"] if entry["name"] == "latent")
    assert latent["default"] is None
    assert "Length of the code" in latent["help"]
    page = genad("info", "autoencoder").stdout
    assert "When to use." in page
    assert "When it fails." in page
    assert "holdout = 0.2" in page
    assert "--seed" in page


@pytest.mark.parametrize("name", sorted(registered()))
def test_info_of_every_method_is_whole_and_without_markup(name, genad_json):
    facts = genad_json("info", name)
    assert facts["about"]
    assert "``" not in facts["about"]
    assert ":class:" not in facts["about"]
    untold = [entry["name"] for entry in facts["parameters"] if not entry["help"]]
    assert not untold


def test_info_of_an_unknown_method(genad):
    assert "did you mean autoencoder" in genad("info", "autoencoders", code=2).stderr


@pytest.fixture
def benchmarks(tmp_path, monkeypatch):
    """A folder of benchmarks with one that fails on demand."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "speed.py").write_text('"""Measure speed.\n\nMore."""\nimport sys\nsys.exit(len(sys.argv) - 1)\n')
    (folder / "_shared.py").write_text("")
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "src" / "genad" / "cli" / "bench.py"))
    return folder


def test_bench_lists_and_runs(genad, benchmarks):
    lines = genad("bench").stdout.splitlines()
    assert lines[1:] == ["  speed  Measure speed."]
    genad("bench", "speed", code=0)
    genad("bench", "speed", "--small", "x", code=2)
    assert "there are: speed" in genad("bench", "sped", code=2).stderr


def test_bench_without_a_checkout(genad, benchmarks, monkeypatch):
    benchmarks.rename(benchmarks.with_name("elsewhere"))
    monkeypatch.chdir(benchmarks.parent)
    result = genad("bench", code=2)
    assert "the benchmarks come with the source" in result.stderr


def test_json_is_all_there_is_on_stdout(genad):
    json.loads(genad("list", "--json").stdout)
    assert sys.exc_info() == (None, None, None)
