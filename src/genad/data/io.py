"""Read a table from a file or stream of any common format."""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from genad.data.columns import from_arrow
from genad.data.container import Table, listing
from genad.data.delimited import read_delimited
from genad.data.source import Source
from genad.data.table import as_table
from genad.data.writer import write_table
from genad.errors import InputError

__all__ = ["FORMATS", "read_table", "write_table"]

#: Accepted formats and the endings that stand for them; all text formats may end in .gz as well.
FORMATS: dict[str, tuple[str, ...]] = {
    "csv": (".csv", ".txt", ".dat"),
    "tsv": (".tsv", ".tab"),
    "parquet": (".parquet", ".pq"),
    "feather": (".feather", ".arrow", ".ipc"),
    "jsonl": (".jsonl", ".ndjson"),
    "npy": (".npy",),
    "npz": (".npz",),
}
_MAGIC = {b"PAR1": "parquet", b"ARRO": "feather", b"\x93NUM": "npy", b"PK\x03\x04": "npz"}
_INDEX = re.compile(r"__index_level_\d+__")


def read_table(
    path_or_stream: Any,
    *,
    format: str | None = None,  # noqa: A002  the word users look for
    delimiter: str | None = None,
    encoding: str = "utf-8",
) -> Table:
    r"""Read a table.

    CSV files may use a comma, semicolon, tab or bar; the delimiter and a decimal comma are found by
    themselves. A first line of numbers only is taken as data. Files ending in .gz are unpacked.

    Parameters
    ----------
    path_or_stream : str, Path, or file object
        A path, ``"-"`` for standard input, or an open stream.
    format : {"csv", "tsv", "parquet", "feather", "jsonl", "npy", "npz"}, optional
        Otherwise taken from the ending of the name, or from the first bytes.
    delimiter : str, optional
        The character between columns of CSV or TSV text.
    encoding : str, default "utf-8"
        Encoding of CSV or TSV text.

    Returns
    -------
    Table
        Its columns.

    Raises
    ------
    InputError
        A file that is missing, empty, broken or of an unknown format; a header without rows; rows
        that differ in length; a delimiter or encoding that is wrong; column names twice. The
        message names the file and what to do.

    Warns
    -----
    DataWarning
        The file has no header, or columns without a name.

    Examples
    --------
    >>> import io
    >>> table = read_table(io.StringIO("flow;state\n1,5;on\n2,5;off\n"))
    >>> table
    Table(2 rows; flow: numeric, state: categorical)
    >>> table.column("flow")
    array([1.5, 2.5])
    """
    if format is not None and format not in FORMATS:
        msg = f"format is {format!r}; accepted are {listing(list(FORMATS))}"
        raise InputError(msg)
    source = Source(path_or_stream)
    try:
        kind = format or _format(source)
        if kind in {"csv", "tsv"}:
            return read_delimited(source, delimiter, encoding, sniff=kind == "csv")
        table = _READERS[kind](source)
    except (pa.ArrowException, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        reason = str(error).split("\n", maxsplit=1)[0][:200]
        msg = (
            f"{source.label} cannot be read as {format or 'the format its name or start says'} "
            f"({reason}): it may be cut short or of another format; write it again, or pass format="
        )
        raise InputError(msg) from error
    if len(table) == 0:
        msg = f"{source.label} has columns {listing(table.names)} but no rows: give at least one"
        raise InputError(msg)
    return table


def _format(source: Source) -> str:
    suffix = source.suffixes[-1] if source.suffixes else ""
    for name, endings in FORMATS.items():
        if suffix in endings:
            return name
    head = source.head(64)
    if head[:4] in _MAGIC:
        return _MAGIC[head[:4]]
    if source.path is not None and suffix:
        known = [ending for group in FORMATS.values() for ending in group]
        msg = (
            f"{source.label}: the ending {suffix!r} is not known; accepted are "
            f"{listing(known, 20)}. Pass format= with one of {listing(list(FORMATS))}"
        )
        raise InputError(msg)
    return "jsonl" if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"{") else "csv"


def _from_arrow_table(source: Source, table: Any) -> Table:
    names = table.column_names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"{source.label} has more than one column named {listing(twice)}: rename the copies"
        raise InputError(msg)
    # pandas stores a row index as a column of this name: it is no measurement.
    kept = [name for name in names if not _INDEX.fullmatch(name)]
    if not kept:
        msg = f"{source.label} has no columns: give a table with at least one"
        raise InputError(msg)
    if table.num_rows == 0:
        return as_empty(kept)
    return Table({name: from_arrow(table.column(name), name) for name in kept})


def as_empty(names: list[str]) -> Table:
    """Make a table of no rows, for the one message about it.

    Parameters
    ----------
    names : list of str
        Its columns.

    Returns
    -------
    Table
        Without rows.
    """
    return Table({name: from_arrow(pa.array([], pa.float64()), name) for name in names})


def _read_parquet(source: Source) -> Table:
    from pyarrow import parquet

    with source.open() as file:
        return _from_arrow_table(source, parquet.read_table(file))


def _read_feather(source: Source) -> Table:
    from pyarrow import feather, ipc

    with source.open() as file:
        if source.head(4) in {b"ARRO", b"FEA1"}:
            return _from_arrow_table(source, feather.read_table(file))
        return _from_arrow_table(source, ipc.open_stream(file).read_all())


def _read_jsonl(source: Source) -> Table:
    from pyarrow import json as pajson

    try:
        with source.arrow() as file:
            found = pajson.read_json(file)
        # Blank lines alone give a table without columns, and the slow way has a message for them.
        return _from_arrow_table(source, found) if found.num_columns else _read_json_lines(source)
    except pa.ArrowInvalid:
        # NaN, or a column of several types: slower, and with the line of a fault.
        return _read_json_lines(source)


def _read_json_lines(source: Source) -> Table:
    rows = []
    with source.open() as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                msg = f"{source.label}: line {number} is not JSON ({error}): one object a line"
                raise InputError(msg) from error
            if not isinstance(row, dict):
                msg = (
                    f"{source.label}: line {number} is a JSON {type(row).__name__}; "
                    "accepted is one object of column names and values per line"
                )
                raise InputError(msg)
            rows.append(row)
    if not rows:
        msg = f"{source.label} is empty: give one JSON object per line"
        raise InputError(msg)
    return as_table(rows)


def _check_array(source: Source, array: np.ndarray, what: str) -> Table:
    if array.dtype.names is None and array.ndim != 2:
        msg = (
            f"{source.label}: {what} has shape {array.shape}; a table is 2-D, (rows, columns): reshape it before saving"
        )
        raise InputError(msg)
    return as_table(array)


def _load(source: Source) -> Any:
    with source.open() as file:
        try:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            with loaded:
                return {name: loaded[name] for name in loaded.files}
        except ValueError as error:
            msg = (
                f"{source.label} cannot be read ({error}): arrays of Python objects are refused, "
                "because loading them can run code; save numbers or fixed-width text"
            )
            raise InputError(msg) from error


def _read_npy(source: Source) -> Table:
    return _check_array(source, _load(source), "the array")


def _read_npz(source: Source) -> Table:
    arrays = _load(source)
    for name in ("X", "x"):
        if name in arrays:
            return _check_array(source, arrays[name], f"array {name!r}")
    flat = [name for name, array in arrays.items() if array.ndim == 2]
    if len(flat) == 1:
        return _check_array(source, arrays[flat[0]], f"array {flat[0]!r}")
    shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "nothing"
    msg = (
        f"{source.label} holds {shapes}; accepted is an array named 'X' or 'x', or a single 2-D "
        "array: save the table under the name 'X'"
    )
    raise InputError(msg)


_READERS: dict[str, Callable[[Source], Table]] = {
    "parquet": _read_parquet,
    "feather": _read_feather,
    "jsonl": _read_jsonl,
    "npy": _read_npy,
    "npz": _read_npz,
}


def is_table_path(value: Any) -> bool:
    """Tell whether a value names a file rather than holding data.

    Parameters
    ----------
    value : object
        What the user gave.

    Returns
    -------
    bool
        True for text and paths.
    """
    return isinstance(value, (str, Path))
