"""A log: its messages with times, levels, components, templates and parameters, in columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genad.data.log.drain import UNSEEN, Drain
from genad.data.log.masking import mask, parameters
from genad.data.log.reading import Records, records
from genad.data.log.source import LONGEST
from genad.errors import InputError, InputTypeError

if TYPE_CHECKING:
    from genad.data.log.sessions import Sessions

__all__ = ["Log", "read_log", "stream_log"]

_COLUMNS = ("level", "component", "host", "pid")


class Log:
    """Records of a log, in columns of equal length.

    Users get one from `read_log`, `stream_log` or `Log.from_messages`.

    Attributes
    ----------
    message : array of str objects, shape (n,)
        With their further lines, as of a stack trace.
    line : int64 array
        Number of the first line of each in its file, from 1.
    time : datetime64[us] array or None
        NaT where a stamp cannot be read; None when the layout has none.
    level, component, host, pid : array of str objects or None
        None in it where a record has no such field.
    fields : dict of str to array of str objects
        Further fields of the layout by name.
    template : int32 array
        Number of each message's template in ``miner``, -1 for a message that fits none.
    miner : Drain
        What mined the templates.
    layout : str
    notes : list of str
        What is worth knowing: the layout found, lines cut, a clock that goes backwards.
    source : str
        Where the log is from.

    Examples
    --------
    >>> log = Log.from_messages(["opened port 80", "user ann left", "opened port 443"])
    >>> log
    Log(3 messages, 2 templates, plain text)
    >>> log.template.tolist(), log.templates[0], log.parameters[2]
    ([0, 1, 0], 'opened port <*>', ('443',))
    """

    def __init__(
        self,
        message: NDArray[Any],
        line: NDArray[np.int64],
        template: NDArray[np.int32],
        miner: Drain,
        *,
        time: NDArray[np.datetime64] | None = None,
        fields: dict[str, NDArray[Any]] | None = None,
        layout: str = "plain text",
        notes: Sequence[str] = (),
        source: str = "",
    ) -> None:
        self.message, self.line, self.template, self.miner = message, line, template, miner
        self.time = time
        self.fields = dict(fields or {})
        self.level, self.component, self.host, self.pid = (self.fields.pop(name, None) for name in _COLUMNS)
        self.layout, self.notes, self.source = layout, list(notes), source

    @classmethod
    def from_messages(
        cls,
        messages: Sequence[str],
        *,
        time: Any = None,
        miner: Drain | None = None,
        **fields: Any,
    ) -> Log:
        """Make a log of messages that are in memory.

        Parameters
        ----------
        messages : sequence of str
        time : array of datetime64, optional
        miner : Drain, optional
            One that has learnt: then nothing more is learnt, as with `read_log`.
        **fields
            ``level``, ``component``, ``host``, ``pid`` and any others: one text a message.

        Raises
        ------
        InputError
            No message, or a column of another length.
        InputTypeError
            Messages that are not text.
        """
        if isinstance(messages, str) or not all(isinstance(message, str) for message in messages):
            raise InputTypeError("messages: something else than text was given; use a sequence of str.")
        if len(messages) == 0:
            raise InputError("messages: none was given; give at least 1.")
        columns = {name: _objects(column) for name, column in fields.items()}
        stamps = None if time is None else np.asarray(time).astype("datetime64[us]")
        for name, column in (columns | ({} if stamps is None else {"time": stamps})).items():
            if len(column) != len(messages):
                raise InputError(f"{name}: {len(column)} were given for {len(messages)} messages; give one each.")
        template, miner = _mine(list(messages), miner)
        line = np.arange(1, len(messages) + 1)
        return cls(_objects(messages), line, template, miner, time=stamps, fields=columns, source="memory")

    # ------------------------------------------------------------------ looking

    def __len__(self) -> int:
        return len(self.message)

    def __repr__(self) -> str:
        used = len(np.unique(self.template[self.template != UNSEEN]))
        unseen = int((self.template == UNSEEN).sum())
        more = f", {unseen:,} messages of unseen templates" if unseen else ""
        return f"Log({len(self):,} messages, {used:,} templates{more}, {self.layout})"

    @property
    def templates(self) -> list[str]:
        """The templates as text, by number."""
        return self.miner.templates

    @property
    def unseen(self) -> NDArray[np.bool_]:
        """Which messages fit no template."""
        return self.template == UNSEEN

    @property
    def event(self) -> NDArray[Any]:
        """The template of each message as text; of one that fits none, the message with its values masked."""
        found = _objects([*self.templates, ""])[self.template]
        for i in np.flatnonzero(self.unseen):
            found[i] = mask(self.message[i])
        return found

    @property
    def parameters(self) -> NDArray[Any]:
        """What stands where the template has wildcards: an array of tuples of str, found anew at each call."""
        found = np.empty(len(self), object)
        for i, (message, event) in enumerate(zip(self.message, self.event, strict=True)):
            found[i] = parameters(message, event)
        return found

    def column(self, name: str) -> NDArray[Any]:
        """Return a column by name: ``message``, ``time``, ``level``, ... or one of ``fields``.

        Raises
        ------
        InputError
            When the log has no such column.
        """
        columns = self.columns()
        if name not in columns:
            raise InputError(f"field: the log has no column {name!r}; it has {', '.join(columns)}.")
        return columns[name]

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return all columns that the log has, by name."""
        known = {"line": self.line, "time": self.time} | self.fields_by_name()
        known |= {"template": self.template, "message": self.message}
        return {name: column for name, column in known.items() if column is not None}

    # ------------------------------------------------------------------ making others

    def take(self, rows: Any) -> Log:
        """Return some of the records, by position or by a mask, in the order given."""
        fields = {name: column[rows] for name, column in self.fields_by_name().items()}
        return Log(
            self.message[rows],
            self.line[rows],
            self.template[rows],
            self.miner,
            time=None if self.time is None else self.time[rows],
            fields=fields,
            layout=self.layout,
            notes=self.notes,
            source=self.source,
        )

    def matched(self, miner: Drain) -> Log:
        """Return the same log with the templates of another miner, which learns nothing from it."""
        twin = self.take(slice(None))
        twin.template, twin.miner = miner.match(list(self.message)), miner
        return twin

    def sessions(self, by: str | None = None, **options: Any) -> Sessions:
        """Group the records into sessions; see :func:`genad.data.log.grouping.sessions`."""
        from genad.data.log.grouping import sessions

        return sessions(self, by, **options)

    @staticmethod
    def concat(parts: Sequence[Log]) -> Log:
        """Join parts of one log that share a miner; a field that only some have is None elsewhere."""
        if len(parts) == 1:
            return parts[0]
        if not parts or any(part.miner is not parts[0].miner for part in parts):
            raise InputError("parts: none was given, or they have different miners; read them with one miner=.")
        names = dict.fromkeys(name for part in parts for name in part.fields_by_name())
        fields = {
            name: np.concatenate([part.fields_by_name().get(name, np.full(len(part), None, object)) for part in parts])
            for name in names
        }
        times = [np.full(len(part), np.datetime64("NaT", "us")) if part.time is None else part.time for part in parts]
        return Log(
            np.concatenate([part.message for part in parts]),
            np.concatenate([part.line for part in parts]),
            np.concatenate([part.template for part in parts]),
            parts[0].miner,
            time=None if all(part.time is None for part in parts) else np.concatenate(times),
            fields=fields,
            layout=parts[0].layout,
            notes=[note for part in parts for note in part.notes],
            source=parts[0].source,
        )

    def fields_by_name(self) -> dict[str, NDArray[Any]]:
        """Return level, component, host, pid and ``fields``, as far as the log has them."""
        own = {name: getattr(self, name) for name in _COLUMNS}
        return {name: column for name, column in (own | self.fields).items() if column is not None}


def read_log(path: str | Path, *, miner: Drain | None = None, **options: Any) -> Log:
    r"""Read a log file.

    Parameters
    ----------
    path : str or Path
        Text, or text compressed by gzip, bzip2 or xz.
    miner : Drain, optional
        One that has learnt from another log: messages are matched to its templates, and those that fit none are
        marked by template -1. A new one learns from this very log when absent.
    **options
        ``layout``, ``year``, ``encoding`` and ``longest`` of `stream_log`.

    Returns
    -------
    Log
        What was found out about the file is in its ``notes``.

    Raises
    ------
    InputError
        A file that is missing, empty, binary or damaged, or an option that cannot be used.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "app.log")
    ...     lines = ["2024-01-31 13:05:09,123 ERROR [main] a.Job - failed after 3 s", "  at a.Job.run(Job.java:7)"]
    ...     _ = path.write_text("\n".join(lines))
    ...     log = read_log(path)
    >>> log.layout, log.level[0], log.component[0], str(log.time[0])
    ('log4j', 'ERROR', 'a.Job', '2024-01-31T13:05:09.123000')
    >>> log.event[0], log.parameters[0]
    ('failed after <*> s', ('3',))
    """
    return Log.concat(list(_parts(path, miner, options)))


def stream_log(
    path: str | Path,
    *,
    miner: Drain | None = None,
    rows: int = 100_000,
    layout: str | None = None,
    year: int | None = None,
    encoding: str | None = None,
    longest: int = LONGEST,
) -> Iterator[Log]:
    """Read a log file part by part, so that it may be larger than memory.

    Parameters
    ----------
    path, miner
        As in `read_log`; the parts share one miner.
    rows : int
        Most records in a part.
    layout : str, optional
        Name of the layout; found from the first lines when absent.
    year : int, optional
        Year of the first line, for time stamps without one; 1970 when absent, which is noted.
    encoding : str, optional
        UTF-8 when absent, with lines that are not valid read as Windows-1252, which is noted.
    longest : int
        Bytes of a line that are kept; longer ones are cut, which is noted.

    Yields
    ------
    Log
        A part; notes that hold for the whole file come with the last one.
    """
    options = {"rows": rows, "layout": layout, "year": year, "encoding": encoding, "longest": longest}
    return _parts(path, miner, options)


def _parts(path: str | Path, miner: Drain | None, options: dict[str, Any]) -> Iterator[Log]:
    learner = Drain() if miner is None else None
    for part in records(path, **options):
        yield _as_log(part, miner, learner, str(path))


def _as_log(part: Records, miner: Drain | None, learner: Drain | None, source: str) -> Log:
    if learner is not None:
        template, miner = learner.learn(part.messages), learner
    else:
        template, miner = _mine(part.messages, miner)
    return Log(
        _objects(part.messages),
        np.array(part.lines, np.int64),
        template,
        miner,
        time=part.time,
        fields={name: _objects(values) for name, values in part.fields.items() if any(v is not None for v in values)},
        layout=part.layout,
        notes=part.notes,
        source=source,
    )


def _mine(messages: list[str], miner: Drain | None) -> tuple[NDArray[np.int32], Drain]:
    if miner is None:
        miner = Drain()
        return miner.learn(messages), miner
    return miner.match(messages), miner


def _objects(values: Any) -> NDArray[Any]:
    """Return values as an array of objects, whatever they are."""
    found = np.empty(len(values), object)
    found[:] = list(values)
    return found
