"""Restorers that draw: the values between which a normal sample would lie, from few draws."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor

from genad.core.parameters import check_number

# Half the range between the quartiles of a standard normal distribution.
_QUARTILE = 0.6745


def quantile(draws: Tensor, level: float) -> Tensor:
    """Return the value that one more draw lies below with probability ``level``.

    Of D draws and one more of the same kind each is as likely to be the smallest, the second, and so on: the further
    one falls between two neighbours of the others, or beyond all of them, with probability ``1 / (D + 1)`` each. Taken
    for a whole population, few draws lie too close together: the middle 80 % of 20 hold some 73 % of others.

    Parameters
    ----------
    draws : Tensor of shape (D, ...)
        At least 2 draws.
    level : float
        In [0, 1]. The smallest draw stands for all levels below ``1 / (D + 1)``, and the largest for those above
        ``D / (D + 1)``.

    Returns
    -------
    Tensor of shape (...)

    Examples
    --------
    >>> quantile(torch.arange(4.0), 0.2).item(), quantile(torch.arange(4.0), 0.5).item()
    (0.0, 1.5)
    """
    count = len(draws)
    place = (level * (count + 1) - 1) / (count - 1)
    return draws.quantile(min(1.0, max(0.0, place)), dim=0)


def middle_and_spread(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Return the median (...) of few draws (D, ...), and their spread by the range between the quartiles.

    The spread is in the unit of a standard deviation: for normal draws it is near theirs.

    Examples
    --------
    >>> middle, spread = middle_and_spread(torch.distributions.Normal(5.0, 2.0).icdf(torch.arange(1, 100) / 100))
    >>> round(middle.item(), 3), round(spread.item(), 3)
    (5.0, 2.0)
    """
    low, middle, high = (quantile(draws, level) for level in (0.25, 0.5, 0.75))
    return middle, (high - low) / (2 * _QUARTILE)


def stretches(draws: Tensor, values: Tensor, coverage: float) -> Tensor:
    """Return how many times as wide an interval must be to reach each value.

    Parameters
    ----------
    draws : Tensor of shape (D, ...)
        At least 2 draws.
    values : Tensor of shape (...)
        What stood there.
    coverage : float
        Probability that the interval as it is holds a further draw, in (0, 1).

    Returns
    -------
    Tensor of shape (...)
        Distances from the median over that of the end on the same side; not finite where the two are one. Their
        quantile ``coverage`` is what makes intervals hold that share of the values.

    Examples
    --------
    >>> stretches(torch.arange(9.0).unsqueeze(1), torch.tensor([5.0, 8.0, 1.0]), 0.6)
    tensor([0.3333, 1.3333, 1.0000])
    """
    low, middle, high = (quantile(draws, level) for level in (0.5 - coverage / 2, 0.5, 0.5 + coverage / 2))
    away = values - middle
    return away / torch.where(away > 0, high - middle, low - middle)


class DrawsMixin:
    """Adds :meth:`interval` to a restorer whose network draws what may stand where something is missing."""

    #: Quantile of the draws that a restoration gives; None for their typical value.
    _level: ClassVar[float | None] = None

    def interval(self, X: Any, coverage: float = 0.8) -> tuple[Any, Any]:
        """Return the ends between which a further draw lies with probability ``coverage``, value by value.

        Both are restorations: they differ where something was missing or had to be restored, and only there.

        Parameters
        ----------
        X : array, dataframe, Table, Series or path
            Data of the kind the detector was fitted on.
        coverage : float
            Probability, in (0, 1). D draws hold a further one with ``(D - 1) / (D + 1)`` at most, 0.905 for 20; beyond
            that the ends are the smallest and the largest draw.

        Returns
        -------
        tuple of two objects
            As ``X``. Of a category both ends are its likeliest level.

        Raises
        ------
        InputError
            When ``coverage`` is out of range.
        """
        check_number(SimpleNamespace(coverage=coverage), "coverage", "(0, 1)")

        def end(level: float) -> Any:
            twin: Any = copy.copy(self)
            twin._level = level  # noqa: SLF001 - a copy of its own class
            return twin.restore(X)

        return end((1 - coverage) / 2), end((1 + coverage) / 2)

    def between(self, draws: Tensor) -> Tensor:
        """Return the quantile of draws (D, ...) in force, the median when none is."""
        return quantile(draws, 0.5 if self._level is None else self._level)
