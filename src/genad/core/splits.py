"""Labels the user gives, and the split of training data into a part to learn from and a part to calibrate on."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genad.errors import DataWarning, InputError

# More held-out units than this sharpen the p-values no further than most uses can tell.
MAX_HELD_OUT = 20_000


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
    """Read ``y`` of ``fit``; None means unlabelled.

    Raises
    ------
    InputError
        When the number of labels is not ``n``, or every unit is labelled anomalous.
    """
    if y is None:
        return Labels(np.full(n, -1, np.int64))
    values = np.asarray(y).ravel()
    if len(values) != n:
        raise InputError(f"y: {len(values)} labels were given for {n} units of X; give one a unit.")
    if not _are_labels(values):
        warnings.warn(
            "y is ignored: it holds values other than 1 (anomaly), 0 (normal) and -1 (unlabelled).",
            DataWarning,
            stacklevel=4,
        )
        return Labels(np.full(n, -1, np.int64))
    labels = Labels(values.astype(np.int64))
    if not labels.normal.any():
        raise InputError(
            "y: every unit is labelled anomalous (1), so there is one class only; "
            "a detector learns from normal units, labelled 0."
        )
    return labels


def _are_labels(values: NDArray[Any]) -> bool:
    return values.dtype.kind in "biuf" and bool(np.isin(values, (-1, 0, 1)).all())


def rows_to_scale(y: Any, n: int) -> NDArray[np.int64] | None:
    """Return the rows that scales are learnt from when ``y`` labels anomalies, None for all of them."""
    values = np.empty(0) if y is None else np.asarray(y).ravel()
    if len(values) != n or not _are_labels(values) or not 0 < int((values == 1).sum()) < n:
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
