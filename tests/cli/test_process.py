"""The command line as a process: what it loads, pipes, and interruption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

GENAD = (sys.executable, "-m", "genad.cli")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
HEAVY = ("torch", "sklearn", "pandas", "plotly", "scipy", "pyarrow")


def python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_import_loads_nothing_heavy():
    code = f"import genad, sys; print(*(m for m in {(*HEAVY, 'numpy', 'typer')!r} if m in sys.modules))"
    assert python(code) == []


def test_help_loads_nothing_heavy():
    code = f"""
import sys
from genad.cli import app
for args in (["--help"], ["detect", "--help"], ["--version"]):
    try:
        app(args, standalone_mode=True)
    except SystemExit:
        pass
print("loaded:", *(m for m in {HEAVY!r} if m in sys.modules))
"""
    assert python(code)[-1] == "loaded:"


@pytest.mark.parametrize("module", ["genad", "genad.cli"])
def test_runs_as_a_module(module):
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("genad ")


def test_pipe_into_a_json_reader(folder, quick, tmp_path):
    detect = [*GENAD, "detect", "-", "--json", "-o", str(tmp_path), "--no-report", *quick]
    with (folder / "plain.csv").open("rb") as file:
        first = subprocess.Popen(detect, stdin=file, stdout=subprocess.PIPE, env=ENVIRONMENT)
        reader = [sys.executable, "-m", "json.tool"]
        second = subprocess.run(reader, stdin=first.stdout, capture_output=True, check=False)
        first.stdout.close()
    assert first.wait() == 0
    assert second.returncode == 0, second.stderr
    assert b'"row": 7' in second.stdout


def test_broken_pipe_is_silent(folder, model):
    score = [*GENAD, "score", str(folder / "plain.csv"), "-m", str(model)]
    process = subprocess.Popen(score, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT)
    process.stdout.close()  # the reader leaves before anything is written
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 0
    assert errors == b""


def test_a_quick_error_ends_with_its_code(tmp_path):
    (tmp_path / "header.csv").write_text("a,b,c\n")
    (tmp_path / "rows.csv").write_text("a,b,c\n1,2,3\n4,5,6\n")
    # Threads of a reader that still run must not bring the ending process down.
    for args in (*[["header.csv"]] * 3, ["rows.csv", "--labels", "nope"]):
        detect = [*GENAD, "detect", *args]
        done = subprocess.run(detect, capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert done.stderr.startswith("genad: ")


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is not a signal to one process there")
def test_interrupted_fit_resumes(folder, tmp_path):
    out = tmp_path / "out"
    checkpoint = out / "fit.ckpt"
    detect = [
        *GENAD, "detect", str(folder / "plain.csv"), "-o", str(out), "--no-report", "--no-model",
        "--method", "autoencoder", "--set", "training.updates=2000",
        "--set", "training.checkpoint_seconds=0",
    ]  # fmt: skip
    process = subprocess.Popen(detect, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    errors = process.communicate()[1]
    assert process.returncode == 130, errors
    assert f"the training so far is in {checkpoint}" in errors
    assert "run the same command again" in errors
    assert [path.name for path in out.iterdir()] == ["fit.ckpt"]

    again = subprocess.run(detect, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert again.returncode == 0, again.stderr
    assert f"going on from {checkpoint}" in again.stderr
    assert [path.name for path in out.iterdir()] == ["scores.csv"]
    resumed = (out / "scores.csv").read_bytes()
    whole = subprocess.run(detect, capture_output=True, env=ENVIRONMENT, check=False)
    assert whole.returncode == 0
    assert (out / "scores.csv").read_bytes() == resumed
