"""Read the data of a job: table, series, images or log, with their labels, and with data to learn from apart."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genad.applications.data import Data
from genad.applications.images import is_image_source, read_image_data, read_image_job
from genad.applications.logs import is_log_source, read_log_data, read_log_job
from genad.core.splits import check_sense, label_values
from genad.data.columns import ColumnKind
from genad.data.io import read_table
from genad.data.kinds import Kind, kind_of_shape
from genad.data.series import Series, as_series
from genad.data.table import Table, as_table
from genad.data.timeaxis import time_index
from genad.errors import DataWarning, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_KINDS = (Kind.TABLE, Kind.SERIES)
_OF_LOGS = ("session", "layout", "year")
_OF_IMAGES = ("size", "skip_broken", "progress")
_OF_ROWS = ("delimiter", "drop")
_BY_INDEX = "the dates in the index of the dataframe are taken as time stamps"


def read(
    source: Any,
    *,
    kind: Kind | str | None = None,
    time: str | None = None,
    entity: str | None = None,
    labels: str | Path | NDArray[Any] | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    drop: Sequence[str] = (),
    ignore: Sequence[str] = (),
    index: NDArray[Any] | None = None,
    **of_logs: Any,
) -> Data:
    """Read data for a job and settle whether they are a table, a series, images or a log.

    Parameters
    ----------
    source : path, "-", array, dataframe, Table, Series, Log or Sessions
        A path is read by its suffix, and a log is known by its name or its lines; ``"-"`` is standard input.
    kind : {"table", "series", "log"}, optional
        When absent, the data are a series if ``time`` or ``entity`` is given, or if they have time
        stamps that ascend and otherwise only numbers.
    time, entity : str, optional
        Columns of a series.
    labels : str, path or array, optional
        A column of the data, a file whose only column (or column ``label``) holds them, or the
        labels themselves, one a row.
    delimiter : str, optional
        Column separator of a text file.
    encoding : str, optional
        Encoding of a text file or log; UTF-8 when absent.
    drop : sequence of str
        Columns to leave out.
    ignore : sequence of str
        Columns to leave out where the data have them.
    index : array, optional
        Time stamps, one a row, for data without a column of dates; those of a dataframe's index when absent.
    **of_logs
        ``session``, ``layout`` and ``year`` of :func:`genad.applications.logs.read_log_data`.

    Returns
    -------
    Data
        The data without the columns of labels and those left out.

    Raises
    ------
    InputError
        When the data, the labels or a column cannot be used.

    Examples
    --------
    >>> data = read({"date": ["2024-01-01", "2024-01-02"], "load": [1.0, 2.0], "bad": [0, 1]},
    ...             labels="bad")
    >>> data.kind.value, data.why, data.labels.tolist()
    ('series', 'it has ascending time stamps', [0, 1])
    """
    if is_log_source(source, kind):
        _refuse("a log has no columns", {"delimiter": delimiter, "drop": drop})
        return read_log_data(source, labels=labels, kind=kind, time=time, entity=entity, encoding=encoding, **of_logs)
    _refuse("only logs have it, and these are none", of_logs)
    if is_image_source(source):
        _refuse("only text has it, and these are images", {"encoding": encoding})
        return read_image_data(source, labels=labels)
    if isinstance(source, np.ndarray) and source.ndim in {3, 4, 5}:
        found = kind_of_shape(source.shape[1:])
        values, _ = _labels(labels, None, len(source))
        return Data(source, found, values, f"an array of rank {source.ndim} was given")
    if kind is not None and kind not in _KINDS:
        raise InputError(f"kind: {str(kind)!r} was given for a file of rows; use 'table', 'series' or 'log'.")
    if isinstance(source, Series):
        values, _ = _labels(labels, None, len(source))
        return Data(source, Kind.SERIES, values, "a series was given")
    table = _table(source, delimiter, encoding)
    values, used = _labels(labels, table, len(table))
    left_out = [*drop, *(name for name in ignore if name in table.names), *(() if used is None else (used,))]
    table = table.drop(list(dict.fromkeys(left_out)))
    if not table.names:
        raise InputError("drop: no column is left; keep at least one.")
    stamps, notes = None, []
    if time is None and ColumnKind.DATETIME not in table.kinds.values():
        stamps = time_index(source) if index is None else index
    if kind is not None:
        why = "asked for"
    elif time or entity:
        kind, why = Kind.SERIES, f"a column of {'time' if time else 'entities'} was named"
    else:
        return _guess(table, values, stamps)
    if kind == Kind.TABLE:
        return Data(table, Kind.TABLE, values, why)
    if stamps is not None:
        notes.append(_BY_INDEX)
    series = as_series(table, time=time if stamps is None else stamps, entity=entity)
    return Data(series, Kind.SERIES, values, why, notes)


def _guess(table: Table, labels: NDArray[np.int64] | None, stamps: NDArray[Any] | None) -> Data:
    """Read a table as a series when it has a usable time and nothing but numbers beside it."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            series = as_series(table, time=stamps)
        except InputError as error:
            notes = []
            if stamps is not None or ColumnKind.DATETIME in table.kinds.values():
                notes.append(f"read as a table although it holds dates, because {error}")
            return Data(table, Kind.TABLE, labels, "it is not numbers over time", notes)
    if series.time is None:
        return Data(table, Kind.TABLE, labels, "it has no time stamps that ascend")
    # What was heard matters only now that the data are a series.
    for warning in heard:
        if issubclass(warning.category, DataWarning):
            warnings.warn(str(warning.message), DataWarning, stacklevel=3)
    notes = [] if stamps is None else [_BY_INDEX]
    return Data(series, Kind.SERIES, labels, "it has ascending time stamps", notes)


def read_both(
    source: Any,
    train: Any = None,
    *,
    labels: str | Path | NDArray[Any] | None = None,
    kind: Kind | str | None = None,
    **options: Any,
) -> tuple[Data, Data]:
    """Read the data to judge and the data to learn from, and give each the labels that are its.

    A column of labels is used wherever it is. Labels that come apart from the data belong to
    whichever of the two has as many rows.

    Parameters
    ----------
    source, train : path, "-", array or dataframe
        To judge and to learn from; the same when ``train`` is None.
    labels : str, path or array, optional
        As in :func:`read`.
    kind : {"table", "series", "log"}, optional
        As in :func:`read`; what is found for ``source`` holds for ``train`` too.
    **options
        Passed on to :func:`read`.

    Returns
    -------
    given, learnt : Data
        One object when ``train`` is None.

    Raises
    ------
    InputError
        When something cannot be read, or labels fit both or neither.

    Examples
    --------
    >>> given, learnt = read_both([[1.0], [9.0]], [[1.0], [2.0], [3.0]], labels=np.array([0, 1]))
    >>> given.labels.tolist(), learnt.labels
    ([0, 1], None)
    """
    if is_log_source(source, kind) or (train is not None and kind is None and is_log_source(train)):
        _refuse("only images have it, and these are none", _taken(options, _OF_IMAGES))
        _refuse("a log has no columns", _taken(options, _OF_ROWS))
        return read_log_job(source, train, labels=labels, kind=kind, **options)
    _refuse("only logs have it, and these are none", _taken(options, _OF_LOGS))
    if is_image_source(source, train):
        only = [name for name in ("time", "entity", "delimiter", "encoding", "drop") if options.pop(name, None)]
        return read_image_job(source, train, labels=labels, only=only, **options)
    _refuse("only images have it, and these are none", _taken(options, _OF_IMAGES))
    if train is None:
        both = read(source, labels=labels, kind=kind, **options)
        return both, both
    drop, encoding = options.pop("drop", ()), options.pop("encoding", None)
    tables = [
        part if isinstance(part, Series) else _table(part, options.get("delimiter"), encoding)
        for part in (source, train)
    ]
    parts = list(zip(_without(drop, *tables), map(time_index, (source, train)), strict=True))
    if not isinstance(labels, str | Path):
        return _apart(parts, labels, kind, options)
    tables = [table for table, _ in parts]
    mine, other = (str(labels) if isinstance(part, Table) and str(labels) in part.names else None for part in tables)
    if mine is None and other is None:
        return _apart(parts, _find_labels(labels, tables)[0], kind, options)
    given = read(parts[0][0], labels=mine, kind=kind, index=parts[0][1], **options)
    return given, read(parts[1][0], labels=other, kind=given.kind, index=parts[1][1], **options)


def _taken(options: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Take out the options of these names."""
    return {name: options.pop(name, None) for name in names}


def _refuse(why: str, options: Mapping[str, Any]) -> None:
    """Refuse options that were given and that the data do not take."""
    for name, value in options.items():
        if value:
            raise InputError(f"{name}: {why}; leave it out.")


def _without(drop: Sequence[str], *parts: Table | Series) -> list[Table | Series]:
    """Leave out columns wherever they are; one that is nowhere is an error."""
    tables = [part for part in parts if isinstance(part, Table)]
    for name in drop:
        if tables and not any(name in table.names for table in tables):
            tables[0].drop([name])
    return [
        part.drop([name for name in drop if name in part.names]) if isinstance(part, Table) else part for part in parts
    ]


def _apart(
    parts: Sequence[tuple[Any, Any]], labels: Any, kind: Kind | str | None, options: Mapping[str, Any]
) -> tuple[Data, Data]:
    """Read both (each with its index) and give labels that came apart to the one they fit."""
    given = read(parts[0][0], kind=kind, index=parts[0][1], **options)
    learnt = read(parts[1][0], kind=given.kind, index=parts[1][1], **options)
    if labels is None:
        return given, learnt
    n = len(np.asarray(labels).ravel())
    fits = [data for data in (given, learnt) if len(data) == n]
    if len(fits) != 1:
        found = f"{n} labels, {len(given)} rows to judge and {len(learnt)} rows to learn from"
        raise InputError(
            f"labels: {found}, so it is not clear whose they are; put them into a column of the data they belong to."
        )
    fits[0].labels, _ = _labels(labels, None, n)
    return given, learnt


def _table(source: Any, delimiter: str | None, encoding: str | None = None) -> Table:
    if isinstance(source, str | Path):
        return read_table(source, delimiter=delimiter, encoding=encoding or "utf-8")
    return as_table(source)


def _labels(given: Any, table: Table | None, n: int) -> tuple[NDArray[np.int64] | None, str | None]:
    """Return the labels and the column of the data they came from."""
    if given is None:
        return None, None
    used = None
    if isinstance(given, str | Path):
        column, used = _find_labels(given, [table])
    else:
        column = np.asarray(given).ravel()
    if len(column) != n:
        raise InputError(f"labels: {len(column)} labels were given for {n} rows; give one a row.")
    return _as_labels(column), used


def _find_labels(name: str | Path, parts: Sequence[Any]) -> tuple[NDArray[Any], str | None]:
    """Return the column of that name, or what the file of that name holds."""
    tables = [part for part in parts if isinstance(part, Table)]
    for table in tables:
        if str(name) in table.names:
            return table.column(str(name)), str(name)
    if Path(name).is_file():
        return _column_of_labels(name), None
    known = f" (columns: {', '.join(tables[0].names[:20])})" if tables else ""
    raise InputError(f"labels: {str(name)!r} is neither a column of the data{known} nor a file.")


def _column_of_labels(path: str | Path) -> NDArray[Any]:
    with warnings.catch_warnings():
        # A file of nothing but labels needs no header.
        warnings.filterwarnings("ignore", ".* has no header", DataWarning)
        table = read_table(path)
    if "label" not in table.names and len(table.names) > 1:
        raise InputError(
            f"labels: {path} has the columns {', '.join(table.names[:20])}; name the one of the "
            "labels 'label', or leave only that one."
        )
    return table.column("label" if "label" in table.names else table.names[0])


def _as_labels(column: NDArray[Any]) -> NDArray[np.int64]:
    """Turn 0, 1, -1, truth values and nothing into labels.

    Raises
    ------
    InputError
        For anything else, or when 1 seems to mean normal.
    """
    if column.dtype.kind == "U":
        with contextlib.suppress(ValueError):
            column = column.astype(np.float64)
    values = label_values(column)
    if values is None:
        found = sorted({str(cell) for cell in column if label_values(np.array([cell], column.dtype)) is None})[:5]
        raise InputError(
            f"labels: found {', '.join(found)}; use 1 for anomalies, 0 for normal rows and -1 or "
            "nothing for unlabelled ones."
        )
    check_sense(values, "labels")
    return values
