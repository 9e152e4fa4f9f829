"""The linear programme of a branch planner, for one coordinate: a tree of inputs, whose stem all trajectories share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# What the ways of fallbacks weigh beside the nominal one. A linear programme has finitely many corners, so that a
# weight as small decides between plans that are equally good for the nominal way.
FALLBACKS = 1e-4


def best_inputs(
    place_m: float,
    velocity_m_s: float,
    targets_m: Sequence[tuple[float, float]],
    room_m: tuple[float, float],
    *,
    steps: int,
    prefix: int,
    step_seconds: float,
    speed_m_s: float,
    acceleration_m_s2: float,
    effort_s2: float,
) -> Floats | None:
    """Return the accelerations along one coordinate of the best trajectories that begin with the same ones.

    The first trajectory is the nominal one, whose sum of distances to its target is made least; the others end at rest
    within theirs, and go there as soon as that leaves them free to.

    Parameters
    ----------
    place_m, velocity_m_s : float
        Where they begin.
    targets_m : sequence of (float, float)
        Ends of an interval for each trajectory.
    room_m : (float, float)
    steps, prefix : int
        Of a trajectory, and of these the shared ones, from 0.
    step_seconds, speed_m_s, acceleration_m_s2, effort_s2 : float
        As in :class:`~genad.representation.llm.branch_planner.BranchPlanner`.

    Returns
    -------
    ndarray of shape (trajectories, steps) or None
        None when there are none.

    Examples
    --------
    A metre on, in four steps of a second from rest to rest.

    >>> limits = {"step_seconds": 1.0, "speed_m_s": 2.0, "acceleration_m_s2": 0.25, "effort_s2": 0.01}
    >>> best_inputs(0.0, 0.0, [(0, 0), (1, 1)], (0.0, 9.0), steps=4, prefix=0, **limits).tolist()
    [[0.0, 0.0, 0.0, 0.0], [0.25, 0.25, -0.25, -0.25]]
    >>> best_inputs(0.0, 0.0, [(0, 0), (1, 1)], (0.0, 9.0), steps=3, prefix=0, **limits) is None
    True
    """
    from scipy.optimize import linprog

    branches, first, moves, apart = _tree(steps, prefix, len(targets_m), step_seconds)
    count = len(first)
    places = np.tile(np.array(room_m, np.float64), (count, 1))
    velocities = np.tile([-speed_m_s, speed_m_s], (count, 1))
    amounts = np.tile([0.0, acceleration_m_s2], (count, 1))
    distances = np.tile([0.0, np.inf], (count, 1))
    near_far, weights = np.tile(np.array(targets_m[0], np.float64), (count, 1)), np.ones(count)
    for branch, target in zip(branches[1:], targets_m[1:], strict=True):
        near_far[branch[prefix:]], weights[branch[prefix:]] = target, FALLBACKS
        places[branch[-1]], velocities[branch[-1]] = target, 0.0
    begin = place_m + step_seconds * velocity_m_s
    found = linprog(
        np.concatenate([np.zeros(2 * count), *[effort_s2 * weights] * 2, weights]),
        A_ub=apart,
        b_ub=np.concatenate([near_far[:, 1], -near_far[:, 0]]),
        A_eq=moves,
        b_eq=np.concatenate([np.where(first, begin, 0.0), np.where(first, velocity_m_s, 0.0)]),
        bounds=np.concatenate([places, velocities, amounts, amounts, distances]),
        method="highs",
    )
    if not found.success:
        return None  # proven to have no solution, or the solver gave up: either way there is nothing to follow
    _, _, gained, lost, _ = found.x.reshape(5, count)
    return (gained - lost)[branches]


@lru_cache(maxsize=16)
def _tree(
    steps: int, prefix: int, trajectories: int, t: float
) -> tuple[NDArray[np.int64], NDArray[np.bool_], Any, Any]:
    """Return the inputs of each trajectory, which inputs come first, and the matrices that do not depend on a state.

    Each input has a node, where it leads to. The variables are, for all nodes in turn: the place, the velocity, the two
    amounts whose difference is the input and whose sum its effort, and the distance to the target.
    """
    from scipy.sparse import block_array, coo_array, eye_array

    own = steps - prefix
    branches = np.array([np.r_[:prefix, prefix + j * own : prefix + (j + 1) * own] for j in range(trajectories)])
    count = prefix + trajectories * own
    before = np.full(count, -1)
    before[branches[:, 1:]] = branches[:, :-1]
    later = np.flatnonzero(before >= 0)
    one = eye_array(count, format="csr")
    last = coo_array((np.ones(len(later)), (later, before[later])), (count, count)).tocsr()
    moves = block_array([
        [one - last, -t * last, -t * t / 2 * one, t * t / 2 * one, 0 * one],
        [None, one - last, -t * one, t * one, None],
    ])  # fmt: skip
    apart = block_array([[one, 0 * one, 0 * one, 0 * one, -one], [-one, None, None, None, -one]])
    return branches, before < 0, moves.tocsc(), apart.tocsc()
