from __future__ import annotations

import numpy as np
import pytest

from genad.data.log.logins import ATTACKS, simulate_logins
from genad.errors import InputError


def test_the_same_seed_makes_the_same_company():
    one, other = simulate_logins(8, 4, 3, random_state=5), simulate_logins(8, 4, 3, random_state=5)
    np.testing.assert_array_equal(one[0].time, other[0].time)
    np.testing.assert_array_equal(one[0].fields["dest"], other[0].fields["dest"])
    assert one[1].tolist() == other[1].tolist()
    assert len(simulate_logins(8, 4, 3, random_state=6)[0]) != len(one[0])


def test_attacks_are_what_they_are_called_and_come_late():
    log, truth = simulate_logins(users=24, days=12, attacks=6)
    assert (np.diff(log.time) >= np.timedelta64(0)).all()
    assert set(truth) == {"", *ATTACKS}
    assert log.time[truth != ""].min() >= np.datetime64("2024-03-12")
    hours = log.time.astype("datetime64[h]").astype(int) % 24
    assert (hours[truth == "off hours"] < 6).all()
    users, hosts = log.fields["user"], log.host
    own = np.array([host == f"pc-{user}" for user, host in zip(users, hosts, strict=True)])
    assert own[truth == "lateral movement"].all()
    assert not own[truth == "stolen account"].any()
    moves = np.flatnonzero(truth == "lateral movement")
    assert len(set(zip(users[moves], log.fields["dest"][moves], strict=True))) == len(moves)


def test_people_sleep_and_services_do_not():
    log, _ = simulate_logins(users=8, days=7)
    hours = log.time.astype("datetime64[h]").astype(int) % 24
    service = log.fields["department"] == "services"
    assert set(hours[service]) == set(range(24))
    assert hours[~service].min() >= 5


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"users": 3}, "users: 3 was given"), ({"days": 1.5}, "days: 1.5 was given"), ({"attacks": -1}, "attacks: -1")],
)
def test_too_small_a_company_is_refused(settings, said):
    with pytest.raises(InputError, match=said):
        simulate_logins(**settings)
