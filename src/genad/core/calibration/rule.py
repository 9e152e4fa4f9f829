"""The form that every threshold rule has: parameters in, a fitted threshold out, JSON both ways."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

from genad.core.calibration._checks import as_scores
from genad.core.calibration._saved import NamedRule
from genad.core.calibration.fitted import FittedThreshold
from genad.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import ArrayLike, NDArray


class Threshold(NamedRule, ABC):
    """Base of the threshold rules.

    Attributes
    ----------
    holdout : bool
        Whether the promise holds only for scores of samples kept away from training.
    needs_labels : bool
        Whether :meth:`fit` needs labels.
    """

    holdout: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False
    _what: ClassVar[str] = "a threshold"

    def fit(self, scores: ArrayLike, labels: ArrayLike | None = None, *, unit: str = "row") -> FittedThreshold:
        """Turn calibration scores into a threshold.

        Parameters
        ----------
        scores
            Calibration scores (n,), higher = more anomalous; for streams oldest first.
        labels
            Labels (n,): 1 anomaly, 0 normal, -1 unlabelled. Only :class:`BestF` reads them.
        unit
            What one score stands for ("row", "time step", "image"), for the promise in words.

        Returns
        -------
        FittedThreshold
            The threshold and its promise.

        Raises
        ------
        InputError
            If there is no score, a score is NaN, or labels are missing or wrong.

        Warns
        -----
        CalibrationWarning
            If there are too few scores for what was asked.
        """
        return self._fit(as_scores("scores", scores), labels, unit)

    @abstractmethod
    def _fit(self, scores: NDArray[np.float64], labels: ArrayLike | None, unit: str, /) -> FittedThreshold:
        """Fit on checked scores."""

    def _result(
        self,
        value: float,
        promise: str,
        n: int,
        attainable: float | None = None,
        **figures: Any,
    ) -> FittedThreshold:
        parameters = {**self._parameters(), **figures}
        return FittedThreshold(value, type(self).__name__, promise, n, attainable, parameters)

    def _parameters(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """Return the rule and its parameters as plain values that strict JSON keeps."""
        parameters = {
            name: str(value) if isinstance(value, float) and math.isinf(value) else value
            for name, value in self._parameters().items()
        }
        return {"rule": type(self).__name__, "parameters": parameters}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild a rule from what :meth:`to_dict` returned.

        Parameters
        ----------
        data
            The dictionary. On the base class any rule is accepted.

        Returns
        -------
        Threshold
            An equal rule.

        Raises
        ------
        InputError
            If the rule or a parameter is not known, or is out of range.
        """
        kind = cls._class_of(data)
        try:
            made = kind(
                **{
                    name: float(value) if value in {"inf", "-inf"} else value
                    for name, value in data["parameters"].items()
                }
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{data['rule']}: the saved form is broken ({error}).") from error
        return made


def threshold_from_dict(data: Mapping[str, Any]) -> Threshold:
    """Rebuild any threshold rule from what its ``to_dict`` returned.

    Parameters
    ----------
    data
        The dictionary.

    Returns
    -------
    Threshold
        An equal rule.

    Raises
    ------
    InputError
        If the rule or a parameter is not known, or is out of range.

    Examples
    --------
    >>> from genad.core.calibration import Conformal
    >>> threshold_from_dict(Conformal(alpha=0.05).to_dict())
    Conformal(alpha=0.05)
    """
    return Threshold.from_dict(data)
