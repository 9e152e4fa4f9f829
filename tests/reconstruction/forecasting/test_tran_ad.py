from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.data.samples import Batch
from genad.errors import InputError
from genad.reconstruction.forecasting.tran_ad import TranAD

# short series leave few steps to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


def ready(**params):
    torch.manual_seed(0)
    detector = TranAD(**{"width": 8, "heads": 2, **params})
    return detector, detector.build((6, 3)).eval(), torch.randn(5, 6, 3)


def norm(out, x):
    return (out - x).square().mean((1, 2)).sqrt().mean()


def waves(n=700):
    t = np.arange(n)
    return np.c_[np.sin(t / 5), np.cos(t / 5)]


def test_the_second_phase_reads_the_error_of_the_first():
    _, net, x = ready()
    one, two, again = net(x)
    with torch.no_grad():
        net.encoder["both"].weight[:, 3:] = 0.0  # deaf to the focus
    deaf = net(x)
    torch.testing.assert_close(deaf[0], one)
    torch.testing.assert_close(deaf[2], two)
    assert not torch.allclose(again, two, atol=1e-4)


def test_outputs_stay_within_four_deviations():
    _, net, x = ready()
    assert all((out.abs() <= 4.0).all() for out in net(1e4 * x))


@pytest.mark.parametrize("rounds", [0.0, 20.0])
def test_losses_of_both_sides(rounds):
    detector, net, x = ready(meta_rate=0.0, epsilon=1.05)
    net.rounds.fill_(rounds)
    w = math.exp(-math.log(1.05) * rounds)
    one, two, again = (norm(out, x) for out in net(x))
    torch.testing.assert_close(detector.first_loss(net, Batch(x)), w * one + (1 - w) * again, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(detector.second_loss(net, Batch(x)), w * two - (1 - w) * again, atol=1e-5, rtol=1e-5)
    assert [p.modules for p in detector.phases(net)] == [("encoder", "first"), ("encoder", "second")]


def test_loss_and_score_of_the_program():
    detector, net, x = ready(objective="code", score="code")
    net.rounds.fill_(3.5)
    one, _, again = net(x)
    expected = 0.25 * (one - x)[:, -1].square().mean() + 0.75 * (again - x)[:, -1].square().mean()
    torch.testing.assert_close(detector.code_loss(net, Batch(x)), expected)
    assert [p.name for p in detector.phases(net)] == ["loss"]
    torch.testing.assert_close(detector.score_batch(net, Batch(x)), (again - x).square().mean(2))
    torch.testing.assert_close(detector.reconstruct(net, Batch(x)), again)


def test_score_of_the_paper():
    detector, net, x = ready()
    one, _, again = net(x)
    expected = 0.5 * (one - x).square() + 0.5 * (again - x).square()
    torch.testing.assert_close(detector.score_batch(net, Batch(x)), expected.mean(2))
    torch.testing.assert_close(detector.error_map(net, Batch(x)), expected)
    torch.testing.assert_close(detector.reconstruct(net, Batch(x)), one)


def test_the_loss_is_taken_after_a_trial_step():
    detector, net, x = ready(meta_rate=0.05)
    plain, _, _ = ready(meta_rate=0.0)
    before = plain.first_loss(net, Batch(x))
    after = detector.first_loss(net, Batch(x))
    assert after < before
    moved = dict(net.named_parameters())
    names = [name for name in moved if name.startswith(("encoder", "first"))]
    gradients = torch.autograd.grad(before, [moved[name] for name in names])
    after.backward()
    trial = [p.grad.clone() for p in (moved[name] for name in names)]
    with torch.no_grad():
        for name, gradient in zip(names, gradients, strict=True):
            moved[name] -= 0.05 * gradient
    stepped = plain.first_loss(net, Batch(x))
    torch.testing.assert_close(stepped, after)
    # First order: the gradient is the one at the place of the trial.
    for got, expected in zip(trial, torch.autograd.grad(stepped, [moved[name] for name in names]), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-4)


def test_rounds_are_counted_and_weights_fall():
    detector, net, x = ready(epsilon=2.0)
    assert detector.weight(net).item() == 1.0
    for _ in range(21):
        detector.after_step(net, Batch(x))
    assert detector.weight(net).item() == pytest.approx(0.25)


def test_missing_values_take_no_part():
    detector, net, x = ready()
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:, :, 1] = False
    gap = x * mask
    one, _, again = net(gap, mask)
    expected = (0.5 * (one - gap).square() + 0.5 * (again - gap).square())[..., [0, 2]].mean(2)
    torch.testing.assert_close(detector.score_batch(net, Batch(gap, mask)), expected)
    assert (detector.error_map(net, Batch(gap, mask))[..., 1] == 0).all()


def test_scores_name_step_and_channel_and_survive_saving(tmp_path):
    series = waves()
    detector = TranAD(training=Training(updates=50, lr=1e-2, batch_size=32)).fit(series)
    restored = detector.restore(series)
    assert np.square(restored - series).mean() < 0.3 * series.var()
    other = series.copy()
    other[400, 1] += 5
    found = detector.detect(other)
    assert found.scores.argmax() == 400
    assert found.maps[400].argmax() == 1
    assert np.array_equal(genad.load(detector.save(tmp_path / "m")).anomaly_score(other), found.scores)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"width": 0}, "width: 0"),
        ({"width": 10}, "width: 10 was given; use a multiple of heads=4"),
        ({"inner": 1.5}, "inner: 1.5"),
        ({"dropout": 1.0}, "dropout: 1.0"),
        ({"epsilon": 0.9}, "epsilon: 0.9"),
        ({"meta_rate": -1}, "meta_rate: -1"),
        ({"objective": "both"}, "objective: 'both'"),
        ({"score": "both"}, "score: 'both'"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        TranAD(**params).fit(waves(100))


@pytest.mark.data
def test_floor_on_a_real_series(data_dir):
    # An easy recording, which a plain baseline also finds: the floor guards against breakage.
    table = pd.read_parquet(data_dir / "series" / "skab.parquet")
    one = table[table.file.astype(str) == "other/6"]
    columns = [name for name in table.columns if name not in {"file", "datetime", "anomaly", "changepoint"}]
    X, y = one[columns].to_numpy(float), one.anomaly.to_numpy()
    scores = TranAD(meta_rate=0.0, training=Training(updates=50)).fit(X[:400]).anomaly_score(X[400:])
    assert roc_auc_score(y[400:], scores) > 0.85
