r"""Who follows the plans of a branch planner: on while all is normal, in doubt as all branches do, then along one.

Examples
--------
A detector of odd observations, a reasoner that knows what to do about smoke, and a way out in two corners.

>>> from genad.foundation.scripted import Scripted
>>> from genad.representation.llm.aesop import AESOP
>>> from genad.representation.llm.branch_planner import Box
>>> corners = Box((0, 0), (1, 1)), Box((0, 9), (1, 10))
>>> planner = BranchPlanner((9, 5), corners, Box((0, 0), (10, 10)), horizon_steps=25, prefix_steps=4)
>>> model = Scripted(lambda messages: "There is a fire.\nDECISION: 2")
>>> detector = AESOP(
...     llm=model, embedder=model, fallbacks=["stop below", "stop above"], patience=4, planner=planner
... ).fit([[f"shelf {i}", f"pallet {i}"] for i in range(500)])
>>> steps = list(react(detector, ["shelf 7", "pallet 9", "smoke and flames", "shelf 8"], [1, 5, 0, 0]))
>>> list(dict.fromkeys(step.move.status for step in steps)), bool(corners[1].contains(steps[-1].after[:2]))
(['nominal', 'waiting', 'fallback'], True)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from genad.errors import InputError
from genad.representation.llm.aesop_reasoner import CONTINUE
from genad.representation.llm.branch_planner import BranchPlanner, InfeasibleError, Plan, as_state
from genad.representation.llm.branch_programme import Floats

if TYPE_CHECKING:
    from genad.representation.llm.aesop import AESOP


@dataclass(frozen=True, eq=False)
class Move:
    """What is done in a step.

    Attributes
    ----------
    acceleration_m_s2 : ndarray of shape (2,)
        Held for the step.
    status : {"nominal", "waiting", "fallback", "late", "infeasible"}
        ``"nominal"``: the first step of a plan made from here; ``"waiting"``: a step that all trajectories share;
        ``"fallback"``: a step of the fallback decided on; ``"late"``: of the conservative one, as no decision came
        within the shared steps; ``"infeasible"``: of the conservative one of the last plan, as there is none from here.
    branch : int
        The trajectory of the plan it belongs to: 0 the nominal one, fallbacks from 1.
    """

    acceleration_m_s2: Floats
    status: str
    branch: int


class Pilot:
    """Follow the plans of a planner, step by step; whatever happens, a way into a safe set is at hand.

    It begins nominal, where each step makes a plan anew and does its first input. After :meth:`alarm` it waits: it does
    the inputs that all trajectories share, until :meth:`commit` says which of them is wanted, or none of these inputs
    is left. To continue makes it nominal again; any fallback is followed to its end, and the safe set not left again.

    Where there is no plan, the conservative fallback of the last one is followed. It is still possible, as only steps
    that it shares with the nominal trajectory have been done; so the first plan is the only one that must exist. The
    next step of a nominal pilot tries again; after an alarm that fallback is final, whatever the decision.

    Parameters
    ----------
    planner : BranchPlanner
    conservative : int
        The fallback, from 1, for when there is neither a decision in time nor a plan.

    Attributes
    ----------
    mode : {"nominal", "waiting", "fallback"}
    plan : Plan or None
        The plan that is followed.

    Examples
    --------
    >>> from genad.representation.llm.branch_planner import Box
    >>> safe = Box((0, 0), (1, 1)), Box((0, 8), (2, 9))
    >>> planner = BranchPlanner((9, 5), safe, Box((0, 0), (10, 10)), horizon_steps=20, prefix_steps=2)
    >>> pilot, state = Pilot(planner), [1, 5, 0, 0]
    >>> pilot.alarm(state)
    >>> for _ in range(3):
    ...     move = pilot.step(state)
    ...     state = planner.advance(state, move.acceleration_m_s2)
    ...     print(move.status, move.branch)
    waiting 0
    waiting 0
    late 1
    >>> pilot.commit(2)
    1
    """

    def __init__(self, planner: BranchPlanner, conservative: int = 1) -> None:
        if not isinstance(planner, BranchPlanner):
            raise InputError(f"planner: a {type(planner).__name__} was given; use a BranchPlanner.")
        self.planner = planner
        self.conservative = self._branch("conservative", conservative, 1)
        self.mode = "nominal"
        self.plan: Plan | None = None
        self._done = 0  # steps of the plan
        self._taken, self._status = CONTINUE, "nominal"

    def _branch(self, name: str, number: int, low: int) -> int:
        most = len(self.planner.safe_sets)
        whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
        if not whole or not low <= number <= most:
            raise InputError(f"{name}: {number!r} was given; use a whole number from {low} to {most}.")
        return int(number)

    @property
    def at_rest(self) -> bool:
        """Whether a fallback was followed to its end, at rest in its safe set."""
        return self.mode == "fallback" and self._done >= self.planner.horizon_steps

    def alarm(self, state: ArrayLike) -> None:
        """Make a plan, all of whose shared steps lie ahead, and wait for a decision.

        Parameters
        ----------
        state : array-like of shape (4,)
            As measured now.

        Raises
        ------
        InputError
            When a decision is waited for already, or was taken.
        InfeasibleError
            When there is no plan, and was none before.
        """
        if self.mode != "nominal":
            raise InputError(f"alarm: the pilot is in mode {self.mode!r}; raise alarms while it is 'nominal'.")
        if self._replan(state):
            self.mode = "waiting"
        else:
            self._fall_back(self.conservative, "infeasible")

    def commit(self, decision: int | None) -> int:
        """Take the trajectory decided on, and return which is taken.

        Parameters
        ----------
        decision : int or None
            0 to continue, or the fallback from 1; None when no decision came in time.

        Returns
        -------
        int
            Another one than ``decision`` when the conservative fallback had been taken already.

        Raises
        ------
        InputError
            When there is no such trajectory, or there was no alarm.
        """
        number = None if decision is None else self._branch("decision", decision, 0)
        if self.mode == "nominal":
            raise InputError("decision: no alarm awaits one; call alarm(state) first.")
        if self.mode == "waiting":
            if number == CONTINUE:
                self.mode = "nominal"
                return CONTINUE
            self._fall_back(number or self.conservative, "fallback" if number else "late")
        return self._taken

    def step(self, state: ArrayLike) -> Move:
        """Return what to do in this step.

        Parameters
        ----------
        state : array-like of shape (4,)
            As measured now; a nominal pilot plans from it.

        Returns
        -------
        Move

        Raises
        ------
        InfeasibleError
            When there is no plan, and was none before.
        """
        if self.mode == "waiting":
            if self._done < self.planner.prefix_steps:
                return self._move(CONTINUE, "waiting")
            self._fall_back(self.conservative, "late")
        if self.mode == "fallback":
            return self._move(self._taken, self._status)
        if self._replan(state):
            return self._move(CONTINUE, "nominal")
        return self._move(self.conservative, "infeasible")

    def _replan(self, state: ArrayLike) -> bool:
        """Make a plan from a state if there is one; the last one stays otherwise."""
        try:
            plan = self.planner.plan(state)
        except InfeasibleError:
            if self.plan is None:
                raise
            return False
        self.plan, self._done = plan, 0
        return True

    def _fall_back(self, branch: int, status: str) -> None:
        self.mode, self._taken, self._status = "fallback", branch, status

    def _move(self, branch: int, status: str) -> Move:
        """Return the next input of a trajectory; nothing is done after its end, which is at rest."""
        assert self.plan is not None  # noqa: S101 - for the type checker: every mode begins with a plan
        inputs = self.plan.inputs[branch]
        now = inputs[self._done].copy() if self._done < len(inputs) else np.zeros(2)
        self._done += 1
        return Move(now, status, branch)


@dataclass(frozen=True, eq=False)
class Step:
    """A step of a system that is watched.

    Attributes
    ----------
    observation : str or None
        None after the last one.
    score : float
        Of the observation; NaN where it was not judged, as a decision was awaited or a fallback followed.
    alarm : bool
        Whether it raised an alarm.
    state, after : ndarray of shape (4,)
        Before and after the step.
    move : Move
    """

    observation: str | None
    score: float
    alarm: bool
    state: Floats
    after: Floats
    move: Move


def react(
    detector: AESOP,
    observations: Iterable[str],
    state: ArrayLike,
    *,
    drive: Callable[[Floats, Floats], ArrayLike] | None = None,
) -> Iterator[Step]:
    """Drive a system by a plan while a detector watches what it observes, one observation a step.

    Without an alarm the first nominal input is done. With one, the inputs that all trajectories share are done for as
    many steps as the reasoner took, and then the trajectory it decided on. After ``patience`` steps without a decision
    it is the conservative fallback; so it is at once for a detector without a reasoner. What is observed while a
    decision is awaited is not judged: what is dangerous and stays raises its own alarm at the next step that continues.

    The call of the reasoner returns before its steps are played, so that this is for simulations, and for recorded
    observations. A machine that cannot stand still drives a :class:`Pilot` itself, and asks in a thread.

    Parameters
    ----------
    detector : AESOP
        Fitted, with a planner.
    observations : iterable of str
    state : array-like of shape (4,)
        Where it begins: x, y in metres and their velocities in m/s.
    drive : callable, optional
        From a state and an acceleration to the state measured a step later; the planner's own model by default.

    Returns
    -------
    iterator of Step
        Until the observations end while nothing is awaited, or a fallback has come to rest in its safe set.

    Raises
    ------
    InputError
        When the detector has no planner, or one that does not fit it.
    InfeasibleError
        At the first step, when there is no plan from there.
    """
    planner = detector.planner
    if planner is None:
        raise InputError("detector: it has no planner; make it with planner=BranchPlanner(...).")
    pilot = Pilot(planner, detector.conservative)
    # It may have been given to a detector that was fitted without one.
    planner.check_fits(len(detector.fallbacks), detector.patience, detector.step_seconds)
    if isinstance(observations, str):
        raise InputError(f"observations: {observations!r} was given; use a list of texts, one for each step.")
    return _driven(detector, pilot, iter(observations), as_state(state), drive or planner.advance)


def _driven(
    detector: AESOP,
    pilot: Pilot,
    texts: Iterator[str],
    now: Floats,
    drive: Callable[[Floats, Floats], ArrayLike],
) -> Iterator[Step]:
    wait, decision = 0, None
    text = next(texts, None)
    while not pilot.at_rest:
        score, alarm = math.nan, False
        if pilot.mode == "waiting" and wait == 0:
            pilot.commit(decision)
        if pilot.mode == "nominal":
            if text is None:
                return
            score = float(detector.anomaly_score([[text]])[0])
            alarm = bool(detector.alarms_[0])
            if alarm:
                pilot.alarm(now)
                wait, decision = _awaited(detector)
                if pilot.mode == "waiting" and wait == 0:
                    pilot.commit(decision)
        move = pilot.step(now)
        after = as_state(drive(now, move.acceleration_m_s2))
        yield Step(text, score, alarm, now, after, move)
        now, wait, text = after, wait - 1, next(texts, None)


def _awaited(detector: AESOP) -> tuple[int, int | None]:
    """Return for how many steps a decision is waited for, and which it is, None when it does not come in time."""
    if not detector.reasoner:
        return 0, detector.conservative
    steps = detector.latencies_[0]
    return (steps, detector.decisions_[0]) if steps <= detector.patience else (detector.patience, None)
