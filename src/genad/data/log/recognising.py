"""Which files are logs: the one rule, by a file's name where that says it, and else by its lines."""

from __future__ import annotations

import json
from pathlib import Path

from genad.data.log.layouts import PLAIN, find_layout
from genad.data.log.source import LineSource
from genad.errors import InputError

__all__ = ["TABLE_ENDINGS", "endings_of", "holds_log"]

#: Endings that hold tables or arrays, and never a log of lines.
TABLE_ENDINGS = frozenset(
    {".csv", ".tsv", ".tab", ".parquet", ".pq", ".feather", ".arrow", ".ipc", ".npy", ".npz", ".dat"}
)
# Endings that say nothing of what the lines are.
_OPEN = {".txt", ".out", ".err", ""}
_JSON = {".jsonl", ".ndjson"}
# Names of log files without an ending of their own.
_LOG_NAMES = {"syslog", "messages", "dmesg", "catalina", "access_log", "error_log"}
# What a message, and what else of a record, is called in JSON lines that are a log.
_MESSAGES = {"message", "msg", "@message", "log", "event", "text", "body"}
_FACTS = {"level", "severity", "levelname", "log.level", "lvl", "loglevel", "@l", "logger", "logger_name", "hostname"}
_SAMPLE = 200


def holds_log(path: str | Path) -> bool:
    """Say whether a file is a log.

    It is by its name: ``app.log``, ``app.log.1.gz``, ``syslog``. JSON lines are a log when they are messages, and a
    table when they are rows; ``.txt`` and files without an ending are one when their lines follow a layout of logs.

    Parameters
    ----------
    path : str or Path
        A file; one that cannot be read is judged by its name alone.

    Examples
    --------
    >>> [holds_log(name) for name in ("app.log", "app.log.2024-01-31.gz", "messages", "log.csv", "table.csv")]
    [True, True, True, False, False]
    """
    file = Path(path)
    endings = endings_of(file)
    if endings & TABLE_ENDINGS:
        return False
    if endings & _JSON:
        return _holds_messages(file)
    if ".log" in endings or file.name.partition(".")[0] in _LOG_NAMES:
        return True
    return not endings - _OPEN and _follows_layout(file)


def endings_of(path: Path) -> set[str]:
    """Return the endings of a name in small letters, without those of compression.

    Examples
    --------
    >>> sorted(endings_of(Path("App.LOG.gz")))
    ['.log']
    """
    return {ending.lower() for ending in path.suffixes} - {".gz", ".bz2", ".xz"}


def _head(path: Path) -> list[str]:
    """Return the first lines of a file, none when it holds no text."""
    try:
        return [line for line in next(iter(LineSource(path)), [])[:_SAMPLE] if line]
    except InputError:
        return []


def _follows_layout(path: Path) -> bool:
    # A time stamp before commas is a table of measurements just as well, so it takes more than that.
    layout, _ = find_layout(_head(path))
    return layout is not PLAIN and layout.name not in ("time stamp", "JSON lines")


def _holds_messages(path: Path) -> bool:
    """Say whether JSON lines are messages, and not rows of a table."""
    lines = _head(path)
    found = 0
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        names = {str(name).lower() for name in record} if isinstance(record, dict) else set()
        texts = [name for name in names & _MESSAGES if isinstance(record.get(name), str)]
        found += bool(texts and (names & _FACTS or any(" " in record[name] for name in texts)))
    return bool(lines) and 2 * found > len(lines)
