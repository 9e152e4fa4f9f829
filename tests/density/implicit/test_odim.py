"""ODIM: inliers are memorised first."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from genad import Training, create
from genad.data.samples import ArraySamples, Batch
from genad.density.implicit import odim
from genad.errors import InputError
from genad.nn import gaussian_log_prob
from genad.nn.bimodal import separation
from genad.nn.vae import log_ratio

pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]


@pytest.fixture(scope="module")
def contaminated():
    """Rows on a plane, and a twentieth of them off it; the outliers are among what is trained on."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, 2)) @ rng.normal(size=(2, 6)) + 0.1 * rng.normal(size=(1000, 6))
    y = np.arange(1000) % 20 == 0
    X[y] = 2 * X.std(0) * rng.normal(size=(50, 6))
    return X, y


@pytest.fixture(scope="module")
def fitted(contaminated):
    return create("odim", restarts=3, particles=5, draws=8, training=Training(updates=120)).fit(contaminated[0])


def test_outliers_in_the_training_data_score_higher(fitted, contaminated):
    X, y = contaminated
    assert roc_auc_score(y, fitted.anomaly_score(X)) > 0.8


def test_each_member_stopped_where_its_losses_were_furthest_apart(fitted):
    members = list(fitted.net_.members)
    assert len({int(member.updates) for member in members}) > 1
    report = fitted.training_report_
    assert max(int(member.updates) for member in members) <= report.updates <= 120
    assert all(len(member.best) == 0 for member in members)


def test_the_best_look_is_kept_and_patience_ends_it():
    detector = create("odim", restarts=1)
    (member,) = detector.build((3,)).members
    seen = []
    for update, distance in enumerate([0.2, 0.5, 0.4, 0.3, 0.9], start=1):
        if bool(member.stopped):
            break
        with torch.no_grad():
            next(member.parameters()).fill_(update)
        member.look(torch.tensor(distance, dtype=torch.float64), update, patience=2)
        seen.append(update)
    assert seen == [1, 2, 3, 4]
    assert int(member.updates) == 2
    member.recall()
    assert (next(member.parameters()) == 2).all()


def test_the_criterion_is_the_separation_of_the_losses_of_fixed_samples():
    torch.manual_seed(0)
    detector = create("odim", restarts=2, draws=4)
    net = detector.build((3,))
    x = torch.randn(600, 3)
    net.probe, net.every = x, 2
    detector.after_step(net, Batch(x[:1]))
    assert [float(member.distance) for member in net.members] == [-1, -1]
    detector.after_step(net, Batch(x[:1]))
    expected = separation(torch.stack([member.losses(Batch(x)) for member in net.members]))
    assert [float(member.distance) for member in net.members] == pytest.approx(expected.tolist())


def test_looks_come_every_tenth_update_and_more_often_in_small_data(monkeypatch):
    seen = []
    monkeypatch.setattr(odim.Member, "look", lambda self, distance, update, patience: seen.append((update, patience)))
    X = np.random.default_rng(0).normal(size=(2000, 3))
    create("odim", restarts=1, training=Training(updates=31)).fit(X)
    assert seen == [(10, 10), (20, 10), (30, 10)]
    seen.clear()
    create("odim", restarts=1, training=Training(updates=5)).fit(X[:200])
    assert seen == [(2, 50), (4, 50)]


def test_the_probe_holds_512_samples_while_training():
    detector = create("odim", restarts=1, training=Training(updates=1))
    detector.seed_, detector.device_ = 0, "cpu"
    net = detector.build((3,))
    real, sizes = detector.loss, []
    detector.loss = lambda member, batch: (sizes.append(len(net.probe)), real(member, batch))[1]
    detector.optimise(net, ArraySamples(torch.randn(900, 3)))
    assert sizes == [512]
    assert len(net.probe) == 0


def test_the_loss_is_the_importance_weighted_bound_of_fresh_codes():
    torch.manual_seed(0)
    detector = create("odim", restarts=1, particles=7)
    (member,) = detector.build((3,)).members
    x = torch.randn(5, 3)
    torch.manual_seed(1)
    found = detector.loss(member, Batch(x))
    torch.manual_seed(1)
    mean, std = member.posterior(x)
    z = mean + std * torch.randn(7, *mean.shape)
    mu, sigma = member.likelihood(z.flatten(0, 1))
    likely = gaussian_log_prob(x.repeat(7, 1), mu, sigma).sum(1).view(7, 5)
    bound = (likely + log_ratio(z, mean, std)).exp().mean(0).log()
    assert found.item() == pytest.approx(-bound.mean().item() / 3, rel=1e-4)
    member.stopped.fill_(True)
    detector.loss(member, Batch(x)).backward()
    assert all(p.grad is None or not p.grad.any() for p in member.parameters())


def test_the_score_is_the_mean_of_standardised_losses_or_of_losses(fitted, contaminated):
    X = contaminated[0][:50]
    batch = fitted.adapter_.transform(X).samples.stretch(0, 50)
    losses = torch.stack([member.losses(batch) for member in fitted.net_.members])
    scales = [(float(member.centre), float(member.spread)) for member in fitted.net_.members]
    standard = np.mean([(each.numpy() - c) / s for each, (c, s) in zip(losses.detach(), scales, strict=True)], 0)
    assert fitted.anomaly_score(X) == pytest.approx(standard, abs=1e-4)
    plain = create("odim", standardised=False, restarts=3)
    assert plain.infer(fitted.net_, batch, frozenset()).score.tolist() == pytest.approx(
        losses.mean(0).tolist(), abs=1e-4
    )


def test_floor_on_a_contaminated_table(data_dir):
    with np.load(data_dir / "tabular" / "adbench_cardio.npz", allow_pickle=False) as file:
        X, y = file["X"].astype(np.float32), file["y"].astype(int).ravel()
    detector = create("odim", restarts=2, training=Training(updates=120)).fit(X)
    assert roc_auc_score(y, detector.anomaly_score(X)) > 0.72


@pytest.mark.parametrize(
    ("parameter", "value", "words"),
    [
        ("latent", 0, "at least 1"),
        ("restarts", 0, "at least 1"),
        ("particles", 2.5, "at least 1"),
        ("draws", True, "at least 1"),
        ("patience", -1, "at least 1"),
        ("min_std", 0.0, r"\(0, inf\)"),
    ],
)
def test_wrong_parameters_are_named(contaminated, parameter, value, words):
    with pytest.raises(InputError, match=f"{parameter}: .*{words}"):
        create("odim", **{parameter: value}).fit(contaminated[0])
