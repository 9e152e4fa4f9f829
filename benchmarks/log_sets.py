"""Sessions and lines with known anomalies, and how a detector does on them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score, roc_auc_score

from benchmarks.common import DATA

# What the events of hdfs_sequences stand for, by their numbers from 1: the templates of the log they were taken from.
HDFS_TEMPLATES = (
    "Adding an already existing block <*>",
    "Verification succeeded for <*>",
    "<*> Served block <*> to <*>",
    "<*> Got exception while serving <*> to <*>",
    "Receiving block <*> src: <*> dest: <*>",
    "Received block <*> src: <*> dest: <*> of size <*>",
    "writeBlock <*> received exception <*>",
    "PacketResponder <*> for block <*> Interrupted.",
    "Received block <*> of size <*> from <*>",
    "PacketResponder <*> Exception <*>",
    "PacketResponder <*> for block <*> terminating",
    "<*>:Exception writing block <*> to mirror <*>",
    "Receiving empty packet for block <*>",
    "Exception in receiveBlock for block <*>",
    "Changing block file offset of block <*> from <*> to <*> meta file offset to <*>",
    "<*>:Transmitted block <*> to <*>",
    "<*>:Failed to transfer <*> to <*> got <*>",
    "<*> Starting thread to transfer block <*> to <*>",
    "Reopen Block <*>",
    "Unexpected error trying to delete block <*>. BlockInfo not found in volumeMap.",
    "Deleting block <*> file <*>",
    "BLOCK* NameSystem.allocateBlock: <*>",
    "BLOCK* NameSystem.delete: <*> is added to invalidSet of <*>",
    "BLOCK* Removing block <*> from neededReplications as it does not belong to any file.",
    "BLOCK* ask <*> to replicate <*> to datanode(s) <*>",
    "BLOCK* NameSystem.addStoredBlock: blockMap updated: <*> is added to <*> size <*>",
    "BLOCK* NameSystem.addStoredBlock: Redundant addStoredBlock request received for <*> on <*> size <*>",
    (
        "BLOCK* NameSystem.addStoredBlock: addStoredBlock request received for <*> on <*> size <*> "
        "But it does not belong to any file."
    ),
    "PendingReplicationMonitor timed out block <*>",
)
# A ranking this near to 0.5 says nothing.
_CHANCE = 0.1


@dataclass
class Job:
    """One row of a table: on what, by which method, and what measures it.

    Attributes
    ----------
    data, method : str
    run : callable
        Returns the other entries of the row.
    """

    data: str
    method: str
    run: Callable[[], dict[str, Any]]


@dataclass
class Split:
    """What is learnt from, what is judged, and which of the latter are anomalies.

    Attributes
    ----------
    train, test : Log, Sessions or lists of texts
    y : ndarray of int, shape (n,)
        1 for an anomaly.
    labels : ndarray of int or None
        Of what is learnt from; None when all of it is normal.
    """

    train: Any
    test: Any
    y: np.ndarray
    labels: np.ndarray | None = None


def hdfs_numbers() -> Split:
    """Return the sessions of HDFS as lists of numbers of events."""
    with np.load(DATA / "logs" / "hdfs_sequences.npz", allow_pickle=False) as file:
        train, normal, odd = (
            [part.tolist() for part in np.split(file[name].astype(int), file[f"{name}_ptr"][1:-1])]
            for name in ("train", "test_normal", "test_anomalous")
        )
    return Split(train, normal + odd, np.repeat([0, 1], [len(normal), len(odd)]))


def hdfs_texts() -> Split:
    """Return the same as lists of templates."""
    held = hdfs_numbers()
    named = [[[HDFS_TEMPLATES[event - 1] for event in session] for session in part] for part in (held.train, held.test)]
    return Split(*named, held.y)


def hdfs_labelled(sessions: int, labelled: int, seed: int) -> Split:
    """Return some sessions of each class to learn from, and some others to judge."""
    held, rng = hdfs_texts(), np.random.default_rng(seed)
    odd = rng.permutation(np.flatnonzero(held.y))[:labelled]
    rest = np.setdiff1d(np.arange(len(held.y)), odd)
    judged = np.sort(rng.permutation(rest)[:sessions])
    usual = np.sort(rng.permutation(len(held.train))[: 2 * labelled])
    train = [held.train[i] for i in usual] + [held.test[i] for i in odd]
    labels = np.repeat([0, 1], [len(usual), len(odd)])
    return Split(train, [held.test[i] for i in judged], held.y[judged], labels)


def bgl_lines(seed: int, *, by_time: bool) -> Split:
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
    return Split(train, test, y[judged])


def scored(detector: Any, split: Split, *, flags: bool = True) -> dict[str, Any]:
    """Fit, judge, and return how well the ranking is, how well the flags are if asked, and what it took."""
    begin = time.perf_counter()
    detector.fit(split.train, split.labels)
    fit = time.perf_counter() - begin
    begin = time.perf_counter()
    scores = detector.anomaly_score(split.test)
    seconds = time.perf_counter() - begin
    row = measured(scores, detector.threshold_.flag(scores) if flags else None, split.y)
    row |= {"fit s": round(fit, 1), "score s": round(seconds, 2)}
    if hasattr(detector, "language_model"):
        used = detector.language_model().meter.usage
        row |= {"tokens read": used.tokens_in, "tokens written": used.tokens_out} if used.tokens else {}
    return row


def measured(scores: np.ndarray, flags: np.ndarray | None, y: np.ndarray) -> dict[str, Any]:
    """Return the figures of a ranking, and of flags if there are some."""
    area = float(roc_auc_score(y, scores))
    row: dict[str, Any] = {"AUROC": round(area, 4), "AP": round(float(average_precision_score(y, scores)), 4)}
    if flags is not None:
        row["F1"] = round(f1_score(y, flags), 4)
        row["precision"] = round(precision_score(y, flags, zero_division=0), 3)
        row["recall"] = round(recall_score(y, flags), 3)
    if area < 0.5 + _CHANCE:
        row["remark"] = "near chance" if area > 0.5 - _CHANCE else "worse than chance"
    return row
