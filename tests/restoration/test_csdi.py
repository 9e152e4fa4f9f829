from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn.hiding import straight_line
from genad.restoration.csdi import CSDIRestorer
from genad.restoration.draws import quantile

# short series leave few steps to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


def ready(shape=(12, 3), **params):
    torch.manual_seed(0)
    detector = CSDIRestorer(**{"width": 8, "heads": 2, "draws": 6, "span": 3, **params})
    net = detector.build(shape).eval()
    # Untrained, the network says 0 whatever it sees.
    torch.nn.init.normal_(net.output[-1].weight)
    return detector, net, torch.randn(4, *shape)


def noise(n=600):
    return np.random.default_rng(0).normal(size=(n, 2))


def test_the_schedule_is_quadratic():
    _, net, _ = ready()
    expected = torch.linspace(1e-4**0.5, 0.5**0.5, 50, dtype=torch.float64) ** 2
    torch.testing.assert_close(net.schedule.beta, expected.float())


def test_noise_enters_where_nothing_is_seen_and_the_mask_is_told():
    _, net, x = ready()
    seen = torch.rand_like(x) > 0.5
    noised, t = torch.randn_like(x), torch.tensor([0, 10, 30, 49])
    found = net(x, noised, seen, t)
    torch.testing.assert_close(net(x, torch.where(seen, 77.0, noised), seen, t), found)
    assert not torch.allclose(net(x, torch.where(seen, noised, 77.0), seen, t), found)
    assert not torch.allclose(net(x, noised, ~seen, t), found)


@pytest.mark.parametrize(("cell", "told"), [((2, 1), (9, 1)), ((2, 1), (2, 0)), ((2, 1), (9, 2))])
def test_a_cell_is_told_of_other_steps_and_other_channels(cell, told):
    _, net, x = ready()
    seen = torch.ones_like(x, dtype=torch.bool)
    seen[:, cell[0], cell[1]] = False
    t = torch.full((4,), 20)
    before = net(x, torch.zeros_like(x), seen, t)[:, cell[0], cell[1]]
    x[:, told[0], told[1]] += 3
    assert (net(x, torch.zeros_like(x), seen, t)[:, cell[0], cell[1]] - before).abs().min() > 1e-6


def test_draws_keep_what_is_seen_and_differ_where_it_is_not():
    _, net, x = ready()
    seen = torch.rand_like(x) > 0.5
    draws = net.sample(x, seen, net.bank, 5)
    assert draws.shape == (6, 4, 12, 3)
    assert (draws[:, seen] == x[seen]).all()
    assert (draws[:, ~seen].std(0) > 0).all()
    torch.testing.assert_close(net.sample(x[1:2], seen[1:2], net.bank, 5), draws[:, 1:2], atol=1e-4, rtol=1e-4)
    # Nothing of what is hidden gets in.
    assert torch.equal(net.sample(torch.where(seen, x, 99.0), seen, net.bank, 5), draws)


def test_the_chain_is_nearly_exact_for_a_network_that_knows_the_answer():
    _, net, x = ready()
    net.scale.uniform_(0.5, 2.0)
    seen = torch.rand_like(x) > 0.3
    line, size = straight_line(x, seen), net.usual_size(seen)

    def knows(given, noised, known, t):
        torch.testing.assert_close(given, line.repeat(len(noised) // 4, 1, 1))
        rest, kept = ((x - line) / size).repeat(len(noised) // 4, 1, 1), net.schedule.alpha_bar(t, noised)
        noise = (noised - kept.sqrt() * rest) / (1 - kept).sqrt()
        return kept.sqrt() * noise - (1 - kept).sqrt() * rest

    net.forward = knows
    hidden = torch.where(seen, x, 99.0)
    errors = [(net.sample(hidden, seen, net.bank[:2], strides) - x).abs().max() for strides in (2, 12)]
    assert errors[1] < 0.02 < errors[0]


def test_untrained_draws_have_the_usual_distances_from_the_line():
    _, net, x = ready(draws=400)
    torch.nn.init.zeros_(net.output[-1].weight)
    net.scale.uniform_(0.5, 2.0)
    seen = torch.rand_like(x) > 0.5
    draws = net.sample(x, seen, net.bank, 3)
    torch.testing.assert_close(draws.mean(0), straight_line(x, seen), atol=1e-4, rtol=0)
    assert ((draws.std(0) / net.usual_size(seen))[~seen] - 1).abs().max() < 0.2


def test_loss_counts_what_was_hidden_and_observed_alone():
    detector, net, x = ready()
    mask = torch.rand_like(x) > 0.3
    calls = []
    forward = net.forward
    net.forward = lambda *inputs: calls.append(inputs) or forward(*inputs)
    net.scale.uniform_(0.5, 2.0)
    torch.manual_seed(3)
    loss = detector.loss(net, Batch(x * mask, mask))
    given, noised, seen, t = calls[0]
    assert not (seen & ~mask).any()
    target = mask & ~seen
    torch.testing.assert_close(given, straight_line(x * mask, seen))
    rest, kept = (x - given) * mask / net.usual_size(seen), net.schedule.alpha_bar(t, x)
    noise = (noised - kept.sqrt() * rest) / (1 - kept).sqrt()
    velocity = kept.sqrt() * noise - (1 - kept).sqrt() * rest
    expected = ((1 - kept) * (forward(*calls[0]) - velocity).square())[target].mean()
    torch.testing.assert_close(loss, expected, rtol=1e-2, atol=1e-3)
    assert detector.loss(net, Batch(torch.zeros_like(x), torch.zeros_like(mask))) == 0


def test_median_quantiles_and_spread_are_those_of_the_draws():
    detector, net, x = ready(strides=5)
    seen = torch.rand_like(x) > 0.5
    draws = net.sample(x, seen, net.bank, 5)
    middle, spread = detector.impute(net, x, seen, judging=False)
    torch.testing.assert_close(middle, draws.quantile(0.5, 0))
    torch.testing.assert_close(spread, (quantile(draws, 0.75) - quantile(draws, 0.25)) / 1.349, rtol=1e-3, atol=1e-6)
    net.widen.fill_(3.0)
    detector._level = 0.8
    upper, wide = detector.impute(net, x, seen, judging=False)
    torch.testing.assert_close(wide, 3 * spread)
    torch.testing.assert_close(upper - middle, 3 * (quantile(draws, 0.8) - middle), atol=1e-5, rtol=1e-4)
    # Scores take few draws and strides, and know nothing of intervals.
    quick, _ = detector.impute(net, x, seen, judging=True)
    torch.testing.assert_close(quick, net.sample(x, seen, net.bank[:2], 3).quantile(0.5, 0))
    net.usual.fill_(0.6)
    assert detector.unit(net, torch.tensor([0.1, 5.0, 0.2])).tolist() == pytest.approx([0.3, 5.0, 0.3])


@pytest.mark.parametrize("shape", [(32, 1), (32, 10), (32, 38), (100, 200)])
def test_passes_are_small_and_divide_the_blocks_of_a_score(shape):
    detector, cpu = CSDIRestorer(), torch.device("cpu")
    detector.device_ = "cpu"
    block, rows = detector._block(shape), detector._at_once(shape, detector.judges, cpu)
    assert block % 16 == 0
    assert max(block, rows) % min(block, rows) == 0
    # A window is the least that can be passed.
    assert rows == 1 or rows * detector.judges * detector.width * np.prod(shape) <= 2**18
    assert detector._at_once(shape, detector.draws, cpu) <= rows


def test_scores_and_restorations_are_the_same_however_many_windows_pass_at_once(fitted, monkeypatch):
    series = noise(80)
    gaps = series.copy()
    gaps[30:50, 0] = np.nan
    scores, restored = fitted.anomaly_score(series), fitted.restore(gaps)
    for cache in (1, 2**22):
        monkeypatch.setattr("genad.restoration.csdi._CACHE", cache)
        np.testing.assert_allclose(fitted.anomaly_score(series), scores, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(fitted.restore(gaps), restored, rtol=1e-5, atol=1e-5)


def test_wide_windows_come_in_small_batches_unless_a_size_was_asked_for():
    plain = CSDIRestorer()
    assert [plain._training_for((32, c)).batch_size for c in (1, 8, 40)] == [16, 8, 2]
    assert CSDIRestorer(training=Training(batch_size=20))._training_for((32, 40)).batch_size == 20


@pytest.fixture(scope="module")
def fitted():
    training = Training(updates=150, lr=6e-3)
    return CSDIRestorer(window=16, span=4, width=16, heads=2, draws=10, training=training).fit(noise())


def test_spans_are_filled_better_than_by_a_straight_line(fitted, tmp_path):
    # Between values that hang together by nothing the mean is best, which has to be learnt.
    series = np.random.default_rng(1).normal(size=(120, 2))
    gaps = series.copy()
    gaps[30:38] = np.nan
    gaps[70:80, 0] = np.nan
    gaps[20:26, 1] = np.nan
    gaps[90:98, 1] = np.nan
    hidden = np.isnan(gaps)
    restored = fitted.restore(gaps)
    line = pd.DataFrame(gaps).interpolate().to_numpy()
    assert np.square(restored - series)[hidden].mean() < 0.8 * np.square(line - series)[hidden].mean()
    # All but false alarms come back as they were.
    kept = np.isclose(restored, series, atol=1e-5) & ~hidden
    assert kept.sum() > 0.85 * (~hidden).sum()
    again = genad.load(fitted.save(tmp_path / "m"))
    assert np.array_equal(again.restore(gaps), restored)
    low, high = fitted.interval(gaps, 0.8)
    assert (low <= restored + 1e-6).all()
    assert (restored <= high + 1e-6).all()
    assert 0.6 < ((low <= series) & (series <= high))[hidden].mean() < 0.97
    np.testing.assert_allclose((high - low)[kept], 0.0, atol=1e-5)
    with pytest.raises(InputError, match=r"coverage: 1.0 was given"):
        fitted.interval(gaps, 1.0)


def test_an_anomaly_is_named_and_taken_out(fitted):
    series = noise()
    other = series.copy()
    other[400:404] += 8
    found = fitted.detect(other)
    assert 400 <= found.scores.argmax() < 404
    assert np.abs(found.restored[400:404] - series[400:404]).mean() < 0.3 * 8


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"width": 9}, "width: 9 was given; use a multiple of heads=4"),
        ({"layers": 0}, "layers: 0"),
        ({"draws": 1}, "draws: 1"),
        ({"judges": 30}, "judges: 30 was given; use at most as many as draws=20"),
        ({"strides": 0}, "strides: 0"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        CSDIRestorer(**params).fit(noise(100))


@pytest.mark.data
def test_floor_on_a_real_series(data_dir):
    # An easy recording, which a plain baseline also finds: the floor guards against breakage.
    table = pd.read_parquet(data_dir / "series" / "skab.parquet")
    one = table[table.file.astype(str) == "other/6"]
    columns = [name for name in table.columns if name not in {"file", "datetime", "anomaly", "changepoint"}]
    X, y = one[columns].to_numpy(float), one.anomaly.to_numpy()
    scores = (
        CSDIRestorer(window=16, span=4, width=8, heads=2, layers=1, draws=2, training=Training(updates=40))
        .fit(X[:400])
        .anomaly_score(X[400:])
    )
    assert roc_auc_score(y[400:], scores) > 0.65
