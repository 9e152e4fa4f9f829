"""The door: check what the user passes to a detector and choose the adapter that reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import validate_data

from genad.data.adapters import Adapter, DenseAdapter, SeriesAdapter, TableAdapter
from genad.data.image import Images, holds_images, read_images
from genad.data.image.adapter import ImageAdapter
from genad.data.io import read_table
from genad.data.kinds import KINDS, Kind, kind_of_shape
from genad.data.log import Log, Sessions, holds_log, read_log
from genad.data.log.adapter import CountAdapter
from genad.data.series import Series, as_series
from genad.data.table import Table, as_table
from genad.errors import InputError, InputTypeError

if TYPE_CHECKING:
    from genad.core.detector import Detector


def validated(detector: Detector, X: Any, *, reset: bool) -> Any:
    """Check ``X`` for ``detector`` and return it as a Series, a Table, or an array of numbers.

    Parameters
    ----------
    detector : Detector
        Gains ``n_features_in_`` (and ``feature_names_in_`` from dataframes) when ``reset``.
    X : array, dataframe, Table, Series or path
        What the user passed.
    reset : bool
        Whether the call comes from ``fit``.

    Raises
    ------
    InputError
        When the data cannot be used or their kind does not fit the detector. What is wrong with the shape or the
        number of features is said in scikit-learn's words.
    InputTypeError
        When ``X`` is nothing that holds rows.
    """
    wants_series = detector.reads_as is Kind.SERIES
    if isinstance(X, str | Path):
        X = _read(X)
    if isinstance(X, Log):
        X = X.sessions()
    if not reset:
        _check_sessions(detector, X)
    if isinstance(X, Sessions):
        if reset:
            detector.n_features_in_ = len(X.vocabulary)
        return X
    if isinstance(X, Images):
        if reset:
            detector.n_features_in_ = int(np.prod(X.shape))
        return X
    if wants_series:
        series = as_series(X)
        _check_channels(detector, series, reset=reset)
        return series
    if isinstance(X, Series):
        name = type(detector).__name__
        raise InputError(f"X: a series was given to {name}, which takes single samples; use Windowed({name}()).")
    if _has_named_cells(X):
        X = as_table(X)
    if isinstance(X, Table):
        _count_features(detector, len(X.names), reset=reset)
        return X
    if hasattr(type(X), "columns"):  # asked of the type: a lazy frame would have to look for them
        # First, since it names what is wrong with a dataframe: names twice, a lazy one, a column of lists.
        table = _empty(X) if hasattr(X, "__len__") and not len(X) else as_table(X)
        _check_as_scikit_learn(detector, X, skip_check_array=True, reset=reset)
        return table
    if not hasattr(X, "toarray"):
        array = X if isinstance(X, np.ndarray) else _try_array(X)
        if array is not None and array.ndim in {3, 4, 5}:
            return _dense(detector, array, reset=reset)
        if array is not None and array.ndim == 2 and _holds_text(array):
            _count_features(detector, array.shape[1], reset=reset)
            return as_table(array)
    numbers = _check_as_scikit_learn(detector, X, dtype=[np.float64, np.float32], ensure_all_finite=False, reset=reset)
    _check_finite(numbers)
    return numbers


def _has_named_cells(X: Any) -> bool:
    """Return whether the columns have names, in a form that scikit-learn does not know."""
    if isinstance(X, np.ndarray):
        return X.dtype.names is not None
    if isinstance(X, list | tuple):
        return len(X) > 0 and all(isinstance(row, Mapping) for row in X)
    return isinstance(X, Mapping) and not hasattr(X, "toarray")  # a sparse matrix may be a dictionary


def _check_as_scikit_learn(detector: Detector, X: Any, **how: Any) -> Any:
    """Return what scikit-learn makes of ``X``; its errors, in its own words, become genad's."""
    try:
        return validate_data(detector, X, **how)
    except TypeError as error:
        raise InputTypeError(str(error)) from error
    except ValueError as error:
        raise InputError(str(error)) from error


def _check_finite(X: np.ndarray[Any, Any]) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(X.sum()):
            return
    infinite = np.isinf(X)
    if infinite.any():
        row, column = divmod(int(infinite.argmax()), X.shape[1])
        raise InputError(
            f"X: column 'x{column}' holds an infinite value ({X[row, column]}) in row {row}: replace it by NaN if it "
            "is missing, or by a finite number."
        )


def _read(path: str | Path) -> Any:
    if Path(path).is_dir() or holds_images(path):
        return read_images(path)
    return read_log(path) if holds_log(path) else read_table(path)


def _check_sessions(detector: Detector, X: Any) -> None:
    """Refuse rows for a model of sessions, and sessions for a model of anything else."""
    adapter = getattr(detector, "adapter_", None)
    if adapter is not None and isinstance(X, Sessions) != (adapter.kind is Kind.LOG):
        given = "sessions of a log were" if isinstance(X, Sessions) else "something else than a log was"
        raise InputError(f"X: {given} given; this {type(detector).__name__} was fitted on a {adapter.kind.value}.")


def make_adapter(detector: Detector, X: Any) -> Adapter:
    """Return an unfitted adapter for checked data.

    Raises
    ------
    InputError
        When the detector does not take this kind of data.
    """
    adapter: Adapter
    if isinstance(X, Images):
        adapter = ImageAdapter()
    elif isinstance(X, Sessions):
        adapter = CountAdapter()
    elif isinstance(X, Series):
        adapter = SeriesAdapter(
            window=getattr(detector, "window", None),
            default=getattr(detector, "default_window", 32),
        )
    elif isinstance(X, Table) or X.ndim == 2:
        adapter = TableAdapter()
    else:
        adapter = DenseAdapter(kind=kind_of_shape(X.shape[1:]))
    kinds = detector.card.kinds
    # Counts of events are a table to the detector, whatever they are to the user.
    reads = Kind.TABLE if isinstance(adapter, CountAdapter) else adapter.kind
    if reads not in kinds:
        accepted = ", ".join(kind.value for kind in kinds)
        raise InputError(f"X: a {adapter.kind.value} was given; {type(detector).__name__} takes: {accepted}.")
    return adapter


def _try_array(X: Any) -> Any:
    try:
        return np.asarray(X)
    except (ValueError, TypeError):
        return None


def _holds_text(array: np.ndarray[Any, Any]) -> bool:
    if array.dtype.kind in "US":
        return True
    return array.dtype == object and any(isinstance(cell, str) for cell in array[: min(len(array), 1000)].flat)


def _empty(X: Any) -> Any:
    raise InputError(f"X: the table has {len(X)} rows; at least 1 is needed.")


def _dense(detector: Detector, array: np.ndarray[Any, Any], *, reset: bool) -> np.ndarray[Any, Any]:
    if array.dtype.kind not in "biuf":
        raise InputError(f"X: an array of {array.dtype} was given; use numbers.")
    kind = kind_of_shape(array.shape[1:])
    if 0 in array.shape:
        raise InputError(f"X: an array of shape {array.shape} was given; at least 1 {KINDS[kind].unit} is needed.")
    numbers = array if array.dtype.kind == "f" else array.astype(np.float32)
    if np.isinf(numbers).any():
        raise InputError("X: the array holds infinite values; mark missing values as NaN and remove the rest.")
    if reset:
        detector.n_features_in_ = int(np.prod(array.shape[1:]))
    return numbers


def _count_features(detector: Detector, n: int, *, reset: bool) -> None:
    if reset:
        detector.n_features_in_ = n


def _check_channels(detector: Detector, series: Series, *, reset: bool) -> None:
    n = series.values.shape[1]
    if not reset and n != detector.n_features_in_:
        raise InputError(
            f"X: a series of {n} channels was given; {type(detector).__name__} was fitted on {detector.n_features_in_}."
        )
    _count_features(detector, n, reset=reset)
