from __future__ import annotations

import sys

import pytest
import torch

from genad.errors import InputError, MissingExtraError
from genad.nn import NoiseSchedule
from genad.nn.diffusion import DiffusionNet, GaussianNoise, TimedTranslator, denoiser


def test_a_learnt_denoiser_approaches_the_closed_form_of_normal_data():
    torch.manual_seed(0)
    mix = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    schedule = NoiseSchedule(100)
    net = DiffusionNet((2,), TimedTranslator((2,)), schedule)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    total = 500
    for step in range(total):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / total)
        x = torch.randn(256, 2) @ mix.T
        loss = net.loss(x, torch.randn(256, 2), 100)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    t = torch.randint(5, 100, (4000,))
    x_t = schedule.q(torch.randn(4000, 2) @ mix.T, t, torch.randn(4000, 2))
    abar = schedule.abar[t].view(-1, 1, 1)
    covariance = abar * (mix @ mix.T) + (1 - abar) * torch.eye(2)
    expected = (1 - abar[..., 0]).sqrt() * torch.linalg.solve(covariance, x_t.unsqueeze(-1)).squeeze(-1)
    with torch.no_grad():
        error = (net.predict(x_t, t) - expected).square().mean() / expected.square().mean()
    assert error < 0.05


def test_chains_draw_nothing_and_each_row_stands_alone(monkeypatch):
    torch.manual_seed(0)
    net = DiffusionNet((1, 6, 6), denoiser((1, 6, 6)), NoiseSchedule(50)).eval()
    x, noises = torch.randn(3, 1, 6, 6), torch.randn(4, 1, 6, 6)
    times = NoiseSchedule.timetable(torch.tensor([39, 20, 7]), 4)
    for name in ("randn", "randn_like", "rand", "randint", "normal"):
        monkeypatch.setattr(torch, name, lambda *a, **k: pytest.fail("noise was drawn"))
    with torch.no_grad():
        together = net.descend(x, times, noises)
        for i in range(3):
            one = slice(i, i + 1)
            torch.testing.assert_close(net.descend(x[one], times[:, one], noises), together[one], atol=1e-5, rtol=1e-5)


def test_estimates_stay_within_the_range_of_clean_values():
    net = DiffusionNet((2, 3, 3), lambda x, t: torch.zeros_like(x), NoiseSchedule(100))
    far = torch.full((1, 2, 3, 3), 50.0)
    assert net.clean(far, torch.tensor([60])).min() > 50
    data = torch.stack([torch.linspace(-1, 2, 9).view(3, 3), torch.linspace(0, 5, 9).view(3, 3)])[None]
    net.bound(data)
    assert net.clean(far, torch.tensor([60]))[0, 0].max() == 2
    assert net.clean(far, torch.tensor([60]))[0, 1].max() == 5
    assert net.clean(-far, torch.tensor([60]))[0, 0].min() == -1


def test_the_loss_keeps_to_its_horizon():
    seen = []

    def predict(x, t):
        seen.append(t)
        return torch.zeros_like(x)

    net = DiffusionNet((1, 2, 2), predict, NoiseSchedule(1000))
    noise = torch.full((400, 1, 2, 2), 2.0)
    assert net.loss(torch.zeros(400, 1, 2, 2), noise, 30).item() == pytest.approx(4.0)
    assert seen[0].min() >= 0
    assert seen[0].max() == 29


def test_the_denoiser_is_told_the_step():
    torch.manual_seed(0)
    net = denoiser((1, 8, 8))
    x = torch.randn(1, 1, 8, 8).expand(2, -1, -1, -1)
    one, two = net(x, torch.tensor([3, 700]))
    assert (one - two).abs().max() > 1e-3


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 2), (2, 9, 12)])
def test_the_network_of_diffusers_takes_any_size(shape):
    pytest.importorskip("diffusers")
    net = denoiser(shape, network="diffusers")
    assert net(torch.zeros(2, *shape), torch.tensor([0, 999])).shape == (2, *shape)


def test_diffusers_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingExtraError, match=r"genad\[diffusion\]"):
        denoiser((1, 8, 8), network="diffusers")


def test_an_unknown_network_is_refused():
    with pytest.raises(InputError, match="network: 'transformer'"):
        denoiser((1, 8, 8), network="transformer")


def test_gaussian_noise_follows_the_generator():
    source = GaussianNoise((2, 3))
    one, again = (source.draw(1000, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, again)
    assert float(one.std()) == pytest.approx(1, abs=0.05)
