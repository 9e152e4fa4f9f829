"""How much do a few labels help? Half of each test table is asked about, the other half is judged."""

from __future__ import annotations

import argparse
from time import perf_counter

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.common import quiet, tables
from benchmarks.rows import Rows

METHODS = ("ppca", "autoencoder", "table_committee")
LABELS = (5, 10, 20)
NOTES = [
    "The test part of each table is halved at random: labels are asked for in one half, figures are of the other.",
    "Proposed: the rows that query() returns, all at once. At random: rows drawn from that half.",
    "Flags: share of normal rows flagged at the threshold, 1 % promised or the level that feedback moved it to.",
]


def run(method: str, seed: int, names: list[str] | None) -> dict[tuple[str, int], list[tuple[float, ...]]]:
    """Return (AUROC, AP, false alarms, recall, seconds) by way of asking and number of labels, one entry a table."""
    import genad

    found: dict[tuple[str, int], list[tuple[float, ...]]] = {}
    for name, train, test, y in tables(seed):
        if names and name not in names:
            continue
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(y))
        pool, rest = order[: len(y) // 2], order[len(y) // 2 :]
        detector = genad.create(method, random_state=seed).fit(train)
        for way in ("proposed", "at random"):
            for count in (0, *LABELS):
                detector.forget()
                seconds = 0.0
                if count:
                    asked = (
                        detector.query(test[pool], count) if way == "proposed" else rng.permutation(len(pool))[:count]
                    )
                    begin = perf_counter()
                    detector.feedback(test[pool][asked], y[pool][asked])
                    seconds = perf_counter() - begin
                scores = detector.anomaly_score(test[rest])
                flags = detector.threshold_.flag(scores)
                found.setdefault((way, count), []).append(
                    (
                        roc_auc_score(y[rest], scores),
                        average_precision_score(y[rest], scores),
                        float(flags[y[rest] == 0].mean()),
                        float(flags[y[rest] == 1].mean()),
                        seconds,
                    )
                )
    return found


def main(options: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks feedback --")
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tables", nargs="*")
    parser.add_argument("--result", default="feedback")
    args = parser.parse_args(options)
    quiet()
    rows = Rows(
        args.result,
        "python -m benchmarks feedback",
        "Labels given to a fitted detector",
        f"14 ADBench tables, one-class, {args.seeds} seeds, one thread",
        NOTES,
        ("method", "labels"),
    )
    for method in args.methods:
        whole: dict[tuple[str, int], list[tuple[float, ...]]] = {}
        for seed in range(args.seeds):
            for key, values in run(method, seed, args.tables).items():
                whole.setdefault(key, []).extend(values)
        for (way, count), values in whole.items():
            if way == "at random" and not count:
                continue
            auroc, ap, false, recall, seconds = np.mean(values, axis=0)
            rows.add(
                {
                    "method": f"genad {method}",
                    "labels": f"{count} {way}" if count else "none",
                    "AUROC": round(auroc, 4),
                    "AP": round(ap, 4),
                    "false alarms": round(false, 4),
                    "recall": round(recall, 4),
                    "ms to learn": round(1e3 * seconds, 1),
                }
            )
