"""Kinds of alarms that are kept silent, each until a step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from genad.core.calibration._checks import check_count
from genad.errors import InputError, InputTypeError

#: What a step is about: a text, such as a cause or a source, or a vector, such as an embedding.
Kind = str | tuple[float, ...]


def as_kind(name: str, kind: object) -> Kind:
    """Return a kind as a text or a tuple of numbers, or say what is wrong with it.

    Raises
    ------
    InputTypeError
        If it is neither a text nor numbers.
    InputError
        If its numbers are not one finite row.
    """
    if isinstance(kind, str):
        return str(kind)
    vector = np.asarray(kind)
    if vector.dtype.kind not in "fiu":
        raise InputTypeError(f"{name}: {kind!r} was given; use a text or a vector of numbers.")
    if vector.ndim != 1 or not vector.size or not np.isfinite(vector).all():
        raise InputError(f"{name}: {kind!r} was given; use a text or a vector (d,) of finite numbers.")
    return tuple(vector.astype(np.float64).tolist())


def as_kinds(kinds: Iterable[Any], steps: int) -> list[Kind | None]:
    """Return one kind a step, ``None`` where a step has none.

    Raises
    ------
    InputTypeError
        If a kind is neither a text nor numbers.
    InputError
        If there is not one a step, or the numbers of one are not a finite row.
    """
    given = [kinds] if isinstance(kinds, str) else list(kinds)
    if len(given) != steps:
        raise InputError(f"kinds: {len(given)} were given for {steps} steps; give one a step, None where it has none.")
    return [None if kind is None else as_kind("kinds", kind) for kind in given]


class Silences:
    """A list of kinds, each silent until a step or for good.

    Parameters
    ----------
    name : str
        Name of the argument, used in messages.
    entries : sequence of (kind, step)
        The step is the first one that is loud again; ``None`` for a kind that stays silent.
    radius : float
        Vectors at most so far apart, by Euclidean distance, are of one kind; texts have to be the same.

    Raises
    ------
    InputTypeError
        If an entry is no pair, or a kind or step is of a type that is not accepted.
    InputError
        If a kind or step is out of range.

    Examples
    --------
    >>> listed = Silences("silent", [("backup", 100), ((0.0, 1.0), None)], radius=0.5)
    >>> listed.cover("backup", 99), listed.cover("backup", 100), listed.cover((0.3, 1.3), 5000)
    (True, False, True)
    """

    def __init__(self, name: str, entries: Sequence[Any], radius: float) -> None:
        self.radius = radius
        self._until: dict[Kind, int | None] = {}
        if isinstance(entries, str) or not isinstance(entries, Sequence):
            raise InputTypeError(f"{name}: {entries!r} was given; use a list of pairs (kind, step).")
        for entry in entries:
            if isinstance(entry, str) or not isinstance(entry, Sequence) or len(entry) != 2:
                raise InputTypeError(f"{name}: {entry!r} was given; use pairs (kind, step), or (kind, None) for good.")
            kind, until = entry
            self._until[as_kind(name, kind)] = None if until is None else check_count(f"{name}: step", until, 0)

    def cover(self, kind: Kind | None, step: int) -> bool:
        """Say whether a kind is silent at a step."""
        if kind is None:
            return False
        return any((until is None or step < until) and self._alike(kind, own) for own, until in self._until.items())

    def _alike(self, one: Kind, other: Kind) -> bool:
        if isinstance(one, str) or isinstance(other, str) or len(one) != len(other):
            return one == other
        return math.dist(one, other) <= self.radius

    def add(self, kind: Kind, until: int, now: int) -> None:
        """Keep a kind silent until a step, and drop those that are loud again by now."""
        self._until = {own: end for own, end in self._until.items() if end is None or now < end}
        self._until[kind] = until

    def entries(self) -> list[list[Any]]:
        """Return the pairs as plain values, in the order in which they came."""
        return [[kind if isinstance(kind, str) else list(kind), until] for kind, until in self._until.items()]
