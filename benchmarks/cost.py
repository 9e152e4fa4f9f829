"""What does each method cost? Default fit and score of 5,000 x 20 rows or a 20,000 x 10 series, and peak memory."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.common import ROOT
from benchmarks.rows import Rows

ROWS, STEPS = (5_000, 20), (20_000, 10)
#: Seconds of the clock after which a method is given up.
PATIENCE = 400
#: Methods that ask a language model have benchmarks of their own, in calls and tokens.
_ASKING = "genad.representation"

# A fresh process for each method, so that the peak is its own.
PROGRAM = """
import json, resource, sys, time, warnings
import numpy as np
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
import genad
name, kind, n, d = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
rng = np.random.default_rng(0)
if kind == "table":
    X = rng.normal(size=(n, 4)) @ rng.normal(size=(4, d)) + 0.3 * rng.normal(size=(n, d))
else:
    t = np.arange(n)[:, None]
    X = np.sin(t / rng.uniform(3, 20, d) + rng.uniform(0, 6, d)) + 0.2 * rng.normal(size=(n, d))
X = X.astype(np.float32)
detector = genad.create(name)
detector.fit(X[:200])  # the first fit of a process pays for start-up
begin = time.process_time()
detector = genad.create(name).fit(X)
fitted = time.process_time()
detector.anomaly_score(X)
done = time.process_time()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"fit s": fitted - begin, "score s": done - fitted, "peak GiB": peak / 2**20}))
"""


def methods(names: list[str] | None) -> Iterator[tuple[str, str]]:
    """Yield (name, kind of data) of every detector that is no wrapper, rows before series."""
    from genad.core.registry import Family, registered
    from genad.data.kinds import Kind

    found = []
    for name, cls in registered().items():
        wanted = names is None or name in names
        if not wanted or cls.card.family is Family.WRAPPER or name == "committee" or cls.__module__.startswith(_ASKING):
            continue
        if Kind.TABLE in cls.card.kinds:
            found.append((name, "table"))
        elif cls.reads_as is Kind.SERIES:
            found.append((name, "series"))
    yield from sorted(found, key=lambda each: each[1], reverse=True)


def measure(name: str, kind: str) -> dict[str, object]:
    """Return the seconds of processor and the peak of one method."""
    size = ROWS if kind == "table" else STEPS
    call = [sys.executable, "-c", PROGRAM, name, kind, *map(str, size)]
    row: dict[str, object] = {"method": f"genad {name}", "data": f"{size[0]:,} x {size[1]} {kind}"}
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT, check=False)
    except subprocess.TimeoutExpired:
        return row | {"remark": f"more than {PATIENCE} s of the clock"}
    if done.returncode:
        return row | {"remark": done.stderr.strip().splitlines()[-1][:200]}
    found = json.loads(done.stdout.splitlines()[-1])
    return row | {key: round(value, 2) for key, value in found.items()}


def main(options: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks cost --")
    parser.add_argument("--methods", nargs="*")
    args = parser.parse_args(options)
    rows = Rows(
        "cost",
        "python -m benchmarks cost",
        "What methods cost",
        "correlated normal rows with noise, or noisy waves; default settings, one thread; limits asked: 60 s and 1 GiB",
        ["Seconds are of one processor, not of the clock.",
         "The peak is that of the whole process: Python, torch and the data take about 0.4 GiB of it.",
         "Detectors of logs and those that ask a language model are left out; others without a row were not run yet."],
        ("method", "data"),
    )  # fmt: skip
    for name, kind in methods(args.methods):
        rows.add(measure(name, kind))
