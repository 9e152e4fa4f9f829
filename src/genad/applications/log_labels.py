"""Labels of the sessions of a log: from a column, a file of ids, or one a session or a record."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genad.data.io import read_table
from genad.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from genad.applications.data import Data
    from genad.data.log import Sessions

__all__ = ["label_sessions"]

_NORMAL = {"-", "0", "0.0", "normal", "no", "false", "ok", "benign"}
_UNKNOWN = {"", "-1", "-1.0", "nan", "none", "null", "unknown"}
_PART = re.compile(r" \(part \d+\)$")


def label_sessions(labels: Any, *parts: Data) -> None:
    """Give labels to the data they fit.

    Raises
    ------
    InputError
        When they fit none, or hold what is no label.
    """
    found = [_labels_of(labels, part) for part in parts]
    if all(values is None for values in found):
        sizes = " or ".join(f"{len(part):,} sessions" for part in parts)
        columns = ", ".join(parts[0].X.log.columns()) if parts[0].X.log is not None else "none"
        raise InputError(
            f"labels: {_named(labels)} fit neither the ids nor the number of {sizes}, and name no column of the log "
            f"(it has {columns}); give a file of session ids and labels, a column, or one label a session."
        )
    for part, values in zip(parts, found, strict=True):
        part.labels = values


def _named(labels: Any) -> str:
    return repr(str(labels)) if isinstance(labels, str | Path) else f"{len(np.asarray(labels).ravel())} labels"


def _labels_of(labels: Any, data: Data) -> NDArray[np.int64] | None:
    sessions: Sessions = data.X
    if not isinstance(labels, str | Path):
        return _by_number(np.asarray(labels).ravel(), sessions)
    columns = {} if sessions.log is None else sessions.log.columns()
    if str(labels) in columns:
        return _of_sessions(_marks(columns[str(labels)]), sessions)
    if not Path(labels).is_file():
        return None
    table = read_table(labels)
    lower = {name.lower(): name for name in reversed(table.names)}
    marks = table.column(lower.get("label", table.names[-1]))
    if len(table.names) == 1:
        return _by_number(marks, sessions)
    ids = table.column(next(name for name in table.names if name != lower.get("label", table.names[-1])))
    known = dict(zip(map(str, ids.tolist()), _marks(marks).tolist(), strict=True))
    found = np.array([known.get(_PART.sub("", name), -1) for name in sessions.names], np.int64)
    return found if (found >= 0).any() else None


def _by_number(marks: NDArray[Any], sessions: Sessions) -> NDArray[np.int64] | None:
    if len(marks) == len(sessions):
        return _marks(marks)
    if sessions.log is not None and len(marks) == len(sessions.log):
        return _of_sessions(_marks(marks), sessions)
    return None


def _of_sessions(marks: NDArray[np.int64], sessions: Sessions) -> NDArray[np.int64]:
    """Return the highest label of the records of each session."""
    assert sessions.rows is not None  # noqa: S101 - sessions of a log have rows
    return np.maximum.reduceat(marks[sessions.rows], sessions.offsets[:-1])


def _marks(column: NDArray[Any]) -> NDArray[np.int64]:
    """Turn labels into 1, 0 and -1: words for normal and nothing are known, and all others are anomalies."""
    texts = [str(value).strip().lower() for value in column.tolist()]
    found = np.array([0 if text in _NORMAL else -1 if text in _UNKNOWN else 1 for text in texts], np.int64)
    if not (found == 0).any() and len(set(texts)) > 1:
        shown = ", ".join(sorted(set(texts))[:5])
        raise InputError(f"labels: found {shown}, and nothing that means normal; use 0, normal or - for it.")
    return found
