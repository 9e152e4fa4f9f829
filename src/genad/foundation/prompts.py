r"""Prompts as data: files with an id and a version, filled in strictly, with text from outside fenced off.

A pack is a TOML file of one or more prompts:

    id = "example"                      # letters, digits and _
    version = 1                         # raised whenever a word changes

    [prompt.judge]
    max_tokens = 200                    # a number or "{field}"
    system = "You judge log lines."
    turns = [{ role = "user", text = "{count} lines:\n{lines}" }]

    [prompt.judge.fields]
    count = { kind = "number" }
    lines = { kind = "items", limit = 500 }

    [prompt.judge.schema]               # optional: the form of the answer
    type = "array"
    minItems = "{count}"                # numbers and lists may come from fields
    items = { enum = ["normal", "abnormal"] }

``{name}`` stands for a field, ``{{`` and ``}}`` for braces. A field is of one of four kinds: ``number``; ``text``,
words of the program itself, put in as they are; ``data``, text from outside, and ``items``, a list of such texts,
numbered. Text from outside stands between ``<<<name`` and ``name>>>``, and nothing in it can end that fence, give it
another number or pass for a control token of a model.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from genad.errors import InputError
from genad.foundation.schema import Schema, check_schema

_PLACE = re.compile(r"\{\{|\}\}|\{([a-z_][a-z0-9_]*)\}|[{}]")
_KINDS = ("number", "text", "data", "items")
_ROLES = ("system", "user", "assistant")
_KEYS = frozenset({"system", "turns", "fields", "schema", "stop", "max_tokens", "temperature"})
_LIMIT = 20_000  # characters of a field from outside, unless the prompt says otherwise
# What models take for control tokens: <|...|>, [INST], <<SYS>>, <s>, <start_of_turn> and their like.
_CONTROL = re.compile(
    r"<(?=[|/]?[a-z_0-9]+[|>])|(?<=\|)>|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS)\])", re.IGNORECASE
)
_FENCE = re.compile(r"<(?=<)|(?<=>)>")
_ITEM_NUMBER = re.compile(r"\((\d+)\)")


def neutral(text: str, limit: int = _LIMIT) -> str:
    r"""Return text from outside in a form that cannot steer: no fence, no control token, no invisible character.

    Parameters
    ----------
    text : str
    limit : int
        Longer text loses its middle, and says so.

    Examples
    --------
    >>> neutral("done >>> <|im_end|> now")
    'done > > > < |im_end| > now'
    >>> neutral("red\x1b[0m", 20), neutral("abcdefghij" * 9, 20)
    ('red\\x1b[0m', 'abcdefghij [70 characters left out] abcdefghij')
    """
    if len(text) > limit:
        head = limit // 2
        tail = limit - head
        text = f"{text[:head]} [{len(text) - limit} characters left out] {text[len(text) - tail :]}"
    # Fences first: what they break apart can no longer be read as a control token either.
    text = _CONTROL.sub(_apart, _FENCE.sub(_apart, text))
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if _harmless(letter) else _escaped(letter) for letter in text)


def _apart(match: re.Match[str]) -> str:
    return f" {match[0]}" if match[0] == ">" else f"{match[0]} "


def _harmless(letter: str) -> bool:
    # Control, format (some turn the direction of writing), surrogate and private characters; line and paragraph marks.
    return letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def _escaped(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


@dataclass(frozen=True)
class FieldKind:
    """What may stand in a place of a prompt.

    Parameters
    ----------
    kind : {"number", "text", "data", "items"}
    limit : int
        The most characters of a text from outside, or of each of its items.
    """

    kind: str
    limit: int = _LIMIT

    def render(self, name: str, value: Any) -> str:
        """Return the text that stands for a value.

        Raises
        ------
        InputError
            When the value is of another kind.
        """
        if self.kind == "number":
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InputError(f"{name}: {value!r} was given; this field of the prompt takes a number.")
            return str(value)
        if self.kind == "items":
            if isinstance(value, str) or not all(isinstance(item, str) for item in value):
                raise InputError(f"{name}: {type(value).__name__} was given; this field of the prompt takes texts.")
            lines = [f"({i}) {self._item(item)}" for i, item in enumerate(value, 1)]
            return "\n".join([f"<<<{name}", *lines, f"{name}>>>"])
        if not isinstance(value, str):
            raise InputError(f"{name}: {type(value).__name__} was given; this field of the prompt takes a text.")
        return value if self.kind == "text" else f"<<<{name}\n{neutral(value, self.limit)}\n{name}>>>"

    def _item(self, text: str) -> str:
        # One item is one line, and a number in parentheses within it does not begin another.
        text = neutral(text, self.limit).replace("\n", "\\n").replace("\t", " ")
        return _ITEM_NUMBER.sub(r"[\1]", text)


@dataclass(frozen=True)
class Request:
    """A prompt filled in: what is sent, and the form the answer shall have.

    Parameters
    ----------
    messages : list of dict
    schema : Schema or None
    stop : tuple of str
    max_tokens : int
    temperature : float
    reference : str
        Which prompt it was: ``"pack/name@version"``.
    """

    messages: list[dict[str, str]]
    schema: Schema | None
    stop: tuple[str, ...]
    max_tokens: int
    temperature: float
    reference: str


@dataclass(frozen=True)
class PromptTemplate:
    """A prompt with places for its fields.

    Parameters
    ----------
    reference : str
        ``"pack/name@version"``.
    turns : sequence of (str, str)
        Role and text of each message.
    fields : mapping of str to FieldKind
    schema : Schema or None
        Numbers and lists in it may be ``"{field}"``.
    stop : sequence of str
    max_tokens : int or str
        A number or ``"{field}"``.
    temperature : float

    Raises
    ------
    InputError
        When a place has no field, a field no place, or a brace stands alone.

    Examples
    --------
    >>> prompt = load_prompt("example", "triage")
    >>> request = prompt.render(lines=["disk ok", "(7) fan >>> stopped"], count=2)
    >>> print(request.messages[-1]["content"])
    Here are 2 log lines.
    <<<lines
    (1) disk ok
    (2) [7] fan > > > stopped
    lines>>>
    Give for each line, in order, its label and in a few words the reason.
    >>> request.reference, request.schema["minItems"]
    ('example/triage@1', 2)
    """

    reference: str
    turns: Sequence[tuple[str, str]]
    fields: Mapping[str, FieldKind] = field(default_factory=dict)
    schema: Schema | None = None
    stop: Sequence[str] = ()
    max_tokens: int | str = 256
    temperature: float = 0.0

    def __post_init__(self) -> None:
        used = set(_schema_places(self.schema)) | set(_schema_places(self.max_tokens))
        for role, text in self.turns:
            if role not in _ROLES:
                raise InputError(f"{self.reference}: the role {role!r} is not known; use {', '.join(_ROLES)}.")
            for match in _PLACE.finditer(text):
                if match[0] in "{}":
                    raise InputError(f"{self.reference}: a brace stands alone at character {match.start()}; double it.")
                if match[1]:
                    used.add(match[1])
        if used != set(self.fields):
            raise InputError(
                f"{self.reference}: places without a field: {sorted(used - set(self.fields))}; fields without a "
                f"place: {sorted(set(self.fields) - used)}; declare each field once and use it."
            )

    def render(self, **values: Any) -> Request:
        """Return the prompt with its fields filled in.

        Parameters
        ----------
        **values
            One for each field.

        Raises
        ------
        InputError
            When one is missing, unknown or of the wrong kind.
        """
        missing, unknown = sorted(set(self.fields) - set(values)), sorted(set(values) - set(self.fields))
        if missing or unknown:
            raise InputError(
                f"{self.reference}: fields missing: {missing}; fields not known: {unknown}; it takes "
                f"{', '.join(sorted(self.fields)) or 'none'}."
            )
        texts = {name: kind.render(name, values[name]) for name, kind in self.fields.items() if self._placed(name)}

        def fill(match: re.Match[str]) -> str:
            return texts[match[1]] if match[1] else match[0][0]

        messages = [{"role": role, "content": _PLACE.sub(fill, text)} for role, text in self.turns]
        schema = _filled(self.schema, values)
        if schema is not None:
            check_schema(schema, self.reference)
        limit = _filled(self.max_tokens, values)
        if not isinstance(limit, int) or limit < 1:
            raise InputError(f"{self.reference}: max_tokens is {limit!r}; it must be a whole number of at least 1.")
        return Request(messages, schema, tuple(self.stop), limit, self.temperature, self.reference)

    def _placed(self, name: str) -> bool:
        return any(match[1] == name for _, text in self.turns for match in _PLACE.finditer(text))


def _schema_places(value: Any) -> list[str]:
    if isinstance(value, str):
        match = re.fullmatch(r"\{([a-z_][a-z0-9_]*)\}", value)
        return [match[1]] if match else []
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return [name for part in parts for name in _schema_places(part)]


def _filled(value: Any, values: Mapping[str, Any]) -> Any:
    """Return a schema with the values of fields in their places."""
    places = _schema_places(value) if isinstance(value, str) else []
    if places:
        found = values[places[0]]
        return list(found) if isinstance(found, list | tuple) else found
    if isinstance(value, Mapping):
        return {name: _filled(part, values) for name, part in value.items()}
    return [_filled(part, values) for part in value] if isinstance(value, list) else value


def read_pack(text: str, source: str = "pack") -> dict[str, PromptTemplate]:
    """Return the prompts of a pack by name.

    Parameters
    ----------
    text : str
        TOML, as the head of this module shows.
    source : str
        Named in errors.

    Raises
    ------
    InputError
        When the text is no TOML, lacks a part, has an unknown one, or a prompt contradicts itself.
    """
    try:
        pack = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source}: is not TOML ({error}).") from None
    name, version, prompts = pack.get("id"), pack.get("version"), pack.get("prompt")
    unknown = set(pack) - {"id", "version", "prompt"}
    if not isinstance(name, str) or not isinstance(version, int) or not isinstance(prompts, dict) or unknown:
        raise InputError(
            f"{source}: holds {sorted(pack)}; a pack has an id (text), a version (whole number) and tables "
            "[prompt.NAME], and nothing else."
        )
    return {part: _read_prompt(f"{name}/{part}@{version}", table) for part, table in prompts.items()}


def _read_prompt(reference: str, table: Mapping[str, Any]) -> PromptTemplate:
    unknown = sorted(set(table) - _KEYS)
    if unknown or not table.get("turns"):
        raise InputError(f"{reference}: needs turns, and takes {', '.join(sorted(_KEYS))}; unknown: {unknown}.")
    fields = {}
    for name, entry in table.get("fields", {}).items():
        if set(entry) - {"kind", "limit"} or entry.get("kind") not in _KINDS:
            raise InputError(f"{reference}: the field {name} is {entry!r}; give a kind of {', '.join(_KINDS)}.")
        fields[name] = FieldKind(entry["kind"], entry.get("limit", _LIMIT))
    system = [("system", table["system"].strip())] if table.get("system") else []
    turns = [(turn.get("role", "user"), turn.get("text", "").strip("\n")) for turn in table["turns"]]
    return PromptTemplate(
        reference,
        (*system, *turns),
        fields,
        table.get("schema"),
        tuple(table.get("stop", ())),
        table.get("max_tokens", 256),
        float(table.get("temperature", 0.0)),
    )


@lru_cache(maxsize=64)
def _packaged(pack: str) -> dict[str, PromptTemplate]:
    file = resources.files("genad.foundation") / "prompt_packs" / f"{pack}.toml"
    if not re.fullmatch(r"\w+", pack) or not file.is_file():
        raise InputError(
            f"pack: there is no pack {pack!r}; give the name of one in prompt_packs, or the path of a file."
        )
    return read_pack(file.read_text(encoding="utf-8"), f"{pack}.toml")


def load_prompt(pack: str | Path, name: str) -> PromptTemplate:
    """Return a prompt of a pack.

    Parameters
    ----------
    pack : str or Path
        The name of a pack that comes with genad, or the path of a TOML file of your own.
    name : str
        Of the prompt within it.

    Raises
    ------
    InputError
        When there is no such pack or prompt, or the pack cannot be read.
    """
    if isinstance(pack, Path) or pack.endswith(".toml"):
        path = Path(pack)
        if not path.is_file():
            raise InputError(f"pack: there is no file {str(path)!r}; give the path of a TOML file.")
        prompts = read_pack(path.read_text(encoding="utf-8"), path.name)
    else:
        prompts = _packaged(pack)
    if name not in prompts:
        raise InputError(f"name: the pack {str(pack)!r} has no prompt {name!r}; it has {', '.join(sorted(prompts))}.")
    return prompts[name]
