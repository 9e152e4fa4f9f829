"""The pixel threshold keeps its promise, and images answer in their own sizes."""

from __future__ import annotations

import numpy as np
import pytest

import genad
from genad import Training
from genad.core.pixels import ImageDetections, PixelCalibration
from genad.data.image import Images
from genad.errors import InputError


def blobs(n: int, rng: np.random.Generator, side: int = 16) -> np.ndarray:
    """Return maps whose images differ in level, so that pixels of one image depend on each other."""
    return rng.exponential(size=(n, 1, 1)) * rng.uniform(size=(n, side, side))


def test_the_mean_masked_share_of_fresh_normal_images_is_as_promised():
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(200):
        chosen = PixelCalibration.fit(blobs(60, rng)).threshold(0.05)
        shares.append((blobs(20, rng) > chosen.value).mean())
    # The promise holds on average over calibration sets; it is not hollow either.
    assert 0.01 < np.mean(shares) <= 0.05 + 3 * np.std(shares) / np.sqrt(len(shares))


def test_the_threshold_meets_the_bound_of_conformal_risk_control():
    maps = np.random.default_rng(0).uniform(size=(99, 10, 10))
    for alpha in (0.02, 0.1, 0.3):
        chosen = PixelCalibration.fit(maps).threshold(alpha)
        assert (maps > chosen.value).mean() == pytest.approx(chosen.pixel_rate)
        assert 99 / 100 * chosen.pixel_rate + 1 / 100 <= alpha
        assert (maps.max(axis=(1, 2)) > chosen.value).mean() == pytest.approx(chosen.image_rate)
        assert "or less on average" in chosen.promise


def test_too_few_images_say_so():
    maps = np.random.default_rng(0).uniform(size=(20, 10, 10))
    chosen = PixelCalibration.fit(maps).threshold(0.01)
    assert chosen.promise.startswith("20 held-out images are too few")
    assert chosen.pixel_rate <= 0.01


def test_equal_pixels_are_one_step():
    chosen = PixelCalibration.fit(np.ones((5, 4, 4))).threshold(0.2)
    assert (chosen.value, chosen.pixel_rate, chosen.image_rate) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("alpha", [0.0, 0.6, -1, float("nan"), "few"])
def test_a_share_out_of_range_is_refused(alpha):
    with pytest.raises(InputError, match="pixel_alpha"):
        PixelCalibration.fit(np.ones((5, 4, 4))).threshold(alpha)


def photographs(n: int, seed: int, sizes=((16, 16), (24, 20))) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    found = []
    for i in range(n):
        rows, columns = sizes[i % len(sizes)]
        ramp = np.linspace(60, 180, rows)[:, None] * np.ones(columns) + rng.normal(0, 3, (rows, columns))
        found.append(np.clip(ramp, 0, 255).astype(np.uint8))
    return found


def unfitted() -> genad.Detector:
    return genad.Autoencoder(latent=2, training=Training(updates=300), threshold=genad.Conformal(0.05), holdout=0.4)


@pytest.fixture(scope="module")
def detector():
    return unfitted().fit(Images.from_arrays(photographs(300, 0, ((16, 16),))))


@pytest.fixture(scope="module")
def of_arrays():
    model = genad.create("ppca", threshold=genad.Conformal(0.1))
    return model.fit(np.stack(photographs(60, 8, ((16, 16),)))[:, None].astype(np.float64))


@pytest.fixture(scope="module")
def judged(detector) -> ImageDetections:
    arrays = photographs(6, 1)
    arrays[3][4:9, 10:15] = 255
    with pytest.warns(genad.errors.DataWarning, match="aspect"):
        return detector.detect(Images.from_arrays(arrays, names=[f"{i}.png" for i in range(6)]))


def test_maps_masks_and_restored_images_have_the_size_of_the_image(judged):
    for i, shape in enumerate([(16, 16), (24, 20)] * 3):
        assert judged.pixel_map(i).shape == shape
        assert judged.mask(i).shape == shape
        restored = judged.restored_image(i)
        assert restored.shape == (*shape, 1)
        assert restored.dtype == np.uint8


def test_the_planted_square_is_found_where_it_is(judged):
    assert judged.top(1)[0] == 3
    assert judged.is_anomaly[3]
    mask = judged.mask(3)
    truth = np.zeros((24, 20), bool)
    truth[4:9, 10:15] = True
    assert (mask & truth).sum() / truth.sum() > 0.8
    assert (mask & ~truth).sum() / (~truth).sum() < 0.15
    best = judged.regions(3)[0]
    top, left, bottom, right = best.box
    assert top <= 6 < bottom
    assert left <= 12 < right
    assert judged.regions(3, min_area=10_000) == []


def test_an_explanation_lists_regions_and_shares_out_the_map(judged):
    why = judged.explain(3)
    assert sum(part.share for part in why) == pytest.approx(1)
    assert why.parts[0].name.startswith("rows ")
    assert why.parts[0].observed > why.parts[0].expected + 20
    calm = judged.explain(0)
    assert [part.name for part in calm if "rows" not in part.name] != []


def test_the_table_of_the_answer_names_files_and_shares(judged):
    columns = judged.columns()
    assert list(columns["file"]) == [f"{i}.png" for i in range(6)]
    assert columns["masked_share"].argmax() == 3
    assert ((columns["masked_share"] >= 0) & (columns["masked_share"] <= 1)).all()


def test_what_was_left_out_is_named(detector):
    images = Images.from_arrays(photographs(2, 2, ((16, 16),)))
    bare = detector.detect(images, maps=False, restore=False)
    for call in ("pixel_map", "mask", "regions", "explain"):
        with pytest.raises(InputError, match="maps"):
            getattr(bare, call)(0)
    with pytest.raises(InputError, match="restore=True"):
        bare.restored_image(0)
    with pytest.raises(InputError, match="maps"):
        bare.masked_share()
    with pytest.raises(InputError, match="i: 9"):
        detector.detect(images).mask(9)


def test_pixel_thresholds_survive_the_file(detector, tmp_path):
    images = Images.from_arrays(photographs(3, 3, ((16, 16),)))
    before = detector.detect(images, pixel_alpha=0.05)
    after = genad.load(detector.save(tmp_path / "m.genad")).detect(images, pixel_alpha=0.05)
    assert before.pixels == after.pixels
    np.testing.assert_array_equal(before.maps, after.maps)
    for i in range(3):
        np.testing.assert_array_equal(before.restored[i], after.restored[i])


def test_a_lower_share_masks_less(detector):
    images = Images.from_arrays(photographs(3, 4, ((16, 16),)))
    few, many = (detector.detect(images, pixel_alpha=a).masked_share().sum() for a in (0.01, 0.3))
    assert few < many


def test_calibrating_again_moves_the_pixel_threshold(detector):
    import copy

    other = copy.deepcopy(detector)
    noisy = [np.clip(a + np.random.default_rng(5).normal(0, 20, a.shape), 0, 255).astype(np.uint8)
             for a in photographs(40, 5, ((16, 16),))]  # fmt: skip
    other.calibrate(Images.from_arrays(noisy))
    assert other.pixels_.threshold(0.05).value > detector.pixels_.threshold(0.05).value


class TestRestoringUnderAMask:
    def test_outside_nothing_changes_and_under_the_mask_nothing_is_looked_at(self, detector):
        arrays = photographs(2, 6, ((16, 16),))
        mask = np.zeros((2, 16, 16), bool)
        mask[:, 5:9, 5:9] = True
        spoilt = [a.copy() for a in arrays]
        for a in spoilt:
            a[5:9, 5:9] = 255
        clean = detector.restore(Images.from_arrays(arrays), mask=mask)
        mended = detector.restore(Images.from_arrays(spoilt), mask=mask)
        for i in range(2):
            np.testing.assert_array_equal(clean[i], mended[i])
            np.testing.assert_array_equal(mended[i][~mask[i], 0], arrays[i][~mask[i]])

    def test_arrays_take_masks_with_and_without_channels(self, of_arrays):
        X = np.stack(photographs(4, 7, ((16, 16),)))[:, None].astype(np.float64)
        mask = np.zeros((4, 16, 16), bool)
        mask[:, 2:5, 3:9] = True
        one, other = of_arrays.restore(X, mask), of_arrays.restore(X, mask[:, None])
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one[:, 0][~mask], X[:, 0][~mask])

    def test_a_hole_is_filled_again_until_it_fits_its_surroundings(self, monkeypatch):
        rng = np.random.default_rng(0)
        light, slope = rng.normal(size=(2, 206, 1, 1))
        X = (light + slope * np.linspace(-1, 1, 16)[:, None] + 0.05 * rng.normal(size=(206, 16, 16)))[:, None]
        detector = genad.create("ppca", threshold=genad.Conformal(0.1)).fit(X[:200])
        mask = np.zeros((6, 16, 16), bool)
        mask[:, 3:13, 3:13] = True
        # By itself the method knows what to expect in a hole; this is about those that do not.
        monkeypatch.setattr("genad.density.explicit.ppca.PPCANet.complete", lambda net, x, mask: x)
        errors = []
        for times in (0, 10):
            monkeypatch.setattr("genad.core.inference._REFILLS", times)
            errors.append(np.abs(detector.restore(X[200:], mask) - X[200:])[:, 0][mask].mean())
        # Seen as the mean, the hole pulls the first restoration towards the mean.
        assert errors[1] < 0.5 * errors[0]

    @pytest.mark.parametrize("mask", [np.zeros((1, 16, 16), bool), np.zeros((2, 16, 16)), np.zeros((2, 9, 9), bool)])
    def test_a_mask_that_does_not_fit_is_refused(self, detector, of_arrays, mask):
        with pytest.raises(InputError, match="mask"):
            detector.restore(Images.from_arrays(photographs(2, 9, ((16, 16),))), mask=mask)
        X = np.stack(photographs(2, 9, ((16, 16),)))[:, None].astype(np.float64)
        with pytest.raises(InputError, match="mask"):
            of_arrays.restore(X, mask=mask)

    def test_tables_say_what_to_do_instead(self):
        X = np.random.default_rng(0).normal(size=(100, 3))
        ppca = genad.create("ppca", threshold=genad.Conformal(0.1))
        with pytest.raises(InputError, match="NaN"):
            ppca.fit(X).restore(X, mask=np.zeros(X.shape, bool))


def test_a_short_training_fits_large_images_in_small_batches():
    detector = genad.Autoencoder()
    assert detector._training_for((3,)).batch_size == 128
    assert detector._training_for((3, 128, 128)).batch_size == 16
    asked = genad.Autoencoder(training=Training(batch_size=64))
    assert asked._training_for((3, 128, 128)).batch_size == 64


class TestAugmentation:
    def test_the_loss_sees_changed_images_and_scores_the_data(self):
        # Dark to bright, from top to bottom: flipped, it was never seen without augmentation.
        X = np.stack(photographs(60, 12, ((16, 16),)))[:, None].astype(np.float64)
        scores = {}
        for flip in (False, True):
            training = Training(updates=300, augment=genad.Augment(flip_vertical=flip))
            detector = genad.Autoencoder(latent=2, training=training, threshold=genad.Conformal(0.1)).fit(X)
            scores[flip] = detector.anomaly_score(X[:5, :, ::-1].copy()) / detector.anomaly_score(X[:5])
        assert scores[False].min() > 3
        assert scores[True].max() < 2

    def test_settings_survive_the_file(self, tmp_path):
        X = np.stack(photographs(30, 13, ((16, 16),)))[:, None].astype(np.float64)
        training = Training(updates=3, augment=genad.Augment(shift=0.1, noise=0.2))
        detector = genad.Autoencoder(training=training, threshold=genad.Conformal(0.2)).fit(X)
        assert genad.load(detector.save(tmp_path / "m.genad")).training == training

    def test_other_data_are_refused(self):
        training = Training(updates=3, augment=genad.Augment(shift=0.1))
        with pytest.raises(InputError, match="augment"):
            genad.Autoencoder(training=training).fit(np.random.default_rng(0).normal(size=(200, 3)))
        with pytest.raises(InputError, match="augment"):
            Training(augment={"shift": 0.1})
