"""Every example runs, and finds what its first line says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

# What each prints when it works.
FOUND = {
    "table": ("AUROC 0.9", "split-conformal", "expected"),
    "series": ("2024-01-30", "load is", "2024-02-02", "shake is"),
    "stream": ("worst row 1200", "worst row 2000", "worst row 2800"),
    "images": ("rows ", "or less on average"),
    "logs": ("01040x", "01077x", "never learnt: 'job rolled back", "was expected"),
    "custom_method": ("[-1]", "x1: -2, expected"),
}


# Runs scripts as a user would, one after the other, and writes what each printed, left behind or failed with.
RUN = """
import contextlib, io, json, os, runpy, sys, traceback
report = {}
for script in sys.argv[1:]:
    printed, error = io.StringIO(), ""
    with contextlib.redirect_stdout(printed):
        try:
            runpy.run_path(script, run_name="__main__")
        except BaseException:
            error = traceback.format_exc()
    report[script] = [printed.getvalue(), error, os.listdir()]
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Run all examples in one fresh process, so that libraries are loaded once."""
    scripts = [str(EXAMPLES / f"{name}.py") for name in FOUND]
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", RUN, *scripts],
        capture_output=True,
        text=True,
        cwd=tmp_path_factory.mktemp("examples"),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", FOUND)
def test_example_runs(name, ran):
    script = EXAMPLES / f"{name}.py"
    printed, error, left = ran[str(script)]
    assert not error, error
    assert all(said in printed for said in FOUND[name]), printed
    assert not left
    assert len(script.read_text(encoding="utf-8").splitlines()) < 40
