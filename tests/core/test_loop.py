"""The training loop: known answers, phases, budgets, and exact resumption after any kind of death."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

import genad
from genad import Autoencoder, Training
from genad.core.calibration import Conformal
from genad.core.loop import IndexStream, TrainingLoop
from genad.core.stacking import Looped, Stacked
from genad.core.training import BASE_TRAINING, Phase
from genad.data.samples import ArraySamples
from genad.errors import GenadError, ModelFileError, TrainingError
from genad.reconstruction.autoencoder.autoencoder import DenoisingAutoencoder

CPU = torch.device("cpu")
TARGET = torch.tensor([3.0, -1.0])


class Point(nn.Module):
    """Two points to move, and a count that no gradient touches."""

    def __init__(self, start=0.0):
        super().__init__()
        self.left = nn.Linear(2, 1)
        self.right = nn.Linear(2, 1)
        for part in (self.left, self.right):
            nn.init.constant_(part.weight, start)
            nn.init.constant_(part.bias, start)
        self.register_buffer("count", torch.zeros(()))


def samples(n=64, seed=0):
    return ArraySamples(torch.randn(n, 2, generator=torch.Generator().manual_seed(seed)))


def pull(part):
    return lambda net, batch: (getattr(net, part).weight[0] - TARGET).square().sum() + 0 * batch.x.sum()


def loop(net, phases, seed=0, **settings):
    base = Training(updates=200, lr=0.1, batch_size=16, schedule="constant").over(BASE_TRAINING)
    return TrainingLoop(net, phases, Training(**settings).over(base), seed=seed, device=CPU)


# ---------------------------------------------------------------------- known answers


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
def test_a_quadratic_converges(optimizer):
    net = Point()
    report = loop(net, [Phase("pull", pull("left"))], optimizer=optimizer, schedule="cosine").run(samples())
    torch.testing.assert_close(net.left.weight[0], TARGET, atol=0.02, rtol=0)
    assert report.stopped == "finished"
    assert report.updates == report.planned == 200
    assert report.samples == 64
    assert report.epochs == 200 * 16 / 64
    assert report.parameters == 6
    history = report.history["pull"]
    assert history[0] > 1
    assert history[-1] < 0.01


def test_least_squares_find_the_line():
    data = samples(256)

    def loss(net, batch):
        return (net.left(batch.x)[:, 0] - (batch.x @ TARGET + 2.0)).square().mean()

    net = Point()
    loop(net, [Phase("fit", loss)], updates=400, schedule="cosine").run(data)
    torch.testing.assert_close(net.left.weight[0], TARGET, atol=1e-2, rtol=0)
    assert net.left.bias.item() == pytest.approx(2.0, abs=1e-2)


def test_sgd_takes_the_step_of_the_textbook():
    net = Point()
    loop(net, [Phase("pull", pull("left"))], optimizer="sgd", updates=1, lr=0.1).run(samples())
    torch.testing.assert_close(net.left.weight[0], 0.1 * 2 * TARGET)


def test_warmup_and_cosine_set_the_rate():
    rates = []
    trainer = loop(Point(), [Phase("pull", pull("left"))], updates=10, lr=1.0, warmup=4, schedule="cosine")
    trainer.after_step = lambda net, batch: rates.append(trainer.optimizers[0].param_groups[0]["lr"])
    trainer.run(samples())
    expected = [0.25, 0.5, 0.75, 1.0, *(0.5 * (1 + np.cos(np.pi * np.arange(4, 10) / 10)))]
    np.testing.assert_allclose(rates, expected)


def test_clipping_bounds_the_step():
    net = Point()
    loop(net, [Phase("pull", pull("left"))], optimizer="sgd", updates=1, lr=1.0, clip=0.5).run(samples())
    assert net.left.weight.norm().item() == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("kind", [Stacked, Looped])
def test_clipping_is_by_member(kind):
    def loss(net, batch):
        return ((net.left.weight[0] - TARGET) * net.count).square().sum() + 0 * batch.x.sum()

    nets = [Point(), Point(), Point()]
    for net, count in zip(nets, (1.0, 100.0, 0.01), strict=True):
        net.count.fill_(count)
    members = kind(nets)
    loop(members, [Phase("pull", loss)], optimizer="sgd", updates=1, lr=1.0, clip=0.5).run(samples())
    small, large, tiny = (net.left.weight.norm().item() for net in members.nets())
    # A wild member neither scales the others down nor escapes.
    assert small == pytest.approx(0.5, rel=1e-3)
    assert large == pytest.approx(0.5, rel=1e-3)
    assert tiny == pytest.approx(2 * 1e-4 * TARGET.norm().item(), rel=1e-3)


def test_clipping_stacked_scalars():
    class Scalar(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.zeros(()))

    members = Stacked([Scalar(), Scalar()])
    phase = Phase("pull", lambda net, batch: (net.a - 5).square() + 0 * batch.x.sum())
    loop(members, [phase], optimizer="sgd", updates=1, lr=1.0, clip=0.5).run(samples())
    assert [net.a.item() for net in members.nets()] == pytest.approx([0.5, 0.5], rel=1e-4)


def test_the_average_of_weights_is_kept():
    def run(ema):
        net = Point()
        loop(net, [Phase("pull", pull("left"))], optimizer="sgd", updates=30, lr=0.05, ema=ema).run(samples())
        return net.left.weight[0].detach()

    path, average, weight = [torch.zeros(2)], torch.zeros(2), torch.zeros(2)
    momentum = torch.zeros(2)
    for step in range(30):
        momentum = 0.9 * momentum + 2 * (weight - TARGET)
        weight = weight - 0.05 * momentum
        decay = min(0.8, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weight
        path.append(weight)
    torch.testing.assert_close(run(0.0), weight, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(run(0.8), average, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------------- phases


def test_phases_move_only_their_modules():
    net = Point()
    phases = [
        # Each loss depends on both parts, yet moves one of them.
        Phase("left", lambda n, b: pull("left")(n, b) + pull("right")(n, b), modules=("left",)),
        Phase("right", lambda n, b: (n.left.weight.sum() + n.right.weight.sum() - 8).square(), modules=("right",),
              stop=0.5),
    ]  # fmt: skip
    moved = {"left": [], "right": []}
    trainer = loop(net, phases, updates=10)

    def note(n, _batch):
        for name, seen in moved.items():
            seen.append(getattr(n, name).weight.detach().clone())

    trainer.after_step = note
    trainer.run(samples())
    right = torch.stack(moved["right"])
    assert (right[1:5] != right[:4]).any(dim=(1, 2)).all()
    assert (right[5:] == right[4]).all()
    left = torch.stack(moved["left"])
    assert (left[1:] != left[:-1]).any(dim=(1, 2)).all()
    assert (net.left.bias == 0).all()


def test_a_phase_with_one_module_leaves_the_rest_alone():
    net = Point()
    both = Phase("only", lambda n, b: pull("left")(n, b) + pull("right")(n, b), modules=("left",))
    loop(net, [both], updates=5).run(samples())
    assert (net.left.weight != 0).all()
    assert (net.right.weight == 0).all()


def test_every_start_stop_and_repeat_are_honoured():
    calls = {"a": 0, "b": 0, "c": 0, "d": 0}

    def counted(name):
        def loss(net, batch):
            calls[name] += 1
            return pull("left")(net, batch)

        return loss

    phases = [
        Phase("a", counted("a"), every=3),
        Phase("b", counted("b"), start=0.5),
        Phase("c", counted("c"), stop=0.25),
        Phase("d", counted("d"), repeat=4),
    ]
    report = loop(Point(), phases, updates=12).run(samples())
    assert calls == {"a": 4, "b": 6, "c": 3, "d": 48}
    assert set(report.history) == set(calls)


def test_phases_have_their_own_rate_and_optimiser():
    net = Point()
    phases = [
        Phase("slow", pull("left"), modules=("left",), lr=1e-3, optimizer="sgd"),
        Phase("fast", pull("right"), modules=("right",)),
    ]
    trainer = loop(net, phases, updates=1, lr=0.1, optimizer="adam")
    assert [type(o).__name__ for o in trainer.optimizers] == ["SGD", "AdamW"]
    trainer.run(samples())
    torch.testing.assert_close(net.left.weight[0], 2e-3 * TARGET)
    torch.testing.assert_close(net.right.weight[0], 0.1 * TARGET.sign(), rtol=1e-4, atol=0)


def test_an_unknown_part_is_named():
    with pytest.raises(ValueError, match="no trainable part called 'middle'"):
        loop(Point(), [Phase("pull", pull("left"), modules=("middle",))])


def test_after_step_sees_every_update():
    net = Point()
    trainer = loop(net, [Phase("pull", pull("left"))], updates=7)
    trainer.after_step = lambda n, batch: n.count.add_(len(batch))
    trainer.run(samples())
    assert net.count.item() == 7 * 16


def test_the_network_is_left_in_evaluation_mode_without_gradients():
    net = Point()
    loop(net, [Phase("pull", pull("left"))], updates=3).run(samples())
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())


# ---------------------------------------------------------------------- when it ends


def test_early_stopping_returns_the_best_weights():
    data = samples(100)
    seen = []

    def loss(net, batch):
        if not net.training:
            # The held-out loss falls to 0 at the third round and rises after that.
            seen.append(net.left.weight.detach().clone())
            return torch.tensor(abs(3.0 - len(seen)))
        return (net.left.weight - 100.0).square().sum()

    net = Point()
    report = loop(net, [Phase("pull", loss)], updates=1000, batch_size=10, patience=4).run(data)
    assert report.stopped == "early"
    assert len(seen) == 3 + 4
    assert report.history["held_out"] == [2.0, 1.0, 0.0, 1.0, 2.0, 3.0, 4.0]
    torch.testing.assert_close(net.left.weight, seen[2])
    assert report.samples == 90
    assert report.updates < 1000


def test_early_stopping_leaves_no_phase_out():
    net = Point()
    judged = []

    def stuck(net, batch):
        if not net.training:
            judged.append("stuck")
        return 0 * net.left.weight.sum()

    def learns(net, batch):
        if not net.training:
            judged.append("learns")
            return torch.tensor(1.0)
        return (net.right.weight[0] - TARGET).square().sum()

    phases = [Phase("stuck", stuck, ("left",), stop=0.5), Phase("learns", learns, ("right",), start=0.5)]
    report = loop(net, phases, updates=400, batch_size=10, patience=3).run(samples(100))
    assert report.stopped == "early"
    assert 200 < report.updates < 400
    assert set(judged) == {"learns"}
    assert float(net.right.weight.abs().sum()) > 0


@pytest.mark.filterwarnings("ignore::genad.errors.GenadWarning")
@pytest.mark.parametrize(("method", "part"), [("scae_svm", "layer1"), ("mpdr", "model"), ("f_ano_gan", "encoder")])
def test_patience_leaves_the_later_parts_of_methods_trained(method, part):
    X = np.random.default_rng(0).normal(size=(400, 6))
    nets = [
        genad.create(method, random_state=0, training=Training(updates=updates, patience=patience)).fit(X).net_
        for updates, patience in ((1, 0), (120, 1))
    ]
    before, after = (dict(net.named_parameters()) for net in nets)
    moved = [name for name in before if name.startswith(part) and not torch.equal(before[name], after[name])]
    assert moved, list(before)


def test_too_few_samples_are_not_held_out():
    report = loop(Point(), [Phase("pull", pull("left"))], updates=30, patience=1).run(samples(10))
    assert report.samples == 10
    assert "held_out" not in report.history


def test_a_time_budget_ends_the_training():
    trainer = loop(Point(), [Phase("pull", pull("left"))], updates=100_000, max_seconds=0.1)
    trainer.after_step = lambda net, batch: time.sleep(0.02)
    report = trainer.run(samples())
    assert report.stopped == "time"
    assert 1 <= report.updates < 20
    assert report.seconds >= 0.1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_its_phase(value):
    def diverges(net, batch):
        return pull("left")(net, batch) * (value if net.left.weight.abs().sum() > 1 else 1.0)

    fine = Phase("generator", pull("right"), modules=("right",))
    with pytest.raises(TrainingError, match=r"phase 'critic' became (nan|inf) by update \d+.*lr"):
        loop(Point(), [fine, Phase("critic", diverges, modules=("left",))]).run(samples())


def test_bfloat16_trains_and_keeps_float32_weights():
    net = Point()
    loss = Phase("fit", lambda n, b: (n.left(b.x)[:, 0] - b.x @ TARGET).float().square().mean())
    loop(net, [loss], updates=300, precision="bfloat16", schedule="cosine").run(samples(256))
    assert net.left.weight.dtype == torch.float32
    torch.testing.assert_close(net.left.weight[0], TARGET, atol=0.1, rtol=0)


def test_it_runs_outside_the_main_thread():
    reports = []
    worker = threading.Thread(
        target=lambda: reports.append(loop(Point(), [Phase("pull", pull("left"))], updates=3).run(samples()))
    )
    worker.start()
    worker.join()
    assert reports[0].updates == 3


# ---------------------------------------------------------------------- the order of samples


@pytest.mark.parametrize(("n", "size", "members"), [(10, 3, 1), (10, 10, 1), (7, 4, 3), (5, 1, 2), (1, 1, 4)])
def test_every_sample_is_visited_equally(n, size, members):
    stream = IndexStream(n, size, seed=3, members=members, device=CPU)
    passes = 6
    seen = stream.at(0, n * passes // size + 1).view(-1, members, size)
    for k in range(members):
        order = seen[:, k].flatten()[: (n * passes // size + 1) * size // n * n]
        counts = torch.bincount(order, minlength=n)
        if k == 0:
            assert (counts == counts[0]).all()
            # Each pass is a permutation of its own.
            rounds = order.view(-1, n)
            assert all(sorted(row) == list(range(n)) for row in rounds.tolist())
        assert counts.max() - counts.min() <= 2


def test_the_stream_is_a_function_of_the_step():
    whole = IndexStream(11, 4, seed=1, members=2, device=CPU).at(0, 20)
    again = IndexStream(11, 4, seed=1, members=2, device=CPU)
    parts = [again.at(k, 1) for k in range(20)]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(IndexStream(11, 4, seed=1, members=2, device=CPU).at(13, 5), whole[13:18])
    assert not torch.equal(IndexStream(11, 4, seed=2, members=2, device=CPU).at(0, 20), whole)


def test_members_read_different_batches():
    rows = IndexStream(100, 10, seed=0, members=4, device=CPU).at(0, 1).view(4, 10)
    assert len({tuple(row.tolist()) for row in rows}) == 4


# ---------------------------------------------------------------------- checkpoints


def data():
    return np.random.default_rng(0).normal(size=(300, 4))


def noisy(path, **settings):
    """Return a detector whose loss draws noise, so that resumption must find the very same noise again."""
    training = Training(updates=120, batch_size=32, checkpoint=path, checkpoint_seconds=0, **settings)
    return DenoisingAutoencoder(training=training, threshold=Conformal(alpha=0.1))


class Dies(DenoisingAutoencoder):
    """Fails after so many updates, once."""

    after = 0
    done = 0

    def after_step(self, net, batch):
        type(self).done += 1
        if type(self).done == self.after:
            raise RuntimeError("the power went out")


@pytest.mark.parametrize(
    "settings", [{}, {"ema": 0.9}, {"patience": 30}, {"optimizer": "sgd"}, {"optimizer": "rmsprop"}]
)
@pytest.mark.parametrize("after", [9, 24, 50])
def test_a_fit_that_died_resumes_to_the_same_bytes(tmp_path, settings, after):
    X = data()
    expected = noisy(None, **settings).fit(X)
    path = tmp_path / "half"
    Dies.after, Dies.done = after, 0
    dying = Dies(**noisy(path, **settings).get_params(deep=False))
    with pytest.raises(RuntimeError, match="power"):
        dying.fit(X)
    assert path.exists()
    left = Dies.done
    resumed = Dies(**noisy(path, **settings).get_params(deep=False)).fit(X)
    assert resumed.anomaly_score(X).tobytes() == expected.anomaly_score(X).tobytes()
    assert resumed.training_report_.history == expected.training_report_.history
    # It went on, instead of starting again.
    assert Dies.done - left < expected.training_report_.updates
    assert not list(tmp_path.iterdir())


SCRIPT = textwrap.dedent(
    """
    import sys, time
    import numpy as np, torch
    torch.set_num_threads(1)
    from genad import Training, Conformal
    from genad.reconstruction.autoencoder.autoencoder import DenoisingAutoencoder

    class Slow(DenoisingAutoencoder):
        def after_step(self, net, batch):
            print("step", flush=True)
            time.sleep(0.02)

    X = np.random.default_rng(0).normal(size=(300, 4))
    training = Training(updates=120, batch_size=32, checkpoint=sys.argv[1], checkpoint_seconds=0)
    Slow(training=training, threshold=Conformal(alpha=0.1)).fit(X)
    """
)


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_resumes_to_the_same_bytes(tmp_path, blow):
    path = tmp_path / "half"
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        for _ in range(30):
            assert process.stdout.readline() == "step\n", process.stderr.read()
        process.send_signal(blow)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode != 0
    if blow is signal.SIGINT:
        assert "KeyboardInterrupt: training stopped at update" in error
        assert str(path) in error
    assert path.exists()
    X = data()
    resumed = noisy(path).fit(X)
    assert resumed.anomaly_score(X).tobytes() == noisy(None).fit(X).anomaly_score(X).tobytes()
    assert not path.exists()


def test_ctrl_c_without_a_checkpoint_stops_too():
    trainer = loop(Point(), [Phase("pull", pull("left"))], updates=1000)
    before = signal.getsignal(signal.SIGINT)
    trainer.after_step = lambda net, batch: signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(samples())
    assert trainer.step == 1
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("step", [1, 3, 4, 8, 9])
def test_ctrl_c_at_any_update_resumes_to_the_same_weights(tmp_path, step):
    def run(path, stop=None):
        net = Point()
        noise = Phase("noise", lambda n, b: (n.left.weight[0] - TARGET - torch.randn(2)).square().sum())
        trainer = loop(net, [noise], updates=12, checkpoint=path, patience=2, validation=0.2)
        calls = []

        def after(_net, _batch):
            calls.append(1)
            if len(calls) == stop:
                signal.raise_signal(signal.SIGINT)

        trainer.after_step = after
        return net, trainer.run(samples(80))

    path = tmp_path / "half"
    with pytest.raises(KeyboardInterrupt, match=f"at update {step}; run the same fit again"):
        run(path, step)
    resumed, report = run(path)
    expected, whole = run(None)
    assert torch.equal(resumed.left.weight, expected.left.weight)
    assert report.updates == whole.updates
    assert report.history["held_out"] == whole.history["held_out"]


@pytest.mark.parametrize("change", ["rows", "seed", "updates", "width", "phases"])
def test_the_checkpoint_of_another_fit_is_refused(tmp_path, change):
    path = tmp_path / "half"
    Dies.after, Dies.done = 20, 0
    with pytest.raises(RuntimeError, match="power"):
        Dies(**noisy(path).get_params(deep=False)).fit(data())
    other, X = noisy(path), data()
    if change == "rows":
        X = X[:200]
    elif change == "seed":
        other.random_state = 5
    elif change == "updates":
        other.training = Training(updates=121, batch_size=32, checkpoint=path)
    elif change == "width":
        X = X[:, :3]
    else:
        other = Autoencoder(training=other.training, threshold=other.threshold)
    kept = path.read_bytes()
    with pytest.raises(ModelFileError, match=r"belongs to another fit.*remove it"):
        other.fit(X)
    assert path.read_bytes() == kept


def test_a_damaged_checkpoint_is_named(tmp_path):
    path = tmp_path / "half"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ModelFileError, match="half"):
        noisy(path).fit(data())


def test_a_checkpoint_that_cannot_be_written_says_so(tmp_path, monkeypatch):
    from genad import tensor_files

    def full(tensors, path, metadata):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensor_files, "save_file", full)
    with pytest.raises(GenadError, match=r"No space left.*nothing was left behind"):
        noisy(tmp_path / "half").fit(data())
    assert not list(tmp_path.iterdir())
