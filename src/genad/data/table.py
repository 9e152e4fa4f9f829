"""The one door through which every table-like input comes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pyarrow as pa

from genad.data.columns import Column, ColumnKind, from_arrow, from_numpy
from genad.data.container import ColumnInfo, Table, listing
from genad.errors import InputError, InputTypeError

__all__ = ["ColumnInfo", "ColumnKind", "Table", "as_table", "listing"]


def _check_unique(names: Sequence[str], what: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        msg = f"{what} has more than one column named {listing(twice)}: rename or drop the copies"
        raise InputError(msg)


def _names(columns: Sequence[str] | None, width: int) -> tuple[list[str], bool]:
    if columns is None:
        return [f"x{j}" for j in range(width)], False
    names = [str(name) for name in columns]
    if len(names) != width:
        msg = f"columns gives {len(names)} names for {width} columns of X: give one name per column"
        raise InputError(msg)
    _check_unique(names, "columns")
    return names, True


def _from_array(X: np.ndarray, columns: Sequence[str] | None) -> Table:
    if X.dtype.names is not None and X.ndim == 1:
        return _from_mapping({name: X[name] for name in X.dtype.names}, columns)
    if X.ndim != 2:
        mend = (
            "Reshape your data with X.reshape(-1, 1) if it is one column, or X.reshape(1, -1) if it is one row"
            if X.ndim < 2
            else "Reshape your data with X.reshape(len(X), -1) if each sample is one row"
        )
        msg = f"Expected 2D array, got {X.ndim}D array instead: X has shape {X.shape}. {mend}"
        raise InputError(msg)
    names, named = _names(columns, X.shape[1])
    table = {name: from_numpy(X[:, j], name) for j, name in enumerate(names)}
    return Table(table, matrix=X if X.dtype.kind in "iuf" else None, named=named)


def _from_mapping(X: Mapping[Any, Any], columns: Sequence[str] | None) -> Table:
    table = {}
    for key, cells in X.items():
        name, values = str(key), as_cells(cells)
        if values.ndim != 1:
            msg = f"column {name!r} has shape {values.shape}: give one value per row"
            raise InputError(msg)
        table[name] = from_numpy(values, name)
    _check_unique([str(key) for key in X], "X")
    lengths = {name: len(column.values) for name, column in table.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name}: {n}" for name, n in list(lengths.items())[:8])
        msg = f"the columns of X differ in length ({found}): give one cell per row in each"
        raise InputError(msg)
    found_table = Table(table)
    return found_table if columns is None else found_table.select(columns)


def as_cells(cells: Any) -> np.ndarray:
    """Turn one column's cells into an array, mixed lists into objects.

    Parameters
    ----------
    cells : array-like
        The cells.

    Returns
    -------
    ndarray
        One-dimensional for a column; the caller checks.
    """
    if isinstance(cells, np.ndarray):
        return cells
    if isinstance(cells, (list, tuple)):
        values = _listed(cells)
        return values if values.ndim == 1 else np.empty((0, 0))
    return np.asarray(cells)


def _listed(rows: Sequence[Any]) -> np.ndarray:
    """Turn lists into an array without letting numpy turn None and numbers into text."""
    try:
        values = np.asarray(rows)
    except ValueError:
        values = None
    if values is not None and values.dtype.kind in "biufmMc":
        return values
    lengths = {len(row) if isinstance(row, (list, tuple)) else -1 for row in rows}
    if len(lengths) > 1:
        msg = "the rows of X differ in length: give the same number of cells in each row"
        raise InputError(msg)
    return np.array(rows, dtype=object)


def _from_records(X: Sequence[Mapping[str, Any]], columns: Sequence[str] | None) -> Table:
    names = list(dict.fromkeys(key for row in X for key in row))
    cells = {}
    for name in names:
        column = np.empty(len(X), dtype=object)
        column[:] = [row.get(name) for row in X]
        cells[name] = column
    return _from_mapping(cells, columns)


def _from_frame(frame: Any, columns: Sequence[str] | None) -> Table:
    names = [str(name) for name in frame.columns]
    _check_unique(names, "X")
    table = {}
    for name, series in zip(names, frame.iter_columns(), strict=True):
        if columns is not None and name not in columns:
            continue
        table[name] = _from_series(series, name)
    found = Table(table)
    if not table and not names:
        return found
    return found if columns is None else found.select(columns)


def _from_series(series: Any, name: str) -> Column:
    if series.dtype.is_float() or series.dtype.is_integer():
        values = np.asarray(series.to_numpy())
        if values.dtype.kind in "iuf":
            return from_numpy(values, name)
    try:
        return from_arrow(series.to_arrow(), name)
    except (pa.ArrowException, TypeError):
        # A pandas column of mixed objects has no arrow type: its cells are looked at one by one.
        values = np.empty(len(series), dtype=object)
        values[:] = series.to_list()
        return from_numpy(values, name)


def as_table(X: Any, columns: Sequence[str] | None = None) -> Table:
    """Bring any table-like input to a `Table`.

    Parameters
    ----------
    X : array-like, dataframe, mapping, list of lists, list of dicts, or Table
        Rows are samples. Arrays are (n, d), numeric or objects; dataframes are those narwhals
        knows (pandas, polars, pyarrow, Modin, cuDF); a mapping goes from name to cells. Text that
        is wholly numbers, truth values or ISO dates is taken as such; a dataframe column of a
        categorical dtype always stays categories.
    columns : sequence of str, optional
        For an array or a list of lists: a name per column (otherwise ``x0``, ``x1``, ...). For
        input that has names: the columns to keep, in order.

    Returns
    -------
    Table
        Shares memory with `X` where it can.

    Raises
    ------
    InputError
        Not two-dimensional, no rows, no columns, names twice, unknown names, columns that differ
        in length.
    InputTypeError
        A type that is not accepted, or a column of lists, records and the like.

    Examples
    --------
    >>> as_table([[1, "a"], [2, None]], columns=["size", "grade"])
    Table(2 rows; size: numeric, grade: categorical)
    """
    table = _dispatch(X, columns)
    if not table.names:
        shape = f"(shape=({table.n_rows}, 0))"
        msg = f"X has 0 feature(s) {shape} while a minimum of 1 is required: give at least one column"
        raise InputError(msg)
    if table.n_rows == 0:
        shape = f"(shape=(0, {len(table.names)}))"
        msg = f"X has 0 sample(s) {shape} while a minimum of 1 is required: give at least one row"
        raise InputError(msg)
    return table


def _dispatch(X: Any, columns: Sequence[str] | None) -> Table:
    if isinstance(X, Table):
        return X if columns is None else X.select(columns)
    if isinstance(X, np.ndarray):
        return _from_array(X, columns)
    if isinstance(X, Mapping):
        return _from_mapping(X, columns)
    if type(X).__module__.startswith("scipy.sparse"):
        msg = "X is a sparse matrix and dense data are needed: pass X.toarray()"
        raise InputTypeError(msg)
    frame = _frame_or_none(X)
    if frame is not None:
        return _from_frame(frame, columns)
    if isinstance(X, (list, tuple)):
        if X and all(isinstance(row, Mapping) for row in X):
            return _from_records(X, columns)
        return _from_array(_listed(X), columns)
    if hasattr(X, "__array__"):
        return _from_array(np.asarray(X), columns)
    msg = (
        f"X is a {type(X).__name__}; accepted are a 2-D array, a dataframe (pandas, polars, "
        "pyarrow), a dict of columns, and a list of rows. Read a file with read_table"
    )
    raise InputTypeError(msg)


def _frame_or_none(X: Any) -> Any:
    try:
        frame = nw.from_native(X, pass_through=True, allow_series=True)
    except nw.exceptions.DuplicateError as error:
        msg = f"X has more than one column of the same name: rename or drop the copies ({error})"
        raise InputError(msg) from error
    if isinstance(frame, nw.LazyFrame):
        msg = f"X is lazy ({type(X).__module__}.{type(X).__name__}): collect it first, for instance X.collect()"
        raise InputTypeError(msg)
    if isinstance(frame, nw.Series):
        msg = (
            "Expected 2D array, got 1D array instead: X is a series. "
            "Reshape your data into a dataframe, for instance X.to_frame()"
        )
        raise InputError(msg)
    return frame if isinstance(frame, nw.DataFrame) else None
