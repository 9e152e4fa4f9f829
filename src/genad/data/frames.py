"""Put restored columns into the dataframe that the user gave, in its index, its labels and its types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["like_frame"]


def like_frame(given: Any, columns: Mapping[str, np.ndarray]) -> Any:
    """Return the dataframe with new values in some of its columns.

    Dates come back in the column's own unit and time zone, or as the nearest whole day in a column of days; truth
    values, text and categories in its own type. A category that the type lacks, such as the place of rare levels, is
    added to it. Numbers come back as floats, of the column's precision where it holds floats: restored values are
    fractional, so integers do not hold them (a nullable ``Int64`` of pandas becomes ``Float64``). Times of day and
    durations come back as seconds, and text that was read as numbers, truth values or dates comes back as these.

    Parameters
    ----------
    given : dataframe
        Of pandas, polars, pyarrow or another library that narwhals knows.
    columns : mapping of str to ndarray of shape (n,)
        New values by column; dates in UTC. Columns that are not named stay as they are.

    Returns
    -------
    dataframe
        Of the same library, with the index, the labels and the order of the columns.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"load": [1.0, 9.0], "on": [True, False]}, index=["a", "b"])
    >>> like_frame(frame, {"load": np.array([1.5, 2.5])})
       load     on
    a   1.5   True
    b   2.5  False
    """
    frame = nw.from_native(given, eager_only=True)
    new = {j: (old, columns[str(old.name)]) for j, old in enumerate(frame.iter_columns()) if str(old.name) in columns}
    if not frame.implementation.is_pandas_like():
        return frame.with_columns(*(_in_others(*pair) for pair in new.values())).to_native()
    made = given.copy(deep=False)
    for j, pair in new.items():
        made[given.columns[j]] = _in_pandas(*pair)
    return made


def _in_pandas(old: Any, values: np.ndarray) -> Any:
    """Return values as a series of the old one's index and, where it holds them, of its type."""
    native, dtype, kind = old.to_native(), old.dtype, values.dtype.kind
    own = native.dtype
    if kind == "M":
        values = _stamps(values, dtype)
    elif hasattr(own, "categories"):
        values, own = _among(values, own)
    new = type(native)(values, index=native.index)
    if kind == "M" and isinstance(dtype, nw.Datetime):
        return (new if dtype.time_zone is None else new.dt.tz_localize("UTC")).astype(own)
    if dtype.is_numeric() and not dtype.is_decimal() and kind in "fb":
        return new.astype((native.iloc[:0] / 1.0).dtype)
    return new.astype(own) if _holds(dtype, kind) else new


def _in_others(old: Any, values: np.ndarray) -> Any:
    """Return values as a series of the old one's library and, where it holds them, of its type."""
    dtype, kind = old.dtype, values.dtype.kind
    if kind == "M":
        values = _stamps(values, dtype)
    cells = values.tolist() if kind == "O" else np.ascontiguousarray(values)
    new = nw.new_series(old.name, cells, backend=old.implementation)
    if kind == "M" and isinstance(dtype, nw.Datetime) and dtype.time_zone is not None:
        new = new.dt.replace_time_zone("UTC").dt.convert_time_zone(dtype.time_zone)
    if isinstance(dtype, nw.Enum):
        dtype = nw.Enum(list(dict.fromkeys([*dtype.categories, *cells])))
    return new.cast(dtype) if _holds(dtype, kind) else new


def _holds(dtype: Any, kind: str) -> bool:
    """Return whether a column of this type holds restored values of this kind."""
    if kind == "M":
        return isinstance(dtype, nw.Datetime) or dtype == nw.Date
    if kind == "O":
        return isinstance(dtype, nw.Enum) or dtype in {nw.String, nw.Categorical}
    return bool(dtype == nw.Boolean if kind == "b" else dtype.is_float())


def _stamps(values: np.ndarray, dtype: Any) -> np.ndarray:
    """Return time stamps in a unit that every library takes: whole days in a column of days."""
    if dtype != nw.Date:
        return values.astype("datetime64[us]")
    # Restored days lie a little before or after midnight.
    return (values.astype("datetime64[s]") + np.timedelta64(12, "h")).astype("datetime64[D]")


def _among(levels: np.ndarray, dtype: Any) -> tuple[np.ndarray, Any]:
    """Return levels, which are text, as the categories of a pandas type, and the type with those it lacks added."""
    categories = list(dtype.categories)
    try:
        spelled = pc.cast(pa.array(categories), pa.large_string()).to_pylist()
    except (pa.ArrowException, TypeError):
        spelled = [str(category) for category in categories]
    known = dict(zip(spelled, categories, strict=True))
    found = np.empty(len(levels), dtype=object)
    found[:] = [known.get(level, level) for level in levels.tolist()]
    more = [level for level in dict.fromkeys(levels.tolist()) if level not in known]
    return found, type(dtype)([*categories, *more], ordered=dtype.ordered) if more else dtype
