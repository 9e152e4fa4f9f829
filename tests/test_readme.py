"""What the documents show runs: Python blocks, commands, and the generated table of methods."""

from __future__ import annotations

import importlib.util
import re
import runpy
import shlex
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import genad
from genad.cli import app
from genad.cli.catalog import parameters
from genad.core import registry
from genad.data.io import write_table

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(p for p in (ROOT / "docs").rglob("*.md") if "generated" not in p.parts),
]


def blocks(path: Path, language: str) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(path: Path) -> list[str]:
    lines = "".join(blocks(path, "bash")).replace("\\\n", " ").splitlines()
    parts = [part.strip() for line in lines for part in line.split("|")]
    return [part for part in parts if part.startswith("genad ")]


def generator():
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_method_pages_tell_what_the_family_shares():
    pages, told = generator(), {entry["name"]: entry["help"] for entry in parameters(registry.detector_class("nae"))}
    page = pages.method_page("nae", registry.detector_class("nae"))
    assert f"| `calm` | `1.0` | {told['calm']} |" in page
    for name in ("temperature", "holdout"):  # told by its own docstring, and once for all
        assert f"| `{name}` |" not in page
    assert "has its family's" not in pages.method_page("autoencoder", registry.detector_class("autoencoder"))


def write_examples(folder: Path) -> None:
    """Write the small files that the pages speak of."""
    rng = np.random.default_rng(0)

    def rows(n: int) -> dict[str, np.ndarray]:
        load = rng.normal(50, 10, n)
        heat = 0.5 * load + rng.normal(0, 1, n)
        return {"load": load, "heat": heat, "state": rng.choice(["on", "idle"], n)}

    def steps(n: int, first: int) -> dict[str, np.ndarray]:
        t = np.arange(first, first + n)
        time = np.datetime64("2026-01-01T00:00:00") + (60 * t).astype("timedelta64[s]")
        return {"time": time, "flow": np.sin(t / 8), "pressure": np.cos(t / 8)}

    new = rows(200)
    new["heat"][7] = 90.0
    write_table(rows(600), folder / "normal.csv")
    write_table(new, folder / "new.csv")
    write_table(steps(900, 0), folder / "pump_normal.csv")
    late = steps(300, 900)
    late["flow"][100:120] = 3.0
    write_table(late, folder / "pump.csv")
    write_parts(folder)
    lines = [f"2026-01-01 00:00:{i % 60:02} INFO worker: job {i} done in {i % 7} ms" for i in range(200)]
    (folder / "app.log").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_parts(folder):
    """Write a folder of photos in the layout of MVTec, and a model fitted on it."""
    from PIL import Image

    rng = np.random.default_rng(1)

    def photo(place, scratched=False):
        pixels = np.linspace(60, 180, 32)[:, None] + rng.normal(0, 3, (32, 32))
        pixels[12:15, 6:26] += 90 * scratched
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place)

    parts = folder / "parts"
    for i in range(110):
        photo(parts / "train" / "good" / f"{i}.png")
    mask = np.zeros((32, 32), np.uint8)
    mask[12:15, 6:26] = 255
    for i in range(3):
        photo(parts / "test" / "good" / f"{i}.png")
        photo(parts / "test" / "scratch" / f"{i}.png", scratched=True)
        (parts / "ground_truth" / "scratch").mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(parts / "ground_truth" / "scratch" / f"{i}_mask.png")
    model = genad.create("ppca", threshold=genad.Conformal(0.1))
    model.fit(genad.read_images(parts / "train" / "good")).save(folder / "parts.genad")


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: str(p.relative_to(ROOT)))
def test_python_blocks_run(page, tmp_path, monkeypatch):
    """The blocks of a page, one after the other in one module, as a reader would type them."""
    write_examples(tmp_path)
    monkeypatch.chdir(tmp_path)
    # A page may register a method; the other tests must not see it.
    monkeypatch.setattr(registry._CATALOG, "_classes", registry.registered())
    # A block that is a whole file has a future import, which must come first in the joined one.
    text = "\n".join(blocks(page, "python")).replace("from __future__ import annotations\n", "")
    script = tmp_path / "page.py"
    script.write_text("from __future__ import annotations\n" + text, encoding="utf-8")
    runpy.run_path(str(script), run_name="page_of_the_documents")


@pytest.mark.parametrize("line", sorted({line for page in PAGES for line in commands(page)}))
def test_commands_exist_with_their_options(line):
    import typer

    from genad.cli import app

    group = typer.main.get_command(app)
    name, *arguments = shlex.split(line.split(" > ")[0], comments=True)[1:]
    if name.startswith("-"):
        arguments, command = [name, *arguments], group
    else:
        assert name in group.commands, f"{line}: there is no command {name}"
        command = group.commands[name]
    if {"--help", "--version"} & set(arguments):
        return
    command.make_context(name, arguments)


def test_there_are_commands_and_blocks_to_check():
    assert len(commands(ROOT / "README.md")) >= 5
    assert sum(bool(blocks(page, "python")) for page in PAGES) >= 5


@pytest.mark.parametrize("with_data", [False, True], ids=["spare-data", "evaluation-data"])
def test_demo_writes_what_it_names(with_data, tmp_path, monkeypatch, capsys, request):
    folder = request.getfixturevalue("data_dir") if with_data else tmp_path / "nowhere"
    monkeypatch.setenv("GENAD_DATA", str(folder))
    # A quick method: the default detectors have tests of their own.
    script = runpy.run_path(str(ROOT / "examples" / "demo.py"), run_name="demo")
    script["main"](["--out", str(tmp_path / "demo"), "--method", "autoencoder"])
    said = capsys.readouterr().out
    assert ("The evaluation data are not in" in said) == (not with_data)
    assert float(re.search(r"AUROC (\d\.\d+)", said)[1]) > 0.85
    flagged = [re.sub(r"\s+", " ", found) for found in re.findall(r"\d+ of [\d,]+ [a-z ]+\s+flagged", said)]
    for kind, line in zip(("table", "series"), re.findall(r"^\s*(genad detect .*)$", said, re.MULTILINE), strict=True):
        result = CliRunner().invoke(app, [*shlex.split(line)[1:], "--out", str(tmp_path / kind)])
        assert flagged[kind == "series"] in re.sub(r"\s+", " ", result.output)
    for kind in ("table", "series"):
        for name in ("report.html", "scores.csv", "model.genad", "train.csv", "data.csv"):
            path = tmp_path / "demo" / kind / name
            assert path.stat().st_size > 100
            assert str(path) in said


def test_demo_finds_what_history_knows_without_evaluation_data(tmp_path):
    script = runpy.run_path(str(ROOT / "examples" / "demo.py"), run_name="demo")
    task = script["countries"]()
    detections = script["run"](task, tmp_path, Console(quiet=True))
    flagged = {
        (str(country), int(year))
        for country, year in zip(
            detections.entity[detections.is_anomaly], detections.time[detections.is_anomaly], strict=True
        )
    }
    known = {("Cambodia", 1977), ("China", 1962), ("Bosnia and Herzegovina", 1997), ("Somalia", 1992)}
    assert known <= flagged
    assert len(flagged) < 0.05 * len(detections.scores)


def test_generated_sections_of_the_readme_are_up_to_date():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert generator().readme(text) == text, "run: python docs/generate.py"


def test_links_between_files_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#]+?)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target} is missing"


class TestBenchmarkFiles:
    """The generator takes what a benchmark leaves, and says what it leaves out."""

    @pytest.fixture
    def made(self, tmp_path, monkeypatch):
        module = generator()
        monkeypatch.setattr(module, "RESULTS", tmp_path)
        return module

    def test_table_with_notes_and_command(self, made, tmp_path):
        (tmp_path / "speed.json").write_text(
            '{"title": "Speed", "command": "make bench", "data": "one set", "machine": "2 cores.",'
            ' "notes": ["One run."],'
            ' "rows": [{"who": "ours", "seconds": 0.123456, "n": 1000000},'
            ' {"who": "a|b", "ratio": 12345.6}]}'
        )
        text = made.readme_benchmarks()
        assert "### Speed" in text
        assert "One set. 2 cores." in text
        assert "- One run." in text
        assert "```bash\nmake bench\n```" in text
        assert "| who | seconds | n | ratio |" in text
        assert "|---|---:|---:|---:|" in text
        assert "| ours | 0.1235 | 1,000,000 |  |" in text
        assert "| a\\|b |  |  | 12,346 |" in text

    def test_missing_keys_and_unreadable_files(self, made, tmp_path, capsys):
        (tmp_path / "bare_one.json").write_text('{"rows": [{"a": 1}, 5]}')
        (tmp_path / "broken.json").write_text('{"rows": ')
        (tmp_path / "list.json").write_text("[1]")
        text = made.readme_benchmarks()
        assert "### bare one" in text
        assert text.count("\n| ") == 2  # the header and one row
        said = capsys.readouterr().err
        assert re.findall(r"(\S+): left out", said) == ["broken.json", "list.json"]

    def test_long_tables_stay_out_of_the_readme(self, made, tmp_path):
        rows = ", ".join('{"a": 1}' for _ in range(40))
        (tmp_path / "long.json").write_text('{"title": "Long", "rows": [' + rows + "]}")
        (tmp_path / "short.json").write_text('{"title": "Short", "rows": [{"a": 1}]}')
        text = made.readme_benchmarks()
        assert "Short" in text
        assert "Long" not in text
        assert "1 more" in text

    def test_nothing_yet(self, made):
        assert "make bench" in made.readme_benchmarks()

    def test_markers_are_needed(self, made):
        with pytest.raises(ValueError, match="markers"):
            made.fill("no markers", "methods", "x")
