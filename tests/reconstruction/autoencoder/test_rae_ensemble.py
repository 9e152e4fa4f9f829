from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn import SparseSkipRNN
from genad.reconstruction.autoencoder.rae_ensemble import (
    RecurrentAEEnsemble,
    RecurrentEnsembleNet,
    UnrolledSkipRNN,
    middle,
)

QUICK = Training(updates=60)

# short series leave few steps to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


def net_of(members=3, shape=(12, 2), cell="rnn", *, shared=False):
    torch.manual_seed(0)
    return RecurrentEnsembleNet(shape, members, 4, cell, shared=shared)


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_unrolling_equals_the_cell_of_the_library(cell):
    torch.manual_seed(0)
    net = UnrolledSkipRNN(5, 2, 4, 15, cell=cell)
    x = torch.randn(3, 15, 2)
    start = torch.zeros(5, 3, net.state_size)
    _, state = net.unroll(net.input_gates(x.unsqueeze(0)), start, 15)
    assert torch.equal(state, SparseSkipRNN.forward(net, x)[1])


def test_the_decoder_is_fed_with_its_own_output_and_writes_backwards():
    net = net_of()
    code = net.encode(torch.randn(2, 12, 2))
    whole = net.decode(code, 12)
    history = net.decoder.start(2, code)
    out, outputs = torch.zeros(3, 2, 2), []
    for t in range(12):
        hidden, history = net.decoder.step(out, t, history)
        out = net.output(hidden)
        outputs.append(out)
    torch.testing.assert_close(whole, torch.stack(outputs[::-1], 2))


def test_outputs_are_windows_of_every_member_aligned_with_their_steps():
    detector = RecurrentAEEnsemble(window=10, members=3, training=Training(updates=200))
    series = np.sin(np.arange(500) / 3)[:, None] * [1, -1]
    detector.fit(series)
    x = torch.tensor(series[5:15], dtype=torch.float32)[None] / 0.7
    made = detector.net_(x)
    assert made.shape == (3, 1, 10, 2)
    right = (middle(made) - x).square().mean()
    assert right < 0.1 * (middle(made).flip(1) - x).square().mean()
    assert right < 0.1 * (middle(made) - x.roll(3, 1)).square().mean()


def test_masks_are_fixed_and_differ_between_members():
    detector = RecurrentAEEnsemble(window=12, members=6, training=QUICK)
    built = detector.build((12, 1))
    masks = built.encoder.mask.clone()
    detector.fit(np.sin(np.arange(200)))
    names = dict(detector.net_.named_buffers())
    assert {"encoder.mask", "decoder.mask"} <= set(names)
    assert masks.shape == (6, 12, 2)
    assert (masks.sum(-1) >= 1).all()
    kept = detector.net_.encoder.mask
    assert len(torch.unique(kept.flatten(1), dim=0)) == 6
    detector.anomaly_score(np.sin(np.arange(200)))
    assert torch.equal(detector.net_.encoder.mask, kept)


def test_independent_members_do_not_touch_each_other():
    net = net_of()
    detector = RecurrentAEEnsemble(members=3)
    x = torch.randn(4, 12, 2)
    before = net(x)
    with torch.no_grad():
        net.encoder.weight_input[0] += 1.0
    after = net(x)
    assert torch.equal(before[1:], after[1:])
    assert not torch.equal(before[0], after[0])
    loss = detector.loss(net, Batch(x))
    each = [(after[k] - x).square().mean() for k in range(3)]
    torch.testing.assert_close(loss, torch.stack(each).sum())


def test_shared_framework_has_one_code_for_all_and_a_sparse_one():
    net = net_of(shared=True)
    x = torch.randn(4, 12, 2)
    code = net.encode(x)
    assert code.shape == (1, 4, net.encoder.state_size)
    before = net(x)
    with torch.no_grad():
        net.encoder.weight_input[0] += 1.0
    assert not torch.isclose(before, net(x)).all(-1).any(-1).all()
    plain = RecurrentAEEnsemble("shared", sparsity=0.0).loss(net, Batch(x))
    sparse = RecurrentAEEnsemble("shared", sparsity=2.0).loss(net, Batch(x))
    torch.testing.assert_close(sparse - plain, 2 * net.encode(x).abs().sum(-1).mean())


def test_score_is_the_median_of_the_members_step_by_step():
    net = net_of(members=4)
    x = torch.randn(5, 12, 2)
    detector = RecurrentAEEnsemble(members=4)
    errors = (net(x) - x).square().mean(-1).detach().numpy()
    got = detector.score_batch(net, Batch(x)).detach().numpy()
    np.testing.assert_allclose(got, np.median(errors, axis=0), rtol=1e-5)
    values = torch.tensor([[3.0], [1.0], [9.0]])
    assert middle(values).item() == 3.0
    assert middle(values[:2]).item() == 2.0


def test_missing_values_do_not_count():
    net = net_of()
    detector = RecurrentAEEnsemble(members=3)
    x = torch.randn(2, 12, 2)
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:, 5, 1] = False
    batch = Batch(torch.where(mask, x, 0.0), mask)
    errors = (net(batch.x) - batch.x).square()
    score = detector.score_batch(net, batch)
    torch.testing.assert_close(score[:, 5], middle(errors[:, :, 5, 0]))
    assert (detector.error_map(net, batch)[:, 5, 1] == 0).all()


def test_step_thins_the_windows_and_still_covers_every_step():
    rng = np.random.default_rng(0)
    series = np.sin(np.arange(407) / 3) + 0.1 * rng.normal(size=407)
    detector = RecurrentAEEnsemble(window=16, step=16, members=3, training=QUICK).fit(series)
    with pytest.MonkeyPatch.context() as patch:
        seen = []
        infer = RecurrentAEEnsemble.infer
        patch.setattr(
            RecurrentAEEnsemble,
            "infer",
            lambda self, net, batch, want: seen.append(len(batch)) or infer(self, net, batch, want),
        )
        thinned = detector.anomaly_score(series)
        assert sum(seen) == 32  # 26 windows, padded to a multiple of 16
    assert np.isfinite(thinned).all()
    # with windows side by side a step's score is that of the one window that holds it
    first = detector._ingest(series, reset=False).samples.batch(torch.arange(16) * 0 + 32)
    expected = detector.score_batch(detector.net_, first)[0].numpy()
    np.testing.assert_allclose(thinned[32:48], expected, rtol=1e-4)


def test_gaps_and_saving(tmp_path):
    series = np.sin(np.arange(300) / 4)[:, None] * np.ones(2)
    detector = RecurrentAEEnsemble("shared", window=12, members=3, training=QUICK).fit(series)
    again = genad.load(detector.save(tmp_path / "m"))
    other = series.copy()
    other[20:23, 1] = np.nan
    assert np.array_equal(detector.anomaly_score(other), again.anomaly_score(other))
    assert detector.detect(other).maps.shape == (300, 2)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"framework": "both"}, "framework: 'both'"),
        ({"cell": "gru"}, "cell: 'gru'"),
        ({"members": 0}, "members: 0"),
        ({"hidden": 1.5}, "hidden: 1.5"),
        ({"sparsity": -1}, "sparsity: -1"),
        ({"step": 0}, "step: 0"),
        ({"step": 9, "window": 8}, "leaves gaps"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        RecurrentAEEnsemble(**params).fit(np.arange(100.0))


@pytest.mark.data
def test_floor_on_a_real_series(data_dir):
    # An easy recording, chosen because a plain baseline also finds it: the floor guards against breakage, and says
    # nothing of how the method compares. See the figures in its docstring.
    pd = pytest.importorskip("pandas")
    table = pd.read_parquet(data_dir / "series" / "skab.parquet")
    ignored = {"file", "datetime", "anomaly", "changepoint"}
    columns = [name for name in table.columns if name not in ignored]
    one = table[table.file.astype(str) == "other/4"]
    X, y = one[columns].to_numpy(float), one.anomaly.to_numpy()
    found = [
        roc_auc_score(
            y[400:],
            RecurrentAEEnsemble(window=16, members=5, random_state=seed, training=Training(updates=60))
            .fit(X[:400])
            .anomaly_score(X[400:]),
        )
        for seed in (0, 1)
    ]
    assert np.mean(found) > 0.85
