"""The container of named columns every table-like input becomes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genad.data.columns import Column, ColumnKind, missing_mask
from genad.errors import InputError

__all__ = ["ColumnInfo", "Table", "listing"]


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """What is worth knowing of a column before it is used.

    Parameters
    ----------
    kind : ColumnKind
        What the column holds.
    n_missing : int
        Number of missing cells.
    constant : bool
        Whether all observed cells are equal.
    """

    kind: ColumnKind
    n_missing: int
    constant: bool


class Table:
    """Columns of equal length, each in the numpy form of its kind.

    Use `genad.data.table.as_table` to make one.

    Parameters
    ----------
    columns : mapping of str to Column
        The columns in order.
    matrix : ndarray of shape (n, d), optional
        The array all columns are views of, when the table came from one numeric array: row blocks
        are then read from it directly.
    named : bool, default True
        Whether the names come from the user; made-up names (``x0``, ``x1``, ...) are not matched
        against those of another table.
    logarithmic : iterable of str
        Columns that a detector is to see on a log scale, see `on_log_scale`.

    Examples
    --------
    >>> from genad.data.table import as_table
    >>> table = as_table({"flow": [1.0, 2.0, 4.0], "state": ["on", "on", "off"]})
    >>> table
    Table(3 rows; flow: numeric, state: categorical)
    >>> table.column("flow")
    array([1., 2., 4.])
    """

    def __init__(
        self,
        columns: Mapping[str, Column],
        *,
        matrix: np.ndarray | None = None,
        named: bool = True,
        logarithmic: Iterable[str] = (),
    ) -> None:
        self._columns = dict(columns)
        self.matrix = matrix
        self.named = named
        self.logarithmic = frozenset(logarithmic) & frozenset(self._columns)
        self.n_rows = len(next(iter(self._columns.values())).values) if self._columns else 0

    @property
    def names(self) -> list[str]:
        """Column names in order."""
        return list(self._columns)

    @property
    def kinds(self) -> dict[str, ColumnKind]:
        """Kind of each column."""
        return {name: column.kind for name, column in self._columns.items()}

    def __len__(self) -> int:
        return self.n_rows

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}: {kind}" for name, kind in list(self.kinds.items())[:8])
        more = f", and {len(self._columns) - 8} more" if len(self._columns) > 8 else ""
        return f"Table({self.n_rows} rows; {shown}{more})"

    def __getitem__(self, name: str) -> Column:
        self._check([name])
        return self._columns[name]

    def _check(self, names: Iterable[str]) -> None:
        unknown = [name for name in names if name not in self._columns]
        if unknown:
            msg = f"no column named {listing(unknown)}; the columns are {listing(self.names)}"
            raise InputError(msg)

    def column(self, name: str) -> np.ndarray:
        """Return the values of one column.

        Parameters
        ----------
        name : str
            Its name.

        Returns
        -------
        ndarray of shape (n_rows,)
            In the form `Column` documents.

        Raises
        ------
        InputError
            There is no such column.
        """
        return self[name].values

    def select(self, names: Sequence[str]) -> Table:
        """Keep the named columns, in the given order.

        Parameters
        ----------
        names : sequence of str
            The columns to keep.

        Returns
        -------
        Table
            A table that shares the columns' memory.

        Raises
        ------
        InputError
            There is no such column.
        """
        self._check(names)
        same = list(names) == self.names
        columns = {name: self._columns[name] for name in names}
        return Table(columns, matrix=self.matrix if same else None, named=self.named, logarithmic=self.logarithmic)

    def on_log_scale(self, names: Sequence[str]) -> Table:
        """Mark columns of numbers as what a detector that is fitted on the table is to see on a log scale.

        Sizes, durations and counts that span several powers of ten differ by factors; on a plain scale the largest
        drown all others. What is restored and explained stays in the user's units. A fitted detector keeps to its
        scales: the mark on other data has no effect.

        Parameters
        ----------
        names : sequence of str
            The columns, of numbers.

        Returns
        -------
        Table
            A table that shares the columns' memory.

        Raises
        ------
        InputError
            There is no such column, or it holds no numbers.
        """
        self._check(names)
        strange = [name for name in names if self._columns[name].kind is not ColumnKind.NUMERIC]
        if strange:
            msg = f"columns {listing(strange)} hold no numbers, so they have no log scale: leave them out"
            raise InputError(msg)
        return Table(self._columns, matrix=self.matrix, named=self.named, logarithmic=names)

    def drop(self, names: Sequence[str]) -> Table:
        """Leave out the named columns.

        Parameters
        ----------
        names : sequence of str
            The columns to leave out.

        Returns
        -------
        Table
            A table that shares the columns' memory.

        Raises
        ------
        InputError
            There is no such column.
        """
        self._check(names)
        gone = set(names)
        return self.select([name for name in self.names if name not in gone])

    def take(self, rows: Any) -> Table:
        """Return some rows.

        Parameters
        ----------
        rows : slice, or array of int or bool
            The rows, in the order wanted.

        Returns
        -------
        Table
            A column keeps its kind, whatever its cells that are left.
        """
        rows = rows if isinstance(rows, slice) else np.asarray(rows)
        if self.matrix is not None:
            matrix = self.matrix[rows]
            columns = {
                name: Column(matrix[:, j], column.kind) for j, (name, column) in enumerate(self._columns.items())
            }
            return Table(columns, matrix=matrix, named=self.named, logarithmic=self.logarithmic)
        columns = {name: column.take(rows) for name, column in self._columns.items()}
        return Table(columns, named=self.named, logarithmic=self.logarithmic)

    def head(self, n: int = 5) -> Table:
        """Return the first rows.

        Parameters
        ----------
        n : int, default 5
            How many.

        Returns
        -------
        Table
            At most `n` rows.
        """
        return self.take(slice(0, n))

    def describe(self) -> dict[str, ColumnInfo]:
        """Look at every column: its kind, its missing cells, and whether it is constant.

        Returns
        -------
        dict of str to ColumnInfo
            One entry per column.

        Examples
        --------
        >>> from genad.data.table import as_table
        >>> as_table({"a": [1.0, float("nan"), 1.0]}).describe()["a"]
        ColumnInfo(kind=<ColumnKind.NUMERIC: 'numeric'>, n_missing=1, constant=True)
        """
        found = {}
        for name, column in self._columns.items():
            missing = missing_mask(column)
            seen = column.values[~missing]
            constant = seen.size > 0 and bool((seen == seen[0]).all())
            found[name] = ColumnInfo(column.kind, int(missing.sum()), constant)
        return found


def listing(names: Sequence[Any], limit: int = 8) -> str:
    """Write names for a message, the first few of many.

    Parameters
    ----------
    names : sequence
        What to list.
    limit : int, default 8
        How many to show.

    Returns
    -------
    str
        Quoted names with commas.

    Examples
    --------
    >>> listing(["a", "b", "c"], limit=2)
    "'a', 'b' and 1 more"
    """
    shown = ", ".join(repr(name) for name in names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown
