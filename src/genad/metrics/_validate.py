"""Check labels, scores and flags once, with one wording, for every metric."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from genad.errors import InputError, InputTypeError

if TYPE_CHECKING:
    import numpy.typing as npt

    BoolArray: TypeAlias = npt.NDArray[np.bool_]
    FloatArray: TypeAlias = npt.NDArray[np.float64]
    IntArray: TypeAlias = npt.NDArray[np.int64]

_SKLEARN_HINT = "If these are scikit-learn predictions (-1 = outlier, 1 = inlier), pass {name} == -1."
_UNLABELLED_HINT = (
    "-1 means unlabelled: keep only the labelled rows, for instance "
    "mask = {name} != -1, and index every array with the mask."
)


def check_numeric(array: npt.NDArray[Any], name: str) -> None:
    """Refuse an array of anything but booleans and real numbers."""
    if array.dtype.kind not in "biuf":
        msg = f"{name} holds values of type {array.dtype}; booleans or real numbers are accepted."
        raise InputTypeError(msg)


def _vector(values: object, name: str) -> npt.NDArray[np.generic]:
    """Return `values` as a numeric one-dimensional array, or say why it is not one."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        msg = f"{name} cannot be read as an array ({error}); pass a one-dimensional array."
        raise InputTypeError(msg) from error
    if array.ndim != 1:
        msg = (
            f"{name} has shape {array.shape}; a one-dimensional array of shape (n,) is needed. "
            f"Flatten it with np.ravel if each entry is one unit."
        )
        raise InputError(msg)
    if array.dtype == object:
        # A nullable column arrives as objects: numbers are fine, anything else is named below.
        with contextlib.suppress(TypeError, ValueError):
            array = array.astype(np.float64)
    check_numeric(array, name)
    return array


def _binary(values: object, name: str, hint: str) -> BoolArray:
    """Return a boolean copy of an array that holds only 0 and 1."""
    array = _vector(values, name)
    if array.dtype.kind == "b":
        return array.astype(np.bool_)
    bad = (array != 0) & (array != 1)
    if bad.any():
        first = int(np.argmax(bad))
        found = array[first].item()
        msg = (
            f"{name} holds {found!r} at position {first} ({int(bad.sum())} such values of "
            f"{array.size}); only 0 (normal) and 1 (anomaly), or booleans, are accepted."
        )
        if found == -1:
            msg = f"{msg} {hint.format(name=name)}"
        raise InputError(msg)
    return array.astype(np.bool_)


def check_flags(flags: object, name: str = "flags") -> BoolArray:
    """Check an array of decisions.

    Parameters
    ----------
    flags : array-like of shape (n,)
        1 or True where an anomaly was declared.
    name : str
        How messages call the argument.

    Returns
    -------
    ndarray of bool, shape (n,)
        The decisions; `n` may be 0.

    Raises
    ------
    InputError
        Not one-dimensional, or a value other than 0 and 1.
    InputTypeError
        Not numeric.
    """
    return _binary(flags, name, _SKLEARN_HINT)


def check_labels(y_true: object, *, need_normal: bool = True, purpose: str = "This metric") -> BoolArray:
    """Check the ground truth: 1 = anomaly, 0 = normal.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        The labels.
    need_normal : bool
        Whether at least one normal unit is needed besides at least one anomaly.
    purpose : str
        The metric's name, put in the message when a class is missing.

    Returns
    -------
    ndarray of bool, shape (n,)
        True where anomalous.

    Raises
    ------
    InputError
        Empty, not one-dimensional, a value other than 0 and 1, or a class that is missing.
    InputTypeError
        Not numeric.
    """
    labels = _binary(y_true, "y_true", _UNLABELLED_HINT)
    if labels.size == 0:
        msg = "y_true is empty; at least one labelled unit is needed."
        raise InputError(msg)
    if not labels.any():
        msg = (
            f"y_true holds no anomaly (all {labels.size} labels are 0). {purpose} is undefined "
            f"without one: evaluate on data with at least one label 1."
        )
        raise InputError(msg)
    if need_normal and labels.all():
        msg = (
            f"y_true holds no normal unit (all {labels.size} labels are 1). {purpose} is "
            f"undefined without one: evaluate on data with at least one label 0."
        )
        raise InputError(msg)
    return labels


def check_scores(scores: object) -> FloatArray:
    """Check anomaly scores: real, finite, higher = more anomalous.

    Parameters
    ----------
    scores : array-like of shape (n,)
        The scores.

    Returns
    -------
    ndarray of float64, shape (n,)
        The scores.

    Raises
    ------
    InputError
        Not one-dimensional, or a value that is NaN or infinite.
    InputTypeError
        Not numeric.
    """
    array = _vector(scores, "scores").astype(np.float64)
    bad = ~np.isfinite(array)
    if bad.any():
        first = int(np.argmax(bad))
        msg = (
            f"scores holds {array[first]} at position {first} ({int(bad.sum())} non-finite of "
            f"{array.size}); only finite numbers can be ranked. Drop these rows from every "
            f"array, or mend the detector that made them."
        )
        raise InputError(msg)
    return array


def _same_length(labels: BoolArray, other: npt.NDArray[np.generic], name: str) -> None:
    if labels.size != other.size:
        msg = (
            f"y_true has {labels.size} entries but {name} has {other.size}; both need one entry "
            f"per unit, in the same order."
        )
        raise InputError(msg)


def check_scored(
    y_true: object, scores: object, *, need_normal: bool = True, purpose: str = "This metric"
) -> tuple[BoolArray, FloatArray]:
    """Check labels and scores together; see `check_labels` and `check_scores`.

    Returns
    -------
    labels : ndarray of bool, shape (n,)
    scores : ndarray of float64, shape (n,)

    Raises
    ------
    InputError
        As the two checks, and when the lengths differ.
    """
    labels = check_labels(y_true, need_normal=need_normal, purpose=purpose)
    values = check_scores(scores)
    _same_length(labels, values, "scores")
    return labels, values


def check_flagged(y_true: object, flags: object, *, purpose: str = "This metric") -> tuple[BoolArray, BoolArray]:
    """Check labels and flags together; see `check_labels` and `check_flags`.

    Returns
    -------
    labels : ndarray of bool, shape (n,)
    flags : ndarray of bool, shape (n,)

    Raises
    ------
    InputError
        As the two checks, and when the lengths differ.
    """
    labels = check_labels(y_true, need_normal=False, purpose=purpose)
    decisions = check_flags(flags)
    _same_length(labels, decisions, "flags")
    return labels, decisions


def check_positive(value: float, name: str) -> float:
    """Return `value` when it is a finite number above 0, else raise `InputError`."""
    number = float(value)
    if not np.isfinite(number) or number <= 0:
        msg = f"{name} is {value!r}; a finite number above 0 is needed."
        raise InputError(msg)
    return number


def check_count(value: object, name: str, low: int, high: int | None = None) -> int:
    """Return `value` when it is a whole number in [low, high], else raise."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        msg = f"{name} is {value!r} ({type(value).__name__}); a whole number is needed."
        raise InputTypeError(msg)
    number = int(value)
    if number < low or (high is not None and number > high):
        accepted = f"at least {low}" if high is None else f"from {low} to {high}"
        msg = f"{name} is {number}; a whole number {accepted} is needed."
        raise InputError(msg)
    return number


def f_score(precision: float, recall: float) -> float:
    """Return the harmonic mean of precision and recall, 0 when both are 0."""
    total = precision + recall
    return 2 * precision * recall / total if total > 0 else 0.0
