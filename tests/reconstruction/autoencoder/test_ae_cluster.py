from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from genad import Training, load
from genad.data.samples import Batch
from genad.errors import InputError
from genad.reconstruction.autoencoder.ae_cluster import AECluster, tail_rank

pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]
QUICK = Training(updates=60)


@pytest.fixture(scope="module")
def groups():
    """Three groups, the last of them small."""
    rng = np.random.default_rng(0)
    centres = np.array([[6.0, 0, 0, 0, 0], [0, 6.0, 0, 0, 0], [0, 0, 6.0, 0, 0]])
    which = rng.choice(3, size=600, p=[0.5, 0.42, 0.08])
    return centres[which] + 0.3 * rng.normal(size=(600, 5)), which


@pytest.fixture(scope="module")
def fitted(groups):
    return AECluster(latent=3, training=Training(updates=200)).fit(groups[0])


def test_features_are_code_relative_error_and_cosine(fitted):
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    net = fitted.net_
    with torch.no_grad():
        features, restored = net.features(Batch(x))
        assert torch.equal(features[:, :3], net.encode(x))
    relative = (x - restored).norm(dim=1) / x.norm(dim=1)
    assert torch.allclose(features[:, 3], torch.log1p(relative), atol=1e-5)
    cosine = (x * restored).sum(1) / x.norm(dim=1) / restored.norm(dim=1)
    assert torch.allclose(features[:, 4], cosine, atol=1e-5)


def test_clusters_follow_the_groups(fitted, groups):
    X, which = groups
    found = fitted.assign(X)
    assert 3 <= len(fitted.net_.centres) <= 5
    mixed = [np.bincount(which[found == k], minlength=3) for k in np.unique(found)]
    assert sum(counts.max() for counts in mixed) > 0.95 * len(X)
    assert {int(counts.argmax()) for counts in mixed} == {0, 1, 2}


def test_one_cloud_is_one_cluster():
    X = np.random.default_rng(0).normal(size=(300, 6))
    assert len(AECluster(training=QUICK).fit(X).net_.centres) == 1


def test_clusters_may_be_asked_for(groups):
    assert len(AECluster(clusters=5, training=QUICK).fit(groups[0]).net_.centres) == 5


def test_distance_is_in_units_of_the_spread_of_the_cluster(fitted):
    net = fitted.net_
    features = torch.randn(8, 5, generator=torch.Generator().manual_seed(1))
    placed = (features - net.middle) * net.scale
    every = (placed[:, None] - net.centres).norm(dim=2) / net.spread
    distance, which = net.nearest(features)
    assert torch.allclose(distance, every.amin(1), atol=1e-5)
    assert torch.equal(which, every.argmin(1))


def test_a_small_normal_group_is_normal(fitted, groups):
    X, which = groups
    assert (fitted.predict(X[which == 2]) == 1).mean() > 0.9


def test_score_weighs_ranks_and_not_raw_values(groups):
    X, _ = groups
    scores = [AECluster(latent=3, error_weight=w, training=QUICK).fit(X).anomaly_score(X) for w in (0.0, 0.25, 1.0)]
    assert scores[1] == pytest.approx(0.75 * scores[0] + 0.25 * scores[2], rel=1e-4, abs=1e-5)
    # Ranks of normal samples: an exponential law, whatever the unit.
    for score in (scores[0], scores[2]):
        assert np.median(score) == pytest.approx(np.log(2), abs=0.12)


def test_rank_goes_on_beyond_all_normal_values():
    normal = torch.sort(torch.rand(50, generator=torch.Generator().manual_seed(0))).values
    values = torch.linspace(0, 30, 400)
    ranks = tail_rank(values, normal)
    assert (ranks.diff() >= 0).all()
    assert (ranks[values > 1].diff() > 0).all()
    assert tail_rank(normal[-1:], normal).item() == pytest.approx(np.log(50), rel=1e-5)
    assert tail_rank(torch.zeros(3), torch.zeros(4)).tolist() == [0.0, 0.0, 0.0]


def test_space_between_groups_is_anomalous(fitted, groups):
    X, _ = groups
    odd = np.full((60, 5), 2.0) + 0.3 * np.random.default_rng(1).normal(size=(60, 5))
    y = np.r_[np.zeros(len(X)), np.ones(60)]
    assert roc_auc_score(y, fitted.anomaly_score(np.r_[X, odd])) > 0.98


def test_anomalies_get_types(fitted, groups):
    X, _ = groups
    rng = np.random.default_rng(2)
    odd = X[:60].copy()
    odd[:40, 3] += 9 + rng.normal(size=40)
    odd[40:, 4] -= 9 + rng.normal(size=20)
    types = fitted.anomaly_types(np.r_[odd, X[100:300]], types=2)
    assert (types[:60] >= 0).all()
    assert (types[60:] == -1).mean() > 0.9
    assert (types[:40] == 0).mean() > 0.9
    assert (types[40:60] == 1).mean() > 0.9
    assert (fitted.anomaly_types(X[:1]) == -1).all()
    chosen = fitted.anomaly_types(odd)
    assert len(np.unique(chosen[:40])) == 1
    assert chosen[0] != chosen[50]


@pytest.mark.parametrize("types", [0, 1.5, True])
def test_wrong_number_of_types(fitted, groups, types):
    with pytest.raises(InputError, match="types: "):
        fitted.anomaly_types(groups[0], types=types)


@pytest.mark.parametrize("shape", [(12, 2), (1, 8, 8)])
def test_other_shapes(shape):
    X = np.random.default_rng(0).normal(size=(60, *shape))
    detector = AECluster(training=Training(updates=20)).fit(X)
    assert detector.encode(X).shape == (60, 10)
    assert detector.anomaly_types(X, types=2).shape == (60,)


def test_saved_and_loaded_scores_alike(fitted, groups, tmp_path):
    again = load(fitted.save(tmp_path / "cluster.genad"))
    assert (again.anomaly_score(groups[0]) == fitted.anomaly_score(groups[0])).all()


def test_real_table(one_class):
    train, test, y = one_class("cardio")
    assert roc_auc_score(y, AECluster().fit(train).anomaly_score(test)) > 0.88


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"clusters": 0}, "clusters: 0 was given"),
        ({"error_weight": 1.5}, "error_weight: 1.5 was given"),
        ({"latent": 0}, "latent: 0 was given"),
    ],
)
def test_refused(parameters, message):
    with pytest.raises(InputError, match=message):
        AECluster(**parameters).fit(np.random.default_rng(0).normal(size=(50, 3)))
