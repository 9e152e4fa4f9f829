"""Images on the command line: detect in a known layout, score, restore and synthesise."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from genad.data.io import read_table

QUICK = ("--method", "autoencoder", "--set", "training.updates=80", "--set", "latent=2")


def photo(rng, defect=False):
    ramp = np.linspace(60, 180, 16)[:, None] * np.ones(24) + rng.normal(0, 3, (16, 24))
    if defect:
        ramp[4:9, 10:15] = 255
    return np.clip(ramp, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A folder in the layout of MVTec, with two kinds of defects."""
    root = tmp_path_factory.mktemp("parts")
    rng = np.random.default_rng(0)

    def put(pixels, *place):
        path = root.joinpath(*place)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)

    for i in range(100):
        put(photo(rng), "train", "good", f"{i:03}.png")
    for i in range(6):
        put(photo(rng), "test", "good", f"{i}.png")
        for kind in ("spot", "stain"):
            put(photo(rng, defect=True), "test", kind, f"{i}.png")
            mask = np.zeros((16, 24), np.uint8)
            mask[4:9, 10:15] = 255
            put(mask, "ground_truth", kind, f"{i}_mask.png")
    return root


@pytest.fixture(scope="module")
def judged(parts, genad_json, tmp_path_factory):
    out = tmp_path_factory.mktemp("judged")
    return out, genad_json("detect", parts, "-o", out, "--alpha", "0.1", *QUICK)


def test_a_folder_of_parts_is_judged_in_one_command(parts, judged):
    out, facts = judged
    assert facts["data"]["images"] == 18
    assert facts["train"]["images"] == 100
    assert facts["data"]["classes"] == {"good": 6, "spot": 6, "stain": 6}
    assert facts["against_labels"]["auroc"] > 0.95
    assert facts["top"][0]["image"].startswith(("test/spot", "test/stain"))
    assert facts["top"][0]["feature"].startswith("rows ")
    scores = read_table(out / "scores.csv")
    assert scores.names == ["file", "class", "score", "p_value", "is_anomaly", "masked_share"]
    assert len(scores) == 18


def test_every_flagged_image_has_a_mask_of_its_size(judged):
    out, facts = judged
    masks = sorted((out / "masks").rglob("*.png"))
    assert len(masks) == facts["flagged"]
    spots = [path for path in masks if "spot" in str(path)]
    truth = np.zeros((16, 24), bool)
    truth[4:9, 10:15] = True
    for path in spots:
        mask = np.asarray(Image.open(path)) > 0
        assert mask.shape == (16, 24)
        assert (mask & truth).sum() > 0.6 * truth.sum()


def test_the_report_shows_pictures_classes_and_pixel_figures(judged):
    out, _ = judged
    page = (out / "report.html").read_text(encoding="utf-8")
    for said in ("By kind of defect", "stain", "AUPRO", "Dice", "nearest normal", "mask", "Masks", "test/spot/"):
        assert said in page
    assert page.count("<img src=") == 4 * 18


def test_a_model_scores_and_restores_new_images(parts, judged, genad, tmp_path):
    out, _ = judged
    model = out / "model.genad"
    lines = genad("score", parts / "test" / "spot", "-m", model).stdout.splitlines()
    assert len(lines) == 7
    assert lines[0].startswith('"file",')
    genad("restore", parts / "test" / "spot" / "0.png", "-m", model, "-o", tmp_path / "healthy.png")
    healthy = np.asarray(Image.open(tmp_path / "healthy.png"))
    assert healthy.shape == (16, 24)
    assert np.abs(healthy[4:9, 10:15].astype(float) - 130).mean() < 80
    genad("restore", parts / "test" / "spot", "-m", model, "-o", tmp_path / "many")
    assert len(list((tmp_path / "many").rglob("*.png"))) == 6


def test_an_explanation_names_the_region(parts, judged, genad):
    out, _ = judged
    said = genad("explain", parts / "test" / "spot", "-m", out / "model.genad", "--row", "0").stdout
    assert "rows " in said


def test_restoring_needs_a_place_for_images(parts, judged, genad, tmp_path):
    out, _ = judged
    one = parts / "test" / "spot" / "0.png"
    assert "--out" in genad("restore", one, "-m", out / "model.genad", code=2).stderr
    many = genad("restore", parts / "test", "-m", out / "model.genad", "-o", tmp_path / "a.png", code=2)
    assert "folder" in many.stderr
    assert ".png" in genad("restore", one, "-m", out / "model.genad", "-o", tmp_path / "a.txt", code=2).stderr
    assert list(tmp_path.iterdir()) == []


def test_train_and_test_may_be_two_folders(parts, genad_json, tmp_path):
    facts = genad_json("detect", parts / "test" / "spot", "--train", parts / "train" / "good", "-o", tmp_path, *QUICK)
    assert (facts["data"]["images"], facts["train"]["images"]) == (6, 100)


def test_an_inspection_counts_false_calls_and_escapes(parts, genad_json, tmp_path):
    facts = genad_json("industrial", parts, "-o", tmp_path, "--alpha", "0.1", *QUICK)
    assert facts["inspection"]["good"] == 6
    assert facts["inspection"]["defective"] == 12
    assert facts["inspection"]["escapes"] == {"spot": 0.0, "stain": 0.0}
    assert any("false calls per 1,000" in note for note in facts["notes"])
    assert facts["detector"]["why"] == "asked for"


def test_medical_answers_say_what_they_are_for(parts, genad_json, genad, folder, tmp_path):
    facts = genad_json("medical", parts, "-o", tmp_path, *QUICK)
    assert "not for diagnosis" in facts["notice"]
    assert facts["volumes"] == []
    said = genad("medical", folder / "table.csv", "-o", tmp_path / "t", *QUICK, code=2).stderr
    assert "images" in said


def test_synthesis_writes_images_masks_and_a_manifest(parts, genad_json, genad, tmp_path):
    out = tmp_path / "defects"
    made = genad_json("synthesize", parts, "--method", "nsa", "-n", "5", "-o", out)
    assert made["images"] == 5
    assert len(list((out / "images").iterdir())) == len(list((out / "masks").iterdir())) == 5
    assert json.loads((out / "manifest.json").read_text())
    again = genad("synthesize", parts, "--method", "cut_paste", "-n", "5", "-o", out, code=2)
    assert "overwrite" in again.stderr
    assert "cut_paste" in genad("synthesize", parts, "--method", "cutpast", "-o", tmp_path / "x", code=2).stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("option", [("--time", "t"), ("--entity", "e"), ("--drop", "a"), ("--delimiter", ";")])
def test_options_of_tables_are_refused(parts, genad, tmp_path, option):
    said = genad("detect", parts, "-o", tmp_path / "o", *option, *QUICK, code=2).stderr
    assert "images have no columns" in said


def test_options_of_images_are_refused_for_tables(folder, genad, tmp_path):
    said = genad("detect", folder / "table.csv", "--size", "32", "-o", tmp_path / "o", code=2).stderr
    assert "only images" in said


def test_bad_folders_are_named(tmp_path, genad):
    empty = tmp_path / "empty"
    empty.mkdir()
    said = genad("detect", empty, "-o", tmp_path / "out", code=2).stderr
    assert "no image" in said
    assert not (tmp_path / "out").exists()
    (empty / "a.png").write_text("not an image")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(empty / "b.png")
    said = genad("detect", empty, "-o", tmp_path / "out", code=2).stderr
    assert "a.png" in said
    assert not (tmp_path / "out").exists()
