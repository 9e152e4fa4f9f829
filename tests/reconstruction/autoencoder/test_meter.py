from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Conformal, Training
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn.evidential import uncertainties
from genad.reconstruction.autoencoder.meter import METER, METERNet

# alpha=0.1 is attainable with few calibration rows
USUAL = {"training": Training(updates=90), "threshold": Conformal(alpha=0.1), "retrain": 10}
MIXING = np.random.default_rng(9).normal(size=(2, 5))


def rows_of(n, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)) @ MIXING + 0.1 * rng.normal(size=(n, 5)) + shift


def jump():
    """A stream whose rows become others after 100: the last channel turns its sign, and all of them move."""
    X = rows_of(400, 1)
    X[100:, 4] *= -1
    X[100:] += 6
    return X


def fit(**params):
    return METER(**(USUAL | params)).fit(rows_of(300))


@pytest.fixture(scope="module")
def fitted_file(tmp_path_factory):
    return fit().save(tmp_path_factory.mktemp("m") / "model")


def untrained(seed=0):
    torch.manual_seed(seed)
    net = METERNet(5, 10, 16, 50)
    for part in net.shift:
        torch.nn.init.normal_(part.body[-1].weight, std=0.1)
    return net


def test_each_stage_moves_its_own_parts_and_the_static_weights_stay_frozen():
    detector, batch = METER(), Batch(torch.randn(40, 5))
    net = untrained()
    detector.static_loss(net, batch).backward()
    assert all(p.grad is not None for p in net.static.parameters())
    assert all(p.grad is None for p in [*net.shift.parameters(), *net.judge.parameters()])
    net.zero_grad(set_to_none=True)
    detector.dynamic_loss(net, batch).backward()
    assert all(p.grad is None for p in net.static.parameters())
    assert all(p.grad is not None for p in [*net.shift.parameters(), *net.judge.parameters()])


def test_the_dynamic_autoencoder_starts_as_the_static_one_and_differs_by_row_after_training():
    net = METERNet(5, 10, 16, 50)
    x = torch.randn(8, 5)
    torch.testing.assert_close(net.dynamic(x), net(x))
    detector = fit()
    x = torch.from_numpy(rows_of(8, 3)).float()
    shifts = detector.net_.shift[0](x)
    assert float(shifts[0].std(0).mean()) > 1e-3
    torch.testing.assert_close(detector.net_.dynamic(x)[3:4], detector.net_.dynamic(x[3:4]))


def test_the_judge_learns_which_static_errors_are_large():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(500, 2))
    X = z @ MIXING + rng.normal(size=(500, 5)) * np.where(z[:, :1] > 0.8, 1.0, 0.05)
    net = METER(pseudo=0.2, training=Training(updates=300)).fit(X).net_
    batch = Batch(torch.from_numpy((X - X.mean(0)) / X.std(0)).float())
    with torch.no_grad():
        static = net(batch.x)
        error = (static - batch.x).square().mean(1)
        alpha = net.judge(static)
    doubt = alpha[:, 1] / alpha.sum(1)
    assert roc_auc_score((error > error.quantile(0.8)).numpy(), doubt.numpy()) > 0.75


def test_evidence_fades_beyond_the_largest_error_of_the_prefix():
    net, x = untrained(), torch.randn(6, 5)
    with torch.no_grad():
        static, far = net(x), net(x) + 3.0
        net.reach.fill_(1.0)
        torch.testing.assert_close(net.concentrations(Batch(static + 0.5), static), net.judge(static))
        faded = net.concentrations(Batch(far), static)
        torch.testing.assert_close(faded - 1, (net.judge(static) - 1) / 9)


@pytest.mark.parametrize(
    ("switch", "bias", "uses"), [(9.0, 5.0, "static"), (9.0, -5.0, "dynamic"), (0.0, 5.0, "dynamic")]
)
def test_a_row_is_restored_by_the_part_that_the_judge_says(switch, bias, uses):
    net, x = untrained(), torch.randn(16, 5)
    head = net.judge[-1].linear
    torch.nn.init.zeros_(head.weight)
    with torch.no_grad():
        head.bias.copy_(torch.tensor([bias, 0.0]))
    restored, score, unknown = METER(switch=switch)._judged(net, Batch(x))
    expected = net(x) if uses == "static" else net.dynamic(x)
    torch.testing.assert_close(restored, expected)
    torch.testing.assert_close(score, (x - expected).abs().mean(1))
    torch.testing.assert_close(unknown, uncertainties(net.judge(net(x)))[1])


def test_doubtful_rows_are_left_out_of_the_second_stage():
    net, x = untrained(), torch.randn(40, 5)
    detector = METER(spare=0.25)
    with torch.no_grad():
        doubt = uncertainties(net.judge(net(x)))[0]
    wild = x.clone()
    worst = doubt.topk(10).indices
    # their targets are masked differently: what they say must not matter
    mask = torch.ones_like(x, dtype=torch.bool)
    other = mask.clone()
    other[worst, 0] = False
    torch.testing.assert_close(
        detector._second_stage(net, Batch(wild, mask), 0.25), detector._second_stage(net, Batch(wild, other), 0.25)
    )
    assert detector.dynamic_loss(net, Batch(x)) != detector.spared_loss(net, Batch(x))


def test_drift_is_more_than_so_many_uncertain_rows_among_the_last_ones():
    detector = METER(recent=5, drifting=2)
    flags = torch.tensor([0.0, 1, 0, 0, 1, 0, 1, 1, 0])
    # rows 5 to 9 hold four, rows 4 to 8 three: the first window with three ends after the eighth
    assert detector._drift(flags, 0) == 8
    assert detector._drift(flags, 6) == 2
    assert detector._drift(flags[:7], 0) is None
    assert detector._drift(flags[4:8], 0) is None


def test_a_jump_retrains_and_the_scores_recover(fitted_file):
    moving = genad.load(fitted_file).set_params(retrain=60)
    fixed = genad.load(fitted_file).set_params(update=False)
    X = jump()
    scores, still = moving.score_update(X), fixed.score_update(X)
    assert int(moving.net_.retrained) >= 1
    assert int(fixed.net_.retrained) == 0
    np.testing.assert_allclose(scores[:100], still[:100], rtol=1e-5)
    assert scores[250:].mean() < 0.5 * still[250:].mean()


def test_nothing_is_retrained_while_nothing_changes(fitted_file):
    detector = genad.load(fitted_file)
    before = {k: v.clone() for k, v in detector.net_.static.state_dict().items()}
    detector.score_update(rows_of(300, 5))
    assert int(detector.net_.retrained) == 0
    assert all(torch.equal(v, before[k]) for k, v in detector.net_.static.state_dict().items())


def test_retraining_moves_the_limit_half_of_the_way_to_the_mean_and_starts_to_count_anew(fitted_file):
    net = genad.load(fitted_file)
    detector, net = net, net.net_
    net.limit.fill_(0.3)
    net.total.fill_(2.0)
    net.count.fill_(40)
    net.flags = torch.ones(50)
    detector._retrain(net)
    assert float(net.limit) == pytest.approx(0.5 * 0.3 + 0.5 * 0.05)
    assert (float(net.total), int(net.count), len(net.flags)) == (0.0, 0, 0)
    assert not any(p.requires_grad for p in net.parameters())


def test_calls_of_any_size_give_the_same_scores_also_after_saving(fitted_file, tmp_path):
    X = jump()[:260]
    whole, pieces = genad.load(fitted_file), genad.load(fitted_file)
    together = whole.score_update(X)
    assert int(whole.net_.retrained) >= 1
    first = np.concatenate([pieces.score_update(part) for part in np.split(X[:180], [1, 70, 130])])
    again = genad.load(pieces.save(tmp_path / "stream"))
    np.testing.assert_array_equal(np.r_[first, again.score_update(X[180:])], together)


def test_missing_values_do_not_count():
    detector = fit()
    X = rows_of(6, 2)
    X[:, 1] = np.nan
    scores, residual = detector.anomaly_score(X), detector.anomaly_map(X)
    assert (residual[:, 1] == 0).all()
    np.testing.assert_allclose(scores, residual.sum(1) / 4, rtol=1e-5)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"recent": 1}, "recent: 1 was given"),
        ({"recent": 10, "drifting": 10}, "fewer than recent=10"),
        ({"pseudo": 0.0}, "pseudo: 0.0"),
        ({"spare": 1.0}, "spare: 1.0"),
        ({"switch": -1.0}, "switch: -1.0"),
        ({"evidence": -1.0}, "evidence: -1.0"),
        ({"hyper": 0}, "hyper: 0"),
        ({"update": 1}, "update: 1 was given; use True or False"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        fit(**params)


@pytest.mark.data
@pytest.mark.filterwarnings("ignore")
def test_floor_on_a_real_table(one_class):
    train, test, y = one_class("ionosphere")
    assert roc_auc_score(y, METER(training=Training(updates=400)).fit(train).anomaly_score(test)) > 0.85
