"""Anomalies made of normal traces of a process, each with its cause in words: what a model learns to tell apart."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

Trace = tuple[str, ...]

#: What may be wrong with a trace.
KINDS = ("skip", "rework", "early", "late", "insert", "exclusive")
#: Stands for the end of a trace, where something is missing or late that nothing follows.
END = "(end)"

_BLOCK, _DISTANCE = 3, 5  # activities touched, and places they are moved, at most
_TRIES = 8
_SENTENCES = {
    "skip": "{what} was skipped before {anchor}.",
    "rework": "{what} was done again after {anchor}.",
    "early": "{what} came too early and belongs after {anchor}.",
    "late": "{what} came too late and belongs before {anchor}.",
    "insert": "{what} should not have been done.",
    "exclusive": "{what} and {anchor} exclude each other.",
}
_READERS = {
    kind: re.compile(
        re.escape(text).replace(r"\{what\}", "(?P<what>.+?)").replace(r"\{anchor\}", "(?P<anchor>.+?)"), re.IGNORECASE
    )
    for kind, text in _SENTENCES.items()
}


@dataclass(frozen=True)
class Cause:
    """Why a trace is anomalous.

    Parameters
    ----------
    kind : str
        Of :data:`KINDS`.
    what : tuple of str
        The activities that are wrong, or missing.
    anchor : str
        The activity they stand wrongly by; END for the end; "" for an insertion.

    Examples
    --------
    >>> cause = Cause("skip", ("approve", "sign"), "pay")
    >>> print(cause)
    "approve", "sign" was skipped before "pay".
    >>> read_cause("Well: " + str(cause)) == cause
    True
    """

    kind: str
    what: Trace
    anchor: str = ""

    def __str__(self) -> str:
        return _SENTENCES[self.kind].format(what=", ".join(map(_quoted, self.what)), anchor=_quoted(self.anchor))

    def within(self, activities: Collection[str]) -> Cause | None:
        """Return the cause without activities that are none of these; None when nothing of it is left."""
        what = tuple(name for name in self.what if name in activities)
        if not what or (self.anchor and self.anchor != END and self.anchor not in activities):
            return None
        return Cause(self.kind, what, self.anchor)


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', "'"))


def read_cause(text: str) -> Cause | None:
    """Return the first cause that a text states in the form of :class:`Cause`, None when there is none."""
    for kind, reader in _READERS.items():
        match = reader.search(text)
        if match:
            found = match.groupdict()
            what = tuple(re.findall(r'"([^"]+)"', found["what"]))
            anchors = re.findall(r'"([^"]+)"', found.get("anchor") or "")
            if what:
                return Cause(kind, what, anchors[0] if anchors else "")
    return None


class TraceMutator:
    """Makes anomalies of normal traces: five kinds of wrong order or content, and branches that exclude each other.

    Skipped, too early or too late are blocks of up to three activities, moved by up to five places; two or three are
    done again up to five places later; up to three are inserted that the process knows, or that it does not. Two
    activities exclude each other when they never occur in one trace, though the same activity comes before both and
    the same one after both: then one is put right after the other, as if a choice had been taken both ways.

    Parameters
    ----------
    traces : sequence of tuples of str
        Normal ones, with repetitions.
    strangers : sequence of str
        Names of activities that the process does not have, for insertions; without any, its own are inserted.
    stranger_share : float
        Share of the inserted activities that are strangers.

    Attributes
    ----------
    normal : Counter of traces
    activities : list of str
        In the order of their first occurrence.
    exclusive : dict of str to list of str
        For each activity those that exclude it.

    Examples
    --------
    >>> mutator = TraceMutator([("a", "b", "d"), ("a", "c", "d")])
    >>> mutator.exclusive
    {'b': ['c'], 'c': ['b']}
    >>> mutator.exclude(("a", "b", "d"), np.random.default_rng(0))
    (('a', 'b', 'c', 'd'), Cause(kind='exclusive', what=('b',), anchor='c'))
    """

    def __init__(self, traces: Sequence[Trace], strangers: Sequence[str] = (), stranger_share: float = 0.5) -> None:
        self.normal = Counter(traces)
        self.activities = list(dict.fromkeys(name for trace in self.normal for name in trace))
        self.strangers, self.stranger_share = list(strangers), stranger_share
        self.exclusive = _exclusive(self.normal)

    def mutate(self, trace: Trace, rng: np.random.Generator, kind: str | None = None) -> tuple[Trace, Cause] | None:
        """Return an anomaly made of a trace, and its cause.

        Parameters
        ----------
        trace : tuple of str
        rng : numpy.random.Generator
        kind : str, optional
            Of :data:`KINDS`; drawn when absent.

        Returns
        -------
        (trace, Cause) or None
            None when nothing was made of it that is not normal itself.
        """
        makers: dict[str, Callable[[Trace, np.random.Generator], tuple[Trace, Cause] | None]] = {
            "skip": self.skip, "rework": self.rework, "early": self.early, "late": self.late, "insert": self.insert,
            "exclusive": self.exclude,
        }  # fmt: skip
        for _ in range(_TRIES):
            made = makers[kind or KINDS[rng.integers(len(KINDS))]](trace, rng)
            if made is not None and made[0] and made[0] not in self.normal:
                return made
        return None

    def skip(self, trace: Trace, rng: np.random.Generator) -> tuple[Trace, Cause] | None:
        """Leave out up to three activities in a row."""
        if len(trace) < 2:
            return None
        size = int(rng.integers(1, min(_BLOCK, len(trace) - 1) + 1))
        start = int(rng.integers(len(trace) - size + 1))
        rest = trace[start + size :]
        return trace[:start] + rest, Cause("skip", trace[start : start + size], rest[0] if rest else END)

    def rework(self, trace: Trace, rng: np.random.Generator) -> tuple[Trace, Cause] | None:
        """Do two or three activities in a row again, up to five places later."""
        size = int(rng.integers(min(2, len(trace)), min(_BLOCK, len(trace)) + 1))
        start = int(rng.integers(len(trace) - size + 1))
        place = min(start + size + int(rng.integers(_DISTANCE + 1)), len(trace))
        block = trace[start : start + size]
        return trace[:place] + block + trace[place:], Cause("rework", block, trace[place - 1])

    def early(self, trace: Trace, rng: np.random.Generator) -> tuple[Trace, Cause] | None:
        """Move up to three activities in a row forward."""
        if len(trace) < 2:
            return None
        size = int(rng.integers(1, min(_BLOCK, len(trace) - 1) + 1))
        start = int(rng.integers(1, len(trace) - size + 1))
        place = start - int(rng.integers(1, min(_DISTANCE, start) + 1))
        block = trace[start : start + size]
        moved = trace[:place] + block + trace[place:start] + trace[start + size :]
        return moved, Cause("early", block, trace[start - 1])

    def late(self, trace: Trace, rng: np.random.Generator) -> tuple[Trace, Cause] | None:
        """Move up to three activities in a row back."""
        if len(trace) < 2:
            return None
        size = int(rng.integers(1, min(_BLOCK, len(trace) - 1) + 1))
        start = int(rng.integers(len(trace) - size))
        after = start + size
        place = after + int(rng.integers(1, min(_DISTANCE, len(trace) - after) + 1))
        block = trace[start:after]
        return trace[:start] + trace[after:place] + block + trace[place:], Cause("late", block, trace[after])

    def insert(self, trace: Trace, rng: np.random.Generator) -> tuple[Trace, Cause] | None:
        """Put in up to three activities that do not belong there."""
        made, added = list(trace), []
        for _ in range(int(rng.integers(1, _BLOCK + 1))):
            strange = self.strangers and rng.random() < self.stranger_share
            pool = self.strangers if strange else self.activities
            added.append(pool[int(rng.integers(len(pool)))])
            made.insert(int(rng.integers(len(made) + 1)), added[-1])
        return tuple(made), Cause("insert", tuple(dict.fromkeys(added)))

    def exclude(self, trace: Trace, rng: np.random.Generator) -> tuple[Trace, Cause] | None:
        """Take a choice both ways."""
        places = [i for i, name in enumerate(trace) if name in self.exclusive]
        if not places:
            return None
        place = places[int(rng.integers(len(places)))]
        others = self.exclusive[trace[place]]
        other = others[int(rng.integers(len(others)))]
        put = place + int(rng.integers(2))
        return (*trace[:put], other, *trace[put:]), Cause("exclusive", (trace[place],), other)


def _exclusive(traces: Collection[Trace]) -> dict[str, list[str]]:
    before: defaultdict[str, set[str]] = defaultdict(set)
    after: defaultdict[str, set[str]] = defaultdict(set)
    together: defaultdict[str, set[str]] = defaultdict(set)
    for trace in traces:
        for left, right in zip((END, *trace), (*trace, END), strict=True):
            before[right].add(left)
            after[left].add(right)
        for name in set(trace):
            together[name] |= set(trace)
    found = {}
    for name in together:
        others = [
            other
            for other in together
            if other not in together[name] and before[name] & before[other] and after[name] & after[other]
        ]
        if others:
            found[name] = sorted(others)
    return found


def aligned(trace: Sequence[str], normal: Sequence[str]) -> list[str]:
    """Return for each place of a trace the activity that a normal one has there, "" where it has none.

    Examples
    --------
    >>> aligned(("a", "x", "b", "d"), ("a", "b", "c"))
    ['a', '', 'b', 'c']
    """
    out: list[str] = []
    for what, start, stop, first, last in SequenceMatcher(None, trace, normal, autojunk=False).get_opcodes():
        if what != "insert":
            there = list(normal[first:last][: stop - start])
            out += there + [""] * (stop - start - len(there))
    return out


def edit_distance(one: Trace, other: Trace, most: int) -> int:
    """Return how many activities must be put in, left out or replaced to make one trace of the other.

    Distances above ``most`` are given as ``most + 1``.

    Examples
    --------
    >>> edit_distance(("a", "b", "c"), ("a", "c", "d"), 9)
    2
    """
    if abs(len(one) - len(other)) > most:
        return most + 1
    row = list(range(len(other) + 1))
    for i, name in enumerate(one, 1):
        corner, row[0] = row[0], i
        for j, against in enumerate(other, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (name != against))
        if min(row) > most:
            return most + 1
    return min(row[-1], most + 1)
