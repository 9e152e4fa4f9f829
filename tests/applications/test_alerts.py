"""Alerts: which units are alike, how many are listed, what is said of each, and how they compare with labels."""

from __future__ import annotations

import numpy as np
import pytest

from genad import Detections, Kind
from genad.applications.alerts import UsualValues, alert_figures, differences, make_alerts
from genad.core.calibration import FittedThreshold
from genad.data.table import as_table
from genad.errors import InputError

FIXED = FittedThreshold(1.5, "FixedValue", "Flags scores above 1.5.", n=0)


def answer(scores, maps, observed, expected):
    """Detections with given maps, all scores above 1.5 flagged."""
    scores = np.asarray(scores, float)
    return Detections(
        scores,
        1 / (1 + scores),
        scores > 1.5,
        FIXED,
        Kind.TABLE,
        maps=np.asarray(maps, float),
        observed={name: np.asarray(values, object) for name, values in observed.items()},
        expected={name: np.asarray(values, object) for name, values in expected.items()},
        names=list(observed),
    )


@pytest.fixture
def found():
    """Rows 1 and 3 send too much over http, row 2 too much over ftp, row 4 a hundred times as much; 0 is normal."""
    return answer(
        [1.0, 5.0, 4.0, 3.0, 2.0],
        [[0.1, 0.1], [0.6, 0.4], [0.6, 0.4], [0.6, 0.4], [0.6, 0.4]],
        {"bytes": [50.0, 4000.0, 4000.0, 5000.0, 400000.0], "service": ["http", "http", "ftp", "http", "http"]},
        {"bytes": [50.0, 60.0, 60.0, 60.0, 60.0], "service": ["http"] * 5},
    )


def test_alike_is_same_columns_direction_and_power_of_ten(found):
    # The first column alone holds half of each score, so services do not count.
    assert [alert.positions for alert in make_alerts(found)] == [(1, 2, 3), (4,)]
    found.maps[1:] = [[0.45, 0.55]] * 4
    assert [alert.positions for alert in make_alerts(found)] == [(1, 3, 4), (2,)]
    found.maps[1:] = [[0.4, 0.4]] * 4
    found.observed["bytes"][3] = 4.0  # now too little
    assert [alert.positions for alert in make_alerts(found)] == [(1, 2), (3,), (4,)]


def test_direction_separates(found):
    found.observed["bytes"][:] = [50.0, 40.0, 80.0, 45.0, 85.0]
    assert [alert.positions for alert in make_alerts(found)] == [(1, 3), (2, 4)]


def test_numbers_within_a_power_of_ten_are_alike_across_zero_and_shares():
    found = answer([3.0, 2.5, 2.0], [[1.0]] * 3, {"rate": [0.9, 0.2, -0.9]}, {"rate": [0.0] * 3})
    assert [alert.positions for alert in make_alerts(found)] == [(0, 1), (2,)]


def test_budget_lists_the_highest_and_later_ones_still_join(found):
    first = make_alerts(found, 1)
    assert [alert.positions for alert in first] == [(1, 2, 3)]
    each = make_alerts(found, 2, group=False)
    assert [(alert.rank, alert.position, alert.positions) for alert in each] == [(1, 1, (1,)), (2, 2, (2,))]
    assert len(make_alerts(found, 50, group=False)) == 4


def test_only_flagged_units_make_alerts(found):
    found.is_anomaly[:] = False
    assert make_alerts(found) == []
    counted = alert_figures(found, [], 5, np.array([0, 1, 1, 0, 1]))
    assert (counted.listed, counted.flagged, counted.covered, counted.precision) == (0, 0, 0, None)


@pytest.mark.parametrize("wrong", [0, -3, 2.5, True, "9"])
def test_budget_is_checked(found, wrong):
    with pytest.raises(InputError, match=r"alerts: .* at least 1"):
        make_alerts(found, wrong)


def test_differences_stop_at_half_of_the_score(found):
    told = differences(found, 1)
    assert [part.feature for part in told] == ["bytes"]
    assert str(told[0]) == "bytes is 4000, expected 60: 60 % of the score"
    found.maps[1] = [0.5, 0.5]
    assert [part.feature for part in differences(found, 1)] == ["bytes"]
    found.maps[1] = [0.49, 0.51]
    assert [part.feature for part in differences(found, 1)] == ["service"]


def test_usual_values_of_numbers_and_categories():
    table = as_table({"n": [*range(1000), 10**9], "up": [True] * 1001, "flag": ["SF"] * 1000 + [None]})
    usual = UsualValues.of(table, np.r_[np.zeros(1000, int), 1])
    assert usual.of_value("n", 5e8) == "99 % of normal rows: 4.995 to 994"
    assert usual.of_value("up", True) == "100 % of normal rows have it"
    assert usual.of_value("up", False) == "never in normal rows"
    assert usual.of_value("flag", None) == "never in normal rows"
    assert UsualValues.of(table).of_value("flag", None) == "0.0999 % of normal rows have it"
    assert usual.of_value("other", 1) == ""
    assert UsualValues.of(as_table({"k": [7.0, 7.0]})).of_value("k", 1) == "99 % of normal rows: always 7"


def test_figures_against_labels(found):
    labels = np.array([0, 1, 0, 1, -1])
    figures = alert_figures(found, make_alerts(found, 2), 2, labels)
    assert (figures.listed, figures.flagged, figures.covered) == (2, 4, 4)
    assert figures.precision == 1.0  # the second alert's truth is not known
    assert figures.covered_precision == pytest.approx(2 / 3)
    assert figures.top_precision == 0.5
    assert alert_figures(found, make_alerts(found, 2), 2).precision is None
