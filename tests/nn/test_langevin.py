"""Langevin chains: what they sample, how they are kept, and what no gradient may reach."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genad.nn.langevin import ReplayBuffer, langevin, to_sphere, uniform_on_sphere


def bowl(x):
    return 0.5 * x.square().sum(1)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_chains_sample_the_density_of_their_energy():
    ends = langevin(lambda x: 0.5 * ((x - 2) / 0.5).square().sum(1), torch.zeros(4000, 1), steps=200, step=0.01)
    assert ends.mean().item() == pytest.approx(2.0, abs=0.05)
    assert ends.std().item() == pytest.approx(0.5, abs=0.04)


def test_little_noise_samples_at_a_low_temperature():
    step, noise = 0.1, 0.1
    ends = langevin(bowl, torch.zeros(4000, 1), steps=200, step=step, noise=noise)
    assert ends.std().item() == pytest.approx((noise**2 / (2 * step)) ** 0.5, abs=0.02)


def test_without_noise_it_is_gradient_descent():
    ends = langevin(bowl, torch.ones(3, 2), steps=4, step=0.5, noise=0.0)
    assert torch.allclose(ends, torch.full((3, 2), 0.5**4))


def test_clipped_moves_and_annealed_noise():
    start = torch.full((2, 1), 100.0)
    ends = langevin(bowl, start, steps=3, step=1.0, noise=0.0, clip=2.0)
    assert torch.allclose(ends, start - 6)
    flat = langevin(lambda x: 0 * x.sum(1), torch.zeros(20_000, 1), steps=3, step=1.0, noise=1.0, anneal=True)
    assert flat.var().item() == pytest.approx(1 + 1 / 4 + 1 / 9, abs=0.05)


def test_chains_stay_where_they_are_projected_to():
    ends = langevin(lambda z: z[:, 0], uniform_on_sphere(50, 3), steps=30, step=0.2, noise=0.02, project=to_sphere)
    assert torch.allclose(ends.norm(dim=1), torch.ones(50), atol=1e-5)
    assert ends[:, 0].max() < -0.9


def test_no_gradient_reaches_the_parameters_or_the_start():
    net = nn.Linear(3, 1)
    start = torch.randn(4, 3)
    kept = start.clone()
    ends = langevin(lambda x: net(x).squeeze(1), start, steps=2, step=0.1)
    assert not ends.requires_grad
    assert not start.requires_grad
    assert torch.equal(start, kept)
    assert net.weight.grad is None


def test_sampling_works_where_gradients_are_off():
    with torch.no_grad():
        assert langevin(bowl, torch.ones(2, 2), steps=1, step=0.5, noise=0.0).tolist() == [[0.5, 0.5]] * 2


def test_chains_go_on_and_some_start_afresh():
    chains = ReplayBuffer(lambda n: torch.zeros(n, 2), 2000, renewed=0.05)
    x, where = chains.draw(2000)
    assert len(where.unique()) == 2000
    chains.put(where, x + 1)
    again, _ = chains.draw(2000)
    assert (again == 0).all(1).float().mean().item() == pytest.approx(0.05, abs=0.02)
    chains.restart()
    assert (chains.store == 0).all()
    chains.clear()
    assert chains.store.shape == (0, 2)


def test_large_samples_get_fewer_chains():
    chains = ReplayBuffer(lambda n: torch.zeros(n, 3, 256, 256), 10_000)
    assert len(chains.store) == 2**22 // (3 * 256 * 256)
    assert len(chains.draw(64)[0]) == len(chains.store)
