from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn.contrastive import nt_xent
from genad.reconstruction.gan.contrastive_gan_mts import ContrastiveGANMTS, ContrastiveGANNet

# short series leave few steps to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


@pytest.fixture
def net():
    torch.manual_seed(0)
    return ContrastiveGANNet((12, 2), 16, 4, 32, 1, 0.0)


@pytest.fixture(scope="module")
def series():
    t = np.arange(500)
    return np.c_[np.sin(t / 3), np.cos(t / 3)] + 0.05 * np.random.default_rng(0).normal(size=(500, 2))


@pytest.fixture(scope="module")
def fitted(series):
    return ContrastiveGANMTS(window=12, width=16, training=Training(updates=50)).fit(series)


def _batch(n=6):
    return Batch(torch.randn(n, 12, 2, generator=torch.Generator().manual_seed(1)))


def test_the_decoder_sees_codes_and_no_values(net):
    x = _batch().x
    made = net.generator(x)
    assert made.shape == x.shape
    # codes that say nothing give the same window, whatever the values were
    net.generator.encode.forward = torch.zeros_like
    silent = net.generator(x)
    torch.testing.assert_close(silent, silent[:1].expand_as(silent))
    assert not torch.allclose(made, silent)


def test_a_change_at_any_step_can_show_at_any_other(net):
    x = _batch(1).x.requires_grad_()
    (slope,) = torch.autograd.grad(net.generator(x)[0, 6, 0], x)
    assert (slope[0].abs().sum(1) > 0).all()


def test_the_discriminator_has_two_heads_on_one_body(net):
    x = _batch().x
    features = net.discriminator.features(x)
    torch.testing.assert_close(net.discriminator(x), net.discriminator.judge(features).squeeze(-1))
    torch.testing.assert_close(net.discriminator.view(x), net.discriminator.project(features))
    assert net.discriminator.view(x).shape == (6, 8)


def test_views_hide_the_share_asked_for_and_change_nothing_else():
    batch = Batch(torch.randn(200, 12, 2) + 5)
    torch.manual_seed(0)
    view = ContrastiveGANMTS(mask_share=0.3).masked(batch)
    hidden = view == 0
    assert float(hidden.float().mean()) == pytest.approx(0.3, abs=0.03)
    assert torch.equal(view[~hidden], batch.x[~hidden])


def test_losses_are_what_the_method_says(net):
    batch, detector = _batch(), ContrastiveGANMTS(adversarial_weight=0.2, contrastive_weight=0.3, temperature=0.5)
    torch.manual_seed(4)
    view, other = detector.masked(batch), detector.masked(batch)
    assert not torch.equal(view, other)
    made = net.generator(view)
    real, fake = torch.sigmoid(net.discriminator(batch.x)), torch.sigmoid(net.discriminator(made))
    apart = nt_xent(net.discriminator.view(view), net.discriminator.view(other), 0.5)
    torch.manual_seed(4)
    loss = detector.discriminator_loss(net, batch)
    torch.testing.assert_close(loss, -real.log().mean() - (1 - fake).log().mean() + 0.3 * apart)
    torch.manual_seed(4)
    expected = (made - batch.x).square().mean() - 0.2 * fake.log().mean()
    torch.testing.assert_close(detector.generator_loss(net, batch), expected)


def test_the_contrast_does_not_reach_the_generator(net):
    ContrastiveGANMTS(contrastive_weight=100.0).discriminator_loss(net, _batch()).backward()
    assert all(p.grad is None for p in net.generator.parameters())
    assert net.discriminator.project[0].weight.grad.abs().sum() > 0
    discriminator, generator = ContrastiveGANMTS().phases(net)
    assert (discriminator.modules, generator.modules) == (("discriminator",), ("generator",))


def test_nothing_is_masked_in_a_score(net):
    batch = _batch()
    error = (net.generator(batch.x) - batch.x).square()
    for seed in (0, 1):
        torch.manual_seed(seed)
        found = ContrastiveGANMTS().infer(net, batch, frozenset({"map"}))
        torch.testing.assert_close(found.score, error.mean(2))
        torch.testing.assert_close(found.map, error)


def test_missing_values_do_not_count(net):
    x = _batch().x
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:, 3, 1] = False
    batch = Batch(x * mask, mask)
    found = ContrastiveGANMTS().infer(net, batch, frozenset({"map"}))
    assert (found.map[:, 3, 1] == 0).all()
    torch.testing.assert_close(found.score[:, 3], found.map[:, 3, 0])


def test_anomalies_score_high_and_scores_survive_saving(fitted, series, tmp_path):
    other = series.copy()
    other[300:306] = 3.0
    scores = fitted.anomaly_score(other)
    assert scores[300:306].min() > 3 * np.median(scores[:250])
    assert np.array_equal(genad.load(fitted.save(tmp_path / "m")).anomaly_score(other), scores)
    history = fitted.training_report_.history["generator"]
    assert history[-1] < 0.8 * history[0]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"width": 0}, "width: 0"),
        ({"width": 30}, "multiple of heads=4"),
        ({"heads": 0}, "heads: 0"),
        ({"inner": 0}, "inner: 0"),
        ({"layers": 0}, "layers: 0"),
        ({"dropout": 1.0}, "dropout: 1.0"),
        ({"mask_share": 0.0}, "mask_share: 0.0"),
        ({"mask_share": 0.8}, "use at most 0.75"),
        ({"mask_length": 0.5}, "mask_length: 0.5"),
        ({"adversarial_weight": -1}, "adversarial_weight: -1"),
        ({"contrastive_weight": -1}, "contrastive_weight: -1"),
        ({"temperature": 0}, "temperature: 0"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        ContrastiveGANMTS(**params).fit(np.arange(100.0))


@pytest.mark.data
def test_floor_on_a_real_series(data_dir):
    pd = pytest.importorskip("pandas")
    table = pd.read_parquet(data_dir / "series" / "skab.parquet")
    ignored = {"file", "datetime", "anomaly", "changepoint"}
    columns = [name for name in table.columns if name not in ignored]
    one = table[table.file.astype(str) == "other/4"]
    X, y = one[columns].to_numpy(float), one.anomaly.to_numpy()
    detector = ContrastiveGANMTS(window=16, training=Training(updates=40)).fit(X[:400])
    assert roc_auc_score(y[400:], detector.anomaly_score(X[400:])) > 0.8
