"""Write a table so that nothing half-written is ever left under its name."""

from __future__ import annotations

import gzip
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from genad.errors import GenadError, InputError

__all__ = ["write_table"]

_FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".feather": "feather",
    ".arrow": "feather",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_JSON_ROWS = 10_000


def write_table(columns: Mapping[str, Any], path: str | Path) -> Path:
    """Write columns to a file, by way of a file beside it that is renamed when complete.

    Parameters
    ----------
    columns : mapping of str to array of shape (n,)
        Numbers, truth values, datetime64 or text; NaN, NaT and None are written as missing.
    path : str or Path
        Its ending says the format: .csv, .tsv, .jsonl (also with .gz), .parquet or .feather. A
        file of that name is replaced.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    InputError
        No columns, columns that differ in length or are not one-dimensional, an unknown ending.
    GenadError
        The file cannot be written, for instance because the disk is full; no part of it is left.

    Examples
    --------
    >>> import tempfile
    >>> from genad.data.io import read_table
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_table({"score": [0.5, 2.0]}, f"{folder}/scores.csv")
    ...     read_table(path).column("score")
    array([0.5, 2. ])
    """
    path = Path(path)
    kind, zipped = _format(path)
    table = _arrow(columns)
    if path.is_dir():
        msg = f"{path} is a folder: give the path of a file"
        raise InputError(msg)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with beside.open("xb") as raw:
            if zipped:
                with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as file:
                    _write(table, file, kind)
            else:
                _write(table, raw, kind)
        beside.replace(path)
    except (OSError, pa.ArrowException) as error:
        beside.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or str(error)
        msg = (
            f"{path} could not be written ({reason}), and nothing was left behind: check that the "
            "folder exists, that you may write there, and that the disk has room"
        )
        raise GenadError(msg) from error
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return path


def _format(path: Path) -> tuple[str, bool]:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = bool(suffixes) and suffixes[-1] == ".gz"
    ending = suffixes[-1 - zipped] if len(suffixes) > zipped else ""
    kind = _FORMATS.get(ending)
    if kind is None or (zipped and kind in {"parquet", "feather"}):
        shown = "".join(suffixes[-2:] if zipped else suffixes[-1:])
        msg = (
            f"{path}: the ending {shown!r} is not one that can be written; accepted are "
            f"{', '.join(_FORMATS)}, and .csv.gz, .tsv.gz, .jsonl.gz"
        )
        raise InputError(msg)
    return kind, zipped


def _arrow(columns: Mapping[str, Any]) -> Any:
    arrays = {str(name): np.asarray(cells) for name, cells in columns.items()}
    if not arrays:
        msg = "columns is empty: give at least one column to write"
        raise InputError(msg)
    shapes = {name: array.shape for name, array in arrays.items()}
    lengths = set(shapes.values())
    if len(lengths) > 1 or any(len(shape) != 1 for shape in lengths):
        found = ", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:8])
        msg = f"columns have shapes {found}: give one-dimensional columns of one length"
        raise InputError(msg)
    try:
        return pa.table({n: pa.array(_plain(a), from_pandas=True) for n, a in arrays.items()})
    except pa.ArrowException as error:
        msg = f"columns hold values that no table format has ({error}): give numbers, text or dates"
        raise InputError(msg) from error


def _plain(array: np.ndarray) -> np.ndarray:
    return array.astype(object) if array.dtype.kind in "UT" else array


def _write(table: Any, file: Any, kind: str) -> None:
    if kind in {"csv", "tsv"}:
        from pyarrow import csv

        options = csv.WriteOptions(delimiter="," if kind == "csv" else "\t")
        csv.write_csv(table, file, options)
    elif kind == "parquet":
        from pyarrow import parquet

        parquet.write_table(table, file)
    elif kind == "feather":
        from pyarrow import feather

        feather.write_feather(table, file)
    else:
        for start in range(0, table.num_rows, _JSON_ROWS):
            rows = table.slice(start, _JSON_ROWS).to_pylist()
            lines = (json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
            file.write("".join(lines).encode("utf-8"))
