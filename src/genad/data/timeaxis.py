"""Look at the time stamps of a series: step, gaps, and the stretches no window may leave."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from genad.data.columns import ColumnKind, from_numpy
from genad.data.table import as_cells
from genad.errors import DataWarning, InputError, InputTypeError

__all__ = ["TimeAxis", "inspect_time", "time_index", "warn_time"]

_NEAR = 0.12  # calendar months differ by less than this from their median
_JITTER_SHARE = 0.05
_GAP_SHARE = 0.1  # more "gaps" than this are the rhythm of the data, such as weekends
_GAP_STEPS = 1.5
_GAP_SPREADS = 5.0


@dataclass(frozen=True)
class TimeAxis:
    """What the time stamps of one series say.

    Parameters
    ----------
    step : float
        Median distance of neighbours, in seconds for dates and in units of time otherwise; NaN
        for a single row.
    irregular : bool
        Whether more than 5 % of the distances are off the step by more than 12 %, or more than
        10 % of them are longer than one and a half steps.
    gaps : list of (int, float)
        First row after each gap, and the gap's length in seconds (units of time). In a regular
        series a distance above 1.5 steps is a gap, in an irregular one a distance above five times
        the 90 % quantile.
    n_missing_steps : int
        How many steps the gaps leave out, rounded.
    duplicates : int
        How many stamps equal the one before; above 0 only if not strict.
    descending : bool
        Whether time runs backwards somewhere; True only if not strict.
    segments : ndarray of int, shape (k, 2)
        Half-open row intervals between the gaps.
    """

    step: float
    irregular: bool
    gaps: list[tuple[int, float]]
    n_missing_steps: int
    duplicates: int = 0
    descending: bool = False
    segments: np.ndarray = field(default_factory=lambda: np.empty((0, 2), dtype=np.int64))


def seconds_between(time: np.ndarray) -> np.ndarray:
    """Return the distances of neighbouring stamps.

    Parameters
    ----------
    time : ndarray of shape (n,)
        datetime64 or numbers.

    Returns
    -------
    ndarray of shape (n - 1,), float64
        Seconds for dates, else units of time.
    """
    distance = np.diff(time)
    if time.dtype.kind == "M":
        return np.asarray(distance / np.timedelta64(1, "s"), dtype=np.float64)
    return distance.astype(np.float64)


def as_time(time: Any, name: str = "time") -> np.ndarray:
    """Bring time stamps to datetime64 or numbers.

    Parameters
    ----------
    time : array-like of shape (n,)
        Dates, ISO text, or numbers.
    name : str, default "time"
        Where they are from, for messages.

    Returns
    -------
    ndarray of shape (n,)
        datetime64, or a number dtype.

    Raises
    ------
    InputError
        A stamp is missing or infinite, text is no ISO date, or the shape is not (n,).
    InputTypeError
        Truth values and the like.
    """
    values = as_cells(time)
    if values.ndim != 1:
        msg = f"{name} has shape {values.shape}: give one time stamp per row"
        raise InputError(msg)
    column = from_numpy(values, name)
    if column.kind is ColumnKind.CATEGORICAL:
        text = next(v for v in column.values if v is not None)
        msg = (
            f"{name} holds text that is no ISO date, such as {text!r}: write time stamps like "
            "2024-05-31 or 2024-05-31T13:45:00, or give numbers"
        )
        raise InputError(msg)
    if column.kind is ColumnKind.BOOLEAN:
        msg = f"{name} holds truth values: give dates or numbers"
        raise InputTypeError(msg)
    values = column.values
    bad = np.isnat(values) if values.dtype.kind == "M" else ~np.isfinite(values)
    if bad.any():
        row = int(np.argmax(bad))
        msg = (
            f"{name} is missing or infinite in row {row} ({int(bad.sum())} rows in all): "
            "drop these rows, or fill in their time"
        )
        raise InputError(msg)
    return values


def time_index(X: Any) -> np.ndarray | None:
    """Return the dates (UTC) or starts of periods in the index of a pandas dataframe; None where it holds others.

    Examples
    --------
    >>> import pandas as pd
    >>> time_index(pd.DataFrame({"load": [1.0]}, index=pd.DatetimeIndex(["2024-01-01"]))).shape
    (1,)
    """
    index = getattr(X, "index", None)
    kind = type(index).__name__
    if kind not in {"DatetimeIndex", "PeriodIndex"} or index is None:
        return None
    if kind == "PeriodIndex":
        index = index.to_timestamp()
    elif index.tz is not None:
        index = index.tz_convert(None)
    return np.asarray(index.to_numpy())


def inspect_time(
    time: Any,
    *,
    name: str = "time",
    rows: Sequence[int] | np.ndarray | None = None,
    strict: bool = True,
    warn: bool = True,
) -> TimeAxis:
    """Look for duplicates, backward steps, gaps and irregular sampling.

    Parameters
    ----------
    time : array-like of shape (n,)
        Dates, ISO text or numbers, of one series.
    name : str, default "time"
        Where they are from, for messages.
    rows : sequence of int, optional
        Row numbers of the stamps in the user's data, for messages.
    strict : bool, default True
        Whether duplicates and backward steps are errors.
    warn : bool, default True
        Whether gaps and irregular sampling give a warning.

    Returns
    -------
    TimeAxis
        Step, gaps and segments.

    Raises
    ------
    InputError
        A stamp is missing, comes twice, or is before the one of the previous row.

    Warns
    -----
    DataWarning
        Gaps, or irregular sampling.

    Examples
    --------
    >>> axis = inspect_time([0.0, 1.0, 2.0, 10.0, 11.0], warn=False, strict=True)
    >>> axis.step, axis.irregular
    (1.0, True)
    >>> inspect_time([*range(20), *range(25, 40)], warn=False).segments.tolist()
    [[0, 20], [20, 35]]
    """
    values = as_time(time, name)
    n = values.size
    distance = seconds_between(values)
    duplicates, backward = int((distance == 0).sum()), bool((distance < 0).any())
    if strict and (duplicates or backward):
        raise _disorder(values, distance, name, rows)
    forward = distance[distance > 0]
    if not forward.size:
        whole = np.array([[0, n]], dtype=np.int64)
        return TimeAxis(float("nan"), False, [], 0, duplicates, backward, whole)
    step = float(np.median(forward))
    long = forward > _GAP_STEPS * step
    jitter = (np.abs(forward - step) > _NEAR * step) & ~long
    irregular = bool(jitter.mean() > _JITTER_SHARE or long.mean() > _GAP_SHARE)
    limit = _GAP_STEPS * step
    if irregular:
        limit = max(limit, _GAP_SPREADS * float(np.quantile(forward, 0.9)))
    after = np.flatnonzero(distance > limit) + 1
    gaps = [(int(i), float(distance[i - 1])) for i in after]
    left_out = sum(max(0, round(length / step) - 1) for _, length in gaps)
    edges = np.concatenate([[0], after, [n]]).astype(np.int64)
    segments = np.stack([edges[:-1], edges[1:]], axis=1)
    axis = TimeAxis(step, irregular, gaps, left_out, duplicates, backward, segments)
    if warn:
        unit = "s" if values.dtype.kind == "M" else "units of time"
        warn_time([axis], name, unit, stacklevel=3)
    return axis


def _disorder(
    values: np.ndarray,
    distance: np.ndarray,
    name: str,
    rows: Sequence[int] | np.ndarray | None,
) -> InputError:
    first = int(np.argmax(distance <= 0)) + 1
    row = first if rows is None else int(rows[first])
    before = first - 1 if rows is None else int(rows[first - 1])
    shown = str(values[first])
    if distance[first - 1] == 0:
        count = int((distance == 0).sum())
        return InputError(
            f"{name} {shown} of row {row} is the same as in row {before} ({count} duplicates in "
            "all): drop or average rows of equal time, or pass entity= with the column that tells "
            "several series apart"
        )
    if bool((distance < 0).all()):
        return InputError(
            f"{name} runs backwards: row {row} is {shown}, before row {before} "
            f"({values[first - 1]!s}). Reverse the rows, X[::-1]"
        )
    return InputError(
        f"{name} steps back in row {row}: {shown} comes after {values[first - 1]!s} of row "
        f"{before}. Sort the rows by time, or pass entity= with the column that tells several "
        "series apart"
    )


def warn_time(axes: Sequence[TimeAxis], name: str, unit: str, *, stacklevel: int = 2) -> None:
    """Give one warning about the gaps and one about the irregular sampling of some series.

    Parameters
    ----------
    axes : sequence of TimeAxis
        One per series.
    name : str
        Where the stamps are from.
    unit : str
        Unit of the distances, for the message.
    stacklevel : int, default 2
        As `warnings.warn` takes it.

    Warns
    -----
    DataWarning
        If any series has gaps or is irregular.
    """
    gaps = [gap for axis in axes for gap in axis.gaps]
    of = f" in {len(axes)} series" if len(axes) > 1 else ""
    if gaps:
        row, largest = max(gaps, key=lambda gap: gap[1])
        where = "" if of else f", before row {row}"
        left_out = sum(axis.n_missing_steps for axis in axes)
        msg = (
            f"{name} has {len(gaps)} gap{'s' * (len(gaps) > 1)}{of} (largest {largest:g} "
            f"{unit}{where}; {left_out} steps missing): windows do not cross them. "
            "Fill in the missing rows if they should"
        )
        warnings.warn(msg, DataWarning, stacklevel=stacklevel + 1)
    uneven = [axis for axis in axes if axis.irregular]
    if uneven:
        steps = f"median step {float(np.median([axis.step for axis in uneven])):g} {unit}"
        share = f"{len(uneven)} of {len(axes)} series" if of else "the series"
        msg = (
            f"{name} is irregular in {share} ({steps}): rows are taken as equal steps. "
            "Resample to a fixed step if their distance matters"
        )
        warnings.warn(msg, DataWarning, stacklevel=stacklevel + 1)
