"""Read answers of language models: JSON, numbered slots, blocks of names and values, one label, one number.

Each reader takes the text of an answer and returns a :class:`Parsed`, or raises
:class:`~genad.foundation.schema.AnswerError` with words that help the model do better. Nothing is ever executed.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from genad.foundation.schema import AnswerError, Schema, fit, validate

_FENCED = re.compile(r"```[\w-]*\s*\n?(.*?)(?:```|\Z)", re.DOTALL)
_WORD = re.compile(r"\w+")
_AFTER_QUOTE = re.compile(r"\s{0,20}(?:[,:}\]]|\Z)")
_LONGEST = 200_000  # characters of an answer that are looked at
_WORDS = {"True": "true", "False": "false", "None": "null"}


@dataclass(frozen=True)
class Parsed:
    """What an answer says.

    Parameters
    ----------
    value : object
    repaired : bool
        Whether it had to be mended to be read.
    """

    value: Any
    repaired: bool = False


#: Reads the text of an answer.
Reader = Callable[[str], Parsed]


def json_answer(schema: Schema) -> Reader:
    r"""Return a reader of JSON that holds to a schema.

    What is mended: fences and words around the JSON, trailing commas, single quotation marks, digits of other scripts,
    Python's words for true, false and none, brackets left open where the answer was cut, and what
    :func:`~genad.foundation.schema.fit` brings nearer to the schema. A name that comes twice and NaN are refused.

    Examples
    --------
    >>> read = json_answer({"type": "object", "required": ["at"], "properties": {"at": {"type": "integer"}}})
    >>> read('{"at": 3}')
    Parsed(value={'at': 3}, repaired=False)
    >>> read("Sure! ```json\n{'at': '3',}\n```")
    Parsed(value={'at': 3}, repaired=True)
    """

    def read(text: str) -> Parsed:
        value, repaired = _load(text)
        try:
            validate(value, schema)
        except AnswerError:
            value = fit(value, schema)
            validate(value, schema)
            repaired = True
        return Parsed(value, repaired)

    return read


def _load(text: str) -> tuple[Any, bool]:
    try:
        return _strict(text), False
    except (ValueError, RecursionError) as error:
        first = error
    text = text[:_LONGEST]
    for inner in [*(match[1] for match in _FENCED.finditer(text)), text]:
        for candidate in _candidates(inner):
            try:
                return _strict(candidate), True
            except (ValueError, RecursionError):
                continue
    reason = str(first) if isinstance(first, AnswerError) else "it is not JSON"
    raise AnswerError(reason)


def _strict(text: str) -> Any:
    def refuse(word: str) -> NoReturn:
        raise AnswerError(f"{word} is not a number")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            raise AnswerError("a name comes twice in one object")
        return value

    return json.loads(text, parse_constant=refuse, object_pairs_hook=once)


def _candidates(text: str) -> list[str]:
    """Return the part between the outermost brackets, then the same mended."""
    starts = [at for at in (text.find("{"), text.find("[")) if at >= 0]
    if not starts:
        return [text.strip()]
    body = text[min(starts) :]
    end = max(body.rfind("}"), body.rfind("]")) + 1
    return [body[:end], _mended(body[:end]), _mended(body)] if end else [_mended(body)]


def _mended(text: str) -> str:
    """Rewrite what looks like JSON as JSON: quotation marks, words, commas, digits, closing brackets."""
    out: list[str] = []
    opened: list[str] = []
    at, safe = 0, ("", 0)  # where the text could be cut and closed: what to close, how much to keep
    while at < len(text):
        letter = text[at]
        if letter in "\"'":
            at, word = _quoted(text, at)
            if word is None:
                break
            out.append(word)
            continue
        if letter in "{[":
            opened.append("}" if letter == "{" else "]")
        elif letter in "}]":
            _drop_comma(out)
            if opened and opened[-1] == letter:
                opened.pop()
            out.append(letter)
            at += 1
            safe = ("".join(reversed(opened)), len(out))
            if not opened:
                return "".join(out)
            continue
        elif letter.isalpha():
            match = _WORD.match(text, at)
            word = match[0] if match else letter
            out.append(_WORDS.get(word, word))
            at += len(word)
            continue
        elif letter == ",":
            safe = ("".join(reversed(opened)), len(out))
        digit = unicodedata.digit(letter, None)
        out.append(str(digit) if digit is not None else letter)
        at += 1
    # Cut off in the middle: keep what was complete.
    return "".join(out[: safe[1]]) + safe[0]


def _quoted(text: str, start: int) -> tuple[int, str | None]:
    """Return where a quoted text ends and the text as JSON; None when it does not end."""
    mark, at, inner = text[start], start + 1, []
    while at < len(text):
        letter = text[at]
        if letter == "\\" and at + 1 < len(text):
            inner.append(text[at + 1] if text[at + 1] == "'" else text[at : at + 2])
            at += 2
            continue
        closes = letter == mark and (mark == '"' or _AFTER_QUOTE.match(text, at + 1) is not None)
        if closes:
            return at + 1, '"' + "".join(inner) + '"'
        inner.append('\\"' if letter == '"' else "\\n" if letter == "\n" else "\\t" if letter == "\t" else letter)
        at += 1
    return at, None


def _drop_comma(out: list[str]) -> None:
    while out and out[-1].isspace():
        out.pop()
    if out and out[-1] == ",":
        out.pop()


def numbered_slots(ids: Sequence[int], labels: Mapping[str, Any], *, partial: bool = False) -> Reader:
    r"""Return a reader of slots ``(i) label - words``, one for each id, in any order.

    The first label in a slot counts; where one label is part of another the longer is looked for first. The value maps
    each id to its label's value and the words of its slot.

    Parameters
    ----------
    ids : sequence of int
    labels : mapping of str to object
        What each label means.
    partial : bool
        Accept answers that lack ids, or have no label in a slot; these are then not in the value.

    Examples
    --------
    >>> read = numbered_slots([1, 2], {"normal": 0, "abnormal": 1})
    >>> read("(2) Abnormal - fan stopped\n(1) normal-nothing abnormal here").value
    {1: (0, 'nothing abnormal here'), 2: (1, 'fan stopped')}
    """
    longest_first = sorted(labels, key=lambda label: (-len(label), label))
    pattern = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)
    meaning = {label.casefold(): value for label, value in labels.items()}

    def read(text: str) -> Parsed:
        parts = re.split(r"\((\d{1,9})\)", _ascii_digits(text[:_LONGEST]))
        slots: dict[int, str] = {}
        extra = False
        for number, words in zip(parts[1::2], parts[2::2], strict=True):
            extra = extra or int(number) not in ids
            if int(number) in ids:
                slots.setdefault(int(number), words)
        found = {}
        for i in ids:
            match = pattern.search(slots.get(i, ""))
            if match:
                words = slots[i][match.end() :].strip().strip("-:. \n")
                found[i] = (meaning[match[0].casefold()], " ".join(words.split()))
        missing = [i for i in ids if i not in found]
        if missing and not (partial and found):
            listed = ", ".join(f"({i})" for i in missing[:20])
            raise AnswerError(f"there is no label for {listed}; give every slot one of {', '.join(labels)}")
        return Parsed(found, extra or bool(missing))

    return read


def key_blocks(names: Sequence[str], *, most: int | None = None) -> Reader:
    r"""Return a reader of blocks of lines ``name: value``, apart by blank lines; the value is a list of dicts.

    A line without a known name goes on with the field before it; a block without the first name is left out.

    Examples
    --------
    >>> key_blocks(["name", "why"])("Name: timeout\nwhy: too short\nfor the disk\n\nname: port\nwhy: taken").value
    [{'name': 'timeout', 'why': 'too short for the disk'}, {'name': 'port', 'why': 'taken'}]
    """
    pattern = re.compile(rf"\s*[-*]*\s*({'|'.join(map(re.escape, names))})\s*:\s*(.*)", re.IGNORECASE)
    known = {name.casefold(): name for name in names}

    def read(text: str) -> Parsed:
        blocks: list[dict[str, str]] = []
        block: dict[str, str] = {}
        last = ""
        for line in text[:_LONGEST].splitlines():
            match = pattern.fullmatch(line)
            name = known[match[1].casefold()] if match else ""
            if match and name == names[0]:
                block = {name: match[2].strip()}
                blocks.append(block)
                last = name
            elif match and block and name not in block:
                block[name], last = match[2].strip(), name
            elif block and line.strip():
                block[last] = f"{block[last]} {line.strip()}".strip()
        if not blocks:
            raise AnswerError(f"there is no block that begins with '{names[0]}:'")
        return Parsed(blocks[:most], most is not None and len(blocks) > most)

    return read


def closed_label(labels: Mapping[str, Any]) -> Reader:
    """Return a reader of one label among some words; the longest label that fits the first place counts.

    Examples
    --------
    >>> closed_label({"normal": 0, "abnormal": 1})("The line is Abnormal, not normal.")
    Parsed(value=1, repaired=True)
    """
    longest_first = sorted(labels, key=lambda label: (-len(label), label))
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", re.IGNORECASE)
    meaning = {label.casefold(): value for label, value in labels.items()}

    def read(text: str) -> Parsed:
        match = pattern.search(_ascii_digits(text[:_LONGEST]))
        if match is None:
            raise AnswerError(f"it names none of {', '.join(labels)}")
        return Parsed(meaning[match[0].casefold()], text.strip().rstrip(".").casefold() != match[0].casefold())

    return read


def number_answer(low: float = -math.inf, high: float = math.inf, *, after: str = "") -> Reader:
    """Return a reader of one number in a range.

    Parameters
    ----------
    low, high : float
        A number outside is refused.
    after : str
        If given, the number stands right after these words.

    Examples
    --------
    >>> number_answer(0, 100, after="Probability is")("On a scale of 100: Probability is 95.")
    Parsed(value=95.0, repaired=True)
    """
    pattern = re.compile(rf"{re.escape(after)}\W*?(-?\d{{1,15}}(?:\.\d{{1,15}})?)(?!\d)", re.IGNORECASE)

    def read(text: str) -> Parsed:
        plain = _ascii_digits(text[:_LONGEST])
        match = pattern.search(plain)
        if match is None:
            raise AnswerError("there is no number" + (f" after '{after}'" if after else ""))
        value = float(match[1])
        if not low <= value <= high:
            raise AnswerError(f"{match[1]} is not within {low:g} to {high:g}")
        return Parsed(value, plain.strip().rstrip(".") != match[0].strip())

    return read


def _ascii_digits(text: str) -> str:
    """Return a text with the digits of all scripts as 0 to 9."""
    if text.isascii():
        return text
    return "".join(str(unicodedata.digit(letter)) if letter.isdecimal() else letter for letter in text)
