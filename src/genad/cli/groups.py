"""Options that go together: a command takes them as one value, and the command line shows each of them."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genad.cli import options

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Columns:
    """How the columns of a file are told apart and what they are."""

    time: options.Time = None
    entity: options.Entity = None
    delimiter: options.Delimiter = None
    drop: options.Drop = None

    def arguments(self) -> dict[str, Any]:
        """Return them as the keyword arguments of :func:`genad.applications.reading.read`."""
        return {**dataclasses.asdict(self), "drop": self.drop or ()}


@dataclasses.dataclass(frozen=True)
class Flows:
    """How network flows are read: names of attacks, and the scale of sizes."""

    classes: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Table whose first column names attacks and whose second gives their classes, to count by.",
            rich_help_panel="Reading",
        ),
    ] = None
    normal: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What normal flows are called where labels are names; normal, benign and the like when absent.",
            rich_help_panel="Reading",
        ),
    ] = None
    log_scale: Annotated[
        bool,
        typer.Option(
            help="Look at sizes and counts that span powers of ten on a log scale.", rich_help_panel="Reading"
        ),
    ] = True
    delimiter: options.Delimiter = None
    drop: options.Drop = None

    def arguments(self) -> dict[str, Any]:
        """Return them as keyword arguments of :func:`genad.applications.security_reading.read_security`."""
        return {**dataclasses.asdict(self), "drop": self.drop or ()}


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command so that each of its parameters that is a dataclass becomes one option a field.

    The options stand where the parameter stood, in the order of the fields.
    """
    hints = typing.get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name not in groups:
            shown = parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            parameters.append(shown)
            continue
        inner = typing.get_type_hints(groups[name], include_extras=True)
        parameters += [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=inner[f.name])
            for f in dataclasses.fields(groups[name])
        ]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{f.name: given.pop(f.name) for f in dataclasses.fields(group)})
        command(**given)

    # What typer reads the options from.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
