"""Bring one column of any origin to one of five kinds, each with one numpy form."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genad.data.numerals import mostly_numbers
from genad.errors import InputError, InputTypeError

__all__ = [
    "MISSING_WORDS",
    "Column",
    "ColumnKind",
    "from_arrow",
    "from_numpy",
    "missing_mask",
    "number_text",
]

#: Cells read as missing in a column whose other cells are all numbers, truth values or dates.
MISSING_WORDS = (
    "",
    *("nan", "NaN", "NAN", "-nan", "-NaN", "NaT", "None", "none", "null", "NULL"),
    *("NA", "N/A", "n/a", "<NA>", "#N/A", "#NA"),
)

_NUMBERS = (int, float, np.integer, np.floating, Decimal, Fraction)
_DATES = (dt.date, np.datetime64)  # datetime.datetime and pandas' Timestamp are dates too
_MISSING_TYPES = frozenset({"NoneType", "NAType", "NaTType"})


class ColumnKind(StrEnum):
    """What a column holds, and with it how it is encoded."""

    NUMERIC = "numeric"
    CATEGORICAL = "categorical"
    BOOLEAN = "boolean"
    DATETIME = "datetime"
    EMPTY = "empty"


@dataclass(frozen=True, slots=True)
class Column:
    """One column in its numpy form.

    Parameters
    ----------
    values : ndarray of shape (n,)
        numeric: any integer or float dtype, NaN where missing. boolean: bool, or float64 of 0, 1
        and NaN when cells are missing. datetime: datetime64 in UTC, NaT where missing.
        categorical: object, str or None. empty: float64, all NaN.
    kind : ColumnKind
        What the column holds.
    text : pyarrow array of text, or None
        The cells as they were spelled, if they were text that was parsed: a category whose rows
        at hand all look like numbers still needs its levels, such as ``"01"`` or ``"NA"``.
    """

    values: np.ndarray
    kind: ColumnKind
    text: Any = field(default=None, repr=False, compare=False)

    def take(self, rows: Any) -> Column:
        """Return the cells of the rows an index array, mask or slice names.

        Parameters
        ----------
        rows : slice, or ndarray of int or bool
            The rows.

        Returns
        -------
        Column
            The same kind, whatever the cells taken.
        """
        text = self.text
        if text is not None:
            numbers = np.arange(len(text))[rows]
            text = text[rows] if isinstance(rows, slice) else text.take(pa.array(numbers))
        return Column(self.values[rows], self.kind, text)

    def as_levels(self) -> Column:
        """Return the cells as they were spelled, if that is known.

        Returns
        -------
        Column
            Categories from the text kept, or the column itself.
        """
        if self.text is None:
            return self
        return Column(_levels(self.text), ColumnKind.CATEGORICAL)


def missing_mask(column: Column) -> np.ndarray:
    """Tell which cells of a column are missing.

    Parameters
    ----------
    column : Column
        The column.

    Returns
    -------
    ndarray of bool, shape (n,)
        True where the cell is missing.
    """
    values = column.values
    if values.dtype.kind == "f":
        return np.asarray(np.isnan(values))
    if values.dtype.kind == "M":
        return np.asarray(np.isnat(values))
    if values.dtype.kind == "O":
        return np.fromiter((v is None for v in values), dtype=bool, count=values.size)
    return np.zeros(values.shape, dtype=bool)


def number_text(value: Any) -> str:
    """Write a number as a category level: ``1``, ``1.0`` and ``"1"`` are the same level.

    Parameters
    ----------
    value : int, float or bool
        The number.

    Returns
    -------
    str
        Whole numbers without a decimal point, truth values as ``true`` and ``false``.

    Examples
    --------
    >>> number_text(3.0), number_text(2.5), number_text(True)
    ('3', '2.5', 'true')
    """
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    number = float(value)
    return str(int(value)) if number.is_integer() else repr(number)


def _numeric(values: np.ndarray) -> Column:
    if values.dtype.kind == "f" and values.dtype.itemsize > 8:
        values = values.astype(np.float64)
    # The first cell is looked at alone, so that a full column costs no pass over it.
    empty = values.dtype.kind == "f" and (
        values.size == 0 or (bool(np.isnan(values[0])) and bool(np.isnan(values).all()))
    )
    return Column(values, ColumnKind.EMPTY) if empty else Column(values, ColumnKind.NUMERIC)


def _empty(n: int) -> Column:
    return Column(np.full(n, np.nan), ColumnKind.EMPTY)


def _dates(values: np.ndarray) -> Column:
    if bool(np.isnat(values).all()):
        return _empty(values.size)
    return Column(values, ColumnKind.DATETIME)


def from_numpy(values: np.ndarray, name: str) -> Column:
    """Bring a one-dimensional numpy array to a column.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Numbers, truth values, datetime64, timedelta64 (becomes seconds), text, or objects. Text
        that is wholly numbers, truth values or ISO dates becomes that kind; where more than 95 % of
        the cells are numbers, the others are missing.
    name : str
        The column's name, for messages.

    Returns
    -------
    Column
        The column; numbers are a view, not a copy.

    Warns
    -----
    DataWarning
        A few cells of a column of numbers are none.

    Raises
    ------
    InputTypeError
        Complex numbers, records, or objects that are no text, number, truth value or date.

    Examples
    --------
    >>> import numpy as np
    >>> from_numpy(np.array(["1.5", "NaN", "2"], dtype=object), "a")
    Column(values=array([1.5, nan, 2. ]), kind=<ColumnKind.NUMERIC: 'numeric'>)
    """
    kind = values.dtype.kind
    if kind in "iuf":
        return _numeric(values)
    if kind == "b":
        return Column(values, ColumnKind.BOOLEAN)
    if kind == "M":
        return _dates(values)
    if kind == "m":
        seconds = values / np.timedelta64(1, "s")
        return _numeric(np.asarray(seconds, dtype=np.float64))
    if kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
        kind = "U"
    if kind in "UT":
        return _from_text(pa.array(values.astype(object), type=pa.large_string()), name)
    if kind == "O":
        return _from_objects(values, name)
    if kind == "c":
        msg = (
            f"Complex data not supported: column {name!r} has dtype {values.dtype}. Give the real "
            "and the imaginary part, or modulus and phase, as columns of their own"
        )
        raise InputError(msg)
    msg = (
        f"column {name!r} has dtype {values.dtype}; accepted are numbers, truth values, dates "
        "and text. Split it into one column per field"
    )
    raise InputTypeError(msg)


def _is_missing(value: Any) -> bool:
    if type(value).__name__ in _MISSING_TYPES:
        return True
    if isinstance(value, np.datetime64):
        return bool(np.isnat(value))
    return isinstance(value, (float, np.floating, Decimal)) and bool(value != value)


def _utc(value: Any) -> Any:
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        value = value.astimezone(dt.UTC).replace(tzinfo=None)
    return np.datetime64(value, "us")


def _from_objects(values: np.ndarray, name: str) -> Column:
    missing = np.fromiter((_is_missing(v) for v in values), dtype=bool, count=values.size)
    present = values[~missing]
    kinds = set(map(type, present))
    if not kinds:
        return _empty(values.size)
    if all(issubclass(k, (bool, np.bool_)) for k in kinds):
        flags = np.full(values.size, np.nan)
        flags[~missing] = present.astype(np.float64)
        return Column(flags if missing.any() else flags.astype(bool), ColumnKind.BOOLEAN)
    if all(issubclass(k, (*_NUMBERS, np.bool_)) for k in kinds):
        numbers = np.full(values.size, np.nan)
        try:
            numbers[~missing] = [float(v) for v in present]
        except OverflowError as error:
            msg = f"column {name!r} holds a whole number too large for a float: divide it or take its logarithm"
            raise InputError(msg) from error
        return _numeric(numbers)
    if all(issubclass(k, _DATES) for k in kinds):
        stamps = np.full(values.size, np.datetime64("NaT"), dtype="datetime64[us]")
        stamps[~missing] = [_utc(v) for v in present]
        return _dates(stamps)
    if all(issubclass(k, (str, *_NUMBERS, np.bool_)) for k in kinds):
        text = np.full(values.size, None, dtype=object)
        text[~missing] = [v if isinstance(v, str) else number_text(v) for v in present]
        return _from_text(pa.array(text, type=pa.large_string()), name)
    accepted = (str, *_NUMBERS, np.bool_, *_DATES)
    strange = next((k for k in kinds if not issubclass(k, accepted)), None)
    if strange is None:
        found = " and ".join(sorted(k.__name__ for k in kinds))
        msg = f"column {name!r} mixes {found}: give all its cells as dates or all as text"
        raise InputTypeError(msg)
    row = next(i for i, v in enumerate(values) if type(v) is strange)
    msg = (
        f"column {name!r} holds a {strange.__name__} in row {row}: each cell argument must be a "
        "string or a real number, a truth value or a date. Spread it over columns of its own"
    )
    raise InputTypeError(msg)


def _to_numpy(array: Any) -> np.ndarray:
    if isinstance(array, pa.ChunkedArray):
        return np.asarray(array.to_numpy())
    return np.asarray(array.to_numpy(zero_copy_only=False))


def _try_cast(array: Any, target: Any) -> np.ndarray | None:
    try:
        return _to_numpy(pc.cast(array, target))
    except pa.ArrowInvalid:
        return None


def _levels(text: Any) -> np.ndarray:
    blank = pc.equal(pc.utf8_trim_whitespace(text), pa.scalar("", text.type))
    levels = pc.if_else(blank, pa.scalar(None, text.type), text)
    return _to_numpy(levels).astype(object, copy=False)


def _from_text(text: Any, name: str) -> Column:
    """Find numbers, truth values or ISO dates in text; else keep it as categories."""
    parsed = _parse(text, name)
    return Column(_levels(text), ColumnKind.CATEGORICAL) if parsed is None else replace(parsed, text=text)


def _parse(text: Any, name: str) -> Column | None:
    trimmed = pc.utf8_trim_whitespace(text)
    words = pa.array(MISSING_WORDS, type=trimmed.type)
    cells = pc.if_else(pc.is_in(trimmed, value_set=words), pa.scalar(None, trimmed.type), trimmed)
    if cells.null_count == len(cells):
        return _empty(len(cells))
    numbers = _try_cast(cells, pa.int64())
    if numbers is None:
        numbers = _try_cast(cells, pa.float64())
    if numbers is not None:
        return _numeric(numbers)
    truths = _try_cast(cells, pa.bool_())
    if truths is not None and cells.null_count == 0:
        return Column(truths.astype(bool), ColumnKind.BOOLEAN)
    if truths is not None:
        return _from_arrow_bool(pc.cast(cells, pa.bool_()))
    # ns holds 1677 to 2262 with every digit; us holds all other years.
    for zone in (None, "UTC"):
        for unit in ("ns", "us"):
            stamps = _try_cast(cells, pa.timestamp(unit, tz=zone))
            if stamps is not None:
                return _dates(stamps)
    numbers = mostly_numbers(cells, name)
    return None if numbers is None else _numeric(numbers)


def _from_arrow_bool(array: Any) -> Column:
    if array.null_count == 0:
        return Column(_to_numpy(array).astype(bool, copy=False), ColumnKind.BOOLEAN)
    flags = _to_numpy(pc.cast(pc.cast(array, pa.int8()), pa.float64()))
    return Column(flags, ColumnKind.BOOLEAN)


def from_arrow(array: Any, name: str) -> Column:
    """Bring a pyarrow array to a column.

    Parameters
    ----------
    array : pyarrow.Array or pyarrow.ChunkedArray
        Numbers, decimals, truth values, dates, times of day and durations (both become seconds),
        text (parsed as in `from_numpy`), or a dictionary type (always categories, never parsed).
    name : str
        The column's name, for messages.

    Returns
    -------
    Column
        The column; numbers without nulls in one chunk are not copied.

    Raises
    ------
    InputTypeError
        Nested or binary types.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from_arrow(pa.array([1, None, 3]), "a").values
    array([ 1., nan,  3.])
    """
    kind, types = array.type, pa.types
    if types.is_null(kind) or array.null_count == len(array):
        return _empty(len(array))
    if types.is_dictionary(kind):
        levels = pc.cast(pc.cast(array, kind.value_type), pa.large_string())
        return Column(_to_numpy(levels).astype(object, copy=False), ColumnKind.CATEGORICAL)
    if types.is_boolean(kind):
        return _from_arrow_bool(array)
    if types.is_integer(kind) or types.is_floating(kind):
        return _numeric(_to_numpy(array))
    if types.is_decimal(kind):
        return _numeric(_to_numpy(pc.cast(array, pa.float64())))
    if types.is_timestamp(kind) or types.is_date(kind):
        if types.is_timestamp(kind) and kind.tz is not None:
            array = pc.cast(array, pa.timestamp(kind.unit))
        return _dates(_to_numpy(array))
    if types.is_time(kind):
        fine = pc.cast(pc.cast(array, pa.time64("ns")), pa.int64())
        return _numeric(_to_numpy(fine) / 1e9)
    if types.is_duration(kind):
        return from_numpy(_to_numpy(array), name)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return _from_text(pc.cast(array, pa.large_string()), name)
    msg = (
        f"column {name!r} has type {kind}; accepted are numbers, truth values, dates and text. "
        "Drop the column, or spread its parts over columns of their own"
    )
    raise InputTypeError(msg)
