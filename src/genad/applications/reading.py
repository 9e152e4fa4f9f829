"""Read the data of a job: table, series, images or log, with their labels, and with data to learn from apart."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genad.applications.data import Data
from genad.applications.images import is_image_source, read_image_data, read_image_job
from genad.applications.logs import is_log_source, read_log_data, read_log_job
from genad.data.columns import ColumnKind
from genad.data.io import read_table
from genad.data.kinds import Kind, kind_of_shape
from genad.data.series import Series, as_series
from genad.data.table import Table, as_table
from genad.errors import DataWarning, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_KINDS = (Kind.TABLE, Kind.SERIES)
_OF_LOGS = ("session", "layout", "year", "encoding")
_OF_IMAGES = ("size", "skip_broken", "progress")
_OF_ROWS = ("delimiter", "drop")


def read(
    source: Any,
    *,
    kind: Kind | str | None = None,
    time: str | None = None,
    entity: str | None = None,
    labels: str | Path | NDArray[Any] | None = None,
    delimiter: str | None = None,
    drop: Sequence[str] = (),
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
    drop : sequence of str
        Columns to leave out.
    **of_logs
        ``session``, ``layout``, ``year`` and ``encoding`` of :func:`genad.applications.logs.read_log_data`.

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
        return read_log_data(source, labels=labels, kind=kind, time=time, entity=entity, **of_logs)
    _refuse("only logs have it, and these are none", of_logs)
    if is_image_source(source):
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
    table = _table(source, delimiter)
    values, used = _labels(labels, table, len(table))
    table = table.drop([*drop, *(() if used is None or used in drop else (used,))])
    if not table.names:
        raise InputError("drop: no column is left; keep at least one.")
    if kind is not None:
        why = "asked for"
    elif time or entity:
        kind, why = Kind.SERIES, f"a column of {'time' if time else 'entities'} was named"
    else:
        return _guess(table, values)
    if kind == Kind.TABLE:
        return Data(table, Kind.TABLE, values, why)
    return Data(as_series(table, time=time, entity=entity), Kind.SERIES, values, why)


def _guess(table: Table, labels: NDArray[np.int64] | None) -> Data:
    """Read a table as a series when it has a usable time and nothing but numbers beside it."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            series = as_series(table)
        except InputError as error:
            notes = []
            if ColumnKind.DATETIME in table.kinds.values():
                notes.append(f"read as a table although it holds dates, because {error}")
            return Data(table, Kind.TABLE, labels, "it is not numbers over time", notes)
    if series.time is None:
        return Data(table, Kind.TABLE, labels, "it has no time stamps that ascend")
    # What was heard matters only now that the data are a series.
    for warning in heard:
        if issubclass(warning.category, DataWarning):
            warnings.warn(str(warning.message), DataWarning, stacklevel=3)
    return Data(series, Kind.SERIES, labels, "it has ascending time stamps")


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
        only = [name for name in ("time", "entity", "delimiter", "drop") if options.pop(name, None)]
        return read_image_job(source, train, labels=labels, only=only, **options)
    _refuse("only images have it, and these are none", _taken(options, _OF_IMAGES))
    if train is None:
        both = read(source, labels=labels, kind=kind, **options)
        return both, both
    drop = options.pop("drop", ())
    parts = _without(
        drop,
        *(part if isinstance(part, Series) else _table(part, options.get("delimiter")) for part in (source, train)),
    )
    if not isinstance(labels, str | Path):
        return _apart(parts[0], parts[1], labels, kind, options)
    mine, other = (str(labels) if isinstance(part, Table) and str(labels) in part.names else None for part in parts)
    if mine is None and other is None:
        return _apart(parts[0], parts[1], _find_labels(labels, parts)[0], kind, options)
    given = read(parts[0], labels=mine, kind=kind, **options)
    return given, read(parts[1], labels=other, kind=given.kind, **options)


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
    source: Any, train: Any, labels: Any, kind: Kind | str | None, options: Mapping[str, Any]
) -> tuple[Data, Data]:
    """Read both and give labels that came apart to the one they fit."""
    given = read(source, kind=kind, **options)
    learnt = read(train, kind=given.kind, **options)
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


def _table(source: Any, delimiter: str | None) -> Table:
    if isinstance(source, str | Path):
        return read_table(source, delimiter=delimiter)
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
        warnings.simplefilter("ignore", DataWarning)
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
        For anything else.
    """
    if column.dtype == object:
        column = np.array([-1 if cell is None else cell for cell in column], dtype=object)
    try:
        numbers = np.nan_to_num(np.asarray(column, np.float64), nan=-1.0)
    except (TypeError, ValueError):
        numbers = np.full(len(column), np.inf)
    wrong = ~np.isin(numbers, (-1, 0, 1))
    if wrong.any():
        found = sorted({str(value) for value in column[wrong]})[:5]
        raise InputError(
            f"labels: found {', '.join(found)}; use 1 for anomalies, 0 for normal rows and -1 or "
            "nothing for unlabelled ones."
        )
    return numbers.astype(np.int64)
