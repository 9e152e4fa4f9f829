from __future__ import annotations

import numpy as np
import pytest
import torch

from genad import ACVAE, SLAVAE, BestF, Training
from genad.core.relearning import LabelMemory, drawn, some, spread_out, windows_at
from genad.data.samples import WindowSamples
from genad.errors import InputError


def test_windows_end_at_the_steps_or_are_the_first_that_hold_them():
    # two stretches: steps 0 to 9 and 10 to 14, windows of 4
    starts = torch.tensor([0, 1, 2, 3, 4, 5, 6, 10, 11])
    samples = WindowSamples(torch.arange(17.0)[:, None], starts, 4)
    found, steps = windows_at(samples, np.array([1, 3, 9, 10, 13, 14, 16]))
    assert steps.tolist() == [1, 3, 9, 10, 13, 14]
    assert found.starts.tolist() == [0, 0, 6, 10, 10, 11]
    with pytest.raises(InputError, match="shorter than a window of 4 steps"):
        windows_at(samples, np.array([15, 16]))


def test_proposals_keep_a_gap_while_they_can_and_are_all_different():
    worth = np.array([9.0, 8.0, 1.0, 7.0, 6.0, 2.0])
    assert spread_out(worth, 2, 3).tolist() == [0, 3]
    assert sorted(spread_out(worth, 6, 3).tolist()) == [0, 1, 2, 3, 4, 5]
    never = np.full(4, -np.inf)
    assert sorted(spread_out(never, 4, 2).tolist()) == [0, 1, 2, 3]


def test_examples_are_kept_evenly_and_within_the_memory():
    assert some(torch.arange(10.0)).tolist() == list(range(10))
    assert len(some(torch.zeros(5000, 1))) == 4096
    assert len(some(torch.zeros(50, 2**17))) == 8


def test_drawing_from_none_gives_none():
    assert drawn(torch.zeros(0, 3), 8).shape == (0, 3)
    assert drawn(torch.ones(2, 3), 8).shape == (8, 3)


def test_the_memory_tells_anomalies_from_normals_and_forgets_what_it_was_told():
    memory = LabelMemory((2,))
    memory.known = torch.full((1, 2), 5.0)
    memory.told, memory.labels = torch.tensor([[1.0, 1], [2, 2], [3, 3]]), torch.tensor([0, 1, 0])
    assert memory.anomalies[:, 0].tolist() == [5.0, 2.0]
    assert memory.normals[:, 0].tolist() == [1.0, 3.0]
    memory.forget()
    assert memory.anomalies[:, 0].tolist() == [5.0]
    assert not len(memory.normals)


def _walk(n, seed, level=0.0):
    t = np.arange(n)
    noise = np.random.default_rng(seed).normal(size=(n, 2))
    return np.c_[np.sin(t / 5), np.cos(t / 5)] + 0.1 * noise + level


@pytest.mark.filterwarnings("ignore::genad.errors.GenadWarning")
@pytest.mark.parametrize("cls", [SLAVAE, ACVAE])
def test_forgetting_comes_back_to_the_latest_calibration(cls):
    series, other = _walk(500, 0), _walk(300, 1, level=1.0)
    labels = np.full(300, -1)
    labels[[60, 120, 180]] = 0

    def fitted():
        return cls(training=Training(updates=20)).fit(series)

    plain = fitted().calibrate(other)
    taught = fitted().feedback(other, labels).calibrate(other)
    assert taught.before_[1] == plain.threshold_
    assert not np.array_equal(taught.anomaly_score(other), plain.anomaly_score(other))
    taught.forget()
    assert taught.threshold_ == plain.threshold_
    np.testing.assert_array_equal(taught.calibration_scores_, plain.calibration_scores_)
    np.testing.assert_array_equal(taught.anomaly_score(other), plain.anomaly_score(other))


@pytest.mark.filterwarnings("ignore::genad.errors.GenadWarning")
@pytest.mark.parametrize("cls", [SLAVAE, ACVAE])
def test_a_normal_label_leaves_a_threshold_by_anomalies_one(cls):
    series, y = _walk(500, 0), np.zeros(500, int)
    series[200:220] += 3.0
    y[200:220] = 1
    detector = cls(training=Training(updates=20), threshold=BestF()).fit(series, y)
    labels = np.full(500, -1)
    labels[300] = 0
    assert detector.feedback(series, labels).threshold_.rule == "BestF"
