"""Ensembles: the combination is the combination of the members' own answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from genad import Autoencoder, Backbone, Ensemble, Training, Windowed
from genad.core.calibration import Conformal
from genad.core.stacking import Looped, Stacked
from genad.data.samples import Batch
from genad.errors import InputError

QUICK = Training(updates=20)


def data(n=200):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 2)) @ rng.normal(size=(2, 5)) + 0.1 * rng.normal(size=(n, 5))


def fit(detector, n=3, X=None, **params):
    ensemble = Ensemble(detector, n=n, threshold=Conformal(alpha=0.1), **params)
    return ensemble.fit(data() if X is None else X)


@dataclass(eq=False, repr=False)
class InTurn(Autoencoder):
    """The same detector, with networks that may not be stacked."""

    name: ClassVar[str] = "in_turn"
    stackable: ClassVar[bool] = False


@pytest.mark.parametrize("inner", [Autoencoder, InTurn])
@pytest.mark.parametrize(("combine", "how"), [("mean", np.mean), ("median", np.median), ("max", np.max)])
def test_scores_combine_the_members(inner, combine, how):
    X = data()
    ensemble = fit(inner(training=QUICK), combine=combine)
    z = ensemble._ingest(X, reset=False).samples.batch(torch.arange(len(X)))
    member = ensemble.detector_
    with torch.inference_mode():
        scores = np.stack([member.score_batch(net, z).numpy() for net in ensemble.net_.nets()])
        maps = np.stack([member.error_map(net, z).numpy() for net in ensemble.net_.nets()])
        restored = np.stack([member.reconstruct(net, z).numpy() for net in ensemble.net_.nets()])
    assert np.ptp(scores, axis=0).min() > 0
    np.testing.assert_allclose(ensemble.anomaly_score(X), how(scores, axis=0), rtol=1e-4)
    np.testing.assert_allclose(ensemble.anomaly_map(X), how(maps, axis=0), rtol=1e-3, atol=1e-5)
    expected = ensemble.adapter_.encoder.inverse_numeric(restored.mean(0))
    np.testing.assert_allclose(ensemble.restore(X), expected, rtol=1e-4, atol=1e-4)


def test_stacked_where_it_can_be():
    assert isinstance(fit(Autoencoder(training=QUICK)).net_, Stacked)
    assert isinstance(fit(InTurn(training=QUICK)).net_, Looped)


def test_one_member_is_its_detector():
    X = data()
    one = Autoencoder(training=QUICK, threshold=Conformal(alpha=0.1)).fit(X)
    for inner in (Autoencoder, InTurn):
        np.testing.assert_allclose(fit(inner(training=QUICK), n=1).anomaly_score(X), one.anomaly_score(X), rtol=1e-3)


def test_training_together_is_training_in_turn():
    """Plain networks without noise: members trained by one graph equal members trained by their own."""
    X = data()
    training = Training(updates=30, lr=1e-3)
    together = fit(Autoencoder(training=training)).anomaly_score(X)
    in_turn = fit(InTurn(training=training)).anomaly_score(X)
    np.testing.assert_allclose(together, in_turn, rtol=1e-3)


@pytest.mark.parametrize("inner", [Autoencoder, InTurn])
@pytest.mark.parametrize("settings", [{"clip": 0.5}, {"ema": 0.9}, {"patience": 2}, {"optimizer": "sgd"}])
def test_every_setting_of_training_works(inner, settings):
    ensemble = fit(inner(training=Training(updates=20, lr=1e-3, **settings)))
    scores = ensemble.anomaly_score(data())
    assert np.isfinite(scores).all()
    assert ensemble.training_report_.updates <= 20


def test_recurrent_members_are_trained_in_turn():
    X = np.random.default_rng(0).normal(size=(40, 8, 2))
    inner = Autoencoder(backbone=Backbone("gru", hidden=(4,)), training=Training(updates=3))
    inner.__class__ = type("Recurrent", (Autoencoder,), {"stackable": False})
    ensemble = Ensemble(inner, n=2, threshold=Conformal(alpha=0.3)).fit(X)
    assert isinstance(ensemble.net_, Looped)
    assert np.isfinite(ensemble.anomaly_score(X)).all()


def test_members_are_finished_and_stepped_each_on_its_own():
    seen = []

    class Closed(Autoencoder):
        def build(self, shape):
            net = super().build(shape)
            net.register_buffer("centre", torch.zeros(shape))
            net.register_buffer("steps", torch.zeros(()))
            return net

        def finish(self, net, samples):
            batch = samples.batch(torch.arange(len(samples)))
            net.centre = (batch.x - net(batch.x)).mean(0)
            seen.append(net)

    ensemble = fit(Closed(training=QUICK))
    assert len(seen) == 3
    nets = ensemble.net_.nets()
    assert not torch.equal(nets[0].centre, nets[1].centre)
    for net, finished in zip(nets, seen, strict=True):
        assert torch.equal(net.centre, finished.centre)


def test_missing_values_reach_every_member():
    X = data()
    X[::5, 2] = np.nan
    found = fit(Autoencoder(training=QUICK)).detect(X)
    assert np.isfinite(found.scores).all()
    assert (found.maps[::5, 2] == 0).all()


def test_stacked_members_see_fewer_rows_at_a_time():
    X = data(3000)
    ensemble = fit(Autoencoder(training=QUICK), n=4, X=X)
    one = Autoencoder(training=QUICK, threshold=Conformal(alpha=0.1)).fit(X)
    assert ensemble._block((5,)) == one._block((5,)) // 4
    assert fit(InTurn(training=QUICK), n=4)._block((5,)) == one._block((5,))
    assert fit(Autoencoder(training=QUICK), n=40)._block((5,)) == 256
    np.testing.assert_array_equal(ensemble.anomaly_score(X)[1700:1900], ensemble.anomaly_score(X[1700:1900]))


def test_it_goes_inside_windows():
    series = np.random.default_rng(0).normal(size=(200, 2))
    inner = Ensemble(Autoencoder(training=Training(updates=5)), n=2)
    detector = Windowed(inner, window=8, threshold=Conformal(alpha=0.1)).fit(series)
    assert np.isfinite(detector.anomaly_score(series)).all()


@pytest.mark.parametrize(("params", "message"), [
    ({"n": 0}, "^n: 0"), ({"n": 2.5}, "^n: 2.5"), ({"combine": "sum"}, "^combine: 'sum'"),
    ({"detector": None}, "^detector: None"), ({"detector": Windowed(Autoencoder())}, "^detector: "),
    ({"detector": Autoencoder(latent=0)}, "^latent: 0"), ({"detector": Autoencoder}, "^detector: "),
])  # fmt: skip
def test_wrong_parameters_are_named(params, message):
    with pytest.raises(InputError, match=message):
        Ensemble(**({"detector": Autoencoder()} | params)).fit(data())


def test_batch_of_members_is_cut_by_member():
    """Every member trains on batches of the size asked for, each its own rows."""
    sizes = []

    class Watching(InTurn):
        def loss(self, net, batch: Batch):
            sizes.append(tuple(batch.x.shape))
            return super().loss(net, batch)

    fit(Watching(training=Training(updates=2, batch_size=16)))
    assert sizes == [(16, 5)] * 6
