"""SigLLM's detector: what is asked, known likelihoods, forecasts, budgets, and the real small model."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import genad.representation.prompting as prompting
from genad.core.calibration import Conformal
from genad.core.persistence import load
from genad.errors import DataWarning, GenadError, InputError, MissingExtraError
from genad.foundation.gguf import smollm2_path
from genad.foundation.llm import BudgetExhausted, CapabilityError
from genad.foundation.local_lm import LocalModel
from genad.foundation.scripted import Scripted
from genad.foundation.usage import Budget, Meter
from genad.representation.series.sig_llm import SigLLM

TENTH = Conformal(alpha=0.1)


@pytest.fixture(scope="module")
def smol():
    """SmolLM2-135M-Instruct."""
    try:
        smollm2_path()
    except MissingExtraError as error:
        pytest.skip(str(error))
    return LocalModel()


def wave(n, seed=0, noise=0.05):
    return np.sin(np.arange(n) / 4) + noise * np.random.default_rng(seed).normal(size=n)


class Listening(Scripted):
    """Keeps what it is asked about."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.pairs = []

    def log_likelihood(self, texts, contexts=None):
        self.pairs += list(zip(contexts, texts, strict=True))
        return super().log_likelihood(texts, contexts)


def priced(before, token):
    """1 nat for the digit 9, a tenth for any other, a hundredth for a comma."""
    return {"9": -1.0, ",": -0.01}.get(token, -0.1)


# ---------------------------------------------------------------------- likelihood


def test_the_score_is_the_surprise_of_all_digits_and_the_comma():
    detector = SigLLM(llm=Scripted(log_prob=priced), digits=2, smoothing=0.0, window=20, threshold=TENTH)
    detector.fit(wave(200))
    series = wave(40)
    series[17] = 100.0  # written as 99
    scores = detector.anomaly_score(series)
    assert scores[17] == pytest.approx(2.01)
    assert scores.argmax() == 17
    assert np.median(scores) == pytest.approx(0.21)


def test_each_value_is_asked_after_the_values_before_it():
    model = Listening(log_prob=priced)
    detector = SigLLM(llm=model, digits=2, overlap=0.75, window=20, threshold=TENTH).fit(wave(200))
    model.pairs.clear()
    detector.anomaly_score(wave(33))
    # A quarter of 20 values is judged in each window; what came before is context.
    assert [text.count(",") for _, text in model.pairs] == [5, 5, 5, 5, 5, 5, 3]
    assert {context.count(",") for context, _ in model.pairs} == {15}
    # Windows read on where the one before ended, and the first after the end of the normal data.
    joined = model.pairs[0][0] + "".join(text for _, text in model.pairs)
    for i, (context, _) in enumerate(model.pairs):
        assert joined[: len(model.pairs[0][0]) + 15 * i].endswith(context)


def test_the_first_context_is_the_end_of_the_normal_data():
    model = Listening(log_prob=priced)
    series = wave(200, noise=0.0)
    detector = SigLLM(llm=model, digits=3, window=20, holdout=0.25, threshold=TENTH).fit(series)
    held = model.pairs[0][0]
    codes = [int(number) for number in held.split(",")[:-1]]
    z = (series - series.mean()) / series.std()
    offset, step, _ = detector.net_.codes[0].tolist()
    np.testing.assert_allclose(np.array(codes) * step + offset, z[140:150], atol=step)


def test_numbers_have_one_length_without_sign_or_point():
    model = Listening(log_prob=priced)
    SigLLM(llm=model, window=20, threshold=TENTH).fit(wave(200) - 1e6)
    texts = "".join(context + text for context, text in model.pairs)
    assert set(texts) <= set("0123456789,")
    assert {len(piece) for piece in texts.split(",") if piece} == {2}


def test_spaced_digits_are_apart():
    model = Listening(log_prob=priced)
    SigLLM(llm=model, window=20, spaced=True, threshold=TENTH).fit(wave(200))
    assert all(len(piece) == 3 and piece[1] == " " for piece in model.pairs[0][1].split(",")[:-1])


def test_decimals_of_the_standardised_value_set_the_digits():
    model = Listening(log_prob=priced)
    detector = SigLLM(llm=model, window=20, decimals=3, threshold=TENTH).fit(wave(200))
    assert detector.net_.codes[0, 1] == pytest.approx(0.001)
    assert {len(piece) for piece in model.pairs[0][1].split(",")[:-1]} == {4}


def test_channels_add_up_and_the_map_tells_them_apart():
    X = np.c_[wave(200), wave(200, seed=1)]
    detector = SigLLM(llm=Scripted(log_prob=priced), smoothing=0.0, window=20, threshold=TENTH).fit(X)
    X[30, 1] = 1e3
    found = detector.detect(X)
    np.testing.assert_allclose(found.maps.sum(1), found.scores, rtol=1e-5)
    assert found.maps[30].argmax() == 1
    assert found.explain(30).parts[0].name == found.names[1]


def test_smoothing_spans_a_share_of_the_training_steps():
    detector = SigLLM(llm=Scripted(log_prob=priced), smoothing=0.05, window=20, threshold=TENTH).fit(wave(250))
    assert float(detector.net_.span) == 10.0
    series = wave(60)
    series[30] = 100.0
    scores = detector.anomaly_score(series)
    assert scores.argmax() == 30
    # What comes after is lifted, what comes before is not.
    assert scores[31] > scores[29] + 0.1


def test_odd_steps_are_restored_from_their_neighbours():
    detector = SigLLM(llm=Scripted(log_prob=priced), smoothing=0.0, window=20, threshold=TENTH)
    clean = wave(300, noise=0.0)
    detector.fit(clean)
    series = clean[:60].copy()
    series[30:32] = 50.0
    restored = detector.restore(series)
    np.testing.assert_allclose(restored.ravel()[30:32], clean[30:32], atol=0.15)


def test_a_budget_leaves_the_rest_unjudged_and_says_so():
    meter = Meter(Budget(tokens=900))
    detector = SigLLM(llm=Scripted(log_prob=priced, meter=meter), window=20, threshold=TENTH).fit(wave(200))
    with pytest.warns(DataWarning, match="steps were not judged, .* because the budget was spent"):
        scores = detector.anomaly_score(wave(400))
    judged = np.array(detector.status_) == "ok"
    assert 0 < judged.sum() < 400
    assert detector.status_.count("unasked") == (~judged).sum()
    assert (scores[~judged] == np.median(detector.calibration_scores_)).all()


def test_a_budget_spent_in_fit_is_an_error():
    model = Scripted(log_prob=priced, meter=Meter(Budget(tokens=0)))
    with pytest.raises(InputError, match=r"budget: .* raise the budget"):
        SigLLM(llm=model, window=20, threshold=TENTH).fit(wave(200))


def test_a_model_without_likelihoods_is_refused_at_once():
    model = Scripted(["1"], capabilities=["chat"])
    with pytest.raises(CapabilityError, match="sig_llm needs log_likelihood"):
        SigLLM(llm=model).fit(wave(200))
    SigLLM(llm=Scripted({"": "50,"}, capabilities=["chat"]), score_by="forecast", window=20, threshold=TENTH).fit(
        wave(60)
    )


def test_a_saved_detector_gives_the_same_scores(tmp_path, monkeypatch):
    model = Scripted(log_prob=priced)
    monkeypatch.setattr(prompting, "open_model", lambda *where, **settings: model)
    detector = SigLLM(window=20, threshold=TENTH).fit(wave(200))
    again = load(detector.save(tmp_path / "model"))
    assert again.anomaly_score(wave(70)).tobytes() == detector.anomaly_score(wave(70)).tobytes()


# ---------------------------------------------------------------------- forecast


class Writing(Scripted):
    """Goes on as told, several times at once."""

    def __init__(self, answers, **settings):
        super().__init__(**settings)
        self.answers, self.asked = answers, []

    def complete(self, prompt, *, samples, max_tokens, temperature=1.0, seed=0, characters=None):
        self.asked.append((prompt, samples, max_tokens, temperature, seed, characters))
        with self.meter.call(samples) as tally:
            tally.tokens_out = samples
        return list(self.answers)


def forecaster(answers, **params):
    settings = {"digits": 2, "smoothing": 0.0, "window": 20, "samples": len(answers), "threshold": TENTH} | params
    return SigLLM("forecast", llm=Writing(answers), **settings)


def test_the_median_of_the_first_numbers_is_the_forecast():
    detector = forecaster(["40,99,99", "60,1", "50,0,"]).fit(wave(100))
    series = wave(30)
    found = detector.detect(series)
    offset, step, _ = detector.net_.codes[0].tolist()
    mean, std = wave(100).mean(), wave(100).std()
    expected = (50 * step + offset) * std + mean
    np.testing.assert_allclose(np.asarray(found.restored).ravel(), expected, rtol=1e-5)
    np.testing.assert_allclose(found.scores, np.abs(series - expected) / std, atol=1e-5)


def test_one_continuation_a_step_is_asked_for_in_digits_and_commas():
    detector = forecaster(["50,"] * 2).fit(wave(100))
    model = detector.language_model()
    model.asked.clear()
    detector.anomaly_score(wave(25))
    assert len(model.asked) == 25
    prompt, samples, limit, temperature, _, characters = model.asked[-1]
    assert (samples, limit, temperature, characters) == (2, 15, 1.0, "0123456789,")
    assert prompt.count(",") == 20
    assert prompt.endswith(",")


def test_kept_numbers_save_calls():
    detector = forecaster(["50,60,70,80,90"], keep=5).fit(wave(100))
    model = detector.language_model()
    model.asked.clear()
    restored = np.asarray(detector.restore(wave(25))).ravel()
    assert len(model.asked) == 5
    assert (np.diff(restored[:5]) > 0).all()
    np.testing.assert_allclose(restored[:5], restored[20:25])


def test_a_sample_that_cannot_be_read_is_left_out():
    detector = forecaster(["7,", "60,", ",,", "60,"]).fit(wave(100))
    alone = forecaster(["60,"]).fit(wave(100))
    np.testing.assert_allclose(detector.anomaly_score(wave(25)), alone.anomaly_score(wave(25)))
    assert set(detector.status_) == {"ok"}


def test_a_forecast_that_cannot_be_read_lies_between_its_neighbours():
    detector = forecaster(["40,"]).fit(wave(100))
    model, turns = detector.language_model(), iter(["40,", ",", "60,"] + ["60,"] * 97)
    model.complete = lambda prompt, **settings: [next(turns)]
    restored = np.asarray(detector.restore(wave(25))).ravel()
    assert restored[1] == pytest.approx((restored[0] + restored[2]) / 2, rel=1e-4)
    assert detector.status_[:3] == ["ok", "fallback", "ok"]


def test_a_service_is_asked_in_words_and_again_when_it_rambles():
    answers = iter(["Sure! Here you go.", "50,51,52"] * 500)
    model = Scripted(lambda messages: next(answers), capabilities=["chat"])
    detector = SigLLM("forecast", llm=model, window=20, samples=1, threshold=TENTH).fit(wave(60))
    scores = detector.anomaly_score(wave(20))
    assert np.isfinite(scores).all()
    last = model.requests[-1]
    assert "does not begin with a number of 2 digits" in last["messages"][-1]["content"]
    assert last["temperature"] == 1.0
    assert "<<<sequence" in last["messages"][1]["content"]


def test_no_readable_forecast_at_all_is_an_error_in_fit():
    with pytest.raises(InputError, match="gave no usable answer"):
        forecaster(["no"]).fit(wave(100))


def test_the_budget_stops_forecasts_too():
    detector = forecaster(["50,"]).fit(wave(100))
    model = detector.language_model()

    def spent(prompt, **settings):
        raise BudgetExhausted("tokens", 1, model.meter.usage)

    model.complete = spent
    with pytest.warns(DataWarning, match="25 time steps were not judged, 25 of them"):
        detector.anomaly_score(wave(25))


# ---------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"score_by": "nll"}, "score_by: 'nll' was given; use 'likelihood' or 'forecast'"),
        ({"digits": 0}, "digits: 0"),
        ({"digits": 10}, "digits: 10"),
        ({"decimals": -1}, "decimals: -1"),
        ({"overlap": 1.0}, "overlap: 1.0"),
        ({"overlap": 0}, "overlap: 0"),
        ({"smoothing": -0.1}, "smoothing: -0.1"),
        ({"samples": 0}, "samples: 0"),
        ({"keep": 6}, "keep: 6 was given; use at most 5"),
        ({"aggregate": 0}, "aggregate: 0"),
        ({"window": 1}, "window: 1"),
        ({"budget": 0}, "budget: 0"),
        ({"llm": 3}, "llm: a int"),
    ],
)
def test_wrong_parameters_are_named(params, message):
    with pytest.raises(GenadError, match=message):
        SigLLM(**{"llm": Scripted(log_prob=priced)} | params).fit(wave(100))


# ---------------------------------------------------------------------- the real model


def test_the_small_model_finds_spikes_of_noisy_waves(smol):
    found = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        x = np.sin(2 * np.pi * np.arange(220) / 25 + rng.uniform(0, 6)) + 0.1 * rng.normal(size=220)
        y = np.zeros(80, int)
        y[rng.choice(np.arange(10, 80), 4, replace=False)] = 1
        x[140:] += 1.2 * y * rng.choice([-1, 1], 80)
        detector = SigLLM(llm=smol, window=70, smoothing=0.0, holdout=0.1, threshold=TENTH).fit(x[:140])
        found.append(roc_auc_score(y, detector.anomaly_score(x[140:])))
    assert np.mean(found) > 0.8


def test_the_small_model_has_a_token_for_each_digit(smol):
    assert len(smol.tokens.encode("042,999,")) == 8


def test_held_to_digits_and_commas_the_small_model_writes_nothing_else(smol):
    detector = SigLLM("forecast", llm=smol, window=20, samples=3)
    detector.seed_ = 0
    answers = smol.complete("12,50,88," * 4, samples=3, max_tokens=9, seed=0, characters="0123456789,")
    assert all(set(answer) <= set("0123456789,") for answer in answers)
