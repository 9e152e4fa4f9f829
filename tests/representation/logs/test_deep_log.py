from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score

import genad
from genad import Conformal, FixedValue, Training
from genad.data.log import Log, Sessions
from genad.data.log.adapter import PADDING, UNSEEN_EVENT
from genad.data.samples import Batch
from genad.errors import GenadWarning, InputError
from genad.representation.logs.deep_log import DeepLog, NextEventNet

A, B = ["open", "read", "read", "close"], ["open", "write", "flush", "close"]
NORMAL = [A, B] * 100


def fit(X=NORMAL, **parameters):
    training = Training(updates=150, lr=0.02)
    settings = {"window": 3, "hidden": 16, "layers": 1, "training": training, "threshold": Conformal(alpha=0.1)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GenadWarning)
        return DeepLog(**(settings | parameters)).fit(X)


@pytest.fixture(scope="module")
def fitted():
    return fit()


def batch_of(detector, sessions):
    return detector._ingest(sessions, reset=False).samples.stretch(0, len(sessions))


def test_contexts_are_the_events_before_each_target(fitted):
    batch = batch_of(fitted, [A, ["open"]])
    contexts, targets, counts = fitted._steps(batch, fitted.net_.seen)
    opened, read, close = 2, 3, 4
    assert contexts[0].tolist() == [
        [0, 0, 0],
        [0, 0, opened],
        [0, opened, read],
        [opened, read, read],
        [read, read, close],
    ]
    end = len(fitted.adapter_.vocabulary)
    assert targets[0].tolist() == [0, 1, 1, 2, end]
    # A session shorter than the window is scored too, with its end.
    assert counts.tolist() == [[True] * 5, [True, True, False, False, False]]
    assert targets[1, 1] == end


def test_without_ends_only_events_count(fitted):
    other = fit(ends=False)
    _, _, counts = other._steps(batch_of(other, [A, ["open"]]), other.net_.seen)
    assert counts.tolist() == [[True] * 4 + [False], [True] + [False] * 4]
    broken = A[:2]
    assert fitted.anomaly_score([broken])[0] > 3 * other.anomaly_score([broken])[0]


def test_equal_contexts_run_once_and_change_nothing(fitted):
    contexts = torch.randint(0, 6, (500, 3), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        distinct, which = fitted.net_.once_each(contexts)
        torch.testing.assert_close(fitted.net_(distinct)[which], fitted.net_(contexts))
    assert len(distinct) == len({tuple(row) for row in contexts.tolist()})
    assert torch.equal(distinct[which], contexts)


def test_events_are_embedded_and_not_numbers_with_an_order():
    net = NextEventNet(events=5, embedding=4, hidden=8, layers=2, window=3)
    assert net.embedding.weight.shape == (7, 4)
    assert (net.recurrent.num_layers, net.head.out_features) == (2, 6)
    total = net(torch.zeros(2, 3, dtype=torch.int64)).exp().sum(1)
    torch.testing.assert_close(total, torch.ones(2))


def test_an_untrained_network_knows_nothing():
    net = NextEventNet(events=7, embedding=4, hidden=8, layers=1, window=2)
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    torch.testing.assert_close(net(torch.tensor([[2, 3]])), torch.full((1, 8), -math.log(8)))


def test_the_loss_falls_to_the_entropy_of_the_data():
    # After "open" either branch follows with p = 1/2, all else is certain: log 2 over 5 steps.
    detector = fit(hide=0.0)
    batch = batch_of(detector, NORMAL)
    with torch.inference_mode():
        loss = detector.loss(detector.net_, batch)
    assert float(loss) == pytest.approx(math.log(2) / 5, abs=0.02)


def test_surprising_orders_score_higher(fitted):
    normal = fitted.anomaly_score(NORMAL[:2]).max()
    odd = [["open", "write", "read", "close"], ["read", "open", "close"], A[:3], ["open", "read", "flush", "close"]]
    assert (fitted.anomaly_score(odd) > 2 * normal).all()


def test_unseen_events_are_more_surprising_than_any_that_was_trained_on(fitted):
    score = fitted.anomaly_score([["open", "crash", "close"], ["read", "open", "close"]])
    assert score[0] == pytest.approx(float(fitted.net_.unseen))
    assert score[0] > score[1]
    assert fitted.predict([["open", "crash", "close"]]).tolist() == [-1]


def test_events_of_held_out_sessions_alone_are_unseen():
    # Whatever half they fall in, rare events known from calibration alone must not pass for trained ones.
    sessions = [*NORMAL, *[["open", f"rare {i}", "close"] for i in range(40)]]
    detector = fit(sessions, random_state=3)
    seen = detector.net_.seen[2:].numpy()
    assert 0 < (~seen).sum() < 40
    held = [text for text, known in zip(detector.adapter_.vocabulary, seen, strict=True) if not known]
    score = detector.anomaly_score([["open", held[0], "close"]])
    assert score[0] == pytest.approx(float(detector.net_.unseen))


def test_the_rule_of_the_paper(fitted):
    detector = fit(score_by="rank", threshold=FixedValue(2))
    good, odd, crash = detector.anomaly_score([A, ["open", "flush", "read", "close"], ["open", "crash", "close"]])
    assert good <= 2 < odd <= 6
    # An unseen event is no candidate, however few events there are.
    assert crash == 10
    assert detector.predict([A, ["open", "flush", "read", "close"]]).tolist() == [1, -1]


def test_mean_and_maximum(fitted):
    twin = fit(score_by="mean")
    torch.testing.assert_close(twin.net_.head.weight, fitted.net_.head.weight)
    steps = fitted.anomaly_map([A])[0]
    assert twin.anomaly_score([A])[0] == pytest.approx(steps.sum() / 5, rel=1e-5)
    assert fitted.anomaly_score([["open", "crash", "close"]])[0] == pytest.approx(
        fitted.anomaly_map([["open", "crash", "close"]])[0].max(), rel=0.2
    )


def test_the_map_points_at_the_event(fitted):
    maps = fitted.anomaly_map([["open", "crash", "read", "close"], ["open"]])
    assert maps[0].argmax() == 1
    # An early end belongs to the last event; after it there is nothing.
    assert maps[1, 0] > 1.0
    assert (maps[1, 1:] == 0).all()


def test_restored_sessions_hold_expected_events():
    detector = fit(candidates=2)
    restored = detector.restore([["open", "crash", "read", "close"], A])
    assert restored[0][1] in ("read", "write")
    assert restored[1] == A


def test_detect_and_explain(fitted):
    found = fitted.detect([A, ["open", "crash", "close"]])
    assert found.is_anomaly.tolist() == [False, True]
    top = found.explain(1).parts[0]
    assert (top.name, top.observed, top.lower) == ("event 2", "crash", None)
    assert top.expected in ("an unseen event", "read", "write")
    assert "event 2" in found.columns()["why"][1]


def test_foretelling(fitted):
    steps = fitted.foretell([A, B], 0, k=2)
    assert len(steps) == 5
    assert [steps[i][0][0] for i in (0, 3, 4)] == ["open", "close", "(end)"]
    assert {event for event, _ in steps[1]} == {"read", "write"}
    assert steps[1][0][1] == pytest.approx(0.5, abs=0.15)
    with pytest.raises(InputError, match="i: 2 was given; the data have 2 sessions"):
        fitted.foretell([A, B], 2)


def test_updates_from_false_positives():
    detector = fit()
    novel = ["open", "flush", "flush", "close"]
    before, kept = detector.anomaly_score([novel, A])
    assert detector.update([novel] * 20 + [A, B] * 20, updates=100) is detector
    after, still = detector.anomaly_score([novel, A])
    assert after < 0.6 * before
    assert still < kept + 1
    with pytest.raises(InputError, match="updates: 0 was given"):
        detector.update([novel], updates=0)


def test_scores_do_not_depend_on_the_other_sessions(fitted):
    sessions = [A, ["open", "crash", "close"], B * 30, ["open"]]
    together = fitted.anomaly_score(sessions)
    alone = [fitted.anomaly_score([session])[0] for session in sessions]
    np.testing.assert_allclose(together, alone, rtol=1e-6)
    np.testing.assert_allclose(fitted.anomaly_score(sessions[::-1])[::-1], together, rtol=1e-6)


def test_fits_are_repeatable(fitted):
    np.testing.assert_array_equal(fit().anomaly_score(NORMAL[:2]), fitted.anomaly_score(NORMAL[:2]))
    assert not np.array_equal(fit(random_state=1).anomaly_score([A]), fitted.anomaly_score([A]))


def test_saved_models_score_alike(fitted, tmp_path):
    again = genad.load(fitted.save(tmp_path / "x.genad"))
    sessions = [A, ["open", "crash", "close"]]
    np.testing.assert_array_equal(again.anomaly_score(sessions), fitted.anomaly_score(sessions))
    assert again.foretell([A], 0) == fitted.foretell([A], 0)


def test_labelled_anomalies_teach_nothing(fitted):
    strange = ["crash", "burn"]
    detector = fit([*NORMAL, strange])
    assert "crash" in detector.adapter_.vocabulary
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GenadWarning)
        labelled = DeepLog(window=3, hidden=16, training=Training(updates=20)).fit(
            [*NORMAL, strange], [0] * len(NORMAL) + [1]
        )
    assert "crash" not in labelled.adapter_.vocabulary


def test_a_log_from_file_to_lines(tmp_path):
    lines = [
        f"2024-01-31 13:05:09,{i:03d} INFO [main] a.B - {word} blk_{i // 4}" for i, word in enumerate((A + B) * 60)
    ]
    train, test = tmp_path / "train.log", tmp_path / "test.log"
    train.write_text("\n".join(lines))
    test.write_text("\n".join([*lines[:6], lines[6].replace("flush", "melts down and loses"), lines[7]]))
    detector = fit(str(train))
    from genad.data.log import read_log

    sessions = read_log(test).sessions()
    found = detector.detect(sessions)
    assert found.is_anomaly.tolist() == [False, True]
    assert np.nanargmax(sessions.to_lines(found.maps)) == 6


def test_unknown_and_padding_codes_do_not_meet():
    assert (PADDING, UNSEEN_EVENT) == (0, 1)
    detector = fit([["x"]] * 60)
    score = detector.anomaly_score([["y"], ["x"]])
    assert score[0] > score[1]
    batch = Batch(torch.zeros(1, 2), torch.tensor([[False, False]]))
    _, _, counts = detector._steps(batch, detector.net_.seen)
    assert counts.sum() == 1  # nothing but the end


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"window": 0}, "window: 0 was given"),
        ({"candidates": 0}, "candidates: 0"),
        ({"score_by": "sum"}, "score_by: 'sum' was given; use 'max' or 'mean' or 'rank'"),
        ({"hide": 1.0}, r"hide: 1.0 was given; use a number in \[0, 1\)"),
        ({"ends": 1}, "ends: 1 was given; use True or False"),
        ({"layers": 0}, "layers: 0"),
    ],
)
def test_bad_parameters_are_refused(parameters, says):
    with pytest.raises(InputError, match=says):
        DeepLog(**parameters).fit(NORMAL)


def test_plain_events_cannot_be_scored_by_a_model_of_a_log():
    log = Log.from_messages(["open file 1", "close file 1"] * 50)
    detector = fit(log.sessions(lines=2))
    with pytest.raises(InputError, match="X: sessions of plain events were given"):
        detector.anomaly_score([[1, 2]])


def test_hdfs(data_dir):
    with np.load(data_dir / "logs" / "hdfs_sequences.npz", allow_pickle=False) as file:
        parts = {
            name: np.split(file[name].astype(int), file[f"{name}_ptr"][1:-1])
            for name in ("train", "test_normal", "test_anomalous")
        }
    detector = DeepLog(hidden=32, layers=1, training=Training(epochs=6, lr=2e-2)).fit(parts["train"])
    test = Sessions.from_sequences(parts["test_normal"] + parts["test_anomalous"])
    y = np.repeat([0, 1], [len(parts["test_normal"]), len(parts["test_anomalous"])])
    score = detector.anomaly_score(test)
    assert f1_score(y, detector.threshold_.flag(score)) >= 0.93
    assert roc_auc_score(y, score) >= 0.98
