"""Read numeric columns in blocks of rows: memory stays bounded whatever the table's length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from genad.data.container import Table, listing
from genad.errors import InputError

if TYPE_CHECKING:
    from genad.data.columns import Column

__all__ = ["NumericBlocks", "bend", "moments", "unbend"]

_CELLS = 1 << 17
_LARGEST_LOG = 300.0  # its exponential, times any sensible unit, is finite


class NumericBlocks:
    """The numeric columns of a table as float64 row blocks.

    Parameters
    ----------
    columns : sequence of Column, or ndarray of shape (n, d)
        Numeric and boolean columns of equal length, or one numeric array.
    names : sequence of str
        A name per column, for messages.
    units : ndarray of shape (d,), optional
        Above 0 for columns to read on a log scale, see :func:`bend`; 0 for the others.

    Examples
    --------
    >>> import numpy as np
    >>> blocks = NumericBlocks(np.arange(6).reshape(3, 2), ["a", "b"])
    >>> blocks.read(1, 3)
    array([[2., 3.],
           [4., 5.]])
    """

    def __init__(
        self, columns: Sequence[Column] | np.ndarray, names: Sequence[str], units: np.ndarray | None = None
    ) -> None:
        self.columns = columns
        self.names = names
        self.bent = np.flatnonzero(units) if units is not None else np.empty(0, np.intp)
        self.units = np.empty(0) if units is None else units[self.bent]

    @staticmethod
    def of(table: Table, names: Sequence[str], units: np.ndarray | None = None) -> NumericBlocks:
        """Read the named columns of a table.

        Parameters
        ----------
        table : Table
            The table.
        names : sequence of str
            Numeric or boolean columns.
        units : ndarray, optional
            One a column, as above.

        Returns
        -------
        NumericBlocks
            The reader.
        """
        if table.matrix is not None and list(names) == table.names:
            return NumericBlocks(table.matrix, names, units)
        return NumericBlocks([table[name] for name in names], names, units)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Copy some rows.

        Parameters
        ----------
        start, stop : int
            The rows, half-open.

        Returns
        -------
        ndarray of shape (stop - start, d), float64, C-contiguous
            A fresh copy; NaN where missing.
        """
        if isinstance(self.columns, np.ndarray):
            block = np.array(self.columns[start:stop], dtype=np.float64, order="C")
        else:
            block = np.empty((stop - start, len(self.columns)))
            for j, column in enumerate(self.columns):
                block[:, j] = column.values[start:stop]
        if self.bent.size:
            block[:, self.bent] = bend(block[:, self.bent], self.units)
        return block

    def check_finite(self, start: int, stop: int) -> None:
        """Refuse infinite cells.

        Parameters
        ----------
        start, stop : int
            The rows to look at, half-open.

        Raises
        ------
        InputError
            A cell is infinite; the message names the column and the first row.
        """
        found = np.argwhere(np.isinf(self.read(start, stop)))
        if len(found):
            row, j = found[0]
            msg = (
                f"column {self.names[j]!r} holds an infinite value (inf) in row {start + row}: "
                "replace it by NaN if it is missing, or by a finite number"
            )
            raise InputError(msg)


def bend(values: np.ndarray, unit: np.ndarray | float) -> np.ndarray:
    """Put values on a signed log scale: ``sign(v) log(1 + |v| / unit)``, linear near 0.

    Parameters
    ----------
    values : ndarray
        In the user's units.
    unit : float or ndarray
        Where the scale turns from linear to logarithmic, above 0.

    Returns
    -------
    ndarray
        float64, of the same shape.

    Examples
    --------
    >>> import numpy as np
    >>> bend(np.array([-1.0, 0.0, 99.0]), 1.0).round(3).tolist()
    [-0.693, 0.0, 4.605]
    """
    return np.copysign(np.log1p(np.abs(values) / unit), values)


def unbend(values: np.ndarray, unit: np.ndarray | float) -> np.ndarray:
    """Undo :func:`bend`; what would not fit into a float64 is held at its largest power.

    Examples
    --------
    >>> import numpy as np
    >>> unbend(bend(np.array([-1.0, 0.0, 99.0]), 5.0), 5.0).round(9).tolist()
    [-1.0, 0.0, 99.0]
    """
    return np.copysign(np.expm1(np.minimum(np.abs(values), _LARGEST_LOG)) * unit, values)


def row_blocks(n: int, width: int) -> Iterator[tuple[int, int]]:
    """Cut rows into blocks of about 130,000 cells, which stay in the processor's cache.

    Parameters
    ----------
    n : int
        Number of rows.
    width : int
        Cells per row.

    Yields
    ------
    tuple of int
        Start and stop, half-open.

    Examples
    --------
    >>> list(row_blocks(3, 60_000))
    [(0, 2), (2, 3)]
    """
    step = max(1, _CELLS // max(1, width))
    for start in range(0, n, step):
        yield start, min(n, start + step)


def moments(blocks: NumericBlocks, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean and standard deviation of the observed cells of each column, in one pass.

    Parameters
    ----------
    blocks : NumericBlocks
        The columns.
    n : int
        Number of rows.

    Returns
    -------
    mean, std : ndarray of shape (d,), float64
        In the columns' units; the standard deviation divides by the number of observed cells.

    Raises
    ------
    InputError
        A cell is infinite, or so large that its square is.

    References
    ----------
    T. F. Chan, G. H. Golub and R. J. LeVeque, Algorithms for computing the sample variance, The
    American Statistician 37 (1983), 242-247: block moments are merged with their pairwise rule.
    """
    width = len(blocks.names)
    count, mean, spread = np.zeros(width), np.zeros(width), np.zeros(width)
    with np.errstate(over="ignore", invalid="ignore"):
        for start, stop in row_blocks(n, width):
            block = blocks.read(start, stop)
            if np.isfinite(block).all():
                seen = np.full(width, float(stop - start))
                centre = block.mean(axis=0)
                block -= centre
            else:
                blocks.check_finite(start, stop)
                missing = np.isnan(block)
                seen = (stop - start) - missing.sum(axis=0).astype(np.float64)
                block[missing] = 0.0
                centre = block.sum(axis=0) / np.maximum(seen, 1.0)
                block -= centre
                block[missing] = 0.0
            total = np.maximum(count + seen, 1.0)
            delta = centre - mean
            spread += np.square(block, out=block).sum(axis=0) + delta**2 * (count * seen / total)
            mean += delta * (seen / total)
            count += seen
        std = np.sqrt(spread / np.maximum(count, 1.0))
    huge = [name for name, ok in zip(blocks.names, np.isfinite(mean + std), strict=True) if not ok]
    if huge:
        msg = (
            f"column {listing(huge)} holds values so large that their square is infinite: "
            "divide the column by a power of ten, or take its logarithm"
        )
        raise InputError(msg)
    return mean, std
