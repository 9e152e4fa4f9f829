"""The committee of tables, and the tails that make members comparable."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from genad import PPCA, Committee, NearestMemory, TableCommittee, Training
from genad.committee.table_committee import NoisyDenoiser
from genad.core.tail import LogLogistic, Tail
from genad.data.samples import Batch
from genad.errors import InputError


def test_a_tail_counts_the_reference_scores_above():
    tail = Tail()
    scores = torch.arange(1.0, 1001.0)
    tail.fit(scores)
    expected = -np.log(1 - 500 / 1001)
    np.testing.assert_allclose(float(tail(torch.tensor([500.5]))), expected, rtol=1e-6)


def test_beyond_the_reference_the_tail_goes_on_as_it_should():
    # Scores whose logarithm is exponential have exactly the tail that is assumed.
    rng = np.random.default_rng(0)
    tail = Tail()
    tail.fit(torch.from_numpy(np.exp(rng.exponential(size=20_000))))
    for level in (5.0, 8.0, 12.0):
        assert float(tail(torch.tensor([np.exp(level)]))) == pytest.approx(level, rel=0.1)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_tail_keeps_the_order_of_scores(sign):
    scores = torch.from_numpy(np.random.default_rng(0).normal(size=3000))
    scores = scores.abs() if sign > 0 else scores
    tail = Tail()
    tail.fit(scores)
    probe = torch.linspace(float(scores.min()), 4 * float(scores.max()), 500, dtype=torch.float64)
    values = tail(probe).numpy()
    assert (np.diff(values) >= -1e-9).all()
    assert (np.diff(values[-50:]) > 0).all()
    # Reference scores become exponential, as -log of a uniform share is.
    assert stats.kstest(tail(scores).numpy(), "expon").statistic < 0.05


def test_the_log_logistic_law_finds_its_own_shares():
    scores = stats.fisk(c=3.0, scale=2.0).rvs(20_000, random_state=0)
    law = LogLogistic()
    law.fit(torch.from_numpy(scores))
    probe = np.array([0.0, 0.5, 2.0, 6.0, 40.0])
    expected = -stats.fisk(c=3.0, scale=2.0).logsf(probe)
    np.testing.assert_allclose(law(torch.from_numpy(probe)), expected, rtol=0.05, atol=5e-3)


def test_the_log_logistic_law_stays_finite():
    for scores in ([0.0, 0.0, 0.0], [2.0], [1e-300, 1.0, 1e300], [0.0] * 50 + [1.0]):
        law = LogLogistic()
        law.fit(torch.tensor(scores, dtype=torch.float64))
        values = law(torch.tensor([0.0, 1e-6, 1.0, 1e30, 1e300], dtype=torch.float64))
        assert torch.isfinite(values).all()
        assert (values >= 0).all()
        assert (values.diff() >= 0).all()


@pytest.mark.parametrize(
    ("committee", "weights", "law"),
    [
        (Committee((PPCA(), NearestMemory()), weights=(1.0, 3.0)), (1.0, 3.0), Tail),
        (TableCommittee(denoisers=2, training=Training(updates=20)), (1.0, 2.0, 1.0), LogLogistic),
    ],
    ids=["committee", "table_committee"],
)
def test_the_score_is_the_weighted_mean_of_the_tails(committee, weights, law):
    X = np.random.default_rng(0).normal(size=(600, 3))
    committee.fit(X)
    probe = np.random.default_rng(1).normal(size=(20, 3)) * 2
    batch = committee._ingest(probe, reset=False).samples.stretch(0, 20)
    net, expected = committee.net_, 0.0
    for member, part, tail, weight in zip(committee.members_, net.members, net.tails, weights, strict=True):
        assert type(tail) is law
        expected = expected + weight * tail(member.infer(part, batch, frozenset()).score.detach()).numpy()
    np.testing.assert_allclose(committee.anomaly_score(probe), expected / sum(weights), rtol=1e-5)


class _Half(torch.nn.Module):
    def forward(self, x):
        return x / 2


@pytest.mark.parametrize("masked", [False, True])
def test_the_noisy_denoiser_scores_the_expected_loss(masked):
    x = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(x, dtype=torch.bool)
    if masked:
        mask[:, ::3] = False
    batch = Batch(x * mask, mask if masked else None)
    out = NoisyDenoiser(noise=0.4).infer(_Half(), batch, frozenset({"map", "restored"}))
    # x - (x + 0.4 eps) / 2 has the mean square x^2 / 4 + 0.04: opposite noises cancel, a few estimate the variance.
    expected = batch.sample_mean(batch.x.square() / 4) + 0.04
    np.testing.assert_allclose(out.score.square(), expected, atol=0.015)
    assert float((out.score.square() - batch.sample_mean(batch.x.square() / 4)).std()) < 1e-6
    np.testing.assert_allclose(batch.sample_mean(out.map), out.score.square(), rtol=1e-5)
    np.testing.assert_allclose(out.restored, batch.x / 2)
    if masked:
        assert float(out.map[:, ::3].abs().max()) == 0


def test_noise_finds_what_the_clean_residual_forgives():
    batch = Batch(torch.tensor([[0.0], [3.0]]))

    class Steep(torch.nn.Module):
        """Restores 0 and its neighbourhood, and 3 itself but nothing beside it."""

        def forward(self, x):
            return torch.where(x > 1.5, 3 + 4 * (x - 3), torch.zeros_like(x))

    clean = (batch.x - Steep()(batch.x)).abs().flatten()
    noisy = NoisyDenoiser().infer(Steep(), batch, frozenset()).score
    assert clean.tolist() == [0.0, 0.0]
    assert noisy[1] > 0.5
    assert noisy[0] < 1e-6


def test_the_map_adds_up_to_the_score():
    X = np.random.default_rng(0).normal(size=(600, 3))
    found = TableCommittee().fit(X).detect(X[:20] * 3)
    np.testing.assert_allclose(found.maps.sum(1), found.scores, rtol=1e-4)


def test_members_see_what_others_miss():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, 1)) @ np.ones((1, 4)) + 0.05 * rng.normal(size=(1500, 4))
    gap = X[(X[:, 0] < 0.5) | (X[:, 0] > 1.2)]
    detector = TableCommittee().fit(gap)
    normal = np.median(detector.anomaly_score(gap))
    broken = np.array([[1.0, 1.0, 1.0, -1.0]])  # against the dependence, within every feature's range
    hole = np.full((1, 4), 0.85)  # along the dependence, where no normal row is
    assert detector.anomaly_score(broken) > 4 * normal
    assert detector.anomaly_score(hole) > 2 * normal


@pytest.mark.filterwarnings("ignore::genad.errors.GenadWarning")
def test_training_and_weights_are_passed_on():
    X = np.random.default_rng(0).normal(size=(300, 3))
    detector = TableCommittee(denoisers=2, training=Training(updates=7)).fit(X)
    assert detector.training_report_.updates == 7
    assert detector.net_.members[0].size == 2
    with pytest.raises(InputError, match="weight"):
        TableCommittee(weight=0).fit(X)
    with pytest.raises(InputError, match="weights"):
        Committee((PPCA(),), weights=(1.0, 2.0)).fit(X)
    with pytest.raises(InputError, match="detectors"):
        Committee(()).fit(X)


@pytest.mark.filterwarnings("ignore::genad.errors.GenadWarning")
@pytest.mark.parametrize(("table", "auroc", "ap"), [("cardio", 0.94, 0.8), ("thyroid", 0.96, 0.65), ("wine", 0.9, 0.5)])
def test_floor_on_real_tables(one_class, table, auroc, ap):
    found = []
    for seed in range(3):
        train, test, y = one_class(table, seed)
        scores = TableCommittee(random_state=seed).fit(train).anomaly_score(test)
        found.append((roc_auc_score(y, scores), average_precision_score(y, scores)))
    assert np.mean(found, axis=0)[0] > auroc
    assert np.mean(found, axis=0)[1] > ap
