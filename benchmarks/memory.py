"""How much memory do a large table and a long series take? Peak resident size of a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks.common import keep

PROGRAM = """
import json, resource, sys, time, warnings
import numpy as np
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
import genad
what = sys.argv[1]
rng = np.random.default_rng(0)
n, d = (5_000_000, 30) if what == "table" else (1_000_000, 10)
X = np.empty((n, d), np.float32)
for start in range(0, n, 250_000):
    X[start:start + 250_000] = rng.standard_normal((min(250_000, n - start), d), dtype=np.float32)
begin = time.perf_counter()
if what == "table":
    genad.Autoencoder().fit(X)
else:
    genad.Windowed(genad.PPCA(), window=100).fit(X)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"peak": peak, "seconds": time.perf_counter() - begin, "data": X.nbytes / 2**30}))
"""


def main(options: list[str]) -> None:  # noqa: ARG001 - all benchmarks are called alike
    rows = []
    for what, title, limit in (
        ("table", "fit 5,000,000 x 30 float32 rows (autoencoder)", 2.5),
        ("series", "fit 1,000,000 x 10 steps, window 100 (PPCA)", 1.5),
    ):
        done = subprocess.run([sys.executable, "-c", PROGRAM, what], check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)
        rows.append({"what": title, "peak GiB": round(found["peak"], 2), "limit": limit,
                     "of which data": round(found["data"], 2), "seconds": round(found["seconds"], 1)})  # fmt: skip
    keep(
        "memory",
        "Memory",
        "standard normal rows; peak of the whole process, the data included",
        rows,
        [],
    )
