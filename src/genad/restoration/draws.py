"""Restorers that draw: the values between which a normal sample would lie."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any, ClassVar

from torch import Tensor

from genad.core.parameters import check_number


class DrawsMixin:
    """Adds :meth:`interval` to a restorer whose network draws what may stand where something is missing."""

    #: Quantile of the draws that a restoration gives; None for their typical value.
    _level: ClassVar[float | None] = None

    def interval(self, X: Any, coverage: float = 0.8) -> tuple[Any, Any]:
        """Return the lower and the upper end between which the share ``coverage`` of all draws lies, value by value.

        Both are restorations: they differ where something was missing or had to be restored, and only there.

        Parameters
        ----------
        X : array, dataframe, Table, Series or path
            Data of the kind the detector was fitted on.
        coverage : float
            Share of the draws, in (0, 1).

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
        return draws.quantile(0.5 if self._level is None else self._level, dim=0)
