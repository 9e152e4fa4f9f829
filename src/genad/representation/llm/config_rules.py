"""Configuration errors without a model: properties, suspects, words of trouble, and what ties a message to them."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Words that tell of trouble; each adds 0.1 to the degree of a line.
NEGATIVE = ("error", "exception", "invalid", "failure", "disable", "false", "fault", "warn", "because", "exit")
#: Pieces of names that stand in too many of them to say anything.
COMMON = frozenset({
    "address", "client", "cluster", "common", "default", "dfs", "enable", "enabled", "hadoop", "host", "job", "map",
    "mapreduce", "max", "memory", "min", "name", "namenode", "path", "port", "reduce", "resource", "server", "size",
    "task", "time", "timeout", "yarn",
})  # fmt: skip
MISSING = "(missing)"
# Where the frames of a stack trace begin; the word "at" alone is common in messages.
_FRAMES = re.compile(r"\s+at\s+[\w$.<>/]+\(")


@dataclass(frozen=True)
class Property:
    """A property of a configuration: its name, its value, what it means."""

    name: str
    value: str = MISSING
    description: str = MISSING

    def __str__(self) -> str:
        return f"{self.name} = {self.value} ({self.description})"


@dataclass(frozen=True)
class Suspect:
    """A property that may be at fault.

    Attributes
    ----------
    name, value : str
    score : float
        Higher is more suspect: hits that the model confirmed, and below 1 how probable it finds them; for suspects
        that were inferred, 1 over their place.
    how : {"direct", "indirect", "fallback"}
        Named by the log and confirmed; inferred by the model; or named by the log only, when no answer could be used.
    lines : tuple of int
        Positions in the run of the lines that show it.
    explanation : str
        In the model's words, or which rule found it. Data, never executed.
    """

    name: str
    value: str
    score: float
    how: str
    lines: tuple[int, ...] = ()
    explanation: str = ""


@dataclass(frozen=True)
class Localization:
    """What is known of a run.

    Attributes
    ----------
    degree : float
        The highest degree of its lines, 0 when there is no sign of a configuration error.
    lines : tuple of int
        Positions of its anomalous lines, one a template, the highest degree first.
    suspects : tuple of Suspect
        Ranked, the most suspect first; none for a run without a sign.
    status : str
        The worst state of the model's answers; ``"ok"`` when none was needed.
    calls : int
        Answers the model gave.
    """

    degree: float
    lines: tuple[int, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    status: str = "ok"
    calls: int = 0


def count_negative(text: str) -> int:
    """Return how often the negative words stand in a text, within longer words too.

    Examples
    --------
    >>> count_negative("WARN IOException: invalid value because of an error")
    5
    """
    lowered = text.casefold()
    return sum(lowered.count(word) for word in NEGATIVE)


def head(text: str) -> str:
    r"""Return a message without the frames of its stack trace.

    Examples
    --------
    >>> head("Failed at startup\n  at org.x.Y.run(Y.java:3)")
    'Failed at startup'
    """
    return _FRAMES.split(text, maxsplit=1)[0]


def direct_hit(text: str, known: Property, common: frozenset[str] = COMMON) -> str:
    """Return which rule ties a message to a property: "value", "name", "piece", or "" for none.

    The rules are tried in this order. A value counts as a whole word of at least two letters that is no truth value;
    a piece of the name counts as a whole word unless it is common to many names.

    Examples
    --------
    >>> known = Property("dfs.replication", "300")
    >>> direct_hit("asked for 300 copies", known), direct_hit("bad dfs.replication", known)
    ('value', 'name')
    >>> direct_hit("replication is too high", known), direct_hit("port 3000 of dfs", known)
    ('piece', '')
    """
    plain = head(text)
    value = known.value.strip()
    if len(value) > 1 and value.casefold() not in ("true", "false", MISSING) and _stands_in(value, plain):
        return "value"
    if _stands_in(known.name, plain):
        return "name"
    lowered = plain.casefold()
    pieces = {piece for piece in known.name.casefold().split(".") if len(piece) > 1} - common
    return "piece" if any(_stands_in(piece, lowered) for piece in pieces) else ""


def _stands_in(word: str, text: str) -> bool:
    return re.search(rf"(?<![\w]){re.escape(word)}(?![\w])", text) is not None
