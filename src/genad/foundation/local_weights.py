"""A language model in memory: the file read once, whoever uses it."""

from __future__ import annotations

import functools
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from genad.errors import InputError
from genad.foundation.gguf import GGUFFile
from genad.foundation.llama import Llama, LlamaShape
from genad.foundation.tokens import Tokens

if TYPE_CHECKING:
    from genad.foundation.transformers_lm import TransformersNet

_IN_BLOCK = {
    "norm": "attn_norm", "feed_norm": "ffn_norm", "q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output",
    "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down",
}  # fmt: skip


@dataclass(frozen=True)
class LoadedModel:
    """A network, its vocabulary, a checksum of its file, and the lock of who computes."""

    net: Llama | TransformersNet
    tokens: Tokens
    checksum: int
    lock: threading.Lock


@functools.lru_cache(maxsize=2)
def load_model(path: Path, device: str) -> LoadedModel:
    """Read a model once for all who use it.

    Raises
    ------
    InputError
        When there is no such file or its architecture is another.
    ModelFileError
        When the file is damaged.
    """
    if path.is_dir():
        from genad.foundation.transformers_lm import load_folder

        checksum = 0
        for part in sorted(path.glob("*.safetensors")):
            checksum = zlib.crc32(part.read_bytes(), checksum)
        return LoadedModel(*load_folder(path, device), checksum, threading.Lock())
    file = GGUFFile(path)
    if file.fields.get("general.architecture") != "llama":
        raise InputError(
            f"path: {path.name} holds the architecture {file.fields.get('general.architecture')!r}; files of the "
            "architecture 'llama' (Llama, SmolLM2, Mistral) run here, others behind a server (llm='http://...')."
        )
    setting = file.setting
    vocabulary = file.tensors["token_embd.weight"].shape[0] if "token_embd.weight" in file.tensors else 0
    shape = LlamaShape(
        blocks=setting("block_count"),
        width=setting("embedding_length"),
        heads=setting("attention.head_count"),
        key_heads=setting("attention.head_count_kv", setting("attention.head_count")),
        feed_forward=setting("feed_forward_length"),
        vocabulary=vocabulary,
        context=setting("context_length"),
        rotary_base=setting("rope.freq_base", 10_000.0),
        epsilon=setting("attention.layer_norm_rms_epsilon"),
    )
    names = {"embedding": "token_embd.weight", "norm": "output_norm.weight"}
    names |= {
        wanted: name
        for wanted, name in (("output", "output.weight"), ("wave_factors", "rope_freqs.weight"))
        if name in file.tensors
    }
    for block in range(shape.blocks):
        names |= {f"{block}.{wanted}": f"blk.{block}.{name}.weight" for wanted, name in _IN_BLOCK.items()}
    with torch.inference_mode(mode=False):  # else the weights could never serve in training
        weights = {wanted: torch.from_numpy(file.read(name)) for wanted, name in names.items()}
        net = Llama(shape, weights).eval().to(torch.device(device))
    return LoadedModel(net, Tokens(file.fields, path), zlib.crc32(path.read_bytes()), threading.Lock())
