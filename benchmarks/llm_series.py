"""How well does the likelihood of digits find anomalies in series? SigLLM with a small model, beside plain rules."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.common import entities, quiet, timed
from benchmarks.rows import Rows

MEAN = "mean"
# A season must come twice in the training part to be seen there.
SHORTEST_SEASON = 4


def season(train: np.ndarray) -> int:
    """Return the lag, from 4 values to half of the training part, at which the series is most like itself."""
    centred = train - train.mean()
    lags = np.arange(SHORTEST_SEASON, max(SHORTEST_SEASON + 1, len(train) // 2))
    alike = [np.corrcoef(centred[lag:], centred[:-lag])[0, 1] if centred[lag:].std() else 0.0 for lag in lags]
    return int(lags[int(np.nanargmax(alike))])


def residual(train: np.ndarray, test: np.ndarray, lag: int, span: float) -> np.ndarray:
    """Score by the distance from the value ``lag`` values ago, smoothed as SigLLM is."""
    from genad.representation.series.base import smoothed

    before = np.concatenate([train[-lag:], test])[: len(test)]
    return smoothed(np.abs(test - before), span)


def methods(args: argparse.Namespace) -> dict[str, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, int]]]:
    """Return what scores a file by its name; with the scores come the tokens that were read."""
    import genad
    from genad.applications.detection import DEFAULTS
    from genad.data.kinds import Kind
    from genad.foundation.local_lm import LocalModel
    from genad.representation.series.base import averaged

    def coarse(rule: Callable[[np.ndarray], int]) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, int]]:
        def run(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, int]:
            short, long = (averaged(part, args.aggregate) for part in (train, test))
            scores = residual(short, long, rule(short), max(1.0, round(args.smoothing * len(short))))
            return np.repeat(scores, args.aggregate)[: len(test)], 0

        return run

    def likelihood(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, int]:
        model = LocalModel()
        # A window must fit into what is left of a short training part once the end of it is held out.
        window = min(args.window * args.aggregate, int(0.7 * len(train)))
        detector = genad.create(
            "sig_llm", llm=model, window=window, aggregate=args.aggregate,
            digits=args.digits, smoothing=args.smoothing,
        )  # fmt: skip
        return detector.fit(train).anomaly_score(test), model.meter.usage.tokens_in

    def default(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, int]:
        return genad.create(DEFAULTS[Kind.SERIES]).fit(train).anomaly_score(test), 0

    return {
        "SigLLM likelihood": likelihood,
        f"default ({DEFAULTS[Kind.SERIES]})": default,
        "last value": coarse(lambda train: 1),
        "seasonal naive": coarse(season),
    }


def files(args: argparse.Namespace) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (file, train, test, labels) of the NAB files asked for that hold both kinds of steps."""
    for group, name, train, test, y in entities():
        asked = args.files is None or any(part in name for part in args.files)
        fits = args.longest is None or len(train) + len(test) <= args.longest
        if group == "nab" and asked and fits and 0 < y.sum() < len(y):
            yield name, train.ravel(), test.ravel()[: args.steps], y[: args.steps]


def main(options: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks llm_series --")
    parser.add_argument("--files", nargs="*", help="parts of the names of NAB files; all without")
    parser.add_argument("--longest", type=int, help="leave out files of more steps")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no file after so long")
    parser.add_argument("--steps", type=int, help="score no more steps of a file")
    parser.add_argument("--aggregate", type=int, default=4)
    parser.add_argument("--window", type=int, default=100, help="in values, after aggregation")
    parser.add_argument("--digits", type=int, default=2)
    parser.add_argument("--smoothing", type=float, default=0.01)
    parser.add_argument("--again", action="store_true", help="measure files anew that are in the results")
    parser.add_argument("--result", default="llm_series")
    args = parser.parse_args(options)
    quiet()
    tokens = (args.digits + 1) * 2
    some = f" of at most {args.longest:,} steps" if args.longest else ""
    rows = Rows(
        args.result,
        " ".join(["python -m benchmarks llm_series", *(["--", *options] if options else [])]),
        "Likelihood of digits against plain rules, in series",
        f"NAB files{some}, the first 15 % to train; means of {args.aggregate} steps; AUROC and AP by step of the file",
        [f"SigLLM with SmolLM2-135M, one thread: windows of up to {args.window} values of {args.digits} digits.",
         f"Half of a window is context: about {tokens} tokens a value, {tokens / args.aggregate:g} a step of the file.",
         f"All but the default are smoothed, by an exponential mean over {args.smoothing:.0%} of the training part.",
         "The default reads the values as they are, without means of steps.",
         "NAB labels whole windows, a tenth of the steps; most of these steps look normal, which keeps AUROC low.",
         "The season is the lag of the highest autocorrelation in the training part.",
         "Seconds are fit and score of one file, on a machine that did other work too."],
        ("file", "method"),
    )  # fmt: skip
    done = set() if args.again else {(row["file"], row["method"]) for row in rows.record["rows"]}
    chosen, begin = methods(args), time.monotonic()
    for name, train, test, y in files(args):
        left = {method: run for method, run in chosen.items() if (name, method) not in done}
        if not left:
            continue
        if time.monotonic() - begin > args.minutes * 60:
            print(f"time is up before {name}; run again to go on", flush=True)
            break
        if not 0 < y.sum() < len(y):
            print(f"{name}: no anomaly in the first {len(y)} steps, or nothing else", flush=True)
            continue
        for method, run in left.items():
            (scores, read), seconds = timed(lambda run=run, a=train, b=test: run(a, b))
            rows.add({
                "file": name, "method": method, "steps": len(test),
                "AUROC": round(float(roc_auc_score(y, scores)), 4),
                "AP": round(float(average_precision_score(y, scores)), 4),
                "tokens": read, "seconds": round(seconds, 1),
            })  # fmt: skip
        add_means(rows, chosen)


def add_means(rows: Rows, chosen: dict[str, object]) -> None:
    """Put the means over all files measured so far at the end of the table."""
    rows.record["rows"] = [row for row in rows.record["rows"] if row["file"] != MEAN]
    for method in chosen:
        mine = [row for row in rows.record["rows"] if row["method"] == method and row["file"] != MEAN]
        mean = {key: round(float(np.mean([row[key] for row in mine])), 4) for key in ("AUROC", "AP")}
        cost = {key: round(float(np.mean([row[key] for row in mine])), 1) for key in ("tokens", "seconds")}
        rows.add({"file": MEAN, "method": method, "steps": sum(row["steps"] for row in mine), **mean, **cost})
