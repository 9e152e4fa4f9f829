"""Sessions: sequences of events, given as they are or taken from a log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genad.data.log.masking import mask
from genad.errors import InputError, InputTypeError

if TYPE_CHECKING:
    from genad.data.log.drain import Drain
    from genad.data.log.log import Log

__all__ = ["Sessions", "as_sessions", "coded"]


class Sessions:
    """Sequences of events, each with a name; what detectors of logs take.

    Users get one from `Log.sessions` or `Sessions.from_sequences`.

    Attributes
    ----------
    events : int32 array, shape (events in all,)
        Numbers of events in ``vocabulary``, session after session.
    offsets : int64 array, shape (sessions + 1,)
        Session i has ``events[offsets[i]:offsets[i + 1]]``.
    vocabulary : list of str
        What each number stands for: a template, the name of an activity, or the number itself.
    names : list of str
        One a session.
    rows : int64 array or None
        Position in ``log`` of each event.
    log : Log or None
    notes : list of str
        What is worth knowing, such as lines that belong to no session.

    Examples
    --------
    >>> found = Sessions.from_sequences([["open", "read", "close"], ["open", "close"]])
    >>> found
    Sessions(2 of 2 to 3 events, 3 different)
    >>> found[1].tolist(), found.vocabulary
    ([0, 2], ['open', 'read', 'close'])
    """

    def __init__(
        self,
        events: NDArray[np.int32],
        offsets: NDArray[np.int64],
        vocabulary: list[str],
        names: list[str] | None = None,
        *,
        rows: NDArray[np.int64] | None = None,
        log: Log | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.events, self.offsets, self.vocabulary = events, offsets, vocabulary
        self.names = [str(i) for i in range(len(offsets) - 1)] if names is None else names
        self.rows, self.log, self.notes = rows, log, list(notes)

    @classmethod
    def from_sequences(cls, sequences: Iterable[Any], names: Sequence[str] | None = None) -> Sessions:
        """Make sessions of sequences of whole numbers from 0, or of names of events.

        Parameters
        ----------
        sequences : iterable of sequences of int, or of str
            Of any lengths of at least 1.
        names : sequence of str, optional
            One a session; the numbers from 0 when absent.

        Raises
        ------
        InputError
            No session, an empty one, negative numbers, or names of another number.
        InputTypeError
            Events that are neither whole numbers nor text.
        """
        given = [np.asarray(sequence) for sequence in sequences]
        if not given:
            raise InputError("X: no session was given; give at least 1.")
        for i, sequence in enumerate(given):
            if sequence.ndim != 1 or len(sequence) == 0:
                raise InputError(f"X: session {i} has shape {sequence.shape}; give a sequence of at least 1 event.")
        kinds = {"i" if part.dtype.kind == "u" else part.dtype.kind for part in given}
        flat = np.concatenate(given) if len(kinds) == 1 else np.array([None])
        offsets = np.cumsum([0, *map(len, given)])
        if names is not None and len(names) != len(given):
            raise InputError(f"names: {len(names)} were given for {len(given)} sessions; give one each.")
        labels = None if names is None else [str(name) for name in names]
        if flat.dtype.kind == "O" and all(isinstance(event, str) for event in flat):
            flat = flat.astype(str)
        if flat.dtype.kind == "U":
            places: dict[str, int] = {}
            numbered = [places.setdefault(event, len(places)) for event in flat.tolist()]
            return cls(np.array(numbered, np.int32), offsets, list(places), labels)
        if flat.dtype.kind not in "iu":
            raise InputTypeError(
                f"X: events of type {flat.dtype} were given; use whole numbers from 0 or names, of one kind for all."
            )
        if flat.min() < 0 or flat.max() >= 2**24:
            raise InputError(f"X: event {flat.min() if flat.min() < 0 else flat.max()} was given; use 0 to 16777215.")
        numbers, codes = np.unique(flat, return_inverse=True)
        return cls(codes.astype(np.int32), offsets, [str(number) for number in numbers], labels)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        i = range(len(self))[index]
        return self.events[self.offsets[i] : self.offsets[i + 1]]

    def __repr__(self) -> str:
        lengths = self.lengths
        return (
            f"Sessions({len(self):,} of {lengths.min()} to {lengths.max()} events, "
            f"{len(np.unique(self.events)):,} different)"
        )

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of events of each session."""
        return np.diff(self.offsets)

    def take(self, indices: Any) -> Sessions:
        """Return some of the sessions, by position or by a mask, in the order given."""
        chosen = np.arange(len(self))[indices]
        starts, lengths = self.offsets[chosen], self.lengths[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return Sessions(
            self.events[places],
            offsets,
            self.vocabulary,
            [self.names[i] for i in chosen.tolist()],
            rows=None if self.rows is None else self.rows[places],
            log=self.log,
            notes=self.notes,
        )

    def matched(self, miner: Drain) -> Sessions:
        """Return the same sessions with the templates of another miner, which learns nothing from them.

        Raises
        ------
        InputError
            When the sessions come from no log.
        """
        if self.log is None or self.rows is None:
            raise InputError("X: sessions of plain events were given, but the model reads log messages; give a Log.")
        if self.log.miner is miner:
            return self
        log = self.log.matched(miner)
        events, vocabulary = coded(log)
        return Sessions(
            events[self.rows], self.offsets, vocabulary, self.names, rows=self.rows, log=log, notes=self.notes
        )

    def texts(self, index: int) -> list[str]:
        """Return what happened in a session: its messages when it comes from a log, otherwise its events."""
        if self.log is not None and self.rows is not None:
            rows = self.rows[self.offsets[index] : self.offsets[index + 1]]
            return [str(message) for message in self.log.message[rows]]
        return [self.vocabulary[event] for event in self[index]]

    def to_lines(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Bring one value an event, as an anomaly map has, to the records of the log.

        Parameters
        ----------
        values : array of shape (sessions, at least the longest session)

        Returns
        -------
        float64 array, one value a record
            The highest where a record is in several sessions, NaN where it is in none.
        """
        if self.log is None or self.rows is None:
            raise InputError("values: the sessions come from no log, so there are no records.")
        mask = np.arange(values.shape[1])[None, :] < self.lengths[:, None]
        found = np.full(len(self.log), -np.inf)
        np.maximum.at(found, self.rows, np.asarray(values, np.float64)[mask])
        return np.where(np.isneginf(found), np.nan, found)


def as_sessions(X: Any) -> Sessions:
    """Return sessions, whatever holds them.

    Parameters
    ----------
    X : Sessions, Log, path of a log file, or sequence of sequences of events

    Raises
    ------
    InputError, InputTypeError
        When there are no sessions in it.
    """
    from pathlib import Path

    from genad.data.log.log import Log, read_log

    if isinstance(X, Sessions):
        return X
    if isinstance(X, str | Path):
        X = read_log(X)
    if isinstance(X, Log):
        return X.sessions()
    if isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind in "iu":
        return Sessions.from_sequences(X)
    if isinstance(X, list | tuple) or (isinstance(X, np.ndarray) and X.ndim == 1 and X.dtype == object):
        return Sessions.from_sequences(X)
    raise InputTypeError(
        f"X: a {type(X).__name__} was given; use a log file, a Log, Sessions, or a list of sequences of events."
    )


def coded(log: Log) -> tuple[NDArray[np.int32], list[str]]:
    """Return the events of a log and their vocabulary; unseen templates follow the known ones."""
    vocabulary = log.templates
    events = log.template.copy()
    unseen = np.flatnonzero(log.unseen)
    if len(unseen):
        places: dict[str, int] = {}
        for i in unseen.tolist():
            events[i] = len(vocabulary) + places.setdefault(mask(log.message[i]), len(places))
        vocabulary = [*vocabulary, *places]
    return events, vocabulary
