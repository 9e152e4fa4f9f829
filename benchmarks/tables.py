"""How well does each detector find anomalies in tables? One-class protocol, 14 tables, beside peers."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.common import RESULTS, Genad, Peer, keep, quiet, tables

METHODS = (
    "table_committee", "nearest_memory", "denoising_autoencoder", "autoencoder", "vae", "flow", "dte", "dsebm",
    "ppca", "dagmm", "so_gaal", "mo_gaal",
)  # fmt: skip


def peers() -> dict[str, object]:
    """Return factories of the peers; PyOD's only when it is installed."""
    from sklearn.ensemble import IsolationForest
    from sklearn.neighbors import NearestNeighbors

    found = {
        "scikit-learn 5-NN": lambda seed: NearestNeighbors(n_neighbors=5),
        "scikit-learn IsolationForest": lambda seed: IsolationForest(random_state=seed),
    }
    try:
        from pyod.models.auto_encoder import AutoEncoder
        from pyod.models.vae import VAE
    except ImportError:
        print("pyod is not installed; its rows are left out")
        return found
    return found | {
        "pyod AutoEncoder": lambda seed: AutoEncoder(verbose=0, random_state=seed),
        "pyod VAE": lambda seed: VAE(verbose=0, random_state=seed),
    }


def made(method: str, seed: int) -> Any:
    """Make the detector that a method stands for: its name, with parameters after colons if there are any."""
    import genad

    name, *given = method.split(":")
    settings = dict(setting.split("=", 1) for setting in given)
    return genad.create(name, random_state=seed, **{key: _value(text) for key, text in settings.items()})


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result and the seconds of processor time, which other work on the machine does not lengthen."""
    begin = time.process_time()
    result = work()
    return result, time.process_time() - begin


def merged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of the last results with ``rows`` in the place of those of the same methods."""
    path = RESULTS / "tables.json"
    old = json.loads(path.read_text())["rows"] if path.exists() else []
    new = {row["method"]: row for row in rows}
    base = next((row["seconds"] for row in old if row["method"] == "pyod AutoEncoder"), None)
    for row in rows:
        if base is not None:
            row.setdefault("speed against pyod AutoEncoder", f"{base / row['seconds']:.1f}x")
    kept = [new.pop(row["method"], row) for row in old]
    return [*kept, *new.values()]


def main(options: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks tables --")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), help="names, or name:parameter=value")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--update", action="store_true", help="keep the other methods' rows of the last results")
    args = parser.parse_args(options)
    quiet()
    adapters = {f"genad {name}": lambda seed, name=name: Genad(lambda s: made(name, s), seed) for name in args.methods}
    if not args.no_peers:
        adapters |= {name: lambda seed, make=make: Peer(make, seed) for name, make in peers().items()}
    next(iter(adapters.values()))(0).fit(np.zeros((64, 2), np.float32))  # the first fit of a process pays for start-up
    figures: dict[str, list[tuple[float, float, float]]] = {name: [] for name in adapters}
    for seed in range(args.seeds):
        for table, train, test, y in tables(seed):
            for name, make in adapters.items():
                model = make(seed)
                _, fit = timed(lambda model=model, train=train: model.fit(train))
                scores, score = timed(lambda model=model, test=test: model.score(test))
                figures[name].append((roc_auc_score(y, scores), average_precision_score(y, scores), fit + score))
            print(seed, table, flush=True)
    base = np.mean([f[2] for f in figures.get("pyod AutoEncoder", [])]) if "pyod AutoEncoder" in figures else None
    rows = []
    for name, values in figures.items():
        auroc, ap, seconds = np.mean(values, axis=0)
        by_seed = np.array(values)[:, 0].reshape(args.seeds, -1).mean(1)
        row = {
            "method": name, "AUROC": round(auroc, 4), "AP": round(ap, 4), "seconds": round(seconds, 3),
            "AUROC spread": round(float(np.ptp(by_seed)), 4),
        }  # fmt: skip
        if base is not None:
            row["speed against pyod AutoEncoder"] = f"{base / seconds:.1f}x"
        rows.append(row)
    keep(
        "tables",
        "Anomalies in tables",
        f"14 ADBench tables; train on half of the normals, test on the rest; {args.seeds} seeds, one thread",
        merged(rows) if args.update else rows,
        ["genad keeps 20 % of the training rows for calibration (memories take them in later); the peers train on all.",
         "Seconds are processor time of fit and score of one table, on average.",
         "Settings of several methods were chosen on these tables; expect a little less elsewhere."],
    )  # fmt: skip
