"""Vectors of sentences: against another implementation, batches, known similarities, errors."""

from __future__ import annotations

import json

import numpy as np
import pytest

from genad.errors import InputError, MissingExtraError, ModelFileError
from genad.foundation.llm import Budget, BudgetExhausted, CapabilityError, Meter
from genad.foundation.sentence import SentenceModel, minilm_path

pytest.importorskip("tokenizers")
TEXTS = [
    "Out of memory: killed process",
    "oom-killer terminated a process",
    "lunch is served",
    "",
    "word " * 600,
    "081109 INFO dfs.DataNode: Receiving block",
]


@pytest.fixture(scope="module")
def minilm():
    try:
        minilm_path()
    except MissingExtraError as error:
        pytest.skip(str(error))
    return SentenceModel()


def test_known_similarities(minilm):
    vectors = minilm.embed(TEXTS[:3])
    assert (vectors.shape, vectors.dtype) == ((3, 384), np.float32)
    assert vectors[0] @ vectors[1] == pytest.approx(0.637, abs=0.002)
    assert abs(vectors[0] @ vectors[2]) < 0.2


def test_same_as_another_implementation(minilm):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    folder = str(minilm_path())
    coder = transformers.AutoTokenizer.from_pretrained(folder)
    net = transformers.AutoModel.from_pretrained(folder).eval()
    texts = [TEXTS[0], TEXTS[5]]
    coded = coder(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = net(**coded).last_hidden_state
    shares = coded["attention_mask"][..., None].float()
    wanted = torch.nn.functional.normalize((states * shares).sum(1) / shares.sum(1), dim=1).numpy()
    np.testing.assert_allclose(minilm.embed(texts), wanted, atol=1e-5)


def test_neither_batch_nor_order_matters(minilm):
    together = minilm.embed(TEXTS)
    np.testing.assert_allclose(together, [minilm.embed([text])[0] for text in TEXTS], atol=1e-5)
    np.testing.assert_allclose(together[::-1], minilm.embed(TEXTS[::-1]), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(minilm.embed(TEXTS * 2), np.r_[together, together])
    assert minilm.embed([]).shape == (0, 384)


def test_the_tail_of_a_long_text_is_left_out(minilm):
    start = "disk full " * 130
    np.testing.assert_array_equal(minilm.embed([start + "x"]), minilm.embed([start + "other end"]))
    short = SentenceModel(longest=8)
    np.testing.assert_array_equal(short.embed(["disk full " * 9]), short.embed(["disk full " * 20]))
    assert short.name != minilm.name


def test_a_budget_stops_it():
    model = SentenceModel(meter=Meter(Budget(calls=2)))
    with pytest.raises(BudgetExhausted):
        model.embed(["a", "b", "c"])


def test_wrong_arguments_and_files(minilm, tmp_path):
    with pytest.raises(InputError, match="longest: 2 was given"):
        SentenceModel(longest=2)
    with pytest.raises(InputError, match=r"lacks config.json, tokenizer.json, model.safetensors"):
        SentenceModel(tmp_path).embed(["x"])
    for name in ("tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(InputError, match="holds a 'gpt2' model"):
        SentenceModel(tmp_path).embed(["x"])
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelFileError, match="cannot be read"):
        SentenceModel(tmp_path).embed(["x"])
    with pytest.raises(CapabilityError, match="offers embedding and not chat"):
        minilm.chat("x")
