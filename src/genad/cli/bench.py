"""`genad bench`: start the benchmarks of a source checkout."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from genad.errors import InputError

#: Folder of the benchmarks in a source checkout.
FOLDER = "benchmarks"


def bench(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(help="Benchmark to run; lists them when absent.", show_default=False),
    ] = None,
) -> None:
    """Run a benchmark of a source checkout; what follows the name is passed on to it."""
    from genad.cli.output import write_out

    folder = find_folder()
    scripts = {path.stem: path for path in sorted(folder.glob("*.py")) if path.stem[0] != "_"}
    if name is None:
        lines = [f"Benchmarks in {folder}:", *(f"  {n}  {_first(p)}" for n, p in scripts.items())]
        write_out("".join(f"{line.rstrip()}\n" for line in lines).encode("utf-8"))
        return
    if name not in scripts:
        known = ", ".join(scripts) or "none"
        raise InputError(f"name: there is no benchmark {name!r} in {folder}; there are: {known}.")
    command = [sys.executable, str(scripts[name]), *ctx.args]
    done = subprocess.run(command, check=False)  # noqa: S603 - our own script, and no shell
    raise typer.Exit(done.returncode)


def find_folder() -> Path:
    """Return the folder of the benchmarks: of the checkout genad runs from, or of this folder.

    Raises
    ------
    InputError
        When genad was installed without its source and there is none here either.
    """
    places = [Path(__file__).resolve().parents[3] / FOLDER, Path.cwd() / FOLDER]
    for place in places:
        if place.is_dir():
            return place
    raise InputError(
        f"bench: there is no folder {FOLDER!r} here; the benchmarks come with the source of genad: "
        "run this command from its top folder."
    )


def _first(path: Path) -> str:
    """Return the first line of a script's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n", maxsplit=1)[0]
