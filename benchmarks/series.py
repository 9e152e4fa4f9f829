"""How well does each detector find anomalies in series? Pointwise figures and VUS-PR, beside two plain baselines."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors

from benchmarks.common import entities, keep, quiet, timed

NATIVE = ("series_committee", "rae_ensemble", "omni_anomaly", "mad_gan")
DENSE = (
    "ppca",
    "denoising_autoencoder",
    "autoencoder",
    "vae",
    "nearest_memory",
    "flow",
    "dte",
    "dsebm",
    "dagmm",
)


def windows(X: np.ndarray, w: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(X, w, 0).reshape(len(X) - w + 1, -1)


def fold(scores: np.ndarray, n: int, w: int) -> np.ndarray:
    """Give each step the mean score of the windows that hold it."""
    total, count = np.zeros(n), np.zeros(n)
    for k in range(w):
        total[k : k + len(scores)] += scores
        count[k : k + len(scores)] += 1
    return total / count


def baseline(kind: str, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Score by the residual of PCA (90 % variance) on windows of 32, or by the 3 nearest training windows."""
    mean, scale = train.mean(0), train.std(0)
    scale[scale < 1e-6] = 1
    train, test = (np.clip((X - mean) / scale, -10, 10) for X in (train, test))
    w = min(32, len(train) // 4)
    A, B = windows(train, w), windows(test, w)
    stride = max(1, len(A) // 4000)
    if kind == "PCA":
        pca = PCA(0.9).fit(A[::stride][:20000])
        return fold(((B - pca.inverse_transform(pca.transform(B))) ** 2).mean(1), len(test), w)
    wide = A.shape[1]
    project = np.random.default_rng(0).normal(size=(wide, 64)) / 8 if wide > 64 else np.eye(wide)
    near = NearestNeighbors(n_neighbors=3).fit(A[::stride] @ project)
    return fold(near.kneighbors(B @ project)[0].mean(1), len(test), w)


def makers(names: list[str]) -> dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    import genad

    def run(name: str, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        native = genad.create(name)
        detector = native if name in NATIVE else genad.Windowed(native)
        return detector.fit(train).anomaly_score(test)

    found = {f"genad {name}": lambda a, b, name=name: run(name, a, b) for name in names}
    return found | {
        "PCA of windows": lambda a, b: baseline("PCA", a, b),
        "3-NN of windows": lambda a, b: baseline("kNN", a, b),
    }


def chosen(sets: list[str] | None, most: int | None) -> list[tuple[Any, ...]]:
    """Return the entities with both labels of the sets asked for, at most so many of each, evenly spaced."""
    groups: dict[str, list[tuple[Any, ...]]] = {}
    for entity in entities():
        if (not sets or entity[0] in sets) and 0 < entity[4].sum() < len(entity[4]):
            groups.setdefault(entity[0], []).append(entity)
    return [
        group[i]
        for group in groups.values()
        for i in np.unique(np.linspace(0, len(group) - 1, min(most or len(group), len(group))).round().astype(int))
    ]


def main(options: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks series --")
    parser.add_argument("--methods", nargs="*", default=[*NATIVE, *DENSE])
    parser.add_argument("--sets", nargs="*")
    parser.add_argument("--entities", type=int, help="at most so many of each set, evenly spaced")
    parser.add_argument("--result", default="series")
    args = parser.parse_args(options)
    quiet()
    from genad.metrics import vus_pr

    methods = makers(args.methods)
    figures: dict[str, dict[str, list[tuple[float, ...]]]] = {name: {} for name in methods}
    for group, entity, train, test, y in chosen(args.sets, args.entities):
        train, test = train.astype(float), test.astype(float)
        for name, run in methods.items():
            scores, seconds = timed(lambda run=run, a=train, b=test: run(a, b))
            found = (
                roc_auc_score(y, scores),
                average_precision_score(y, scores),
                vus_pr(y, scores),
                seconds,
            )
            figures[name].setdefault(group, []).append(found)
        print(group, entity, flush=True)
    rows = []
    for name, groups in figures.items():
        row: dict[str, object] = {"method": name}
        means = {group: np.mean(values, axis=0) for group, values in groups.items()}
        for group, mean in means.items():
            row[group] = f"{mean[0]:.3f} / {mean[1]:.3f} / {mean[2]:.3f}"
        overall = np.mean(list(means.values()), axis=0)
        row |= {
            "mean": f"{overall[0]:.4f} / {overall[1]:.4f} / {overall[2]:.4f}",
            "seconds": round(overall[3], 2),
        }
        rows.append(row)
    keep(
        args.result,
        "Anomalies in series",
        "SMD, ASD, SMAP and MSL, SKAB, TEP, NAB and UCR; AUROC / AP / VUS-PR by step, mean over the entities of a set",
        rows,
        ["One thread. genad calibrates on the last 20 % of a training part; PPCA and memories learn from it after.",
         "Dense detectors run through Windowed(window=32). Seconds are fit and score of one entity, on average.",
         "The committee's members and settings were chosen on these sets; expect a little less elsewhere.",
         *([f"At most {args.entities} entities of a set, evenly spaced by name; for all rows alike."]
           if args.entities else [])],
        options,
    )  # fmt: skip
