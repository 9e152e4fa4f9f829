from __future__ import annotations

import numpy as np
import torch

from genad.nn.hiding import (
    cells_or_spans,
    random_cells,
    random_spans,
    remoteness,
    remoteness_levels,
    spans_in_turn,
    straight_line,
    usual_distances,
)


def runs(hidden):
    """Return the lengths of the stretches of True in a vector."""
    edges = torch.diff(
        hidden.int(), prepend=torch.zeros(1, dtype=torch.int32), append=torch.zeros(1, dtype=torch.int32)
    )
    return (edges < 0).nonzero().flatten() - (edges > 0).nonzero().flatten()


def test_shares_are_those_asked_for():
    torch.manual_seed(0)
    ratio = torch.tensor([0.0, 0.2, 0.7, 1.0])
    for hide in (random_cells, lambda shape, r: random_spans(shape, r, 6)):
        share = torch.stack([hide((4, 400, 5), ratio).float().mean((1, 2)) for _ in range(20)]).mean(0)
        torch.testing.assert_close(share, ratio, atol=0.05, rtol=0)


def test_spans_are_longer_than_cells():
    torch.manual_seed(0)
    ratio = torch.full((50,), 0.2)
    spans, cells = random_spans((50, 200, 1), ratio, 12), random_cells((50, 200, 1), ratio)
    assert torch.cat([runs(one[:, 0]) for one in spans]).float().mean() > 3
    assert torch.cat([runs(one[:, 0]) for one in cells]).float().mean() < 1.5


def test_half_of_the_spans_lie_in_all_channels():
    torch.manual_seed(0)
    hidden = random_spans((400, 60, 3), torch.full((400,), 0.5), 8)
    together = (hidden == hidden[..., :1]).all(2).all(1)
    assert 0.4 < together.float().mean() < 0.6


def test_cells_and_spans_take_turns_by_sample():
    torch.manual_seed(0)
    hidden = cells_or_spans((300, 100, 1), torch.full((300,), 0.5), 20)
    longest = torch.tensor([runs(one[:, 0]).max() for one in hidden])
    assert 0.3 < (longest > 12).float().mean() < 0.7


def test_patterns_hide_each_cell_once_with_its_span():
    for steps, channels, span in ((32, 3, 8), (7, 1, 2), (2, 2, 8), (9, 4, 100)):
        patterns = spans_in_turn(steps, channels, span)
        assert patterns.shape == (2, steps, channels)
        assert (patterns.sum(0) == 1).all()
        size = max(1, min(span, steps // 2))
        first = patterns[0]
        assert (first[:size] == first[:1]).all()
        assert (first[size : 2 * size] == ~first[:1]).all()
        # The next channel is seen where this one is hidden.
        assert channels == 1 or (first[:, 0] == ~first[:, 1]).all()


def test_the_line_is_that_of_numpy():
    torch.manual_seed(0)
    x, seen = torch.randn(3, 20, 2), torch.rand(3, 20, 2) > 0.6
    seen[0, :, 1] = False
    filled = straight_line(torch.where(seen, x, 1e9), seen)
    steps = np.arange(20)
    for b in range(3):
        for c in range(2):
            known = seen[b, :, c].numpy()
            expected = np.interp(steps, steps[known], x[b, known, c]) if known.any() else np.zeros(20)
            np.testing.assert_allclose(filled[b, :, c].numpy(), expected, atol=1e-5)


def test_remoteness_tells_variances_of_random_walks_apart():
    seen = torch.tensor([1, 0, 0, 0, 1, 0, 0, 0]).bool().view(1, 8, 1)
    # a b / (a + b) is 3/4, 1 and 3/4 between the two, then 1, 2 and 3; each doubling is two levels.
    assert remoteness(seen)[0, [1, 2, 3, 5, 6, 7], 0].tolist() == [1, 2, 1, 2, 4, 5]
    assert remoteness(torch.zeros(1, 8, 1, dtype=torch.bool)).unique().tolist() == [remoteness_levels(8) - 1]
    torch.manual_seed(0)
    walk = torch.randn(600, 16, 2).cumsum(1)
    seen = torch.rand_like(walk) > 0.7
    found = usual_distances(walk - straight_line(walk, seen), (~seen).float(), remoteness(seen), remoteness_levels(16))
    assert found.shape == (12, 2)
    torch.testing.assert_close(found[[0, 2, 4, 6]].square().mean(1), torch.tensor([0.5, 1, 2, 4]), rtol=0.15, atol=0)


def test_distances_of_levels_with_few_values_are_drawn_to_those_of_their_channel():
    rest = torch.tensor([[2.0, 0.0], [2.0, 0.0], [9.0, 9.0]]).view(1, 3, 2)
    target = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]).view(1, 3, 2)
    found = usual_distances(rest, target, torch.zeros(1, 3, 2, dtype=torch.long), 2)
    # What does not count does not matter, and what never differs still has a size.
    torch.testing.assert_close(found, torch.tensor([[2.0, 0.01], [2.0, 0.01]]))
    mixed = usual_distances(rest, torch.ones_like(rest), torch.tensor([0, 0, 1]).view(1, 3, 1).expand(1, 3, 2), 3)
    channel = (4.0 + 4.0 + 81.0) / 3
    expected = [(8 + 10 * channel) / 12, (81 + 10 * channel) / 11, channel]
    torch.testing.assert_close(mixed[:, 0], torch.tensor(expected).sqrt())
