"""From lines to records: the layout found, stack traces kept with their message, times read, oddities noted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genad.data.log.layouts import LAYOUTS, PLAIN, Layout, find_layout, is_continuation, layout_named
from genad.data.log.source import LONGEST, LineSource
from genad.data.log.timestamps import TimeReader, find_format
from genad.errors import InputError

__all__ = ["Records", "records"]

# Lines from which the layout is found.
_SAMPLE = 1000
# Further lines that a message may have; a longer run of them means that the layout has changed.
_MOST_LINES = 1000
# Names of fields that are kept.
_MOST_FIELDS = 64
_LEVELS = {
    "WARNING": "WARN", "ERR": "ERROR", "SEVERE": "ERROR", "CRIT": "CRITICAL", "INFORMATION": "INFO", "I": "INFO",
    "W": "WARN", "E": "ERROR", "F": "FATAL", "D": "DEBUG", "V": "TRACE", "A": "FATAL",
}  # fmt: skip


@dataclass
class Records:
    """Some records of a log, in columns.

    Attributes
    ----------
    messages : list of str
        With the further lines of each.
    lines : list of int
        Number of the first line of each, from 1.
    fields : dict of str to list
        Everything else by name, None where a record has no such field; ``"level"`` in capitals.
    time : datetime64[us] array or None
    layout : str
    notes : list of str
        What is worth knowing of this part.
    """

    messages: list[str]
    lines: list[int]
    fields: dict[str, list[Any]]
    time: NDArray[np.datetime64] | None
    layout: str
    notes: list[str] = field(default_factory=list)


def records(
    path: str | Path,
    *,
    layout: str | None = None,
    year: int | None = None,
    encoding: str | None = None,
    longest: int = LONGEST,
    rows: int = 100_000,
) -> Iterator[Records]:
    """Read a log file part by part; the parameters are those of :func:`genad.data.log.log.stream_log`.

    Yields
    ------
    Records
        Of at most ``rows`` records each.
    """
    chosen = None if layout is None else layout_named(layout)
    if layout is not None and chosen is None:
        names = ", ".join(repr(known.name) for known in (*LAYOUTS, PLAIN))
        raise InputError(f"layout: {layout!r} is not known; use None to have it found, or one of {names}.")
    if not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
        raise InputError(f"rows: {rows!r} was given; use a whole number of at least 1.")
    if year is not None and (not isinstance(year, int) or not 1970 <= year <= 9999):
        raise InputError(f"year: {year!r} was given; use a whole number from 1970 to 9999.")
    source = LineSource(path, encoding, longest)
    blocks = iter(source)
    head = next(blocks)
    notes = []
    if chosen is None:
        chosen, share = find_layout([line for line in head[: 4 * _SAMPLE] if line][:_SAMPLE])
        notes.append(f"layout: {chosen.name}, found from the first lines ({share:.0%} of them follow it)")
    builder = _Builder(chosen, year, rows)
    for lines in chain([head], blocks):
        for part in builder.feed(lines):
            part.notes = notes + part.notes
            notes = []
            yield part
    last = builder.flush()
    if not last.messages and builder.total == 0:
        raise InputError(f"path: {path} holds blank lines only; give a file with at least 1 message.")
    last.notes = notes + last.notes + builder.closing_notes() + _notes_of(source)
    yield last


def _notes_of(source: LineSource) -> list[str]:
    notes = []
    if source.cut:
        notes.append(
            f"{len(source.cut)} lines were cut to their first {source.longest:,} bytes, the first of them line "
            f"{source.cut[0]}"
        )
    if source.odd:
        notes.append(
            f"{len(source.odd)} lines are not valid {source.encoding or 'utf-8'} and were read as Windows-1252, the "
            f"first of them line {source.odd[0]}"
        )
    return notes


class _Builder:
    """Joins lines to records and hands them out in parts."""

    def __init__(self, layout: Layout, year: int | None, rows: int) -> None:
        self.layout, self.year, self.rows = layout, year, rows
        self.total = 0
        self._line = 0
        self._started: list[dict[str, Any]] = []
        self._lines: list[int] = []
        self._further: list[str] = []
        self._joined = self._loose = 0
        # Whether the lines no longer follow the layout, so that each is a message.
        self._lost = False
        self._names: dict[str, None] = {}
        self._reader: TimeReader | None = None
        self._assumed = False
        self._latest = np.datetime64("NaT", "us")
        self._backwards, self._first_backwards = 0, 0

    def feed(self, lines: list[str]) -> Iterator[Records]:
        """Take in lines; yield a part whenever enough records are whole."""
        parse = self.layout.parse
        for line in lines:
            self._line += 1
            found = parse(line)
            if found is not None:
                if len(self._started) >= self.rows:
                    yield self.flush()
                self._begin(found)
                self._lost = False
            elif self._started and self._belongs(line):
                self._further.append(line)
            elif line:
                if len(self._started) >= self.rows:
                    yield self.flush()
                self._lost = bool(self.total or self._started)
                self._begin({"message": line})
                self._loose += 1

    def _belongs(self, line: str) -> bool:
        """Say whether a line that begins no record is a part of the message before it."""
        return len(self._further) < _MOST_LINES and (not self._lost or is_continuation(line))

    def _begin(self, found: dict[str, Any]) -> None:
        self._close()
        self._started.append(found)
        self._lines.append(self._line)

    def _close(self) -> None:
        """Put the further lines to the message they belong to; blank ones at its end are none."""
        if not self._further:
            return
        while self._further and not self._further[-1].strip():
            self._further.pop()
        if self._further:
            last = self._started[-1]
            last["message"] = "\n".join([last["message"] or "", *self._further])
            self._joined += len(self._further)
        self._further = []

    def flush(self) -> Records:
        """Return the records so far and start anew."""
        self._close()
        started, lines = self._started, self._lines
        self._started, self._lines = [], []
        self.total += len(started)
        for record in started:
            for name in record:
                if name not in self._names and len(self._names) < _MOST_FIELDS:
                    self._names[name] = None
        columns = {name: [record.get(name) for record in started] for name in self._names}
        messages = [message or "" for message in columns.pop("message", [])]
        if "level" in columns:
            columns["level"] = [_level(level) for level in columns["level"]]
        time, notes = self._times(columns.pop("time", None), lines)
        return Records(messages, lines, columns, time, self.layout.name, notes)

    def _times(
        self, stamps: list[str | None] | None, lines: list[int]
    ) -> tuple[NDArray[np.datetime64] | None, list[str]]:
        if stamps is None:
            return None, []
        notes = []
        if self._reader is None:
            sample = [stamp for stamp in stamps if stamp is not None][:200]
            form = find_format(sample)
            if form is None:
                if not sample or self._assumed:
                    return np.full(len(stamps), np.datetime64("NaT", "us")), []
                self._assumed = True
                notes.append(f"time stamps such as {sample[0]!r} are in no known format and were left out")
                return np.full(len(stamps), np.datetime64("NaT", "us")), notes
            self._reader = TimeReader(form, self.year or 1970)
            if not form.year and self.year is None:
                notes.append("the time stamps have no year; 1970 is assumed, pass year= to set it")
        time = self._reader.read(stamps)
        self._watch(time, lines)
        return time, notes

    def _watch(self, time: NDArray[np.datetime64], lines: list[int]) -> None:
        """Count where the clock goes backwards."""
        known = np.flatnonzero(~np.isnat(time))
        if len(known) == 0:
            return
        values = time[known]
        before = np.concatenate([[self._latest], values[:-1]])
        back = np.flatnonzero(values < before)
        if len(back) and not self._backwards:
            self._first_backwards = lines[known[back[0]]]
        self._backwards += len(back)
        self._latest = values[-1]

    def closing_notes(self) -> list[str]:
        """Return what is known once the whole file is read."""
        notes = []
        if self._joined:
            notes.append(f"{self._joined} lines that begin no record were kept with the message before them")
        if self._loose:
            notes.append(f"{self._loose} lines do not follow the layout and stand as messages of their own")
        if self._backwards:
            notes.append(
                f"the clock goes backwards {self._backwards} times, first at line {self._first_backwards}; the lines "
                "keep their order"
            )
        return notes


def _level(level: str | None) -> str | None:
    if level is None:
        return None
    upper = level.upper()
    return _LEVELS.get(upper, upper)
