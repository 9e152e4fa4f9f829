"""The bridge between samples and sessions whose records have several fields, as logins have: a code a field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from genad.data.adapters import Array, Loaded
from genad.data.log.adapter import FIRST_EVENT, PADDING, UNSEEN_EVENT, SessionAdapter, SessionSamples
from genad.data.log.counts import event_codes
from genad.data.log.sessions import Sessions
from genad.data.samples import Batch
from genad.errors import InputError

__all__ = [
    "EVENT",
    "FIELDS",
    "GAP",
    "GROUP",
    "HOUR",
    "USER",
    "_USER_NAMES",
    "FieldAdapter",
    "FieldSamples",
    "usual_user",
]

#: Columns of a sample; the fields of the log follow.
USER, GROUP, GAP, HOUR, EVENT, FIELDS = range(6)
# Names that the field of who acts has in common logs; the first that is there is taken.
_USER_NAMES = ("user", "username", "user_name", "account", "subject", "src_user", "source_user")
_HOURS = [str(hour) for hour in range(24)]


def usual_user(names: Sequence[str]) -> str | None:
    """Return the field that says who acts, by its name; None when there is none.

    Examples
    --------
    >>> usual_user(["host", "UserName"]), usual_user(["host"])
    ('UserName', None)
    """
    lower = {name.lower(): name for name in names}
    return next((lower[name] for name in _USER_NAMES if name in lower), None)


@dataclass(slots=True)
class FieldSamples(SessionSamples):
    """Sessions of records with several fields, kept end to end.

    Attributes
    ----------
    codes : Tensor of shape (events in all, columns)
        NaN where a record has no such field.
    offsets : Tensor of int64, shape (n + 1,)
        Where each session begins.
    longest : int
        Events of the longest one.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one session, (T, columns)."""
        return (self.longest, self.codes.shape[1])

    def _lay(self, first: torch.Tensor, after: torch.Tensor) -> Batch:
        places = first[:, None] + torch.arange(self.longest, device=first.device)
        values = self.codes[places.clamp(max=len(self.codes) - 1)]
        mask = (places < after[:, None])[..., None] & ~values.isnan()
        return Batch(torch.where(mask, values, PADDING), mask)

    def to(self, device: torch.device) -> FieldSamples:
        """Return the sessions on ``device``."""
        return FieldSamples(self.codes.to(device), self.offsets.to(device), self.longest)


@dataclass
class FieldAdapter(SessionAdapter):
    """Sessions as sequences of records: who acts, how long after the record before, at which hour, what, and fields.

    A sample is (T, columns): codes as :class:`SessionAdapter` has them for events, and the logarithm of one plus the
    seconds since the record before. Without a log behind the sessions there are events alone.

    Attributes
    ----------
    user, group : str or None
        Fields of who acts and of the group of peers; once fitted, those found.
    chosen : sequence of str or None
        Fields to read; all that are left when None.
    most : int
        Values of a field that have a code of their own, the most frequent ones.
    fields : list of str
        The fields read.
    values : list of list of str
        What the codes of user, group, hour, event and each field stand for.
    """

    user: str | None = None
    group: str | None = None
    chosen: Sequence[str] | None = None
    most: int = 4096
    fields: list[str] = field(default_factory=list)
    values: list[list[str]] = field(default_factory=list)

    def fit(self, X: Sessions) -> Loaded:
        """Learn the fields and their values."""
        self._learn(X)
        has = _columns(X)
        for argument, names in (("user", [self.user]), ("group", [self.group]), ("fields", self.chosen or ())):
            for name in names:
                if name is not None and name not in has:
                    there = f"it has {', '.join(has)}" if has else "there are none"
                    raise InputError(f"{argument}: the sessions' log has no field {name!r}; {there}.")
        self.user = self.user or usual_user(list(has))
        asked = [name for name in has if name not in (self.user, self.group)] if self.chosen is None else self.chosen
        read = {name: _frequent(has[name], self.most) for name in asked}
        self.fields = [name for name, values in read.items() if values]
        self.values = [_frequent(has.get(name or ""), self.most) for name in (self.user, self.group)]
        self.values += [_HOURS, self.vocabulary, *(read[name] for name in self.fields)]
        return self.transform(X)

    def transform(self, X: Sessions) -> Loaded:
        """Return the codes of the records."""
        read = self._read(X)
        has, places = _columns(read), [USER, GROUP, *range(FIELDS, FIELDS + len(self.fields))]
        codes = np.full((len(read.events), FIELDS + len(self.fields)), np.nan, np.float32)
        codes[:, [USER, GROUP]] = UNSEEN_EVENT
        columns = [self.values[0], self.values[1], *self.values[EVENT:]]
        for place, name, values in zip(places, (self.user, self.group, *self.fields), columns, strict=True):
            if name in has:
                codes[:, place] = _codes(has[name], values)
        codes[:, [USER, GROUP]] = np.nan_to_num(codes[:, [USER, GROUP]], nan=UNSEEN_EVENT)
        codes[:, GAP], codes[:, HOUR] = _clock(read)
        events = event_codes(self.vocabulary, read)
        codes[:, EVENT] = np.where(events < 0, UNSEEN_EVENT, events + FIRST_EVENT)
        longest = int(read.lengths.max())
        self.longest = max(self.longest, longest)
        samples = FieldSamples(torch.from_numpy(codes), torch.from_numpy(np.asarray(read.offsets)), longest)
        return Loaded(samples, read, X)

    def collapse(self, maps: Array) -> Array:
        """Add up what the columns of each record have."""
        return maps.sum(-1)

    def columns(self, values: Array) -> Array:
        """Return records as texts: the event, and the hour and fields that are known; empty beyond the end."""
        codes = np.rint(np.nan_to_num(values)).astype(np.int64)
        found = _looked_up(["", "an unseen event", *self.vocabulary], codes[..., EVENT])
        names, there = ["hour", *self.fields], codes[..., EVENT] != PADDING
        for place, name in zip([HOUR, *range(FIELDS, codes.shape[-1])], names, strict=True):
            known = self.values[place - (place > GAP)]
            found = found + _looked_up(["", "", *(f", {name} {value}" for value in known)], codes[..., place] * there)
        return found

    def observed(self, loaded: Loaded) -> Array:
        """Return the records in the form of :meth:`columns`."""
        return self.columns(loaded.samples.stretch(0, len(loaded.samples)).x.cpu().numpy())

    def said(self, place: int, value: float) -> str:
        """Return what a value of a column stands for, "" for one that was not learnt.

        Parameters
        ----------
        place : int
            The column, not that of the user or group.
        value : float
            Its code, or the logarithm of one plus the seconds.
        """
        if place == GAP:
            return f"{np.expm1(max(value, 0.0)):.3g} s"
        known = ["", "", *self.values[place - 1]]
        return known[int(np.clip(np.rint(value), 0, len(known) - 1))]

    def state(self) -> dict[str, Any]:
        """Return the fitted state as plain JSON values."""
        mine = {"user": self.user, "group": self.group, "fields": self.fields, "values": self.values}
        return super().state() | mine

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Make a fitted adapter again."""
        made = super().from_state(state)
        made.user, made.group = state["user"], state["group"]
        made.fields, made.values = list(state["fields"]), [list(values) for values in state["values"]]
        return made


def _columns(X: Sessions) -> dict[str, Array]:
    """Return the fields of the records of sessions by name, none for sessions of plain events."""
    if X.log is None or X.rows is None:
        return {}
    return {name: column[X.rows] for name, column in X.log.fields_by_name().items()}


def _texts(column: Array) -> tuple[NDArray[np.bool_], Array, Array]:
    """Return which values are known, the different ones as texts, and which of these each known one is."""
    known = np.array([value is not None and value != "" for value in column.tolist()], bool)
    different, which = np.unique(column[known].astype(str), return_inverse=True)
    return known, different, which


def _frequent(column: Array | None, most: int) -> list[str]:
    """Return the most frequent values of a field, in the order of their names."""
    if column is None:
        return []
    _, different, which = _texts(column)
    often = np.argsort(-np.bincount(which, minlength=len(different)), kind="stable")[:most]
    return sorted(different[often].tolist())


def _codes(column: Array, values: list[str]) -> NDArray[np.float32]:
    """Return the codes of a field's values, NaN where there is none."""
    known, different, which = _texts(column)
    numbers = {value: i + FIRST_EVENT for i, value in enumerate(values)}
    codes = np.full(len(column), np.nan, np.float32)
    codes[known] = np.array([numbers.get(text, UNSEEN_EVENT) for text in different.tolist()], np.float32)[which]
    return codes


def _clock(read: Sessions) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the logarithm of one plus the seconds since the record before, and the code of the hour, of each record.

    The first record of a session has none before it, and a clock set back stands still.
    """
    n = len(read.events)
    gap, hour = np.full(n, np.nan, np.float32), np.full(n, np.nan, np.float32)
    if read.log is None or read.rows is None or read.log.time is None:
        return gap, hour
    stamps = read.log.time[read.rows]
    known = ~np.isnat(stamps)
    micros = np.where(known, stamps.astype(np.int64), 0)
    hour[known] = (micros[known] // 3_600_000_000 % 24) + FIRST_EVENT
    gap[1:] = np.log1p(np.maximum(np.diff(micros), 0) / 1e6)
    gap[1:][~(known[1:] & known[:-1])] = np.nan
    gap[np.asarray(read.offsets[:-1])] = np.nan
    return gap, hour


def _looked_up(texts: Sequence[str], codes: NDArray[np.int64]) -> Array:
    table = np.empty(len(texts), object)
    table[:] = texts
    return table[np.clip(codes, 0, len(texts) - 1)]
