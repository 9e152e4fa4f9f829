"""Read delimited text: find delimiter, header and decimal sign, and name what is wrong."""

from __future__ import annotations

import codecs
import csv
import io
import re
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from genad.data.columns import MISSING_WORDS, Column, ColumnKind, from_arrow
from genad.data.container import Table, listing
from genad.errors import DataWarning, InputError

if TYPE_CHECKING:
    from genad.data.source import Source

__all__ = ["read_delimited"]

_CANDIDATES = (",", ";", "\t", "|")
_HEAD = 1 << 18
_DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+\s*")
_DECIMAL_POINT = re.compile(r"\s*[-+]?\d*\.\d+\s*")
_RAGGED = re.compile(r"CSV parse error: .*?Expected (\d+) columns, got (\d+)")


@dataclass(frozen=True, slots=True)
class _Dialect:
    """How a file is laid out."""

    delimiter: str
    names: list[str]
    header: bool
    decimal: str


def read_delimited(source: Source, delimiter: str | None, encoding: str, *, sniff: bool) -> Table:
    """Read comma, tab or otherwise separated text.

    Parameters
    ----------
    source : Source
        The text.
    delimiter : str or None
        One character; None looks for it among comma, semicolon, tab and bar if `sniff`, and takes
        the tab otherwise.
    encoding : str
        The text's encoding.
    sniff : bool
        Whether the delimiter may be looked for.

    Returns
    -------
    Table
        Its columns.

    Raises
    ------
    InputError
        Empty, header only, ragged, wrong or ambiguous delimiter, wrong encoding, names twice.

    Warns
    -----
    DataWarning
        The file has no header, columns without a name, or a few bad cells among numbers.
    """
    text, whole = _head_text(source, encoding)
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        msg = f"delimiter is {delimiter!r}: give one character, for instance ';'"
        raise InputError(msg)
    if delimiter is None and not sniff:
        delimiter = "\t"
    dialect = _sniff(source, text, delimiter, whole=whole)
    # A header without a newline at its end is no whole line for Arrow.
    alone = whole and dialect.header and not re.search(r"[\r\n]", text)
    table = None if alone else _parse(source, dialect, encoding)
    if table is None or table.num_rows == 0:
        msg = f"{source.label} has a header ({listing(dialect.names)}) but no rows: give at least one"
        raise InputError(msg)
    if any(pa.types.is_binary(column.type) for column in table.columns):
        raise _bad_encoding(source, encoding)
    columns = {name: _column(table.column(j), name, dialect.decimal) for j, name in enumerate(dialect.names)}
    return Table(columns, named=dialect.header)


def _column(cells: Any, name: str, decimal: str) -> Column:
    """Find the kind of a column, also where a cell that is no number left decimal commas in text."""
    text = pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type)
    if text and decimal == ",":
        column = from_arrow(pc.replace_substring_regex(cells, r"^(\s*[-+]?\d+),(\d+\s*)$", r"\1.\2"), name)
        if column.kind is ColumnKind.NUMERIC:
            return column
    return from_arrow(cells, name)


def _head_text(source: Source, encoding: str) -> tuple[str, bool]:
    """Decode the start of the text; the last, perhaps cut, character is let go."""
    try:
        decoder = codecs.getincrementaldecoder(encoding)()
    except LookupError as error:
        msg = f"encoding {encoding!r} is not known: give for instance 'utf-8' or 'latin-1'"
        raise InputError(msg) from error
    head = source.head(_HEAD)
    if head[:2] in {b"\xff\xfe", b"\xfe\xff"} and "16" not in encoding:
        msg = f"{source.label} is UTF-16 text: pass encoding='utf-16', or save it as UTF-8"
        raise InputError(msg)
    try:
        text = decoder.decode(head)
    except UnicodeError as error:
        raise _bad_encoding(source, encoding) from error
    if not text.strip("\ufeff \t\r\n"):
        msg = f"{source.label} is empty: give a file with a header and at least one row"
        raise InputError(msg)
    if "\0" in text:
        msg = f"{source.label} holds zero bytes and is no text: pass format= with its real format"
        raise InputError(msg)
    return text.removeprefix("\ufeff"), len(head) < _HEAD


def _records(text: str, delimiter: str, *, whole: bool) -> list[list[str]]:
    """Split the first records; the last may be cut and is let go."""
    found = []
    try:
        for record in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            if record:
                found.append(record)
            if len(found) > 100:
                return found[:-1]
    except csv.Error:
        pass
    return found if whole or len(found) < 2 else found[:-1]


def _sniff(source: Source, text: str, given: str | None, *, whole: bool) -> _Dialect:
    split = {d: _records(text, d, whole=whole) for d in {*_CANDIDATES, given or ","}}
    agree = {
        d: sum(len(r) == len(records[0]) for r in records) / len(records)
        for d, records in split.items()
        if records and len(records[0]) > 1
    }
    steady = [d for d in _CANDIDATES if agree.get(d) == 1.0]
    if given is None:
        delimiter = _choose(source, agree, steady)
    else:
        delimiter = given
        single = all(len(record) == 1 for record in split[given])
        if single and steady:
            found = steady[0]
            msg = (
                f"{source.label} has a single column with delimiter={given!r}, and it looks like "
                f"{found!r} separates the columns; pass delimiter={found!r}"
            )
            raise InputError(msg)
    records = split[delimiter]
    return _layout(source, records, delimiter)


def _choose(source: Source, agree: dict[str, float], steady: list[str]) -> str:
    if len(agree) <= 1:
        return next(iter(agree), ",")
    if len(steady) == 1 or "," in steady:
        return "," if "," in steady else steady[0]
    if steady:
        msg = (
            f"{source.label}: each of {listing(steady)} could separate the columns; "
            f"pass delimiter={steady[0]!r} or the one that does"
        )
        raise InputError(msg)
    return max(_CANDIDATES, key=lambda d: agree.get(d, 0.0))


def _is_number(cell: str, decimal: str) -> bool:
    try:
        float(cell.replace(",", ".") if decimal == "," else cell)
    except ValueError:
        return False
    return True


def _layout(source: Source, records: list[list[str]], delimiter: str) -> _Dialect:
    cells = [cell for record in records for cell in record]
    decimal = "."
    if delimiter != "," and any(_DECIMAL_COMMA.fullmatch(c) for c in cells):
        decimal = "." if any(_DECIMAL_POINT.fullmatch(c) for c in cells) else ","
    first = records[0]
    if all(_is_number(cell, decimal) for cell in first):
        msg = (
            f"{source.label} has no header: its first line is all numbers. "
            f"The columns are named x0 to x{len(first) - 1}; add a line with names to choose them"
        )
        warnings.warn(msg, DataWarning, stacklevel=6)
        return _Dialect(delimiter, [f"x{j}" for j in range(len(first))], False, decimal)
    names = [cell.strip() for cell in first]
    blank = [j for j, name in enumerate(names) if not name]
    if blank:
        taken = set(names)
        for j in blank:
            names[j] = next(n for n in (f"x{j}", f"column{j}", f"unnamed{j}") if n not in taken)
        msg = (
            f"{source.label}: the header has no name at position {listing(blank)}; named "
            f"{listing([names[j] for j in blank])}. If it numbers the rows, drop it"
        )
        warnings.warn(msg, DataWarning, stacklevel=6)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        msg = f"{source.label} has more than one column named {listing(twice)}: rename the copies"
        raise InputError(msg)
    return _Dialect(delimiter, names, True, decimal)


def _parse(source: Source, dialect: _Dialect, encoding: str) -> Any:
    from pyarrow import csv as pacsv

    single = len(dialect.names) == 1
    parse = pacsv.ParseOptions(
        delimiter=dialect.delimiter,
        newlines_in_values=True,
        # A blank line in a file of one column is a missing cell.
        ignore_empty_lines=not single,
    )
    read = pacsv.ReadOptions(column_names=dialect.names, skip_rows_after_names=int(dialect.header))

    def attempt(types: dict[str, Any] | None) -> Any:
        convert = pacsv.ConvertOptions(
            null_values=list(MISSING_WORDS),
            decimal_point=dialect.decimal,
            column_types=types,
            quoted_strings_can_be_null=True,
        )
        with _as_utf8(source, encoding) as file:
            return pacsv.read_csv(file, read_options=read, parse_options=parse, convert_options=convert)

    try:
        return attempt(None)
    except (pa.ArrowInvalid, pa.ArrowKeyError, UnicodeDecodeError) as error:
        # By the message, as an invalid_row_handler may still be held by a thread of Arrow when the interpreter
        # ends, which aborts it.
        ragged = _RAGGED.search(str(error))
        if ragged:
            raise _ragged(source, dialect, encoding, (int(ragged[1]), int(ragged[2]))) from error
        if isinstance(error, UnicodeDecodeError) or "UTF8" in str(error):
            raise _bad_encoding(source, encoding) from error
        if "conversion error" not in str(error):
            raise
    # A later block does not fit the types the first one suggested: read text, then decide.
    return attempt(dict.fromkeys(dialect.names, pa.large_string()))


def _as_utf8(source: Source, encoding: str) -> Any:
    """Open the text for Arrow, whose threads must not call Python's codecs: see the handler left out above."""
    if codecs.lookup(encoding).name == "utf-8":
        return source.arrow()
    with source.open() as file:
        return pa.BufferReader(file.read().decode(encoding).encode("utf-8"))


def _ragged(source: Source, dialect: _Dialect, encoding: str, found: tuple[int, int]) -> InputError:
    expected, actual = found
    where = "a line"
    with source.open() as file:
        text = io.TextIOWrapper(file, encoding=encoding, errors="replace", newline="")
        reader = csv.reader(text, delimiter=dialect.delimiter)
        try:
            for record in reader:
                if record and len(record) != expected:
                    where, actual = f"line {reader.line_num}", len(record)
                    break
        except csv.Error:
            pass
    return InputError(
        f"{source.label}: {where} has {actual} fields where {expected} are expected "
        f"(delimiter {dialect.delimiter!r}): mend the line, put quotes around text that holds the "
        "delimiter, or pass delimiter="
    )


def _bad_encoding(source: Source, encoding: str) -> InputError:
    where, byte = "it", ""
    with source.open() as file:
        data = file.read()
    try:
        data.decode(encoding)
    except UnicodeDecodeError as error:
        # A character may take several bytes, so that bytes are not cut into lines before.
        line = data.count(b"\n", 0, error.start) + 1
        where, byte = f"line {line}", f" (byte 0x{data[error.start]:02x})"
    other = "latin-1" if encoding.lower().replace("-", "") == "utf8" else "utf-8"
    return InputError(
        f"{source.label}: {where} is not {encoding} text{byte}: save the file as UTF-8, "
        f"or pass its encoding, for instance encoding={other!r}"
    )
