"""Every example runs, and finds what its first line says."""

from __future__ import annotations

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


@pytest.mark.parametrize("name", FOUND)
def test_example_runs(name, tmp_path):
    script = EXAMPLES / f"{name}.py"
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", str(script)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(said in done.stdout for said in FOUND[name]), done.stdout
    assert not list(tmp_path.iterdir())
    assert len(script.read_text(encoding="utf-8").splitlines()) < 40
