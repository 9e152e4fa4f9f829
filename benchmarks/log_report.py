"""How long does ``genad detect`` take from 10,000 lines of a log to the report? With the method it chooses."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import DATA, timed
from benchmarks.rows import Rows

LIMIT = 60.0
# The events of the sequences are numbers, which a reader of logs would mask.
STEPS = "abcdefghijklmnopqrstuvwxyz#&+"


def bgl_lines(n: int) -> list[str]:
    """Return lines of BGL; the sample of 2,000 comes again and again, each time 250 days later."""
    given = (DATA / "logs" / "bgl_2k.log").read_text().splitlines()
    lines = []
    for i in range(n):
        label, epoch, _, host, stamp, rest = given[i % len(given)].split(" ", 5)
        later = timedelta(days=250 * (i // len(given)))
        second = datetime.fromtimestamp(int(epoch), UTC) + later
        moved = datetime.strptime(stamp, "%Y-%m-%d-%H.%M.%S.%f").replace(tzinfo=UTC) + later
        lines.append(f"{label} {int(second.timestamp())} {second:%Y.%m.%d} {host} {moved:%Y-%m-%d-%H.%M.%S.%f} {rest}")
    return lines


def hdfs_lines(part: str, first: int, n: int) -> list[str]:
    """Return at most n lines of whole HDFS sessions, whose events are known by number alone, interleaved over time."""
    with np.load(DATA / "logs" / "hdfs_sequences.npz", allow_pickle=False) as file:
        sessions = np.split(file[part].astype(int), file[f"{part}_ptr"][1:-1])
    found: list[tuple[int, str]] = []
    for i, events in enumerate(sessions):
        if len(found) + len(events) > n:
            break
        found += [
            (
                3 * i + 7 * j,
                f"INFO dfs.DataNode: {STEPS[e]}-step of block blk_{first + i} done",
            )
            for j, e in enumerate(events.tolist())
        ]
    start = datetime(2024, 3, 1, tzinfo=UTC)
    return [
        f"{start + timedelta(seconds=second):%y%m%d %H%M%S} {second % 97} {text}"
        for second, text in sorted(found, key=lambda pair: pair[0])
    ]


def measured(what: str, lines: list[str], train: list[str] | None) -> dict[str, Any]:
    """Run the command line on some lines and return how long it took and what it did."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "app.log").write_text("\n".join(lines) + "\n")
        command = [sys.executable, "-m", "genad.cli", "detect", str(place / "app.log"), "-o", str(place / "out")]
        if train is not None:
            (place / "normal.log").write_text("\n".join(train) + "\n")
            command += ["--train", str(place / "normal.log")]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done, seconds = timed(lambda: subprocess.run([*command, "--json"], check=True, capture_output=True))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        facts = json.loads(done.stdout)
        size = (place / "out" / "report.html").stat().st_size
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "what": what,
        "lines": len(lines),
        "lines to learn from": len(lines if train is None else train),
        "sessions": facts["data"]["sessions"],
        "method": facts["detector"]["name"],
        "seconds": round(seconds, 1),
        "processor seconds": round(spent, 1),
        "limit": LIMIT,
        "report MB": round(size / 1e6, 1),
    }


def main(options: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks log_report --")
    parser.add_argument("--lines", type=int, default=10_000)
    n = parser.parse_args(options).lines
    kept = Rows(
        "log_report",
        "python -m benchmarks log_report" + ("" if n == 10_000 else f" -- --lines {n}"),
        "From a log to its report",
        "BGL_2k five times over with later time stamps; HDFS sessions written as lines, normal ones to learn from and "
        "others to judge",
        [
            "Whole processes, from start-up to scores.csv, report.html and model.genad.",
            "The method is the one that is chosen when none is named.",
        ],
        ("what",),
    )
    kept.add(measured("lines of one log, in windows of 20", bgl_lines(n), None))
    kept.add(measured("sessions by id of one log", hdfs_lines("test_normal", 0, n), None))
    normal = hdfs_lines("train", 10**6, n)
    kept.add(measured("sessions by id, after those of a normal log", hdfs_lines("test_normal", 0, n), normal))


if __name__ == "__main__":
    main(sys.argv[1:])
