"""Answers to report on: a table of mixed columns from a real fit, and series made by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import genad
from genad import Detections, Kind
from genad.core.calibration import Conformal, conformal_p_values

HOSTILE = "<script>alert(1)</script>"


def payments(n, n_bad, rng):
    amount, hour = rng.lognormal(3, 0.5, n), rng.normal(13, 3, n)
    age = rng.integers(18, 80, n).astype(float)
    labels = np.zeros(n, int)
    labels[:n_bad] = 1
    amount[:n_bad] *= 20
    hour[:n_bad] -= 11
    age[-5:] = np.nan
    day = np.datetime64("2024-01-01T00:00", "us") + rng.integers(0, 366, n) * np.timedelta64(1, "D")
    frame = pd.DataFrame(
        {
            "amount": amount,
            "hour": hour,
            "age": age,
            "country": rng.choice(["CH", "DE", "FR"], n),
            "day": day,
            HOSTILE: rng.normal(size=n),
        }
    )
    return frame, labels


@pytest.fixture(scope="session")
def table():
    """A fitted detector, its answer and the labels of 300 rows, 15 of them anomalous."""
    rng = np.random.default_rng(0)
    normal, _ = payments(800, 0, rng)
    test, labels = payments(300, 15, rng)
    detector = genad.Autoencoder(training=genad.Training(updates=100)).fit(normal)
    found = detector.detect(test)
    found.meta["file"] = "/private/folder/payments <march>.csv"
    return detector, found, labels


def series_of(n, *, names=("flow", "<b>heat</b>"), entity=None, time=None, rule=None, bad=()):
    """Make the answer of a detector that knows the curves exactly."""
    rng = np.random.default_rng(1)
    t = np.arange(n)
    expected = {name: np.sin(t / 20 + k) for k, name in enumerate(names)}
    observed = {name: curve + 0.1 * rng.normal(size=n) for name, curve in expected.items()}
    for start, stop in bad:
        observed[names[0]][start:stop] += 3.0
    maps = np.stack([(observed[name] - expected[name]) ** 2 for name in names], axis=1)
    scores = np.sqrt(maps.mean(axis=1))
    held = np.sqrt((0.01 * rng.chisquare(len(names), 999)) / len(names)).clip(max=0.5)
    threshold = (rule or Conformal(0.001)).fit(held, unit="time step")
    return Detections(
        scores,
        conformal_p_values(held, scores),
        threshold.flag(scores),
        threshold,
        Kind.SERIES,
        maps=maps,
        expected=expected,
        observed=observed,
        bounds=np.full(len(names), 0.26),
        names=list(names),
        time=time,
        entity=entity,
    )


@pytest.fixture(scope="session")
def make_series():
    """Return the function that makes answers on series."""
    return series_of


@pytest.fixture(scope="session")
def series():
    """A dated series of 2,000 steps with two events."""
    time = np.datetime64("2024-03-01T00:00") + np.arange(2000) * np.timedelta64(10, "m")
    return series_of(2000, time=time, bad=[(500, 520), (1400, 1401)])
