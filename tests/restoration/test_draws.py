from __future__ import annotations

import numpy as np
import pytest
import torch

from genad.errors import InputError
from genad.restoration.draws import DrawsMixin, middle_and_spread, quantile, stretches


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [2, 3, 9, 20])
def test_levels_of_the_draws_themselves_are_even(count):
    # The k-th of D draws has the level k / (D + 1), in whatever order they come.
    draws = torch.arange(float(count)).flip(0).view(-1, 1)
    levels = [(k + 1) / (count + 1) for k in range(count)]
    assert [quantile(draws, level).item() for level in levels] == pytest.approx(list(range(count)), abs=1e-5)
    assert quantile(draws, 0.5).item() == pytest.approx((count - 1) / 2)


def test_beyond_the_outermost_draws_there_is_nothing_to_go_by():
    draws = normal(4, 5, 3, seed=0)
    assert torch.equal(quantile(draws, 0.0), draws.amin(0))
    assert torch.equal(quantile(draws, 0.19), draws.amin(0))
    assert torch.equal(quantile(draws, 1.0), draws.amax(0))
    assert (quantile(draws, 0.25) > draws.amin(0)).all()


# Draws that are no sample of a distribution but exchangeable with the value: they share a random place and width.
@pytest.mark.parametrize("kind", ["normal", "skewed", "exchangeable"])
@pytest.mark.parametrize(("count", "coverage"), [(3, 0.5), (9, 0.8), (20, 0.8), (20, 0.5)])
def test_intervals_hold_their_share_of_exchangeable_values(kind, count, coverage):
    every = normal(count + 1, 20_000, seed=count)
    if kind == "skewed":
        every = every.exp()
    if kind == "exchangeable":
        every = 10 * normal(20_000, seed=98) + every * normal(20_000, seed=99).exp()
    draws, value = every[:-1], every[-1]
    low, high = quantile(draws, (1 - coverage) / 2), quantile(draws, (1 + coverage) / 2)
    # Between two draws the line that is drawn is not the distribution, hence not a hundredth.
    assert ((low <= value) & (value <= high)).float().mean() == pytest.approx(coverage, abs=0.02)


def test_a_sample_taken_for_the_population_holds_too_little():
    every = normal(21, 20_000, seed=0)
    draws, value = every[:-1], every[-1]
    plain = (draws.quantile(0.1, 0) < value) & (value < draws.quantile(0.9, 0))
    assert plain.float().mean() < 0.75


def test_the_outermost_draws_hold_all_but_two_in_the_number_of_places():
    every = normal(7, 20_000, seed=1)
    held = (quantile(every[:-1], 0.005) < every[-1]) & (every[-1] < quantile(every[:-1], 0.995))
    assert held.float().mean() == pytest.approx(5 / 7, abs=0.01)


def test_middle_and_spread_are_those_of_a_normal_distribution():
    place, size = torch.tensor([-3.0, 0.0, 100.0]), torch.tensor([0.5, 1.0, 20.0])
    middle, spread = middle_and_spread(place + size * normal(4_000, 3, seed=2))
    torch.testing.assert_close((middle - place) / size, torch.zeros(3), atol=0.05, rtol=0)
    torch.testing.assert_close(spread / size, torch.ones(3), atol=0.05, rtol=0)
    # A few odd draws do not move them.
    few = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1e6]).unsqueeze(1)
    assert [round(v.item(), 2) for v in middle_and_spread(few)] == [4.0, round(4 / 1.349, 2)]


def test_stretched_intervals_reach_the_value_and_hold_their_share():
    draws, values = normal(9, 5_000, seed=3), 3 * normal(5_000, seed=4) + 1
    factors = stretches(draws, values, 0.6)
    low, middle, high = (quantile(draws, level) for level in (0.2, 0.5, 0.8))
    end = torch.where(values > middle, high, low)
    torch.testing.assert_close(middle + factors * (end - middle), values, atol=1e-3, rtol=1e-3)
    wide = factors.quantile(0.6)
    held = (middle + wide * (low - middle) <= values) & (values <= middle + wide * (high - middle))
    assert held.float().mean() == pytest.approx(0.6, abs=0.005)
    assert not stretches(torch.ones(4, 1), torch.ones(1), 0.5).isfinite().any()


class Bank(DrawsMixin):
    """Restores every value to the quantile in force of its own draws."""

    def restore(self, X):
        return np.asarray(X) + self.between(torch.arange(9.0)).item()


def test_intervals_restore_with_either_end_in_force():
    bank = Bank()
    low, high = bank.interval([0.0, 10.0], 0.8)
    assert low.tolist() == [0.0, 10.0]
    assert high.tolist() == [8.0, 18.0]
    # What is in force for an end is so for that restoration alone.
    assert bank.restore([0.0]).tolist() == [4.0]


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.2, "half", None])
def test_a_coverage_that_is_none_is_refused(coverage):
    with pytest.raises(InputError, match="coverage: "):
        Bank().interval([0.0], coverage)
