from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.data.samples import Batch
from genad.nn.segmentation import focal_loss
from genad.nn.structural import ssim_map
from genad.reconstruction.hybrid.draem import DRAEM, Reconstructor, reconstructor_widths
from genad.synthesis.base import create_synthesizer

# few images are left to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


def waves(n, seed=0, size=16):
    """Smooth two-dimensional waves, in 0..1."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 2 * np.pi, (2, n, 1, 1))
    t = np.arange(size) * 0.4
    field = np.sin(t[:, None] + phase[0]) + np.sin(t[None, :] + phase[1])
    return (0.5 + 0.2 * field)[:, None].clip(0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def fitted():
    return DRAEM(training=Training(updates=200)).fit(waves(160))


@pytest.fixture
def pairs(fitted):
    z = fitted._ingest(waves(12, seed=3), reset=False).samples.x
    torch.manual_seed(0)
    return fitted.pairs(fitted.net_, Batch(z))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 13), (33, 64)])
def test_the_reconstructor_takes_any_size(size):
    net = Reconstructor(2, size)
    assert net(torch.randn(3, 2, *size)).shape == (3, 2, *size)
    assert len(reconstructor_widths(size)) >= 1


def test_everything_passes_through_the_coarsest_codes():
    torch.manual_seed(0)
    net = Reconstructor(1, (32, 32)).eval()
    codes = net.encode(torch.randn(1, 1, 32, 32))
    assert codes.shape[2:] == (4, 4)
    net.encode.register_forward_hook(lambda *_: torch.zeros_like(codes))
    with torch.no_grad():
        torch.testing.assert_close(net(torch.randn(1, 1, 32, 32)), net(torch.zeros(1, 1, 32, 32)))


def test_the_segmenter_sees_the_repair_beside_the_image(fitted, pairs):
    seen = []
    handle = fitted.net_.segment.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    _, restored = fitted.examine(fitted.net_, pairs[1])
    handle.remove()
    torch.testing.assert_close(seen[0], torch.cat([restored, pairs[1]], 1))


def test_the_loss_is_the_sum_of_its_three_parts(fitted, pairs):
    clean, seen, mask = pairs
    net = fitted.net_
    p, restored = fitted.examine(net, seen)
    wanted, got = net.frame.pixels(clean), net.frame.pixels(restored)
    expected = (got - wanted).square().mean() + 1 - ssim_map(got, wanted).mean() + focal_loss(p, mask, gamma=2.0).mean()
    torch.testing.assert_close(fitted.pair_loss(net, clean, seen, mask), expected)


def test_the_repair_aims_at_the_original_and_not_at_what_was_seen(fitted, pairs):
    clean, seen, mask = pairs
    net = fitted.build((1, 16, 16))
    fitted.pair_loss(net, clean, seen, mask).backward()
    towards_original = net.generate.decode[-1].bias.grad.clone()
    net.zero_grad()
    fitted.pair_loss(net, clean + 1.0, seen, mask).backward()
    assert not torch.equal(net.generate.decode[-1].bias.grad, towards_original)


def test_the_mask_moves_the_repairing_network_too(fitted, pairs):
    _, seen, mask = pairs
    net = fitted.build((1, 16, 16))
    p, _ = fitted.examine(net, seen)
    focal_loss(p, mask).mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.generate.encode[0].parameters())


def test_the_score_is_the_peak_of_the_smoothed_map():
    p = torch.zeros(1, 1, 64, 64)
    p[..., 10:12, 10:12] = 1.0
    assert DRAEM().image_score(p).item() == pytest.approx(4 / 25)


def test_defects_are_found_marked_and_repaired(fitted):
    X = waves(40, seed=7)
    made = create_synthesizer("perlin_texture").synthesize(X, 40, random_state=3)
    truth = X[made.sources]
    found = fitted.detect(np.concatenate([X, made.samples]))
    assert roc_auc_score(np.repeat([0, 1], 40), found.scores) > 0.9
    masks = made.masks[:, None]
    assert roc_auc_score(masks.ravel(), found.maps[40:].ravel()) > 0.9
    error = np.abs(found.restored[40:] - truth)
    assert error[masks].mean() < 0.5 * np.abs(made.samples - truth)[masks].mean()
    assert error[~masks].mean() < 0.05


def test_it_is_found_by_its_name():
    assert isinstance(genad.create("draem"), DRAEM)
    assert DRAEM.card.row == "2.1-02"
