"""Checks of hyper-parameters, whose messages name the parameter, what was found and what is accepted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from genad.errors import InputError


def check_whole(owner: Any, *names: str, low: int = 1) -> None:
    """Refuse attributes of ``owner`` that are not whole numbers of at least ``low``.

    Raises
    ------
    InputError
        For the first one that is not.
    """
    for name in names:
        value = getattr(owner, name)
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < low:
            raise InputError(f"{name}: {value!r} was given; use a whole number of at least {low}.")


def check_number(owner: Any, name: str, interval: str) -> None:
    """Refuse an attribute of ``owner`` that is not a number in ``interval``.

    Parameters
    ----------
    owner : object
    name : str
    interval : str
        As in mathematics, for instance ``"(0, 1]"`` or ``"[0, inf)"``.

    Raises
    ------
    InputError
        When it is not.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> check_number(SimpleNamespace(rate=0.5), "rate", "(0, 1]")
    >>> check_number(SimpleNamespace(rate=0), "rate", "(0, 1]")
    Traceback (most recent call last):
    genad.errors.InputError: rate: 0 was given; use a number in (0, 1].
    """
    value = getattr(owner, name)
    low, high = (float(end) for end in interval[1:-1].split(","))
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool) and not math.isnan(value)
    above = number and (value > low or (interval[0] == "[" and value == low))
    below = number and (value < high or (interval[-1] == "]" and value == high))
    if not (above and below):
        raise InputError(f"{name}: {value!r} was given; use a number in {interval}.")


def check_span(owner: Any, name: str, most: float) -> None:
    """Refuse an attribute of ``owner`` that is not ``(low, high)`` with 0 < low <= high <= ``most``.

    Raises
    ------
    InputError
        When it is not.
    """
    low, high = getattr(owner, name)
    if not 0 < low <= high <= most:
        raise InputError(f"{name}: {(low, high)!r} was given; use (low, high) with 0 < low <= high <= {most}.")


def check_flag(owner: Any, *names: str) -> None:
    """Refuse attributes of ``owner`` that are not ``True`` or ``False``.

    Raises
    ------
    InputError
        For the first one that is not.
    """
    for name in names:
        value = getattr(owner, name)
        if not isinstance(value, bool):
            raise InputError(f"{name}: {value!r} was given; use True or False.")


def check_choice(owner: Any, name: str, accepted: Sequence[str]) -> None:
    """Refuse an attribute of ``owner`` that is not one of ``accepted``.

    Raises
    ------
    InputError
        When it is not.
    """
    value = getattr(owner, name)
    if value not in accepted:
        raise InputError(f"{name}: {value!r} was given; use {' or '.join(map(repr, accepted))}.")
