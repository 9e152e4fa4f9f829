"""Time series: numeric channels with their time, their entities, and the stretches without gaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from genad.data.columns import Column, ColumnKind, from_numpy
from genad.data.frames import like_frame
from genad.data.io import is_table_path, read_table
from genad.data.table import Table, as_table, listing
from genad.data.timeaxis import TimeAxis, as_time, inspect_time, time_index, warn_time
from genad.errors import InputError

__all__ = ["Series", "as_series"]

#: Names under which a column of ascending numbers is taken as time.
TIME_NAMES = frozenset({"time", "timestamp", "date", "datetime", "ts", "t"})


@dataclass(frozen=True)
class Series:
    """Channels over time, in the user's units; the rows of an entity stand together.

    Parameters
    ----------
    values : ndarray of shape (n, C), float32 or float64
        Channels; NaN where missing.
    names : list of str
        A name per channel.
    time : ndarray of shape (n,), datetime64[ns] or float64, or None
        Time stamps, ascending within an entity.
    entity : ndarray of shape (n,), or None
        Which series a row belongs to.
    segments : ndarray of int, shape (k, 2)
        Half-open row intervals of one entity without a gap; a window lies within one.
    order : ndarray of int, shape (n,)
        Row numbers in the user's data: ``values == given[order]``.
    axes : list of TimeAxis
        What was found about time, per entity in order; empty without time.
    original : object
        What the user gave, to answer in the same kind.

    Examples
    --------
    >>> series = as_series({"t": [0, 1, 0, 1], "load": [1.0, 2.0, 7.0, 8.0], "id": list("abab")},
    ...                    entity="id", time=False, columns=["load"])
    >>> series.values.ravel().tolist(), series.segments.tolist()
    ([1.0, 7.0, 2.0, 8.0], [[0, 2], [2, 4]])
    >>> series.restore_order(series.values.ravel()).tolist()
    [1.0, 2.0, 7.0, 8.0]
    """

    values: np.ndarray
    names: list[str]
    time: np.ndarray | None
    entity: np.ndarray | None
    segments: np.ndarray
    order: np.ndarray
    axes: list[TimeAxis] = field(default_factory=list)
    original: Any = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        n, width = self.values.shape
        parts = [f"{n} steps", f"{width} channels", f"{len(self.segments)} segments"]
        return f"Series({', '.join(parts)})"

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return int(self.values.shape[1])

    def restore_order(self, per_row: np.ndarray) -> np.ndarray:
        """Bring values per row back to the order of the user's data.

        Parameters
        ----------
        per_row : ndarray of shape (n, ...)
            Values in the order of `values`, such as scores.

        Returns
        -------
        ndarray of shape (n, ...)
            The same values, row by row as the user gave them.

        Raises
        ------
        InputError
            Another number of rows.
        """
        per_row = np.asarray(per_row)
        if len(per_row) != len(self.order):
            msg = f"per_row has {len(per_row)} rows for a series of {len(self.order)}: give one each"
            raise InputError(msg)
        restored = np.empty_like(per_row)
        restored[self.order] = per_row
        return restored

    def take(self, rows: np.ndarray) -> Series:
        """Return the series without its other rows, which leave gaps.

        Parameters
        ----------
        rows : ndarray of int
            Numbers of rows in the user's data, each once.

        Returns
        -------
        Series
            The rows in the order of `values`; no segment reaches over a row that is left out.

        Examples
        --------
        >>> series = as_series([5.0, 6.0, 900.0, 7.0, 8.0]).take(np.array([0, 1, 3, 4]))
        >>> series.values.ravel().tolist(), series.segments.tolist()
        ([5.0, 6.0, 7.0, 8.0], [[0, 2], [2, 4]])
        """
        chosen = np.zeros(len(self), dtype=bool)
        chosen[rows] = True
        kept = chosen[self.order]
        place = np.concatenate([[0], np.cumsum(kept)])
        segments = []
        for start, stop in self.segments.tolist():
            edges = np.flatnonzero(np.diff(np.concatenate([[False], kept[start:stop], [False]]).astype(np.int8)))
            segments.append(place[start + edges].reshape(-1, 2))
        values = self.values[kept]
        return Series(
            values,
            self.names,
            None if self.time is None else self.time[kept],
            None if self.entity is None else self.entity[kept],
            np.concatenate(segments),
            (np.cumsum(chosen) - 1)[self.order[kept]],
            original=values if isinstance(self.original, np.ndarray) else as_table(values, columns=self.names),
        )

    def like_original(self, channels: Mapping[str, np.ndarray]) -> Any:
        """Put new channel values into the kind, order and columns of the user's data.

        Parameters
        ----------
        channels : mapping of str to ndarray of shape (n,)
            New values in the order of `values`, one per channel and in the order of `names`.

        Returns
        -------
        ndarray, dataframe or Table
            An array for an array (of its shape, floats in its dtype), a dataframe of the same
            library with its index and its other columns untouched and its types kept where these hold the values
            (`genad.data.frames.like_frame`), otherwise a Table of the channels.

        Raises
        ------
        InputError
            Another number of channels or rows.
        """
        given = [self.restore_order(values) for values in channels.values()]
        if len(given) != len(self.names):
            msg = f"channels has {len(given)} entries for {len(self.names)} channels: give one each"
            raise InputError(msg)
        if isinstance(self.original, np.ndarray) and self.original.dtype.names is None:
            whole = np.stack(given, axis=1)
            dtype = self.original.dtype if self.original.dtype.kind == "f" else np.float64
            return whole.reshape(self.original.shape).astype(dtype, copy=False)
        by_name = dict(zip(self.names, given, strict=True))
        if not isinstance(self.original, Table) and hasattr(self.original, "columns"):
            return like_frame(self.original, by_name)
        return as_table(by_name)

    def to_table(self) -> Table:
        """Return the channels as a table that shares their memory.

        Returns
        -------
        Table
            For `genad.data.encoder.TableEncoder`.
        """
        return as_table(self.values, columns=self.names)


def as_series(
    X: Any,
    *,
    time: Any = None,
    entity: Any = None,
    columns: Sequence[str] | None = None,
) -> Series:
    """Bring any series-like input to a `Series`.

    Parameters
    ----------
    X : ndarray of shape (n,) or (n, C), dataframe, mapping, Table, Series, or path
        Rows are time steps, columns are channels. A path is read with `read_table`.
    time : str, array-like of shape (n,), False, or None
        The column of time stamps, or the stamps. None takes the one column of dates, or else the
        dates of a dataframe's index, or a column named time, timestamp, date, datetime, ts or t whose
        numbers ascend; False takes none.
    entity : str, array-like of shape (n,), or None
        The column that tells several series apart, or its values.
    columns : sequence of str, optional
        For an array: a name per channel. Otherwise the channels to keep.

    Returns
    -------
    Series
        The rows of an entity stand together, entities in the order in which they come first.

    Raises
    ------
    InputError
        Duplicate, descending or missing time stamps, several columns of dates, text channels,
        unknown columns, wrong lengths.

    Warns
    -----
    DataWarning
        Gaps or irregular sampling.

    Examples
    --------
    >>> as_series({"date": ["2024-01-01", "2024-01-02"], "load": [1.0, 2.0]}).time
    array(['2024-01-01T00:00:00.000000000', '2024-01-02T00:00:00.000000000'],
          dtype='datetime64[ns]')
    """
    if isinstance(X, Series):
        return X
    if is_table_path(X):
        X = read_table(X)
    original = X
    table, chosen = _table_of(X, columns)
    groups = _groups(table, entity)
    if time is None and ColumnKind.DATETIME not in table.kinds.values():
        time = time_index(X)
    stamps, time_name = _find_time(table, time, groups)
    used = {name for name in (time_name, entity if isinstance(entity, str) else None) if name}
    channels = [name for name in (chosen or table.names) if name not in used]
    values = _channels(table, channels)
    order, labels, bounds = _ordered(groups, len(table))
    sorted_already = bool((np.diff(order) == 1).all())
    values = values if sorted_already else values[order]
    if stamps is None:
        return Series(values, channels, None, labels, bounds, order, original=original)
    stamps = stamps[order]
    name = f"time column {time_name!r}:" if time_name else "time"
    axes, segments = [], []
    for start, stop in bounds.tolist():
        part, rows = stamps[start:stop], order[start:stop]
        axis = inspect_time(part, name=name, rows=rows, warn=False)
        axes.append(axis)
        segments.append(axis.segments + start)
    warn_time(axes, name, "s" if stamps.dtype.kind == "M" else "units of time")
    kept = _stored(stamps, name)
    return Series(values, channels, kept, labels, np.concatenate(segments), order, axes, original)


def _table_of(X: Any, columns: Sequence[str] | None) -> tuple[Table, list[str] | None]:
    """Return the whole table, and the channels asked for where they are a choice of its columns."""
    if isinstance(X, (list, tuple)) and X and not hasattr(X[0], "__len__"):
        X = np.asarray(X)
    if isinstance(X, np.ndarray) and X.dtype.names is None:
        if X.ndim == 3:
            msg = (
                f"X has shape {X.shape}; a series is (steps, channels). Windows are cut by the "
                "detector: give the series itself"
            )
            raise InputError(msg)
        return as_table(X[:, None] if X.ndim == 1 else X, columns), None
    table = as_table(X)
    if columns is None:
        return table, None
    return table, table.select(list(columns)).names


def _per_row(given: Any, n: int, name: str) -> np.ndarray:
    values = given if isinstance(given, np.ndarray) else np.asarray(given)
    if values.shape != (n,):
        msg = f"{name} has shape {values.shape} for {n} rows of X: give one value per row"
        raise InputError(msg)
    return values


def _groups(table: Table, entity: Any) -> np.ndarray | None:
    """Return the entity of each row: text, or numbers."""
    if entity is None:
        return None
    if isinstance(entity, str):
        column, name = table[entity], f"entity column {entity!r}"
    else:
        name = "entity"
        column = from_numpy(_per_row(entity, len(table), name), name)
    values = column.values
    missing = values == np.array(None) if values.dtype.kind == "O" else values != values
    if np.any(missing):
        row = int(np.argmax(missing))
        msg = f"{name} is missing in row {row}: name the series each row belongs to"
        raise InputError(msg)
    if column.kind is ColumnKind.CATEGORICAL:
        return np.array([str(v) for v in values], dtype=object)
    return values


def _ordered(groups: np.ndarray | None, n: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Group rows stably by entity, entities in the order of their first row."""
    if groups is None:
        return np.arange(n), None, np.array([[0, n]], dtype=np.int64)
    _, first, inverse, counts = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    rank = np.argsort(first, kind="stable")
    place = np.empty_like(rank)
    place[rank] = np.arange(rank.size)
    order = np.argsort(place[inverse.reshape(-1)], kind="stable")
    ends = np.cumsum(counts[rank])
    bounds = np.stack([ends - counts[rank], ends], axis=1).astype(np.int64)
    return order, groups[order], bounds


def _find_time(table: Table, time: Any, groups: np.ndarray | None) -> tuple[np.ndarray | None, str | None]:
    """Return the time stamps in the user's order and the column they are from."""
    if isinstance(time, str):
        return as_time(table.column(time), f"time column {time!r}"), time
    if time is False:
        return None, None
    if time is not None:
        stamps = as_time(time)
        return _per_row(stamps, len(table), "time"), None
    if not table.named:
        return None, None
    dates = [name for name, kind in table.kinds.items() if kind is ColumnKind.DATETIME]
    if len(dates) > 1:
        msg = (
            f"X has {len(dates)} columns of dates, {listing(dates)}: say which one is the time, "
            f"for instance time={dates[0]!r}, and drop the others"
        )
        raise InputError(msg)
    if dates:
        return as_time(table.column(dates[0]), f"time column {dates[0]!r}"), dates[0]
    order, _, bounds = _ordered(groups, len(table))
    for name in table.names:
        if name.lower() not in TIME_NAMES or table.kinds[name] is not ColumnKind.NUMERIC:
            continue
        values = table.column(name)[order]
        if all(_ascends(values[start:stop]) for start, stop in bounds.tolist()):
            return as_time(table.column(name), f"time column {name!r}"), name
    return None, None


def _ascends(values: np.ndarray) -> bool:
    return bool((values[1:] >= values[:-1]).all()) and bool(np.isfinite(values).all())


def _channels(table: Table, names: Sequence[str]) -> np.ndarray:
    if not names:
        msg = "X has no channel beside time and entity: give at least one column of numbers"
        raise InputError(msg)
    if table.matrix is not None and list(names) == table.names:
        matrix = table.matrix
        return matrix if matrix.dtype in (np.float32, np.float64) else matrix.astype(np.float64)
    picked: list[Column] = [table[name] for name in names]
    for name, column in zip(names, picked, strict=True):
        if column.kind in {ColumnKind.CATEGORICAL, ColumnKind.DATETIME}:
            shown = next(str(v) for v in column.values if v is not None)
            what = "text" if column.kind is ColumnKind.CATEGORICAL else "dates"
            msg = (
                f"column {name!r} holds {what} ({shown!r}) and a channel is numbers: drop it, "
                f"give it as {'entity' if what == 'text' else 'time'}={name!r}, or code it as "
                "numbers"
            )
            raise InputError(msg)
    single = all(column.values.dtype == np.float32 for column in picked)
    values = np.empty((len(table), len(picked)), dtype=np.float32 if single else np.float64)
    for j, column in enumerate(picked):
        values[:, j] = column.values
    return values


def _stored(stamps: np.ndarray, name: str) -> np.ndarray:
    if stamps.dtype.kind != "M":
        return stamps.astype(np.float64)
    kept = stamps.astype("datetime64[ns]")
    if not (kept.astype(stamps.dtype) == stamps).all():
        msg = f"{name} {stamps[0]!s} lies outside the years 1678 to 2261: give numbers"
        raise InputError(msg)
    return kept
