"""DRAEM's anomalies: the blend, the textures and where they come from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genad.errors import InputError
from genad.synthesis.perlin_texture import PerlinTexture
from genad.synthesis.textures import FAMILIES, TextureBank, procedural


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_blend_follows_its_formula():
    textures = np.ones((1, 1, 40, 40), np.float32)
    X = np.full((3, 1, 32, 32), 0.2, np.float32)
    made = PerlinTexture(textures=textures, changes=0, transparency=(0.25, 0.25)).synthesize(X, 5)
    np.testing.assert_allclose(made.samples[made.masks[:, None]], 0.75 * 1.0 + 0.25 * 0.2, rtol=1e-5)
    assert {row["texture"] for row in made.meta} == {"given"}
    assert {row["transparency"] for row in made.meta} == {0.25}


def test_transparency_spans_its_range():
    X = np.random.default_rng(0).random((4, 1, 16, 16))
    drawn = [row["transparency"] for row in PerlinTexture().synthesize(X, 100).meta]
    assert 0.0 <= min(drawn) < 0.1
    assert 0.7 < max(drawn) < 0.8


def test_without_textures_the_meta_says_what_stood_in():
    X = np.random.default_rng(0).random((4, 1, 16, 16))
    kinds = [row["texture"] for row in PerlinTexture().fit(X).synthesize(X, 60).meta]
    assert set(kinds) == {"other normal image", "drawn by formula"}
    assert 15 < kinds.count("drawn by formula") < 45


def test_donors_are_the_fitted_images():
    X = np.full((2, 1, 32, 32), 0.2, np.float32)
    made = PerlinTexture(changes=0, transparency=(0, 0)).fit(X + 0.6).synthesize(X, 40)
    chosen = [i for i, row in enumerate(made.meta) if row["texture"] == "other normal image"]
    for i in chosen:
        np.testing.assert_allclose(made.samples[i, 0][made.masks[i]], 0.8, rtol=1e-5)


def test_regions_stay_on_the_object_when_asked():
    X = np.zeros((3, 1, 32, 32), np.float32)
    X[:, :, 8:24, 8:24] = 0.8
    X += 0.02 * np.random.default_rng(0).random(X.shape).astype(np.float32)
    made = PerlinTexture(on_object=True).fit(X).synthesize(X, 20)
    assert not made.masks[:, :8].any()
    assert not made.masks[:, :, 24:].any()


def test_a_bank_reads_folders_and_brings_pictures_to_size_and_channels(tmp_path):
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    (tmp_path / "deep").mkdir()
    image.fromarray(rng.integers(0, 255, (30, 50, 3), np.uint8)).save(tmp_path / "deep" / "a.png")
    image.fromarray(np.full((6, 5), 102, np.uint8)).save(tmp_path / "b.png")
    (tmp_path / "notes.txt").write_text("no picture")
    bank = TextureBank(tmp_path)
    assert len(bank) == 2
    for channels in (1, 3, 4):
        crops = bank.draw(8, channels, 16, 12, generator())
        assert crops.shape == (8, channels, 16, 12)
        assert 0.0 <= crops.min() <= crops.max() <= 1.0
    alone = TextureBank([tmp_path / "b.png"])
    assert torch.allclose(alone.draw(1, 3, 16, 12, generator()), torch.tensor(0.4))
    X = rng.random((2, 1, 16, 16))
    made = PerlinTexture(textures=str(tmp_path)).synthesize(X, 4)
    assert {row["texture"] for row in made.meta} == {"given"}


def test_unusable_textures_are_refused_by_name(tmp_path):
    pytest.importorskip("PIL.Image")
    (tmp_path / "broken.png").write_text("not a picture")
    with pytest.raises(InputError, match=r"broken.png cannot be read"):
        TextureBank(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="there is no picture"):
        TextureBank(tmp_path / "empty")
    with pytest.raises(InputError, match="neither a folder nor a file"):
        TextureBank(tmp_path / "absent")
    with pytest.raises(InputError, match="textures: an array of shape"):
        TextureBank(np.zeros((3, 3)))


def test_textures_by_formula_are_of_all_families_and_vary():
    textures, family = procedural(60, 3, 24, 20, generator())
    assert textures.shape == (60, 3, 24, 20)
    assert set(family.tolist()) == set(range(len(FAMILIES)))
    assert 0.0 <= textures.min() <= textures.max() <= 1.0
    assert (textures.flatten(2).std(2).amax(1) > 1e-3).all()
    torch.testing.assert_close(textures, procedural(60, 3, 24, 20, generator())[0])
    assert torch.isfinite(procedural(20, 1, 1, 1, generator())[0]).all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"transparency": (0.0, 1.0)}, r"transparency: \(0.0, 1.0\) was given"),
        ({"threshold": 1.0}, "threshold: 1.0 was given"),
        ({"exponents": 0}, "exponents: 0 was given"),
        ({"smallest_cell": 0.5}, "smallest_cell: 0.5 was given"),
        ({"changes": 11}, "changes: 11 was given; there are 10"),
    ],
)
def test_parameters_that_cannot_work_are_refused(params, message):
    with pytest.raises(InputError, match=message):
        PerlinTexture(**params).apply(torch.rand(1, 1, 8, 8), generator())
