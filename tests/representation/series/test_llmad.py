"""LLMAD: the prompt, retrieval, answers good and bad, and their way to the steps."""

from __future__ import annotations

import json

import numpy as np
import pytest

from genad.core.calibration import BestF, Conformal, FixedValue
from genad.errors import DataWarning, GenadError, MissingExtraError
from genad.foundation.answers import ask
from genad.foundation.gguf import smollm2_path
from genad.foundation.llm import CapabilityError
from genad.foundation.local_lm import LocalModel
from genad.foundation.prompts import load_prompt
from genad.foundation.scripted import Scripted
from genad.foundation.usage import Budget, Meter
from genad.representation.series.llmad import LLMAD, read_verdict

TENTH = Conformal(alpha=0.1)
STEPS = {"step1_global": "flat", "step2_local": "one point", "step3_reassess": "certain"}


def reply(*indices, kind="SingleSpike", level="Urgent", **others):
    return {
        "briefExplanation": STEPS,
        "is_anomaly": bool(indices),
        "anomalies": list(indices),
        "reason_for_anomaly_type": "it stands alone",
        "anomaly_type": kind if indices else "None",
        "reason_for_alarm_level": "",
        "alarm_level": level if indices else "None",
    } | others


NOTHING = json.dumps(reply())


def window_of(messages):
    inside = messages[1]["content"].split("<<<window\n")[1].split("\nwindow>>>")[0]
    return [tuple(map(int, line.split())) for line in inside.splitlines()]


def wave(n, seed=0):
    return np.sin(np.arange(n) / 4) + 0.05 * np.random.default_rng(seed).normal(size=n)


def fitted(answer, n=200, y=None, **params):
    """Fit with a model that finds nothing, then let it answer as told."""
    model = Scripted(lambda messages: NOTHING if not model.ready else answer(messages))
    model.ready = False
    detector = LLMAD(llm=model, **({"window": 20, "threshold": TENTH} | params)).fit(wave(n), y)
    model.ready = True
    model.requests.clear()
    return detector, model


def always(text):
    return lambda messages: text if isinstance(text, str) else json.dumps(text)


# ---------------------------------------------------------------------- answers


@pytest.mark.parametrize("step", [0, 19, 20, 47, 59])
def test_indices_find_their_steps(step):
    detector, model = fitted(lambda messages: json.dumps(reply(*[i for i, v in window_of(messages) if v > 2000])))
    series = wave(60)
    series[step] = 4.0
    scores = detector.anomaly_score(series)
    assert np.flatnonzero(scores).tolist() == [step]
    assert scores[step] == 1.0
    assert detector.reasons_[step] == "SingleSpike, Urgent: it stands alone"
    assert sum(map(bool, detector.reasons_)) == 1
    assert len(model.requests) == 3


def test_the_last_window_ends_with_the_series_and_answers_for_new_steps_only():
    detector, model = fitted(lambda messages: json.dumps(reply(1, 20)))
    scores = detector.anomaly_score(wave(47))
    assert [len(window_of(request["messages"])) for request in model.requests] == [20, 20, 20]
    assert np.flatnonzero(scores).tolist() == [0, 19, 20, 39, 46]


@pytest.mark.parametrize(
    ("level", "score"), [("Warning", 1 / 3), ("Important", 2 / 3), ("Urgent", 1.0), ("None", 2 / 3)]
)
def test_alarm_levels_are_the_scores(level, score):
    detector, _ = fitted(always(reply(5, level=level)))
    assert detector.anomaly_score(wave(20))[4] == pytest.approx(score)


@pytest.mark.parametrize(
    ("text", "status", "steps"),
    [
        (json.dumps(reply(3)), "ok", [2]),
        (f"```json\n{json.dumps(reply(3))}\n```", "repaired", [2]),
        (f"Here is my verdict: {json.dumps(reply(3))}", "repaired", [2]),
        (json.dumps(reply(3)).replace("[3]", "[3,]"), "repaired", [2]),
        (json.dumps(reply("3")), "repaired", [2]),
        (json.dumps(reply(2.6)), "repaired", [2]),
        (json.dumps(reply(0, 3, 21)), "repaired", [2]),
        (json.dumps(reply(3, anomaly_type="singlespike")), "repaired", [2]),
    ],
)
def test_answers_are_mended(text, status, steps):
    detector, model = fitted(always(text))
    scores = detector.anomaly_score(wave(20))
    assert np.flatnonzero(scores).tolist() == steps
    assert set(detector.status_) == {status}
    assert len(model.requests) == 1


@pytest.mark.parametrize("text", ["I see nothing odd.", '{"anomalies": [3]}', '{"is_anomaly": NaN}', "", "[1, 2]"])
def test_an_unusable_answer_abstains_after_two_more_questions(text):
    detector, model = fitted(always(text))
    scores = detector.anomaly_score(wave(20))
    assert (scores == 0).all()
    assert set(detector.status_) == {"abstained"}
    assert len(model.requests) == 3
    assert "Your answer could not be used" in model.requests[-1]["messages"][-1]["content"]
    assert detector.describe()["llm_status"] == {"abstained": 20}


def test_a_contradiction_is_asked_about_and_the_list_then_counts():
    contradiction = reply(7) | {"is_anomaly": False}
    detector, model = fitted(always(contradiction))
    assert np.flatnonzero(detector.anomaly_score(wave(20))).tolist() == [6]
    assert len(model.requests) == 2
    assert "say which is right" in model.requests[-1]["messages"][-1]["content"]
    assert set(detector.status_) == {"retried"}


def test_a_contradiction_may_be_taken_back():
    turns = iter([reply(7) | {"is_anomaly": False}, reply()])
    detector, _ = fitted(lambda messages: json.dumps(next(turns)))
    assert not detector.anomaly_score(wave(20)).any()


def test_a_verdict_without_a_reason_says_so():
    assert read_verdict({"is_anomaly": True, "anomalies": [1]}).reason == "anomaly: no reason given"
    assert read_verdict(reply(1, reason_for_anomaly_type=" ")).reason == "SingleSpike, Urgent: certain"


# ---------------------------------------------------------------------- the prompt


def test_the_prompt_has_its_parts():
    detector, model = fitted(always(NOTHING))
    detector.anomaly_score(wave(20))
    request = model.requests[0]
    text = request["messages"][1]["content"]
    for part in (
        "very rare", "PersistentLevelShiftUp", "TransientLevelShiftDown", "MultipleDips", "Urgent", "Important",
        "Warning", "step1_global", "step2_local", "step3_reassess", "none is known", "the first index being 1",
    ):  # fmt: skip
        assert part in text
    assert [index for index, _ in window_of(request["messages"])] == list(range(1, 21))
    assert request["temperature"] == 0.7
    assert request["schema"]["properties"]["anomalies"]["items"]["maximum"] == 20
    assert len(request["schema"]["properties"]["anomaly_type"]["enum"]) == 9


def test_values_are_rescaled_by_percentiles_of_the_training_part():
    detector, model = fitted(always(NOTHING), holdout=0.5)
    detector.anomaly_score(wave(20))
    z = (wave(200) - wave(200).mean()) / wave(200).std()
    b = np.quantile(z[:100], 0.001)
    a = np.quantile(z[:100] - b, 0.95)
    expected = np.rint(1000 * (z[:20] - b) / a)
    found = [value for _, value in window_of(model.requests[0]["messages"])]
    np.testing.assert_allclose(found, expected, atol=1)


def test_the_most_similar_normal_segment_is_shown():
    series = np.r_[np.zeros(40), np.sin(np.arange(160) / 2), np.zeros(50)]
    series += 0.01 * np.random.default_rng(0).normal(size=250)
    model = Scripted({"": NOTHING})
    detector = LLMAD(llm=model, window=20, normal=1, threshold=TENTH).fit(series)
    for part, swings in ((series[:20], False), (series[100:120], True)):
        model.requests.clear()
        detector.anomaly_score(part)
        text = model.requests[0]["messages"][1]["content"]
        shown = [int(v) for v in text.split("A normal segment of this series:\n")[1].split("\n")[0].split(",")]
        assert len(shown) == 20
        assert bool(np.ptp(shown) > 500) is swings


def labelled(seed=0):
    """Make a series with a spike and a dip that are labelled, and a third anomaly in the part to calibrate on."""
    series, y = wave(400, seed), np.zeros(400, int)
    series[100], series[200:203], series[390] = 6.0, -6.0, 50.0
    y[[100, 200, 201, 202, 390]] = 1
    return series, y


def test_labelled_anomalies_are_shown_between_stars_the_most_similar_first():
    series, y = labelled()
    model = Scripted({"": NOTHING})
    detector = LLMAD(llm=model, window=20, anomalous=2, threshold=TENTH).fit(series, y)
    # One anomaly lies where the threshold is set, and is not shown.
    assert detector.net_.anomalies.shape[:2] == (1, 2)
    model.requests.clear()
    query = wave(20)
    query[9:12] = -6.0
    detector.anomaly_score(query)
    lines = model.requests[0]["messages"][1]["content"].split("between stars:\n")[1].split("\n\n")[0].splitlines()
    starred = [[int(piece.strip("*")) for piece in line.split(",") if piece.startswith("*")] for line in lines]
    assert [len(points) for points in starred] == [3, 1]
    assert max(starred[0]) < 0 < starred[1][0]
    assert [line.count(",") + 1 for line in lines] == [43, 41]


def test_no_labelled_step_is_part_of_a_normal_segment():
    series, y = labelled()
    detector = LLMAD(llm=Scripted({"": NOTHING}), window=20, threshold=TENTH).fit(series, y)
    z = detector.net_.normals.numpy()
    assert z.shape[2] == 40
    assert np.abs(z).max() < 3


def test_labels_cost_nothing_unless_the_threshold_learns_from_them():
    series, y = labelled()
    plain, keen = Scripted({"": NOTHING}), Scripted({"": NOTHING})
    LLMAD(llm=plain, window=20, threshold=TENTH).fit(series, y)
    LLMAD(llm=keen, window=20, threshold=BestF()).fit(series, y)
    assert len(plain.requests) == 5
    assert len(keen.requests) == 25


def test_examples_can_be_left_out():
    series, y = labelled()
    model = Scripted({"": NOTHING})
    LLMAD(llm=model, window=20, anomalous=0, threshold=TENTH).fit(series, y)
    assert "none is known" in model.requests[-1]["messages"][1]["content"]


def test_a_flagged_step_is_flagged_by_a_fixed_threshold():
    detector, _ = fitted(always(reply(5, level="Warning")), threshold=FixedValue(0.1))
    assert np.flatnonzero(detector.predict(wave(20)) == -1).tolist() == [4]


def test_two_channels_are_asked_about_apart_and_reasons_name_them():
    model = Scripted(lambda messages: json.dumps(reply(*[i for i, v in window_of(messages) if v > 2500])))
    X = np.c_[wave(200), wave(200, 1)]
    detector = LLMAD(llm=model, window=20, threshold=TENTH).fit(X)
    X[30, 1] = 6.0
    found = detector.detect(X)
    assert found.maps[30].tolist() == [0.0, 1.0]
    assert detector.reasons_[30].startswith(f"{found.names[1]}: SingleSpike")


# ---------------------------------------------------------------------- limits


def test_a_budget_leaves_the_rest_unjudged():
    detector = LLMAD(llm=Scripted({"": NOTHING}, meter=Meter(Budget(calls=5))), window=20, threshold=TENTH).fit(
        wave(200)
    )
    with pytest.warns(DataWarning, match="because the budget was spent"):
        detector.anomaly_score(wave(200))
    assert detector.status_[0] == "ok"
    assert detector.status_[-1] == "unasked"


def test_a_model_that_cannot_chat_is_refused():
    with pytest.raises(CapabilityError, match="llmad needs chat"):
        LLMAD(llm=Scripted(capabilities=["log_likelihood"])).fit(wave(100))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"alpha": 0}, "alpha: 0"),
        ({"alpha": 101}, "alpha: 101"),
        ({"beta": -1}, "beta: -1"),
        ({"anomalous": -1}, "anomalous: -1"),
        ({"normal": 0}, "normal: 0"),
        ({"retries": -1}, "retries: -1"),
    ],
)
def test_wrong_parameters_are_named(params, message):
    with pytest.raises(GenadError, match=message):
        LLMAD(**{"llm": Scripted({"": NOTHING})} | params).fit(wave(100))


# ---------------------------------------------------------------------- the real model


def test_the_small_model_keeps_to_the_form():
    # Only that: what it says is near chance.
    try:
        smollm2_path()
    except MissingExtraError as error:
        pytest.skip(str(error))

    class Brief(LocalModel):
        def chat(self, messages, *, max_tokens=256, **settings):
            return super().chat(messages, max_tokens=min(max_tokens, 4), **settings)

    values = np.rint(500 + 300 * wave(12)).astype(int)
    fields = {
        "count": 12,
        "normal": ",".join(map(str, values)),
        "anomalous": "none is known",
        "window": "\n".join(f"{i} {value}" for i, value in enumerate(values, 1)),
    }
    answer = ask(Brief(), load_prompt("llmad", "judge"), fields, retries=0)
    assert answer.status == "ok"
    assert set(answer.value["briefExplanation"]) == set(STEPS)
    assert all(1 <= index <= 12 for index in answer.value["anomalies"])
