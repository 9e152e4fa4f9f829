"""Read the logs of a job: what to learn from and what to judge, in sessions, and what is known of them."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genad.applications.data import Data
from genad.applications.log_labels import label_sessions
from genad.data.image import holds_images
from genad.data.kinds import Kind
from genad.data.log import Drain, Log, Sessions, holds_log, read_log
from genad.data.log.recognising import TABLE_ENDINGS, endings_of
from genad.data.process import ProcessLog, read_process
from genad.errors import InputError

__all__ = ["is_log_source", "is_process_source", "parse_session", "read_log_data", "read_log_job"]

#: Lines of a window where nothing else groups a log: a log of some thousands then has enough windows to calibrate on.
WINDOW = 20


# ---------------------------------------------------------------------- what is a log


def is_log_source(source: Any, kind: Kind | str | None = None) -> bool:
    """Say whether data are a log: asked for, a log in memory, a log file by its name or its lines, or a folder of them.

    Parameters
    ----------
    source : object
        What was given; a CSV file stays a table unless ``kind`` is ``"log"``.
    kind : str, optional
        What the data were said to be.

    Examples
    --------
    >>> is_log_source("app.log.gz"), is_log_source("table.csv"), is_log_source("table.csv", "log")
    (True, False, True)
    """
    if isinstance(source, Log | Sessions | ProcessLog):
        return True
    if kind is not None:
        return kind == Kind.LOG
    if not isinstance(source, str | Path) or str(source) == "-":
        return False
    path = Path(source)
    if path.is_dir():
        return bool(_log_files(path)) and not holds_images(path)
    return holds_log(path)


def is_process_source(source: Any) -> bool:
    """Say whether data are the event log of a process: a table, or the JSON of cases."""
    if isinstance(source, ProcessLog):
        return True
    return isinstance(source, str | Path) and bool(endings_of(Path(source)) & (TABLE_ENDINGS | {".json"}))


def _log_files(folder: Path) -> list[Path]:
    """Return the logs in a folder and in the folders in it, by name."""
    files = [path for path in sorted([*folder.glob("*"), *folder.glob("*/*")]) if path.is_file()]
    return [path for path in files if not path.name.startswith(".") and (path.suffix == ".err" or is_log_source(path))]


# ---------------------------------------------------------------------- grouping


def parse_session(words: str | Sequence[str] | Mapping[str, Any] | None) -> dict[str, Any]:
    """Read how records are to be grouped.

    Parameters
    ----------
    words : str, sequence of str or mapping
        ``"line"``, ``"id"``, ``"id=PATTERN"``, ``"field=NAME"``, ``"lines=N"``, ``"seconds=S"``, ``"gap=S"`` (with
        ``"field=NAME"`` if wanted) and ``"missing=own"``; or the options of
        :func:`genad.data.log.grouping.sessions` themselves.

    Returns
    -------
    dict
        Options of :func:`genad.data.log.grouping.sessions`.

    Raises
    ------
    InputError
        For anything else.

    Examples
    --------
    >>> parse_session(["gap=30", "field=host"])
    {'by': 'gap', 'seconds': 30.0, 'field': 'host'}
    """
    if words is None:
        return {}
    if isinstance(words, Mapping):
        return dict(words)
    found: dict[str, Any] = {}
    for word in [words] if isinstance(words, str) else words:
        name, equals, value = word.partition("=")
        name, value = name.strip(), value.strip()
        try:
            if (name, equals) in (("line", ""), ("id", "")):
                found["by"] = name
            elif not value or name not in ("id", "field", "lines", "seconds", "gap", "missing"):
                raise ValueError(name)
            elif name == "id":
                found |= {"by": "id", "pattern": value}
            elif name == "gap":
                found |= {"by": "gap", "seconds": float(value)}
            else:
                found[name] = {"lines": int, "seconds": float}.get(name, str)(value)
        except ValueError:
            raise InputError(
                f"session: {word!r} was given; use line, id, id=PATTERN, field=NAME, lines=N, seconds=S, gap=S or "
                "missing=own, where N is a whole number and S a number of seconds."
            ) from None
    return found


def _grouped(log: Log, rule: Mapping[str, Any]) -> tuple[Sessions, dict[str, Any]]:
    """Return sessions, and the rule that made them, to be used on other logs of the same job."""
    if rule:
        return log.sessions(**rule), dict(rule)
    try:
        return log.sessions("id"), {"by": "id"}
    except InputError:  # the messages carry no known id
        found = log.sessions(lines=WINDOW)
        found.notes.append(
            f"the messages carry no known id, so sessions are windows of {WINDOW} lines; say otherwise by session, for "
            "instance line, lines=50, gap=30 or field=host"
        )
        return found, {"lines": WINDOW}


# ---------------------------------------------------------------------- reading


def read_log_data(
    source: Any,
    *,
    labels: Any = None,
    session: Any = None,
    miner: Drain | None = None,
    kind: Kind | str | None = None,
    time: str | None = None,
    entity: str | None = None,
    **options: Any,
) -> Data:
    """Read a log, a folder of logs or the event log of a process, in sessions.

    Parameters
    ----------
    source : path, "-", Log, Sessions or ProcessLog
        Files of a folder are read one after the other, by the time at which each begins; ``"-"`` is standard input.
    labels : str, path or array, optional
        A column of the log (``"-"``, ``"normal"`` and 0 are normal); a file of session ids and labels; or labels, one a
        session or a record. A session is anomalous when one of its records is.
    session : str, sequence of str or mapping, optional
        How records are grouped, see :func:`parse_session`; by a known id in the messages when absent, else in windows
        of 20 lines.
    miner : Drain, optional
        The templates of another log; messages that fit none of them are unseen.
    kind : str, optional
        ``"log"`` when it was asked for.
    time, entity : str, optional
        Of a process: columns of the time stamps and of the case.
    **options
        ``layout``, ``year`` and ``encoding`` of :func:`genad.data.log.stream_log`.

    Returns
    -------
    Data
        Of :class:`~genad.data.log.Sessions`.

    Raises
    ------
    InputError
        When the log, the labels or an option cannot be used.
    """
    return _read(
        source, labels=labels, rule=parse_session(session), miner=miner, kind=kind, time=time, entity=entity, **options
    )[0]


def read_log_job(
    source: Any, train: Any = None, *, labels: Any = None, session: Any = None, **options: Any
) -> tuple[Data, Data]:
    """Read a log to judge and one to learn from; messages to judge get the templates of the one learnt from.

    Parameters
    ----------
    source, train
        As in :func:`read_log_data`; the same when ``train`` is None.
    labels : str, path or array, optional
        As in :func:`read_log_data`, for whichever of the two they fit.
    session : str, sequence of str or mapping, optional
        For both; what is found for the log to learn from holds for the other too.
    **options
        As for :func:`read_log_data`.

    Returns
    -------
    given, learnt : Data

    Raises
    ------
    InputError
        When something cannot be read, or labels fit neither.
    """
    rule = parse_session(session)
    if train is None:
        both, _ = _read(source, labels=labels, rule=rule, **options)
        return both, both
    if options.get("kind") is not None and is_process_source(source) != is_process_source(train):
        raise InputError(
            f"train: {train} and {source} are lines of a log and events of a process; give two of one kind."
        )
    learnt, rule = _read(train, labels=None, rule=rule, **options)
    miner = None if learnt.X.log is None else learnt.X.log.miner
    given, _ = _read(source, labels=None, rule=rule, miner=miner, **options)
    if labels is not None:
        label_sessions(labels, given, learnt)
    return given, learnt


def _read(
    source: Any,
    *,
    labels: Any,
    rule: Mapping[str, Any],
    miner: Drain | None = None,
    kind: Kind | str | None = None,
    time: str | None = None,
    entity: str | None = None,
    **options: Any,
) -> tuple[Data, dict[str, Any]]:
    options = {name: value for name, value in options.items() if value is not None}
    why = "asked for" if kind is not None else "it holds lines of a log"
    if isinstance(source, ProcessLog) or (kind is not None and is_process_source(source)):
        if rule or options:
            name = "session" if rule else next(iter(options))
            raise InputError(
                f"{name}: the event log of a process takes none, its cases are the sessions; leave it out."
            )
        return _read_process(source, labels, time, entity), {}
    for name, value in (("time", time), ("entity", entity)):
        if value:
            raise InputError(f"{name}: the lines of a log have no columns to name; leave it out, or use session.")
    if isinstance(source, Sessions):
        data = Data(source, Kind.LOG, None, "sessions were given", list(source.notes))
        used: dict[str, Any] = {}
    else:
        log = _read_lines(source, miner, options)
        sessions, used = _grouped(log, rule)
        why = why if isinstance(source, str | Path) else "a log was given"
        data = Data(sessions, Kind.LOG, None, why, list(sessions.notes))
    if labels is not None:
        label_sessions(labels, data)
    return data, used


def _read_process(source: Any, labels: Any, time: str | None, entity: str | None) -> Data:
    column = labels if isinstance(labels, str) and not Path(labels).is_file() else None
    found = (
        source if isinstance(source, ProcessLog) else read_process(source, case=entity, timestamp=time, label=column)
    )
    data = Data(found.sessions, Kind.LOG, found.labels, "its rows are the events of cases", list(found.sessions.notes))
    if labels is not None and column is None:
        label_sessions(labels, data)
    return data


def _read_lines(source: Any, miner: Drain | None, options: dict[str, Any]) -> Log:
    if isinstance(source, Log):
        return source if miner is None else source.matched(miner)
    if not isinstance(source, str | Path):
        raise InputError(f"source: a {type(source).__name__} was given; a log is a path, a Log, or Sessions.")
    if str(source) == "-":
        return _read_standard_input(miner, options)
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path.")
    if path.is_dir():
        return _read_folder(path, miner, options)
    return read_log(path, miner=miner, **options)


def _read_standard_input(miner: Drain | None, options: dict[str, Any]) -> Log:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "stdin.log")
        path.write_bytes(sys.stdin.buffer.read())
        try:
            log = read_log(path, miner=miner, **options)
        except InputError as error:
            raise InputError(str(error).replace(str(path), "standard input")) from error
    log.source = "standard input"
    return log


def _read_folder(folder: Path, miner: Drain | None, options: dict[str, Any]) -> Log:
    """Read the logs of a folder as one, each record with its file."""
    files = _log_files(folder)
    if not files:
        raise InputError(f"{folder} holds no log; name the file, or end the names of logs in .log.")
    parts: list[tuple[np.datetime64, Log]] = []
    for path in files:
        log = read_log(path, miner=miner, **options)
        name = str(path.relative_to(folder))
        log.fields["file"] = np.full(len(log), name, object)
        log.notes = [f"{name}: {note}" for note in log.notes]
        times = np.empty(0) if log.time is None else log.time[~np.isnat(log.time)]
        # Files without times stay behind, in the order of their names.
        parts.append((times[0] if len(times) else np.datetime64("9999-01-01", "us"), log))
    parts.sort(key=lambda part: part[0])
    logs = [log for _, log in parts]
    if miner is None:
        shared = Drain()
        for log in logs:
            log.template, log.miner = shared.learn(list(log.message)), shared
    whole = Log.concat(logs)
    whole.source = str(folder)
    layouts = sorted({log.layout for log in logs})
    whole.layout = layouts[0] if len(layouts) == 1 else ", ".join(layouts)
    whole.notes.insert(0, f"{len(logs)} files were read as one log, in the order in which they begin")
    return whole
