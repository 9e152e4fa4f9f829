from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Conformal, Training
from genad.data.log import Log, Sessions
from genad.data.log.adapter import UNSEEN_EVENT
from genad.data.log.fields import FIELDS, GAP, GROUP, HOUR, USER
from genad.data.log.logins import ATTACKS, simulate_logins
from genad.errors import GenadWarning, InputError
from genad.representation.logs.login_sequence import LoginSequenceModel, _shrunk

DAY = np.timedelta64(1, "D")


def make(**settings):
    usual = {"group": "department", "longest": 24, "hidden": 32, "threshold": Conformal(0.1)}
    return LoginSequenceModel(**(usual | {"training": Training(updates=100, lr=1e-2, batch_size=32)} | settings))


def fit(detector, X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GenadWarning)
        return detector.fit(X)


@pytest.fixture(scope="module")
def logins():
    """The past, free of attacks, what came after, and what each of its sessions holds."""
    log, truth = simulate_logins(users=24, days=12, attacks=15)
    past = log.time < log.time[0] + 8 * DAY
    assert not truth[past].any()
    return log.take(past), log.take(~past), truth[~past]


@pytest.fixture(scope="module")
def fitted(logins):
    return fit(make(), logins[0])


def attacked(sessions, truth):
    """Return the attack within each session, "" for none."""
    ends = zip(sessions.offsets[:-1], sessions.offsets[1:], strict=True)
    return np.array([max(truth[sessions.rows[a:b]].tolist()) for a, b in ends])


def logons(n=1, **changed):
    """Return the morning of a user like those of the simulation."""
    start = np.datetime64("2024-03-12T09:00:00", "us")
    columns = {
        "user": ["u000"] * n, "department": ["sales"] * n, "host": ["pc-u000"] * n, "dest": ["pc-u000"] * n,
        "auth": ["interactive"] * n, "result": ["ok"] * n,
    }  # fmt: skip
    stamps = start + np.arange(n) * np.timedelta64(1, "h")
    return Log.from_messages(["logon"] * n, time=changed.pop("time", stamps), **(columns | changed))


# ---------------------------------------------------------------------- what it reads


def test_a_log_is_cut_into_stretches_of_one_user(fitted, logins):
    found = fitted.detect(logins[1])
    users = logins[1].fields["user"][found.sessions.rows]
    for a, b in zip(found.sessions.offsets[:-1], found.sessions.offsets[1:], strict=True):
        assert len(set(users[a:b])) == 1
        assert b - a <= 24
    assert fitted.adapter_.user == "user"
    assert fitted.adapter_.fields == ["host", "dest", "auth", "result"]


def test_the_tokens_of_a_record(fitted):
    log = logons(3, dest=["pc-u000", "nowhere-9", None])
    x = fitted._ingest(log, reset=False).samples.stretch(0, 1)
    adapter = fitted.adapter_
    assert [adapter.values[0][int(x.x[0, 0, USER]) - 2], adapter.values[1][int(x.x[0, 0, GROUP]) - 2]] == [
        "u000",
        "sales",
    ]
    assert x.mask[0, :, GAP].tolist() == [False, True, True]
    np.testing.assert_allclose(x.x[0, 1:, GAP], np.log1p(3600), rtol=1e-5)
    assert [adapter.said(HOUR, float(hour)) for hour in x.x[0, :, HOUR]] == ["9", "10", "11"]
    dest = FIELDS + adapter.fields.index("dest")
    assert adapter.said(dest, float(x.x[0, 0, dest])) == "pc-u000"
    assert x.x[0, 1, dest] == UNSEEN_EVENT
    assert not x.mask[0, 2, dest]


def test_a_clock_set_back_and_a_missing_time_do_no_harm(fitted):
    times = np.array(["2024-03-12T09:00:00", "2024-03-12T08:00:00", "NaT"], "datetime64[us]")
    samples = fitted._ingest(logons(3, time=times), reset=False).samples.stretch(0, 1)
    assert samples.x[0, 1, GAP] == 0
    assert not samples.mask[0, 2, [GAP, HOUR]].any()
    assert np.isfinite(fitted.anomaly_score(logons(3, time=times))).all()


def test_fields_as_asked_for_and_none_that_is_empty():
    hosts = ["a", "b"] * 100
    log = Log.from_messages(["logon"] * 200, user=hosts, host=hosts, place=[None] * 200, team=hosts)
    one = fit(make(group="team", training=Training(updates=2)), log)
    assert (one.adapter_.fields, one.adapter_.user, one.adapter_.group) == (["host"], "user", "team")
    other = fit(make(group=None, user="host", fields=("team",), training=Training(updates=2)), log)
    assert (other.adapter_.fields, other.adapter_.user, other.adapter_.group) == (["team"], "host", None)
    assert np.isfinite(other.anomaly_score(log)).all()


# ---------------------------------------------------------------------- the likelihood


def test_the_surprise_is_a_sum_of_proper_densities(fitted):
    net = fitted.net_
    context, added = torch.zeros(400, 32), [torch.zeros(400, 32) for _ in net.steps]
    gap = torch.stack([torch.linspace(-20, 20, 400), torch.ones(400)], 1)
    hours = torch.zeros(400, len(net.heads) - 1, dtype=torch.int64)
    hours[:25, 0] = torch.arange(25) + UNSEEN_EVENT
    found, _ = net.surprise(context, added, gap, hours)
    assert float(torch.trapezoid((-found[:, 0]).exp(), gap[:, 0])) == pytest.approx(1, abs=0.01)
    # Any unseen hour, and each of the 24.
    found[0, 1] -= net.rare[0]
    assert float((-found[:25, 1]).exp().sum()) == pytest.approx(1, abs=1e-4)
    # A missing field says nothing.
    assert (found[:, 2:] == 0).all()


def test_a_record_is_judged_from_what_came_before_it_alone(fitted, logins):
    sessions = logins[1].sessions(field="user", most=24)
    long = sessions.take(np.flatnonzero(sessions.lengths == 24)[:4])
    whole = fitted.anomaly_map(long)
    starts = Sessions(
        np.concatenate([long[i][:10] for i in range(4)]), np.arange(5) * 10, long.vocabulary, long.names,
        rows=np.concatenate([long.rows[long.offsets[i] :][:10] for i in range(4)]), log=long.log,
    )  # fmt: skip
    np.testing.assert_allclose(fitted.anomaly_map(starts), whole[:, :10], rtol=1e-4, atol=1e-4)


def test_fields_are_foretold_from_those_before_them(logins):
    # The result follows from the computer, which is a fair coin: it surprises nobody who reads fields in turn.
    rng = np.random.default_rng(0)
    host = rng.choice(["a", "b"], 2000)
    log = Log.from_messages(
        ["logon"] * 2000, user=[f"u{i % 100}" for i in range(2000)], host=host, result=[f"from {h}" for h in host]
    )
    detector = fit(make(group=None, top=1, longest=20), log)
    odd = [
        Log.from_messages(["logon"] * 2, user=["u1"] * 2, host=["a", "a"], result=["from a", result])
        for result in ("from a", "from b")
    ]
    usual, broken = (detector.detect(log) for log in odd)
    assert broken.scores[0] > usual.scores[0] + 3
    assert "result 'from b', where 'from a' was expected" in broken.why(0)[0]


# ---------------------------------------------------------------------- users and their peers


def test_medians_are_drawn_to_those_of_peers():
    values, owners = np.r_[np.full(50, 2.0), 8.0], np.r_[np.zeros(50, int), 1]
    found = _shrunk(values, owners, np.tile([[5.0], [1.0]], 3), few=50)
    np.testing.assert_allclose(found[0], [3.5, 5 + 3 / 51, 5.0])
    # Nothing is steadier than the least spread, 0.25 nats.
    np.testing.assert_allclose(_shrunk(values, owners, np.tile([[5.0], [0.1]], 3), few=1)[1], 0.25)


def test_each_user_is_measured_by_what_is_usual_for_him(fitted, logins):
    """A service is always the same, a person is not: the same surprise in nats means more of a service."""
    users, names = fitted.net_.users[:, 2:], fitted.adapter_.values[0]
    service = [i for i, name in enumerate(names) if name.startswith("svc")]
    people = [i for i, name in enumerate(names) if not name.startswith("svc")]
    assert users[0, service].max() < users[0, people].min()
    assert users[1, service].max() < users[1, people].mean()


def test_someone_new_is_judged_by_the_peers(fitted, logins):
    past = logins[0]
    of_sales = past.fields["department"] == "sales"
    example = past.take(np.flatnonzero(of_sales & (past.fields["user"] == "u000"))[:12])
    twin = past.take(np.flatnonzero(of_sales & (past.fields["user"] == "u000"))[:12])
    twin.fields["user"] = np.full(12, "newcomer", object)
    stranger = past.take(np.flatnonzero(of_sales & (past.fields["user"] == "u000"))[:12])
    stranger.fields["user"] = np.full(12, "newcomer", object)
    stranger.fields["department"] = np.full(12, "finance", object)
    own, new, elsewhere = (float(fitted.anomaly_score(log)[0]) for log in (example, twin, stranger))
    assert own < new < elsewhere
    # A newcomer who does what peers do does not flood the queue.
    assert new < np.quantile(fitted.calibration_scores_, 0.99) + 5


def test_how_often_something_new_comes_decides_how_much_it_surprises():
    n = 2000
    rng = np.random.default_rng(0)
    team = np.where(np.arange(n) % 2, "explorers", "clerks")
    fresh = [f"place-{i}" for i in range(n)]
    often = rng.random(n) < 0.5
    dest = np.where((team == "explorers") & often, fresh, "desk")
    log = Log.from_messages(["visit"] * n, user=[f"u{i % 60}" for i in range(n)], team=team, dest=dest)
    detector = fit(make(group="team", top=1, longest=17), log)
    visits = [
        Log.from_messages(["visit"] * 2, user=[user] * 2, team=[name] * 2, dest=["desk", "place-new"])
        for user, name in (("u1", "explorers"), ("u0", "clerks"))
    ]
    explorer, clerk = (detector.detect(log) for log in visits)
    assert clerk.scores[0] > explorer.scores[0] + 3
    assert "dest never learnt, where 'desk' was expected" in clerk.why(0)[0]
    assert detector.net_.rare[-1] > 5


# ---------------------------------------------------------------------- the answer


def test_attacks_are_found(fitted, logins):
    found = fitted.detect(logins[1])
    kinds = attacked(found.sessions, logins[2])
    scores, normal = found.scores, kinds == ""
    assert roc_auc_score(~normal, scores) > 0.8
    for kind in ATTACKS:
        here = normal | (kinds == kind)
        assert roc_auc_score(kinds[here] == kind, scores[here]) > 0.6


def test_the_score_is_the_mean_of_the_most_surprising_records(logins):
    one, three = (fit(make(top=top, training=Training(updates=20)), logins[0]) for top in (1, 3))
    assert (one.anomaly_score(logins[1]) >= three.anomaly_score(logins[1]) - 1e-5).all()
    alone = logons(1)
    np.testing.assert_allclose(one.anomaly_score(alone), three.anomaly_score(alone), rtol=1e-5)


def test_the_reason_names_the_field(fitted):
    day = {"dest": ["pc-u000", "sales-1", "sales-1"], "auth": ["interactive", "kerberos", "kerberos"]}
    night = np.datetime64("2024-03-12T03:00:00", "us") + np.arange(3) * np.timedelta64(1, "h")
    usual, late = fitted.detect(logons(3, **day)), fitted.detect(logons(3, **day, time=night))
    assert late.scores[0] > usual.scores[0]
    assert late.why(0)[0].startswith("event ")
    assert "hour '" in late.why(0)[0]
    restored = fitted.restore(logons(3, **day, time=night))[0]
    assert all(record.startswith("logon, hour ") and "hour 3" not in record for record in restored)


def test_plain_events_are_a_history_too():
    sessions = [["open", "read", "close"], ["open", "write", "close"]] * 100
    detector = fit(make(group=None, training=Training(updates=100, lr=1e-2)), sessions)
    found = detector.detect([["open", "read", "close"], ["open", "close", "read"], ["open", "panic", "close"]])
    assert found.scores[0] < found.scores[1:].min()
    assert "event 2: event never learnt" in found.why(2)[0]
    assert detector.adapter_.fields == []


def test_a_saved_model_says_the_same(fitted, logins, tmp_path):
    fitted.save(tmp_path / "m.genad")
    again = genad.load(tmp_path / "m.genad")
    one, other = fitted.detect(logins[1]), again.detect(logins[1])
    np.testing.assert_array_equal(one.scores, other.scores)
    assert one.reasons == other.reasons
    assert any(one.reasons)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"group": "team"}, r"group: the sessions' log has no field 'team'; it has "),
        ({"user": "who"}, r"user: the sessions' log has no field 'who'; it has "),
        ({"fields": ["shoe"]}, r"fields: the sessions' log has no field 'shoe'; it has "),
        ({"fields": "host"}, r"fields: 'host' was given; use a list of names"),
        ({"group": 3}, r"group: 3 was given; use the name of a field"),
        ({"top": 0}, r"top: 0 was given; use a whole number of at least 1"),
        ({"hide": 1.0}, r"hide: 1.0 was given; use a number in \[0, 1\)"),
    ],
)
def test_what_cannot_be_used_is_refused(logins, settings, said):
    with pytest.raises(InputError, match=said):
        make(**settings).fit(logins[0])


def test_events_alone_have_no_users():
    with pytest.raises(InputError, match="user: the sessions' log has no field 'user'; there are none"):
        make(user="user", group=None).fit([["open", "close"]] * 20)
