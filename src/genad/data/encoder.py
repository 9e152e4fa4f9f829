"""Turn a table of mixed columns into float32 on the z-scale and a mask of what was observed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genad.data.coding import (
    CategoryCode,
    Code,
    DateCode,
    DroppedCode,
    NumericCode,
)
from genad.data.columns import Column, ColumnKind, missing_mask
from genad.data.container import Table, listing
from genad.data.layout import EncodedLayout
from genad.data.moments import NumericBlocks, moments, row_blocks
from genad.data.table import as_table
from genad.errors import DataWarning, InputError

__all__ = ["TableEncoder"]

_LIMIT = 1e15  # the square of a clipped value, and sums of squares, still fit in float32
_IDENTIFIER_ROWS = 20  # fewer rows say nothing about how many levels a column has
_IDENTIFIER_SHARE = 0.9
_SMALL = 0.05


@dataclass
class TableEncoder(EncodedLayout):
    """Encode the columns of a table as numbers of comparable weight, and decode them again.

    Numbers and truth values become z-scores of the training data, on a log scale where the table says so
    (`Table.on_log_scale`). Categories become centred
    one-hot columns whose variances add up to one, dates scaled seconds and phases of day and week
    (`genad.data.coding` has the formulas). A missing cell is 0, the training mean, and False in
    the mask. Values beyond 1e15 standard deviations are clipped, so that their squares stay finite
    in float32. Columns that hold nothing, and text that names each row, are left out.

    Parameters
    ----------
    max_levels : int, default 32
        Most levels of a category with a column of their own; all others share one more, and where
        these are a fifth of the rows, so do levels in less than 0.5 % of them.
    max_distinct : int, default 10000
        A text column with more levels is taken as an identifier and left out; so is one whose
        levels are more than 0.9 of its rows, or whose rare levels hold more than 0.95 of them, from
        20 rows on.

    Attributes
    ----------
    codes : list of Code
        How each column is encoded, in the user's order; empty before `fit`.
    named : bool
        Whether `fit` saw column names, so that `transform` matches them.
    groups : list of (str, slice)
        The encoded columns of each column; an empty slice for one that is left out.
    n_encoded : int
        Number of encoded columns.

    Examples
    --------
    >>> table = as_table({"flow": [1.0, 3.0, None], "state": ["on", "off", "on"]})
    >>> encoder = TableEncoder().fit(table)
    >>> x, mask = encoder.transform(table)
    >>> x[:, 0].tolist(), mask[:, 0].tolist()
    ([-1.0, 1.0, 0.0], [True, True, False])
    >>> encoder.encoded_names
    ['flow', 'state=on', 'state=(other)']
    >>> encoder.inverse(x)["flow"].tolist()
    [1.0, 3.0, 2.0]
    """

    def fit(self, table: Any) -> TableEncoder:
        """Learn the scale, the levels and the phases of each column.

        Parameters
        ----------
        table : Table or anything `as_table` takes
            Training rows.

        Returns
        -------
        TableEncoder
            Itself.

        Raises
        ------
        InputError
            An infinite or overlarge value, or no column is left.

        Warns
        -----
        DataWarning
            Constant columns, columns without a value, identifiers: one warning for each of these.
        """
        table = as_table(table)
        kinds = table.kinds
        numeric = [n for n, k in kinds.items() if k in {ColumnKind.NUMERIC, ColumnKind.BOOLEAN}]
        units = np.array([_unit(table[n]) if n in table.logarithmic else 0.0 for n in numeric])
        mean, std = moments(NumericBlocks.of(table, numeric, units), len(table))
        place = {name: j for j, name in enumerate(numeric)}
        codes: list[Code] = []
        identifiers = []
        for name, kind in kinds.items():
            if name in place:
                j, boolean = place[name], kind is ColumnKind.BOOLEAN
                code = NumericCode.fit(name, float(mean[j]), float(std[j]), boolean=boolean, unit=float(units[j]))
                codes.append(code)
            elif kind is ColumnKind.EMPTY:
                codes.append(DroppedCode(name, "all missing"))
            elif kind is ColumnKind.DATETIME:
                codes.append(DateCode.fit(table[name], name))
            else:
                counts, rows = _count(table[name]), len(table)
                category = CategoryCode.fit(name, counts, self.max_levels)
                many = len(counts) > _IDENTIFIER_SHARE * rows or (len(counts) > 1 and category.scattered)
                if (rows >= _IDENTIFIER_ROWS and many) or len(counts) > self.max_distinct:
                    identifiers.append(f"{name!r} ({len(counts)} levels in {rows} rows)")
                    codes.append(DroppedCode(name, "identifier"))
                else:
                    codes.append(category)
        if all(isinstance(code, DroppedCode) for code in codes):
            msg = (
                f"no column of X can be used: {listing(list(kinds))} hold no value, or text that "
                "names each row. Give at least one column of numbers, categories or dates"
            )
            raise InputError(msg)
        self.codes, self.named = codes, table.named
        self._prepare()
        self._warn(identifiers)
        return self

    def _warn(self, identifiers: Sequence[str]) -> None:
        constant = [c.name for c in self.codes if not isinstance(c, DroppedCode) and c.constant]
        if constant:
            msg = (
                f"constant columns {listing(constant)} ({len(constant)} of {self.n_features}) are "
                "kept with scale 1: any change in them will weigh as much as its size. "
                "Drop them if a change means nothing"
            )
            warnings.warn(msg, DataWarning, stacklevel=3)
        dropped = [c for c in self.codes if isinstance(c, DroppedCode)]
        empty = [c.name for c in dropped if c.reason == "all missing"]
        if empty:
            msg = f"columns {listing(empty)} hold no value and are left out: drop or fill them"
            warnings.warn(msg, DataWarning, stacklevel=3)
        if identifiers:
            msg = (
                f"text columns {', '.join(identifiers)} look like identifiers, almost all of "
                "whose levels are rare, and are left out: drop them, or group their levels"
            )
            warnings.warn(msg, DataWarning, stacklevel=3)

    def _check_width(self, width: int) -> None:
        self._check_fitted()
        if width != self.n_features:
            msg = (
                f"X has {width} features, but TableEncoder is expecting {self.n_features} features "
                f"as input: give the columns of the training data, {listing(self.feature_names)}"
            )
            raise InputError(msg)

    def _align(self, table: Table) -> list[Column]:
        """Return the table's columns in training order, of kinds the codes can take."""
        self._check_fitted()
        if self.named and table.named:
            known, given = set(self.feature_names), set(table.names)
            missing = [name for name in self.feature_names if name not in given]
            extra = [name for name in table.names if name not in known]
            if missing or extra:
                parts = [f"lacks {listing(missing)}"] * bool(missing)
                parts += [f"has {listing(extra)} that fit did not see"] * bool(extra)
                msg = f"X {' and '.join(parts)}: give the columns of the training data by name"
                raise InputError(msg)
            table = table.select(self.feature_names)
        self._check_width(len(table.names))
        columns = [table[name] for name in table.names]
        for code, column in zip(self.codes, columns, strict=True):
            _check_kind(code, column)
        return columns

    def transform(self, table: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """Encode rows.

        Parameters
        ----------
        table : Table or anything `as_table` takes
            The columns of the training data: by name in any order, or by position when either side
            has no names.

        Returns
        -------
        x : ndarray of shape (n, n_encoded), float32, C-contiguous
            Encoded rows, 0 where a cell is missing.
        mask : ndarray of bool, shape (n, n_encoded), or None
            True where a cell was observed; None when all were.

        Raises
        ------
        InputError
            Missing, extra or wrong-kind columns, or an infinite value.
        """
        table = as_table(table)
        if table.matrix is not None and self._plain and not (self.named and table.named):
            return self.transform_array(table.matrix)
        columns = self._align(table)
        n = len(table)
        x = np.empty((n, self.n_encoded), dtype=np.float32)
        mask: np.ndarray | None = None
        numeric = NumericBlocks([columns[j] for j in self._source], self._numeric_names, self._units)
        others = [
            (code, columns[j], self.groups[j][1])
            for j, code in enumerate(self.codes)
            if isinstance(code, (CategoryCode, DateCode))
        ]
        for start, stop in row_blocks(n, self.n_encoded):
            mask = self._numbers(numeric, start, stop, x, mask)
            for code, column, where in others:
                part = column.take(slice(start, stop))
                if isinstance(code, DateCode) and part.kind is ColumnKind.EMPTY:
                    z, seen = np.zeros((stop - start, 1)), np.zeros(stop - start, dtype=bool)
                else:
                    z, seen = code.encode(part)
                x[start:stop, where] = z
                if not seen.all():
                    mask = np.ones(x.shape, dtype=bool) if mask is None else mask
                    mask[start:stop, where] = seen[:, None]
        return x, mask

    def transform_array(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Encode a numeric array by the shortest way; other arrays go through `transform`.

        Parameters
        ----------
        X : ndarray of shape (n, n_features)
            Rows, columns in training order.

        Returns
        -------
        x, mask
            As `transform` gives them.

        Raises
        ------
        InputError
            Another number of columns, or an infinite value.
        """
        if not self._plain or X.ndim != 2 or X.dtype.kind not in "iufb":
            return self.transform(as_table(X))
        self._check_width(X.shape[1])
        numeric = NumericBlocks(X if self._whole else X[:, self._source], self._numeric_names, self._units)
        x = np.empty((len(X), self.n_encoded), dtype=np.float32)
        mask: np.ndarray | None = None
        short = X.dtype == np.float32 and self._whole and self._steady
        for start, stop in row_blocks(len(X), self.n_encoded):
            if not (short and self._short_numbers(X[start:stop], x[start:stop])):
                mask = self._numbers(numeric, start, stop, x, mask)
        return x, mask

    def _short_numbers(self, X: np.ndarray, z: np.ndarray) -> bool:
        """Write z-scores in single precision; False when a cell is missing, infinite or overlarge."""
        mean, rate = self._short
        with np.errstate(over="ignore", invalid="ignore"):
            np.subtract(X, mean, out=z)
            np.multiply(z, rate, out=z)
            flat = z.ravel()
            return bool(flat @ flat <= _LIMIT * _LIMIT)

    def _numbers(
        self,
        numeric: NumericBlocks,
        start: int,
        stop: int,
        x: np.ndarray,
        mask: np.ndarray | None,
    ) -> np.ndarray | None:
        """Write one block of z-scores into x, and into the mask once a cell is missing."""
        if not self._source.size:
            return mask
        with np.errstate(over="ignore", invalid="ignore"):
            z = numeric.read(start, stop)
            z -= self._mean
            z *= 1.0 / self._scale
            flat = z.ravel()
            size = float(flat @ flat)
        where = slice(None) if self._plain else self._place
        # NaN, infinity and overlarge values all spoil the sum of squares: one product finds the rare cases.
        if not size <= _LIMIT * _LIMIT:
            if np.isinf(z).any():
                numeric.check_finite(start, stop)
            missing = np.isnan(z)
            np.clip(z, -_LIMIT, _LIMIT, out=z)
            if missing.any():
                z[missing] = 0.0
                mask = np.ones(x.shape, dtype=bool) if mask is None else mask
                mask[start:stop, where] = ~missing
        x[start:stop, where] = z
        return mask

    def count_unseen(self, table: Any) -> dict[str, int]:
        """Count cells of categories with a level that the training data did not have.

        Parameters
        ----------
        table : Table or anything `as_table` takes
            Rows to look at.

        Returns
        -------
        dict of str to int
            A count per category column.

        Examples
        --------
        >>> encoder = TableEncoder().fit({"state": ["on", "off", "on", "off"]})
        >>> encoder.count_unseen({"state": ["on", "broken"]})
        {'state': 1}
        """
        columns = self._align(as_table(table))
        pairs = zip(self.codes, columns, strict=True)
        return {c.name: c.count_unseen(v) for c, v in pairs if isinstance(c, CategoryCode)}


def _unit(column: Column) -> float:
    """Return where a log scale begins: below it lie 5 % of the sizes that are not 0; 1 when all are."""
    sizes = np.abs(column.values.astype(np.float64))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    return float(np.quantile(sizes, _SMALL)) if sizes.size else 1.0


def _count(column: Column) -> dict[str, int]:
    text = pa.array(column.values, type=pa.large_string()).drop_null()
    found = pc.value_counts(text)
    levels, counts = found.field("values").to_pylist(), found.field("counts").to_pylist()
    return dict(zip(levels, counts, strict=True))


def _check_kind(code: Code, column: Column) -> None:
    """Refuse a column whose cells the code cannot take, naming the first of them."""
    numbers = {ColumnKind.NUMERIC, ColumnKind.BOOLEAN, ColumnKind.EMPTY}
    if isinstance(code, NumericCode) and column.kind not in numbers:
        wanted = "numbers"
    elif isinstance(code, DateCode) and column.kind not in {ColumnKind.DATETIME, ColumnKind.EMPTY}:
        wanted = "dates"
    else:
        return
    missing = missing_mask(column)
    rows = [i for i in np.flatnonzero(~missing).tolist() if not _number(column.values[i], wanted)]
    row = rows[0] if rows else 0
    msg = (
        f"column {code.name!r} held {wanted} in the training data and is {column.kind} here "
        f"(row {row}: {str(column.values[row])!r}): give {wanted}, or NaN where missing"
    )
    raise InputError(msg)


def _number(cell: Any, wanted: str) -> bool:
    if wanted != "numbers" or not isinstance(cell, str):
        return False
    try:
        float(cell)
    except ValueError:
        return False
    return True
