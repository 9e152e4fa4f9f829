"""Names of groups: cells of one column, of whatever type, as the text that groups are known by."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from genad.core.calibration._labels import label_text
from genad.data.columns import Column, from_numpy, missing_mask
from genad.data.table import as_cells
from genad.errors import InputError


def names_in(column: Column, what: str) -> NDArray[np.str_]:
    """Return the name in each cell: text as it is spelled, whole numbers alike whether kept as integers or floats.

    Parameters
    ----------
    column : Column
        One cell a row.
    what : str
        What the column is, for messages.

    Returns
    -------
    str array of shape (n,)

    Raises
    ------
    InputError
        When a cell is missing.

    Examples
    --------
    >>> from genad.data.columns import from_numpy
    >>> names_in(from_numpy(np.array([3.0, 1.0, 2.5]), "site"), "site").tolist()
    ['3', '1', '2.5']
    """
    # Text that looks like numbers stays text: "01" and "1" are two names, whatever stands in the other rows.
    cells = column.as_levels()
    missing = missing_mask(cells)
    if missing.any():
        raise InputError(
            f"{what} names no group in {int(missing.sum())} of {len(missing)} rows, the first is row "
            f"{int(np.argmax(missing))}; fill in a name of their own, for instance 'unknown', or leave these rows out."
        )
    values = cells.values
    if values.dtype.kind == "M":
        values = values.astype("datetime64[ns]")  # a date reads alike in any unit
    found, code = np.unique(values, return_inverse=True)
    return np.array([label_text(value) for value in found], dtype=np.str_)[code]


def read_names(groups: Any, n: int) -> NDArray[np.str_]:
    """Return the names in an array of groups that the user gave beside ``n`` scores.

    Raises
    ------
    InputError
        When there are not ``n``, or one is missing.
    """
    cells = as_cells(groups)
    if cells.shape != (n,):
        raise InputError(f"groups: found shape {cells.shape} for {n} scores; give one group a score.")
    return names_in(from_numpy(cells, "groups"), "groups:")


def rows_by_name(names: NDArray[np.str_]) -> dict[str, NDArray[np.intp]]:
    """Return the rows of each name, ascending; names in alphabetical order.

    Examples
    --------
    >>> {name: rows.tolist() for name, rows in rows_by_name(np.array(["b", "a", "b"])).items()}
    {'a': [1], 'b': [0, 2]}
    """
    found, code = np.unique(names, return_inverse=True)
    rows = np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code))[:-1])
    return dict(zip(found.tolist(), rows, strict=True))
