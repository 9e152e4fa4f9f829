from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.core.persistence import load
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn import Backbone
from genad.reconstruction.gan.crossing import Crossed
from genad.reconstruction.gan.egbad import EGBAD
from genad.reconstruction.gan.f_ano_gan import FAnoGAN, FAnoGANNet
from genad.reconstruction.gan.gan_ensemble import GANEnsemble
from genad.reconstruction.gan.ganomaly import GANomaly
from genad.reconstruction.gan.skip_ganomaly import SkipGANomaly

# small data leave few samples to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")

SMALL = Backbone("mlp", hidden=(8,))
ROWS = ("ganomaly", "f_ano_gan", "egbad")


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).normal(size=(150, 4)) @ np.random.default_rng(1).normal(size=(4, 4))


@pytest.fixture(scope="module")
def fitted(rows):
    made = {}
    for name in ROWS:
        detector = GANEnsemble(name, generators=2, critics=3, backbone=SMALL, training=Training(updates=40))
        made[name] = detector.fit(rows)
    return made


def _batch(detector, rows):
    return detector._ingest(rows, reset=False).samples.batch(torch.arange(20))


def test_a_pair_shares_the_parts_of_its_generator_and_its_critic():
    torch.manual_seed(0)
    nets = [FAnoGANNet((4,), 2, SMALL) for _ in range(3)]
    crossed = Crossed(nets, 2, 3, FAnoGAN.critic_side)
    pair = crossed.pair(1, 2)
    assert type(pair) is FAnoGANNet
    assert pair.latent == 2
    assert pair.generator is crossed.generator[1]
    assert pair.encoder is crossed.encoder[1]
    assert pair.critic is crossed.critic[2]
    x = torch.randn(5, 4)
    torch.testing.assert_close(pair(x), crossed.generator[1](crossed.encoder[1](x)))
    # the unit of the features belongs to the critic, and is changed in place
    pair.spread.fill_(9.0)
    assert crossed.spread.tolist() == [1.0, 1.0, 9.0]
    assert sum(p.numel() for p in crossed.parameters()) == sum(
        sum(p.numel() for p in part.parameters()) for part in [*crossed.generator, *crossed.encoder, *crossed.critic]
    )
    other = copy.deepcopy(crossed)
    torch.testing.assert_close(other.pair(0, 1)(x), crossed.pair(0, 1)(x))
    assert other.pair(0, 1).generator is not crossed.pair(0, 1).generator


@pytest.mark.parametrize(
    ("settings", "updates"),
    [
        ({}, 600),
        ({"base": "ganomaly", "critics": 3}, 1800),
        ({"base": GANomaly(training=Training(updates=50))}, 50),
        ({"base": GANomaly(), "pairing": "all", "training": Training(updates=70)}, 70),
    ],
)
def test_how_long_it_trains_is_known_before_a_fit(settings, updates):
    assert GANEnsemble(**settings)._training.total_updates(200) == updates


@pytest.mark.parametrize("base", [*ROWS, "skip_ganomaly"])
@pytest.mark.parametrize("pairing", ["sample", "all"])
def test_one_of_each_is_the_base_itself(base, pairing, rows):
    X = rows if base != "skip_ganomaly" else np.random.default_rng(2).normal(size=(40, 1, 8, 8))
    settings = {"training": Training(updates=12), "random_state": 3}
    if base != "skip_ganomaly":
        settings["backbone"] = SMALL
    alone = genad.create(base, **settings).fit(X)
    detector = GANEnsemble(base, generators=1, critics=1, pairing=pairing, **settings).fit(X)
    assert detector.anomaly_score(X).tobytes() == alone.anomaly_score(X).tobytes()
    assert detector.anomaly_map(X).tobytes() == alone.anomaly_map(X).tobytes()
    assert detector.restore(X).tobytes() == alone.restore(X).tobytes()


@pytest.mark.parametrize("base", ROWS)
def test_the_score_is_the_mean_over_all_pairs(base, fitted, rows):
    detector = fitted[base]
    inner, net = detector.detector_, detector.net_
    batch = _batch(detector, rows)
    with torch.no_grad():
        single = [inner.infer(net.pair(i, j), batch, frozenset({"map", "restored"})) for i, j in net.pairs()]
        found = detector.infer(net, batch, frozenset({"map", "restored"}))
    assert len(single) == 6
    for part in ("score", "map", "restored"):
        expected = torch.stack([getattr(one, part) for one in single]).mean(0)
        torch.testing.assert_close(getattr(found, part), expected)
    # members differ, so that there is something to average
    assert torch.stack([one.restored for one in single]).std(0).mean() > 1e-3


@pytest.mark.parametrize("base", ["ganomaly", "f_ano_gan"])
def test_drawn_pairs_all_meet_one_a_batch(base, fitted):
    met = fitted[base].net_.met
    assert met.shape == (2, 3)
    assert int(met.sum()) == 40
    assert int(met.min()) >= 1


def test_only_the_drawn_pair_is_trained(rows):
    detector = GANEnsemble("ganomaly", generators=2, critics=3, backbone=SMALL, training=Training(updates=1))
    torch.manual_seed(0)
    detector.device_, detector.seed_ = "cpu", 0
    net = detector.build((4,))
    net.turn.copy_(torch.tensor([1, 2]))
    generator, critic = detector.phases(net)
    batch = Batch(torch.randn(8, 4))
    (generator.loss(net, batch) + critic.loss(net, batch)).backward()
    moved = {name for name, p in net.named_parameters() if p.grad is not None}
    assert {name.rsplit(".", 2)[0].partition(".")[2][:1] for name in moved if not name.startswith("critic")} == {"1"}
    assert {name.split(".")[1] for name in moved if name.startswith("critic")} == {"2"}
    detector.after_step(net, batch)
    assert net.met.tolist() == [[0, 0, 0], [0, 0, 1]]


def test_against_all_each_critic_meets_the_average_over_the_generators(rows):
    detector = GANEnsemble("egbad", generators=2, critics=3, backbone=SMALL)
    torch.manual_seed(0)
    detector.device_, detector.seed_ = "cpu", 0
    net = detector.build((4,))
    batch = Batch(torch.randn(8, 4))
    critics, generators = detector.phases(net)
    inner = detector.detector_

    def single(loss, i, j):
        torch.manual_seed(5)
        return loss(net.pair(i, j), batch)

    def crossed(phase):
        # the same noise for every pair
        loss = phase.loss.keywords["loss"]
        phase.loss.keywords["loss"] = lambda pair, batch: torch.manual_seed(5) and loss(pair, batch)
        return phase.loss(net, batch)

    expected = sum(sum(single(inner.discriminator_loss, i, j) for i in range(2)) / 2 for j in range(3))
    torch.testing.assert_close(crossed(critics), expected)
    expected = sum(sum(single(inner.generator_loss, i, j) for j in range(3)) / 3 for i in range(2))
    torch.testing.assert_close(crossed(generators), expected)


def test_rows_get_egbad_and_other_samples_ganomaly_when_nothing_is_asked_for():
    detector = GANEnsemble(backbone="mlp")
    detector.device_, detector.seed_ = "cpu", 0
    for shape, base in (((4,), EGBAD), ((6, 2), GANomaly), ((1, 4, 4), GANomaly)):
        detector.build(shape)
        assert type(detector.detector_) is base
        assert detector.detector_.backbone == "mlp"


def test_each_base_says_how_its_networks_meet(fitted):
    assert [base.pairing for base in (GANomaly, FAnoGAN, EGBAD, SkipGANomaly)] == ["sample", "sample", "all", "all"]
    assert int(fitted["egbad"].net_.met.sum()) == 40 * 6


def test_drawn_pairs_train_longer_so_that_each_network_gets_its_share():
    def planned(**params):
        detector = GANEnsemble(**params)
        detector.device_, detector.seed_ = "cpu", 0
        detector.build((4,))
        return detector._training.max_updates

    usual = GANomaly.defaults.max_updates
    assert planned(base="ganomaly", generators=2, critics=3) == 3 * usual
    assert planned(base="ganomaly", generators=2, critics=3, pairing="all") == usual
    assert planned(base=GANomaly(training=Training(max_updates=7))) == 7
    assert planned(base=GANomaly(training=Training(max_updates=7)), training=Training(max_updates=5)) == 5


def test_critics_stand_still_while_encoders_of_f_anogan_learn(rows):
    detector = GANEnsemble(FAnoGAN(gan_share=0.5), backbone=SMALL, training=Training(updates=20))
    critics = []

    class Watched(GANEnsemble):
        def after_step(self, net, batch):
            super().after_step(net, batch)
            critics.append(torch.cat([p.detach().flatten().clone() for p in net.critic.parameters()]))

    Watched(**detector.get_params(deep=False)).fit(rows)
    assert all(torch.equal(one, critics[9]) for one in critics[10:])
    assert not torch.equal(critics[0], critics[9])


def test_it_survives_saving_with_a_base_of_its_own(rows, tmp_path):
    detector = GANEnsemble(EGBAD(latent=1, doubt="features"), backbone=SMALL, training=Training(updates=10)).fit(rows)
    again = load(detector.save(tmp_path / "m"))
    assert again.base.latent == 1
    assert again.anomaly_score(rows).tobytes() == detector.anomaly_score(rows).tobytes()
    assert torch.equal(again.net_.met, detector.net_.met)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"base": "alad"}, "base: 'alad'"),
        ({"base": genad.PPCA()}, "base: PPCA"),
        ({"base": EGBAD(lambda_d=3)}, "lambda_d: 3"),
        ({"generators": 0}, "generators: 0"),
        ({"critics": 1.5}, "critics: 1.5"),
        ({"pairing": "some"}, "pairing: 'some'"),
        ({"base": "skip_ganomaly"}, "takes images"),
    ],
)
def test_parameters_are_checked(params, message, rows):
    with pytest.raises(InputError, match=message):
        GANEnsemble(**params).fit(rows)


@pytest.mark.data
def test_floor_on_a_table(data_dir):
    with np.load(data_dir / "tabular" / "adbench_thyroid.npz", allow_pickle=False) as file:
        X, y = file["X"], file["y"].ravel()
    normal = np.flatnonzero(y == 0)
    test = np.r_[normal[1500:2500], np.flatnonzero(y == 1)]
    detector = GANEnsemble(training=Training(updates=100)).fit(X[normal[:1500]])
    assert roc_auc_score(y[test], detector.anomaly_score(X[test])) > 0.85
