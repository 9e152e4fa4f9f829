from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.data.samples import ArraySamples, Batch
from genad.errors import CalibrationWarning, DataWarning, InputError
from genad.reconstruction.gan.atr_gan import ATRGAN, ATRGANNet, distorted, time_distance

# short series leave few steps to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = ATRGANNet((8, 2), 4, None)
    known = torch.randn(10, 8, 2) + 3
    net.told.put(ArraySamples(known), torch.ones(10, dtype=torch.int64))
    return net


def _faulty(seed=0, n=700):
    """Return a series of two channels, the first of which dies down now and then, and its labels."""
    rng = np.random.default_rng(seed)
    t = np.arange(n)
    X = np.c_[np.sin(t / 4), np.cos(t / 4)] + 0.1 * rng.normal(size=(n, 2))
    y = np.zeros(n, int)
    for start in range(80, n, 130):
        X[start : start + 12, 0] *= 0.1
        y[start : start + 12] = 1
    return X, y


@pytest.fixture(scope="module")
def fitted():
    X, y = _faulty()
    return ATRGAN(window=8, latent=4, training=Training(updates=240, batch_size=32)).fit(X, y)


def test_the_distance_in_time_knows_the_order_of_steps():
    torch.manual_seed(0)
    x = torch.randn(4, 8, 2)
    apart = time_distance(x, x)
    assert torch.equal(apart.diagonal(), torch.zeros(4))
    torch.testing.assert_close(apart, apart.T)
    assert (time_distance(x, x.flip(1)).diagonal() > 0.1).all()
    # by hand: weights from 1/2 to 3/2, values and first differences, averaged over channels
    one, two = x[:1], x[1:2]
    weight = torch.linspace(0.5, 1.5, 8)[:, None]
    moved = torch.diff(one, dim=1, prepend=one[:, :1]) - torch.diff(two, dim=1, prepend=two[:, :1])
    expected = (weight * ((one - two).abs() + moved.abs())[0]).sum() / (8 * 2 * 2)
    torch.testing.assert_close(time_distance(one, two)[0, 0], expected)
    # one swap of neighbours changes no value, but what comes after what
    swapped = one[:, [0, 2, 1, 3, 4, 5, 6, 7]]
    assert float(time_distance(one, swapped)) > 0


def test_the_filter_keeps_the_nearest_of_the_candidates(net, monkeypatch):
    made = torch.randn(40, 8, 2)
    asked = []
    monkeypatch.setattr(net, "candidates", lambda n: asked.append(n) or made)
    kept = ATRGAN(overproduce=4).filtered(net, 10)
    assert asked == [40]
    assert kept.shape == (10, 8, 2)
    nearest = time_distance(made, net.told.x).amin(1)
    assert time_distance(kept, net.told.x).amin() == nearest.amin()
    torch.testing.assert_close(time_distance(kept, net.told.x).amin(1).sort().values, nearest.sort().values[:10])


def test_only_selected_windows_reach_the_discriminator(net, monkeypatch):
    seen = []
    forward = net.critic.forward
    monkeypatch.setattr(net.critic, "forward", lambda x: seen.append(x) or forward(x))
    detector, batch = ATRGAN(overproduce=3), Batch(torch.zeros(6, 8, 2))
    torch.manual_seed(1)
    detector.discriminator_loss(net, batch)
    detector.generator_loss(net, batch)
    assert [len(x) for x in seen] == [6, 6, 6]
    near = time_distance(torch.cat([seen[1], seen[2]]), net.told.x).amin(1).mean()
    assert near < time_distance(net.candidates(60), net.told.x).amin(1).mean()


def test_the_generator_is_pulled_towards_known_windows_in_time(net):
    detector, batch = ATRGAN(time_weight=2.0), Batch(torch.zeros(6, 8, 2))
    losses = []
    for weight in (0.0, 1.0, 2.0):
        detector.time_weight = weight
        torch.manual_seed(2)
        losses.append(detector.generator_loss(net, batch))
    torch.testing.assert_close(losses[2] - losses[0], 2 * (losses[1] - losses[0]))
    torch.manual_seed(2)
    net.told.draw(64)  # which known windows, as the loss draws them
    apart = time_distance(net.candidates(24), net.told.x)
    expected = apart.amin(1).mean() + apart.amin(0).mean()
    torch.testing.assert_close(losses[1] - losses[0], expected)


def test_the_augmented_set_is_one_to_one_and_holds_known_windows_by_their_share(net, monkeypatch):
    sizes = []
    forward = net.detector.forward
    monkeypatch.setattr(net.detector, "forward", lambda x: sizes.append(len(x)) or forward(x))
    ATRGAN().detector_loss(net, Batch(torch.zeros(16, 8, 2)))
    assert sizes == [32]
    net.rarity.fill_(0.75)
    minority = ATRGAN().minority(net, 400)
    real = (minority[:, None] == net.told.x).all(dim=(2, 3)).any(1)
    assert float(real.float().mean()) == pytest.approx(0.75, abs=0.08)
    # rare ones are half of them all the same
    net.rarity.fill_(0.01)
    minority = ATRGAN().minority(net, 400)
    real = (minority[:, None] == net.told.x).all(dim=(2, 3)).any(1)
    assert float(real.float().mean()) == pytest.approx(0.5, abs=0.1)
    assert (ATRGAN(augment="none").minority(net, 50)[:, None] == net.told.x).all(dim=(2, 3)).any(1).all()
    lines = ATRGAN(augment="smote").minority(net, 50)
    assert (lines >= net.told.x.amin(0) - 1e-5).all()
    assert (lines <= net.told.x.amax(0) + 1e-5).all()


def test_the_classifier_comes_after_the_game_and_without_it_alone():
    phases = ATRGAN(gan_share=0.4).phases(None)
    assert [(p.modules, p.start, p.stop) for p in phases] == [
        (("critic",), 0.0, 0.4),
        (("generator",), 0.0, 0.4),
        (("detector",), 0.4, 1.0),
    ]
    assert [p.modules for p in ATRGAN(augment="smote").phases(None)] == [("detector",)]


def test_windows_that_end_in_a_labelled_step_teach_and_mixed_ones_do_not():
    X, y = _faulty()
    detector = ATRGAN(window=8)
    taught = {}

    class Watched(ATRGAN):
        def optimise(self, net, samples):
            taught["known"], taught["normal"] = samples.taught.starts.numpy(), samples.samples.starts.numpy()
            return super().optimise(net, samples)

    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        Watched(window=8, training=Training(updates=2)).fit(X, y)
    steps = np.arange(8)
    assert (y[taught["known"] + 7] == 1).all()
    assert len(taught["known"]) == y[7:].sum()
    assert (y[taught["normal"][:, None] + steps] == 0).all()
    # the end of the series, which the threshold comes from, is not trained on
    assert taught["normal"].max() + 7 < len(X) * (1 - detector.holdout)


def test_it_finds_the_fault_again_and_keeps_no_labelled_window(fitted):
    X, y = _faulty(seed=5)
    scores = fitted.anomaly_score(X)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert roc_auc_score(y, scores) > 0.9
    assert len(fitted.net_.told) == 0
    near, made, known = fitted.net_.quality.tolist()
    # made windows are about as far from known ones as these are from each other, and not all the same
    assert 0 < near < 1.5 * known
    assert made > 0.02 * known


def test_nothing_after_a_step_is_looked_at(fitted):
    X, _ = _faulty(seed=5)
    other = X.copy()
    other[400:] = 0.0
    before, after = fitted.anomaly_score(X), fitted.anomaly_score(other)
    np.testing.assert_allclose(before[:400], after[:400], rtol=1e-5)
    assert not np.allclose(before[400:410], after[400:410])


def test_it_survives_saving(fitted, tmp_path):
    X, _ = _faulty(seed=5)
    again = genad.load(fitted.save(tmp_path / "m"))
    assert again.anomaly_score(X).tobytes() == fitted.anomaly_score(X).tobytes()
    assert torch.equal(again.net_.quality, fitted.net_.quality)


def test_without_labels_distorted_windows_stand_in_and_a_warning_says_so():
    X, _ = _faulty(n=300)
    with pytest.warns(DataWarning, match="y: no step is labelled") as caught:
        detector = ATRGAN(window=8, latent=4, training=Training(updates=80)).fit(X)
    assert all(issubclass(w.category, DataWarning | CalibrationWarning) for w in caught)
    other = X.copy()
    other[200:212] += 6
    scores = detector.anomaly_score(other)
    assert scores[204:212].mean() > 2 * scores[:190].mean()


def test_distorted_windows_change_from_some_step_on():
    torch.manual_seed(0)
    x = torch.randn(90, 8, 3)
    made = distorted(x)
    changed = (made != x).any(2)
    first = changed.int().argmax(1)
    assert changed[:, -1].float().mean() > 0.95
    before = torch.arange(8)[None] < first[:, None]
    assert not changed[before].any()
    assert len(first.unique()) == 8


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"latent": 0}, "latent: 0"),
        ({"overproduce": 0}, "overproduce: 0"),
        ({"time_weight": -1.0}, "time_weight: -1.0"),
        ({"augment": "copy"}, "augment: 'copy'"),
        ({"gan_share": 1.0}, "gan_share: 1.0"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        ATRGAN(**params).fit(np.arange(100.0))


@pytest.mark.data
def test_floor_on_a_real_process(data_dir):
    # A fault of a chemical plant is labelled in its first hours, and is to be told from normal hours of another run.
    with np.load(data_dir / "series" / "tep.npz", allow_pickle=False) as file:
        names = [name for name in file.files if name.startswith("test_fault")]
        normal, fault, other = file["train"][:400], file[names[0]], file[names[1]][:160]
    X = np.r_[normal[:200], fault[160:400], normal[200:]]
    y = np.repeat([0, 1, 0], [200, 240, 200])
    detector = ATRGAN(window=8, training=Training(updates=60)).fit(X, y)
    test, truth = np.r_[other, fault[400:700]], np.r_[np.zeros(160), np.ones(300)]
    assert roc_auc_score(truth, detector.anomaly_score(test)) > 0.8
