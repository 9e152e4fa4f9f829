"""Samples: what a batch holds follows the samples through windows, subsets, hiding and padding."""

from __future__ import annotations

import torch

from genad.data.samples import Batch, HiddenSamples, Subset, WindowSamples


def windows():
    x = torch.arange(12.0).view(6, 2)
    return WindowSamples(x, torch.tensor([0, 1, 3, 4]), 2, x > 1, torch.tensor([5, 5, 5, 9, 9, 9]))


def test_a_window_is_of_the_group_of_its_first_step():
    batch = windows().batch(torch.tensor([2, 0]))
    assert batch.x[:, 0, 0].tolist() == [6.0, 0.0]
    assert batch.group.tolist() == [9, 5]
    assert windows().to(torch.device("cpu")).stretch(1, 3).group.tolist() == [5, 9]


def test_the_group_survives_a_choice_and_hidden_values():
    samples = windows()
    hidden = torch.zeros(2, 2, 2, dtype=torch.bool)
    hidden[:, 1] = True
    part = Subset(samples, torch.tensor([1, 2]))
    for filled in (None, torch.full((2, 2, 2), 7.0)):
        batch = HiddenSamples(part, hidden, filled).stretch(0, 2)
        assert batch.group.tolist() == [5, 9]
        assert (batch.x[:, 1] == (0.0 if filled is None else 7.0)).all()
        assert (batch.mask[:, 1] == (filled is not None)).all()


def test_take_repeats_all_that_a_batch_holds():
    batch = windows().batch(torch.arange(4))
    batch.known = True
    again = batch.take(torch.tensor([3, 0, 0]))
    assert torch.equal(again.x, batch.x[[3, 0, 0]])
    assert torch.equal(again.mask, batch.mask[[3, 0, 0]])
    assert again.group.tolist() == [9, 5, 5]
    assert again.known
    plain = Batch(batch.x).take(torch.tensor([1]))
    assert plain.mask is None
    assert plain.group is None


def test_a_step_is_averaged_over_its_observed_channels():
    x = torch.tensor([[[3.0, 5.0], [4.0, 0.0], [0.0, 0.0]]])
    seen = torch.tensor([[[True, True], [True, False], [False, False]]])
    assert Batch(x).step_mean(x).tolist() == [[4.0, 2.0, 0.0]]
    assert Batch(x, seen).step_mean(x + 1).tolist() == [[5.0, 5.0, 0.0]]
    # Members of an ensemble stand in front.
    assert Batch(x, seen).step_mean(torch.stack([x, 2 * x])).tolist() == [[[4.0, 4.0, 0.0]], [[8.0, 8.0, 0.0]]]
