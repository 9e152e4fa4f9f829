"""What series VAEs share: scores along drawn paths, and parameters that are told once."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from genad import OmniAnomaly
from genad.cli.catalog import parameters
from genad.core.inference import RECURRENT_ROWS
from genad.core.registry import detector_class
from genad.data.samples import Batch
from genad.nn import gaussian_log_prob
from genad.reconstruction.vae.steps import PathVAE


@dataclass(eq=False, repr=False)
class Told(PathVAE):
    """Expects what the noise of a path says, with a standard deviation of 2."""

    def expected(self, net, x, noise):
        return noise.expand_as(x), torch.full_like(x, 2.0)


def test_score_map_and_restored_are_means_over_the_paths():
    net = SimpleNamespace(noise=torch.randn(3, 5, 1, generator=torch.Generator().manual_seed(0)))
    x = torch.randn(4, 5, 2, generator=torch.Generator().manual_seed(1))
    found = Told(draws=3).infer(net, Batch(x), frozenset({"map", "restored"}))
    paths = net.noise[:, None].expand(3, 4, 5, 2)
    torch.testing.assert_close(found.score, -gaussian_log_prob(x, paths, torch.tensor(2.0)).sum(-1).mean(0))
    torch.testing.assert_close(found.map, ((x - paths) / 2).square().mean(0) / 2)
    torch.testing.assert_close(found.restored, paths.mean(0))
    assert Told(draws=3).infer(net, Batch(x), frozenset()).map is None


def test_missing_channels_count_as_the_mean_of_the_others():
    net = SimpleNamespace(noise=torch.zeros(1, 2, 1))
    x = torch.tensor([[[3.0, 0.0], [0.0, 0.0]]])
    mask = torch.tensor([[[True, False], [False, False]]])
    found = Told(draws=1).infer(net, Batch(x, mask), frozenset({"map"}))
    one = -gaussian_log_prob(torch.tensor(3.0), torch.tensor(0.0), torch.tensor(2.0)).item()
    assert found.score.tolist() == [[pytest.approx(2 * one), 0.0]]
    assert found.map.tolist() == [[[1.125, 0.0], [0.0, 0.0]]]


@pytest.mark.parametrize("name", ["vqrae", "bi_vqrae", "vaeat", "sisvae", "omni_anomaly"])
def test_shared_parameters_are_listed_and_told(name):
    told = {one["name"]: one["help"] for one in parameters(detector_class(name))}
    assert {"latent", "hidden", "window"} <= set(told)
    assert all(told.values())


def test_blocks_of_recurrent_networks_are_not_small():
    detector = OmniAnomaly()
    detector.device_ = "cpu"
    assert detector._block((1000, 50)) == RECURRENT_ROWS
