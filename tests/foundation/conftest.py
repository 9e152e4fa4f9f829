"""The misbehaving service, a tiny model file, and the real small models."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from genad.errors import MissingExtraError
from genad.foundation.gguf import smollm2_path
from genad.foundation.local_lm import LocalModel


@pytest.fixture(scope="session")
def loopback():
    """The module with the service, the answers and the faults."""
    spec = importlib.util.spec_from_file_location("loopback", Path(__file__).with_name("loopback.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def smol():
    """SmolLM2-135M-Instruct."""
    try:
        smollm2_path()
    except MissingExtraError as error:
        pytest.skip(str(error))
    return LocalModel()


SIZES = {"blocks": 2, "width": 32, "heads": 4, "key_heads": 2, "feed_forward": 48, "context": 4096}


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory):
    """A GGUF file of a random model of two blocks, whose tokens are bytes, a few pairs and the digits."""
    gguf = pytest.importorskip("gguf")
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in printable] + [chr(256 + n) for n in range(256 - len(printable))]
    merges = [("l", "o"), ("lo", "g"), ("Ġ", "log"), ("o", "k"), ("Ġ", "ok")]
    names = ["<|end|>", "<|turn|>", *letters, *("".join(pair) for pair in merges)]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(SIZES["blocks"])
    writer.add_embedding_length(SIZES["width"])
    writer.add_head_count(SIZES["heads"])
    writer.add_head_count_kv(SIZES["key_heads"])
    writer.add_feed_forward_length(SIZES["feed_forward"])
    writer.add_context_length(SIZES["context"])
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(names)
    writer.add_token_types([3, 3] + [1] * (len(names) - 2))
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(0)
    writer.add_chat_template(
        "{% for message in messages %}<|turn|>{{ message['role'] }}:{{ message['content'] }}{% endfor %}<|turn|>"
    )
    rng = np.random.default_rng(0)
    width, inner, keys = SIZES["width"], SIZES["feed_forward"], SIZES["width"] * SIZES["key_heads"] // SIZES["heads"]

    def add(name, *shape):
        scale = 1.0 if len(shape) == 1 else shape[-1] ** -0.5
        values = rng.normal(1.0 if len(shape) == 1 else 0.0, 0.1 if len(shape) == 1 else scale, shape)
        writer.add_tensor(name, values.astype(np.float32))

    add("token_embd.weight", len(names), width)
    add("output_norm.weight", width)
    for block in range(SIZES["blocks"]):
        for name, *shape in (
            ("attn_norm", width), ("ffn_norm", width), ("attn_q", width, width), ("attn_k", keys, width),
            ("attn_v", keys, width), ("attn_output", width, width), ("ffn_gate", inner, width),
            ("ffn_up", inner, width), ("ffn_down", width, inner),
        ):  # fmt: skip
            add(f"blk.{block}.{name}.weight", *shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def tiny(tiny_file):
    """The random model of two blocks."""
    return LocalModel(tiny_file)
