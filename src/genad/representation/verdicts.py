"""What a language model makes of units: verdicts, their states and maps, and questions that are asked once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from genad.foundation.answers import Status
from genad.foundation.llm import BudgetExhausted, Cancelled

T = TypeVar("T", bound=Hashable)

#: States of answers, the best first; a unit has the worst state of its answers.
STATES: tuple[Status, ...] = get_args(Status)
_AT_ONCE = 64  # questions asked together; those answered before the budget is spent count


@dataclass
class Verdicts:
    """What a language model made of some units.

    Attributes
    ----------
    scores : float64 array of shape (n,)
        Higher is more anomalous; NaN where the model abstained, which
        :meth:`~genad.representation.prompting.PromptDetector.fill` replaces.
    reasons : list of str
        Why, in the model's words or in those of the method; "" where nothing was said. Never executed.
    status : list of str
        ``"ok"``, ``"repaired"``, ``"retried"``, ``"fallback"``, ``"abstained"`` or ``"unasked"`` a unit.
    maps : float32 array of shape (n, parts) or None
        Where in the unit, one value a part, 0 beyond its end.
    """

    scores: NDArray[np.float64]
    reasons: list[str]
    status: list[str]
    maps: NDArray[np.float32] | None = None


def worst(states: Sequence[str]) -> str:
    """Return the worst of some states; "ok" when there is none.

    Examples
    --------
    >>> worst(["ok", "abstained", "repaired"])
    'abstained'
    """
    return max(states, key=STATES.index, default="ok")


def highest(values: Sequence[float]) -> float:
    """Return the highest of the values that are known, NaN when none is.

    Examples
    --------
    >>> highest([0.5, float("nan"), 2.0]), highest([])
    (2.0, nan)
    """
    known = [value for value in values if not np.isnan(value)]
    return max(known, default=float("nan"))


def padded(rows: Sequence[Sequence[float]]) -> NDArray[np.float32]:
    """Return rows of numbers of different lengths as one map: 0 beyond the end of each, and where one is NaN."""
    out = np.zeros((len(rows), max(map(len, rows), default=0)), np.float32)
    for place, row in zip(out, rows, strict=True):
        place[: len(row)] = np.nan_to_num(np.asarray(row, np.float32))
    return out


def scored_once(score: Callable[[list[T]], Any], items: Sequence[T]) -> NDArray[np.float64]:
    """Return a number for each of many things; equal ones are asked about once.

    When the budget is spent or the calls are cancelled, the rest is NaN.

    Parameters
    ----------
    score : callable
        From a list of different things to one number each.
    items : sequence of hashable things

    Examples
    --------
    >>> asked = []
    >>> def length(texts):
    ...     asked.extend(texts)
    ...     return [len(text) for text in texts]
    >>> scored_once(length, ["disk", "fan", "disk"]).tolist(), asked
    ([4.0, 3.0, 4.0], ['disk', 'fan'])
    """
    distinct = list(dict.fromkeys(items))
    found: dict[T, float] = {}
    try:
        for start in range(0, len(distinct), _AT_ONCE):
            part = distinct[start : start + _AT_ONCE]
            found.update(zip(part, np.asarray(score(part), np.float64).tolist(), strict=True))
    except (BudgetExhausted, Cancelled):
        pass
    return np.array([found.get(item, np.nan) for item in items], np.float64)
