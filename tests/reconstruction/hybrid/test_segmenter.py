from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.data.samples import Batch
from genad.errors import InputError, InputTypeError
from genad.reconstruction.hybrid.segmenter import SynthesisDetector, SynthesisSegmenter, doubt
from genad.synthesis.base import Draft, Synthesizer
from genad.synthesis.cut_paste import CutPaste
from genad.synthesis.rows import RowSynthesizer
from genad.synthesis.tabular_anomalies import TabularAnomalies

# few images are left to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


@dataclass(eq=False, repr=False)
class Square(Synthesizer):
    """Whitens a square of 6 px at a random place."""

    name = "square"

    def draft(self, x, generator):
        regions = torch.zeros_like(x[:, :1], dtype=torch.bool)
        for k, (i, j) in enumerate(torch.randint(0, x.shape[-1] - 6, (len(x), 2), generator=generator).tolist()):
            regions[k, :, i : i + 6, j : j + 6] = True
        return Draft(torch.where(regions, 1.0, x), regions)


def plain(n, size=24, seed=0):
    """Grey ramps with a little noise, in 0..1."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0.2, 0.6, size) * rng.uniform(0.7, 1.3, (n, 1, 1, 1))
    return (ramp + 0.01 * rng.normal(size=(n, 1, size, size))).clip(0, 1).astype(np.float32)


def defective(X, seed=1):
    """Darken a square of 5 px; return images and masks."""
    rng = np.random.default_rng(seed)
    spoiled, masks = X.copy(), np.zeros(X.shape, bool)
    for k, (i, j) in enumerate(rng.integers(2, X.shape[-1] - 7, (len(X), 2))):
        masks[k, :, i : i + 5, j : j + 5] = True
    spoiled[masks] = 0.95
    return spoiled, masks


@pytest.fixture(scope="module")
def fitted():
    return SynthesisSegmenter(synthesizer=Square(), training=Training(updates=150)).fit(plain(100))


def pairs_of(detector, X, seed=0):
    z = detector._ingest(X, reset=False).samples.x
    torch.manual_seed(seed)
    return z, detector.pairs(detector.net_, Batch(z))


def test_half_of_a_batch_is_given_an_anomaly_where_the_mask_says(fitted):
    z, (clean, seen, mask) = pairs_of(fitted, plain(10))
    torch.testing.assert_close(clean, z, rtol=1e-4, atol=1e-4)
    marked = mask.flatten(1).amax(1) > 0
    assert marked.sum() == 5
    assert torch.equal(clean[~marked], seen[~marked])
    differs = (clean - seen).abs() > 1e-4
    assert torch.equal(differs, mask.bool())


def test_a_batch_of_one_takes_turns(fitted):
    z = fitted._ingest(plain(1), reset=False).samples.x
    torch.manual_seed(0)
    marked = [bool(fitted.pairs(fitted.net_, Batch(z))[2].any()) for _ in range(40)]
    assert 8 < sum(marked) < 32


def test_pairs_follow_the_generator_and_differ_from_update_to_update(fitted):
    X = plain(8)
    first, again, other = (pairs_of(fitted, X, seed)[1] for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[2], other[2])


def test_the_data_are_not_touched_by_the_synthesizer(fitted):
    z = fitted._ingest(plain(8), reset=False).samples.x
    kept = z.clone()
    fitted.loss(fitted.net_, Batch(z))
    assert torch.equal(z, kept)


def test_a_detector_with_an_unregistered_synthesizer_says_how_to_save_it(fitted, tmp_path):
    with pytest.raises(InputError, match=r"Square cannot be saved.* registered name"):
        fitted.save(tmp_path / "model.genad")
    assert not list(tmp_path.iterdir())


def test_a_synthesizer_of_its_own_settings_is_saved_with_the_detector(tmp_path):
    detector = genad.create("segmenter", synthesizer=CutPaste(scar=0.5), training=Training(updates=3))
    detector.set_params(threshold=genad.Conformal(0.2)).fit(plain(30))
    again = genad.load(detector.save(tmp_path / "model.genad"))
    assert again.synthesizer.get_params() == detector.synthesizer.get_params()
    np.testing.assert_array_equal(again.anomaly_score(plain(4)), detector.anomaly_score(plain(4)))


def test_restored_images_are_replaced_where_an_anomaly_is_likely():
    assert doubt(torch.tensor([0.0, 0.05, 0.25, 0.9])).tolist() == pytest.approx([0.0, 0.2, 1.0, 1.0])


def test_any_synthesizer_will_do():
    for name in ("perlin_texture", "cut_paste"):
        detector = genad.create("segmenter", synthesizer=name, training=Training(updates=3))
        assert np.isfinite(detector.fit(plain(20)).anomaly_score(plain(4))).all()


def test_defects_are_found_marked_and_removed(fitted):
    X = plain(40, seed=5)
    spoiled, masks = defective(X)
    found = fitted.detect(np.concatenate([X, spoiled]))
    assert roc_auc_score(np.repeat([0, 1], 40), found.scores) > 0.95
    assert roc_auc_score(masks.ravel(), found.maps[40:].ravel()) > 0.95
    error = np.abs(found.restored[40:] - X)
    assert error[masks].mean() < 0.5 * np.abs(spoiled - X)[masks].mean()
    assert np.abs(found.restored[:40] - X).mean() < 0.02


def test_the_score_is_the_mean_of_the_smoothed_top():
    p = torch.zeros(2, 1, 64, 64)
    p[0, :, 20:30, 20:30] = 0.8
    p[1, :, 20, 20] = 1.0
    assert SynthesisSegmenter(top_share=0.0).image_score(p).tolist() == pytest.approx([0.8, 1 / 25])
    assert SynthesisSegmenter(top_share=1.0).image_score(p)[0] == pytest.approx(0.8 * 100 / 4096, rel=1e-4)


def test_the_map_holds_the_probabilities_and_its_channels_add_up(fitted):
    spoiled, _ = defective(plain(6))
    batch = fitted._ingest(spoiled, reset=False).samples.batch(torch.arange(6))
    p, _ = fitted.examine(fitted.net_, batch.x)
    maps = fitted.infer(fitted.net_, batch, frozenset({"map"})).map
    torch.testing.assert_close(maps.sum(1, keepdim=True), p, rtol=1e-4, atol=1e-5)


def test_values_beyond_the_range_of_training_are_anomalous_by_themselves():
    X = plain(60).astype(np.float64) * 1000 - 300
    detector = SynthesisSegmenter(synthesizer=Square(), training=Training(updates=5)).fit(X)
    odd = X[:2].copy()
    odd[0, 0, 5, 6], odd[1, 0, 5, 6] = 1e9, X.max() + 0.05 * np.ptp(X)
    maps = detector.anomaly_map(odd) - detector.anomaly_map(X[:2])
    assert maps[0].argmax() == maps[1].argmax() == 5 * 24 + 6
    assert detector.anomaly_map(odd)[0, 0, 5, 6] == 1.0
    assert 0.3 < maps[1].max() < 0.5


def test_what_is_missing_is_filled_in_from_around_it(fitted):
    X = plain(4, seed=3)
    hidden = np.zeros(X.shape, bool)
    hidden[..., 8:14, 8:14] = True
    gap = np.where(hidden, np.nan, X)
    found = fitted.detect(gap)
    assert (found.maps[hidden] == 0).all()
    assert np.abs(found.restored - X)[hidden].max() < 0.15


def test_large_images_are_reduced_and_answers_enlarged():
    X = plain(30, size=40)
    detector = SynthesisSegmenter(synthesizer=Square(), resolution=16, training=Training(updates=5)).fit(X)
    assert detector.net_.frame.size == (16, 16)
    found = detector.detect(X)
    assert found.maps.shape == found.restored.shape == X.shape
    seen = []
    detector.net_.segment.register_forward_hook(lambda _m, args, _out: seen.append(args[0].shape[2:]))
    detector.anomaly_score(X[:3])
    assert seen == [(16, 16)]


def test_a_saved_detector_gives_the_same_bytes(tmp_path):
    X = plain(30, seed=2)
    detector = SynthesisSegmenter(training=Training(updates=3)).fit(X)
    again = genad.load(detector.save(tmp_path / "model.genad"))
    assert again.anomaly_score(X).tobytes() == detector.anomaly_score(X).tobytes()
    assert torch.equal(again.net_.frame.scale, detector.net_.frame.scale)


def test_the_ground_leaves_the_method_to_others():
    base = SynthesisDetector()
    for call in (
        lambda: base.networks(None, 1),
        lambda: base.pair_loss(None, None, None, None),
        lambda: base.examine(None, None),
        lambda: base.image_score(None),
    ):
        with pytest.raises(NotImplementedError):
            call()


def test_magnetic_tiles_well_above_chance(data_dir):
    image = pytest.importorskip("PIL.Image")
    folder = data_dir / "image" / "magnetic_tile"

    def read(paths):
        pictures = [image.open(p).convert("L").resize((32, 32)) for p in sorted(paths)]
        return np.stack([np.asarray(p, np.float32) / 255 for p in pictures])[:, None]

    train = read((folder / "train" / "good").iterdir())
    good = read((folder / "test" / "good").iterdir())
    bad = read(p for p in (folder / "test").glob("*/*") if p.parent.name != "good")
    detector = SynthesisSegmenter(resolution=32, training=Training(updates=200)).fit(train)
    scores = detector.anomaly_score(np.concatenate([good, bad]))
    assert roc_auc_score(np.r_[np.zeros(len(good)), np.ones(len(bad))], scores) > 0.6


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"resolution": 4}, InputError, "resolution: 4"),
        ({"resolution": 32.5}, InputError, "resolution: 32.5"),
        ({"top_share": 1.5}, InputError, "top_share: 1.5"),
        ({"top_share": -0.1}, InputError, "top_share: -0.1"),
        ({"synthesizer": 3}, InputTypeError, "synthesizer: a int was given"),
        ({"synthesizer": "perlin_textures"}, InputError, "perlin_texture"),
        (
            {"synthesizer": "cut_add_paste"},
            InputError,
            "makes anomalies of series, not of images; use one of .*cut_paste",
        ),
        ({"synthesizer": TabularAnomalies()}, InputError, "synthesizer: TabularAnomalies makes anomalies of rows"),
        ({"synthesizer": RowSynthesizer()}, InputError, "synthesizer: RowSynthesizer makes anomalies of other data"),
    ],
)
def test_wrong_parameters_are_refused(params, error, message):
    with pytest.raises(error, match=message):
        SynthesisSegmenter(**params).fit(plain(5))
