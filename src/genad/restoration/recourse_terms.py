"""What a recourse is made of: which features may change and how, and the changes found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from genad.core.detections import jsonable
from genad.core.parameters import check_choice, check_number
from genad.errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Action:
    """How a feature may be changed.

    Parameters
    ----------
    cost : float
        Of a change by one standard deviation of normal data, or to another category; above 0.
    low, high : float
        Bounds of the new value, in the user's units.
    direction : {"both", "up", "down"}
        Which way a number may go.
    integer : bool
        Whether the number changes by whole steps; those of an integer column always do.

    Raises
    ------
    InputError
        When a parameter is out of range.
    """

    cost: float = 1.0
    low: float = -math.inf
    high: float = math.inf
    direction: Literal["both", "up", "down"] = "both"
    integer: bool = False

    def __post_init__(self) -> None:
        check_number(self, "cost", "(0, inf)")
        check_choice(self, "direction", ("both", "up", "down"))
        if not self.low <= self.high:
            raise InputError(f"low: {self.low!r} was given with high={self.high!r}; use low <= high.")


@dataclass(frozen=True)
class Change:
    """One feature that is to change.

    Attributes
    ----------
    name : str
        The feature.
    observed, suggested : object
        Its value, and the one that would look normal, in the user's units; None when missing.
    cost : float
        What the change costs.
    """

    name: str
    observed: Any
    suggested: Any
    cost: float

    def __str__(self) -> str:
        return f"{self.name}: {_plain(self.observed)} to {_plain(self.suggested)}"


@dataclass(frozen=True)
class Recourse:
    """What of a row would have to be different for a detector to find it normal, or that nothing was found.

    Attributes
    ----------
    index : int
        Position of the row.
    found : bool
        Whether the changes bring the score down to ``goal``.
    score, new_score : float
        Before and after the changes.
    threshold, goal : float
        Of the detector, and the score that was to be reached: that below it that the margin asks for, or the threshold
        itself for a row that is not flagged.
    changes : tuple of Change
        The dearest first; empty when the row is normal as it is. Without success those that came nearest.
    cost : float
        Of all changes.
    row : dict of str to object
        The whole row after the changes.
    p_value : float or None
        What the second detector thinks of the new row; None without one.
    reason : str
        Why nothing was found; "" on success.
    """

    index: int
    found: bool
    score: float
    new_score: float
    threshold: float
    goal: float
    changes: tuple[Change, ...]
    cost: float
    row: dict[str, Any]
    p_value: float | None = None
    reason: str = ""

    def __str__(self) -> str:
        head = f"#{self.index}  score {self.score:.4g} to {self.new_score:.4g}, threshold {self.threshold:.4g}"
        if not self.found:
            return f"{head}\n  {self.reason}"
        told = [f"  {change}" for change in self.changes] or ["  normal as it is"]
        return "\n".join([head, *told])

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain = {k: jsonable(v) for k, v in vars(self).items() if k != "changes"}
        return plain | {"changes": [{k: jsonable(v) for k, v in vars(c).items()} for c in self.changes]}


def _plain(value: Any) -> str:
    if value is None:
        return "missing"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
