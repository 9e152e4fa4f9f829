from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad.errors import InputError
from genad.reconstruction.autoencoder.dbls_ae import BroadDenoisingEnsemble, corrupt_windows

pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


def series_of(n=900, seed=0, channels=2):
    t = np.arange(n)[:, None] / 5 + np.arange(channels)
    return np.sin(t) + 0.05 * np.random.default_rng(seed).normal(size=(n, channels))


def fit(**params):
    return BroadDenoisingEnsemble(**({"members": 3, "enhancement": 60} | params)).fit(series_of())


def test_corruption_adds_noise_to_all_and_defects_to_three_in_ten():
    x = torch.sin(torch.arange(40.0)).repeat(4000, 1)[..., None].repeat(1, 1, 2)
    changed = corrupt_windows(x, 2.0, torch.Generator().manual_seed(0)) - x
    assert float((changed != 0).float().mean()) > 0.99
    # four in five defects show: those that add an amplitude, gaps, and scaled values, all far beyond noise of 0.04
    hit = (changed.abs() > 0.25).flatten(1).any(1)
    assert 0.2 < float(hit.float().mean()) < 0.32
    clean = changed[~hit]
    assert float(clean.std()) == pytest.approx(0.04, rel=0.1)
    # one channel at a time
    both = (changed.abs() > 0.25).any(1).all(1)
    assert not both.any()


def test_corruption_of_level_0_is_none_and_grows_with_the_level():
    x = torch.randn(500, 20, 1)
    generator = torch.Generator()
    assert corrupt_windows(x, 0.0, generator) is x
    sizes = [float((corrupt_windows(x, m, generator.manual_seed(1)) - x).square().mean()) for m in (1.0, 2.0, 5.0)]
    assert sizes[0] < sizes[1] < sizes[2]


def test_later_members_were_taught_on_stronger_corruption(monkeypatch):
    from genad.reconstruction.autoencoder import dbls_ae

    levels = []

    def note(x, level, generator):
        levels.append(level)
        return corrupt_windows(x, level, generator)

    monkeypatch.setattr(dbls_ae, "corrupt_windows", note)
    fit(noise_level=0.5)
    # once on the training windows, once on those held out
    assert levels == [0.5, 1.0, 1.5, 0.5, 1.0, 1.5]


def test_denoising_members_restore_a_corrupted_window_better_than_those_taught_clean():
    t = torch.arange(600.0)[:, None] / 5
    windows = torch.sin(torch.cat([t, t + 1], 1)).unfold(0, 24, 1).transpose(1, 2)
    noisy = windows + 0.3 * torch.randn(windows.shape, generator=torch.Generator().manual_seed(0))
    error = {}
    for level in (0.0, 4.0):
        net = fit(noise_level=level, members=1).net_
        scale = np.sqrt(0.5)
        with torch.no_grad():
            error[level] = float((net(noisy.float() / scale)[0] * scale - windows).square().mean())
    assert error[4.0] < error[0.0]
    assert error[4.0] < 0.05


def test_enhancement_nodes_come_in_blocks_while_they_help(monkeypatch):
    from genad.reconstruction.autoencoder import dbls_ae

    def nodes():
        return fit(members=1, enhancement=120).net_.members[0].enhance.shape[1]

    # every block is worth it: two of them and the rest of what is allowed
    monkeypatch.setattr(dbls_ae, "_WORTH", 0.0)
    assert nodes() == 120
    # no block lowers the error that much, so the first is the last
    monkeypatch.setattr(dbls_ae, "_WORTH", 0.99)
    assert nodes() == 50


def test_held_out_windows_are_learnt_after_they_were_scored():
    detector = fit(members=1)
    net = detector.net_.members[0]
    assert int(net.count) == (720 - 24 + 1) + (180 - 24 + 1)
    assert len(detector.calibration_scores_) == 180


def test_the_score_is_the_mean_of_the_members_standardised_residuals():
    detector = fit()
    net = detector.net_
    batch = detector._ingest(series_of(seed=3), reset=False).samples.stretch(0, 50)
    with torch.no_grad():
        rms = (batch.x - net(batch.x)).square().mean((2, 3)).sqrt()
        expected = ((rms - net.centre[:, None]) / net.scale[:, None]).mean(0)
        torch.testing.assert_close(detector.score_batch(net, batch), expected)
    train = detector._ingest(series_of(), reset=False).samples.stretch(0, 697)
    with torch.no_grad():
        # close to 0 and not at it: the held-out end was learnt on top
        assert abs(float(detector.score_batch(net, train).mean())) < 0.2


def test_windows_narrow_with_the_number_of_channels():
    lengths = [
        BroadDenoisingEnsemble(members=1, enhancement=5).fit(series_of(400, channels=c)).adapter_.length
        for c in (1, 2, 5)
    ]
    assert lengths == [48, 24, 16]


def test_nothing_random_is_left_after_the_seed_and_files_score_alike(tmp_path):
    X = series_of(300, 4)
    one, other = fit(), fit()
    np.testing.assert_array_equal(one.anomaly_score(X), other.anomaly_score(X))
    assert not np.array_equal(fit(random_state=1).anomaly_score(X), one.anomaly_score(X))
    again = genad.load(one.save(tmp_path / "m"))
    np.testing.assert_array_equal(again.anomaly_score(X), one.anomaly_score(X))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"members": 0}, "members: 0"),
        ({"enhancement": 0}, "enhancement: 0"),
        ({"ridge": 0.0}, "ridge: 0.0"),
        ({"noise_level": -1.0}, "noise_level: -1.0"),
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
    assert roc_auc_score(y[400:], BroadDenoisingEnsemble(members=2).fit(X[:400]).anomaly_score(X[400:])) > 0.8
