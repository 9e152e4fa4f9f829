"""Results that grow row by row: a run that is cut off keeps what it has, a later one replaces only what it repeats."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS


class Rows:
    """The rows of one file in ``results``, written anew with every row.

    Parameters
    ----------
    name : str
        File name without its ending.
    command : str
        What a reader types to get the figures.
    title, data : str
        What is measured, and on what.
    notes : sequence of str
        Sentences below the table.
    key : tuple of str
        The entries that identify a row; a new row replaces the one with the same.
    """

    def __init__(
        self, name: str, command: str, title: str, data: str, notes: Sequence[str], key: tuple[str, ...]
    ) -> None:
        self.path = RESULTS / f"{name}.json"
        self.key = key
        self.record: dict[str, Any] = {
            "title": title,
            "command": command,
            "data": data,
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
            "rows": json.loads(self.path.read_text())["rows"] if self.path.exists() else [],
            "notes": list(notes),
        }

    def add(self, row: dict[str, Any]) -> None:
        """Put a row in the place of its predecessor, or at the end; write the file and print the row."""
        rows, mine = self.record["rows"], self._identity(row)
        known = [k for k, other in enumerate(rows) if self._identity(other) == mine]
        if known:
            rows[known[0]] = row
        else:
            rows.append(row)
        write_whole(self.path, json.dumps(self.record, indent=1) + "\n")
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)

    def _identity(self, row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row.get(name) for name in self.key)


def write_whole(path: Path, text: str) -> None:
    """Write beside the file, then rename: a reader finds the old text or the new, never half of one."""
    path.parent.mkdir(exist_ok=True)
    fresh = path.with_suffix(".part")
    fresh.write_text(text)
    fresh.replace(path)
