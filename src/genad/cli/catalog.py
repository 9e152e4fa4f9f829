"""`genad list` and `genad info`: which methods there are, and what each is for."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genad.cli import options
from genad.cli.settings import OWN_OPTIONS

if TYPE_CHECKING:
    from genad.core.detector import Detector

_ROLE = re.compile(r":[a-z]+:`~?([^`]+)`")
_MARKUP = re.compile(r"\*\*(.+?)\*\*|``(.+?)``|\*(\w[^*\n]*)\*")
_SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}\n", re.MULTILINE)
_ENTRY = re.compile(r"^(\w+(?:, \w+)*)(?: *:.*)?$")


def list_(
    pattern: Annotated[str, typer.Argument(help="Wildcard pattern on the name, for instance '*vae*'.")] = "*",
    kind: Annotated[
        str | None,
        typer.Option(help="Keep methods for table, series, window, image, video or log."),
    ] = None,
    family: Annotated[str | None, typer.Option(help="Keep one family, for instance gan or flow.")] = None,
    as_json: options.Json = False,
) -> None:
    """List the methods: name, family, kinds of data, and what each does."""
    from genad.cli.output import write_json, write_out
    from genad.core.registry import detector_class, list_detectors

    names = list_detectors(pattern, kind=kind, family=family)
    cards = {name: detector_class(name).card for name in names}
    if as_json:
        write_json([card_facts(name, card) for name, card in cards.items()])
        return
    if not cards:
        from genad.cli.terminal import say

        say("No method fits; leave out the pattern, --kind or --family to see more.")
        return
    rows = [(name, card.family.value, " ".join(card.kinds), card.summary) for name, card in cards.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = (
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)) + f"  {row[-1]}" for row in rows
    )
    write_out("".join(f"{line.rstrip()}\n" for line in lines).encode("utf-8"))


def info(
    method: Annotated[str, typer.Argument(help="Name of a method.", show_default=False)],
    as_json: options.Json = False,
) -> None:
    """Show a method: its paper, what it does, when to use it, when it fails, its parameters."""
    from genad.cli.output import write_json, write_out
    from genad.core.registry import detector_class

    cls = detector_class(method)
    facts = card_facts(cls.name, cls.card) | {
        "about": about(cls),
        "parameters": parameters(cls),
    }
    if as_json:
        write_json(facts)
    else:
        write_out((_page(facts) + "\n").encode("utf-8"))


def card_facts(name: str, card: Any) -> dict[str, Any]:
    """Return a method's card as plain values."""
    facts = {f.name: getattr(card, f.name) for f in dataclasses.fields(card)}
    plain = {"kinds": [k.value for k in card.kinds], "family": card.family.value}
    return {"name": name, **facts, **plain, "tags": list(card.tags)}


def about(cls: type[Detector]) -> str:
    """Return what a class's docstring says before its parameters, without markup."""
    head, *sections = _SECTION.split(inspect.cleandoc(cls.__doc__ or ""))
    parts = [head.strip()]
    for heading, body in zip(sections[::2], sections[1::2], strict=True):
        if heading.startswith("When"):
            parts.append(f"{heading}. {body.strip()}")
    return _plain("\n\n".join(parts))


def parameters(cls: type[Detector]) -> list[dict[str, Any]]:
    """Return a detector's parameters with their defaults and what the docstrings say of them."""
    told: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        told |= _told_by(base)
    defaults = inspect.signature(cls).parameters
    return [
        {"name": name, "default": _default(defaults[name].default), "help": told.get(name, "")}
        for name in cls._get_param_names()
    ]


def inherited_parameters(cls: type[Detector]) -> list[dict[str, Any]]:
    """Return those of a detector's parameters that the docstring of its family tells of, and its own does not.

    The parameters that every detector has are left out.
    """
    from genad.core.detector import Detector

    known = _told_by(cls).keys() | _told_by(Detector).keys()
    return [entry for entry in parameters(cls) if entry["name"] not in known]


def _default(value: Any) -> Any:
    plain = value is None or isinstance(value, bool | int | float | str)
    return value if plain else repr(value)


def _told_by(cls: type) -> dict[str, str]:
    """Return what a class's own docstring says in its section on parameters."""
    sections = _SECTION.split(inspect.cleandoc(cls.__dict__.get("__doc__") or ""))
    body = dict(zip(sections[1::2], sections[2::2], strict=False)).get("Parameters", "")
    found: dict[str, list[str]] = {}
    names: list[str] = []
    for line in body.splitlines():
        entry = _ENTRY.match(line)
        if entry:
            names = entry.group(1).split(", ")
            found |= {name: [] for name in names}
        elif line.startswith("    "):
            for name in names:
                found[name].append(line.strip())
    return {name: _plain(" ".join(lines)) for name, lines in found.items()}


def _plain(text: str) -> str:
    text = _ROLE.sub(lambda role: role.group(1).rsplit(".", 1)[-1], text)
    return _MARKUP.sub(lambda found: next(filter(None, found.groups())), text).strip()


def _page(facts: dict[str, Any]) -> str:
    source = ", ".join(str(part) for part in (facts["venue"], facts["year"]) if part)
    lines = [
        facts["name"],
        f"{facts['title']}. {facts['authors']}, {source}.",
        f"Family: {facts['family']}. Kinds of data: {', '.join(facts['kinds'])}.",
        "",
        facts["about"],
        "",
        "Parameters (give them with --set name=value):",
    ]
    for entry in facts["parameters"]:
        option = OWN_OPTIONS.get(entry["name"])
        own = f" (has its own option, {option})" if option else ""
        lines.append(f"  {entry['name']} = {entry['default']}{own}")
        lines += [f"      {entry['help']}"] * bool(entry["help"])
    return "\n".join(lines)
