"""Applications of images: what is chosen, false calls and escapes, and volumes put back where they lay."""

from __future__ import annotations

import importlib.util

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

import genad
from genad.applications import choosing
from genad.applications.choosing import choose_for_images
from genad.applications.industrial import inspection_figures
from genad.applications.medical import by_volume, export_volumes
from genad.applications.reading import read_both
from genad.data.image import Images, read_images
from genad.errors import InputError

QUICK = {"training": genad.Training(updates=150), "latent": 2, "threshold": genad.Conformal(0.1)}


def test_the_choice_follows_number_size_and_what_is_installed(monkeypatch):
    def of(n, side):
        return choose_for_images(Images.from_arrays(np.zeros((n, side, side), np.uint8)))

    assert of(300, 128).method == "image_committee"
    assert of(8, 128).method == "feature_memory"
    slices = Images.from_arrays(np.zeros((300, 128, 128), np.uint8))
    assert choose_for_images(slices, "medical").method == "padim"
    assert of(300, 28).method == "vae_kl_gradient"
    assert "28 px" in of(300, 28).why
    assert "on a processor" in of(300, 28).why
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert of(300, 128).method == "draem"
    assert choose_for_images(slices, "medical").method == "ssmctb"
    assert "genad[image]" in of(300, 128).why


def test_what_is_trained_on_tiny_images_depends_on_the_device(monkeypatch):
    images = Images.from_arrays(np.zeros((300, 28, 28), np.uint8))
    assert choose_for_images(images, device="cpu").method == "vae_kl_gradient"
    monkeypatch.setattr(choosing, "resolve_device", lambda device: torch.device("cuda"))
    found = choose_for_images(images)
    assert found.method == "ssmctb"
    assert "on an accelerator" in found.why


def test_arrays_of_images_are_read_as_images():
    X = np.zeros((5, 1, 8, 8))
    given, learnt = read_both(X)
    assert given is learnt
    assert given.kind == "image"
    with pytest.raises(InputError, match="size"):
        read_both(np.zeros((5, 3)), size=32)


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """A volume of smooth slices, 2 x 1 x 3 mm, three of which hold a bright ball."""
    rng = np.random.default_rng(0)
    row, column = np.mgrid[:24, :20]
    body = ((row - 12) ** 2 / 100 + (column - 10) ** 2 / 64 < 1).astype(float)
    data = np.stack([100 * body + 2 * rng.normal(size=body.shape) * body for _ in range(60)], axis=2)
    sick = data.copy()
    sick[10:15, 8:12, 30:33] = 180.0
    folder = tmp_path_factory.mktemp("volumes")
    affine = np.diag([2.0, 1.0, 3.0, 1.0])
    for name, values in (("healthy", data), ("sick", sick)):
        nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), affine), folder / f"{name}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def scanned(volume):
    healthy = read_images(volume / "healthy.nii.gz")
    detector = genad.create("autoencoder", holdout=0.3, **QUICK).fit(healthy)
    return detector.detect(read_images(volume / "sick.nii.gz"))


def test_slices_are_summed_up_by_volume(scanned):
    (answer,) = by_volume(scanned)
    assert answer.name == "sick.nii.gz"
    assert answer.slices == len(scanned) == 60
    assert answer.worst in (30, 31, 32)
    assert answer.flagged >= 3
    masked = sum(scanned.mask(i).sum() for i in range(60) if scanned.is_anomaly[i])
    # 2 x 1 x 3 mm are 0.006 ml.
    assert answer.millilitres == pytest.approx(0.006 * masked)


def test_maps_and_masks_lie_on_the_original(scanned, volume, tmp_path):
    written = export_volumes(scanned, tmp_path)
    assert [path.name for path in written] == ["sick_map.nii.gz", "sick_mask.nii.gz"]
    before = nibabel.load(volume / "sick.nii.gz")
    for path in written:
        after = nibabel.load(path)
        np.testing.assert_allclose(after.affine, before.affine)
        assert after.shape == before.shape
    mask = np.asarray(nibabel.load(written[1]).dataobj)
    assert set(np.unique(mask)) <= {0.0, 1.0}
    # The ball is where it was put, in the volume's own axes.
    ball = mask[10:15, 8:12, 30:33].mean()
    assert ball > 0.5
    assert ball > 5 * mask[..., 5].mean()


def test_pictures_that_are_no_volumes_give_none(tmp_path):
    images = Images.from_arrays(np.random.default_rng(0).integers(0, 255, (40, 8, 8)).astype(np.uint8))
    found = genad.create("ppca", threshold=genad.Conformal(0.2)).fit(images).detect(images)
    assert by_volume(found) == []
    assert export_volumes(found, tmp_path) == []
    assert inspection_figures(found) is None


def test_false_calls_and_escapes_are_counted():
    rng = np.random.default_rng(0)
    good = rng.normal(120, 3, (200, 8, 8))
    bad = rng.normal(120, 3, (10, 8, 8))
    bad[:5] += 60
    detector = genad.create("ppca", threshold=genad.Conformal(0.05)).fit(Images.from_arrays(good.astype(np.uint8)))
    labels = [0] * 10 + [1] * 10
    both = Images.from_arrays(np.concatenate([good[:10], bad]).astype(np.uint8))
    both = both.described(labels, classes=["good"] * 10 + ["bright"] * 5 + ["nothing"] * 5)
    figures = inspection_figures(detector.detect(both))
    assert (figures.good, figures.defective) == (10, 10)
    assert list(figures.escapes) == ["nothing", "bright"]
    assert figures.escapes["bright"] == 0.0
    assert figures.escapes["nothing"] >= 0.6
    assert figures.false_calls <= 300


def test_one_call_judges_a_folder(tmp_path):
    rng = np.random.default_rng(0)
    for kind, n in (("good", 100), ("stain", 6)):
        (tmp_path / kind).mkdir()
        for i in range(n):
            pixels = rng.normal(120, 3, (12, 12))
            pixels[4:8, 4:8] += 100 * (kind == "stain")
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / kind / f"{i}.png")
    found = genad.detect(tmp_path, method="ppca", alpha=0.1)
    assert len(found) == 56
    assert set(found.columns()["class"][found.top(6)]) == {"stain"}
