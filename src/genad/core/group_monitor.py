"""A watch over many groups at once: each group's scores against its own calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from genad.core.calibration import ConformalMartingale
from genad.core.calibration._checks import as_scores, check_number
from genad.core.calibration.martingale import DriftRule
from genad.core.group_names import read_names, rows_by_name
from genad.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass
class GroupMonitor(DriftRule):
    """Watch the scores of many groups for drift; made by :meth:`genad.Grouped.monitor`.

    Each group has a :class:`~genad.core.calibration.ConformalMartingale` of its own, so a change in one group is not
    lost among the others, and groups may come in any order and any mix. `alpha` is divided among them: it bounds
    the probability that any of them ever raises a false alarm.

    Parameters
    ----------
    alpha
        Probability of ever raising a false alarm in any group, in (0, 1).

    Attributes
    ----------
    groups : dict of str to ConformalMartingale
        The watch over each group.
    unseen : ConformalMartingale or None
        The watch over all groups without one of their own; None where such are refused.

    Raises
    ------
    InputError
        If `alpha` is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> watch = GroupMonitor().initialize({"a": rng.normal(size=500), "b": rng.normal(size=500)})
    >>> scores, groups = rng.normal(size=400), ["a", "b"] * 200
    >>> bool(watch.run(scores, groups).any())
    False
    >>> scores[1::2] += 2.0
    >>> watch.run(scores, groups)[-2:].tolist(), list(watch.alarms)
    ([False, True], ['b'])
    """

    alpha: float = 0.01

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, 0.0, 1.0)
        self.groups: dict[str, ConformalMartingale] = {}
        self.unseen: ConformalMartingale | None = None

    def initialize(self, scores: Mapping[str, ArrayLike], unseen: ArrayLike | None = None) -> Self:
        """Start from the scores of each group's calibration.

        Parameters
        ----------
        scores
            Scores (n,) of normal samples, by group.
        unseen
            Scores that groups without any of their own are watched against, together; such are refused without.

        Returns
        -------
        GroupMonitor
            Itself.

        Raises
        ------
        InputError
            If a score is NaN, or a group has none.
        """
        level = self.alpha / (len(scores) + (unseen is not None))
        self.groups = {name: ConformalMartingale(level).initialize(some) for name, some in scores.items()}
        self.unseen = None if unseen is None else ConformalMartingale(level).initialize(unseen)
        return self

    @property
    def alarm(self) -> bool:
        """Whether any group has raised the alarm."""
        return bool(self.alarms) or (self.unseen is not None and self.unseen.alarm)

    @property
    def alarms(self) -> dict[str, int]:
        """The groups that raised the alarm, and which of its scores, counted from 1, did it."""
        return {name: watch.alarm_at for name, watch in self.groups.items() if watch.alarm_at is not None}

    def _of(self, name: str) -> ConformalMartingale:
        watch = self.groups.get(name, self.unseen)
        if watch is None:
            known = ", ".join(list(self.groups)[:10])
            raise InputError(f"groups: {name!r} is not watched (known: {known}); leave its scores out.")
        return watch

    def update(self, score: float, group: Any) -> bool:
        """Watch one more score of a group and return whether that group's alarm is on.

        Raises
        ------
        InputError
            If the score is NaN, or the group is missing or not watched.
        """
        return self._of(str(read_names([group], 1)[0])).update(score)

    def run(self, scores: ArrayLike, groups: ArrayLike) -> NDArray[np.bool_]:
        """Watch scores in their order.

        Parameters
        ----------
        scores
            Scores (n,).
        groups
            The group of each, as in the column that the detector was fitted by.

        Returns
        -------
        ndarray of bool, shape (n,)
            Whether, by then, the alarm of the score's group is on.

        Raises
        ------
        InputError
            If a score is NaN, lengths differ, or a group is missing or not watched.
        """
        values = as_scores("scores", scores, allow_empty=True)
        found = np.zeros(len(values), np.bool_)
        if not len(values):
            return found
        # All groups are looked up before any watch moves, so that a refused call changes nothing.
        asked = [(self._of(name), rows) for name, rows in rows_by_name(read_names(groups, len(values))).items()]
        for watch in dict.fromkeys(id(watch) for watch, _ in asked):
            rows = np.sort(np.concatenate([part for other, part in asked if id(other) == watch]))
            found[rows] = next(other for other, _ in asked if id(other) == watch).run(values[rows])
        return found

    def _state(self) -> dict[str, Any]:
        return {
            "groups": {name: watch.to_dict() for name, watch in self.groups.items()},
            "unseen": None if self.unseen is None else self.unseen.to_dict(),
        }

    def restore_state(self, state: Mapping[str, Any]) -> None:
        """Take over the state that :meth:`to_dict` wrote."""
        unseen = state["unseen"]
        self.groups = {str(name): ConformalMartingale.from_dict(each) for name, each in state["groups"].items()}
        self.unseen = None if unseen is None else ConformalMartingale.from_dict(unseen)
