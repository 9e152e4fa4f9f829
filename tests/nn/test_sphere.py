"""Autoencoders with codes on the unit sphere."""

from __future__ import annotations

import pytest
import torch

from genad.nn.sphere import SphereAutoencoder, sphere_latent


@pytest.mark.parametrize("shape", [(1,), (5,), (12, 2), (1, 12, 12), (4, 1, 8, 8)])
def test_codes_have_unit_length_and_energies_are_mean_squared_errors(shape):
    torch.manual_seed(0)
    net = SphereAutoencoder(shape, sphere_latent(shape))
    x = torch.randn(3, *shape)
    assert torch.allclose(net.code(x).norm(dim=1), torch.ones(3), atol=1e-5)
    assert net(x).shape == x.shape
    assert torch.allclose(net.energy(x), (x - net(x)).square().flatten(1).mean(1))


def test_far_samples_cannot_be_reconstructed():
    torch.manual_seed(0)
    net = SphereAutoencoder((4,), 3)
    assert net(torch.full((1, 4), 1e6)).abs().max() < 10
