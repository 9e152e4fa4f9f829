from __future__ import annotations

import numpy as np
import pytest
import torch

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
