"""The planner of AESOP: known plans, shared steps, and a way into a safe set whatever is decided, whenever."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from genad.core.calibration import Conformal
from genad.core.persistence import pack, unpack
from genad.errors import InputError
from genad.foundation.scripted import Scripted
from genad.representation.llm import branch_programme
from genad.representation.llm.aesop import AESOP
from genad.representation.llm.branch_pilot import Pilot, react
from genad.representation.llm.branch_planner import Box, BranchPlanner, InfeasibleError

HALL = Box((0, 0), (10, 10))
CORNERS = Box((0, 0), (1, 1)), Box((0, 9), (1, 10))
GOAL = (9.0, 5.0)
START = np.array([1.0, 5.0, 0.0, 0.0])
H, K = 18, 3  # steps of a trajectory, and those shared


def arena(**changed):
    usual = {"goal_m": GOAL, "safe_sets": CORNERS, "room": HALL, "horizon_steps": H, "prefix_steps": K}
    return BranchPlanner(**(usual | changed))


def assert_kept(planner, plan, start):
    """Check a plan against the equations of motion and every bound, from its inputs alone."""
    t = planner.step_seconds
    assert (plan.states[:, 0] == start).all()
    velocity = start[2:] + t * np.cumsum(plan.inputs, axis=1)
    before = np.concatenate([np.broadcast_to(start[2:], velocity[:, :1].shape), velocity[:, :-1]], axis=1)
    place = start[:2] + np.cumsum(t * (before + velocity) / 2, axis=1)  # the mean velocity of a step
    np.testing.assert_allclose(plan.states[:, 1:], np.concatenate([place, velocity], axis=2), atol=1e-9)
    assert np.abs(plan.inputs).max() <= planner.max_acceleration_m_s2 + 1e-6
    assert np.abs(velocity).max() <= planner.max_speed_m_s + 1e-6
    assert planner.room.contains(place).all()
    shared = plan.prefix_steps
    assert (plan.inputs[:, :shared] == plan.inputs[0, :shared]).all()
    assert (plan.states[:, : shared + 1] == plan.states[0, : shared + 1]).all()
    assert np.abs(velocity[1:, -1]).max() <= 1e-6
    assert all(box.contains(place[i, -1]) for i, box in enumerate(planner.safe_sets, 1))


def cost(planner, plan):
    apart = np.abs(plan.states[0, 1:, :2] - planner.goal_m).sum()
    return apart + planner.effort_s2 * np.abs(plan.inputs[0]).sum()


# ---------------------------------------------------------------------- plans


def test_a_far_goal_is_approached_by_full_acceleration_up_to_full_speed():
    wide = Box((0, 0), (1000, 1000))
    planner = arena(goal_m=(900, 500), safe_sets=[wide], room=wide, horizon_steps=12, prefix_steps=1,
                    step_seconds=0.5, max_speed_m_s=2.0)  # fmt: skip
    plan = planner.plan([100, 500, 0, 0])
    assert_kept(planner, plan, np.array([100.0, 500, 0, 0]))
    times = 0.5 * np.arange(13)
    np.testing.assert_allclose(plan.inputs[0], [[0.5, 0.0]] * 8 + [[0.0, 0.0]] * 4, atol=1e-9)
    expected = 100 + np.where(times < 4, 0.25 * times**2, 4 + 2 * (times - 4))
    np.testing.assert_allclose(plan.states[0, :, 0], expected, atol=1e-9)


def test_the_farthest_point_of_rest_is_reached_by_bang_bang_and_no_farther_one_is():
    # From rest to rest in H steps of t seconds: a (t H / 2)^2.
    reach = 0.5 * (0.5 * 10 / 2) ** 2
    point = (1 + reach, 5.0)
    limits = {"horizon_steps": 10, "prefix_steps": 4, "step_seconds": 0.5, "max_speed_m_s": 5.0}
    planner = arena(goal_m=point, safe_sets=[Box(point, point)], **limits)
    plan = planner.plan(START)
    np.testing.assert_allclose(plan.inputs[1, :, 0], [0.5] * 5 + [-0.5] * 5, atol=1e-6)
    np.testing.assert_allclose(plan.inputs[:, :, 1], 0, atol=1e-9)
    beyond = (1 + reach + 1e-3, 5.0)
    with pytest.raises(InfeasibleError, match="no 10 steps end at rest in the safe set of fallback 1"):
        arena(goal_m=beyond, safe_sets=[Box(beyond, beyond)], **limits).plan(START)


def test_at_rest_at_the_goal_in_the_safe_sets_it_stays():
    planner = arena(goal_m=START[:2], safe_sets=[HALL, Box((0, 4), (2, 6))])
    plan = planner.plan(START)
    np.testing.assert_allclose(plan.inputs, 0, atol=1e-9)
    np.testing.assert_allclose(plan.states, np.broadcast_to(START, plan.states.shape), atol=1e-9)


def test_the_trajectories_share_their_first_inputs_and_then_part():
    planner = arena()
    plan = planner.plan(START)
    assert_kept(planner, plan, START)
    assert (plan.states.shape, plan.inputs.shape, plan.prefix_steps) == ((3, H + 1, 4), (3, H, 2), K)
    last = plan.states[:, -1, :2]
    assert np.linalg.norm(last[:, None] - last, axis=-1)[np.triu_indices(3, 1)].min() > 5


def test_to_share_more_steps_costs_the_nominal_way_and_what_fallbacks_weigh_does_not(monkeypatch):
    start = [5.5, 5, 0.5, 0]
    planners = [arena(prefix_steps=k, horizon_steps=14) for k in (1, 3, 5)]
    weighed = [cost(planner, planner.plan(start)) for planner in planners]
    assert weighed[0] < weighed[1] - 0.01 < weighed[2] - 0.02
    monkeypatch.setattr(branch_programme, "FALLBACKS", 0.0)
    free = [cost(planner, planner.plan(start)) for planner in planners]
    np.testing.assert_allclose(weighed, free, atol=1e-6)


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(
    place=st.tuples(*[st.floats(0, 10)] * 2),
    velocity=st.tuples(*[st.floats(-1, 1)] * 2),
    prefix=st.sampled_from([1, 4, H - 1]),
)
def test_every_plan_keeps_every_bound_and_is_missed_near_walls_or_with_few_steps_of_its_own_alone(
    place, velocity, prefix
):
    start = np.array([*place, *velocity])
    planner = arena(prefix_steps=prefix)
    # Where it comes to rest if it brakes as hard as it can, at 0.5 m/s².
    stop = start[:2] + np.sign(start[2:]) * start[2:] ** 2
    roomy = np.abs(stop - 5).max() <= 4 and prefix < H - 1
    try:
        plan = planner.plan(start)
    except InfeasibleError:
        assert not roomy
    else:
        assert_kept(planner, plan, start)
        assert HALL.contains(stop)
        assert prefix < H - 1  # a last step of their own does not take them to corners apart


@pytest.mark.parametrize("k", [1, K])
def test_after_any_of_the_shared_steps_every_fallback_is_still_possible(k):
    planner = arena(prefix_steps=k, horizon_steps=16)
    plan, state = planner.plan(START), START
    for done in range(k + 1):
        for branch, box in enumerate(CORNERS, 1):
            ahead = state
            for now in plan.inputs[branch, done:]:
                ahead = planner.advance(ahead, now)
                assert HALL.contains(ahead[:2])
            assert box.contains(ahead[:2])
            # It can be found anew from here as well, within the steps that are left.
            left = arena(safe_sets=[box], prefix_steps=1, horizon_steps=16 - done)
            assert_kept(left, left.plan(state), state)
        state = planner.advance(state, plan.inputs[0, done])


def test_without_shared_steps_a_fallback_is_lost_while_the_decision_is_waited_for():
    steps, wait = 12, 6
    shelter = Box((0, 4), (3, 6))
    naive = arena(safe_sets=[HALL], horizon_steps=steps, prefix_steps=1)
    careful = arena(safe_sets=[shelter], horizon_steps=steps, prefix_steps=wait)
    left = arena(safe_sets=[shelter], horizon_steps=steps - wait, prefix_steps=1)
    lost = naive.plan(START).states[0, wait]
    with pytest.raises(InfeasibleError, match="no 6 steps end at rest in the safe set of fallback 1"):
        left.plan(lost)
    kept = careful.plan(START).states[0, wait]
    assert_kept(left, left.plan(kept), kept)


def test_no_plan_says_which_safe_set_is_out_of_reach_or_that_the_shared_steps_are():
    ends = Box((0, 4.9), (0.5, 5.1)), Box((9.5, 4.9), (10, 5.1))
    middle = [5, 5, 0, 0]
    assert arena(safe_sets=ends, horizon_steps=8, prefix_steps=1).plan(middle).prefix_steps == 1
    with pytest.raises(InfeasibleError, match="each safe set can be reached, but not all after the same first 5 steps"):
        arena(safe_sets=ends, horizon_steps=8, prefix_steps=5).plan([5, 5, 0.5, 0])
    with pytest.raises(InfeasibleError, match="safe set of fallback 1; use a longer horizon_steps"):
        arena(safe_sets=ends, horizon_steps=8).plan([7, 5, 0, 0])
    with pytest.raises(InfeasibleError, match="safe set of fallback 1, 2"):
        arena().plan([9.9, 5, 1, 0])
    for outside in ([10.1, 5, 0, 0], [5, 5, 1.1, 0]):
        with pytest.raises(InfeasibleError, match=r"outside the room .* or faster than max_speed_m_s=1\.0"):
            arena().plan(outside)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"goal_m": (1, 2, 3)}, "goal_m: .* use two finite numbers"),
        ({"goal_m": "door"}, "goal_m: 'door'"),
        ({"goal_m": (11, 5)}, "goal_m: .* is outside the room"),
        ({"safe_sets": ()}, "safe_sets: .* at least one Box"),
        ({"safe_sets": [((0, 0), (1, 1))]}, r"safe_sets\[0\]: .* use a Box"),
        ({"safe_sets": [HALL, Box((9, 9), (11, 10))]}, r"safe_sets\[1\]: .* reaches outside the room"),
        ({"room": None}, "room: None was given; use a Box"),
        ({"prefix_steps": 0}, "prefix_steps: 0"),
        ({"prefix_steps": H}, f"prefix_steps: {H} was given; it must be below horizon_steps, which is {H}"),
        ({"horizon_steps": 2.5}, "horizon_steps: 2.5"),
        ({"step_seconds": 0}, "step_seconds: 0"),
        ({"max_speed_m_s": -1}, "max_speed_m_s: -1"),
        ({"max_acceleration_m_s2": float("inf")}, "max_acceleration_m_s2: inf"),
        ({"effort_s2": -0.1}, "effort_s2: -0.1"),
    ],
)
def test_what_a_planner_cannot_use_is_named(changed, words):
    with pytest.raises(InputError, match=words):
        arena(**changed)


def test_what_boxes_and_states_cannot_be_is_named():
    with pytest.raises(InputError, match=r"low_m: \(2.0, 0.0\) is above high_m"):
        Box((2, 0), (1, 1))
    with pytest.raises(InputError, match=r"high_m: .* two finite numbers"):
        Box((0, 0), (1, float("nan")))
    for state in ([1, 2, 3], [1, 2, 3, float("nan")], "here", None):
        with pytest.raises(InputError, match=r"state: .* use four finite numbers"):
            arena().plan(state)


# ---------------------------------------------------------------------- the pilot


def fly(pilot, state, steps):
    """Follow a pilot in its planner's own world; return statuses and the last state, having checked the bounds."""
    seen = []
    for _ in range(steps):
        move = pilot.step(state)
        assert np.abs(move.acceleration_m_s2).max() <= 0.5 + 1e-6
        state = pilot.planner.advance(state, move.acceleration_m_s2)
        assert HALL.contains(state[:2])
        assert np.abs(state[2:]).max() <= 1 + 1e-6
        seen.append((move.status, move.branch))
    return seen, state


@pytest.mark.parametrize("delay", [0, K - 1, K])
@pytest.mark.parametrize("branch", [1, 2])
def test_a_decision_in_time_ends_in_its_safe_set(delay, branch):
    pilot = Pilot(arena())
    seen, state = fly(pilot, START, 2)
    assert seen == [("nominal", 0)] * 2
    pilot.alarm(state)
    seen, state = fly(pilot, state, delay)
    assert seen == [("waiting", 0)] * delay
    assert pilot.commit(branch) == branch
    seen, state = fly(pilot, state, H - delay)
    assert seen == [("fallback", branch)] * (H - delay)
    assert pilot.at_rest
    assert CORNERS[branch - 1].contains(state[:2])
    _, later = fly(pilot, state, 5)
    np.testing.assert_allclose(later, [*state[:2], 0, 0], atol=1e-5)


@pytest.mark.parametrize("conservative", [1, 2])
def test_a_decision_that_comes_late_or_never_is_the_conservative_fallback(conservative):
    pilot = Pilot(arena(), conservative)
    pilot.alarm(START)
    seen, state = fly(pilot, START, K + 1)
    assert seen == [("waiting", 0)] * K + [("late", conservative)]
    assert pilot.commit(3 - conservative) == conservative  # and who decided is told so
    assert pilot.commit(0) == conservative
    _, state = fly(pilot, state, H - K - 1)
    assert CORNERS[conservative - 1].contains(state[:2])
    never = Pilot(arena(), conservative)
    never.alarm(START)
    assert never.commit(None) == conservative
    assert never.step(START).status == "late"


def test_to_continue_reaches_the_goal():
    pilot = Pilot(arena())
    pilot.alarm(START)
    _, state = fly(pilot, START, K)
    assert pilot.commit(0) == 0
    seen, state = fly(pilot, state, 20)
    assert set(seen) == {("nominal", 0)}
    np.testing.assert_allclose(state, [*GOAL, 0, 0], atol=1e-5)


def test_where_there_is_no_plan_the_conservative_fallback_of_the_last_one_is_followed():
    pilot = Pilot(arena(), conservative=2)
    _, state = fly(pilot, START, 3)
    plan = pilot.plan
    gone = [9.9, 5, 1, 0]  # as if it were measured there: no plan from here
    for done in (1, 2):
        move = pilot.step(gone)
        assert (move.status, move.branch) == ("infeasible", 2)
        assert (move.acceleration_m_s2 == plan.inputs[2, done]).all()
        state = pilot.planner.advance(state, move.acceleration_m_s2)
    assert pilot.step(state).status == "nominal"  # and on again where there is one


def test_an_alarm_where_there_is_no_plan_makes_the_fallback_final():
    pilot = Pilot(arena())
    _, state = fly(pilot, START, 5)
    pilot.alarm([9.9, 5, 1, 0])
    assert pilot.commit(2) == 1
    seen, state = fly(pilot, state, H - 1)
    assert seen == [("infeasible", 1)] * (H - 1)
    assert pilot.at_rest
    assert CORNERS[0].contains(state[:2])


def test_a_nominal_run_is_safe_even_if_the_rest_of_it_has_no_plan():
    """After each nominal step, the last plan's fallback leads on into the safe set: nothing ends in the open."""
    pilot, state = Pilot(arena(horizon_steps=14)), START
    for _ in range(10):
        _, state = fly(pilot, state, 1)
        ahead = state
        for now in pilot.plan.inputs[1, pilot._done :]:
            ahead = pilot.planner.advance(ahead, now)
        assert CORNERS[0].contains(ahead[:2])
        assert np.abs(ahead[2:]).max() < 1e-6


def test_what_a_pilot_cannot_do_is_named():
    pilot = Pilot(arena())
    with pytest.raises(InputError, match="no alarm awaits one"):
        pilot.commit(1)
    with pytest.raises(InfeasibleError, match="no plan"):
        pilot.step([9.9, 5, 1, 0])
    with pytest.raises(InfeasibleError, match="no plan"):
        pilot.alarm([9.9, 5, 1, 0])
    pilot.alarm(START)
    for wrong in (3, -1, True, "1", 1.0):
        with pytest.raises(InputError, match=f"decision: {wrong!r} was given; use a whole number from 0 to 2"):
            pilot.commit(wrong)
    with pytest.raises(InputError, match="mode 'waiting'"):
        pilot.alarm(START)
    with pytest.raises(InputError, match=r"conservative: 0 .* from 1 to 2"):
        Pilot(arena(), 0)
    with pytest.raises(InputError, match="planner: a str"):
        Pilot("arena")


# ---------------------------------------------------------------------- with the detector

CALM = [f"{thing} at {place}" for thing in ("shelf", "pallet", "cart") for place in ("gate", "dock", "aisle", "bay")]
SMOKE = "smoke and flames everywhere"


def watch(answer="DECISION: 2", **changed):
    """Return a detector with a planner, and the model behind it."""
    model = Scripted(lambda messages: answer)
    given = {"fallbacks": ("stop below", "stop above"), "patience": K, "planner": arena(), "embedder": model.embed}
    detector = AESOP(llm=model, threshold=Conformal(alpha=0.1), **(given | changed))
    return detector.fit([[text] for text in CALM * 5]), model


def delayed(monkeypatch, steps):
    """Let each answer take so many steps of a second."""
    clock = itertools.count()
    monkeypatch.setattr(
        "genad.representation.llm.aesop_reasoner.monotonic", lambda: float(steps * (next(clock) % 2))
    )  # fmt: skip


def journey(steps):
    states = np.array([step.after for step in steps])
    assert HALL.contains(states[:, :2]).all()
    assert np.abs(states[:, 2:]).max() <= 1 + 1e-6
    return [step.move.status for step in steps], states[-1]


def test_without_an_alarm_it_drives_to_the_goal_and_asks_nothing():
    detector, model = watch()
    steps = list(react(detector, CALM, START))
    status, last = journey(steps)
    assert status == ["nominal"] * len(CALM)
    assert not model.requests
    assert not any(step.alarm for step in steps)
    assert np.isfinite([step.score for step in steps]).all()
    np.testing.assert_allclose(last, [*GOAL, 0, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("delay", "answer", "waited", "status", "corner"),
    [
        (0, "DECISION: 2", 0, "fallback", 1),
        (K - 1, "DECISION: 2", K - 1, "fallback", 1),
        (K, "DECISION: 2", K, "fallback", 1),
        (K + 1, "DECISION: 2", K, "late", 0),
        (K + 1, "DECISION: 0", K, "late", 0),
        (1, "Fly away!", 1, "fallback", 0),
        (K, "DECISION: 7", K, "fallback", 0),
        (K + 1, "", K, "late", 0),
    ],
)
def test_an_alarm_ends_in_the_safe_set_decided_on_or_the_conservative_one(
    delay, answer, waited, status, corner, monkeypatch
):
    delayed(monkeypatch, delay)
    detector, _ = watch(answer)
    steps = list(react(detector, [*CALM[:3], SMOKE, CALM[0]], START))
    seen, last = journey(steps)
    assert seen == ["nominal"] * 3 + ["waiting"] * waited + [status] * (H - waited)
    assert [step.alarm for step in steps] == [False] * 3 + [True] + [False] * (H - 1)
    assert np.isnan([step.score for step in steps[4:]]).all()
    assert CORNERS[corner].contains(last[:2])
    np.testing.assert_allclose(last[2:], 0, atol=1e-6)


def test_an_alarm_that_is_dismissed_costs_no_step_of_the_way(monkeypatch):
    delayed(monkeypatch, 2)
    detector, model = watch("A drill.\nDECISION: 0")
    status, last = journey(list(react(detector, [*CALM[:3], SMOKE, *CALM[:9]], START)))
    assert status == ["nominal"] * 3 + ["waiting"] * 2 + ["nominal"] * 8
    assert len(model.requests) == 1
    np.testing.assert_allclose(last, [*GOAL, 0, 0], atol=1e-5)


def test_what_stays_odd_is_asked_about_again_and_what_is_seen_last_is_waited_for(monkeypatch):
    delayed(monkeypatch, 2)
    detector, model = watch("A drill.\nDECISION: 0")
    steps = list(react(detector, [SMOKE] * 3, START))
    assert len(model.requests) == 2  # at the first step, and when it goes on at the third
    assert [step.observation for step in steps] == [SMOKE] * 3 + [None]
    assert [step.move.status for step in steps] == ["waiting"] * 4


def test_without_a_reasoner_an_alarm_is_the_conservative_fallback_at_once():
    detector, model = watch(reasoner=False, conservative=2)
    status, last = journey(list(react(detector, [CALM[0], SMOKE], START)))
    assert status == ["nominal"] + ["fallback"] * H
    assert CORNERS[1].contains(last[:2])
    assert not model.requests


def test_what_is_measured_is_planned_from():
    detector, _ = watch(reasoner=False)
    planner = detector.planner

    def drift(state, acceleration):
        return planner.advance(state, acceleration) - np.array([0, 0.05, 0, 0])

    steps = list(react(detector, CALM * 2, START, drive=drift))
    assert {step.move.status for step in steps} == {"nominal"}
    assert np.abs(steps[-1].after[:2] - GOAL).max() < 0.15  # 24 steps of it would be 1.2 m


def test_the_loop_refuses_what_it_cannot_drive():
    detector, _ = watch(planner=None)
    with pytest.raises(InputError, match="detector: it has no planner"):
        react(detector, CALM, START)
    detector.set_params(planner=arena(prefix_steps=K - 1))
    with pytest.raises(InputError, match="planner: its trajectories share 2 steps, fewer than patience=3"):
        react(detector, CALM, START)
    detector.set_params(planner=arena())
    with pytest.raises(InputError, match="observations: 'smoke' was given"):
        react(detector, "smoke", START)
    with pytest.raises(InputError, match="state"):
        react(detector, CALM, [0, 0])
    with pytest.raises(InfeasibleError):
        next(react(detector, CALM, [9.9, 5, 1, 0]))


# ---------------------------------------------------------------------- as a parameter


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"planner": "rrt"}, "planner: a str was given; use a BranchPlanner or None"),
        ({"fallbacks": ("stop",)}, "planner: it has 2 safe sets, and there are 1 fallbacks"),
        ({"patience": K + 1}, "planner: its trajectories share 3 steps, fewer than patience=4"),
        ({"step_seconds": 0.5}, "planner: its steps last 1.0 s, and step_seconds is 0.5"),
    ],
)
def test_a_planner_must_fit_the_detector(changed, words):
    with pytest.raises(InputError, match=words):
        watch(**changed)


def test_a_planner_is_cloned_and_saved_as_plain_values_and_moves_no_score():
    detector, _ = watch(reasoner=False)
    bare, _ = watch(reasoner=False, planner=None)
    assert bare.anomaly_score([[SMOKE], CALM]).tolist() == detector.anomaly_score([[SMOKE], CALM]).tolist()
    assert clone(detector).planner == arena()
    for planner in (arena(), None):
        _, record = pack(AESOP(fallbacks=("stop below", "stop above"), patience=K, planner=planner))
        again = unpack(json.loads(json.dumps(record)), {})
        assert again.planner == planner
        assert type(again.planner) is type(planner)
    del record["parameters"]["planner"]  # as in a file from before there were planners
    assert unpack(record, {}).planner is None
    assert (again_plan := arena().plan(START).inputs).tobytes() == BranchPlanner.from_dict(
        json.loads(json.dumps(arena().to_dict()))
    ).plan(START).inputs.tobytes()
    assert again_plan.shape == (3, H, 2)
