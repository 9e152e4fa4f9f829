"""MSMA: score norms over noise levels, and the density of their vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from genad import Training, create
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn.statistics_density import TAILS

pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]
QUICK = Training(updates=150)


@pytest.fixture(scope="module")
def normal():
    return np.random.default_rng(0).normal(size=(800, 5))


@pytest.fixture(scope="module")
def fitted(normal):
    return create("msma", training=QUICK).fit(normal)


def test_ten_levels_fall_in_equal_ratios():
    levels = create("msma").build((4,)).levels
    assert len(levels) == 10
    assert levels[[0, -1]].tolist() == pytest.approx([2.0, 0.02])
    ratios = levels[1:] / levels[:-1]
    assert ratios.tolist() == pytest.approx([0.01 ** (1 / 9)] * 9, rel=1e-4)


def test_every_sample_is_noised_at_one_of_the_levels():
    detector = create("msma")
    net = detector.build((3,))
    seen = []
    noise = net.score.noise
    net.score.noise = lambda x, sigma: seen.append((x, sigma)) or noise(x, sigma)
    torch.manual_seed(0)
    detector.loss(net, Batch(torch.full((20_000, 3), 5.0)))
    x, sigma = seen[0]
    assert set(sigma.tolist()) == set(net.levels.tolist())
    spread = torch.stack([(x[sigma == level] - 5).std() for level in net.levels])
    assert spread.tolist() == pytest.approx(net.levels.tolist(), rel=0.05)


def test_the_vector_is_the_weighted_norm_of_the_score_of_the_clean_sample(fitted, normal):
    net = fitted.net_
    x = torch.from_numpy(normal[:20]).float()
    vectors = net.norms(Batch(x), net.weighted_squares(x))
    assert vectors.shape == (20, 10)
    for k, level in enumerate(net.levels):
        expected = level * net.score(x, level.expand(20)).norm(dim=1)
        assert torch.allclose(vectors[:, k], expected, rtol=1e-4)
    assert torch.equal(fitted.score_batch(net, Batch(x)), net.tail(vectors))


def test_the_tail_sees_the_training_samples(fitted):
    assert fitted.net_.tail.centre.min() > 0
    samples = torch.randn(500, 5, generator=torch.Generator().manual_seed(0))
    vectors = fitted.net_.norms(Batch(samples), fitted.net_.weighted_squares(samples)).double()
    assert torch.allclose(vectors.mean(0), fitted.net_.tail.centre, rtol=0.2)


def test_a_share_is_kept_for_the_tail(normal):
    detector = create("msma", tail_share=0.25, training=QUICK).fit(normal)
    assert detector.training_report_.samples == pytest.approx(0.75 * 640, abs=1)
    assert not torch.equal(detector.net_.tail.centre, create("msma", training=QUICK).fit(normal).net_.tail.centre)
    scores = detector.anomaly_score(np.vstack([normal[:50], normal[:50] + 6]))
    assert roc_auc_score(np.repeat([0, 1], 50), scores) > 0.99


def test_missing_values_leave_the_norm_to_the_rest(fitted):
    net = fitted.net_
    x = torch.tensor([[1.0, 2.0, 0.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, False, True, True]])
    squares = net.weighted_squares(x)
    expected = (squares[:, 0][:, mask[0]].mean(1) * 5).sqrt()
    assert torch.allclose(net.norms(Batch(x, mask), squares)[0], expected)


@pytest.mark.parametrize("tail", TAILS)
def test_every_tail_finds_what_is_far_and_restores_it(normal, tail):
    detector = create("msma", tail=tail, training=QUICK).fit(normal)
    fresh = np.random.default_rng(1).normal(size=(100, 5))
    odd = fresh.copy()
    odd[:, 2] += 8
    assert roc_auc_score(np.repeat([0, 1], 100), detector.anomaly_score(np.vstack([fresh, odd]))) > 0.95
    assert (detector.anomaly_map(odd).argmax(1) == 2).mean() > 0.9
    assert np.linalg.norm(detector.restore(odd) - fresh, axis=1).mean() < 4
    assert np.linalg.norm(detector.restore(fresh) - fresh, axis=1).mean() < 1.2


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"tail": "kde"}, "tail: .*gmm"),
        ({"levels": 1}, "levels: .*at least 2"),
        ({"noise": 0.0}, "noise: .*inf"),
        ({"least_noise": -1.0}, "least_noise: .*inf"),
        ({"least_noise": 3.0}, "least_noise: .*less than noise"),
        ({"tail_share": 1.0}, "tail_share: .*1"),
    ],
)
def test_wrong_parameters_are_named(normal, parameters, words):
    with pytest.raises(InputError, match=words):
        create("msma", **parameters).fit(normal[:50])


@pytest.mark.parametrize(("table", "least"), [("cardio", 0.88), ("pendigits", 0.95)])
def test_floor_on_real_tables(one_class, table, least):
    X, test, y = one_class(table)
    detector = create("msma", training=Training(updates=250)).fit(X)
    assert roc_auc_score(y, detector.anomaly_score(test)) > least
