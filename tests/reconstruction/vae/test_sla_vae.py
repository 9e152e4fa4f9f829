from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn import kl_to_standard_normal
from genad.reconstruction.vae.sla_vae import SLAVAE

# short series leave few steps to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")
QUICK = Training(updates=100)


def series_of(n=700, seed=0, channels=2):
    t = np.arange(n)[:, None] / 7 + np.arange(channels)
    return np.sin(t) + 0.1 * np.random.default_rng(seed).normal(size=(n, channels))


def dips_of(n=700, seed=0, every=60, size=1.5):
    """Return a series with dips of one step in the first channel, and where they are."""
    X, at = series_of(n, seed), np.arange(70, n, every)
    X[at, 0] -= size
    return X, at


def fit(X=None, y=None, **params):
    return SLAVAE(**({"training": QUICK} | params)).fit(series_of() if X is None else X, y)


@pytest.fixture(scope="module")
def fitted_file(tmp_path_factory):
    return fit().save(tmp_path_factory.mktemp("m") / "model")


def net_of():
    torch.manual_seed(0)
    return SLAVAE(training=QUICK).build((64, 2))


def test_the_score_of_a_step_is_the_divergence_of_the_features_of_the_window_that_ends_there():
    detector = fit()
    X = series_of(seed=1)
    net, samples = detector.net_, detector._ingest(X, reset=False).samples
    batch = samples.stretch(0, 20)
    with torch.no_grad():
        mean, std = net.model.posterior(net.tails(batch.x)[:, 0])
        expected = kl_to_standard_normal(mean, std).sum(1)
    np.testing.assert_allclose(detector.anomaly_score(X)[63:83], expected.numpy(), rtol=1e-4)


def test_steps_before_the_end_of_the_first_window_have_scores_of_their_own():
    detector, X = fit(), series_of(seed=1)
    X[20, 1] += 4
    scores = detector.anomaly_score(X)
    assert len(np.unique(scores[:64])) > 60
    assert int(scores[:60].argmax()) == 20


def test_the_loss_adds_cross_entropy_and_weighted_divergence_of_normals():
    net, x = net_of(), torch.rand(16, 12)
    detector = SLAVAE()
    net.control.weight.fill_(2.5)
    torch.manual_seed(3)
    loss = detector.loss(net, Batch(x))
    torch.manual_seed(3)
    mean, std = net.model.posterior(x)
    restored = torch.sigmoid(net.model.decode(mean + std * torch.randn_like(mean)))
    bce = -(x * restored.log() + (1 - x) * (1 - restored).log()).sum(1)
    expected = (bce + 2.5 * kl_to_standard_normal(mean, std).sum(1)).mean()
    torch.testing.assert_close(loss, expected / 12)


def test_labelled_anomalies_are_pushed_away_as_far_as_the_hinge_and_no_further():
    net, x = net_of(), torch.rand(16, 12)
    detector = SLAVAE()
    torch.manual_seed(3)
    plain = detector.loss(net, Batch(x))
    # no anomalies: no term, whatever else there is
    assert torch.isfinite(plain)
    net.memory.known = torch.ones(4, 12)
    torch.manual_seed(3)
    assert detector.loss(net, Batch(x)) > plain
    # what is badly restored already is left alone
    with torch.no_grad():
        net.model.decode[-1].weight.zero_()
        net.model.decode[-1].bias.fill_(-9.0)
    torch.manual_seed(3)
    with_anomalies = detector.loss(net, Batch(x))
    net.memory.known = torch.zeros(0, 12)
    torch.manual_seed(3)
    torch.testing.assert_close(with_anomalies, detector.loss(net, Batch(x)))


def test_every_step_of_training_moves_the_weight_by_the_divergence_of_normal_steps():
    detector = SLAVAE(divergence=0.5, beta_min=0.2)
    torch.manual_seed(0)
    net, batch = detector.build((64, 2)), Batch(torch.rand(16, 12))
    with torch.no_grad():
        net.model.encode[-1].bias.fill_(1.0)
    error = 0.5 - float(net.model.divergence(batch.x).mean().detach())
    assert error < 0
    detector.after_step(net, batch)
    expected = 0.2 + 1e-2 / (1 + np.exp(error)) - 1e-3 * error
    assert float(net.control.weight) == pytest.approx(expected, rel=1e-4)
    assert float(fit().net_.control.weight) >= 1.0


def test_wide_keeps_every_variance_at_one_or_above():
    assert (fit(wide=True).net_.model.posterior(torch.rand(50, 12))[1] >= 1.0).all()
    assert (fit().net_.model.posterior(torch.rand(50, 12))[1] < 1.0).any()


def test_a_single_channel_has_twelve_features_and_a_period_a_longer_window():
    assert fit(series_of(channels=1)).net_.model.encode[0].in_features == 12
    detector = SLAVAE(period=90)
    assert detector.default_window == 105
    assert fit(period=90).adapter_.length == 105


def test_labels_of_the_fit_teach_the_model():
    X, at = dips_of(every=100)
    y = np.zeros(len(X), int)
    y[at] = 1
    taught = fit(X, y)
    assert len(taught.net_.memory.known) == len(at)
    fresh, where = dips_of(seed=5)
    restored = taught.net_.model
    examples = taught.examples(taught.net_, taught._ingest(fresh, reset=False).samples)
    with torch.no_grad():
        error, _ = restored.cross_entropy(examples)
    dips = np.isin(np.arange(63, 700), where)
    assert error[dips].mean() > 1.5 * error[~dips].mean()


def test_feedback_trains_the_model_and_can_be_forgotten(fitted_file):
    detector, X = genad.load(fitted_file), dips_of(seed=5)[0]
    at = dips_of(seed=5)[1]
    before = detector.anomaly_score(X)
    labels = np.full(len(X), -1)
    labels[at[:4]], labels[100:105] = 0, 0
    detector.feedback(X, labels)
    after = detector.anomaly_score(X)
    rest = at[4:]
    normal = np.setdiff1d(np.arange(64, 700), at)

    def gap(scores):
        return scores[rest].mean() - np.median(scores[normal])

    # told that such dips are normal, it takes the other dips for less of an anomaly
    assert gap(after) < 0.7 * gap(before)
    assert detector.head_ is None
    detector.forget()
    np.testing.assert_array_equal(detector.anomaly_score(X), before)
    assert not len(detector.net_.memory.told)


def test_feedback_is_kept_over_calls_and_files_and_does_not_depend_on_the_order_of_calls(fitted_file, tmp_path):
    X, at = dips_of(seed=5)
    labels = np.full(len(X), -1)
    labels[at[:2]] = 1
    one = genad.load(fitted_file).feedback(X, labels)
    again = genad.load(one.save(tmp_path / "m"))
    np.testing.assert_array_equal(again.anomaly_score(X), one.anomaly_score(X))
    again.feedback(X, labels, keep=False)
    np.testing.assert_array_equal(again.anomaly_score(X), one.anomaly_score(X))
    again.feedback(X, labels)
    assert again.net_.memory.labels.tolist() == [1, 1, 1, 1]
    again.forget()
    np.testing.assert_array_equal(again.anomaly_score(X), genad.load(fitted_file).anomaly_score(X))


def test_p_values_after_feedback_come_from_the_held_out_steps_scored_again(fitted_file):
    detector, X = genad.load(fitted_file), dips_of(seed=5)[0]
    labels = np.full(len(X), -1)
    labels[dips_of(seed=5)[1][:3]] = 1
    detector.feedback(X, labels)
    held = detector.net_.model.divergence(detector.net_.memory.held).numpy()
    np.testing.assert_allclose(detector.calibration_scores_, np.sort(held), rtol=1e-5)
    # after calibrate, labels leave the fresh steps' scores in force
    detector.forget().calibrate(series_of(300, seed=8))
    assert len(detector.net_.memory.held) == 300


def test_query_proposes_steps_near_the_threshold_that_are_apart(fitted_file):
    detector, X = genad.load(fitted_file), dips_of(seed=5)[0]
    chosen = detector.query(X, 5)
    assert np.diff(np.sort(chosen)).min() >= 16
    scores = detector.anomaly_score(X)
    assert chosen[0] == np.abs(scores - detector.threshold_.value).argmin()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"period": 1}, "period: 1 was given"),
        ({"divergence": 0.0}, "divergence: 0.0"),
        ({"beta_min": 0.0}, "beta_min: 0.0"),
        ({"latent": 0}, "latent: 0"),
        ({"wide": 1}, "wide: 1 was given; use True or False"),
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
    one = table[table.file.astype(str) == "other/10"]
    X, y = one[[c for c in table.columns if c not in ignored]].to_numpy(float), one.anomaly.to_numpy()
    assert roc_auc_score(y[400:], SLAVAE().fit(X[:400]).anomaly_score(X[400:])) > 0.65
