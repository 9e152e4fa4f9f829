"""Files, a quick model, and a way to run the command line in this process."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from genad.cli import app

QUICK = ("--method", "autoencoder", "--set", "training.updates=50")


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Folder with a labelled table (row 7 is odd) and an interleaved series (machine B breaks)."""
    place = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 3))
    X[7] += 9
    colour = rng.choice(["red", "blue"], 600)
    lines = ["a,b,c,colour,bad"]
    for i, row in enumerate(X):
        cells = ",".join(f"{v:.6f}" for v in row)
        lines.append(f"{cells},{colour[i]},{int(i == 7)}")
    lines[3] = lines[3].replace(lines[3].split(",")[0], "", 1)  # one missing cell
    (place / "table.csv").write_text("\n".join(lines) + "\n")
    (place / "plain.csv").write_text("\n".join(line.rsplit(",", 1)[0] for line in lines) + "\n")
    (place / "clean.csv").write_text("\n".join([lines[0], *lines[101:]]) + "\n")
    (place / "labels.txt").write_text("\n".join(["label", *(line[-1] for line in lines[1:])]) + "\n")

    lines = ["stamp,machine,load,heat"]
    start = np.datetime64("2024-01-01", "s")
    for t in range(400):
        for machine in "AB":
            load = np.sin(t / 4) + 0.05 * rng.normal() + (5 if machine == "B" and 100 <= t < 104 else 0)
            heat = np.cos(t / 4) + 0.05 * rng.normal()
            lines.append(f"{start + np.timedelta64(t, 'h')},{machine},{load:.6f},{heat:.6f}")
    (place / "series.csv").write_text("\n".join(lines) + "\n")
    return place


@pytest.fixture(scope="session")
def genad():
    """Return a function that runs the command line and gives its result."""

    def run(*args, code=0, stdin=None):
        result = CliRunner().invoke(app, [str(arg) for arg in args], input=stdin)
        assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr)
        return result

    return run


@pytest.fixture(scope="session")
def genad_json(genad):
    """Return a function that runs the command line with --json and gives what it printed."""

    def run(*args, stdin=None):
        result = genad(*args, "--json", stdin=stdin)
        return json.loads(result.stdout, parse_constant=pytest.fail)

    return run


@pytest.fixture(scope="session")
def model(folder, genad):
    """Model file of a quick autoencoder of the table."""
    path = folder / "quick.genad"
    genad("fit", folder / "table.csv", "-m", path, "--labels", "bad", *QUICK)
    return path


@pytest.fixture(scope="session")
def series_model(folder, genad):
    """Model file of a quick autoencoder over windows of the series."""
    path = folder / "series.genad"
    genad("fit", folder / "series.csv", "-m", path, "--entity", "machine", "--window", "12", *QUICK)
    return path


@pytest.fixture
def quick():
    """Options of a quick detector."""
    return QUICK
