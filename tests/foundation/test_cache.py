"""Answers on disk: asked once, replayed to the byte, kept apart, safe against damage; overhead of a call; budgets."""

from __future__ import annotations

import copy
import json
import pickle
import threading
import time

import numpy as np
import pytest

from genad.errors import InputError
from genad.foundation.answers import ask
from genad.foundation.cache import Cached, ReplayMissing, request_key
from genad.foundation.llm import Budget, BudgetExhausted, Meter, Reply
from genad.foundation.openai_backend import OpenAIBackend
from genad.foundation.prompts import load_prompt
from genad.foundation.scripted import Scripted
from genad.foundation.usage import Usage

GOOD = '[{"label": "abnormal", "reason": "fän \\u2028"}]'


def everything(model):
    """Use a model in all ways."""
    scores = model.log_likelihood(["disk is full", "ok"], ["a log: ", "b"])
    return [
        model.chat([{"role": "user", "content": "x"}], seed=3),
        model.chat("x", temperature=0.7, stop=["a"], schema={"type": "string"}),
        *(part for one in scores for part in (one.log_probs.tobytes(), one.spans.tobytes())),
        np.isnan(model.log_likelihood(["ok"])[0].log_probs).tolist(),
        model.next_token_log_probs(["p", [{"role": "user", "content": "q"}]], ["a", "b"]).tobytes(),
        model.embed(["disk", "fan", "disk"]).tobytes(),
    ]


@pytest.mark.parametrize("name", ["answers.sqlite", "answers.jsonl"])
def test_a_run_is_replayed_to_the_byte(tmp_path, name):
    path = tmp_path / name
    inner = Scripted([Reply(GOOD, "stop", 3, 4, (-0.1, -1 / 3)), "two"])
    with Cached(inner, path) as model:
        first = everything(model)
        assert model.misses == 9
        assert everything(model) == first
        calls = inner.meter.usage.calls
    written = path.read_bytes()
    with Cached(None, path, mode="replay") as model:
        assert everything(model) == first
        assert (model.name, model.capabilities) == ("scripted", inner.capabilities)
        assert model.misses == 0
        with pytest.raises(ReplayMissing, match="does not hold the answer"):
            model.chat("something else")
    assert path.read_bytes() == written
    assert inner.meter.usage.calls == calls


@pytest.mark.parametrize(
    "change",
    [{"temperature": 0.1}, {"seed": 1}, {"max_tokens": 9}, {"stop": ["x"]}, {"schema": {"type": "string"}}, {"who": 1}],
)
def test_whatever_changes_the_request_asks_anew(tmp_path, change):
    inner = Scripted(["one", "two"])
    with Cached(inner, tmp_path / "a.sqlite") as model:
        model.chat("x")
        settings = dict(change)
        message = [{"role": "system" if settings.pop("who", 0) else "user", "content": "x"}]
        assert model.chat(message, **settings).text == "two"


def test_other_models_are_kept_apart(tmp_path):
    for name in ("a", "b"):
        with Cached(Scripted([name], name=name), tmp_path / "a.sqlite") as model:
            assert model.chat("x").text == name
    with Cached(Scripted([], name="a"), tmp_path / "a.sqlite") as model:
        assert model.chat("x").text == "a"


def test_recording_asks_everything_once_more(tmp_path):
    path = tmp_path / "a.jsonl"
    for text in ("old", "new"):
        with Cached(Scripted([text]), path, mode="record") as model:
            assert [model.chat("x").text for _ in range(2)] == [text] * 2
    with Cached(None, path, mode="replay") as model:
        assert model.chat("x").text == "new"


def test_a_run_that_was_broken_off_goes_on_where_it_ended(tmp_path):
    texts = [f"line {i}" for i in range(200)]
    spent = Scripted(meter=Meter(Budget(calls=100)))
    with Cached(spent, tmp_path / "a.sqlite") as model, pytest.raises(BudgetExhausted):
        model.embed(texts)
    assert spent.meter.usage.calls == 64
    inner = Scripted()
    with Cached(inner, tmp_path / "a.sqlite") as model:
        vectors = model.embed(texts)
    assert inner.meter.usage.calls == 136
    np.testing.assert_array_equal(vectors, Scripted().embed(texts))


def test_neither_questions_nor_keys_are_written(tmp_path):
    class Keyed(Scripted):
        api_key = "sk-verysecret"

    for name in ("a.sqlite", "a.jsonl"):
        with Cached(Keyed(["answer"]), tmp_path / name) as model:
            model.chat("private log line")
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"answer" in kept
    assert b"private" not in kept
    assert b"verysecret" not in kept
    backend = OpenAIBackend("http://localhost:1/v1", "m", api_key="sk-verysecret")
    with pytest.raises(TypeError, match="is not written anywhere"):
        pickle.dumps(backend._key)
    assert copy.deepcopy(backend) is backend


def test_damaged_files(tmp_path):
    bad = tmp_path / "a.sqlite"
    bad.write_bytes(b"this is no data base, whatever it is called" * 30)
    with pytest.raises(InputError, match=r"cache: .* cannot be used"):
        Cached(Scripted(), bad)
    lines = tmp_path / "a.jsonl"
    lines.write_text("not json\n")
    with pytest.raises(InputError, match=r"cache: .* cannot be used"):
        Cached(Scripted(), lines)
    with pytest.raises(InputError, match=r"no file .* to replay"):
        Cached(None, tmp_path / "none.sqlite", mode="replay")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(InputError, match="says nothing of its model"):
        Cached(None, tmp_path / "empty.jsonl", mode="replay")
    with pytest.raises(InputError, match="mode: 'x'"):
        Cached(Scripted(), bad, mode="x")
    with pytest.raises(InputError, match="model: None was given"):
        Cached(None, tmp_path / "b.sqlite")


def test_a_writer_that_died_in_its_last_line_loses_that_line_alone(tmp_path):
    path = tmp_path / "a.jsonl"
    with Cached(Scripted(["one", "two"]), path) as model:
        model.chat("x")
        model.chat("y")
    path.write_bytes(path.read_bytes()[:-20])
    with Cached(Scripted(["again"]), path) as model:
        assert [model.chat("x").text, model.chat("y").text] == ["one", "again"]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_threads_and_several_users_of_one_file(tmp_path):
    path = tmp_path / "a.sqlite"
    found = []

    def work(number):
        with Cached(Scripted(lambda messages: messages[0]["content"].upper()), path) as model:
            found.extend(model.chat(f"text {i}").text == f"TEXT {i}" for i in range(number, number + 30))

    threads = [threading.Thread(target=work, args=(10 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 120
    assert all(found)


def test_keys_do_not_depend_on_the_order_of_names():
    assert request_key(a={"x": 1, "y": 2}) == request_key(a={"y": 2, "x": 1})
    assert request_key(a=1) != request_key(a=1.5)
    assert len(request_key(a="\ud800")) == 64


@pytest.mark.parametrize("kept", [False, True])
def test_the_layer_takes_less_than_two_milliseconds_a_call(tmp_path, kept):
    prompt = load_prompt("example", "triage")
    inner = Scripted(lambda _: '[{"label": "normal", "reason": "fine"}]')
    model = Cached(inner, tmp_path / "a.sqlite") if kept else inner
    lines = [f"081109 {i} INFO dfs.DataNode: Receiving block blk_{i} src: /10.0.0.1" for i in range(100)]
    spent = []
    for line in lines:
        start = time.perf_counter()
        ask(model, prompt, {"lines": [line], "count": 1})
        spent.append(time.perf_counter() - start)
    if kept:
        model.close()
    # The median, because other work on the machine may stop this one at any time.
    assert np.median(spent) < 2e-3


def test_meters_add_up_and_budgets_are_checked():
    assert Usage(2, 3, 4, 0.5, 1.0) - Usage(1, 1, 1, 0.5, 0.5) == Usage(1, 2, 3, 0.0, 0.5)
    assert Usage(tokens_in=2, tokens_out=3).tokens == 5
    for wrong in ({"tokens": -1}, {"cost": float("nan")}, {"calls": True}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Budget(**wrong)
    with pytest.raises(InputError, match="price_in"):
        Meter(price_in=-1.0)
    with pytest.raises(BudgetExhausted, match="seconds=0 is spent"), Meter(Budget(seconds=0)).call():
        pass
