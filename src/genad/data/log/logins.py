"""Logins of an invented company, with stolen accounts, lateral movement and work at night where asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from genad.data.log.log import Log
from genad.errors import InputError

__all__ = ["ATTACKS", "simulate_logins"]

#: Kinds of attack, in turn.
ATTACKS = ("stolen account", "lateral movement", "off hours")
_START = np.datetime64("2024-03-04T00:00:00", "us")  # a Monday
_DEPARTMENTS = ("sales", "research", "finance", "operations")
# Servers of a department, and of all.
_OWN, _SHARED = 6, 4
_HOUR = 3600.0
_FIELDS = ("user", "department", "host", "dest", "auth", "result")


def simulate_logins(
    users: int = 60, days: int = 20, attacks: int = 0, *, random_state: int = 0
) -> tuple[Log, NDArray[np.object_]]:
    """Make the logins of a company's users, and some services, over some days.

    Users have a department, a computer of their own, hours at which they begin and end, and a few servers of their
    department and of all that they use; services log on every half an hour, day and night. Now and then someone uses
    another computer, a server for the first time, or a wrong password. Attacks come in the last third of the days: a
    *stolen account* is used from a computer of another department on servers of another department; *lateral
    movement* goes from the user's own computer to many servers within minutes; *off hours* is the user's own
    computer and servers in the middle of the night.

    Parameters
    ----------
    users : int
        At least 8.
    days : int
        At least 3.
    attacks : int
        How many, of the kinds in turn.
    random_state : int
        Seed of every draw.

    Returns
    -------
    log : Log
        In the order of time, with the fields ``user``, ``department``, ``host``, ``dest``, ``auth`` and ``result``.
    truth : array of str objects, one a record
        The kind of attack, "" for a normal login.

    Raises
    ------
    InputError
        For too few users or days.

    Examples
    --------
    >>> log, truth = simulate_logins(users=8, days=3, attacks=1)
    >>> sorted(log.fields), sorted(set(truth))
    (['auth', 'department', 'dest', 'result', 'user'], ['', 'stolen account'])
    >>> log.sessions(field="user", most=64).lengths.max() <= 64
    np.True_
    """
    for name, value, least in (("users", users, 8), ("days", days, 3), ("attacks", attacks, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InputError(f"{name}: {value!r} was given; use a whole number of at least {least}.")
    rng = np.random.default_rng(random_state)
    rows: list[tuple[float, str, str, str, str, str, str, str]] = []
    servers = {name: [f"{name}-{i}" for i in range(_OWN)] for name in _DEPARTMENTS}
    shared = [f"shared-{i}" for i in range(_SHARED)]
    places = {f"u{i:03d}": _DEPARTMENTS[i % len(_DEPARTMENTS)] for i in range(users)}
    habits = {}
    for name, place in places.items():
        used = [*rng.choice(servers[place], 3, replace=False), *rng.choice(shared, 2, replace=False)]
        habits[name] = used, rng.dirichlet(np.full(len(used), 2.0)), rng.normal(8.5, 0.7), rng.normal(8.0, 0.7)

    def add(when: float, user: str, host: str, dest: str, auth: str, result: str, truth: str = "") -> None:
        rows.append((when, user, places.get(user, "services"), host, str(dest), auth, result, truth))

    for day in range(days):
        for name, (used, shares, begin, length) in habits.items():
            if day % 7 > 4 and rng.random() < 0.9:
                continue
            start = 24 * day + begin + rng.normal(0.0, 0.3)
            host = f"pc-{name}" if rng.random() < 0.98 else f"pc-u{rng.integers(users):03d}"
            add(start * _HOUR, name, host, host, "interactive", "ok")
            for _ in range(rng.poisson(6)):
                when = (start + rng.uniform(0.05, length)) * _HOUR
                every = servers[places[name]] if rng.random() < 0.03 else None
                dest = rng.choice(used, p=shares) if every is None else rng.choice(every)
                if rng.random() < 0.03:
                    add(when, name, host, dest, "kerberos", "wrong password")
                    when += rng.uniform(3.0, 20.0)
                add(when, name, host, dest, "kerberos", "ok")
        for k in range(3):
            for step in range(0, 24 * 60, 30):
                when = (24 * 60 * day + step) * 60.0 + rng.uniform(0.0, 20.0)
                add(when, f"svc-{k}", shared[0], servers[_DEPARTMENTS[k]][0], "service", "ok")
    late = np.arange(int(np.ceil(days * 2 / 3)), days)
    for i in range(attacks):
        kind, name = ATTACKS[i % len(ATTACKS)], f"u{rng.integers(users):03d}"
        used, _, begin, length = habits[name]
        midnight = 24.0 * int(rng.choice(late))
        others = [server for place, owned in servers.items() if place != places[name] for server in owned]
        working = midnight + begin + rng.uniform(0.5, length - 0.5)
        if kind == "stolen account":
            foreign = [pc for pc, place in places.items() if place != places[name]]
            host, start, dests, pause = f"pc-{rng.choice(foreign)}", working, rng.choice(others, 4), 0.2
        elif kind == "lateral movement":
            host, start, dests, pause = f"pc-{name}", working, rng.choice(others, 10, replace=False), 0.02
        else:
            host, start, dests, pause = f"pc-{name}", midnight + rng.uniform(1.0, 4.0), rng.choice(used, 5), 0.1
        for k, dest in enumerate(dests):
            add((start + pause * (k + rng.random())) * _HOUR, name, host, dest, "kerberos", "ok", kind)
    rows.sort()
    times, *columns = zip(*rows, strict=True)
    named: dict[str, Any] = dict(zip(_FIELDS, columns[:-1], strict=True))
    stamps = _START + np.round(np.array(times) * 1e6).astype("timedelta64[us]")
    truth = np.empty(len(rows), object)
    truth[:] = columns[-1]
    return Log.from_messages(["logon"] * len(rows), time=stamps, **named), truth
