from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

import genad
from genad.core.calibration import Conformal
from genad.errors import InputError, MissingExtraError
from genad.foundation.gguf import smollm2_path
from genad.foundation.llm import CapabilityError
from genad.foundation.local_lm import LocalModel
from genad.foundation.scripted import Scripted
from genad.foundation.usage import Budget, Meter
from genad.representation.llm.line_likelihood import LineLikelihood, Transitions, steps

NORMAL = [["open file", "read block", "close file"]] * 150 + [["open file", "close file"]] * 50


def make(**params):
    return LineLikelihood(threshold=Conformal(alpha=0.05), **params)


def flat(nats):
    """A model that finds every token as surprising."""
    return Scripted(log_prob=lambda before, token: -nats)


@pytest.fixture(scope="module")
def fitted():
    return make(llm=flat(2.0)).fit(NORMAL)


def test_counts_decide_where_there_are_some(fitted):
    counts = Transitions([["a", "b"]] * 3 + [["a", "c"]])
    assert counts.surprise(("a",), "b", 1.0, 99.0) == pytest.approx(-math.log(3 / 5))
    assert counts.surprise(("a",), "x", 1.0, 99.0) == pytest.approx(99.0 + math.log(5))
    assert counts.surprise(("x",), "a", 1.0, 99.0) == 99.0
    assert counts.surprise(("a",), "x", 5.0, 0.0) == pytest.approx(-math.log(5 / 9))
    assert fitted.llm.meter.usage.calls == 0


def test_probabilities_of_known_events_and_the_rest_add_up_to_one():
    counts = Transitions([["a", "b"]] * 3 + [["a", "c"], ["c"]], window=2)
    context = ("(start)", "a")
    known = [math.exp(-counts.surprise(context, event, 0.7, 0.0)) for event in ("b", "c")]
    # What is left at the longer context falls to the shorter one, whose known events are the same here.
    left = 0.7 / 4.7
    assert sum(known) == pytest.approx(1 - left)
    assert math.exp(-counts.surprise(context, "x", 0.7, 0.0)) == pytest.approx(left * 0.7 / 4.7)


def test_longer_contexts_come_first():
    counts = Transitions([["a", "b", "c"]] * 4 + [["x", "b", "d"]] * 4, window=2)
    assert counts.surprise(("a", "b"), "c", 1.0, 9.0) == pytest.approx(-math.log(4 / 5))
    assert counts.surprise(("a", "b"), "d", 1.0, 9.0) == pytest.approx(-math.log(1 / 5 * 4 / 9))
    assert counts.surprise(("q", "b"), "d", 1.0, 9.0) == pytest.approx(-math.log(4 / 9))
    assert counts.likely(("x", "b")) == "d"
    again = Transitions.from_plain(counts.to_plain(), 2)
    assert again.after == counts.after


def test_start_and_end_are_events():
    assert steps(["a"], 1) == [(("(start)",), "a"), (("a",), "(end)")]


def test_a_new_transition_costs_what_the_model_says_of_its_text(fitted):
    tokens = {name: len(fitted.llm.log_likelihood([f"{name}\n"], ["x"])[0].log_probs) for name in ("read block", "now")}
    odd = fitted.anomaly_score([["open file", "now", "close file"]])[0]
    n = int(Transitions.from_plain(_counts(fitted), 1).after["open file",].total())
    assert odd == pytest.approx(
        max(2.0 * tokens["now"] + math.log(n + 1), fitted.anomaly_map([["open file", "now", "close file"]])[0, 2]),
        rel=1e-6,
    )


def _counts(detector):
    from genad.representation.prompting import from_buffer

    return from_buffer(detector.net_.transitions)


def test_normal_continuations_are_shown_in_their_proportions():
    seen = []

    def log_prob(before, token):
        seen.append(before)
        return -1.0

    detector = make(llm=Scripted(log_prob=log_prob), shots=4).fit(NORMAL)
    detector.anomaly_score([["open file", "panic"]])
    prompt = next(text for text in seen if text.endswith("open file\n"))
    assert prompt.count("open file\nread block\n\n") == 3
    assert prompt.count("open file\nclose file\n\n") == 1


def test_each_different_new_transition_is_read_once():
    model = flat(1.0)
    detector = make(llm=model).fit(NORMAL)
    detector.anomaly_score([["panic"]] * 50 + [["panic", "panic"]])
    assert model.meter.usage.calls == 3  # (start) panic, panic (end), panic panic
    detector.anomaly_score(NORMAL)
    assert model.meter.usage.calls == 3


def test_the_map_adds_up_and_points_at_the_event(fitted):
    session = ["open file", "panic", "close file"]
    mean = make(score_by="mean", llm=flat(2.0)).fit(NORMAL)
    maps = mean.anomaly_map([session, ["open file"]])
    assert maps[0].argmax() in (1, 2)
    assert maps[0].sum() / 4 == pytest.approx(mean.anomaly_score([session])[0], rel=1e-6)
    assert maps[1, 1:].tolist() == [0.0, 0.0]
    # A session that breaks off shows at its last event.
    assert maps[1, 0] > 2.0
    assert "'panic' after" in mean.reasons_[0]


def test_restored_sessions_have_the_usual_events(fitted):
    assert fitted.restore([["open file", "panic", "close file"], NORMAL[0]]) == [
        ["open file", "read block", "close file"], NORMAL[0]
    ]  # fmt: skip
    found = fitted.detect([["open file", "panic", "close file"]])
    assert found.is_anomaly.tolist() == [True]
    assert found.restored == [["open file", "read block", "close file"]]


def test_scores_do_not_depend_on_what_is_beside_them(fitted):
    sessions = [["panic"], ["open file", "panic"], NORMAL[0], ["close file", "open file"]]
    together = fitted.anomaly_score(sessions)
    alone = [fitted.anomaly_score([session])[0] for session in sessions]
    np.testing.assert_array_equal(together, alone)


def test_a_spent_budget_leaves_the_counts():
    model = Scripted(log_prob=lambda before, token: -5.0, meter=Meter(Budget(calls=0)))
    detector = make(llm=model).fit(NORMAL)
    good, odd = detector.anomaly_score([NORMAL[0], ["open file", "panic", "close file"]])
    assert odd > good
    assert detector.status_ == ["ok", "unasked"]
    assert odd == pytest.approx(math.log(160 + 1))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"window": 0}, "window: 0 was given; use a whole number of at least 1"),
        ({"shots": 0}, "shots: 0 was given; use a whole number of at least 1"),
        ({"score_by": "sum"}, "score_by: 'sum' was given; use 'max' or 'mean'"),
        ({"strength": 0}, r"strength: 0 was given; use a number in \(0, inf\)"),
    ],
)
def test_bad_parameters_are_refused(params, message):
    with pytest.raises(InputError, match=message):
        make(llm=Scripted(), **params).fit(NORMAL)


def test_a_model_without_likelihoods_is_refused():
    with pytest.raises(CapabilityError, match="line_likelihood needs log_likelihood"):
        make(llm=Scripted(capabilities=["chat"])).fit(NORMAL)


@pytest.fixture(scope="module")
def smol():
    try:
        smollm2_path()
    except MissingExtraError as error:
        pytest.skip(str(error))
    return LocalModel()


def test_the_real_model_prefers_what_reads_like_the_log(smol, tmp_path):
    detector = make(shots=3).fit(NORMAL)
    close, far = detector.anomaly_score([["open file", "write block"], ["open file", "zebra 0xdead lemon!"]])
    assert far > close + 5
    again = genad.load(detector.save(tmp_path / "x.genad"))
    assert again.anomaly_score([["open file", "write block"]])[0] == pytest.approx(close, abs=1e-3)


def test_hdfs_with_a_flat_model(data_dir):
    """The counts alone: what the model is the prior of."""
    with np.load(data_dir / "logs" / "hdfs_sequences.npz", allow_pickle=False) as file:
        train, normal, odd = (
            [
                [f"event {e}" for e in part]
                for part in np.split(file[name].astype(int), file[f"{name}_ptr"][1:-1])
            ]
            for name in ("train", "test_normal", "test_anomalous")
        )  # fmt: skip
    scores = make(llm=flat(1.0)).fit(train).anomaly_score(normal + odd)
    y = np.repeat([0, 1], [len(normal), len(odd)])
    assert roc_auc_score(y, scores) > 0.995
    assert average_precision_score(y, scores) > 0.99
