"""SigLLM's prompter: values and positions, votes at their boundaries, windows, garbage."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from genad.core.calibration import Conformal
from genad.errors import DataWarning, GenadError, InputError
from genad.foundation.llm import CapabilityError, Reply
from genad.foundation.schema import AnswerError
from genad.foundation.scripted import Scripted
from genad.foundation.usage import Budget, Meter
from genad.representation.series.sig_llm_prompter import SigLLMPrompter, named_values, padded_intervals, vote

TENTH = Conformal(alpha=0.1)


def numbers_in(messages, name="sequence"):
    inside = messages[-1]["content"].split(f"<<<{name}\n")[1].split(f"\n{name}>>>")[0]
    return [int(number) for number in inside.split(",")]


def largest(messages):
    return str([max(numbers_in(messages))])


def wave(n, seed=0):
    return np.sin(np.arange(n) / 4) + 0.05 * np.random.default_rng(seed).normal(size=n)


def make(script=largest, **params):
    settings = {"window": 20, "samples": 2, "padding": 3, "threshold": TENTH} | params
    return SigLLMPrompter(llm=script if isinstance(script, Scripted) else Scripted(script), **settings)


# ---------------------------------------------------------------------- reading and votes


@pytest.mark.parametrize(
    ("text", "values", "repaired"),
    [
        ("[12, 7]", [12, 7], False),
        ("[]", [], False),
        ("12,7", [12, 7], True),
        ("```json\n[12]\n```", [12], True),
        ("No anomalies", [], True),
        ("None.", [], True),
        ("abc 12 xyz 007", [12, 7], True),
        ("\u0661\u0662", [12], True),
    ],
)
def test_all_that_is_no_digit_is_passed_over(text, values, repaired):
    found = named_values(text)
    assert found.value == values
    assert found.repaired is repaired


@pytest.mark.parametrize("text", ["I am sorry, that is beyond me", "nan", "..."])
def test_an_answer_without_number_or_denial_is_refused(text):
    with pytest.raises(AnswerError, match="names no number"):
        named_values(text)


def test_four_of_ten_samples_are_enough_and_three_are_not():
    window = np.array([5, 7, 5, 8])
    shares, kept = vote([[5, 7]] * 3 + [[5]] + [[]] * 6, window, alpha=0.4)
    np.testing.assert_allclose(shares, [0.4, 0.3, 0.4, 0.0])
    # A value counts wherever it stands.
    assert kept.tolist() == [True, False, True, False]


def test_a_value_named_twice_in_one_sample_is_one_vote():
    shares, _ = vote([[5, 5, 5], []], np.array([5]), alpha=0.4)
    assert shares.tolist() == [0.5]


def test_absent_values_vanish():
    shares, kept = vote([[999, 1000]] * 4, np.array([1, 2, 3]), alpha=0.1)
    assert not shares.any()
    assert not kept.any()


def test_intervals_are_padded_merged_and_kept_within_the_series():
    flags = np.zeros(300, bool)
    flags[[10, 100, 180, 299]] = True
    assert padded_intervals(flags, 50) == [(0, 231), (249, 300)]
    assert padded_intervals(flags, 0) == [(10, 11), (100, 101), (180, 181), (299, 300)]
    assert padded_intervals(np.zeros(5, bool), 2) == []


# ---------------------------------------------------------------------- the detector


def test_the_odd_value_gets_all_votes():
    detector = make().fit(wave(200))
    series = wave(100)
    series[43] = 5.0
    scores = detector.anomaly_score(series)
    assert scores[43] == scores.max() == 2.0
    assert np.median(scores) == 0.0
    assert any(start <= 43 < stop for start, stop in detector.intervals(series))
    assert detector.reasons_[43] == "named in 100% of the answers"


def test_every_window_is_asked_as_often_as_there_are_samples():
    model = Scripted(largest)
    detector = make(model, samples=3).fit(wave(200))
    model.requests.clear()
    detector.anomaly_score(wave(47))
    # Windows begin every 20 / 5 steps, and the last one ends with the series.
    starts = [*range(0, 27, 4), 27]
    assert len(model.requests) == 3 * len(starts)
    assert {request["temperature"] for request in model.requests} == {1.0}
    assert len({request["seed"] for request in model.requests[:3]}) == 3
    assert model.requests[0]["schema"]["maxItems"] == 2
    assert model.requests[0]["max_tokens"] == 20 * 4 // 2
    assert [message["role"] for message in model.requests[0]["messages"]] == ["system", "user"]


def test_numbers_are_whole_without_sign_point_or_zeros_before_them():
    model = Scripted(largest)
    make(model).fit(wave(200) - 50)
    for request in model.requests:
        text = request["messages"][-1]["content"].split("<<<sequence\n")[1].split("\n")[0]
        assert all(piece == str(int(piece)) for piece in text.split(","))


def test_windows_vote_on_what_each_of_them_keeps():
    # The value is the largest in windows that do not hold the larger one.
    series = np.zeros(60)
    series[30], series[36] = 1.3, 1.7
    detector = make(window=10, stride=5, samples=1).fit(wave(200))
    scores = detector.anomaly_score(series)
    # Step 30 lies in the windows from 25 and 30, and the second of them names 36.
    assert scores[30] == pytest.approx(0.5 + 1)
    assert scores[36] == 2.0
    strict = make(window=10, stride=5, samples=1, beta=0.6).fit(wave(200))
    assert strict.anomaly_score(series)[30] == pytest.approx(0.5)


def test_a_reference_of_normal_data_is_shown():
    model = Scripted(largest)
    detector = make(model, reference=True).fit(wave(200))
    text = model.requests[-1]["messages"][-1]["content"]
    assert len(numbers_in([{"content": text}], "reference")) == 20
    assert detector.net_.reference.shape == (1, 20)


def test_a_rambling_answer_is_asked_again_and_then_abstains():
    model = Scripted(lambda messages: "Dear user" if numbers_in_first(messages) else "[1]")
    detector = make(model, samples=1, window=10, stride=10).fit(wave(100))
    series = wave(40)
    series[3] = 9.0
    model.requests.clear()
    with pytest.warns(DataWarning, match="10 time steps were not judged, 0 of them"):
        scores = detector.anomaly_score(series)
    assert detector.status_[:10] == ["abstained"] * 10
    assert set(detector.status_[10:]) == {"ok"}
    # Asked three times for the window that holds the wild value, once for each of the others.
    assert len(model.requests) == 6
    assert (scores[:10] == np.median(detector.calibration_scores_)).all()


def numbers_in_first(messages):
    """Tell whether the window asked about holds the highest number there is."""
    return 999 in numbers_in(messages[1:2])


@pytest.mark.parametrize(
    "reply",
    [Reply("", status="empty"), Reply("[4", "length", status="cut"), Reply("x", status="refused"), "9" * 5000, "NaN"],
)
def test_no_answer_however_bad_raises(reply):
    model = Scripted(lambda messages: reply)
    detector = make().fit(wave(100))
    detector.__dict__["_model"] = model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        scores = detector.anomaly_score(wave(40))
    assert np.isfinite(scores).all()


def test_a_budget_leaves_the_rest_unjudged():
    detector = make(Scripted(largest, meter=Meter(Budget(calls=40)))).fit(wave(100))
    with pytest.warns(DataWarning, match="because the budget was spent"):
        detector.anomaly_score(wave(200))
    assert detector.status_[0] == "ok"
    assert detector.status_[-1] == "unasked"


def test_a_model_that_cannot_chat_is_refused():
    with pytest.raises(CapabilityError, match="sig_llm_prompter needs chat"):
        make(Scripted(capabilities=["embedding"])).fit(wave(100))


def test_no_usable_answer_in_fit_is_an_error():
    with pytest.raises(InputError, match="gave no usable answer"):
        make(lambda messages: "Dear user").fit(wave(100))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"alpha": 0.0}, "alpha: 0.0"),
        ({"beta": 1.5}, "beta: 1.5"),
        ({"stride": 0}, "stride: 0"),
        ({"samples": 0}, "samples: 0"),
        ({"padding": -1}, "padding: -1"),
        ({"digits": 11}, "digits: 11"),
        ({"decimals": 1.5}, "decimals: 1.5"),
    ],
)
def test_wrong_parameters_are_named(params, message):
    with pytest.raises(GenadError, match=message):
        make(**params).fit(wave(100))
