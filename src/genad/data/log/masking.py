"""Masking of log messages: numbers, addresses, hexadecimal words and paths become one wildcard."""

from __future__ import annotations

import re
from collections.abc import Sequence

#: What stands in a template for a part that varies.
WILDCARD = "<*>"

_DIGITS = re.compile(r"[0-9]+")

# All run on text in which every run of digits has become a single 0, so that they need not count digits and a line
# that differs from an earlier one in its numbers alone is recognised before any of them runs.
_MASKS = tuple(
    re.compile(pattern)
    for pattern in (
        r"\b[0-9a-fA-F]+(?:-[0-9a-fA-F]+){4}\b",  # a UUID
        r"\b0x[0-9a-fA-F]+",
        r"\b(?=[a-fA-F]*0)[0-9a-fA-F]{6,}\b",  # a hexadecimal word with some digit in it
        r"(?<![\w.])/?0(?:\.0){3}(?::0)?",  # an IP address with or without a port
        r"(?<![\w<>.:])/[^\s,;:\"')\]]+",  # a path from the root
        r"(?:(?<![A-Za-z0-9])[-+])?0(?:[.:,/-]0)*",  # numbers, dates, times and versions, also within words
    )
)


def collapse(messages: Sequence[str]) -> list[str]:
    r"""Return the first line of each message with every run of digits as a single 0.

    One substitution runs over all messages at once, since calling it for each costs more than the work.

    Examples
    --------
    >>> collapse(["took 12 ms", "took 345 ms", "failed\n at line 7"])
    ['took 0 ms', 'took 0 ms', 'failed']
    """
    text = "\n".join(messages)
    if text.count("\n") != len(messages) - 1:
        text = "\n".join([message.partition("\n")[0] for message in messages])
    return _DIGITS.sub("0", text).split("\n") if messages else []


def mask_collapsed(text: str) -> str:
    """Mask a message that :func:`collapse` returned."""
    for pattern in _MASKS:
        text = pattern.sub(WILDCARD, text)
    return text


def mask(message: str) -> str:
    """Return the first line of a message with everything that looks like a value replaced by the wildcard.

    Examples
    --------
    >>> mask("Received block blk_-160 of size 91178 from /10.250.10.6:50010")
    'Received block blk_<*> of size <*> from <*>'
    """
    return mask_collapsed(collapse([message])[0])


def parameters(message: str, template: str) -> tuple[str, ...]:
    """Return what stands in a message where its template has wildcards.

    Parameters
    ----------
    message : str
        Its first line counts.
    template : str
        As the miner gives it.

    Returns
    -------
    tuple of str
        One for each wildcard; a word that no longer fits its part of the template is returned whole.

    Examples
    --------
    >>> parameters("Responder 2 for block blk_388 ends", "Responder <*> for block blk_<*> ends")
    ('2', '388')
    """
    found: list[str] = []
    words = message.partition("\n")[0].split()
    for word, part in zip(words, template.split(), strict=False):
        if WILDCARD not in part:
            continue
        found.extend(_values(word, part))
    return tuple(found)


def _values(word: str, part: str) -> tuple[str, ...]:
    """Return the values within one word of a template, the word itself if it does not fit.

    Each constant piece is looked for once, from left to right: a regular expression of many wildcards may take for ever
    to find that a long word does not fit.
    """
    first, *pieces, last = part.split(WILDCARD)
    end = len(word) - len(last)
    if not word.startswith(first) or not word.endswith(last):
        return (word,)
    found, at = [], len(first)
    for piece in pieces:
        place = word.find(piece, at + 1, end)
        if place < 0:
            return (word,)
        found.append(word[at:place])
        at = place + len(piece)
    return (*found, word[at:end]) if at < end else (word,)
