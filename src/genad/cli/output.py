"""Write results: whole files or nothing, or to standard output."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genad.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from genad.core.detections import Detections

#: Endings a table can be written with.
ENDINGS = (
    *(".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq", ".feather", ".arrow"),
    *(".csv.gz", ".tsv.gz", ".jsonl.gz", ".ndjson.gz"),
)


def check_target(out: str) -> None:
    """Refuse a place that cannot be written, before long work begins.

    Raises
    ------
    InputError
        For an unknown ending, a folder, or a folder that is not there.
    """
    if out == "-":
        return
    path = Path(out)
    if not path.name.lower().endswith(ENDINGS):
        raise InputError(f"--out: {out!r} was given; it must end in {', '.join(ENDINGS)}, or be -.")
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else f"is in {path.parent}, which is no folder"
        raise InputError(f"--out: {out} {what}; give the path of a file in a folder that is there.")


def write_columns(columns: Mapping[str, Any], out: str) -> None:
    """Write columns to a file by its ending, or as CSV to standard output."""
    from genad.data.writer import write_table

    if out != "-":
        write_table(columns, out)
        return
    # By way of a file, so that a pipe gets the very bytes that a file gets.
    with tempfile.TemporaryDirectory() as folder:
        write_out(write_table(columns, Path(folder) / "table.csv").read_bytes())


def write_out(data: bytes) -> None:
    """Write bytes to standard output."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def write_json(value: Any) -> None:
    """Write a value as indented JSON to standard output; NaN becomes null."""
    from genad.core.detections import jsonable

    text = json.dumps(jsonable(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_out((text + "\n").encode("utf-8"))


def score_columns(detections: Detections) -> dict[str, Any]:
    """Return the answer as columns, one line a row of the user's data and in its order."""
    columns = detections.columns()
    columns.pop("row", None)
    rows = detections.rows
    if rows is None:
        return columns
    return {name: np.asarray(values)[np.argsort(rows)] for name, values in columns.items()}


def position_of(detections: Detections, row: int) -> int:
    """Return where a row of the user's data stands in the answer.

    Raises
    ------
    InputError
        When the data have no such row.
    """
    n = len(detections)
    if row >= n:
        raise InputError(f"--row: {row} was given; the data have {n} rows, so use 0 to {n - 1}.")
    rows = detections.rows
    return row if rows is None else int(np.flatnonzero(rows == row)[0])
