from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Training, as_series
from genad.data.samples import Batch
from genad.errors import InputError
from genad.reconstruction.vae.mace import MACE, MACENet, PowerMean, fourier

# short series leave few steps to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


def test_power_mean_equals_its_formula_and_follows_the_largest_value():
    torch.manual_seed(0)
    peak = PowerMean(2, 3, 3, power=7, shift=5.0, stride=2)
    x = torch.randn(4, 2, 9)
    weight = peak.raw.flatten(1).softmax(1).view(3, 2, 3).double()
    padded = torch.cat([x[..., :1], x, x[..., -1:]], 2).double()
    got = peak(x)
    assert got.shape == (4, 3, 5)
    for t in range(5):
        under = padded[..., 2 * t : 2 * t + 3] + 5.0
        expected = torch.einsum("oik,bik->bo", weight, under**7) ** (1 / 7) - 5.0
        torch.testing.assert_close(got[..., t].double(), expected, atol=1e-4, rtol=1e-4)


def test_peaks_widen_and_valleys_deepen():
    peak = PowerMean(1, 1, 3, power=7, shift=5.0)
    x = torch.zeros(1, 1, 9)
    x[..., 4] = 4.0
    assert peak(x)[0, 0, 3] > 4.0 / 3  # above the plain mean under a kernel of three
    assert -peak(-x)[0, 0, 3] < 4.0 / 3
    # a value beyond the shift keeps its sign, and the root its slope
    deep = torch.full((1, 1, 9), -5.0, requires_grad=True)
    peak(deep).sum().backward()
    assert torch.isfinite(deep.grad).all()
    assert float(peak(torch.full((1, 1, 9), -8.0)).max().detach()) == pytest.approx(-8.0, abs=1e-3)


def waves(n=600):
    """Return two services that differ in frequency alone: periods of 20 and of 8 steps."""
    t = np.arange(n)
    rng = np.random.default_rng(0)
    both = np.r_[np.sin(2 * np.pi * t / 20), np.sin(2 * np.pi * t / 8)] + 0.05 * rng.normal(size=2 * n)
    return both, np.repeat(["slow", "fast"], n)


def test_each_service_gets_its_own_frequencies_from_its_normal_windows():
    net = MACENet((40, 1), 1, 2, 3, 7, 5.0)
    t = torch.arange(40) * 2 * torch.pi
    slow, fast = (torch.sin(t / period + torch.rand(30, 1))[..., None] for period in (20, 8))
    net.learn_bases(Batch(torch.cat([slow, 2 * fast]), group=torch.tensor([7] * 30 + [3] * 30)))
    assert net.known.tolist() == [3, 7]
    # a window of 40 steps holds 5 periods of the fast one and 2 of the slow one; together the louder one wins
    for place, frequency in enumerate((5, 2, 5)):
        torch.testing.assert_close(net.basis[place], fourier(40, [frequency]))
    basis, _ = net.of(Batch(slow[:3], group=torch.tensor([7, 3, 99])))
    torch.testing.assert_close(basis, net.basis[[1, 0, 2]])
    torch.testing.assert_close(net.of(Batch(slow[:3]))[0], net.basis[2:])


def test_the_spectrum_is_sparse_so_other_frequencies_cannot_come_back():
    net = MACENet((40, 2), 3, 2, 3, 7, 5.0)
    assert net.basis.shape[2] == 6
    (_, made), _ = net(Batch(torch.randn(5, 40, 2)))
    spectrum = torch.fft.rfft(made, dim=1).abs()
    assert spectrum[:, 3:].max() < 1e-3
    assert spectrum[:, :3].max() > 1e-2
    # no more frequencies than there are
    assert MACENet((6, 1), 10, 2, 3, 7, 5.0).bases == 4


def test_loss_compares_with_what_was_amplified_and_does_not_move_it():
    torch.manual_seed(0)
    net, detector = MACENet((16, 2), 4, 3, 3, 7, 5.0), MACE()
    batch = Batch(torch.randn(5, 16, 2))
    errors = [(made - amplified).square().mean() for amplified, made in net(batch)]
    loss = detector.loss(net, batch)
    torch.testing.assert_close(loss, errors[0] + errors[1])
    loss.backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    worse = torch.maximum(*[(made - amplified).square() for amplified, made in net(batch)])
    torch.testing.assert_close(detector.score_batch(net, batch), worse.mean(-1))


def test_a_window_normal_for_another_service_is_an_anomaly(tmp_path):
    values, service = waves()
    training = Training(updates=150)
    detector = MACE(bases=3, training=training).fit(as_series(values, entity=service))
    assert len(detector.net_.known) == 2
    other = values.copy()
    other[300:360] = values[900:960]
    found = detector.anomaly_score(as_series(other, entity=service))
    assert found[310:350].min() > np.quantile(found[600:], 0.99)
    again = genad.load(detector.save(tmp_path / "m"))
    assert np.array_equal(again.anomaly_score(as_series(other, entity=service)), found)
    # as its own service the same stretch is as usual; as an unknown one it can be judged
    usual = detector.anomaly_score(as_series(values[900:960], entity=["fast"] * 60))
    assert usual.max() < found[310:350].min()
    assert np.isfinite(detector.anomaly_score(as_series(values[900:960], entity=["new"] * 60))).all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"bases": 0}, "bases: 0"),
        ({"width": 1.5}, "width: 1.5"),
        ({"power": 6}, "power: 6 was given; use an odd number"),
        ({"power": 1}, "power: 1"),
        ({"kernel": 4}, "kernel: 4 was given; use an odd number"),
        ({"shift": 0.0}, "shift: 0.0"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        MACE(**params).fit(np.arange(100.0))


@pytest.mark.data
def test_floor_on_a_real_series(data_dir):
    # the floor guards against breakage; how the method compares is in its docstring
    pd = pytest.importorskip("pandas")
    table = pd.read_parquet(data_dir / "series" / "skab.parquet")
    ignored = {"file", "datetime", "anomaly", "changepoint"}
    one = table[table.file.astype(str) == "other/10"]
    X, y = one[[c for c in table.columns if c not in ignored]].to_numpy(float), one.anomaly.to_numpy()
    detector = MACE(training=Training(updates=100)).fit(X[:400])
    assert roc_auc_score(y[400:], detector.anomaly_score(X[400:])) > 0.8
