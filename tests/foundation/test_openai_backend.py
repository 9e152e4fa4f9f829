"""The service of the OpenAI protocol: every fault, retries, keys, cancellation, likelihoods."""

from __future__ import annotations

import email.utils
import logging
import socket
import threading
import time

import numpy as np
import pytest

from genad.errors import InputError
from genad.foundation.answers import ABSTAIN, ask, ask_each
from genad.foundation.backoff import Backoff
from genad.foundation.cache import Cached
from genad.foundation.llm import (
    Budget,
    BudgetExhausted,
    Cancelled,
    CapabilityError,
    Meter,
    ModelServiceError,
    open_model,
)
from genad.foundation.openai_backend import OpenAIBackend
from genad.foundation.prompts import load_prompt

pytest.importorskip("openai")
KEY = "sk-verysecret-0123456789"
GOOD = '[{"label": "abnormal", "reason": "fan"}]'
BAD_TEXTS = {
    "truncated": '[{"label": "abn',
    "prose": "I am sorry, but I cannot help with logs.",
    "count": '[{"label": "normal", "reason": "a"}, {"label": "normal", "reason": "b"}]',
    "no json": "```python\nprint('abnormal')\n```",
    "nan": '[{"label": NaN, "reason": "a"}]',
    "twice": '[{"label": "normal", "label": "abnormal", "reason": "a"}]',
    "other language": "Diese Zeile ist in Ordnung.",
    "empty": "",
    "deep": "[" * 5000,
}


@pytest.fixture
def backend():
    """Make backends that wait little and are closed after the test."""
    made = []

    def make(server, **settings):
        url = server if isinstance(server, str) else server.base_url
        model = OpenAIBackend(url, **{"model": "tiny", "first_wait": 0.01, "timeout": 5.0, **settings})
        made.append(model)
        return model

    yield make
    for model in made:
        model.close()


@pytest.fixture(scope="module")
def triage():
    return load_prompt("example", "triage")


def judge(model, triage, **settings):
    return ask(model, triage, {"lines": ["fan stopped"], "count": 1}, **settings)


def test_a_good_answer_and_what_was_sent(loopback, backend, triage):
    with loopback.Loopback(GOOD) as server:
        model = backend(server, meter=Meter(price_in=1.0, price_out=10.0))
        answer = judge(model, triage)
    assert (answer.status, answer.value) == ("ok", [{"label": "abnormal", "reason": "fan"}])
    assert model.meter.usage.calls == 1
    assert (model.meter.usage.tokens_in, model.meter.usage.tokens_out) == (11, 7)
    assert model.meter.usage.cost == pytest.approx(81e-6)
    (sent,) = server.requests
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]
    assert (sent["temperature"], sent["max_tokens"], sent["seed"]) == (0.0, 400, 0)
    assert sent["response_format"]["json_schema"]["schema"]["maxItems"] == 1
    assert server.headers[0]["authorization"] == "Bearer none"
    assert not {"openai-organization", "openai-project"} & set(server.headers[0])


@pytest.mark.parametrize("fault", BAD_TEXTS)
def test_bad_text_is_asked_again_with_what_is_wrong(loopback, backend, triage, fault):
    finish = "length" if fault == "truncated" else "stop"
    with loopback.Loopback(loopback.chat(BAD_TEXTS[fault], finish), GOOD) as server:
        answer = judge(backend(server), triage)
    assert (answer.status, answer.value[0]["label"]) == ("retried", "abnormal")
    assert len(server.requests) == 2
    last = server.requests[1]["messages"]
    assert answer.problems[0] in last[-1]["content"]
    assert last[:2] == server.requests[0]["messages"]
    assert [message["role"] for message in last[2:]] == (["user"] if fault == "empty" else ["assistant", "user"])
    assert ("cut off" in last[-1]["content"]) == (fault == "truncated")


@pytest.mark.parametrize(
    "body",
    [{"id": "x"}, {"choices": []}, {"choices": [{"message": None}]}, [], {"choices": [{"message": {"content": 5}}]}],
)
def test_answers_in_a_strange_form_are_bad_text_and_no_crash(loopback, backend, triage, body):
    with loopback.Loopback(loopback.Fault(200, body), GOOD) as server:
        assert judge(backend(server), triage).status == "retried"


def test_an_answer_that_is_no_json_at_all(loopback, backend):
    with loopback.Loopback(loopback.Fault(raw="<html>hello</html>"), loopback.Fault(raw='{"choices": [')) as server:
        model = backend(server)
        assert [model.chat("x").status for _ in range(2)] == ["malformed", "malformed"]


@pytest.mark.parametrize(
    "text",
    [
        f"```json\n{GOOD}\n```",
        f"Here you are:\n{GOOD}\nI hope this helps.",
        "[{'label': 'Abnormal', 'reason': 'fan',},]",
        '[{"label": "abnormal", "reason": "fan", "sure": true}]',
    ],
)
def test_text_that_can_be_mended_is_not_asked_again(loopback, backend, triage, text):
    with loopback.Loopback(text) as server:
        answer = judge(backend(server), triage)
    assert (answer.status, answer.value) == ("repaired", [{"label": "abnormal", "reason": "fan"}])
    assert len(server.requests) == 1


def test_fallback_and_abstention_after_the_last_retry(loopback, backend, triage):
    with loopback.Loopback("no") as server:
        model = backend(server)
        assert judge(model, triage, fallback=[]).status == "fallback"
        answer = judge(model, triage, retries=1, fallback=ABSTAIN)
    assert (answer.status, answer.value, len(answer.problems)) == ("abstained", None, 2)
    assert len(server.requests) == 3 + 2


def test_a_much_too_long_answer_is_cut(loopback, backend):
    with loopback.Loopback("blah " * 10_000) as server:
        reply = backend(server).chat("x", max_tokens=10)
    assert (reply.status, len(reply.text)) == ("cut", 320)


def test_refusals_have_a_status(loopback, backend):
    refused = loopback.chat(None)
    refused["choices"][0]["message"]["refusal"] = "I cannot"
    with loopback.Loopback(refused, loopback.chat("x", "content_filter")) as server:
        model = backend(server)
        assert [model.chat("x").status, model.chat("x").status] == ["refused", "refused"]


def test_busy_and_broken_services_are_asked_again(loopback, backend):
    with loopback.Loopback(loopback.Fault(500), loopback.Fault(429), loopback.Fault(503), "fine") as server:
        model = backend(server)
        assert model.chat("x").text == "fine"
    assert len(server.requests) == 4
    assert model.meter.usage.calls == 1


def test_retry_after_is_honoured(loopback, backend):
    slow = loopback.Fault(429, headers={"Retry-After": "0.4"})
    with loopback.Loopback(slow, "fine") as server:
        start = time.monotonic()
        assert backend(server).chat("x").text == "fine"
        assert 0.4 <= time.monotonic() - start < 3.0


def test_a_wait_that_is_too_long_ends_the_call(loopback, backend):
    slow = loopback.Fault(429, headers={"Retry-After": "3600"})
    with loopback.Loopback(slow) as server, pytest.raises(ModelServiceError, match="status 429"):
        backend(server).chat("x")
    assert len(server.requests) == 1


def test_retries_end(loopback, backend):
    message = r"status 500\) after 3 attempts"
    with loopback.Loopback(loopback.Fault(500)) as server, pytest.raises(ModelServiceError, match=message):
        backend(server, retries=2).chat("x")
    assert len(server.requests) == 3


def test_an_empty_account_is_not_asked_again(loopback, backend):
    broke = loopback.Fault(429, {"error": {"message": "insufficient_quota: pay first"}})
    with loopback.Loopback(broke) as server, pytest.raises(ModelServiceError, match="pay first"):
        backend(server).chat("x")
    assert len(server.requests) == 1


def test_a_service_that_hangs(loopback, backend):
    with loopback.Loopback(loopback.Fault(hang=1.0), loopback.chat("late but fine")) as server:
        assert backend(server, timeout=0.3).chat("x").text == "late but fine"
        server.script = [loopback.Fault(hang=1.0)]
        with pytest.raises(ModelServiceError, match=r"timeout: .* within 0.2 s after 2 attempts"):
            backend(server, timeout=0.2, retries=1).chat("x")


def test_nobody_there(backend):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ModelServiceError, match=r"base_url: .* cannot be reached .* after 2 attempts"):
        backend(f"http://127.0.0.1:{port}/v1", retries=1).chat("x")


def test_unknown_model_names_those_on_offer(loopback, backend):
    message = r"model: 'huge' is not known .* it offers small, large"
    service = loopback.Loopback("x", models=("small", "large"))
    with service as server, pytest.raises(ModelServiceError, match=message):
        backend(server, model="huge").chat("x")


def test_wrong_address(loopback, backend):
    message = r"base_url: .* mostly end in /v1"
    with loopback.Loopback("x", models=()) as server, pytest.raises(ModelServiceError, match=message):
        backend(server.base_url.removesuffix("/v1") + "/v2").chat("x")


@pytest.mark.parametrize("part", ["response_format", "temperature", "seed", "max_tokens"])
def test_parts_a_service_does_not_know_are_left_out(loopback, backend, part):
    def picky(body):
        if part in body:
            return loopback.Fault(400, {"error": {"message": f"Unsupported: {part}", "param": part}})
        return "fine"

    with loopback.Loopback(picky) as server:
        model = backend(server)
        for _ in range(2):
            assert model.chat("x", schema={"type": "string"}, max_tokens=9).text == "fine"
    assert len(server.requests) == 3
    assert ("max_completion_tokens" in server.requests[-1]) == (part == "max_tokens")
    assert ("json_schema" in model.capabilities) == (part != "response_format")


def test_the_key_is_never_shown(loopback, backend, tmp_path, caplog, monkeypatch, capfd):
    monkeypatch.setenv("MY_LLM_KEY", KEY)
    with caplog.at_level(logging.DEBUG), loopback.Loopback("fine", key=KEY) as server:
        with Cached(backend(server, api_key_env="MY_LLM_KEY"), tmp_path / "a.sqlite") as model:
            assert model.chat("x").text == "fine"
        direct = backend(server, api_key=KEY)
        assert direct.chat("x").text == "fine"
        server.key = "another"
        with pytest.raises(ModelServiceError, match="api_key_env: a key is not accepted") as caught:
            direct.chat("x")
        server.key = None
        server.script = [loopback.Fault(418, {"error": {"message": f"bad key {KEY}"}})]
        with pytest.raises(ModelServiceError, match=r"bad key \*\*\*") as caught_again:
            direct.chat("x")
        shown = [repr(direct), str(direct.__dict__), caplog.text, *capfd.readouterr()]
    for error in (caught.value, caught_again.value):
        while error is not None:
            shown += [str(error), repr(error), str(vars(error))]
            error = error.__cause__ or error.__context__
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert "fine" in kept.decode("utf-8", "replace")
    assert KEY not in "".join(shown)
    assert KEY.encode() not in kept


def test_a_key_that_is_missing(loopback, backend, monkeypatch):
    monkeypatch.delenv("MY_LLM_KEY", raising=False)
    with loopback.Loopback("fine", key=KEY) as server:
        with pytest.raises(InputError, match="api_key_env: the environment variable named there is not set"):
            backend(server, api_key_env="MY_LLM_KEY").chat("x")
        with pytest.raises(ModelServiceError, match="a key is needed, and none was given"):
            backend(server).chat("x")


def test_no_key_of_the_environment_is_sent_unasked(loopback, backend, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "our-org")
    with loopback.Loopback("fine") as server:
        backend(server).chat("x")
    assert not [name for name, value in server.headers[0].items() if KEY in value or "our-org" in value]


def test_a_budget_that_ends_half_way_leaves_a_partial_answer(loopback, backend, triage, tmp_path):
    rows = [{"lines": [f"line {i}"], "count": 1} for i in range(6)]
    with loopback.Loopback(GOOD) as server:
        with Cached(backend(server, meter=Meter(Budget(calls=4)), concurrency=1), tmp_path / "a.sqlite") as model:
            answers = ask_each(model, triage, rows)
        assert [answer.status for answer in answers] == ["ok"] * 4 + ["unasked"] * 2
        assert "calls=4 is spent" in answers[-1].problems[0]
        with Cached(backend(server), tmp_path / "a.sqlite") as model:
            assert [answer.status for answer in ask_each(model, triage, rows)] == ["ok"] * 6
    assert len(server.requests) == 6


@pytest.mark.parametrize(("limit", "calls"), [({"tokens": 30}, 2), ({"cost": 40e-6}, 1), ({"calls": 3}, 3)])
def test_every_limit_of_a_budget(loopback, backend, limit, calls):
    with loopback.Loopback("fine") as server:
        model = backend(server, meter=Meter(Budget(**limit), price_in=1.0, price_out=10.0))
        for _ in range(calls):
            model.chat("x")
        with pytest.raises(BudgetExhausted) as caught:
            model.chat("x")
    assert len(server.requests) == calls
    assert caught.value.limit == next(iter(limit))


def test_no_more_requests_at_once_than_allowed_and_answers_in_order(loopback, backend, triage):
    def echo(body):
        number = body["messages"][-1]["content"].split("line ")[1][0]
        return loopback.Fault(200, loopback.chat(f'[{{"label": "normal", "reason": "{number}"}}]'), hang=0.05)

    with loopback.Loopback(echo) as server:
        answers = ask_each(
            backend(server, concurrency=3), triage, [{"lines": [f"line {i}"], "count": 1} for i in range(8)]
        )
    assert [answer.value[0]["reason"] for answer in answers] == list("01234567")
    assert 2 <= server.most_busy <= 3


def test_calls_can_be_cancelled(loopback, backend, triage):
    with loopback.Loopback(loopback.Fault(hang=1.5)) as server:
        model = backend(server, timeout=30.0)
        timer = threading.Timer(0.4, model.cancel)
        timer.start()
        start = time.monotonic()
        with pytest.raises(Cancelled):
            model.chat("x")
        assert time.monotonic() - start < 1.4
        timer.join()
        with pytest.raises(Cancelled, match="resume"):
            model.chat("x")
        assert judge_all(model, triage) == ["unasked"] * 2
        model.resume()
        server.script = ["fine"]
        assert model.chat("x").text == "fine"


def judge_all(model, triage):
    rows = [{"lines": ["fan stopped"], "count": 1}] * 2
    return [answer.status for answer in ask_each(model, triage, rows)]


def test_next_token_log_probs(loopback, backend):
    top = [{"token": " abnormal", "logprob": -0.5}, {"token": "norm", "logprob": -1.5}, {"token": "?", "logprob": -4.0}]
    body = loopback.chat("abnormal", logprobs={"content": [{"token": "x", "logprob": -0.5, "top_logprobs": top}]})
    with loopback.Loopback(body) as server:
        found = backend(server).next_token_log_probs(["a", "b"], ["normal", "abnormal", "unsure"])
    assert found.tolist() == [[-1.5, -0.5, -4.0]] * 2
    assert (server.requests[0]["max_tokens"], server.requests[0]["top_logprobs"]) == (1, 20)


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        ({"type": "array", "items": {"type": "integer"}}, False),
        ({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, False),
        (
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": [], "additionalProperties": False},
            False,
        ),
        (
            {"type": "object", "properties": {"a": {"enum": ["x"]}}, "required": ["a"], "additionalProperties": False},
            True,
        ),
    ],
)
def test_a_schema_is_strict_only_where_every_service_can_hold_to_it(loopback, backend, schema, strict):
    with loopback.Loopback("{}") as server:
        backend(server).chat("x", schema=schema)
    assert server.requests[0]["response_format"]["json_schema"]["strict"] is strict


def test_services_without_log_probs_say_so(loopback, backend):
    with loopback.Loopback("normal") as server, pytest.raises(CapabilityError, match="gave no log-probabilities"):
        backend(server).next_token_log_probs(["a"], ["normal"])


def test_echoed_likelihoods(loopback, backend):
    scores = {"token_logprobs": [None, -1.0, -2.0, -9.0], "text_offset": [0, 3, 5, 8], "tokens": ["abc"] * 4}
    with loopback.Loopback({"choices": [{"text": "", "logprobs": scores}], "usage": {"prompt_tokens": 3}}) as server:
        model = backend(server, echo=True)
        (found,) = model.log_likelihood([" def, "[:5]], ["abc"])
        (alone,) = model.log_likelihood(["abc def,"])
    assert server.paths[0] == "/v1/completions"
    assert found.log_probs.tolist() == [-1.0, -2.0]
    assert found.spans.tolist() == [[0, 2], [2, 5]]
    assert np.isnan(alone.log_probs[0])
    assert alone.nats == 1.5


def test_embeddings_come_back_in_order_and_at_length_one(loopback, backend):
    def vectors(body):
        data = [{"index": i, "embedding": [float(len(text)), 1.0]} for i, text in enumerate(body["input"])]
        return {"data": data[::-1], "usage": {"prompt_tokens": 5}}

    with loopback.Loopback(vectors) as server:
        found = backend(server, embedding_model="tiny").embed(["a", "abc"] * 40)
    assert (found.shape, found.dtype) == ((80, 2), np.float32)
    np.testing.assert_allclose(found[:2], [[2**-0.5] * 2, [3 / 10**0.5, 1 / 10**0.5]], rtol=1e-6)
    assert len(server.requests) == 2


@pytest.mark.parametrize("data", [[], [{"index": 0, "embedding": ["x"]}], [{"index": 0, "embedding": [float("nan")]}]])
def test_unusable_vectors(loopback, backend, data):
    with loopback.Loopback({"data": data}) as server, pytest.raises(ModelServiceError, match="no usable vectors"):
        backend(server, embedding_model="tiny").embed(["a"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": "localhost:1"}, "base_url: 'localhost:1' was given"),
        ({"base_url": f"http://me:{KEY}@host/v1"}, "base_url: holds a name, password or query"),
        ({"api_key": KEY, "api_key_env": "X"}, "api_key: was given beside api_key_env"),
        ({"retries": -1}, "retries: -1 was given"),
        ({"concurrency": 0}, "concurrency: 0 was given"),
        ({"timeout": 0.0}, "timeout: 0.0 was given"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(InputError) as caught:
        OpenAIBackend(**{"base_url": "http://h/v1", "model": "m", **settings})
    assert message in str(caught.value)
    assert KEY not in str(caught.value)


def test_what_is_not_declared_is_refused():
    model = open_model("http://localhost:1/v1", "m")
    with pytest.raises(CapabilityError, match="offers chat, json_schema, next_token and not embedding"):
        model.embed(["x"])
    with pytest.raises(CapabilityError, match="not log_likelihood"):
        model.log_likelihood(["x"])
    with pytest.raises(InputError, match="llm_model: none was given"):
        open_model("http://localhost:1/v1")
    with pytest.raises(InputError, match="without an address"):
        open_model(None, "m")


def test_waits_double_are_seeded_and_have_an_end():
    waits = [[Backoff(1.0, 8.0, seed).wait(n) for n in range(6)] for seed in (0, 0, 1)]
    assert waits[0] == waits[1] != waits[2]
    one = Backoff(1.0, 8.0)
    assert all(0.5 * min(2**n, 8) <= one.wait(n) <= min(2**n, 8) for n in range(6))
    date = email.utils.formatdate(time.time() + 5, usegmt=True)
    assert 3.0 < one.wait(0, {"retry-after": date}) <= 5.0
    assert one.wait(0, {"retry-after": "soon"}) <= 1.0
    assert one.wait(0, {"retry-after": "9"}) is None
