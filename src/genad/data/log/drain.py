"""Drain: a streaming miner of log templates, a tree of fixed depth over the first words of masked messages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import eq
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genad.data.log.masking import WILDCARD, collapse, mask_collapsed
from genad.errors import InputError, ModelFileError
from genad.files import replace_file

#: The number of the template of a message that no template fits.
UNSEEN = -1
# Version of the stored form.
_FORMAT = 1
# Messages remembered word for word; beyond, all are forgotten and the tree is asked again.
_REMEMBERED = 2**18


@dataclass(eq=False)
class Drain:
    """Learn the templates of log messages, line by line, and say which one each message has.

    A message is masked (numbers, addresses, hexadecimal words and paths become ``<*>``) and led down a tree by its
    number of words and its first words. Among the templates that end there it joins the one that shares the largest
    part of its words, if that is at least ``similarity``, and the words that differ become wildcards; otherwise it
    founds a template of its own. Templates keep their numbers for ever, and the outcome depends on nothing but the
    messages and their order.

    Messages that differ in digits alone are recognised without masking them again, which is most messages of most
    logs and makes the speed.

    **When to use.** Free-text logs written by programs, of which nothing is known.

    **When it fails.** Messages whose number of words varies with a value (a list, a user's text) split into several
    templates, and a first word that varies without digits splits one more often. Share of the lines grouped exactly as
    by hand on the 2,000-line samples of Loghub: HDFS 0.998, BGL 0.971, Linux 0.693, Apache 1.000, Zookeeper 0.967,
    OpenStack 0.807, all with the settings below.

    Parameters
    ----------
    depth : int
        Levels of the tree, at least 3; ``depth - 2`` first words are looked at.
    similarity : float
        Share of the words that a message must have in common with a template, in (0, 1].
    children : int
        Most branches at a node, at least 1; further words share one branch.
    most : int
        Most templates; what fits none of them then joins a last one, ``<*>``.

    Attributes
    ----------
    counts : list of int
        Messages of each template seen in `learn`.

    Examples
    --------
    >>> miner = Drain()
    >>> miner.learn(["opened port 80", "session of ann ends", "opened port 443", "session of bob ends"]).tolist()
    [0, 1, 0, 1]
    >>> miner.templates
    ['opened port <*>', 'session of <*> ends']
    >>> miner.match(["opened port 8080", "disk is full"]).tolist()
    [0, -1]

    References
    ----------
    He, Zhu, Zheng and Lyu, Drain: an online log parsing approach with fixed depth tree, ICWS 2017.
    """

    depth: int = 4
    similarity: float = 0.5
    children: int = 100
    most: int = 20_000
    counts: list[int] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse settings that cannot work, and start with an empty tree."""
        for name, low in (("depth", 3), ("children", 1), ("most", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise InputError(f"{name}: {value!r} was given; use a whole number of at least {low}.")
        if not isinstance(self.similarity, int | float) or not 0 < self.similarity <= 1:
            raise InputError(f"similarity: {self.similarity!r} was given; use a number in (0, 1].")
        self._words: list[list[str]] = []
        self._paths: list[tuple[Any, ...]] = []
        self._branches: dict[tuple[Any, ...], set[str]] = {}
        self._leaves: dict[tuple[Any, ...], list[int]] = {}
        self._forget()

    def __len__(self) -> int:
        return len(self._words)

    def __repr__(self) -> str:
        return f"Drain({len(self):,} templates of {sum(self.counts):,} messages)"

    @property
    def templates(self) -> list[str]:
        """The templates as text, by number."""
        return [" ".join(words) for words in self._words]

    # ------------------------------------------------------------------ use

    def learn(self, messages: Sequence[str]) -> NDArray[np.int32]:
        """Return the template of each message, and learn new ones on the way.

        Parameters
        ----------
        messages : sequence of str
            Of a message of several lines, as with a stack trace, the first line counts.

        Returns
        -------
        int32 array
            Numbers of templates, from 0.
        """
        found = self._look_up(messages, self._learnt, self._join)
        self.counts += [0] * (len(self) - len(self.counts))
        for number, count in zip(*np.unique(found, return_counts=True), strict=True):
            self.counts[number] += int(count)
        self._matched.clear()
        return found

    def match(self, messages: Sequence[str], *, strict: bool = False) -> NDArray[np.int32]:
        """Return the template of each message without learning anything.

        Parameters
        ----------
        messages : sequence of str
        strict : bool
            Whether every word outside wildcards must fit; otherwise a message fits the template that it would have
            joined in `learn`.

        Returns
        -------
        int32 array
            Numbers of templates, -1 where none fits.
        """
        if strict:
            return self._look_up(messages, {}, lambda words: self._find(words, strict=True))
        return self._look_up(messages, self._matched, self._find)

    def _look_up(self, messages: Sequence[str], known: dict[str, int], find: Any) -> NDArray[np.int32]:
        keys = collapse(messages)
        found = list(map(known.get, keys))
        if len(known) > _REMEMBERED:
            known.clear()
        if None in found:
            masked: dict[str, int] = {}
            for i, number in enumerate(found):
                if number is not None:
                    continue
                key = keys[i]
                number = known.get(key)
                if number is None:
                    text = mask_collapsed(key)
                    number = masked.get(text)
                    if number is None:
                        number = masked[text] = find(text.split())
                    known[key] = number
                found[i] = number
        return np.array(found, np.int32)

    def _forget(self) -> None:
        self._learnt: dict[str, int] = {}
        self._matched: dict[str, int] = {}

    # ------------------------------------------------------------------ the tree

    def _path(self, words: list[str], *, grow: bool) -> tuple[Any, ...]:
        """Return the way down the tree: the number of words, then the first words as far as they are constant."""
        path: tuple[Any, ...] = (len(words),)
        for word in words[: self.depth - 2]:
            step = WILDCARD if WILDCARD in word else word
            known = self._branches.get(path, set())
            if step not in known:
                if len(known) >= self.children:
                    step = WILDCARD
                if grow:
                    self._branches.setdefault(path, set()).add(step)
            path = (*path, step)
        return path

    def _find(self, words: list[str], *, strict: bool = False) -> int:
        return self._best(self._path(words, grow=False), words, strict=strict)

    def _best(self, path: tuple[Any, ...], words: list[str], *, strict: bool = False) -> int:
        """Return the most similar template at the end of a path, that with more wildcards among equals."""
        best, most, wild = UNSEEN, -1, -1
        for number in self._leaves.get(path, ()):
            template = self._words[number]
            if strict and not all(a in (WILDCARD, b) for a, b in zip(template, words, strict=True)):
                continue
            shared, wildcards = sum(map(eq, template, words)), template.count(WILDCARD)
            if (shared, wildcards) > (most, wild):
                best, most, wild = number, shared, wildcards
        if strict or most >= self.similarity * len(words):
            return best
        return UNSEEN

    def _join(self, words: list[str]) -> int:
        path = self._path(words, grow=True)
        number = self._best(path, words)
        if number == UNSEEN:
            return self._found(path, words)
        template = self._words[number]
        if template != words:
            self._words[number] = [a if a == b else WILDCARD for a, b in zip(template, words, strict=True)]
        return number

    def _found(self, path: tuple[Any, ...], words: list[str]) -> int:
        if len(self) >= self.most:
            return len(self) - 1
        last = len(self) == self.most - 1
        self._words.append([WILDCARD] if last else words)
        self._paths.append(() if last else path)
        if not last:
            self._leaves.setdefault(path, []).append(len(self) - 1)
        return len(self) - 1

    # ------------------------------------------------------------------ files

    def to_dict(self) -> dict[str, Any]:
        """Return settings and templates as plain JSON values."""
        return {
            "format": _FORMAT,
            "settings": [self.depth, self.similarity, self.children, self.most],
            "templates": [
                [words, list(path), count]
                for words, path, count in zip(self._words, self._paths, self.counts, strict=True)
            ],
        }

    @classmethod
    def from_dict(cls, state: Any) -> Drain:
        """Make a miner again from what :meth:`to_dict` returned; it goes on as if it had never stopped.

        Raises
        ------
        ModelFileError
            When the values are not those of a miner, or of a newer version.
        """
        try:
            if state["format"] > _FORMAT:
                raise ModelFileError(f"the templates are in format {state['format']}; this version reads {_FORMAT}.")
            depth, similarity, children, most = state["settings"]
            miner = cls(depth, similarity, children, most)
            for number, (words, path, count) in enumerate(state["templates"]):
                miner._words.append([str(word) for word in words])
                miner._paths.append(tuple(path))
                miner.counts.append(int(count))
                if not path:
                    continue
                miner._leaves.setdefault(tuple(path), []).append(number)
                for k in range(1, len(path)):
                    miner._branches.setdefault(tuple(path[:k]), set()).add(path[k])
        except ModelFileError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(f"not the templates of a genad miner ({type(error).__name__}: {error}).") from error
        return miner

    def save(self, path: str | Path) -> Path:
        """Write the templates to a JSON file, all or nothing, and return its path."""
        path = Path(path)
        text = json.dumps(self.to_dict(), ensure_ascii=False)
        replace_file(path, lambda beside: beside.write_text(text, encoding="utf-8"))
        return path

    @classmethod
    def load(cls, path: str | Path) -> Drain:
        """Read templates that :meth:`save` wrote.

        Raises
        ------
        ModelFileError
            When the file is missing, damaged, or not such a file.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except OSError as error:
            raise ModelFileError(f"{path}: cannot be read ({error.strerror}); check the path.") from error
        except ValueError as error:
            raise ModelFileError(f"{path}: {error} Restore a copy or mine the templates again.") from error
