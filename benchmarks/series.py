"""How well does each detector find anomalies in series? Pointwise figures and VUS-PR, beside two plain baselines."""

from __future__ import annotations

import argparse
from time import process_time
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors

from benchmarks.common import entities, quiet
from benchmarks.rows import Rows

#: Detectors of rows that are run in windows when no methods are named.
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
BASELINES = ("PCA of windows", "3-NN of windows")
NOTES = [
    "One thread; seconds of the processor.",
    "genad calibrates on the last 20 % of a training part; PPCA and memories learn from it after.",
    "Dense detectors run through Windowed(window=32). Seconds are fit and score of one entity, on average.",
    "A spread is the highest less the lowest mean AUROC of the seeds; a method too slow for three has fewer.",
    "The committee's members and settings were chosen on these sets; expect a little less elsewhere.",
]


def natives() -> list[str]:
    """Return the detectors whose idea is the series, by name, the default first."""
    from genad.core.registry import Family, registered
    from genad.data.kinds import Kind

    found = (
        name
        for name, cls in registered().items()
        if cls.reads_as is Kind.SERIES
        and cls.card.family is not Family.WRAPPER
        and not cls.__module__.startswith("genad.representation")
    )
    return sorted(found, key=lambda name: (name != "series_committee", name))


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


def score(method: str, seed: int, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Fit the method of a row, and score."""
    import genad

    if method in BASELINES:
        return baseline("PCA" if method.startswith("PCA") else "kNN", train, test)
    name = method.removeprefix("genad ")
    detector = genad.create(name, random_state=seed)
    return (detector if name in natives() else genad.Windowed(detector)).fit(train).anomaly_score(test)


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


def run(method: str, tasks: list[tuple[Any, ...]], seed: int) -> dict[str, np.ndarray]:
    """Return for each set the mean AUROC, AP, VUS-PR and seconds of its entities."""
    from genad.metrics import vus_pr

    found: dict[str, list[tuple[float, ...]]] = {}
    for group, _, train, test, y in tasks:
        begin = process_time()
        scores = score(method, seed, train.astype(float), test.astype(float))
        seconds = process_time() - begin
        figures = (roc_auc_score(y, scores), average_precision_score(y, scores), vus_pr(y, scores), seconds)
        found.setdefault(group, []).append(figures)
    return {group: np.mean(values, axis=0) for group, values in found.items()}


def row_of(method: str, runs: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Return the row of a method from its figures, one entry a seed."""
    means = {group: np.mean([each[group] for each in runs], axis=0) for group in runs[0]}
    overall = np.mean(list(means.values()), axis=0)
    by_seed = [np.mean([figures[0] for figures in each.values()]) for each in runs]
    shown = {group: f"{mean[0]:.3f} / {mean[1]:.3f} / {mean[2]:.3f}" for group, mean in means.items()}
    return {
        "method": method, **shown, "mean": f"{overall[0]:.4f} / {overall[1]:.4f} / {overall[2]:.4f}",
        "seconds": round(overall[3], 2), "spread": round(float(np.ptp(by_seed)), 4), "seeds": len(runs),
    }  # fmt: skip


def main(options: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks series --")
    parser.add_argument("--methods", nargs="*", help="registered names; all of series and some of rows when absent")
    parser.add_argument("--sets", nargs="*")
    parser.add_argument("--entities", type=int, help="at most so many of each set, evenly spaced")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--patience", type=float, default=60.0, help="seconds of a method that begin no further seed")
    parser.add_argument("--no-baselines", action="store_true")
    parser.add_argument("--result", default="series")
    args = parser.parse_args(options)
    quiet()
    asked = {"sets": args.sets, "entities": args.entities, "result": None if args.result == "series" else args.result}
    # The choice of methods changes no figure, so that the command leaves it out.
    words = [
        word for name, value in asked.items() if value for word in (f"--{name}", *np.atleast_1d(value).astype(str))
    ]
    few = f", at most {args.entities} entities of a set, evenly spaced by name" if args.entities else ""
    rows = Rows(
        args.result,
        " ".join(["python -m benchmarks series", *(["--", *words] if words else [])]),
        "Anomalies in series" + (", on few of each set" if args.entities else ""),
        "SMD, ASD, SMAP and MSL, SKAB, TEP, NAB and UCR; AUROC / AP / VUS-PR by step, mean over the entities of a set"
        + few,
        NOTES,
        ("method",),
    )
    tasks = chosen(args.sets, args.entities)
    score("genad ppca", 0, *(part.astype(float) for part in tasks[0][2:4]))  # the first fit pays for start-up
    methods = [f"genad {name}" for name in (args.methods or [*natives(), *DENSE])]
    for method in [*(() if args.no_baselines else BASELINES), *methods]:
        runs: list[dict[str, np.ndarray]] = []
        begin = process_time()
        try:
            for seed in range(1 if method in BASELINES else args.seeds):
                runs.append(run(method, tasks, seed))
                if process_time() - begin > args.patience:
                    break
        except Exception as error:  # noqa: BLE001 - one method's failure is reported, and the others go on
            print(f"{method} failed: {type(error).__name__}: {error}", flush=True)
            continue
        rows.add(row_of(method, runs))
