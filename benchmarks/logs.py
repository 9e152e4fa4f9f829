"""Accuracy and speed of the parsing of logs, and how well plain detectors find anomalies in them."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score, roc_auc_score

from benchmarks.common import DATA, keep, quiet

# Grouping accuracy of Drain as published for these samples.
PUBLISHED = {"hdfs": 0.998, "bgl": 0.963, "linux": 0.690, "apache": 1.0, "zookeeper": 0.967, "openstack": 0.733}


def grouping_accuracy(found: list[int], true: list[str]) -> float:
    """Share of the messages whose group is exactly the group of the truth."""
    groups, sizes = defaultdict(list), Counter(true)
    for i, number in enumerate(found):
        groups[number].append(i)
    kinds = [({true[i] for i in rows}, len(rows)) for rows in groups.values()]
    return sum(n for kind, n in kinds if len(kind) == 1 and sizes[next(iter(kind))] == n) / len(true)


def processor(work: Callable[[], Any], runs: int = 3) -> float:
    """Return the least processor time of a few runs, in seconds."""
    best = np.inf
    for _ in range(runs):
        begin = time.process_time()
        work()
        best = min(best, time.process_time() - begin)
    return best


def parsing() -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    from genad.data.log import Drain, read_log

    for name, published in PUBLISHED.items():
        true = pq.read_table(DATA / "logs" / f"{name}_2k.parquet")["EventId"].to_pylist()
        path = DATA / "logs" / f"{name}_2k.log"
        log = read_log(path, year=2005)
        messages = list(log.message)
        with tempfile.TemporaryDirectory() as folder:
            long = Path(folder, "long.log")
            long.write_text("".join(f"{line}\n" for line in path.read_text().splitlines()) * 20)
            reading = processor(lambda long=long: read_log(long))
        yield {
            "sample": name, "layout": log.layout, "templates": len(log.miner), "true templates": len(set(true)),
            "grouping accuracy": round(grouping_accuracy(log.template.tolist(), true), 3), "published": published,
            "new lines a second, mining": round(len(messages) / processor(lambda m=messages: Drain().learn(m))),
            "lines a second, mining": round(20 * len(messages) / processor(lambda m=messages: Drain().learn(m * 20))),
            "lines a second, file to templates": round(20 * len(messages) / reading),
        }  # fmt: skip


def rivals(seed: int) -> dict[str, Any]:
    """Return detectors of sessions by name."""
    from genad.representation.logs.deep_log import DeepLog
    from genad.representation.logs.line_embedding import LineEmbedding
    from genad.representation.logs.template_counts import TemplateCountPCA

    return {
        "deep_log": DeepLog(random_state=seed),
        "deep_log, rank": DeepLog(score="rank", random_state=seed),
        "template_count_pca": TemplateCountPCA(random_state=seed),
        "template_count_pca, no tf-idf": TemplateCountPCA(weighting="none", random_state=seed),
        "line_embedding (MiniLM)": LineEmbedding(random_state=seed),
    }


COUNTED = ("autoencoder", "denoising_autoencoder", "nearest_memory", "ppca")


def scored(data: str, name: str, detector: Any, train: Any, test: Any, y: np.ndarray) -> dict[str, Any]:
    begin = time.perf_counter()
    detector.fit(train)
    fit = time.perf_counter() - begin
    begin = time.perf_counter()
    scores = detector.anomaly_score(test)
    seconds = time.perf_counter() - begin
    return measured(data, name, scores, detector.threshold_.flag(scores), y) | {
        "fit s": round(fit, 1), "score s": round(seconds, 2)
    }  # fmt: skip


def measured(data: str, name: str, scores: np.ndarray, flags: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    return {
        "data": data, "method": name, "AUROC": round(roc_auc_score(y, scores), 4),
        "AP": round(average_precision_score(y, scores), 4), "F1": round(f1_score(y, flags), 4),
        "precision": round(precision_score(y, flags, zero_division=0), 3), "recall": round(recall_score(y, flags), 3),
    }  # fmt: skip


def hdfs(seed: int) -> Iterator[dict[str, Any]]:
    import genad
    from genad.data.log import Sessions

    with np.load(DATA / "logs" / "hdfs_sequences.npz", allow_pickle=False) as file:
        parts = [
            np.split(file[name].astype(int), file[f"{name}_ptr"][1:-1])
            for name in ("train", "test_normal", "test_anomalous")
        ]
    train, test = Sessions.from_sequences(parts[0]), Sessions.from_sequences(parts[1] + parts[2])
    y = np.repeat([0, 1], [len(parts[1]), len(parts[2])])
    for name, detector in rivals(seed).items():
        if "embedding" not in name:  # the events of this data are numbers without texts
            yield scored("HDFS", name, detector, train, test, y)
    for name in COUNTED:
        yield scored("HDFS", f"{name} on template counts", genad.create(name, random_state=seed), train, test, y)


def bgl_lines(seed: int, *, by_time: bool) -> tuple[Any, Any, np.ndarray]:
    """Return a log to learn from, one to judge, and the labels of its lines.

    By time, the normal lines of the first half are learnt from and the second half is judged. Otherwise half of the
    normal lines, at random, are learnt from and all others are judged; nearly every line to judge then has a neighbour
    in time among those learnt from.
    """
    from genad.data.log import Log, read_log

    whole = read_log(DATA / "logs" / "bgl_2k.log")
    y = np.array([label != "-" for label in whole.column("label")]).astype(int)
    if by_time:
        learnt = np.flatnonzero(y[: len(y) // 2] == 0)
        judged = np.arange(len(y) // 2, len(y))
    else:
        normal = np.random.default_rng(seed).permutation(np.flatnonzero(y == 0))
        learnt = np.sort(normal[: len(normal) // 2])
        judged = np.setdiff1d(np.arange(len(y)), learnt)
    train = Log.from_messages(list(whole.message[learnt]), time=whole.time[learnt])
    test = Log.from_messages(list(whole.message[judged]), time=whole.time[judged], miner=train.miner)
    return train, test, y[judged]


def bgl(seed: int, *, by_time: bool) -> Iterator[dict[str, Any]]:
    import genad
    from genad.representation.logs.line_embedding import LineEmbedding

    train, test, y = bgl_lines(seed, by_time=by_time)
    data = f"BGL_2k, {'by time' if by_time else 'at random'}"
    lines = train.sessions("line"), test.sessions("line")
    yield measured(data, "unseen template", test.unseen.astype(float), test.unseen, y)
    every = rivals(seed) | {"line_embedding (MiniLM), raw messages": LineEmbedding(raw=True, random_state=seed)}
    for name, detector in every.items():
        if name == "deep_log":
            yield windows(data, name, detector, train, test, y)
        elif "rank" not in name:
            yield scored(data, name, detector, *lines, y)
    for name in COUNTED:
        yield scored(data, f"{name} on template counts", genad.create(name, random_state=seed), *lines, y)


def windows(data: str, name: str, detector: Any, train: Any, test: Any, y: np.ndarray) -> dict[str, Any]:
    """Let a detector of sequences judge lines: by the surprise of each within windows of 20 lines."""
    detector.set_params(ends=False)
    detector.fit(train.sessions(lines=20))
    sessions = test.sessions(lines=20)
    begin = time.perf_counter()
    scores = sessions.to_lines(detector.anomaly_map(sessions))
    seconds = time.perf_counter() - begin
    row = measured(data, f"{name}, windows of 20 lines", scores, detector.threshold_.flag(scores), y)
    return row | {"fit s": round(detector.training_report_.seconds, 1), "score s": round(seconds, 2)}


def main(options: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks logs --")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(options)
    quiet()
    keep(
        "logs_parsing",
        "Templates of logs",
        "six samples of Loghub of 2,000 lines each, labelled by hand",
        list(parsing()),
        ["One set of settings for all samples; published figures used settings chosen for each.",
         "Mining: processor time of one thread. New lines: the sample once. Otherwise the sample twenty times over."],
    )  # fmt: skip
    rows = [*hdfs(args.seed), *bgl(args.seed, by_time=False), *bgl(args.seed, by_time=True)]
    keep(
        "logs",
        "Anomalies in logs",
        "HDFS: 2,855 normal sessions to learn from, 3,500 normal and 1,500 anomalous ones to judge. BGL_2k, by line: "
        "at random, half of the normal lines to learn from; by time, the normal ones of the first thousand lines",
        rows,
        ["Flags by the conformal threshold, alpha 0.01, set on normal sessions held out of the training data.",
         "Templates are mined from the training lines alone.",
         "At random, most lines to judge have a neighbour in time among those learnt from."],
    )  # fmt: skip
