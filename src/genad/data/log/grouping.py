"""Grouping of the records of a log into sessions: by id, by window, by gap, or each by itself."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from genad.data.log.sessions import Sessions, coded
from genad.errors import InputError

if TYPE_CHECKING:
    from genad.data.log.log import Log

__all__ = ["KNOWN_IDS", "sessions"]

#: Ids that messages of well-known systems carry, by name; a pattern's first group is the id if it has one.
KNOWN_IDS: dict[str, str] = {
    "block": r"\bblk_-?\d+",
    "request": r"\breq-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "instance": r"\binstance:? ?\[?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})",
    "application": r"\bapplication_\d+_\d+",
    "trace": r"\b(?:trace|correlation|transaction|request|session)_?-?id[=: ]+\"?([\w-]+)",
}
# Lines of a window of a log of which nothing else is known.
_LINES = 50
# Share of the lines that must carry a known id for it to be taken by itself.
_ENOUGH = 0.5


def sessions(
    log: Log,
    by: str | None = None,
    *,
    pattern: str | None = None,
    field: str | None = None,
    lines: int | None = None,
    seconds: float | None = None,
    missing: str = "leave out",
    most: int = 512,
) -> Sessions:
    """Group the records of a log into sessions.

    Parameters
    ----------
    log : Log
    by : {"id", "window", "gap", "line"}, optional
        ``"id"``: records of one id, found in the message by ``pattern`` or read from ``field``, are a session; a record
        with several ids is in each of theirs. ``"window"``: each so many ``lines`` or ``seconds``. ``"gap"``: until
        nothing comes for so many ``seconds``, in each value of ``field`` apart if one is given. ``"line"``: each record
        by itself. When absent it follows from the other options, or else from the messages: a known id that half of
        them carry, otherwise windows of 50 lines; the notes say which.
    pattern : str, optional
        A name in `KNOWN_IDS` or a regular expression, whose first group is the id if it has one.
    field : str, optional
        A column of the log, such as ``"pid"`` or ``"host"``.
    lines : int, optional
    seconds : float, optional
    missing : {"leave out", "own", "error"}
        What becomes of records without an id, or without a time where it is needed: they are left out, which is noted,
        or are a session each.
    most : int
        Longer sessions are cut into parts of so many events, ``"name (part 2)"`` and so on, which is noted.

    Returns
    -------
    Sessions
        In the order in which they begin.

    Raises
    ------
    InputError
        Options that do not go together, a field the log does not have, or no session at all.
    """
    rule = _rule(log, by, pattern, field, lines, seconds)
    if missing not in ("leave out", "own", "error"):
        raise InputError(f"missing: {missing!r} was given; use 'leave out', 'own' or 'error'.")
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        raise InputError(f"most: {most!r} was given; use a whole number of at least 1.")
    notes: list[str] = []
    if rule == "line":
        keys: list[Any] = [(str(line),) for line in log.line.tolist()]
    elif rule == "id":
        keys, said = _ids(log, pattern, field)
        notes.append(said)
    elif rule == "window" and seconds is None:
        size = _positive("lines", lines if lines is not None else _LINES)
        keys = [(f"lines {i // size * size + 1} to {min(len(log), (i // size + 1) * size)}",) for i in range(len(log))]
        if lines is None:
            notes.append(f"sessions are windows of {size} lines; pass by=, pattern= or field= to group otherwise")
    else:
        keys = _by_time(log, rule, seconds, field)
    groups = _grouped(keys, log, missing, notes)
    return _assembled(log, groups, most, notes)


def _rule(
    log: Log, by: str | None, pattern: str | None, field: str | None, lines: int | None, seconds: float | None
) -> str:
    if by not in (None, "id", "window", "gap", "line"):
        raise InputError(f"by: {by!r} was given; use 'id', 'window', 'gap', 'line' or None.")
    if by is None:
        if pattern is not None or (field is not None and seconds is None):
            by = "id"
        elif lines is not None or seconds is not None:
            by = "window"
        else:
            by = "id" if _known_id(log) else "window"
    given = {"pattern": pattern, "field": field, "lines": lines, "seconds": seconds}
    takes = {"id": ("pattern", "field"), "window": ("lines", "seconds"), "gap": ("seconds", "field"), "line": ()}[by]
    for name, value in given.items():
        if value is not None and name not in takes:
            raise InputError(f"{name}: it was given with by={by!r}, which takes {' and '.join(takes) or 'none'}.")
    if by in ("id", "window") and all(given[name] is not None for name in takes):
        raise InputError(f"{takes[0]}: {takes[0]} and {takes[1]} were both given; give one of them.")
    if by == "gap" and seconds is None:
        raise InputError("seconds: none was given with by='gap'; give the length of a gap in seconds.")
    if seconds is not None and not (isinstance(seconds, int | float) and seconds > 0):
        raise InputError(f"seconds: {seconds!r} was given; use a number above 0.")
    return by


def _positive(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name}: {value!r} was given; use a whole number of at least 1.")
    return value


def _known_id(log: Log) -> str | None:
    """Return the name of the first known id that enough of the messages carry."""
    sample = log.message[:: max(1, len(log) // 2000)]
    for name, pattern in KNOWN_IDS.items():
        search = re.compile(pattern, re.IGNORECASE).search
        if sum(search(message) is not None for message in sample) >= _ENOUGH * len(sample):
            return name
    return None


def _ids(log: Log, pattern: str | None, field: str | None) -> tuple[list[tuple[str, ...]], str]:
    """Return the ids of each record, and how they were found."""
    if field is not None:
        values = log.column(field)
        return [() if value is None else (str(value),) for value in values], f"sessions by {field}"
    name = pattern or _known_id(log)
    if name is None:
        raise InputError("pattern: none was given and the messages carry no known id; give pattern= or field=.")
    try:
        found = re.compile(KNOWN_IDS.get(name, name), re.IGNORECASE if name in KNOWN_IDS else 0).findall
    except re.error as error:
        names = ", ".join(map(repr, KNOWN_IDS))
        raise InputError(f"pattern: {name!r} is no regular expression ({error}); mend it or use {names}.") from error
    ids = []
    for message in log.message:
        hits = found(message)
        ids.append(tuple(dict.fromkeys(hit if isinstance(hit, str) else hit[0] for hit in hits)))
    return ids, f"sessions by {name} in the message"


def _by_time(log: Log, rule: str, seconds: float | None, field: str | None) -> list[tuple[str, ...]]:
    """Return the window or stretch of each record; none where its time is not known."""
    if log.time is None or np.isnat(log.time).all():
        raise InputError(f"seconds: the log has no time stamps, so by={rule!r} cannot use them; use lines= instead.")
    step = float(seconds or 0) * 1e6
    micros = log.time.astype(np.int64)
    known = ~np.isnat(log.time)
    if rule == "window":
        first = int(micros[known].min())
        numbers = ((micros - first) // step).astype(np.int64)
        starts = (first + numbers * step).astype(np.int64).astype("datetime64[us]")
        return [(f"from {start}",) if ok else () for start, ok in zip(starts, known, strict=True)]
    owners = np.full(len(log), "") if field is None else log.column(field)
    last: dict[Any, tuple[int, str]] = {}
    keys: list[tuple[str, ...]] = []
    for i, (now, owner) in enumerate(zip(micros.tolist(), owners, strict=True)):
        if not known[i]:
            keys.append(())
            continue
        before, name = last.get(owner, (None, ""))
        # A clock set back is no gap.
        if before is None or now - before > step:
            name = f"{owner} from {log.time[i]}, line {log.line[i]}".strip()
        last[owner] = (now, name)
        keys.append((name,))
    return keys


def _grouped(keys: list[tuple[str, ...]], log: Log, missing: str, notes: list[str]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    without = 0
    for i, names in enumerate(keys):
        for name in names:
            groups.setdefault(name, []).append(i)
        if not names:
            without += 1
            if missing == "own":
                groups[f"line {log.line[i]}"] = [i]
    if without and missing == "error":
        raise InputError(f"missing: {without} of {len(log)} records belong to no session; use 'leave out' or 'own'.")
    if without:
        done = "are left out" if missing == "leave out" else "are a session each"
        notes.append(f"{without} of {len(log)} records belong to no session and {done}")
    if not groups:
        raise InputError("pattern: no record belongs to a session; give another pattern= or field=, or use lines=.")
    return groups


def _assembled(log: Log, groups: dict[str, list[int]], most: int, notes: list[str]) -> Sessions:
    names, parts = [], []
    cut = 0
    for name, places in groups.items():
        cut += len(places) > most
        for start in range(0, len(places), most):
            names.append(name if start == 0 else f"{name} (part {start // most + 1})")
            parts.append(places[start : start + most])
    if cut:
        notes.append(f"{cut} sessions of more than {most} events were cut into parts")
    rows = np.concatenate([np.array(part, np.int64) for part in parts])
    events, vocabulary = coded(log)
    offsets = np.cumsum([0, *map(len, parts)])
    return Sessions(events[rows], offsets, vocabulary, names, rows=rows, log=log, notes=[*log.notes, *notes])
