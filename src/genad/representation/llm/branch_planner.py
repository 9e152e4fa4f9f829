"""A branch planner: one plan to a goal, with a way into every safe set kept open for as long as a decision may take.

Examples
--------
From the left of a hall to its right, with a place to stop in a corner; for four steps nothing has to be decided.

>>> hall, corner = Box((0, 0), (10, 10)), Box((0, 0), (1, 1))
>>> planner = BranchPlanner((9, 5), [corner], hall, horizon_steps=20, prefix_steps=4)
>>> on, stop = planner.plan([1, 5, 0, 0]).states.round(2)
>>> on[:6, 0].tolist(), stop[:6, 0].tolist()
([1.0, 1.25, 2.0, 3.0, 4.0, 5.0], [1.0, 1.25, 2.0, 3.0, 4.0, 4.75])
>>> on[-1, :2].tolist(), bool(corner.contains(stop[-1, :2])), bool(hall.contains(stop[:, :2]).all())
([9.0, 5.0], True, True)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genad.core.parameters import check_number, check_whole
from genad.core.persistence import read_parameter_with
from genad.errors import InputError
from genad.representation.llm.branch_programme import Floats, best_inputs

# By how much, in metres or m/s, a computed path may miss a bound. The solver keeps each to 1e-7.
_SLACK = 1e-6


class InfeasibleError(InputError):
    """There is no plan from this state: its message says which safe sets cannot be reached, and what would help."""


@dataclass(frozen=True)
class Box:
    """The positions between two corners, a set with its edges.

    Parameters
    ----------
    low_m, high_m : (float, float)
        The corners of lowest and of highest coordinates, in metres.

    Examples
    --------
    >>> Box((0, 0), (4, 2)).contains([[1, 1], [1, 3]]).tolist()
    [True, False]
    """

    low_m: tuple[float, float]
    high_m: tuple[float, float]

    def __post_init__(self) -> None:
        low, high = _point("low_m", self.low_m), _point("high_m", self.high_m)
        if low[0] > high[0] or low[1] > high[1]:
            raise InputError(f"low_m: {low!r} is above high_m {high!r}; use low_m <= high_m in both coordinates.")
        # Plain numbers, whatever was given, so that equal boxes are equal and JSON holds them.
        object.__setattr__(self, "low_m", low)
        object.__setattr__(self, "high_m", high)

    def contains(self, positions_m: ArrayLike) -> NDArray[np.bool_]:
        """Return which positions, an array (..., 2), lie in the box; a millionth of a metre beyond an edge still does.

        Parameters
        ----------
        positions_m : array-like of shape (..., 2)

        Returns
        -------
        ndarray of bool, shape (...)
        """
        at = np.asarray(positions_m, np.float64)
        inside = (at >= np.array(self.low_m) - _SLACK) & (at <= np.array(self.high_m) + _SLACK)
        return np.asarray(inside.all(-1))


@dataclass(frozen=True, eq=False)
class Plan:
    """The nominal trajectory and one for each fallback, which begin with the same inputs.

    Attributes
    ----------
    states : ndarray of shape (d + 1, H + 1, 4)
        Position (x, y) in metres and velocity (x, y) in m/s, first of the nominal trajectory, then of the d fallbacks
        in their order; at the start and after each of H steps.
    inputs : ndarray of shape (d + 1, H, 2)
        Accelerations in m/s², each held for a step. The first ``prefix_steps`` are the same numbers in all.
    prefix_steps : int
        K, the steps that all trajectories share.
    """

    states: Floats
    inputs: Floats
    prefix_steps: int


@dataclass(frozen=True)
class BranchPlanner:
    """Plan to a goal so that every fallback stays possible while a decision is waited for.

    The system is a double integrator in the plane: a body that moves without friction, whose acceleration is held for
    a step. One programme finds d + 1 trajectories of H steps at once, the nominal one and one for each of d fallbacks.
    All keep to the room and to the bounds of speed and acceleration. Each fallback ends at rest in its own safe set,
    where it can stay for ever. Their first K inputs are the same (consensus): whoever follows them for up to K steps,
    not yet knowing which trajectory will be wanted, can still take any. Among all such plans it takes the one whose
    nominal trajectory has the least sum, over the steps, of its distance to the goal.

    Distances and effort are sums of absolute values and all sets are boxes, so that it is a linear programme: the
    solver (HiGHS) finds the best plan, or proves that there is none; nothing depends on where a search began. It falls
    into one small programme for each coordinate, as nothing couples the two.

    **When to use.** As ``planner`` of :class:`~genad.representation.llm.aesop.AESOP`, or by hand in a
    :class:`~genad.representation.llm.branch_pilot.Pilot`: for what moves in free space and can be told accelerations,
    and is safe at rest in known places.

    **When it fails.** The model is exact and nothing disturbs it; leave a margin in the boxes for what does. Bounds
    hold after each step; between two, a path can be outside by up to ``max_acceleration_m_s2 * step_seconds**2 / 8``.
    There are no obstacles within a room, as avoiding one is not a linear programme: give a room without them. Each
    coordinate has its own bounds, so that the speed on a diagonal is up to 1.41 times higher. A plan of 20 steps and 2
    fallbacks took 0.03 s, one of 140 steps and 3 fallbacks 0.15 s, which must be well below a step.

    Parameters
    ----------
    goal_m : (float, float)
        Where the nominal trajectory goes.
    safe_sets : sequence of Box
        One for each fallback, in their order.
    room : Box
        What no trajectory leaves.
    horizon_steps : int
        H, the length of the trajectories; long enough to stop from full speed and reach every safe set.
    prefix_steps : int
        K, the steps that a decision may take, below H; not less than the ``patience`` of the detector it serves.
    step_seconds : float
        Length of a step.
    max_speed_m_s, max_acceleration_m_s2 : float
        Bounds of each coordinate.
    effort_s2 : float
        Metres that the sum of distances may grow to spare 1 m/s² of acceleration in one step.

    Raises
    ------
    InputError
        For boxes outside the room, or numbers out of range.

    Examples
    --------
    >>> corners = Box((0, 0), (1, 1)), Box((0, 9), (1, 10))
    >>> planner = BranchPlanner((9, 5), corners, Box((0, 0), (10, 10)), horizon_steps=20, prefix_steps=4)
    >>> plan = planner.plan([1, 5, 0, 0])
    >>> plan.states.shape, plan.inputs.shape, bool((plan.inputs[:, :4] == plan.inputs[0, :4]).all())
    ((3, 21, 4), (3, 20, 2), True)
    >>> planner.plan([9.5, 5, 1, 0])
    Traceback (most recent call last):
    genad.representation.llm.branch_planner.InfeasibleError: state: there is no plan from [9.5, 5.0, 1.0, 0.0]...
    """

    goal_m: tuple[float, float]
    safe_sets: tuple[Box, ...]
    room: Box
    horizon_steps: int = 40
    prefix_steps: int = 10
    step_seconds: float = 1.0
    max_speed_m_s: float = 1.0
    max_acceleration_m_s2: float = 0.5
    effort_s2: float = 0.01

    def __post_init__(self) -> None:
        object.__setattr__(self, "goal_m", _point("goal_m", self.goal_m))
        if not isinstance(self.safe_sets, Sequence) or not self.safe_sets:
            raise InputError(f"safe_sets: {self.safe_sets!r} was given; use a list of at least one Box.")
        object.__setattr__(self, "safe_sets", tuple(self.safe_sets))
        for name, box in [("room", self.room), *((f"safe_sets[{i}]", box) for i, box in enumerate(self.safe_sets))]:
            if not isinstance(box, Box):
                raise InputError(f"{name}: {box!r} was given; use a Box of two corners, in metres.")
            if not self.room.contains([box.low_m, box.high_m]).all():
                raise InputError(f"{name}: {box!r} reaches outside the room {self.room!r}; let it lie within.")
        if not self.room.contains(self.goal_m):
            raise InputError(f"goal_m: {self.goal_m!r} is outside the room {self.room!r}; use a point within.")
        check_whole(self, "prefix_steps", "horizon_steps")
        if self.prefix_steps >= self.horizon_steps:
            raise InputError(
                f"prefix_steps: {self.prefix_steps!r} was given; it must be below horizon_steps, which is "
                f"{self.horizon_steps!r}: use fewer, or a longer horizon."
            )
        for name in ("step_seconds", "max_speed_m_s", "max_acceleration_m_s2"):
            check_number(self, name, "(0, inf)")
        check_number(self, "effort_s2", "[0, inf)")

    # ------------------------------------------------------------------ plans

    def plan(self, state: ArrayLike) -> Plan:
        """Return the best plan from a state.

        Parameters
        ----------
        state : array-like of shape (4,)
            Position (x, y) in metres and velocity (x, y) in m/s.

        Returns
        -------
        Plan

        Raises
        ------
        InputError
            When ``state`` is not four finite numbers.
        InfeasibleError
            When no plan keeps all fallbacks possible.
        """
        start = as_state(state)
        if not self.room.contains(start[:2]) or np.abs(start[2:]).max() > self.max_speed_m_s + _SLACK:
            raise InfeasibleError(
                f"state: there is no plan from {start.tolist()}: it is outside the room {self.room!r}, or faster than "
                f"max_speed_m_s={self.max_speed_m_s!r}; plan from a state within the bounds."
            )
        inputs = self._inputs(start, self.safe_sets, self.prefix_steps)
        if inputs is None:
            raise InfeasibleError(self._why(start))
        states = np.empty((len(inputs), self.horizon_steps + 1, 4))
        states[:, 0] = start
        for h in range(self.horizon_steps):
            states[:, h + 1] = self.advance(states[:, h], inputs[:, h])
        return Plan(states, inputs, self.prefix_steps)

    def advance(self, state: ArrayLike, acceleration_m_s2: ArrayLike) -> Floats:
        """Return the state a step later, exactly.

        Parameters
        ----------
        state : array-like of shape (..., 4)
        acceleration_m_s2 : array-like of shape (..., 2)
            Held for the step.

        Returns
        -------
        ndarray of shape (..., 4)
        """
        x, a, t = np.asarray(state, np.float64), np.asarray(acceleration_m_s2, np.float64), self.step_seconds
        place, velocity = x[..., :2], x[..., 2:]
        return np.concatenate([place + t * velocity + t * t / 2 * a, velocity + t * a], axis=-1)

    def _inputs(self, start: Floats, safe: Sequence[Box], prefix: int) -> Floats | None:
        """Return the accelerations (1 + safe sets, H, 2) that share a prefix, None where there are none."""
        axes = []
        for axis in (0, 1):
            found = best_inputs(
                float(start[axis]),
                float(start[2 + axis]),
                [(box.low_m[axis], box.high_m[axis]) for box in (Box(self.goal_m, self.goal_m), *safe)],
                (self.room.low_m[axis], self.room.high_m[axis]),
                steps=self.horizon_steps,
                prefix=prefix,
                step_seconds=self.step_seconds,
                speed_m_s=self.max_speed_m_s,
                acceleration_m_s2=self.max_acceleration_m_s2,
                effort_s2=self.effort_s2,
            )
            if found is None:
                return None
            axes.append(found)
        return np.stack(axes, axis=-1)

    def _why(self, start: Floats) -> str:
        """Say why there is no plan."""
        alone = [i for i, box in enumerate(self.safe_sets, 1) if self._inputs(start, [box], 0) is None]
        seen = (
            f"no {self.horizon_steps} steps end at rest in the safe set of fallback {', '.join(map(str, alone))}"
            if alone
            else f"each safe set can be reached, but not all after the same first {self.prefix_steps} steps"
        )
        return (
            f"state: there is no plan from {start.tolist()}: {seen}; use a longer horizon_steps, a shorter "
            "prefix_steps, or larger safe sets."
        )

    # ------------------------------------------------------------------ as a parameter

    def check_fits(self, fallbacks: int, patience: int, step_seconds: float) -> None:
        """Refuse to serve a detector with other fallbacks, or one that takes longer than the shared steps.

        Parameters
        ----------
        fallbacks, patience : int
            Number of its fallbacks, and steps its reasoner may take.
        step_seconds : float

        Raises
        ------
        InputError
            For the first that does not fit.
        """
        if len(self.safe_sets) != fallbacks:
            raise InputError(
                f"planner: it has {len(self.safe_sets)} safe sets, and there are {fallbacks} fallbacks; give one for "
                "each, in their order."
            )
        if self.prefix_steps < patience:
            raise InputError(
                f"planner: its trajectories share {self.prefix_steps} steps, fewer than patience={patience!r}; use "
                f"prefix_steps={patience!r} or a lower patience."
            )
        if not np.isclose(self.step_seconds, step_seconds, rtol=1e-9, atol=0.0):
            raise InputError(
                f"planner: its steps last {self.step_seconds!r} s, and step_seconds is {step_seconds!r}; use the same."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters as plain values that JSON keeps."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Make the planner again from what :meth:`to_dict` returned.

        Examples
        --------
        >>> planner = BranchPlanner((9, 5), [Box((0, 0), (1, 1))], Box((0, 0), (10, 10)))
        >>> BranchPlanner.from_dict(planner.to_dict()) == planner
        True
        """
        boxes = {"safe_sets": tuple(Box(**box) for box in data["safe_sets"]), "room": Box(**data["room"])}
        return cls(**{**data, **boxes})


def as_state(state: ArrayLike) -> Floats:
    """Return a state as an array of shape (4,).

    Raises
    ------
    InputError
        When it is not four finite numbers.
    """
    try:
        found = np.asarray(state, np.float64)
    except (TypeError, ValueError):
        found = np.empty(0)
    if found.shape != (4,) or not np.isfinite(found).all():
        raise InputError(f"state: {state!r} was given; use four finite numbers: x, y in metres and their m/s.")
    return found


def _point(name: str, value: Any) -> tuple[float, float]:
    try:
        found = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        found = np.empty(0)
    if found.shape != (2,) or not np.isfinite(found).all():
        raise InputError(f"{name}: {value!r} was given; use two finite numbers, in metres.")
    return float(found[0]), float(found[1])


read_parameter_with("planner", BranchPlanner.from_dict)
