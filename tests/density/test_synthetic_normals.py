from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import PPCA, VAE, Autoencoder, Conformal, NearestMemory, Training
from genad.core.families import SampleMixin
from genad.data.samples import ArraySamples, everything
from genad.density.synthetic_normals import SyntheticNormals, _from_mixture, two_sample_auc
from genad.errors import GenadWarning, InputError

QUICK = Training(updates=40)
FACTS = ("drawn", "too_unusual", "too_near", "too_far", "two_sample_auc", "variance_ratio", "mixed", "held_out",
         "false_alarms_without", "false_alarms_with", "difference_low", "difference_high")  # fmt: skip


def rows(n=60, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 2))
    return np.c_[z, z @ [[1.0, -1.0], [1.0, 1.0]] + 0.1 * rng.normal(size=(n, 2))]


def fit(detector, X, y=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GenadWarning)
        return detector.fit(X, y)


@dataclass(eq=False, repr=False)
class Counting(PPCA):
    """Notes what it is trained on and what it absorbs."""

    name = "counting"

    def finish(self, net, samples):
        self.__dict__.setdefault("seen", []).append(everything(samples, torch.device("cpu")).x.numpy())
        super().finish(net, samples)


@dataclass(eq=False, repr=False)
class Scripted(VAE):
    """A generator that says what it was fitted on, and draws what it is told to."""

    name = "scripted"

    def optimise(self, net, samples):
        type(self).fitted_on = everything(samples, torch.device("cpu")).x.numpy()
        return super().optimise(net, samples)

    def generate(self, net, n):
        return type(self).draw(n)


def scripted(draw):
    Scripted.draw = staticmethod(draw)
    return Scripted(training=QUICK)


def make(detector=None, **settings):
    return SyntheticNormals(detector or Counting(), threshold=Conformal(0.2), training=QUICK, **settings)


# ---------------------------------------------------------------------- no leak


def test_the_generator_and_the_calibration_share_no_sample():
    X = rows(100)
    detector = fit(make(Autoencoder(training=QUICK), generator=scripted(lambda n: torch.randn(n, 4))), X)
    z = everything(detector._ingest(X, reset=False).samples, torch.device("cpu")).x.numpy()
    learnt = {row.tobytes() for row in Scripted.fitted_on}
    held = np.array([row for row in z if row.tobytes() not in learnt])
    assert (len(learnt), len(held)) == (80, 20)
    # What is calibrated on is the held-out real rows, all of them and nothing else.
    expected = detector._scored(detector.net_, ArraySamples(torch.from_numpy(held)))
    np.testing.assert_allclose(detector.calibration_scores_, np.sort(expected), rtol=1e-5)


def test_no_held_out_sample_is_trained_on():
    X = rows(100)
    detector = fit(make(), X)
    z = everything(detector._ingest(X, reset=False).samples, torch.device("cpu")).x.numpy()
    first, _, last = ({row.tobytes() for row in part} for part in detector.detector_.seen)
    held = {row.tobytes() for row in z} - first
    assert len(held) == 20
    assert not held & last


def test_at_most_the_ratio_is_mixed_in_behind_the_real_ones():
    X = rows(100)
    detector = fit(make(ratio=0.25), X)
    # Alone, on half of them to judge candidates by, and with what was accepted.
    first, half, last = detector.detector_.seen
    assert (len(first), len(half)) == (80, 40)
    np.testing.assert_array_equal(last[:80], first)
    assert len(last) == 80 + detector.synthesis_["mixed"]
    assert 0 < detector.synthesis_["mixed"] <= 20
    whole = fit(make(ratio=1.0), X)
    assert whole.synthesis_["mixed"] <= 80


def test_labelled_anomalies_teach_the_generator_nothing():
    X, y = rows(100), np.zeros(100, int)
    X[:10] += 50
    y[:10] = 1
    fit(make(generator=scripted(lambda n: torch.randn(n, 4))), X, y)
    assert np.abs(Scripted.fitted_on).max() < 10


# ---------------------------------------------------------------------- what is accepted


def test_copies_are_refused():
    X = rows(100)

    def copies(n):
        real = torch.from_numpy(Scripted.fitted_on)
        return real[torch.arange(n) % len(real)] + 1e-5

    detector = fit(make(generator=scripted(copies)), X)
    assert detector.synthesis_["too_near"] == detector.synthesis_["drawn"] == 320
    assert detector.synthesis_["mixed"] == 0
    assert len(detector.detector_.seen[-1]) == 80


def test_far_and_unusual_candidates_are_refused():
    detector = fit(make(generator=scripted(lambda n: 30 * torch.randn(n, 4))), rows(100))
    facts = detector.synthesis_
    assert facts["too_far"] > 0.95 * facts["drawn"]
    assert facts["too_unusual"] > 0.95 * facts["drawn"]
    assert facts["mixed"] == 0


def test_with_far_at_one_only_what_is_further_than_every_normal_sample_is_refused():
    found = {far: fit(make(far=far), rows(100)).synthesis_ for far in (0.5, 1.0)}
    assert found[0.5]["drawn"] == found[1.0]["drawn"]
    assert found[1.0]["too_far"] < 0.2 * found[0.5]["too_far"]


def test_what_a_classifier_can_tell_apart_is_not_mixed_in():
    """Every one of these would pass alone: all on one side of the data, where real ones are as well."""

    def one_side(n):
        real = torch.from_numpy(Scripted.fitted_on)
        right = real[real[:, 0] > 0]
        return right[torch.arange(n) % len(right)] + 0.15 * torch.randn(n, 4)

    facts = fit(make(generator=scripted(one_side)), rows(300)).synthesis_
    assert facts["two_sample_auc"] >= 0.7
    assert facts["mixed"] == 0
    lenient = fit(make(generator=scripted(one_side), distinguishable=1.0), rows(300)).synthesis_
    assert lenient["mixed"] > 10


def test_the_two_sample_test_knows_samples_alike():
    rng = np.random.default_rng(0)
    same = [two_sample_auc(rng.normal(size=(60, 5)), rng.normal(size=(60, 5)), rng) for _ in range(10)]
    wider = [two_sample_auc(rng.normal(size=(60, 5)), 2 * rng.normal(size=(60, 5)), rng) for _ in range(10)]
    assert abs(np.mean(same) - 0.5) < 0.1
    assert np.mean(wider) > 0.75
    assert np.isnan(two_sample_auc(rng.normal(size=(9, 5)), rng.normal(size=(60, 5)), rng))


def test_the_mixture_keeps_means_spreads_and_levels():
    rng = np.random.default_rng(0)
    X = np.c_[rows(400) + np.array([5, 0, 0, -5]), rng.integers(0, 2, 400), np.full(400, 3.0)]
    made = _from_mixture(X, 4000, rng)
    np.testing.assert_allclose(made[:, :4].mean(0), X[:, :4].mean(0), atol=0.2)
    np.testing.assert_allclose(np.cov(made[:, :4].T), np.cov(X[:, :4].T), atol=0.3)
    assert set(made[:, 4]) == {0.0, 1.0}
    assert set(made[:, 5]) == {3.0}


def test_shrunken_variance_is_told():
    shrunk = scripted(lambda n: 0.5 * torch.from_numpy(Scripted.fitted_on)[torch.arange(n) % 240])
    facts = fit(make(generator=shrunk, distinguishable=1.0, near=0.0), rows(300)).synthesis_
    assert facts["variance_ratio"] == pytest.approx(0.25, abs=0.1)
    assert fit(make(), rows(300)).synthesis_["variance_ratio"] == pytest.approx(0.9, abs=0.25)


# ---------------------------------------------------------------------- the comparison


def test_both_detectors_are_compared_on_the_same_held_out_samples():
    facts = fit(make(), rows(200)).synthesis_
    assert set(facts) == set(FACTS)
    assert facts["held_out"] == 40
    change = facts["false_alarms_with"] - facts["false_alarms_without"]
    assert facts["difference_low"] <= change <= facts["difference_high"]
    assert 0 <= facts["false_alarms_without"] < 0.6


def test_without_held_out_samples_nothing_is_compared():
    facts = fit(make(), rows(4)).synthesis_
    assert facts["held_out"] == 0
    assert np.isnan(facts["false_alarms_with"])


def test_nothing_is_gained_or_lost_where_nothing_is_mixed_in():
    refused = fit(make(Autoencoder(training=QUICK), generator=scripted(lambda n: 99 * torch.randn(n, 4))), rows(200))
    assert refused.synthesis_["false_alarms_with"] == refused.synthesis_["false_alarms_without"]


def test_few_real_rows_are_helped_or_left_alone(one_class):
    """Thirty normal rows of a real table: the wrapped autoencoder stays near, or above, the plain one."""
    X, test, y = one_class("breastw")
    gains = []
    for seed in range(2):
        few = X[np.random.default_rng(seed).permutation(len(X))[:30]]
        plain = fit(Autoencoder(training=Training(updates=150), threshold=Conformal(0.2)), few)
        mixed = fit(make(Autoencoder(training=Training(updates=150)), ratio=1.0), few)
        gains.append(roc_auc_score(y, mixed.anomaly_score(test)) - roc_auc_score(y, plain.anomaly_score(test)))
        assert roc_auc_score(y, mixed.anomaly_score(test)) > 0.9
    assert np.mean(gains) > -0.02


# ---------------------------------------------------------------------- as any detector


def test_the_host_is_an_autoencoder_when_none_is_named():
    detector = fit(SyntheticNormals(training=QUICK, threshold=Conformal(0.2)), rows())
    assert isinstance(detector.detector_, Autoencoder)
    assert detector.training_report_.updates == 40


def test_windows_and_memories_take_part():
    X = rows(60).reshape(15, 8, 2).repeat(4, 0) + 0.1 * np.random.default_rng(1).normal(size=(60, 8, 2))
    detector = fit(make(NearestMemory()), X)
    assert len(detector.net_.bank) == 60 + detector.synthesis_["mixed"]
    assert detector.anomaly_map(X).shape == X.shape


def test_a_saved_detector_keeps_what_was_found(tmp_path):
    detector = fit(make(PPCA(), generator=VAE(training=QUICK)), rows(100))
    detector.save(tmp_path / "m.genad")
    again = genad.load(tmp_path / "m.genad")
    np.testing.assert_array_equal(again.anomaly_score(rows(20, 1)), detector.anomaly_score(rows(20, 1)))
    np.testing.assert_equal(again.synthesis_, detector.synthesis_)
    assert detector.describe()["synthesis"]["mixed"] == detector.synthesis_["mixed"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ratio": 1.5}, r"ratio: 1.5 was given; use a number in \(0, 1\]"),
        ({"far": 1.1}, r"far: 1.1 was given; use a number in \[0, 1\]"),
        ({"near": 0.9, "far": 0.5}, r"near: 0.9 was given; use less than far, 0.5"),
        ({"distinguishable": 0.5}, r"distinguishable: 0.5 was given; use a number in \(0.5, 1\]"),
        ({"generator": PPCA()}, r"generator: PPCA\(\) was given; use a detector that can sample, for instance VAE\(\)"),
        ({"generator": "vae"}, r"generator: 'vae' was given"),
        ({"detector": "ae"}, r"detector: 'ae' was given"),
    ],
)
def test_what_cannot_be_used_is_refused(settings, said):
    assert not isinstance(PPCA(), SampleMixin)
    with pytest.raises(InputError, match=said):
        SyntheticNormals(**settings).fit(rows())
