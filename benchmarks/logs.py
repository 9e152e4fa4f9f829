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

from benchmarks.common import DATA, quiet
from benchmarks.log_sets import Job, Split, bgl_lines, hdfs_numbers, measured, scored
from benchmarks.rows import Rows

SETS = ("parsing", "hdfs", "bgl")
SESSIONS, LINES, PATIENCE = 100, 120, 90.0

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
        "deep_log, rank": DeepLog(score_by="rank", random_state=seed),
        "template_count_pca": TemplateCountPCA(random_state=seed),
        "template_count_pca, no tf-idf": TemplateCountPCA(weighting="none", random_state=seed),
        "line_embedding (MiniLM)": LineEmbedding(random_state=seed),
    }


COUNTED = ("autoencoder", "denoising_autoencoder", "nearest_memory", "ppca")


def hdfs(seed: int) -> Iterator[Job]:
    """Yield what judges the sessions of HDFS by the numbers of their events."""
    import genad
    from genad.data.log import Sessions

    held = hdfs_numbers()
    split = Split(Sessions.from_sequences(held.train), Sessions.from_sequences(held.test), held.y)
    for name, detector in rivals(seed).items():
        if "embedding" not in name:  # the events of this data are numbers without texts
            yield Job("HDFS", name, lambda d=detector: scored(d, split))
    for name in COUNTED:
        detector = genad.create(name, random_state=seed)
        yield Job("HDFS", f"{name} on template counts", lambda d=detector: scored(d, split))


def bgl(seed: int, *, by_time: bool) -> Iterator[Job]:
    """Yield what judges all lines of BGL."""
    import genad
    from genad.representation.logs.line_embedding import LineEmbedding

    held = bgl_lines(seed, by_time=by_time)
    test = held.test
    data = f"BGL_2k, {'by time' if by_time else 'at random'}"
    lines = Split(held.train.sessions("line"), test.sessions("line"), held.y)
    yield Job(data, "unseen template", lambda: measured(test.unseen.astype(float), test.unseen, held.y))
    every = rivals(seed) | {"line_embedding (MiniLM), raw messages": LineEmbedding(raw=True, random_state=seed)}
    for name, detector in every.items():
        if name == "deep_log":
            yield Job(data, f"{name}, windows of 20 lines", lambda d=detector: windows(d, held))
        elif "rank" not in name:
            yield Job(data, name, lambda d=detector: scored(d, lines))
    for name in COUNTED:
        detector = genad.create(name, random_state=seed)
        yield Job(data, f"{name} on template counts", lambda d=detector: scored(d, lines))


def windows(detector: Any, held: Split) -> dict[str, Any]:
    """Let a detector of sequences judge lines: by the surprise of each within windows of 20 lines."""
    detector.set_params(ends=False)
    detector.fit(held.train.sessions(lines=20))
    sessions = held.test.sessions(lines=20)
    begin = time.perf_counter()
    scores = sessions.to_lines(detector.anomaly_map(sessions))
    seconds = time.perf_counter() - begin
    row = measured(scores, detector.threshold_.flag(scores), held.y)
    return row | {"fit s": round(detector.training_report_.seconds, 1), "score s": round(seconds, 2)}


def jobs(args: argparse.Namespace) -> Iterator[Job]:
    """Yield all rows of the second table that are asked for, the language models' after the others."""
    from benchmarks import log_models

    if "hdfs" in args.sets:
        yield from hdfs(args.seed)
        yield from log_models.hdfs(args.seed, args.sessions)
    if "bgl" in args.sets:
        for by_time in (False, True):
            yield from bgl(args.seed, by_time=by_time)
            yield from log_models.bgl_whole(args.seed, by_time=by_time)
        yield from log_models.bgl_some(args.seed, args.lines, args.patience)


def main(options: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks logs --")
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=SETS)
    parser.add_argument("--methods", nargs="*", help="parts of the names of methods; all without")
    parser.add_argument("--sessions", type=int, default=SESSIONS, help="of HDFS that the slow methods judge")
    parser.add_argument("--lines", type=int, default=LINES, help="of BGL that the slow methods judge")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds a method may let the model write")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(options)
    quiet()
    # The choice of sets and methods changes no figure, so that the command leaves it out.
    usual = {"sessions": SESSIONS, "lines": LINES, "patience": PATIENCE, "seed": 0}
    words = [f"--{name} {getattr(args, name)}" for name, value in usual.items() if getattr(args, name) != value]
    command = " ".join(["python -m benchmarks logs", *(["--", *words] if words else [])])
    if "parsing" in args.sets:
        rows = Rows(
            "logs_parsing",
            command,
            "Templates of logs",
            "six samples of Loghub of 2,000 lines each, labelled by hand",
            ["One set of settings for all samples; published figures used settings chosen for each.",
             ("Mining: processor time of one thread. New lines: the sample once. Otherwise the sample twenty times "
              "over.")],
            ("sample",),
        )  # fmt: skip
        for row in parsing():
            rows.add(row)
    rows = Rows(
        "logs",
        command,
        "Anomalies in logs",
        "HDFS: 2,855 normal sessions to learn from, 3,500 normal and 1,500 anomalous ones to judge. BGL_2k, by line: "
        "at random, half of the normal lines to learn from; by time, the normal ones of the first thousand lines",
        [("Flags by the conformal threshold, alpha 0.01, set on normal sessions held out of the training data; none "
         "where only some lines are judged."),
         "Templates are mined from the training lines alone.",
         "At random, most lines to judge have a neighbour in time among those learnt from.",
         "SmolLM2-135M runs on one thread; seconds are of a machine that did other work too.",
         ("line_likelihood, counts alone: a constant takes the place of the language model, which is to be compared. "
          "On HDFS, mean finds the answers that max has asked for."),
         ("unstable_logs, few_shot and lora, and log_prompt, in_context, learn from labelled anomalies (30 sessions of "
         "HDFS, 20 lines of BGL), which are not judged; all others learn from normals alone."),
         ("What so small a model says when it only follows a prompt (log_prompt; unstable_logs, zero_shot and "
          "few_shot) hangs on the wording and falls on both sides of chance."),
         "log_config_localizer asks its model about causes alone, so that its score is that of a list of words."],
        ("data", "method"),
    )  # fmt: skip
    for job in jobs(args):
        if args.methods is None or any(part in job.method for part in args.methods):
            rows.add({"data": job.data, "method": job.method} | job.run())
