"""Models from folders: a random GPT-2 through the same interface, against transformers itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from genad.errors import InputError, ModelFileError
from genad.foundation.llm import open_model
from genad.foundation.schema import validate

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("gpt")
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    names = {name: i for i, name in enumerate([*letters, "lo", "log", "Ġlog"])}
    coder = tokenizers.Tokenizer(tokenizers.models.BPE(names, [("l", "o"), ("lo", "g"), ("Ġ", "log")]))
    coder.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    coder.decoder = tokenizers.decoders.ByteLevel()
    coder.add_special_tokens(["<|end|>"])
    coder.save(str(path / "tokenizer.json"))
    settings = {"eos_token": "<|end|>", "chat_template": "{% for m in messages %}{{ m['content'] }}<|end|>{% endfor %}"}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=coder.get_vocab_size(), n_embd=32, n_layer=2, n_head=4, n_positions=512, eos_token_id=len(names)
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(path)
    return path


@pytest.fixture
def model(folder):
    return open_model(folder)


def test_likelihoods_are_those_of_transformers(model, folder):
    net = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = model.tokens.encode("a log") + model.tokens.encode(" log 12")
    with torch.no_grad():
        log_probs = net(torch.tensor([ids])).logits[0].log_softmax(-1)
    wanted = [float(log_probs[i - 1, ids[i]]) for i in range(2, len(ids))]
    (found,) = model.log_likelihood([" log 12"], ["a log"])
    np.testing.assert_allclose(found.log_probs, wanted, rtol=1e-4)
    assert model.next_token_log_probs(["a log"], [" log"])[0, 0] == pytest.approx(wanted[0], rel=1e-4)


def test_a_shared_beginning_and_batches_change_nothing(model):
    texts, contexts = [" log", " log 12", "x" * 20], ["the log: "] * 3
    together = model.log_likelihood(texts, contexts)
    for one, text in zip(together, texts, strict=True):
        np.testing.assert_allclose(one.log_probs, model.log_likelihood([text], ["the log: "])[0].log_probs, rtol=1e-4)
    np.testing.assert_allclose(model.embed(texts), [model.embed([text])[0] for text in texts], atol=1e-5)


def test_writing_freely_and_under_a_schema(model):
    assert model.chat("log", max_tokens=9) == model.chat("log", max_tokens=9, seed=4)
    schema = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}, "b": {"type": "integer"}}}
    validate(json.loads(model.chat("log", schema=schema, temperature=1.5, max_tokens=30).text), schema)
    samples = model.complete("1,2,", samples=2, max_tokens=6, characters="0123456789,")
    assert all(set(sample) <= set("0123456789,") for sample in samples)


def test_control_tokens_in_text_stay_words(model):
    ids = model.tokens.encode_chat([{"role": "user", "content": "a <|end|> b"}])
    assert ids.count(model.tokens.end) == 1
    assert model.tokens.decode(ids) == "a <|end|> b"


def test_what_folders_cannot_do(model, tmp_path):
    with pytest.raises(InputError, match="adapters work with models from GGUF files alone"):
        model.lora()
    with pytest.raises(InputError, match=r"lacks config\.json"):
        open_model(tmp_path).embed(["x"])
    (tmp_path / "config.json").write_text('{"model_type": "nothing"}')
    with pytest.raises(ModelFileError, match="transformers cannot read"):
        open_model(tmp_path).embed(["x"])
