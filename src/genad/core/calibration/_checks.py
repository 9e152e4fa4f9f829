"""Argument checks shared by all of the calibration, so that one mistake has one message."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, SupportsFloat, cast

import numpy as np

from genad.errors import InputError, InputTypeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray


def as_scores(
    name: str,
    values: ArrayLike,
    *,
    flat: bool = True,
    allow_empty: bool = False,
    finite: bool = False,
) -> NDArray[np.float64]:
    """Return `values` as a float64 array of scores, or say what is wrong with them.

    Parameters
    ----------
    name
        Name of the argument, used in messages.
    values
        Scores, higher = more anomalous.
    flat
        Whether only one dimension is accepted.
    allow_empty
        Whether no score at all is accepted.
    finite
        Whether infinite scores are refused as well; NaN always is.

    Returns
    -------
    ndarray of float64
        The scores; the same memory where no conversion was needed.

    Raises
    ------
    InputTypeError
        If `values` are not real numbers.
    InputError
        If the number of dimensions is wrong, there is no score, or a score is not accepted.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "fiub" and array.size:
        raise InputTypeError(
            f"{name} must be real numbers, found an array of dtype {array.dtype}. "
            "Convert it with numpy.asarray(values, dtype=float)."
        )
    array = array.astype(np.float64, copy=False)
    if flat and array.ndim != 1:
        raise InputError(
            f"{name} must have one dimension, found shape {array.shape}. "
            "Give one score per sample, for instance values.ravel()."
        )
    if not allow_empty and not array.size:
        raise InputError(f"{name} is empty, at least one score is needed.")
    bad = ~np.isfinite(array) if finite else np.isnan(array)
    if bad.any():
        what = "NaN or infinite" if finite else "NaN"
        raise InputError(
            f"{name} must not hold {what} scores, found {int(bad.sum())}, the first at position "
            f"{int(np.flatnonzero(bad)[0])}. Drop these samples or mend the detector's score."
        )
    return array


def check_number(
    name: str,
    value: object,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    closed: str = "",
) -> float:
    """Return `value` as a float after checking that it lies in an interval.

    Parameters
    ----------
    name
        Name of the argument, used in messages.
    value
        The number to check; NaN is refused.
    low, high
        Ends of the interval.
    closed
        Which ends belong to the interval: any of ``"l"`` (low) and ``"h"`` (high).

    Returns
    -------
    float
        The number.

    Raises
    ------
    InputTypeError
        If `value` is not a real number.
    InputError
        If `value` is NaN or outside the interval.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputTypeError(f"{name} must be a number, found {value!r}.")
    number = float(cast("SupportsFloat", value))
    above = number >= low if "l" in closed else number > low
    below = number <= high if "h" in closed else number < high
    if not (above and below):
        left, right = "[" if "l" in closed else "(", "]" if "h" in closed else ")"
        raise InputError(
            f"{name} must lie in {left}{low:g}, {high:g}{right}, found {number:g}. "
            f"Give a number {'from' if 'l' in closed else 'above'} {low:g} "
            f"{'to' if 'h' in closed else 'and below'} {high:g}."
        )
    return number


def check_count(name: str, value: object, low: int) -> int:
    """Return `value` as an int that is at least `low`.

    Parameters
    ----------
    name
        Name of the argument, used in messages.
    value
        The count to check.
    low
        Smallest accepted count.

    Returns
    -------
    int
        The count.

    Raises
    ------
    InputTypeError
        If `value` is not a whole number.
    InputError
        If `value` is below `low`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputTypeError(f"{name} must be a whole number, found {value!r}.")
    if int(value) < low:
        raise InputError(f"{name} must be at least {low}, found {int(value)}.")
    return int(value)


def check_state(what: str, data: object, rule: str | None = None) -> Mapping[str, Any]:
    """Return `data` as a mapping that names its rule, the form every ``to_dict`` here writes.

    Parameters
    ----------
    what
        What is being read, used in messages.
    data
        The dictionary to read.
    rule
        Name of the only accepted rule; `None` accepts any.

    Returns
    -------
    mapping
        `data` itself.

    Raises
    ------
    InputTypeError
        If `data` is not a mapping.
    InputError
        If it names no rule, or another one.
    """
    from collections.abc import Mapping

    if not isinstance(data, Mapping):
        raise InputTypeError(f"{what} is read from a dict, found {type(data).__name__}.")
    found = data.get("rule")
    if not isinstance(found, str) or (rule is not None and found != rule):
        accepted = repr(rule) if rule else "the name of a rule"
        raise InputError(f"{what}: 'rule' must be {accepted}, found {found!r}.")
    return data
