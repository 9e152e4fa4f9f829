"""Options of logs and of language models, which a command takes as one value each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genad.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from genad.cli.terminal import Terminal

_LOGS, _MODEL = "Logs", "Language model"
# Arguments that messages of a language model name, and the options that stand for them here.
_OPTIONS = {
    "base_url": "--llm",
    "llm": "--llm",
    "model": "--llm-model",
    "llm_model": "--llm-model",
    "api_key_env": "--llm-key-env",
    "budget": "--llm-budget",
    "cache": "--llm-cache",
}


@dataclasses.dataclass(frozen=True)
class LogOptions:
    """How the lines of a log are read and grouped."""

    session: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="What one score stands for: line, id, id=PATTERN, field=NAME, lines=N, seconds=S, or gap=S (with "
            "field=NAME if wanted); repeatable. By a known id when absent, else windows of 20 lines.",
            rich_help_panel=_LOGS,
        ),
    ] = None
    layout: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Layout of the lines; found out when absent.", rich_help_panel=_LOGS),
    ] = None
    year: Annotated[
        int | None,
        typer.Option(min=1970, help="Year of time stamps that have none.", rich_help_panel=_LOGS),
    ] = None
    encoding: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of a log, or of CSV or TSV text; UTF-8 when absent, with odd lines of a log read as Windows-1252.",
            rich_help_panel=_LOGS,
        ),
    ] = None

    def arguments(self) -> dict[str, Any]:
        """Return them as keyword arguments of :func:`genad.applications.reading.read`."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """Which language model a method asks, and what that may cost."""

    llm: Annotated[
        str | None,
        typer.Option(
            metavar="URL|FILE",
            help="A service that speaks the OpenAI protocol, or a GGUF file; the small local model when absent.",
            rich_help_panel=_MODEL,
        ),
    ] = None
    llm_model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the model at the service.", rich_help_panel=_MODEL),
    ] = None
    llm_key_env: Annotated[
        str | None,
        typer.Option(
            metavar="VARIABLE",
            help="Environment variable that holds the key of the service; the key itself is never an option.",
            rich_help_panel=_MODEL,
        ),
    ] = None
    llm_budget: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="TOKENS",
            help="Most tokens to use; what is judged by then stands, and the same command with more goes on there.",
            rich_help_panel=_MODEL,
        ),
    ] = None
    llm_cache: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Keeps answers, so that nothing is asked twice; llm-cache.sqlite beside the results when absent.",
            rich_help_panel=_MODEL,
        ),
    ] = None

    def settings(self, cls: type, beside: Path) -> dict[str, Any]:
        """Return parameters for a detector class.

        Parameters
        ----------
        cls : type
            The detector's class.
        beside : Path
            File beside which the cache is kept when none is named.

        Raises
        ------
        InputError
            When an option was given and the method asks no language model.
        """
        given = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        names = cls._get_param_names()  # type: ignore[attr-defined]
        if "llm" not in names:
            if given:
                option = next(iter(given)).replace("_", "-")
                raise InputError(f"--{option}: {cls.name} asks no language model; {_askers()}")  # type: ignore[attr-defined]
            return {}
        renamed = {"llm_key_env": "api_key_env", "llm_budget": "budget", "llm_cache": "cache"}
        found = {renamed.get(name, name): value for name, value in given.items()}
        return {"cache": str(beside.with_name("llm-cache.sqlite"))} | found


@contextmanager
def in_words_of_options() -> Iterator[None]:
    """Let errors of a language model name the option that mends them."""
    from genad.foundation.llm import ModelServiceError

    try:
        yield
    except (ModelServiceError, InputError) as error:
        name, _, said = str(error).partition(":")
        if name not in _OPTIONS:
            raise
        raise type(error)(f"{_OPTIONS[name]}:{said}") from error


def _askers() -> str:
    from genad.core.registry import detector_class, list_detectors

    names = [name for name in list_detectors() if "llm" in detector_class(name)._get_param_names()]  # noqa: SLF001
    return f"leave it out, or name one that does by --method: {', '.join(names)}."


def say_unjudged(detector: Any, terminal: Terminal) -> None:
    """Note how many units a language model did not judge, and how to go on when its budget was spent."""
    status = [state for state in getattr(detector, "status_", []) if state]
    unasked, abstained = status.count("unasked"), status.count("abstained")
    if unasked:
        terminal.note(
            f"{unasked:,} of {len(status):,} units were not judged because the budget of the language model was spent; "
            "they have the typical score of a normal one and are marked as unasked. Run the same command again with a "
            "larger --llm-budget: what was answered is kept and not asked again"
        )
    if abstained:
        terminal.note(
            f"the language model gave no usable answer for {abstained:,} of {len(status):,} units; they have the "
            "typical score of a normal one and are marked as abstained"
        )
