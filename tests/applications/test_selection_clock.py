"""Budgets of time: slow scoring is seen in a few rows, and who is too slow is left out."""

from __future__ import annotations

import time

import numpy as np
import pytest

from genad.applications import selection
from genad.applications.selection import select
from genad.applications.selection_clock import scoring_seconds
from genad.applications.selection_trials import make_trial
from genad.core.training import Training
from genad.data.kinds import Kind
from genad.data.table import as_table
from genad.reconstruction.autoencoder.autoencoder import Autoencoder


def rows(n: int = 400) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 4))


class Sleepy(Autoencoder):
    """Takes five milliseconds a row to score; by the clock of the test when it has one."""

    name = "sleepy"
    asleep: float | None = None

    def anomaly_score(self, X):
        if self.asleep is None:
            time.sleep(0.005 * len(X))
        else:
            type(self).asleep += 0.005 * len(X)
        return super().anomaly_score(X)


@pytest.mark.filterwarnings("ignore:alpha=")
def test_the_time_of_scoring_follows_from_a_few_rows(monkeypatch):
    monkeypatch.setattr(Sleepy, "asleep", 0.0)
    monkeypatch.setattr("time.perf_counter", lambda: Sleepy.asleep)
    trial = make_trial(as_table(rows(400)), Kind.TABLE, 0)
    detector = Sleepy(training=Training(updates=20))
    taken = scoring_seconds(detector, trial, 0.05, 0)
    assert taken == pytest.approx(0.005 * (len(trial.judged) + int(0.2 * trial.size)))
    assert Sleepy.asleep == pytest.approx(0.005 * (16 + 64))


def test_who_scores_too_slowly_for_the_time_is_left_out_and_the_others_go_on(monkeypatch):
    monkeypatch.setitem(selection.DEFAULTS, Kind.TABLE, "ppca")
    candidates = [Sleepy(training=Training(updates=20)), "nearest_memory"]
    chosen = select(rows(), budget="5s", candidates=candidates)
    found = {row["method"].split("(")[0]: row for row in chosen.candidates}
    assert found["sleepy"]["note"] == "left out: its scoring is too slow"
    assert found["sleepy"]["round"] == 0
    assert found["nearest_memory"]["round"] == found["ppca"]["round"] == 1
    assert chosen.seconds < 5
