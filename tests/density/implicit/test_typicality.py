"""Typicality of single samples and of groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from genad import Training, load
from genad.data.samples import Batch
from genad.density.implicit.typicality import TypicalityTest
from genad.errors import InputError

pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]


@pytest.fixture(scope="module")
def draw():
    mixing = np.random.default_rng(0).normal(size=(2, 6))

    def rows(n, seed, size=1.0):
        rng = np.random.default_rng(seed)
        return size * (rng.normal(size=(n, 2)) @ mixing + 0.3 * rng.normal(size=(n, 6)))

    return rows


@pytest.fixture(scope="module", params=["vae", "flow"])
def fitted(request, draw):
    return TypicalityTest(model=request.param, training=Training(updates=250)).fit(draw(1200, 1))


def nll(detector, X):
    return -next(iter(detector.statistics(X).values()))


def test_the_score_is_the_distance_from_the_mean_of_what_was_trained_on(fitted, draw):
    X = draw(1200, 1)
    fresh = draw(200, 2)
    np.testing.assert_allclose(
        fitted.anomaly_score(fresh), np.abs(nll(fitted, fresh) - float(fitted.net_.entropy)), rtol=1e-4, atol=1e-4
    )
    # A fifth is kept for calibration, and a fifth of the rest for groups: neither is among the mean's rows.
    assert len(fitted.net_.unseen) == 192
    assert float(fitted.net_.entropy) == pytest.approx(nll(fitted, X).mean(), abs=0.3)
    assert np.isin(fitted.net_.unseen.numpy().round(3), nll(fitted, X).round(3)).mean() > 0.9


def test_too_likely_is_as_odd_as_too_unlikely(fitted, draw):
    centre = np.zeros((1, 6))
    fresh = draw(300, 3)
    assert (nll(fitted, centre) < nll(fitted, fresh)).mean() > 0.95
    assert fitted.anomaly_score(centre)[0] > np.median(fitted.anomaly_score(fresh))
    assert fitted.anomaly_score(draw(1, 4, size=5.0))[0] > fitted.anomaly_score(fresh).max()


def test_groups_tell_what_single_samples_do_not(fitted, draw):
    shifted = draw(80, 5, size=0.75)
    alone = np.concatenate([fitted.anomaly_score(draw(80, 6)), fitted.anomaly_score(shifted)])
    assert roc_auc_score(np.repeat([0, 1], 80), alone) < 0.7
    found = fitted.group_test(np.r_[draw(80, 6), shifted], np.repeat(["b", "a"], 80))
    assert found.names.tolist() == ["a", "b"]
    assert found.sizes.tolist() == [80, 80]
    assert found.is_anomaly.tolist() == [True, False]
    assert found.p_values[0] == pytest.approx(1 / 201)


def test_the_statistic_is_the_distance_of_the_mean_and_the_threshold_its_quantile(fitted, draw):
    X = draw(25, 7)
    found = fitted.group_test(X, alpha=0.1, resamples=99)
    entropy, unseen = float(fitted.net_.entropy), fitted.net_.unseen.numpy()
    assert found.statistics[0] == pytest.approx(abs(nll(fitted, X).mean() - entropy), abs=1e-4)
    rng = np.random.default_rng([0, 25])
    drawn = [abs(rng.choice(unseen, 25).mean() - entropy) for _ in range(2000)]
    assert (drawn > found.thresholds[0]).mean() == pytest.approx(0.1, abs=0.08)
    assert found.is_anomaly[0] == (found.statistics[0] >= found.thresholds[0])
    # The same groups are drawn whenever they are asked for.
    again = fitted.group_test(X, alpha=0.1, resamples=99)
    assert again.thresholds[0] == found.thresholds[0]


def test_normal_groups_are_flagged_at_about_the_level(fitted, draw):
    found = fitted.group_test(draw(4000, 8), np.arange(4000) // 10, alpha=0.1)
    assert len(found.names) == 400
    assert found.is_anomaly.mean() < 0.2
    assert found.p_values.min() > 0
    assert found.p_values.max() <= 1
    larger = fitted.group_test(draw(40, 8), np.r_[np.zeros(4), np.ones(36)])
    # Means of more samples stray less.
    assert larger.thresholds[1] < larger.thresholds[0]


def test_the_map_is_two_sided_and_a_file_keeps_everything(fitted, draw, tmp_path):
    X = draw(60, 9)
    broken = X.copy()
    broken[:, 2] += 4 * X[:, 2].std()
    assert (fitted.anomaly_map(broken).argmax(1) == 2).mean() > 0.5
    again = load(fitted.save(tmp_path / "model.genad"))
    one, two = fitted.group_test(X), again.group_test(X)
    assert one.p_values == two.p_values
    assert again.sample(3).shape == (3, 6)


def test_the_share_decides_what_the_model_does_not_see(draw):
    few = TypicalityTest(model="vae", held_share=0.5, training=Training(updates=2)).fit(draw(100, 1))
    assert len(few.net_.unseen) == 40
    assert few.training_report_.samples == 40
    alone = TypicalityTest(training=Training(updates=2)).fit(draw(3, 1))
    # Too few to keep any apart.
    assert len(alone.net_.unseen) == 3


def test_missing_values_do_not_count(fitted, draw):
    X = draw(5, 10)
    X[:, 1] = np.nan
    assert np.isfinite(fitted.anomaly_score(X)).all()
    assert (fitted.anomaly_map(X)[:, 1] == 0).all()


def test_requests_that_cannot_be_met_are_refused(fitted, draw):
    X = draw(5, 1)
    with pytest.raises(InputError, match="groups: 4 labels were given for 5 units"):
        fitted.group_test(X, [0, 0, 1, 1])
    with pytest.raises(InputError, match=r"alpha: 0\.001 was given; use a number in \[0\.00498, 1\)"):
        fitted.group_test(X, alpha=0.001)
    with pytest.raises(InputError, match="resamples: 0 was given"):
        fitted.group_test(X, resamples=0)
    for params in ({"model": "gan"}, {"held_share": 0.0}, {"held_share": 1.0}):
        with pytest.raises(InputError, match=next(iter(params))):
            TypicalityTest(**params).fit(X)


def test_statistics_of_a_batch_are_float64(fitted):
    found = fitted.look(fitted.net_, Batch(torch.zeros(2, 6)), frozenset())[0]
    assert found.dtype == torch.float64


def test_floor_on_a_real_table(one_class):
    train, test, y = one_class("thyroid")
    detector = TypicalityTest(training=Training(updates=200)).fit(train)
    assert roc_auc_score(y, detector.anomaly_score(test)) > 0.92
