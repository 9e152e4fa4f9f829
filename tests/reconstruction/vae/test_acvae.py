from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn import gaussian_log_prob, kl_to_standard_normal
from genad.reconstruction.vae.acvae import ACVAE

# short series leave few steps to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")
QUICK = {"hidden": 16, "draws": 1, "window": 8, "training": Training(updates=60)}


def series_of(n=500, seed=0):
    t = np.arange(n)[:, None] / 5 + np.arange(2)
    return np.sin(t) + 0.1 * np.random.default_rng(seed).normal(size=(n, 2))


def bumps_of(seed=1):
    """Return a series with bumps of five steps in the second channel, and which steps they hold."""
    X, y = series_of(seed=seed), np.zeros(500, int)
    for start in range(40, 480, 60):
        y[start : start + 5] = 1
    X[y == 1, 1] += 1.5
    return X, y


def fit(X=None, y=None, **params):
    return ACVAE(**(QUICK | params)).fit(series_of() if X is None else X, y)


@pytest.fixture(scope="module")
def fitted_file(tmp_path_factory):
    return fit().save(tmp_path_factory.mktemp("m") / "model")


def net_of(**params):
    torch.manual_seed(0)
    return ACVAE(**(QUICK | params)).build((8, 2))


def parts_of(net, x, noise):
    """Return NLL_n, NLL_a and the divergence of windows for codes drawn with given noise, in nats."""
    mean, std = net.model.posterior(x)
    z = mean + std * noise
    nll = [
        -gaussian_log_prob(x, *net.model.likelihood(decoder, z)).sum((1, 2))
        for decoder in (net.model.normal, net.model.anomalous)
    ]
    return *nll, kl_to_standard_normal(mean, std).sum(1)


def test_without_labels_the_loss_is_the_evidence_bound_of_the_normal_decoder():
    net, x = net_of(), torch.randn(6, 8, 2)
    torch.manual_seed(3)
    loss = ACVAE(**QUICK).loss(net, Batch(x))
    torch.manual_seed(3)
    as_normal, _, divergence = parts_of(net, x, torch.randn(6, 8))
    torch.testing.assert_close(loss, (as_normal + divergence).mean() / 16)
    loss.backward()
    assert all(p.grad is None for p in net.model.anomalous.parameters())


def test_known_anomalies_get_a_bound_of_their_own_and_are_kept_apart():
    detector, net, x = ACVAE(**QUICK, margin=2.0), net_of(), torch.randn(1, 8, 2)
    windows = torch.randn(8, 8, 2)
    net.memory.known = x
    torch.manual_seed(3)
    loss = detector.loss(net, Batch(windows))
    torch.manual_seed(3)
    n, a, kl = parts_of(net, windows, torch.randn(8, 8))
    keep = 1 - torch.sigmoid((n - a) / 16).detach()
    expected = (keep * (n + kl)).mean() / keep.mean()
    torch.randint(1, (1,))
    n, a, kl = parts_of(net, x, torch.randn(1, 8))
    expected = expected + (a + kl + torch.relu(32 - (n - a))).mean()
    torch.testing.assert_close(loss, expected / 16)
    loss.backward()
    assert all(p.grad is not None for p in net.model.parameters())


@pytest.mark.parametrize("contrast", ["excess", "difference"])
def test_the_score_is_contrasted_once_anomalies_are_known(contrast):
    detector, net, x = ACVAE(**QUICK, contrast=contrast), net_of(), torch.randn(6, 8, 2)
    mean, std = net.model.posterior(x)
    z = mean + std * net.noise[0]
    n, a = (
        -gaussian_log_prob(x, *net.model.likelihood(decoder, z)).sum(2)
        for decoder in (net.model.normal, net.model.anomalous)
    )
    torch.testing.assert_close(detector.score_batch(net, Batch(x)), n)
    net.memory.known = x[:1]
    expected = n - a if contrast == "difference" else n + (n - a).clamp_min(0)
    torch.testing.assert_close(detector.score_batch(net, Batch(x)), expected)


def test_a_step_is_scored_by_the_window_that_ends_there():
    detector, X = fit(), series_of(seed=1)
    batch = detector._ingest(X, reset=False).samples.stretch(0, 30)
    with torch.no_grad():
        expected = detector.score_batch(detector.net_, batch)[:, -1]
    np.testing.assert_allclose(detector.anomaly_score(X)[7:37], expected.numpy(), rtol=1e-4, atol=1e-4)


def test_labels_of_the_fit_raise_the_scores_of_like_anomalies():
    X, y = bumps_of()
    fresh, truth = bumps_of(seed=2)
    plain, taught = fit(X, np.where(y == 1, 1, 0)), None
    taught = plain
    blind = fit()
    assert len(taught.net_.memory.known) == int(y.sum())
    found = [roc_auc_score(truth, d.anomaly_score(fresh)) for d in (blind, taught)]
    assert found[1] > 0.9
    assert found[1] >= found[0] - 0.02


def test_feedback_trains_both_models_and_raises_like_anomalies(fitted_file):
    detector = genad.load(fitted_file)
    X, y = bumps_of()
    fresh, truth = bumps_of(seed=2)
    before, ask = detector.anomaly_score(fresh), detector.net_.ask[0].weight.clone()

    def contrast(scores):
        return (scores[truth == 1].mean() - scores[truth == 0].mean()) / scores[truth == 0].std()

    labels = np.where(np.arange(500) < 250, y, -1)
    labels[(labels == 0) & (np.arange(500) % 10 > 0)] = -1
    detector.feedback(X, labels)
    after = detector.anomaly_score(fresh)
    assert contrast(after) > 1.1 * contrast(before)
    assert not torch.equal(detector.net_.ask[0].weight, ask)
    assert detector.net_.memory.wrong.shape == detector.net_.memory.labels.shape


def test_false_alarms_called_normal_lose_their_alarm(fitted_file):
    detector = genad.load(fitted_file)
    X, y = bumps_of()
    fresh, truth = bumps_of(seed=2)
    before = detector.anomaly_score(fresh)
    detector.feedback(X, np.where(y == 1, 0, -1))
    after = detector.anomaly_score(fresh)

    def gap(s):
        return s[truth == 1].mean() - np.median(s[truth == 0])

    assert gap(after) < 0.7 * gap(before)
    assert not detector.net_.contrasts


def test_feedback_can_be_saved_and_forgotten(fitted_file, tmp_path):
    detector = genad.load(fitted_file)
    X, y = bumps_of()
    before, weights = detector.anomaly_score(X), detector.net_.model.code.linear.weight.clone()
    detector.feedback(X, np.where(np.arange(500) < 100, y, -1))
    again = genad.load(detector.save(tmp_path / "m"))
    np.testing.assert_array_equal(again.anomaly_score(X), detector.anomaly_score(X))
    np.testing.assert_array_equal(again.query(X, 3), detector.query(X, 3))
    again.forget()
    np.testing.assert_array_equal(again.anomaly_score(X), before)
    assert torch.equal(again.net_.model.code.linear.weight, weights)


def test_the_query_model_proposes_what_it_expects_to_surprise(fitted_file):
    detector = genad.load(fitted_file)
    X, y = bumps_of()
    first = detector.query(X, 1)
    assert first[0] == np.abs(detector.anomaly_score(X) - detector.threshold_.value).argmin()
    # the bumps are alarms, and the operator says that they are none
    labels = np.where(y == 1, 0, -1)
    labels[300:] = -1
    detector.feedback(X, labels)
    assert detector.net_.memory.wrong.sum() > 0
    fresh, truth = bumps_of(seed=2)
    near = np.convolve(truth, np.ones(9), "same") > 0
    assert near[detector.query(fresh, 5)].mean() >= 0.8


def test_the_query_model_learns_from_disagreement_alone():
    net = net_of()
    net.memory.told, net.memory.labels = torch.full((4, 8, 2), 3.0), torch.zeros(4, dtype=torch.long)
    net.memory.wrong = torch.ones(4, dtype=torch.long)
    detector = ACVAE(**QUICK)
    assert [phase.name for phase in detector.phases(net)] == ["loss", "query"]
    detector.query_loss(net, Batch(torch.randn(8, 8, 2))).backward()
    assert all(p.grad is not None for p in net.ask.parameters())
    assert all(p.grad is None for p in net.model.parameters())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"contrast": "ratio"}, "contrast: 'ratio' was given"),
        ({"margin": -1.0}, "margin: -1.0"),
        ({"draws": 0}, "draws: 0"),
        ({"min_std": 0.0}, "min_std: 0.0"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        fit(**params)


@pytest.mark.data
def test_floor_on_a_real_series(data_dir):
    # the floor guards against breakage; how the method compares is in its docstring
    pd = pytest.importorskip("pandas")
    table = pd.read_parquet(data_dir / "series" / "skab.parquet")
    ignored = {"file", "datetime", "anomaly", "changepoint"}
    one = table[table.file.astype(str) == "valve1/10"]
    X, y = one[[c for c in table.columns if c not in ignored]].to_numpy(float), one.anomaly.to_numpy()
    detector = ACVAE(draws=1, training=Training(updates=150)).fit(X[:400])
    assert roc_auc_score(y[400:], detector.anomaly_score(X[400:])) > 0.75
