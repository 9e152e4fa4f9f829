"""Stretches, gaps, and the folding of what was asked into one score a step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genad.core.calibration import Conformal
from genad.data.samples import WindowSamples
from genad.errors import CalibrationWarning
from genad.foundation.scripted import Scripted
from genad.representation.series.base import averaged, between_neighbours, filled, smoothed, stretches
from genad.representation.series.sig_llm import SigLLM


def test_stretches_do_not_join_what_a_gap_parts():
    windows = WindowSamples(torch.zeros(30, 1), torch.tensor([0, 1, 10, 20, 21, 22]), 5)
    assert stretches(windows) == [(0, 6), (10, 15), (20, 27)]


def test_gaps_are_bridged_and_ends_held():
    values = np.array([np.nan, 2.0, np.nan, np.nan, 5.0, np.nan])
    np.testing.assert_allclose(filled(values), [2, 2, 3, 4, 5, 5])
    assert filled(np.full(3, np.nan)).tolist() == [0, 0, 0]


def test_groups_are_averaged_and_the_rest_by_itself():
    assert averaged(np.arange(7.0), 3).tolist() == [1.0, 4.0, 6.0]
    assert averaged(np.arange(3.0), 1).tolist() == [0.0, 1.0, 2.0]


def test_neighbours_leave_out_the_step_itself_and_odd_ones():
    line = np.arange(10.0)
    line[4:7] = 99.0
    odd = np.isin(np.arange(10), [4, 5, 6])
    found = between_neighbours(line, odd)
    np.testing.assert_allclose(found[1:9], np.arange(1.0, 9.0))
    # The ends have a neighbour on one side alone.
    assert found[0] == 1.0
    assert found[9] == 8.0
    assert between_neighbours(line, np.ones(10, bool)).tolist() == line.tolist()


def test_smoothing_agrees_with_pandas():
    pd = pytest.importorskip("pandas")
    values = np.random.default_rng(0).normal(size=50)
    np.testing.assert_allclose(smoothed(values, 7), pd.Series(values).ewm(span=7).mean())
    assert smoothed(values, 1) is values


def flat(before, token):
    return -1.0


def make(**params):
    return SigLLM(llm=Scripted(log_prob=flat), threshold=Conformal(alpha=0.1), smoothing=0.0, **params)


def test_every_step_of_every_stretch_is_judged_once():
    asked = []

    class Counting(Scripted):
        def log_likelihood(self, texts, contexts=None):
            asked.extend(texts)
            return super().log_likelihood(texts, contexts)

    series = np.random.default_rng(0).normal(size=(200, 2))
    detector = SigLLM(llm=Counting(log_prob=flat), window=20, threshold=Conformal(alpha=0.1)).fit(series)
    asked.clear()
    scores = detector.anomaly_score(series[:90])
    assert sum(text.count(",") for text in asked) == 2 * 90
    np.testing.assert_allclose(scores, 2 * (detector.digits + 1))


def test_the_end_is_held_out_even_when_a_window_is_longer():
    detector = make(window=60).fit(np.random.default_rng(0).normal(size=100))
    assert len(detector.calibration_scores_) == 20


def test_too_short_a_series_is_calibrated_on_itself():
    with pytest.warns(CalibrationWarning, match="too few"):
        make(window=10).fit(np.random.default_rng(0).normal(size=11))


def test_labelled_anomalies_are_not_calibrated_on():
    series, y = np.random.default_rng(0).normal(size=100), np.zeros(100, int)
    y[85:90] = 1
    detector = make(window=10).fit(series, y)
    assert len(detector.calibration_scores_) == 15


def test_an_aggregate_shares_its_score_and_saves_tokens():
    series = np.random.default_rng(0).normal(size=200)
    one, four = make(window=40).fit(series), make(window=40, aggregate=4).fit(series)

    def cost(detector):
        before = detector.language_model().meter.usage.tokens_in
        detector.anomaly_score(series)
        return detector.language_model().meter.usage.tokens_in - before

    assert four.anomaly_score(series[:41]).shape == (41,)
    assert cost(one) == pytest.approx(4 * cost(four), rel=0.05)


def test_missing_values_cost_no_score():
    series = np.random.default_rng(0).normal(size=(200, 2))
    detector = make(window=20).fit(series)
    series[50:60, 1] = np.nan
    series[80:85] = np.nan
    found = detector.detect(series)
    assert (found.maps[50:60, 1] == 0).all()
    # One channel stands for both.
    np.testing.assert_allclose(found.scores[50:60], found.scores[0])
    assert (found.scores[80:85] == 0).all()
    assert np.isfinite(found.restored).all()


def test_states_and_reasons_have_one_entry_a_step():
    series = np.random.default_rng(0).normal(size=(120, 1))
    detector = make(window=20).fit(series)
    detector.anomaly_score(series[:50])
    assert detector.status_ == ["ok"] * 50
    assert detector.reasons_ == [""] * 50
    assert detector.describe()["llm_status"] == {"ok": 50}
