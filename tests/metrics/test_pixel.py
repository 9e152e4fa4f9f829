"""Pixel AUROC, AP, Dice and IoU: known answers, agreement with scikit-learn, and one message a mistake."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, jaccard_score, roc_auc_score

from genad.errors import InputError, InputTypeError
from genad.metrics import aupro, dice_score, iou_score, pixel_ap, pixel_auroc

quick = settings(deadline=None, max_examples=60, derandomize=True)
images = st.integers(0, 2**32 - 1)
RANKING = {"pixel_auroc": pixel_auroc, "pixel_ap": pixel_ap, "aupro": aupro}
OVERLAP = {"dice_score": dice_score, "iou_score": iou_score}
every = pytest.mark.parametrize("metric", [*RANKING.values(), *OVERLAP.values()], ids=[*RANKING, *OVERLAP])
ranking = pytest.mark.parametrize("metric", RANKING.values(), ids=RANKING)
overlap = pytest.mark.parametrize("metric", OVERLAP.values(), ids=OVERLAP)


def drawn(seed, levels=6):
    """Draw a few small images of different sizes whose maps have many ties."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, (int(rng.integers(1, 4)), 2))
    masks = [rng.random(size) < 0.3 for size in sizes]
    maps = [rng.integers(0, levels, size).astype(float) for size in sizes]
    flat = np.concatenate([m.ravel() for m in masks])
    assume(0 < flat.sum() < flat.size)
    return maps, masks, np.concatenate([m.ravel() for m in maps]), flat


@quick
@given(seed=images)
def test_agrees_with_scikit_learn_on_the_pixels_of_all_images(seed):
    maps, masks, scores, labels = drawn(seed)
    assert pixel_auroc(maps, masks) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert pixel_ap(maps, masks) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


@quick
@given(seed=images)
def test_overlaps_agree_with_scikit_learn(seed):
    maps, masks, scores, labels = drawn(seed)
    flags = scores > 2
    assert dice_score(maps, masks, 2) == pytest.approx(f1_score(labels, flags))
    assert iou_score(maps, masks, 2) == pytest.approx(jaccard_score(labels, flags))
    dice = dice_score(maps, masks, 2)
    assert iou_score(maps, masks, 2) == pytest.approx(dice / (2 - dice))
    by_image = [f1_score(k.ravel(), (m > 2).ravel()) for m, k in zip(maps, masks, strict=True) if k.any()]
    assert dice_score(maps, masks, 2, average="image") == pytest.approx(np.mean(by_image))
    by_image = [jaccard_score(k.ravel(), (m > 2).ravel()) for m, k in zip(maps, masks, strict=True) if k.any()]
    assert iou_score(maps, masks, 2, average="image") == pytest.approx(np.mean(by_image))


def test_known_overlaps():
    maps, masks = np.zeros((2, 2, 2)), np.zeros((2, 2, 2), int)
    maps[0, 0] = 1.0  # two flagged, one of them right
    masks[0, :, 0] = 1  # two of the defect
    maps[1, 0, 0] = 1.0  # a false alarm on a normal image
    assert dice_score(maps, masks, 0.5) == pytest.approx(2 * 1 / (3 + 2))
    assert iou_score(maps, masks, 0.5) == pytest.approx(1 / 4)
    assert dice_score(maps, masks, 0.5, average="image") == pytest.approx(2 * 1 / (2 + 2))
    assert iou_score(maps, masks, 0.5, average="image") == pytest.approx(1 / 3)


def test_a_pixel_at_the_threshold_is_not_flagged():
    assert dice_score([[0.5, 0.6]], [[1, 1]], threshold=0.5) == pytest.approx(2 / 3)


@overlap
def test_flags_need_no_threshold(metric):
    mask = np.array([[0, 1], [1, 1]])
    assert metric(mask.astype(bool), mask) == 1.0
    assert metric(1 - mask, mask) == 0.0
    with pytest.raises(InputError, match=r"maps\[0\] \(threshold is None\) holds 0\.3 at row 0, column 1"):
        metric([[0, 0.3], [1, 1]], mask)


@every
def test_every_form_of_a_set_gives_the_same(metric):
    rng = np.random.default_rng(0)
    maps, masks = rng.random((3, 5, 4)).round(1), rng.random((3, 5, 4)) < 0.4
    extra = {"threshold": 0.55} if metric in OVERLAP.values() else {}
    expected = metric(maps, masks, **extra)
    assert 0 < expected < 1
    for wrap in (list, tuple, torch.from_numpy, np.ndarray.tolist):
        assert metric(wrap(maps), wrap(masks), **extra) == expected
    assert metric(maps.astype(np.float32), masks.astype(np.uint8), **extra) == pytest.approx(expected, abs=1e-6)
    assert metric(maps[0], masks[0], **extra) == metric(maps[:1], masks[:1], **extra)
    assert metric(maps[0].tolist(), masks[0].tolist(), **extra) == metric(maps[:1], masks[:1], **extra)


@every
def test_input_is_not_changed(metric):
    maps, masks = np.arange(8.0).reshape(2, 2, 2), np.array([[[0, 1], [0, 0]], [[1, 0], [1, 1]]])
    before = maps.copy(), masks.copy()
    metric(maps, masks, **({"threshold": 3} if metric in OVERLAP.values() else {}))
    np.testing.assert_array_equal(maps, before[0])
    np.testing.assert_array_equal(masks, before[1])


ONES, NONE = np.ones((1, 2, 2)), np.zeros((1, 2, 2))


@every
@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        (ONES, np.zeros((2, 2, 2)), "maps has 1 images but masks has 2"),
        (ONES, np.zeros((1, 2, 3)), r"maps\[0\] has 2 x 2 pixels but masks\[0\] has 2 x 3; bring the map"),
        (np.ones((1, 1, 2, 2)), NONE, r"maps has shape \(1, 1, 2, 2\).*maps\.sum\(axis=1\)"),
        ([], [], "maps is empty"),
        (np.ones(4), np.ones(4), r"maps has shape \(4,\)"),
        ([np.ones((0, 3))], [np.ones((0, 3))], r"maps\[0\] has shape \(0, 3\); at least one pixel"),
        ([np.ones((1, 2, 2))], [NONE], r"maps\[0\] has shape \(1, 2, 2\); one image"),
        (ONES, 255 * ONES, r"masks\[0\] holds 255\.0 at row 0, column 0.*mask > 0"),
        ([[[1, np.nan]]], [[[0, 1]]], r"maps\[0\] holds nan at row 0, column 1 \(1 non-finite of 2\)"),
        ([[[1, np.inf]]], [[[0, 1]]], r"maps\[0\] holds inf"),
    ],
)
def test_bad_sets_are_refused(metric, maps, masks, message):
    with pytest.raises(InputError, match=message):
        metric(maps, masks)


@every
def test_no_defect_is_refused(metric):
    with pytest.raises(InputError, match=r"masks holds no defect pixel.*at least one pixel 1"):
        metric(ONES, NONE)


@ranking
def test_no_normal_pixel_is_refused(metric):
    with pytest.raises(InputError, match=r"masks holds no normal pixel \(none of 4 is 0\).*at least one pixel 0"):
        metric(NONE, ONES)


@every
def test_what_is_no_number_is_refused(metric):
    with pytest.raises(InputTypeError, match="maps holds values of type <U1"):
        metric(np.array([[["a"]]]), [[[1]]])
    with pytest.raises(InputTypeError, match=r"masks\[0\] cannot be read as an array"):
        metric([[[1, 2], [3, 4]]], [[[1], [1, 0]]])


@overlap
def test_bad_options_are_refused(metric):
    with pytest.raises(InputError, match="average is 'pixels'; 'pixel'"):
        metric(ONES, ONES, 0.5, average="pixels")
    with pytest.raises(InputTypeError, match=r"threshold is '1' \(str\)"):
        metric(ONES, ONES, "1")
    with pytest.raises(InputError, match="threshold is nan"):
        metric(ONES, ONES, float("nan"))
