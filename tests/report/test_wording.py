from __future__ import annotations

import numpy as np
import pytest

from genad import Detections, Kind, Training
from genad.core.calibration import Conformal, FixedValue
from genad.report.wording import (
    count,
    duration,
    moment,
    number,
    probability,
    promise,
    remarks,
    setting,
    training_facts,
    verdict,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "missing"),
        (float("nan"), "missing"),
        (float("-inf"), "-inf"),
        (True, "True"),
        (2024, "2024"),
        (2024.0, "2024"),
        (1234567.8, "1,234,568"),
        (-0.00012345, "-0.0001234"),
        (3.2e-9, "3.2e-09"),
        (1e300, "1e+300"),
        (np.float32(0.5), "0.5"),
        ("2024-05-28T00:00:00.000000", "2024-05-28"),
        ("2024-06-17T01:52:23", "2024-06-17 01:52:23"),
        ("x" * 200, "x" * 79 + "…"),
        (np.datetime64("NaT"), "missing"),
        (np.datetime64("2024-06-17T01:52:23.250"), "2024-06-17 01:52:23.250"),
    ],
)
def test_number(value, text):
    assert number(value) == text


def test_times_counts_and_probabilities():
    assert moment(17.5) == "17.5"
    assert moment(np.datetime64("2024-06-17T10:20:00")) == "2024-06-17 10:20"
    assert count(1, "time step") == "1 time step"
    assert duration(0.5) == "0.5 s"
    assert duration(59.9) == "60 s"
    assert probability(1e-7) == "1e-07"
    assert probability(0.0012345) == "0.0012"


def test_setting_leaves_out_defaults_and_addresses():
    assert setting(Training(updates=5)) == "Training(updates=5)"
    assert setting(setting) == "setting"
    assert "0x" not in setting(lambda: None)


def answer(flags, rule, kind=Kind.TABLE, fdr=None):
    unit = "row" if kind is Kind.TABLE else "time step"
    n = len(flags)
    return Detections(np.arange(float(n)), np.ones(n), np.array(flags, bool), rule, kind, fdr=fdr), unit


def test_verdicts():
    rule = FixedValue(0.5).fit([0.0])
    assert verdict(answer([0, 0], rule)[0]) == "None of 2 rows flagged."
    assert verdict(answer([1, 0], rule)[0]) == "1 of 2 rows flagged (50 %)."
    found, _ = answer([1, 0, 1, 1], rule, Kind.SERIES)
    assert verdict(found) == "3 of 4 time steps flagged (75 %), in 2 events."


def test_promise_is_the_thresholds_or_the_false_discovery_rates():
    rule = Conformal(0.05).fit(np.arange(99.0))
    assert promise(answer([1, 0], rule)[0]) == rule.promise
    text = promise(answer([1, 0], rule, fdr=0.1)[0])
    assert text.startswith("At most 10 % of the flagged rows are expected to be normal")
    assert remarks(answer([1, 0], rule)[0]) == []


def test_unattainable_alpha_is_said():
    with pytest.warns(UserWarning, match="not attainable"):
        rule = Conformal(0.01).fit(np.arange(9.0))
    (text,) = remarks(answer([0, 0], rule)[0])
    assert text.startswith("A false-alarm rate of 1 % was asked for, but 9 rows held out")
    assert "no less than 10 %" in text


def test_unattainable_false_discovery_rate_is_said():
    rule = Conformal(0.2).fit(np.arange(9.0))
    (text,) = remarks(answer([0] * 100, rule, fdr=0.1)[0])
    assert "at least 100 rows must score above all of them before" in text


def test_infinite_thresholds_are_said():
    (text,) = remarks(answer([0, 0], FixedValue(float("inf")).fit([0.0]))[0])
    assert text == "The threshold is infinite: nothing can be flagged by it."


def test_facts_only_tell_what_is_known():
    rule = FixedValue(0.5).fit([0.0])
    found, _ = answer([0], rule)
    assert training_facts(found) == []
    found.meta.update(updates=1200, seconds=75.0, device="cpu", parameters={"latent": 3})
    assert dict(training_facts(found)) == {
        "Parameters": "latent=3",
        "Updates": "1,200",
        "Training time": "1 min 15 s",
        "Device": "cpu",
    }
