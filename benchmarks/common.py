"""What the benchmarks share: the data, the adapters of peers, and the way results are kept."""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("GENAD_DATA", ROOT.parent / "shared" / "data"))
RESULTS = Path(__file__).resolve().parent / "results"


class Genad:
    """Adapter of a genad detector."""

    def __init__(self, make: Callable[[int], Any], seed: int = 0) -> None:
        self.detector = make(seed)

    def fit(self, X: np.ndarray) -> None:
        self.detector.fit(X)

    def score(self, X: np.ndarray) -> np.ndarray:
        return self.detector.anomaly_score(X)


class Peer:
    """Adapter of a detector with scikit-learn's or PyOD's methods; higher scores are more anomalous here."""

    def __init__(self, make: Callable[[int], Any], seed: int = 0) -> None:
        self.model = make(seed)

    def fit(self, X: np.ndarray) -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            self.model.fit(X)

    def score(self, X: np.ndarray) -> np.ndarray:
        if hasattr(self.model, "kneighbors"):
            return self.model.kneighbors(X)[0].mean(axis=1)
        if type(self.model).__module__.startswith("sklearn"):
            return -self.model.score_samples(X)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return self.model.decision_function(X)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result and the seconds."""
    begin = time.perf_counter()
    result = work()
    return result, time.perf_counter() - begin


def tables(seed: int) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (name, train, test, labels): half of the normals to train, z-scaled by them; the rest to test."""
    for path in sorted((DATA / "tabular").glob("adbench_*.npz")):
        with np.load(path, allow_pickle=False) as file:
            X, y = file["X"].astype(np.float32), file["y"].astype(int).ravel()
        rng = np.random.default_rng(seed)
        normal = rng.permutation(np.flatnonzero(y == 0))
        half = min(len(normal) // 2, 20_000)
        train, test = normal[:half], np.r_[normal[half : half + 20_000], np.flatnonzero(y == 1)]
        mean, scale = X[train].mean(0), X[train].std(0)
        scale[scale == 0] = 1
        yield (
            path.stem.removeprefix("adbench_"),
            (X[train] - mean) / scale,
            (X[test] - mean) / scale,
            y[test],
        )


def entities() -> Iterator[tuple[str, str, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (set, entity, train, test, labels by step) of every labelled series."""
    folder = DATA / "series"
    for name in ("smd", "asd", "smap_msl", "ucr"):
        for path in sorted((folder / name).glob("*.npz")):
            with np.load(path, allow_pickle=False) as file:
                train, test, y = file["train"], file["test"], file["test_label"]
            yield name, path.stem, train.reshape(len(train), -1), test.reshape(len(test), -1), y
    with np.load(folder / "tep.npz", allow_pickle=False) as file:
        for key in file.files:
            if key.startswith("test_fault"):
                yield (
                    "tep",
                    key,
                    file["train"],
                    file[key],
                    (np.arange(len(file[key])) >= 160).astype(int),
                )
    yield from _long_form(folder / "skab.parquet", "skab", lambda n: 400)
    yield from _long_form(folder / "nab.parquet", "nab", lambda n: int(0.15 * n))


def _long_form(path: Path, name: str, train_steps: Callable[[int], int]) -> Iterator[Any]:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    files = np.array(table.column("file").to_pylist())
    label = "anomaly" if "anomaly" in table.column_names else "label"
    skip = {"file", "datetime", "timestamp", "anomaly", "changepoint", "label"}
    columns = [c for c in table.column_names if c not in skip]
    values = np.column_stack([table.column(c).to_numpy().astype(float) for c in columns])
    y = table.column(label).to_numpy().astype(int)
    for file in np.unique(files):
        rows = files == file
        if "free" in str(file):
            continue
        X, labels = values[rows], y[rows]
        n = train_steps(len(X))
        yield name, str(file), X[:n], X[n:], labels[n:]


def keep(
    name: str, title: str, data: str, rows: list[dict[str, Any]], notes: list[str], options: list[str] | None = None
) -> None:
    """Write the figures of a benchmark and print them."""
    RESULTS.mkdir(exist_ok=True)
    record = {
        "title": title,
        "command": " ".join(
            [f"python -m benchmarks {name.split('_', maxsplit=1)[0]}", *(["--", *options] if options else [])]
        ),
        "data": data,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "rows": rows,
        "notes": notes,
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)


def quiet() -> None:
    """One thread, and no advice about the calibration of small sets."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
