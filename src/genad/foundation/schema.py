"""The part of JSON Schema that answers of language models are held to: checked, mended, and refused when unknown."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from genad.errors import GenadError, InputError

#: A schema as JSON holds it.
Schema = Mapping[str, Any]

_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
_KEYWORDS = frozenset({
    "type", "enum", "const", "anyOf", "properties", "required", "additionalProperties", "items", "minItems", "maxItems",
    "uniqueItems", "minLength", "maxLength", "pattern", "minimum", "maximum", "description", "title",
})  # fmt: skip
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


class AnswerError(GenadError, ValueError):
    """An answer cannot be used; the message is written for the model that gave it."""


def check_schema(schema: Schema, where: str = "schema") -> None:
    """Refuse a schema that uses what is not checked here, so that nothing goes unchecked in silence.

    Raises
    ------
    InputError
        Naming the place and the keyword.

    Examples
    --------
    >>> check_schema({"type": "object", "properties": {"score": {"type": "number", "minimum": 0}}})
    >>> check_schema({"type": "string", "format": "date"})
    Traceback (most recent call last):
    genad.errors.InputError: schema: the keyword 'format' is not known; use additionalProperties, anyOf, ...
    """
    if not isinstance(schema, Mapping):
        raise InputError(f"{where}: {schema!r} was found; a schema is an object.")
    for keyword in schema:
        if keyword not in _KEYWORDS:
            raise InputError(f"{where}: the keyword {keyword!r} is not known; use {', '.join(sorted(_KEYWORDS))}.")
    if not {"type", "enum", "const", "anyOf"} & set(schema):
        raise InputError(f"{where}: says nothing of the value; give type, enum, const or anyOf.")
    if "type" in schema and schema["type"] not in _TYPES:
        raise InputError(f"{where}: the type {schema['type']!r} is not known; use {', '.join(_TYPES)}.")
    for name, part in schema.get("properties", {}).items():
        check_schema(part, f"{where}.{name}")
    if "items" in schema:
        check_schema(schema["items"], f"{where}[]")
    for part in schema.get("anyOf", ()):
        check_schema(part, where)


def _is_type(value: Any, kind: str) -> bool:
    if kind in ("integer", "number"):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return isinstance(value, int) or (math.isfinite(value) and (kind == "number" or value.is_integer()))
    expected = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}[kind]
    return isinstance(value, expected)


def validate(value: Any, schema: Schema, where: str = "the answer") -> None:
    """Refuse a value that does not hold to a schema.

    Raises
    ------
    AnswerError
        Naming the first place that does not, what was found and what is needed.

    Examples
    --------
    >>> validate({"score": 1.5}, {"type": "object", "properties": {"score": {"type": "number", "maximum": 1}}})
    Traceback (most recent call last):
    genad.foundation.schema.AnswerError: score is 1.5 and must be at most 1
    """
    if "anyOf" in schema:
        problems = []
        for part in schema["anyOf"]:
            try:
                validate(value, part, where)
                break
            except AnswerError as error:
                problems.append(str(error))
        else:
            raise AnswerError(" or ".join(problems))
    if "const" in schema and value != schema["const"]:
        raise AnswerError(f"{where} must be {schema['const']!r}")
    if "enum" in schema and not any(value == option and type(value) is type(option) for option in schema["enum"]):
        raise AnswerError(f"{where} is {_short(value)} and must be one of {', '.join(map(repr, schema['enum']))}")
    kind = schema.get("type")
    if kind is None:
        return
    if not _is_type(value, kind):
        raise AnswerError(f"{where} is {_short(value)} and must be of type {kind}")
    if kind in ("integer", "number"):
        _validate_range(value, schema, "minimum", "maximum", where, "")
    elif kind == "string":
        _validate_range(len(value), schema, "minLength", "maxLength", where, " characters long")
        if "pattern" in schema and not re.search(schema["pattern"], value):
            raise AnswerError(f"{where} is {_short(value)} and must match the pattern {schema['pattern']}")
    elif kind == "array":
        _validate_range(len(value), schema, "minItems", "maxItems", where, " items long")
        if schema.get("uniqueItems") and any(item in value[:i] for i, item in enumerate(value)):
            raise AnswerError(f"{where} names an item twice")
        for i, item in enumerate(value if "items" in schema else ()):
            validate(item, schema["items"], f"{where}[{i}]")
    elif kind == "object":
        _validate_object(value, schema, where)


def _validate_object(value: dict[str, Any], schema: Schema, where: str) -> None:
    prefix = "" if where == "the answer" else f"{where}."
    known = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            raise AnswerError(f"{prefix}{name} is missing")
    for name, part in value.items():
        if name in known:
            validate(part, known[name], f"{prefix}{name}")
        elif schema.get("additionalProperties", True) is False:
            raise AnswerError(f"{prefix}{name} is not asked for; give {', '.join(known)} only")


def _validate_range(size: float, schema: Schema, low: str, high: str, where: str, unit: str) -> None:
    if low in schema and size < schema[low]:
        raise AnswerError(f"{where} is {size}{unit} and must be at least {schema[low]}")
    if high in schema and size > schema[high]:
        raise AnswerError(f"{where} is {size}{unit} and must be at most {schema[high]}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def fit(value: Any, schema: Schema) -> Any:
    """Return a value brought nearer to a schema, without inventing what is not there.

    Numbers written as text become numbers, whole numbers are rounded, a number that must lie in a range is moved to
    its end, items of an array that lie outside the range of their kind or come twice are left out, words for true and
    false become truth values, names that are not asked for are left out, case of a choice is put right.

    Examples
    --------
    >>> fit({"at": ["3", 4.0, 999, 3], "x": 1}, {"type": "object", "additionalProperties": False, "properties": {
    ...     "at": {"type": "array", "uniqueItems": True, "items": {"type": "integer", "minimum": 0, "maximum": 9}}}})
    {'at': [3, 4]}
    """
    if "anyOf" in schema:
        for part in schema["anyOf"]:
            changed = fit(value, part)
            try:
                validate(changed, part)
            except AnswerError:
                continue
            return changed
        return value
    if "enum" in schema and isinstance(value, str):
        same = [option for option in schema["enum"] if isinstance(option, str) and _bare(option) == _bare(value)]
        return same[0] if len(same) == 1 else value
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return _fit_number(value, schema, kind)
    if kind == "boolean" and not isinstance(value, bool):
        word = _bare(str(value))
        return True if word in _TRUE else False if word in _FALSE else value
    if kind == "string" and isinstance(value, str) and len(value) > schema.get("maxLength", math.inf):
        return value[: schema["maxLength"]]
    if kind == "array" and isinstance(value, list):
        return _fit_items(value, schema)
    if kind == "object" and isinstance(value, dict):
        known = schema.get("properties", {})
        closed = schema.get("additionalProperties", True) is False
        return {
            name: fit(part, known[name]) if name in known else part
            for name, part in value.items()
            if name in known or not closed
        }
    return value


def _bare(text: str) -> str:
    return text.strip().strip(".\"'").casefold()


def _number(value: Any) -> Any:
    """Return a number written as text as a number; Python reads the digits of all scripts."""
    if isinstance(value, str):
        text = value.strip().replace("\u066b", ".").rstrip("%")
        try:
            return int(text) if len(text) < 20 else value
        except ValueError:
            try:
                return float(text)
            except ValueError:
                return value
    return value


def _fit_number(value: Any, schema: Schema, kind: str) -> Any:
    value = _number(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return value
    if kind == "integer":
        value = round(value)
    if value < schema.get("minimum", -math.inf):
        return schema["minimum"]
    return schema["maximum"] if value > schema.get("maximum", math.inf) else value


def _fit_items(value: list[Any], schema: Schema) -> list[Any]:
    part = schema.get("items")
    out: list[Any] = []
    for item in value:
        if part is not None and part.get("type") in ("integer", "number"):
            free = {name: limit for name, limit in part.items() if name not in ("minimum", "maximum")}
            item = fit(item, free)
            outside = _is_type(item, "number") and not (
                part.get("minimum", -math.inf) <= item <= part.get("maximum", math.inf)
            )
            if outside:
                continue
        elif part is not None:
            item = fit(item, part)
        if not (schema.get("uniqueItems") and item in out):
            out.append(item)
    return out
