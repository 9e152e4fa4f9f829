"""How a command ends: exit codes, one clear line an error, and warnings as notes."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import typer
from typer.core import TyperGroup

from genad.errors import (
    GenadError,
    GenadWarning,
    InputError,
    InputTypeError,
    MissingExtraError,
    ModelFileError,
    ServiceError,
    TrainingError,
)

#: What each exit code means.
EXIT_CODES: dict[int, str] = {
    0: "done",
    1: "unexpected error",
    2: "wrong usage or bad input",
    3: "model file unusable",
    4: "training failed",
    5: "a service cannot be used",
    130: "interrupted",
}

# The first class that fits decides.
_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (ModelFileError, 3),
    (TrainingError, 4),
    (ServiceError, 5),
    (InputError, 2),
    (InputTypeError, 2),
    (MissingExtraError, 2),
)


@dataclass
class Terminal:
    """What one run of the command line says beside its result.

    Attributes
    ----------
    debug : bool
        Show tracebacks and the warnings of other libraries.
    quiet : bool
        Keep notes and progress to oneself.
    notes : list of str
        What was said, each once, for machine-readable summaries.
    """

    debug: bool = False
    quiet: bool = False
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Say something once, on standard error."""
        if text in self.notes:
            return
        self.notes.append(text)
        if not self.quiet:
            say(f"note: {text}")

    @property
    def progress(self) -> bool:
        """Whether a progress bar is wanted and would be seen."""
        return not self.quiet and sys.stderr.isatty()


def say(text: str) -> None:
    """Write one line to standard error."""
    sys.stderr.write(text.rstrip() + "\n")
    sys.stderr.flush()


def terminal_of(ctx: typer.Context, *, quiet: bool = False) -> Terminal:
    """Return the terminal a command runs in, as quiet as it was asked to be."""
    found: Terminal = ctx.find_root().obj
    found.quiet = quiet
    return found


class GuardedGroup(TyperGroup):
    """A group of commands that turns every failure into one line and an exit code.

    ``--debug`` is accepted anywhere in the line.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Bring ``--debug`` to the front, where the group reads it."""
        ctx.obj = Terminal(debug="--debug" in args)
        if ctx.obj.debug:
            args = ["--debug", *(arg for arg in args if arg != "--debug")]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command inside the guard."""
        with _heard(ctx.obj), _guarded(ctx.obj):
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result


@contextmanager
def _heard(terminal: Terminal) -> Iterator[None]:
    """Turn genad's warnings into notes; those of other libraries are shown for debugging only."""

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:  # noqa: ARG001
        genads = issubclass(category, GenadWarning)
        terminal.note(str(message) if genads else f"{category.__name__}: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("default" if terminal.debug else "ignore")
        warnings.simplefilter("always", GenadWarning)
        warnings.showwarning = show
        yield


@contextmanager
def _guarded(terminal: Terminal) -> Iterator[None]:
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except BrokenPipeError:
        # The reader has seen enough; nothing may be written to the closed pipe at exit either.
        _mute_stdout()
        raise typer.Exit(0) from None
    except KeyboardInterrupt as error:
        say(f"genad: interrupted; {error}" if str(error) else "genad: interrupted")
        raise typer.Exit(130) from None
    except GenadError as error:
        _show(terminal, error, f"genad: {_one_line(error)}")
        raise typer.Exit(_code(error)) from None
    except Exception as error:
        if hasattr(error, "exit_code") and hasattr(error, "show"):
            raise  # wrong usage, which the command line parser reports itself
        more = "" if terminal.debug else " (run it again with --debug to see where)"
        _show(terminal, error, f"genad: {type(error).__name__}: {_one_line(error)}{more}")
        raise typer.Exit(1) from None


def _code(error: BaseException) -> int:
    return next((code for kind, code in _CODES if isinstance(error, kind)), 1)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _show(terminal: Terminal, error: BaseException, line: str) -> None:
    if terminal.debug:
        say("".join(traceback.format_exception(error)))
    say(line)


def _mute_stdout() -> None:
    try:
        place = sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, place)
    os.close(nowhere)
