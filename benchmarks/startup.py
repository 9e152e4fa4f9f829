"""How long do ``import genad`` and ``genad --help`` take? Best of several runs of a fresh process."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.common import keep, timed


def best(command: list[str], runs: int = 7) -> float:
    """Return the shortest of several runs, in seconds."""
    return min(timed(lambda: subprocess.run(command, check=True, capture_output=True))[1] for _ in range(runs))


def main(options: list[str]) -> None:  # noqa: ARG001 - all benchmarks are called alike
    bare = best([sys.executable, "-c", "pass"])
    loaded = best([sys.executable, "-c", "import genad"])
    helped = best([sys.executable, "-m", "genad.cli", "--help"])
    rows = [
        {
            "what": "import genad, beyond the bare interpreter",
            "seconds": round(loaded - bare, 3),
            "limit": 0.15,
        },
        {"what": "genad --help, whole process", "seconds": round(helped, 3), "limit": 0.6},
    ]
    keep("startup", "Start-up", "fresh processes, best of 7", rows, [])
