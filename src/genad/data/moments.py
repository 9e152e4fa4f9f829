"""Read numeric columns in blocks of rows: memory stays bounded whatever the table's length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from genad.data.container import Table, listing
from genad.errors import InputError

if TYPE_CHECKING:
    from genad.data.columns import Column

__all__ = ["NumericBlocks", "moments"]

_CELLS = 1 << 17


class NumericBlocks:
    """The numeric columns of a table as float64 row blocks.

    Parameters
    ----------
    columns : sequence of Column, or ndarray of shape (n, d)
        Numeric and boolean columns of equal length, or one numeric array.
    names : sequence of str
        A name per column, for messages.

    Examples
    --------
    >>> import numpy as np
    >>> blocks = NumericBlocks(np.arange(6).reshape(3, 2), ["a", "b"])
    >>> blocks.read(1, 3)
    array([[2., 3.],
           [4., 5.]])
    """

    def __init__(self, columns: Sequence[Column] | np.ndarray, names: Sequence[str]) -> None:
        self.columns = columns
        self.names = names

    @staticmethod
    def of(table: Table, names: Sequence[str]) -> NumericBlocks:
        """Read the named columns of a table.

        Parameters
        ----------
        table : Table
            The table.
        names : sequence of str
            Numeric or boolean columns.

        Returns
        -------
        NumericBlocks
            The reader.
        """
        if table.matrix is not None and list(names) == table.names:
            return NumericBlocks(table.matrix, names)
        return NumericBlocks([table[name] for name in names], names)

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
            return np.array(self.columns[start:stop], dtype=np.float64, order="C")
        block = np.empty((stop - start, len(self.columns)))
        for j, column in enumerate(self.columns):
            block[:, j] = column.values[start:stop]
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
