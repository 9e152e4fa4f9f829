"""Event logs of business processes: one row an activity of a case, brought into sessions of activities."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genad.data.io import read_table
from genad.data.log.sessions import Sessions
from genad.data.table import as_table
from genad.errors import InputError

__all__ = ["ProcessLog", "as_process", "read_process"]

#: Names that columns have in common exports; the first that is there is taken. XES names come first.
CASE_NAMES = ("case:concept:name", "case", "case_id", "caseid", "case id", "trace", "trace_id")
ACTIVITY_NAMES = ("concept:name", "activity", "event", "task", "activity name")
TIME_NAMES = ("time:timestamp", "timestamp", "time", "complete timestamp", "end time", "date")
LABEL_NAMES = ("label", "anomaly", "case:label")
_NORMAL = ("normal", "0", "0.0", "false", "no", "")


@dataclass(frozen=True)
class ProcessLog:
    """The traces of a process, and what is known to be wrong with them.

    Attributes
    ----------
    sessions : Sessions
        One a case, in the order of their first events in the file; names are those of the cases.
    types : list of str or None
        What is wrong with each case, ``"normal"`` when nothing is; None for a log without labels.
    places : list of tuple of int, or None
        Positions of the activities that are wrong, as far as the labels say; empty for what is missing.
    """

    sessions: Sessions
    types: list[str] | None = None
    places: list[tuple[int, ...]] | None = None

    def __len__(self) -> int:
        return len(self.sessions)

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """1 for an anomalous case, 0 for a normal one; None for a log without labels."""
        return None if self.types is None else np.array([int(kind != "normal") for kind in self.types])

    def traces(self) -> list[list[str]]:
        """Return the activities of each case."""
        return [self.sessions.texts(i) for i in range(len(self))]

    def take(self, indices: Any) -> ProcessLog:
        """Return some of the cases, by position or by a mask."""
        chosen = np.arange(len(self))[indices].tolist()
        return ProcessLog(
            self.sessions.take(chosen),
            None if self.types is None else [self.types[i] for i in chosen],
            None if self.places is None else [self.places[i] for i in chosen],
        )


def read_process(
    path: str | Path,
    *,
    case: str | None = None,
    activity: str | None = None,
    timestamp: str | None = None,
    label: str | None = None,
    attributes: Sequence[str] = (),
) -> ProcessLog:
    """Read an event log.

    Parameters
    ----------
    path : str or Path
        A table (CSV, Parquet and the other formats of :func:`genad.data.io.read_table`) with a row an event; or the
        JSON of the generator of BINet, ``.json`` or ``.json.gz``, whose cases carry labels.
    case, activity, timestamp, label : str, optional
        Columns; found by common names, those of XES exports among them, when absent. Events of a case are brought into
        the order of their times, equal times staying in that of the file; without times the file's order holds.
        A label is of the case: ``"normal"``, 0 or nothing, else the type of anomaly.
    attributes : sequence of str
        Columns, or attributes of events, that become part of the activity's name, as in ``"Pay (user Ada)"``: so that
        an activity by the wrong user is another activity.

    Returns
    -------
    ProcessLog

    Raises
    ------
    InputError
        A file that cannot be read, columns that are missing, or events without a case or an activity.
    """
    path = Path(path)
    if path.name.lower().endswith((".json", ".json.gz")):
        return _read_binet(path, attributes)
    return as_process(
        read_table(path), case=case, activity=activity, timestamp=timestamp, label=label, attributes=attributes
    )


def as_process(
    X: Any,
    *,
    case: str | None = None,
    activity: str | None = None,
    timestamp: str | None = None,
    label: str | None = None,
    attributes: Sequence[str] = (),
) -> ProcessLog:
    """Bring a table with a row an event into traces.

    Parameters
    ----------
    X : Table, dataframe or mapping of columns
    case, activity, timestamp, label, attributes
        As for :func:`read_process`.

    Returns
    -------
    ProcessLog

    Raises
    ------
    InputError
        As :func:`read_process`.

    Examples
    --------
    >>> events = {"case": ["a", "b", "a"], "activity": ["order", "order", "pay"], "time": ["09:30", "09:10", "09:00"]}
    >>> log = as_process(events)
    >>> log.sessions.names, log.traces()
    (['a', 'b'], [['pay', 'order'], ['order']])
    """
    table = as_table(X)
    cases = _texts(table.column(_column(table.names, case, CASE_NAMES, "case")), "case")
    events = _texts(table.column(_column(table.names, activity, ACTIVITY_NAMES, "activity")), "activity")
    for name in attributes:
        values = table.column(_column(table.names, name, (), "attributes"))
        events = [_with(event, name, value) for event, value in zip(events, values, strict=True)]
    when = _column(table.names, timestamp, TIME_NAMES, "timestamp", needed=timestamp is not None)
    places: dict[str, list[int]] = {}
    for i, name in enumerate(cases):
        places.setdefault(name, []).append(i)
    if when:
        ranks = _ranks(table.column(when), when)
        places = {name: sorted(rows, key=ranks.__getitem__) for name, rows in places.items()}
    sessions = Sessions.from_sequences([[events[i] for i in rows] for rows in places.values()], list(places))
    known = _column(table.names, label, LABEL_NAMES, "label", needed=label is not None)
    if not known:
        return ProcessLog(sessions)
    marks = table.column(known)
    return ProcessLog(sessions, [_case_type(marks[rows]) for rows in places.values()])


def _column(
    names: Sequence[str], asked: str | None, usual: Iterable[str], argument: str, *, needed: bool = True
) -> str:
    if asked is not None:
        if asked in names:
            return asked
        raise InputError(f"{argument}: there is no column {asked!r}; there are {', '.join(map(repr, names))}.")
    lower = {name.lower(): name for name in reversed(names)}
    for name in usual:
        if name in lower:
            return lower[name]
    if needed:
        raise InputError(
            f"{argument}: no column has a usual name for it; name one of {', '.join(map(repr, names))} by {argument}=."
        )
    return ""


def _missing(value: Any) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def _texts(values: NDArray[Any], argument: str) -> list[str]:
    found = values.tolist()
    for i, value in enumerate(found):
        if _missing(value):
            raise InputError(f"{argument}: row {i} has none; fill it in, or leave the row out.")
    return [str(value).strip() for value in found]


def _with(event: str, name: str, value: Any) -> str:
    return event if _missing(value) else f"{event} ({name} {value})"


def _ranks(values: NDArray[Any], name: str) -> list[int]:
    """Return the order of times: dates, numbers, or texts that sort as they are, such as ISO 8601."""
    if values.dtype.kind == "O":
        for i, value in enumerate(values.tolist()):
            if _missing(value):
                raise InputError(f"timestamp: row {i} of {name!r} has none; fill it in, or leave the row out.")
        values = values.astype(str)
    elif (np.isnat(values) if values.dtype.kind in "mM" else np.isnan(values.astype(np.float64))).any():
        raise InputError(f"timestamp: {name!r} has rows without a time; fill them in, or leave the rows out.")
    ranks: list[int] = np.unique(values, return_inverse=True)[1].tolist()
    return ranks


def _case_type(marks: NDArray[Any]) -> str:
    """Return the type of a case: that of its first event which is marked."""
    for mark in marks.tolist():
        text = "" if _missing(mark) else str(mark).strip()
        if text.lower() not in _NORMAL:
            return text if text.lower() not in ("1", "1.0", "true", "yes") else "anomaly"
    return "normal"


def _read_binet(path: Path, attributes: Sequence[str]) -> ProcessLog:
    """Read cases of events from JSON, whose labels say what was done to each."""
    try:
        raw = path.read_bytes()
        held = json.loads(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
        cases = held["cases"]
        traces = [[_named(event, attributes) for event in case["events"]] for case in cases if case["events"]]
        marks = [case.get("attributes", {}).get("label") for case in cases if case["events"]]
        names = [str(case.get("id", i)) for i, case in enumerate(cases) if case["events"]]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the path.") from None
    except (EOFError, zlib.error, ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not whole JSON ({error}); write it again.") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: is not an event log of cases with named events ({type(error).__name__}: {error}); convert it to "
            "CSV with a case, an activity and a time."
        ) from None
    sessions = Sessions.from_sequences(traces, names)
    if all(mark is None for mark in marks):
        return ProcessLog(sessions)
    types = [_binet_type(mark) for mark in marks]
    return ProcessLog(
        sessions, types, [_binet_places(mark, len(trace)) for mark, trace in zip(marks, traces, strict=True)]
    )


def _named(event: dict[str, Any], attributes: Sequence[str]) -> str:
    name = str(event["name"])
    for attribute in attributes:
        name = _with(name, attribute, event.get("attributes", {}).get(attribute))
    return name


def _binet_type(mark: Any) -> str:
    return str(mark["anomaly"]) if isinstance(mark, dict) else str(mark or "normal")


def _binet_places(mark: Any, length: int) -> tuple[int, ...]:
    """Return where the activities stand that were put in, moved or changed."""
    if not isinstance(mark, dict):
        return ()
    facts = mark.get("attr", {})
    if "shift_to" in facts:
        found = range(facts["shift_to"], facts["shift_to"] + facts["size"])
    elif "inserted" in facts:
        found = range(facts["start"], facts["start"] + facts["size"])
    else:
        found = facts.get("indices", facts.get("index", ()))
    return tuple(sorted({int(i) for i in found if 0 <= int(i) < length}))
