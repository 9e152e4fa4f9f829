"""What makes a labelled table harder: anomalies that repeat, columns that say nothing, labels that are wrong.

Functions for comparing detectors, after the stress tests of Han, Hu, Huang, Jiang and Zhao, "ADBench: Anomaly
detection benchmark", NeurIPS 2022; :class:`~genad.TabularAnomalies` makes the anomalies themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from genad.errors import InputError
from genad.synthesis.contract import check_request

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def duplicate_anomalies(X: Any, y: Any, times: int, *, random_state: int = 0) -> tuple[Floats, Labels]:
    """Repeat every anomaly, so that anomalies are near each other and no longer rare.

    Parameters
    ----------
    X : array of shape (n, d)
        Rows, of numbers.
    y : array of shape (n,)
        1 marks an anomaly, 0 a normal row.
    times : int
        How often each anomaly is there afterwards, at least 1.
    random_state : int
        Seed of the order of the rows.

    Returns
    -------
    X : float64 array of shape (n + (times - 1) * anomalies, d)
        Rows, shuffled.
    y : int64 array
        Their labels.

    Raises
    ------
    InputError
        For rows that are no matrix of numbers, labels that are not 0 and 1 or do not fit, or a bad ``times``.

    Examples
    --------
    >>> X, y = duplicate_anomalies([[0.0], [1.0], [9.0]], [0, 0, 1], times=4)
    >>> len(X), int(y.sum()), sorted(X[:, 0].tolist())
    (6, 4, [0.0, 1.0, 9.0, 9.0, 9.0, 9.0])
    """
    rows = _rows(X)
    labels = _labels(y)
    if len(labels) != len(rows):
        raise InputError(f"y: {len(labels)} labels were given for {len(rows)} rows of X; give one a row.")
    if isinstance(times, bool) or not isinstance(times, int | np.integer) or times < 1:
        raise InputError(f"times: {times!r} was given; use a whole number of at least 1.")
    _, random_state = check_request(1, random_state, "row")
    kept = np.repeat(np.arange(len(rows)), np.where(labels == 1, times, 1))
    kept = np.random.default_rng(random_state).permutation(kept)
    return rows[kept], labels[kept]


def add_irrelevant_columns(X: Any, share: float, *, random_state: int = 0) -> Floats:
    """Append columns of uniform noise, each over the range of one of the columns that are there.

    Parameters
    ----------
    X : array of shape (n, d)
        Rows, of numbers; give training and test rows in one call, so that both have the same columns.
    share : float
        Share of the columns of the result that are noise, in [0, 1).
    random_state : int
        Seed.

    Returns
    -------
    float64 array of shape (n, d + round(d * share / (1 - share)))
        The columns of ``X``, then those of noise.

    Raises
    ------
    InputError
        For rows that are no matrix of numbers, or a share outside [0, 1).

    Examples
    --------
    >>> X = add_irrelevant_columns([[0.0, 5.0], [2.0, 5.0]], share=0.5)
    >>> X.shape, X[:, :2].tolist()
    ((2, 4), [[0.0, 5.0], [2.0, 5.0]])
    """
    rows = _rows(X)
    share = _share(share)
    _, random_state = check_request(1, random_state, "column")
    generator = np.random.default_rng(random_state)
    added = round(rows.shape[1] * share / (1 - share))
    chosen = generator.integers(rows.shape[1], size=added)
    # A column without any value has no range; its noise is 0.
    empty = np.isnan(rows).all(axis=0)
    low, high = np.nanmin(np.where(empty, 0.0, rows), axis=0), np.nanmax(np.where(empty, 0.0, rows), axis=0)
    return np.hstack([rows, generator.uniform(low[chosen], high[chosen], size=(len(rows), added))])


def flip_labels(y: Any, share: float, *, random_state: int = 0) -> Labels:
    """Turn a share of the labels round, as mistakes of those who gave them.

    Parameters
    ----------
    y : array of shape (n,)
        1 marks an anomaly, 0 a normal row.
    share : float
        Share of the labels, in [0, 1).
    random_state : int
        Seed of which ones.

    Returns
    -------
    int64 array of shape (n,)
        The labels, ``int(share * n)`` of them wrong.

    Raises
    ------
    InputError
        For labels that are not 0 and 1, or a share outside [0, 1).

    Examples
    --------
    >>> flip_labels([0, 0, 0, 0, 1], 0.4).tolist()
    [0, 0, 0, 1, 0]
    """
    labels = _labels(y)
    _, random_state = check_request(1, random_state, "label")
    wrong = np.random.default_rng(random_state).choice(len(labels), int(_share(share) * len(labels)), replace=False)
    labels[wrong] = 1 - labels[wrong]
    return labels


def _rows(X: Any) -> Floats:
    try:
        rows = np.asarray(X, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError("X: it holds values that are no numbers; give the columns of numbers alone.") from None
    if rows.ndim != 2 or not rows.size:
        raise InputError(f"X: it has the shape {rows.shape}; give rows of numbers, (n, d), at least one.")
    return rows


def _labels(y: Any) -> Labels:
    values = np.array(y).ravel()
    if values.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all():
        raise InputError("y: it holds values other than 1 (anomaly) and 0 (normal); give one of these a row.")
    return values.astype(np.int64)


def _share(share: float) -> float:
    if isinstance(share, bool) or not isinstance(share, float | int | np.floating) or not 0 <= share < 1:
        raise InputError(f"share: {share!r} was given; use a number from 0 to below 1.")
    return float(share)
