"""Does choosing a detector without labels pay? Always the default, always 5-NN, select, and the oracle over candidates.

The oracle takes for each set the candidate with the highest AUROC on the labels of the test part: nobody can, and it
says what there is to be gained.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.common import keep, quiet, tables, timed


def figures(y: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    return roc_auc_score(y, scores), average_precision_score(y, scores)


def sets(kind: str, names: list[str] | None, most: int | None, seed: int) -> Iterator[tuple[str, Any, Any, np.ndarray]]:
    """Yield (set, train, test, labels)."""
    if kind == "table":
        found = ((name, *rest) for name, *rest in tables(seed) if not names or name in names)
        yield from (each for i, each in enumerate(found) if most is None or i < most)
        return
    from benchmarks.series import chosen

    for group, _, train, test, y in chosen(names, most):
        yield group, train.astype(float), test.astype(float), y


def judge(detector: Any, train: Any, test: Any, y: np.ndarray) -> tuple[float, float]:
    return figures(y, detector.fit(train).anomaly_score(test))


def main(options: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks selection --")
    parser.add_argument("--kind", choices=["table", "series"], default="table")
    parser.add_argument("--sets", nargs="*")
    parser.add_argument("--most", type=int, help="tables at most, or entities of a set of series")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--result")
    args = parser.parse_args(options)
    quiet()
    from genad.applications.selection import CANDIDATES, labelled_candidates, select
    from genad.data.kinds import Kind

    kind = Kind(args.kind)
    near = "nearest_memory(neighbours=5)" if kind is Kind.TABLE else "nearest_memory(neighbours=3)"
    found: dict[str, list[tuple[float, float, float]]] = {}
    groups: list[str] = []
    chosen: Counter[str] = Counter()
    for seed in range(args.seeds):
        for name, train, test, y in sets(args.kind, args.sets, args.most, seed):
            groups.append(name)
            each = {}
            for label, detector in labelled_candidates(kind, CANDIDATES[kind], seed).items():
                each[label], seconds = timed(lambda d=detector, a=train, b=test, y=y: judge(d, a, b, y))
                each[label] = (*each[label], seconds)
            default = next(iter(each))
            selection, seconds = timed(lambda a=train, s=seed: select(a, kind, args.budget, random_state=s))
            picked = each[selection.method]
            chosen[selection.method] += 1
            best = max(each, key=lambda label: each[label][0])
            rows = {
                f"always the default ({default})": each[default], f"always {near}": each[near],
                "select": (*picked[:2], picked[2] + seconds), "oracle over the candidates": each[best],
            } | {f"always {label}": value for label, value in each.items() if label not in (default, near)}  # fmt: skip
            for row, value in rows.items():
                found.setdefault(row, []).append(value)
            shown = "  ".join(f"{row.split(' (')[0]} {value[0]:.4f}" for row, value in list(rows.items())[:4])
            print(f"{seed} {name}: {shown}; chosen {selection.method}, best {best}", flush=True)
    # A set of series counts once, however many entities of it there are.
    weights = 1 / np.array([groups.count(name) for name in groups])
    means = {row: np.average(values, axis=0, weights=weights) for row, values in found.items()}
    low, high = (means[row][0] for row in list(means)[0:4:3])
    rows = [
        {
            "method": row, "AUROC": round(mean[0], 4), "AP": round(mean[1], 4), "seconds": round(mean[2], 2),
            "way from the default to the oracle": f"{(mean[0] - low) / max(high - low, 1e-9):+.2f}",
        }
        for row, mean in means.items()
    ]  # fmt: skip
    keep(
        args.result or ("selection" if kind is Kind.TABLE else "selection_series"),
        "A detector chosen without labels",
        f"{len(set(groups))} sets of the kind {kind.value}, {args.seeds} seeds, budget {args.budget}, one thread",
        rows,
        ["select sees the training part alone, without labels; the oracle is chosen by the AUROC on the test labels.",
         "Seconds are the fit and score of one set on average, and for select the choice as well.",
         f"Chosen: {', '.join(f'{label} {count}' for label, count in chosen.most_common())}.",
         "The list of candidates and the defaults were made with these sets in view; expect a little less elsewhere."],
        options,
    )  # fmt: skip
