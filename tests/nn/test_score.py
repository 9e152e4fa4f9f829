"""Score networks: right for Gaussians by construction, trained by denoising; a descent that spares normal samples."""

from __future__ import annotations

import pytest
import torch

from genad.nn.score import DenoisingDescent, ScoreNet, denoising_error, geometric_levels


@pytest.fixture
def blank():
    """Return a network whose learnt part says nothing: the score of a standard Gaussian."""
    torch.manual_seed(0)
    net = ScoreNet((4,))
    torch.nn.init.zeros_(net.body.last.weight)
    torch.nn.init.zeros_(net.body.last.bias)
    return net.requires_grad_(requires_grad=False)


def test_the_score_of_a_standard_gaussian_is_there_before_training(blank):
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
    sigma = torch.linspace(0.01, 3, 50)
    assert torch.allclose(blank(x, sigma), -x / (1 + sigma[:, None] ** 2), atol=1e-5)
    assert torch.allclose(blank.noise(x, sigma), -sigma[:, None] * blank(x, sigma), atol=1e-6)


def test_no_network_does_better_on_a_gaussian_than_that(blank):
    torch.manual_seed(0)
    x = torch.randn(40_000, 4)
    for level in (0.3, 1.0, 2.0):
        error = denoising_error(blank, x, torch.full((len(x),), level)).mean().item()
        # The variance of noise given the noised sample: 1 / (1 + sigma^2).
        assert error == pytest.approx(1 / (1 + level**2), rel=0.02)


def test_training_finds_the_score_of_other_data():
    torch.manual_seed(0)
    net = ScoreNet((2,))
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    direction = torch.tensor([[0.8, 0.6]])
    for _ in range(250):
        x = torch.randn(256, 1) @ direction
        loss = denoising_error(net, x, torch.rand(256) + 0.1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    off = torch.tensor([[-0.6, 0.8]])
    score = net(off, torch.full((1,), 0.5))
    # Across the line the noised data have variance 0.25.
    assert score.flatten().tolist() == pytest.approx((off / -0.25).flatten().tolist(), abs=0.6)


@pytest.mark.parametrize("shape", [(1,), (12, 2), (1, 8, 8), (3, 1, 8, 8)])
def test_every_shape_works_and_absurd_values_stay_finite(shape):
    net = ScoreNet(shape)
    x = torch.zeros(2, *shape)
    x[1] = 1e30
    noise = net.noise(x, torch.tensor([0.1, 2.0]))
    assert noise.shape == x.shape
    assert torch.isfinite(noise.square().flatten(1).sum(1)).all()


def test_levels_fall_in_equal_ratios():
    levels = geometric_levels(0.02, 2.0, 5)
    assert levels[0].item() == pytest.approx(2.0)
    assert levels[-1].item() == pytest.approx(0.02)
    assert (levels[1:] / levels[:-1]).tolist() == pytest.approx([0.1**0.5] * 4, rel=1e-5)


def test_the_descent_moves_odd_samples_and_spares_normal_ones(blank):
    def mean(values):
        return values.flatten(1).mean(1)

    normal = torch.randn(500, 4, generator=torch.Generator().manual_seed(1))
    descent = DenoisingDescent([1.0, 0.3])
    descent.learn(blank, normal, mean)
    restored = descent(blank, normal, mean)
    still = (restored == normal).all(1)
    assert 0.3 < still.float().mean() < 0.7
    assert (restored - normal).square().mean() < 0.1
    odd = torch.full((1, 4), 10.0)
    # Half of the way at a noise of one standard deviation, but for the typical length.
    assert descent(blank, odd, mean).mean() < 7
