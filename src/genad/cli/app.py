"""The application: its commands, and the entry point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from genad.cli import bench, catalog, detect, images, model, security
from genad.cli.terminal import EXIT_CODES, GuardedGroup

_EPILOG = "Exit codes: " + ", ".join(f"{code} {said}" for code, said in EXIT_CODES.items()) + "."

app = typer.Typer(
    name="genad",
    cls=GuardedGroup,
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        from genad import __version__

        typer.echo(f"genad {__version__}")
        raise typer.Exit


@app.callback()
def genad(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show where an error came from; accepted anywhere."),
    ] = False,
) -> None:
    """Find anomalies with generative models: detect, localise, explain and restore.

    Start with `genad detect data.csv`.
    """


_COMMANDS: dict[str, Callable[..., None]] = {
    "detect": detect.detect,
    "fit": model.fit,
    "score": model.score,
    "explain": model.explain,
    "restore": model.restore,
    "synthesize": images.synthesize,
    "industrial": images.industrial,
    "medical": images.medical,
    "cybersecurity": security.cybersecurity,
    "list": catalog.list_,
    "info": catalog.info,
}
for name, command in _COMMANDS.items():
    app.command(name, epilog=_EPILOG)(command)
app.command(
    "bench",
    epilog=_EPILOG,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(bench.bench)


def main() -> None:
    """Run the command line."""
    app(prog_name="genad")
