"""Settling drafts, the registry, reading pixels, and saving."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from genad.errors import InputError, InputTypeError
from genad.synthesis.base import Draft, create_synthesizer, list_synthesizers, settle
from genad.synthesis.cut_paste import CutPaste
from genad.synthesis.pixels import VISIBLE, read_masks, read_pixels


def test_settle_puts_the_source_back_where_the_change_is_invisible():
    x = torch.full((1, 1, 8, 8), 0.5)
    proposed = x.clone()
    proposed[..., :4, :] += 0.4 * VISIBLE
    proposed[..., 4:, :] += 0.2
    region = torch.ones_like(x, dtype=torch.bool)
    images, mask = settle(x, Draft(proposed, region), VISIBLE)
    assert mask[0, 0].any(1).tolist() == [False] * 4 + [True] * 4
    assert torch.equal(images[..., :4, :], x[..., :4, :])
    assert torch.equal(images[..., 4:, :], proposed[..., 4:, :])


def test_settle_drops_lone_pixels_and_fills_single_holes():
    x = torch.zeros(1, 1, 9, 9)
    proposed = x.clone()
    proposed[0, 0, 0, 8] = 0.5
    proposed[0, 0, 4:7, 2:5] = 0.5
    proposed[0, 0, 5, 3] = 0.0
    _, mask = settle(x, Draft(proposed, torch.ones_like(x, dtype=torch.bool)), VISIBLE)
    assert not mask[0, 0, 0, 8]
    assert mask[0, 0, 5, 3]
    assert int(mask.sum()) == 9


def test_settle_keeps_to_the_region():
    x = torch.zeros(1, 1, 6, 6)
    region = torch.zeros_like(x, dtype=torch.bool)
    region[..., 1:3, 1:3] = True
    images, mask = settle(x, Draft(x + 0.5, region), VISIBLE)
    assert torch.equal(mask, region)
    assert float(images.sum()) == 2.0


def test_every_image_is_used_equally_often():
    X = np.random.default_rng(0).random((5, 1, 16, 16))
    counts = np.bincount(CutPaste().synthesize(X, 12).sources, minlength=5)
    assert sorted(counts.tolist()) == [2, 2, 2, 3, 3]


def test_meta_is_plain_data_with_the_drawn_parameters():
    X = np.random.default_rng(0).random((3, 1, 16, 16))
    meta = CutPaste().synthesize(X, 3).meta
    assert json.loads(json.dumps(meta)) == meta
    assert set(meta[0]) >= {"method", "kind", "centre", "sides", "degrees", "moved"}
    assert {row["kind"] for row in CutPaste().synthesize(X, 20).meta} == {"patch", "scar"}


def test_unknown_names_and_parameters_are_answered_with_the_near_ones():
    assert {"cut_paste", "perlin_texture", "poisson_blend", "noise_lesions"} <= set(list_synthesizers())
    assert create_synthesizer("Cut-Paste").name == "cut_paste"
    with pytest.raises(InputError, match="no synthesizer called 'cutpast'; did you mean cut_paste"):
        create_synthesizer("cutpast")
    with pytest.raises(InputError, match=r"use one of .*cut_paste"):
        create_synthesizer("zzzz")
    with pytest.raises(InputError, match=r"jiter: CutPaste has no such parameter.*Did you mean jitter"):
        create_synthesizer("cut_paste", jiter=1)


def test_fit_refuses_what_does_not_belong_together():
    X = np.random.default_rng(0).random((3, 1, 16, 16))
    with pytest.raises(InputError, match="masks: masks were given without"):
        CutPaste().fit(X, masks=np.ones((3, 16, 16)))
    with pytest.raises(InputError, match="anomalous: images of shape"):
        CutPaste().fit(X, X[:, :, :8])
    with pytest.raises(InputError, match="masks: an array of shape"):
        CutPaste().fit(X, X, np.ones((2, 16, 16)))
    with pytest.raises(InputError, match=r"masks: those at \[1\] mark no pixel"):
        CutPaste().fit(X, X, np.ones((3, 16, 16)) * np.array([1, 0, 1])[:, None, None])
    with pytest.raises(InputTypeError, match="random_state"):
        CutPaste().synthesize(X, 1, random_state=0.5)
    with pytest.raises(InputError, match="x: images of 3 channels were given"):
        create_synthesizer("poisson_blend").fit(X).apply(torch.zeros(2, 3, 16, 16), torch.Generator())


def test_reading_pixels_knows_their_range():
    values, limits = read_pixels(np.array([[[[0, 255]]]], np.uint8), "X")
    assert limits.to_unit(values).flatten().tolist() == [0.0, 1.0]
    back = limits.from_unit(torch.tensor([[[[0.5, 1.0]]]]))
    assert back.dtype == np.uint8
    assert back.flatten().tolist() == [128, 255]

    class Scaled:
        pixels = np.full((1, 2, 1, 1), 3.0)
        low, high = (1.0, 0.0), (5.0, 6.0)

    values, limits = read_pixels(Scaled, "X")
    assert limits.to_unit(values).flatten().tolist() == [0.5, 0.5]
    Scaled.high = (1.0, 6.0)
    with pytest.raises(InputError, match="high must be above low"):
        read_pixels(Scaled, "X")


def test_a_narrow_integer_range_asks_for_a_whole_level():
    class Narrow:
        pixels = np.zeros((1, 1, 4, 4), np.uint16)
        low, high = 0, 100

    assert read_pixels(Narrow, "X")[1].tolerance == pytest.approx(0.005, rel=0.01)
    assert read_masks(np.full((1, 1, 4, 4), 255), (1, 1, 4, 4)).dtype == torch.bool


@pytest.mark.parametrize(
    ("channels", "dtype", "suffix"),
    [(1, "uint8", ".png"), (3, "uint8", ".png"), (4, "float32", ".png"), (1, "uint16", ".png"), (3, "uint16", ".tif")],
)
def test_saved_files_hold_the_samples(tmp_path, channels, dtype, suffix):
    image = pytest.importorskip("PIL.Image")
    top = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    X = (np.random.default_rng(0).random((2, channels, 12, 10)) * top).astype(dtype)
    made = CutPaste(scar=0.0).synthesize(X, 3)
    folder = made.save(tmp_path / "out")
    records = json.loads((folder / "manifest.json").read_text())
    with (folder / "manifest.csv").open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == [record["image"] for record in records]
    assert len(records) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    for i, record in enumerate(records):
        assert record["image"].endswith(suffix)
        assert record["label"] == 1
        assert record["source"] == made.sources[i]
        mask = np.asarray(image.open(folder / record["mask"]))
        np.testing.assert_array_equal(mask > 0, made.masks[i])
        if suffix == ".tif":
            pixels = pytest.importorskip("tifffile").imread(folder / record["image"])
        else:
            pixels = np.asarray(image.open(folder / record["image"]))
        planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        wanted = np.rint(made.samples[i] * 255) if dtype == "float32" else made.samples[i]
        np.testing.assert_array_equal(planes, wanted)


def test_saving_is_all_or_nothing(tmp_path, monkeypatch):
    pytest.importorskip("PIL.Image")
    X = np.random.default_rng(0).random((2, 1, 12, 10))
    made = CutPaste().synthesize(X, 2)
    folder = made.save(tmp_path / "deep" / "out")
    before = (folder / "manifest.json").read_text()
    with pytest.raises(InputError, match="is not empty"):
        made.save(folder)
    other = CutPaste().synthesize(X, 1, random_state=1)
    monkeypatch.setattr("genad.synthesis.synthetic.json.dumps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        other.save(folder, overwrite=True)
    monkeypatch.undo()
    assert (folder / "manifest.json").read_text() == before
    assert [p.name for p in folder.parent.iterdir()] == ["out"]
    other.save(folder, overwrite=True)
    assert len(list((folder / "images").iterdir())) == 1
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        made.save(tmp_path / "file")
