"""Answers that hold to a JSON schema, written by a local model: the form is forced, the values are its own.

Braces, names and commas are written without asking. A choice follows the tokens that still lead to one of its options;
numbers are digits until the model would rather go on; texts run until it would close the quotation mark; a list ends
when it prefers the bracket to the comma. When the tokens run out, what is open is closed at once.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from genad.foundation.decoding import Writer
from genad.foundation.schema import Schema
from genad.foundation.tokens import Tokens

_ENUMERATED = 512  # a range of so few whole numbers is a choice
_DIGITS = 12
_ITEMS = 32  # of a list without a limit
_CHARACTERS = 400  # of a text without a limit


class _Masks:
    """Which tokens may stand where; one for each vocabulary."""

    def __init__(self, tokens: Tokens) -> None:
        pieces = tokens.pieces

        def mask(allowed: Any) -> Tensor:
            return torch.tensor([bool(piece) and allowed(piece) for piece in pieces])

        self.digits = mask(lambda piece: piece.isdigit() and len(piece) == 1)
        self.minus = mask(lambda piece: piece == b"-")
        self.point = mask(lambda piece: piece == b".")
        self.plain = mask(lambda piece: b'"' not in piece and b"\\" not in piece and min(piece) >= 32)
        self.quote = mask(lambda piece: piece.startswith(b'"'))
        self.comma = mask(lambda piece: piece.startswith(b","))
        self.bracket = mask(lambda piece: piece.startswith(b"]"))
        self.after = mask(lambda piece: piece[:1] in b",}] \n")


@lru_cache(maxsize=2)
def _masks(tokens: Tokens) -> _Masks:
    return _Masks(tokens)


def write_json(writer: Writer, schema: Schema) -> Any:
    """Write a JSON value that holds to a schema, and return it.

    Of ``anyOf`` the first is taken; ``pattern`` is not looked at.
    """
    if "const" in schema:
        writer.force(json.dumps(schema["const"], ensure_ascii=False))
        return schema["const"]
    if "enum" in schema:
        return _choice(writer, schema["enum"])
    if "anyOf" in schema:
        return write_json(writer, schema["anyOf"][0])
    kind = schema["type"]
    if kind == "object":
        return _object(writer, schema)
    if kind == "array":
        return _array(writer, schema)
    if kind == "string":
        return _string(writer, schema)
    if kind == "boolean":
        return _choice(writer, [True, False])
    if kind == "null":
        writer.force("null")
        return None
    return _number(writer, schema, whole=kind == "integer")


def _choice(writer: Writer, options: Any) -> Any:
    texts = {json.dumps(option, ensure_ascii=False): option for option in options}
    if all(isinstance(option, str) for option in options):
        # The quotation marks are forced, so that the first token tells the options apart.
        writer.force('"')
        text = writer.choose_text([text[1:] for text in texts])
        return texts[f'"{text}']
    return texts[writer.choose_text(list(texts))]


def _object(writer: Writer, schema: Schema) -> dict[str, Any]:
    value = {}
    for i, (name, part) in enumerate(schema.get("properties", {}).items()):
        writer.force(("{" if i == 0 else ", ") + json.dumps(name, ensure_ascii=False) + ": ")
        value[name] = write_json(writer, part)
    writer.force("}" if value else "{}")
    return value


def _array(writer: Writer, schema: Schema) -> list[Any]:
    masks = _masks(writer.tokens)
    part, low = schema.get("items", {"type": "string"}), schema.get("minItems", 0)
    high = max(schema.get("maxItems", max(low, _ITEMS)), low)
    options = part.get("enum")
    if part.get("type") == "integer" and "enum" not in part:
        options = _range(part)
    unique = bool(schema.get("uniqueItems"))
    value: list[Any] = []
    writer.force("[")
    while len(value) < high:
        remaining = [option for option in options if option not in value] if unique and options is not None else options
        if remaining == []:
            break
        if len(value) >= low and (writer.left <= 0 or not _goes_on(writer, masks, first=not value)):
            break
        if value:
            writer.force(", ")
        item = write_json(writer, part if remaining is None else {"enum": remaining})
        if unique and item in value:
            # It cannot be unwritten, so the list is not held to be without repetition: checked with the answer.
            high = len(value) + 1
        value.append(item)
    writer.force("]")
    return value


def _goes_on(writer: Writer, masks: _Masks, *, first: bool) -> bool:
    """Tell whether the model would rather have another item than the end of the list."""
    shares = writer.scores().softmax(-1).cpu()
    ends = float(shares[masks.bracket].sum())
    return (1.0 - ends if first else float(shares[masks.comma].sum())) > ends


def _string(writer: Writer, schema: Schema) -> str:
    masks = _masks(writer.tokens)
    low, high = schema.get("minLength", 0), schema.get("maxLength", _CHARACTERS)
    writer.force('"')
    writer.scores()
    start = len(writer.ids)
    text = ""
    while len(text) < high and (writer.left > 0 or len(text) < low):
        token = writer.choose(masks.plain if len(text) < low else masks.plain | masks.quote)
        if masks.quote[token]:
            break
        longer = writer.tokens.decode([*writer.ids[start:], token])
        if len(longer) > high:
            break
        writer.take(token)
        text = longer
    writer.force('"')
    return text


def _range(schema: Schema, *, whole: bool = True) -> list[Any] | None:
    """Return the numbers of a small range; those with decimals in steps of 0.01 or, if these are too many, 0.1."""
    if "minimum" not in schema or "maximum" not in schema:
        return None
    low, high = schema["minimum"], schema["maximum"]
    for steps in (1,) if whole else (100, 10):
        first, last = math.ceil(low * steps), math.floor(high * steps)
        if last - first < _ENUMERATED:
            return [n if whole else n / steps for n in range(first, last + 1)]
    return None


def _number(writer: Writer, schema: Schema, *, whole: bool) -> Any:
    options = _range(schema, whole=whole)
    if options:
        return _choice(writer, options)
    masks = _masks(writer.tokens)
    text = ""
    while len(text) < _DIGITS:
        digits = any(letter.isdigit() for letter in text)
        mask = masks.digits.clone()
        if not text and schema.get("minimum", -1) < 0:
            mask |= masks.minus
        if text.lstrip("-") == "0":
            mask[:] = False  # JSON has no number that begins with 0 and goes on with a digit
        if digits and not whole and "." not in text:
            mask |= masks.point
        complete = digits and not text.endswith(".")
        if complete and writer.left <= 0:
            break
        token = writer.choose(mask | masks.after if complete else mask)
        if not mask[token]:
            break
        writer.take(token)
        text += writer.tokens.pieces[token].decode()
    if text.endswith((".", "-")):
        writer.force("0")
        text += "0"
    return int(text) if whole else float(text)
