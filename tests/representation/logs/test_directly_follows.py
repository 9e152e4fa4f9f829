"""Directly-follows frequencies: the shares of the definition, begins and ends, and the labelled process."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import genad
from genad.data.process import read_process
from genad.errors import InputError
from genad.representation.logs.directly_follows import DirectlyFollows

TRACES = [["a", "b", "c"], ["a", "c"]] * 300


@pytest.fixture(scope="module")
def fitted():
    return DirectlyFollows().fit(TRACES)


def test_the_rarest_step_is_what_counts(fitted):
    counts = fitted.net_.counts
    assert counts[1].sum() == 0  # no unseen event in training
    assert counts[0].sum() == counts[:, 0].sum() == 480  # as many begins as ends: four fifths of the sessions
    begins, codes = counts[0].sum().item(), len(counts)
    expected = -math.log(0.5 / (begins + 0.5 * codes))
    assert fitted.anomaly_score([["b", "c"]])[0] == pytest.approx(expected, rel=1e-5)


def test_order_begin_end_and_new_events_are_noticed(fitted):
    normal = fitted.anomaly_score([["a", "b", "c"], ["a", "c"]]).max()
    odd = [["a", "c", "b"], ["b", "c"], ["a", "b"], ["a", "x", "c"], ["a", "b", "b", "c"], ["c"]]
    assert (fitted.anomaly_score(odd) > normal + 2).all()


def test_the_map_points_at_the_step_and_the_end_counts_with_the_last_event(fitted):
    trace = ["a", "c", "b", "c"]
    assert fitted.anomaly_map([trace])[0, : len(trace)].argmax() == 2
    broken = fitted.anomaly_map([["a", "b"]])[0]
    assert broken.argmax() == 1
    assert broken[1] > 4


def test_a_score_does_not_depend_on_other_sessions(fitted):
    trace = ["a", "x", "c"]
    alone = fitted.anomaly_score([trace])[0]
    assert fitted.anomaly_score([["a", "b", "c"] * 9, trace])[1] == alone


def test_restoring_puts_the_frequent_follower(fitted):
    assert fitted.restore([["a", "x", "c"]])[0][0] == "a"
    assert fitted.restore([["a", "x", "c"]])[0][1] in ("b", "c")
    assert fitted.restore([["a", "b", "c"]]) == [["a", "b", "c"]]


def test_saving_gives_the_same_scores(fitted, tmp_path):
    again = genad.load(fitted.save(tmp_path / "model.genad"))
    assert np.array_equal(again.anomaly_score(TRACES[:4]), fitted.anomaly_score(TRACES[:4]))


def test_the_labelled_process(data_dir):
    log = read_process(data_dir / "process" / "p2p_labelled.json.gz")
    train = np.arange(len(log)) < 2500
    scores = DirectlyFollows().fit(log.take(train).sessions).anomaly_score(log.take(~train).sessions)
    types = np.array(log.types)[~train]
    for kind in ("Insert", "Rework", "SkipSequence", "Early", "Late"):
        chosen = np.isin(types, ("normal", kind))
        assert roc_auc_score(types[chosen] == kind, scores[chosen]) > 0.95, kind


def test_smoothing_is_checked():
    with pytest.raises(InputError, match="smoothing: 0"):
        DirectlyFollows(smoothing=0).fit(TRACES)
