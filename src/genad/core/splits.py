"""Labels the user gives, and the split of training data into a part to learn from and a part to calibrate on."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genad.errors import DataWarning, InputError

# More held-out units than this sharpen the p-values no further than most uses can tell.
MAX_HELD_OUT = 20_000
_NOTHING = frozenset({"NoneType", "NAType", "NaTType"})


@dataclass(frozen=True)
class Labels:
    """Labels by unit: 1 anomaly, 0 normal, -1 unlabelled.

    Attributes
    ----------
    values : int array of shape (n,)
    """

    values: NDArray[np.int64]

    @property
    def normal(self) -> NDArray[np.bool_]:
        """Units not labelled anomalous."""
        return self.values != 1

    @property
    def anomalous(self) -> NDArray[np.bool_]:
        """Units labelled anomalous."""
        return self.values == 1

    @property
    def any_anomaly(self) -> bool:
        """Whether some unit is labelled anomalous."""
        return bool(self.anomalous.any())


def read_labels(y: Any, n: int) -> Labels:
    """Read ``y`` of ``fit``; None, NaN and pandas' NA mean unlabelled.

    Raises
    ------
    InputError
        When the number of labels is not ``n``, every unit is labelled anomalous, or 1 seems to mean normal.
    """
    if y is None:
        return Labels(np.full(n, -1, np.int64))
    given = np.asarray(y).ravel()
    if len(given) != n:
        raise InputError(f"y: {len(given)} labels were given for {n} units of X; give one a unit.")
    values = label_values(given)
    if values is None:
        warnings.warn(
            "y is ignored: it holds values other than 1 (anomaly), 0 (normal) and -1 or nothing (unlabelled).",
            DataWarning,
            stacklevel=4,
        )
        return Labels(np.full(n, -1, np.int64))
    labels = Labels(values)
    if not labels.normal.any():
        raise InputError(
            "y: every unit is labelled anomalous (1), so there is one class only; "
            "a detector learns from normal units, labelled 0."
        )
    check_sense(values, "y")
    return labels


def label_values(given: NDArray[Any]) -> NDArray[np.int64] | None:
    """Return labels as whole numbers, -1 where there is none; None when one is no label.

    Examples
    --------
    >>> import numpy as np
    >>> label_values(np.array([1.0, 0.0, np.nan])).tolist(), label_values(np.array(["a", "b"]))
    ([1, 0, -1], None)
    """
    if given.dtype.kind == "O":
        cells = [-1 if type(cell).__name__ in _NOTHING else cell for cell in given]
        if not all(isinstance(cell, (Real, np.bool_)) for cell in cells):
            return None
        given = np.array(cells, np.float64)
    if given.dtype.kind not in "biuf":
        return None
    if given.dtype.kind == "f":
        given = np.where(np.isnan(given), -1, given)
    return given.astype(np.int64) if np.isin(given, (-1, 0, 1)).all() else None


def check_sense(values: NDArray[np.int64], name: str) -> None:
    """Refuse labels of 1 and -1 alone that are mostly 1: elsewhere 1 means normal and -1 anomalous.

    Labelled anomalies among unlabelled units are the minority, so that -1 stays free to mean unlabelled.

    Raises
    ------
    InputError
        With the counts found and what to give instead.
    """
    ones, zeros = int((values == 1).sum()), int((values == 0).sum())
    rest = len(values) - ones
    if zeros or not 0 < rest < ones:
        return
    raise InputError(
        f"{name}: {ones:,} labels are 1, {rest:,} are -1 or nothing, and none is 0. Here 1 is an anomaly, 0 normal and "
        "-1 unlabelled; where 1 means normal and -1 an anomaly, as in scikit-learn, give 1 for each -1 and 0 for "
        "each 1. If they do mean this, leave out some of the anomalies."
    )


def rows_to_scale(y: Any, n: int) -> NDArray[np.int64] | None:
    """Return the rows that scales are learnt from when ``y`` labels anomalies, None for all of them."""
    values = None if y is None else label_values(np.asarray(y).ravel())
    if values is None or len(values) != n or not 0 < int((values == 1).sum()) < n:
        return None
    return np.flatnonzero(values != 1)


def split_rows(usable: NDArray[np.bool_], holdout: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split the usable rows at random into (train, held out); the held-out part is empty below five rows.

    Examples
    --------
    >>> import numpy as np
    >>> train, held = split_rows(np.ones(10, bool), 0.2, seed=0)
    >>> len(train), len(held)
    (8, 2)
    """
    rows = np.flatnonzero(usable)
    count = min(int(len(rows) * holdout), MAX_HELD_OUT)
    order = np.random.default_rng(seed).permutation(len(rows))
    return np.sort(rows[order[count:]]), np.sort(rows[order[:count]])
