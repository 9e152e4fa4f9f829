"""The contract of synthesizers of tables: normal rows in, anomalous rows and the cells that make them so out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from genad.data.columns import Column, ColumnKind, missing_mask
from genad.data.container import Table
from genad.data.table import as_table
from genad.errors import InputError
from genad.synthesis.contract import SynthesizerBase, check_request
from genad.synthesis.injected import Injected

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

# Columns with so few values, and so few a row, are levels: they are drawn again as they are, never scaled.
_LEVELS, _ROWS_A_LEVEL = 10, 10
# Columns with fewer distinct values a row than this lie on a grid.
_SHARED = 0.5
# Rows without which nothing can be said of how columns spread and depend on each other.
_FEWEST = 5


@dataclass(frozen=True)
class RowForm:
    """How the columns of a table are read: which are scaled, which are levels, and which are left alone.

    Attributes
    ----------
    continuous, levelled : list of str
        Names of the columns that vary; constant, empty and date columns are in neither.
    centre, scale : float64 arrays of shape (continuous,)
        Mean and standard deviation.
    whole : bool array of shape (continuous,)
        Whether all values are whole numbers, so that made-up ones are rounded.
    grids : list of array or None
        The values of each continuous column, sorted, when most rows share theirs with others: what is made is then
        brought to them, for a value between them would give an anomaly away by its digits alone.
    levels : list of array
        The values of each levelled column, sorted.
    """

    continuous: list[str]
    levelled: list[str]
    centre: Floats
    scale: Floats
    whole: NDArray[np.bool_]
    grids: list[Floats | None]
    levels: list[NDArray[Any]]

    @classmethod
    def of(cls, table: Table) -> RowForm:
        """Learn the form of a table of normal rows."""
        continuous, levelled, moments, grids, levels = [], [], [], [], []
        for name in table.names:
            column = table[name]
            if column.kind in (ColumnKind.EMPTY, ColumnKind.DATETIME):
                continue
            seen = column.values[~missing_mask(column)]
            found = np.unique(seen)
            if len(found) < 2:
                continue
            few = len(found) <= max(2, min(_LEVELS, len(table) // _ROWS_A_LEVEL))
            if few or column.kind is not ColumnKind.NUMERIC:
                levelled.append(name)
                levels.append(found)
                continue
            numbers = seen.astype(np.float64)
            deviation = float(numbers.std())
            if deviation < 1e-9 * max(1.0, float(np.abs(numbers).max())):
                continue
            continuous.append(name)
            moments.append((numbers.mean(), deviation, bool((numbers == np.rint(numbers)).all())))
            grids.append(found.astype(np.float64) if len(found) < _SHARED * len(seen) else None)
        centre, scale, whole = (np.array([m[k] for m in moments]) for k in range(3))
        return cls(continuous, levelled, centre, scale, whole.astype(bool), grids, levels)

    def read(self, table: Table) -> tuple[Floats, Codes]:
        """Return standardised numbers (n, continuous), NaN where missing, and codes (n, levelled), -1 where unknown."""
        z = np.empty((len(table), len(self.continuous)))
        for j, name in enumerate(self.continuous):
            z[:, j] = (table.column(name).astype(np.float64) - self.centre[j]) / self.scale[j]
        codes = np.full((len(table), len(self.levelled)), -1, np.int64)
        for j, name in enumerate(self.levelled):
            column, levels = table[name], self.levels[j]
            seen = ~missing_mask(column)
            values = column.values[seen]
            place = np.searchsorted(levels, values).clip(0, len(levels) - 1)
            codes[seen, j] = np.where(levels[place] == values, place, -1)
        return z, codes

    def write(
        self, table: Table, z: Floats, codes: Codes, moved: NDArray[np.bool_], swapped: NDArray[np.bool_]
    ) -> dict[str, Column]:
        """Return the columns of a table with new numbers and levels where they were moved or swapped."""
        columns = {name: table[name] for name in table.names}
        for j, name in enumerate(self.continuous):
            given = table.column(name)
            new = z[:, j] * self.scale[j] + self.centre[j]
            grid = self.grids[j]
            new = new if grid is None else snapped(new, grid)
            new = np.rint(new) if self.whole[j] else new
            dtype = given.dtype if given.dtype.kind == "f" or self.whole[j] else np.dtype(np.float64)
            columns[name] = Column(np.where(moved[:, j], new, given).astype(dtype), ColumnKind.NUMERIC)
        for j, name in enumerate(self.levelled):
            old = columns[name]
            values = old.values.copy()
            values[swapped[:, j]] = self.levels[j][codes[swapped[:, j], j]]
            columns[name] = Column(values, old.kind)
        return columns


def snapped(values: Floats, grid: Floats) -> Floats:
    """Bring values to the nearest ones of a grid; beyond its ends, to whole numbers of its usual step.

    Examples
    --------
    >>> snapped(np.array([0.14, 0.9, 1.26]), np.array([0.0, 0.1, 0.2, 0.9, 1.0])).round(6).tolist()
    [0.1, 0.9, 1.3]
    """
    after = np.searchsorted(grid, values).clip(1, len(grid) - 1)
    low, high = grid[after - 1], grid[after]
    near = np.where(values - low < high - values, low, high)
    step = float(np.median(np.diff(grid)))
    end = np.where(values > grid[-1], grid[-1], grid[0])
    beyond = (values > grid[-1]) | (values < grid[0])
    return np.where(beyond, end + step * np.rint((values - end) / step), near)


@dataclass
class RowDraft:
    """What a method proposes for some rows.

    Attributes
    ----------
    z : float64 array of shape (n, continuous)
        Proposed numbers, standardised.
    codes : int array of shape (n, levelled)
        Proposed levels.
    meta : list of dict
        What was drawn for each row.
    """

    z: Floats
    codes: Codes
    meta: list[dict[str, Any]]


@dataclass(eq=False, repr=False)
class RowSynthesizer(SynthesizerBase):
    """Base of synthesizers of tables: dataclasses of hyper-parameters with :meth:`learn` and :meth:`draft` filled in.

    A method proposes cells; this class makes the promises: a cell outside the mask is the source's to the last bit,
    missing cells stay missing, whole numbers stay whole, levels are levels that normal rows have, every row has a
    changed cell, the source is never written to, and every draw comes from the seed.
    """

    def learn(self, z: Floats, codes: Codes) -> None:
        """Learn from normal rows: standardised numbers, NaN where missing, and codes of levels."""
        raise NotImplementedError

    def draft(self, z: Floats, codes: Codes, rng: np.random.Generator) -> RowDraft:
        """Propose an anomalous version of each row."""
        raise NotImplementedError

    def fit(self, normal: Any) -> Self:
        """Learn how normal rows spread and depend on each other.

        Parameters
        ----------
        normal : array of shape (n, d), dataframe or Table
            At least 5 rows; NaN or None where missing.

        Returns
        -------
        Self

        Raises
        ------
        InputError
            For too few rows, infinite values, or when no column varies.
        """
        self.check_parameters()
        table = _read(normal, "normal")
        if len(table) < _FEWEST:
            raise InputError(f"normal: {len(table)} rows were given; at least {_FEWEST} are needed.")
        self.form_ = RowForm.of(table)
        if not self.form_.continuous and not self.form_.levelled:
            raise InputError("normal: every column is constant or missing, so there is nothing to change; add columns.")
        self.learn(*self.form_.read(table))
        return self

    def synthesize(self, X: Any, n: int, *, random_state: int = 0) -> Injected:
        """Make anomalous rows from normal ones.

        Parameters
        ----------
        X : array of shape (m, d), dataframe or Table
            Normal rows like those of :meth:`fit`; never written to. Without a fit they are learnt from as well.
        n : int
            How many to make; each row is used equally often, up to one.
        random_state : int
            Seed of every draw.

        Returns
        -------
        Injected
            The rows as an array for an array, else as a Table; masks of the changed cells; labels, all 1; sources.

        Raises
        ------
        InputError
            For rows that cannot be used, or ``n`` below 1.
        """
        n, random_state = check_request(n, random_state, "row")
        self.check_parameters()
        table = _read(X, "X")
        fitted = self if hasattr(self, "form_") else clone(self).fit(table)
        form = fitted.form_
        missing = [name for name in (*form.continuous, *form.levelled) if name not in table.names]
        if missing:
            raise InputError(f"X: the columns {', '.join(missing[:8])} of the fit are missing; give rows like those.")
        rng = np.random.default_rng(random_state)
        rounds = [rng.permutation(len(table)) for _ in range(-(-n // len(table)))]
        sources = np.concatenate(rounds)[:n].astype(np.int64)
        source = table.take(sources)
        z, codes = form.read(source)
        made = fitted.draft(z.copy(), codes.copy(), rng)
        moved = ~np.isnan(z) & ~np.isnan(made.z) & (made.z != z)
        swapped = (codes >= 0) & (made.codes >= 0) & (made.codes != codes)
        columns = form.write(source, made.z, made.codes, moved, swapped)
        masks = _changed(source, columns)
        still = np.flatnonzero(~masks.any(1))
        if len(still):
            columns = _push(form, columns, still, rng)
            masks = _changed(source, columns)
        samples: Any = Table(columns, named=table.named, logarithmic=table.logarithmic)
        if isinstance(X, np.ndarray) and X.dtype.names is None:
            samples = np.stack([column.values for column in columns.values()], 1)
            samples = samples.astype(X.dtype) if X.dtype.kind == "f" else samples
        meta = [{"method": self.name, **row} for row in made.meta]
        return Injected(samples, masks, np.ones(n, np.int64), sources, meta, list(columns))


def _read(X: Any, argument: str) -> Table:
    table: Table = as_table(X)
    for name in table.names:
        values = table.column(name)
        if values.dtype.kind == "f" and np.isinf(values).any():
            raise InputError(f"{argument}: column {name!r} holds infinite values; mark them as missing (NaN).")
    return table


def _changed(source: Table, columns: dict[str, Column]) -> NDArray[np.bool_]:
    """Say which cells differ; two missing cells do not."""
    masks = np.zeros((len(source), len(columns)), bool)
    for j, (name, column) in enumerate(columns.items()):
        old = source[name]
        both = missing_mask(old) & missing_mask(column)
        masks[:, j] = (np.asarray(old.values != column.values, bool)) & ~both
    return masks


def _push(
    form: RowForm, columns: dict[str, Column], rows: NDArray[np.int64], rng: np.random.Generator
) -> dict[str, Column]:
    """Change one known cell of rows in which nothing changed: a number by its spread, a level to the next one.

    A row of which nothing is known stays as it is.
    """
    columns = dict(columns)
    for j in rng.permutation(len(form.continuous)).tolist():
        name, step = form.continuous[j], 5 * form.scale[j]
        values = columns[name].values.copy()
        known = rows[~missing_mask(columns[name])[rows]]
        side = np.where(rng.random(len(known)) < 0.5, 1.0, -1.0)
        values[known] = values[known] + side * (np.ceil(step) if form.whole[j] else step)
        columns[name] = Column(values, columns[name].kind)
        rows = np.setdiff1d(rows, known)
    for j in rng.permutation(len(form.levelled)).tolist():
        name, levels = form.levelled[j], form.levels[j]
        values = columns[name].values.copy()
        known = rows[~missing_mask(columns[name])[rows]]
        values[known] = np.where(values[known] == levels[0], levels[1], levels[0])
        columns[name] = Column(values, columns[name].kind)
        rows = np.setdiff1d(rows, known)
    return columns
