"""llama.cpp beside the local model: the same numbers from the same file, answers held to a schema, clear refusals."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest

from genad.errors import InputError, MissingExtraError, ModelFileError
from genad.foundation.llama_cpp import LlamaCppModel
from genad.foundation.llm import Budget, BudgetExhausted, LanguageModel, Meter, need, open_model
from genad.foundation.schema import validate
from genad.representation.llm.line_likelihood import LineLikelihood

installed = importlib.util.find_spec("llama_cpp") is not None
compiled = pytest.mark.skipif(not installed, reason="llama-cpp-python, which is compiled when installed, is missing")


@pytest.fixture(scope="module")
def fast(tiny_file):
    return LlamaCppModel(tiny_file, context=256, threads=1)


def test_it_is_opened_by_its_prefix_and_loads_nothing(tiny_file):
    model = open_model("llamacpp:models/x.gguf", threads=1)
    assert repr(model) == "LlamaCppModel('models/x.gguf')"
    assert repr(open_model("llamacpp:")) == "LlamaCppModel()"
    need(model, "chat", "json_schema", "log_likelihood", "next_token", who="X")
    with pytest.raises(InputError, match="llm: there is no file"):
        model.log_likelihood(["x"])
    assert isinstance(LlamaCppModel(tiny_file), LanguageModel)


@pytest.mark.parametrize(("settings", "word"), [({"context": 4}, "context: 4"), ({"threads": True}, "threads: True")])
def test_wrong_settings(settings, word):
    with pytest.raises(InputError, match=word):
        LlamaCppModel(**settings)


def test_a_detector_names_the_missing_file():
    with pytest.raises(InputError, match=r"llm: 'llamacpp:no\.gguf' is neither"):
        LineLikelihood(llm="llamacpp:no.gguf").fit([["a"], ["b"]] * 20)


@pytest.mark.skipif(installed, reason="llama-cpp-python is installed")
def test_one_message_says_what_to_install(tiny_file):
    with pytest.raises(MissingExtraError, match=r'pip install "genad\[llamacpp\]"'):
        LlamaCppModel(tiny_file).chat("x")


@compiled
def test_likelihoods_are_the_local_models(fast, tiny):
    texts, contexts = [" log ok", "x12", "", "é ok"], ["a log", "the", "x", "log"]
    for theirs, ours in zip(fast.log_likelihood(texts, contexts), tiny.log_likelihood(texts, contexts), strict=True):
        np.testing.assert_allclose(theirs.log_probs, ours.log_probs, atol=0.02)
        np.testing.assert_array_equal(theirs.spans, ours.spans)
    (theirs,), (ours,) = fast.log_likelihood(["log ok"]), tiny.log_likelihood(["log ok"])
    assert np.isnan(theirs.log_probs[0])
    np.testing.assert_allclose(theirs.log_probs[1:], ours.log_probs[1:], atol=0.02)


@compiled
def test_next_tokens_are_the_local_models(fast, tiny):
    prompts = ["a log", [{"role": "user", "content": "log <|end|> ok"}]]
    for candidates in ([" ok"], [" ok", " okk"], ["1", "2"]):
        theirs, ours = (model.next_token_log_probs(prompts, candidates) for model in (fast, tiny))
        np.testing.assert_allclose(theirs, ours, atol=0.02)


@compiled
def test_control_tokens_in_text_stay_words(fast, tiny):
    said = [{"role": "user", "content": "<|turn|>assistant:<|end|>"}]
    assert fast._prompt_ids(said) == tiny.tokens.encode_chat(said)


@compiled
def test_the_most_probable_answer_is_the_local_models(fast, tiny):
    theirs, ours = (model.chat("log", max_tokens=6) for model in (fast, tiny))
    # Half a character at the end is left out there, and marked here.
    assert (theirs.text, theirs.status, theirs.tokens_in, theirs.tokens_out) == (
        ours.text.rstrip("\ufffd"), ours.status, ours.tokens_in, ours.tokens_out,
    )  # fmt: skip
    again = [fast.chat("log", temperature=1.5, seed=seed, max_tokens=12).text for seed in (0, 0, 1)]
    assert again[0] == again[1] != again[2]


@compiled
def test_an_answer_is_held_to_its_schema(fast):
    schema = {
        "type": "object",
        "required": ["label", "sure"],
        "additionalProperties": False,
        "properties": {"label": {"enum": ["normal", "abnormal"]}, "sure": {"type": "boolean"}},
    }
    for seed in range(3):
        reply = fast.chat("log", schema=schema, temperature=2.0, seed=seed, max_tokens=80)
        assert reply.status == "ok"
        validate(json.loads(reply.text), schema)


@compiled
def test_budgets_and_wrong_arguments(fast, tiny_file, tmp_path):
    model = LlamaCppModel(tiny_file, context=64, threads=1, meter=Meter(Budget(calls=2)))
    model.log_likelihood(["log ok", "ok log"])
    with pytest.raises(BudgetExhausted, match="calls=2 is spent"):
        model.log_likelihood(["log ok"])
    for call, message in (
        (lambda: fast.log_likelihood(["a"], []), "contexts: 0 were given for 1 texts"),
        (lambda: fast.log_likelihood(["x" * 400]), "texts: 399 tokens"),
        (lambda: fast.chat("log", max_tokens=300), "messages: .* more than the context of 256"),
        (lambda: fast.next_token_log_probs([""], ["a"]), "prompts: an empty one"),
        (lambda: fast.next_token_log_probs(["a"], [""]), "candidates: "),
        (lambda: fast.embed(["a"]), "embed"),
    ):
        with pytest.raises(InputError, match=message):
            call()
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(tiny_file.read_bytes()[:3000])
    with pytest.raises(ModelFileError, match=r"broken\.gguf: llama\.cpp cannot read it"):
        LlamaCppModel(broken).chat("x")
