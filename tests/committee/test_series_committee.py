"""The committee of series: windows of several lengths, joined by a soft maximum."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import roc_auc_score

from genad import SeriesCommittee, Training, load
from genad.committee.series_committee import shorter
from genad.data.samples import WindowSamples
from genad.errors import InputError

QUICK = Training(updates=100)


def wave(n=1500, seed=0):
    t = np.arange(n)
    rng = np.random.default_rng(seed)
    return np.c_[np.sin(t / 7.0), np.cos(t / 7.0)] + 0.05 * rng.normal(size=(n, 2))


def test_shorter_windows_cover_the_same_stretches():
    x = torch.zeros(40, 1)
    starts = torch.tensor([0, 1, 2, 20, 21])
    found = shorter(WindowSamples(x, starts, 8), 5)
    assert found.length == 5
    # Stretches of steps 0 to 9 and 20 to 28 hold windows of 5 from 0 to 5 and from 20 to 24.
    assert found.starts.tolist() == [0, 1, 2, 3, 4, 5, 20, 21, 22, 23, 24]


def test_the_score_is_the_soft_maximum_of_standardised_logarithms():
    detector = SeriesCommittee(training=QUICK).fit(wave())
    test = wave(400, seed=1)
    samples = detector._ingest(test, reset=False).samples
    net = detector.net_
    z = []
    for k, answer in enumerate(detector._members_say(samples)):
        logs = np.log(answer.scores + float(net.level[k]))
        z.append((logs - float(net.centre[k])) / float(net.spread[k]))
    expected = 2 * np.log(np.exp(np.array(z) / 2).sum(0))
    np.testing.assert_allclose(detector.anomaly_score(test), expected, rtol=1e-9)


def test_members_are_standardised_on_the_held_out_steps():
    detector = SeriesCommittee(training=QUICK).fit(wave())
    # Three standardised members under a soft maximum have a typical score of 2 log 3 on held-out steps.
    assert np.median(detector.calibration_scores_) == pytest.approx(2 * np.log(3), abs=0.6)


def test_held_out_steps_are_learnt_from_after_they_were_scored():
    class Forgetful(SeriesCommittee):
        def absorb(self, net, samples):
            pass

    series = wave()
    detector, without = SeriesCommittee(training=QUICK).fit(series), Forgetful(training=QUICK).fit(series)
    linear, memory, _ = detector.net_.members
    assert len(memory.bank.rows) == len(series) > len(without.net_.members[1].bank.rows)
    assert not np.array_equal(linear.mean, linear.earlier.mean)
    np.testing.assert_array_equal(detector.calibration_scores_, without.calibration_scores_)


@pytest.mark.parametrize("kind", ["value", "rhythm", "relation"])
def test_each_kind_of_anomaly_is_found(kind):
    detector = SeriesCommittee(training=QUICK).fit(wave())
    test = wave(600, seed=2)
    t = np.arange(300, 340)
    if kind == "value":
        test[300:340] += 1.5
    elif kind == "rhythm":
        test[300:340] = np.c_[np.sin(t / 2.0), np.cos(t / 2.0)]
    else:
        test[300:340, 1] = test[300:340, 0]
    scores = detector.anomaly_score(test)
    assert 300 - 64 < np.argmax(scores) < 340 + 64
    assert scores[300:340].mean() > np.quantile(scores[:200], 0.99)


def test_it_survives_saving(tmp_path):
    detector = SeriesCommittee(training=QUICK).fit(wave())
    again = load(detector.save(tmp_path / "m.genad"))
    test = wave(300, seed=3)
    assert again.anomaly_score(test).tobytes() == detector.anomaly_score(test).tobytes()
    np.testing.assert_array_equal(again.restore(test), detector.restore(test))


def test_unusable_parameters_are_named():
    with pytest.raises(InputError, match="shape_window"):
        SeriesCommittee(shape_window=1).fit(wave())


@pytest.mark.filterwarnings("ignore::genad.errors.GenadWarning")
@pytest.mark.parametrize(("file", "floor"), [("other/4", 0.9), ("valve2/0", 0.65)])
def test_floor_on_a_real_series(data_dir, file, floor):
    table = pq.read_table(data_dir / "series" / "skab.parquet").to_pandas()
    rows = table[table["file"].astype(str).str.contains(file)]
    assert len(rows) > 500
    values = rows.drop(columns=["file", "datetime", "anomaly", "changepoint"]).to_numpy(float)
    y = rows["anomaly"].to_numpy()[400:]
    found = []
    for seed in range(2):
        detector = SeriesCommittee(random_state=seed).fit(values[:400])
        found.append(roc_auc_score(y, detector.anomaly_score(values[400:])))
    assert np.mean(found) > floor
