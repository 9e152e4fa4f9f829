"""Graph-augmented normalising flow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import lfilter
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.data.samples import Batch
from genad.density.explicit.ganf import GANF, GANFNet
from genad.errors import InputError
from genad.nn.acyclic import acyclicity

# short series leave few steps to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


def net_of(sensors=3):
    torch.manual_seed(0)
    return GANFNet(sensors, 8, 0.1)


def plant(n, seed=0):
    """Two pairs of sensors that hang together, and one for itself."""
    rng = np.random.default_rng(seed)
    drive = np.sin(np.arange(n) / 5) + 0.1 * rng.normal(size=n)
    walk, alone = lfilter([1.0], [1.0, -0.7], rng.normal(size=(2, n)))
    return np.c_[drive, walk, 2 * drive + 0.05 * rng.normal(size=n), alone, 0.8 * walk + 0.3 * rng.normal(size=n)]


@pytest.fixture(scope="module")
def fitted():
    return GANF(window=16, random_state=0, training=Training(updates=150, lr=1e-2)).fit(plant(900))


def test_loss_is_the_mean_over_observed_values_and_what_cycles_cost():
    net, detector = net_of(), GANF()
    x = torch.randn(5, 6, 3)
    nll = net.nll(x, net.condition(x, net.dag()))
    net.dag.rho.fill_(3.0)
    net.dag.alpha.fill_(0.5)
    h = acyclicity(net.dag())
    loss = detector.loss(net, Batch(x))
    torch.testing.assert_close(loss, nll.mean() + 1.5 * h * h + 0.5 * h)
    loss.backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[..., 0] = False
    gap = torch.where(mask, x, 0.0)
    nll = net.nll(gap, net.condition(gap, net.dag()))
    torch.testing.assert_close(detector.score_batch(net, Batch(gap, mask)), nll[..., 1:].mean((1, 2)))
    assert (detector.error_map(net, Batch(gap, mask))[..., 0] == 0).all()


def test_without_cycles_the_scores_are_those_of_a_density():
    net = net_of(4)
    start = torch.randn(1, 3, 4)

    def latent(step):
        x = torch.cat([start, step.view(1, 1, 4)], 1)
        return net.flow(x.transpose(1, 2).unsqueeze(-1), net.condition(x, net.dag()))[0][0, :, -1, 0]

    def volumes():
        """Return the log-determinant of the map of a step, and what the density takes for it."""
        step = torch.randn(4)
        jacobian = torch.autograd.functional.jacobian(latent, step)
        return torch.linalg.slogdet(jacobian).logabsdet, jacobian.diagonal().log().sum()

    with torch.no_grad():
        for part in (net.from_others, net.join):
            part.weight.mul_(10.0)
    real, taken = volumes()
    assert abs(real - taken) > 1e-3  # sensors explain each other
    GANF().finish(net, None)
    real, taken = volumes()
    torch.testing.assert_close(real, taken, atol=1e-5, rtol=1e-5)
    assert (net.dag() > 0).sum() == 6


def test_search_takes_its_share_of_the_updates():
    detector = GANF(window=8, search=0.4, training=Training(updates=50)).fit(plant(300))
    dag = detector.net_.dag
    assert dag.search == 20
    assert dag.stage == 1
    assert dag.settled
    assert dag.updates <= 20


def test_the_graph_joins_the_sensors_that_hang_together(fitted):
    graph = fitted.graph()
    assert graph.shape == (5, 5)
    assert acyclicity(torch.from_numpy(graph)) == 0
    joined = graph + graph.T
    related = [joined[0, 2], joined[1, 4]]
    joined[[0, 2, 1, 4], [2, 0, 4, 1]] = 0
    assert min(related) > 2 * joined.max()


def test_a_broken_relation_is_found_though_every_value_is_usual(fitted):
    fresh = plant(900, seed=1)
    broken = fresh.copy()
    broken[400:430, 2] *= -1
    found = fitted.detect(broken)
    assert found.scores[400:430].min() > np.quantile(fitted.anomaly_score(fresh), 0.99)
    # The broken sensor is still like its own past: it is its child, or parent, that cannot be explained by it.
    assert found.maps[402:428].sum(0).argmax() in {0, 2}


def test_restored_steps_are_what_the_others_say(fitted):
    fresh = plant(300, seed=2)
    spread = fresh.std(0)
    assert np.square((fitted.restore(fresh) - fresh) / spread).mean() < 0.5
    broken = fresh.copy()
    broken[150, 2] += 8
    restored = fitted.restore(broken)
    assert abs(restored[150, 2] - fresh[150, 2]) < 4


def test_answers_survive_saving(fitted, tmp_path):
    fresh = plant(200, seed=3)
    again = genad.load(fitted.save(tmp_path / "m"))
    assert np.array_equal(fitted.anomaly_score(fresh), again.anomaly_score(fresh))
    assert np.array_equal(fitted.graph(), again.graph())


def test_one_sensor_is_judged_by_its_own_past():
    series = plant(400)[:, :1]
    detector = GANF(window=8, training=Training(updates=60, lr=1e-2)).fit(series)
    assert detector.graph().tolist() == [[0.0]]
    series[200] += 5
    scores = detector.anomaly_score(series)
    assert scores[200] > np.quantile(scores, 0.98)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"search": 0.0}, "search: 0.0"),
        ({"search": 1.0}, "search: 1.0"),
        ({"hidden": 0}, "hidden: 0"),
        ({"min_std": 1.0}, "min_std: 1.0"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        GANF(**params).fit(np.arange(100.0))


@pytest.mark.data
def test_floor_on_a_real_series(data_dir):
    # the floor guards against breakage; how the method compares is in its docstring
    pd = pytest.importorskip("pandas")
    table = pd.read_parquet(data_dir / "series" / "skab.parquet")
    ignored = {"file", "datetime", "anomaly", "changepoint"}
    one = table[table.file.astype(str) == "other/10"]
    X, y = one[[c for c in table.columns if c not in ignored]].to_numpy(float), one.anomaly.to_numpy()
    detector = GANF(training=Training(updates=60, lr=1e-2)).fit(X[:400])
    assert roc_auc_score(y[400:], detector.anomaly_score(X[400:])) > 0.75
