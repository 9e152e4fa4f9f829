"""The answer of every threshold rule: a number, and one sentence that says what it promises."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from genad.core.calibration._checks import as_scores, check_number, check_state
from genad.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class FittedThreshold:
    """A threshold that has seen its calibration scores.

    Parameters
    ----------
    value
        The threshold, in units of the score; a score above it is flagged. May be infinite.
    rule
        Name of the rule, for instance ``"Conformal"``.
    promise
        One plain sentence for users: what the flag means and on what it rests.
    n
        Number of calibration scores used.
    attainable
        Lowest false-alarm level these `n` scores can promise; `None` for rules without one.
    parameters
        Parameters of the rule and figures of the fit, plain JSON values.

    Examples
    --------
    >>> fitted = FittedThreshold(2.0, "FixedValue", "Flags scores above 2.", n=0)
    >>> fitted.flag([1.5, 2.5]).tolist()
    [False, True]
    """

    value: float
    rule: str
    promise: str
    n: int
    attainable: float | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        check_number("value", self.value, closed="lh")

    def flag(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Flag scores above the threshold.

        Parameters
        ----------
        scores
            Scores of any shape; NaN is refused, because it would silently count as normal.

        Returns
        -------
        ndarray of bool
            ``scores > value``, of the shape of `scores`.

        Raises
        ------
        InputError
            If a score is NaN.
        """
        values = as_scores("scores", scores, flat=False, allow_empty=True)
        return np.asarray(values > self.value)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that strict JSON keeps exactly."""
        value = self.value if math.isfinite(self.value) else str(self.value)
        return {
            "rule": self.rule,
            "value": value,
            "promise": self.promise,
            "n": self.n,
            "attainable": self.attainable,
            "parameters": dict(self.parameters),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FittedThreshold:
        """Rebuild a fitted threshold from what :meth:`to_dict` returned.

        Parameters
        ----------
        data
            The dictionary.

        Returns
        -------
        FittedThreshold
            An equal threshold.

        Raises
        ------
        InputError
            If a part is missing or not of its type.
        """
        data = check_state("a fitted threshold", data)
        try:
            attainable = data["attainable"]
            return cls(
                value=float(data["value"]),
                rule=data["rule"],
                promise=str(data["promise"]),
                n=int(data["n"]),
                attainable=None if attainable is None else float(attainable),
                parameters=dict(data["parameters"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"a fitted threshold: the saved form is broken ({error}).") from error


def percent(share: float) -> str:
    """Write a share as a percentage with three digits, for instance ``'0.1 %'``."""
    return f"{100.0 * share:.3g} %"


def plural(unit: str, n: int = 2) -> str:
    """Write a unit as many as `n` of it need: row, rows; entry, entries; series, series."""
    if n == 1 or unit.endswith("s"):
        return unit
    if unit.endswith("y") and unit[-2:-1] not in set("aeiou"):
        return f"{unit[:-1]}ies"
    return f"{unit}s"
