"""Read text that is numbers but for a few bad cells."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genad.errors import DataWarning

__all__ = ["mostly_numbers"]

# Above this share of numbers a column is one of numbers with bad cells, such as "-" or "error", not one of names.
_SHARE = 0.95
_NUMBER = r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"


def mostly_numbers(cells: Any, name: str) -> np.ndarray | None:
    """Read text as numbers when more than 95 % of it is, and take the other cells as missing.

    Parameters
    ----------
    cells : pyarrow array of text
        Without blanks around; null where missing.
    name : str
        The column's name, for the message.

    Returns
    -------
    ndarray of shape (n,), float64, or None
        NaN where a cell is missing or no number; None when too few are numbers.

    Warns
    -----
    DataWarning
        Says how many cells are no numbers, which is the first, and how to mend them.
    """
    good = pc.match_substring_regex(cells, _NUMBER)
    bad = pc.fill_null(pc.invert(good), False).to_numpy(zero_copy_only=False)
    found, present = int(bad.sum()), len(cells) - cells.null_count
    if not 0 < found < (1 - _SHARE) * present:
        return None
    row = int(bad.argmax())
    warnings.warn(
        f"column {name!r} is read as numbers, and {found:,} of its {present:,} cells, which are none, as missing: the "
        f"first is {cells[row].as_py()!r} in row {row}. Mend them or leave them empty; where the numbers are names, "
        "give the column as categories, or begin each name with a letter",
        DataWarning,
        stacklevel=2,
    )
    numbers = pc.cast(pc.if_else(good, cells, pa.scalar(None, cells.type)), pa.float64())
    return np.asarray(numbers.to_numpy(zero_copy_only=False))
