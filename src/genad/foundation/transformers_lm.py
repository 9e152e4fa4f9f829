"""Language models of any architecture from a folder in the format of Hugging Face, computed by transformers.

They offer what :class:`~genad.foundation.local_lm.LocalModel` offers for GGUF files, except adapters.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genad.errors import InputError, ModelFileError
from genad.extras import require
from genad.foundation.llama import LlamaShape
from genad.foundation.tokens import Tokens

_UNKNOWN_CONTEXT = 2048  # positions, of models that do not say


class TransformersCache:
    """Keys and values of the positions already seen, as transformers keeps them; it grows by itself."""

    room = 1 << 30

    def __init__(self, values: Any) -> None:
        self.values = values

    @property
    def length(self) -> int:
        """Number of positions seen."""
        return int(self.values.get_seq_length())

    def repeated(self, rows: int, room: int) -> TransformersCache:  # noqa: ARG002 - as the other cache
        """Return a copy of a cache of one sequence for ``rows`` sequences."""
        values = copy.deepcopy(self.values)
        values.batch_repeat_interleave(rows)
        return TransformersCache(values)


class TransformersNet(nn.Module):
    """A network of transformers under the interface of :class:`~genad.foundation.llama.Llama`.

    Parameters
    ----------
    model : transformers model
        With a head that scores the next token.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        config = model.config
        heads = config.num_attention_heads
        self.shape = LlamaShape(
            blocks=config.num_hidden_layers,
            width=config.hidden_size,
            heads=heads,
            key_heads=getattr(config, "num_key_value_heads", None) or heads,
            feed_forward=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
            vocabulary=config.vocab_size,
            context=getattr(config, "max_position_embeddings", None) or _UNKNOWN_CONTEXT,
        )

    @property
    def embedding(self) -> Tensor:
        """The vectors of the tokens (V, d)."""
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight

    def new_cache(self, rows: int, room: int) -> TransformersCache:  # noqa: ARG002 - as the other network
        """Return an empty cache."""
        return TransformersCache(require("transformers", "llm").DynamicCache(config=self.model.config))

    def forward(self, ids: Tensor, cache: TransformersCache | None = None, adapters: object = None) -> Tensor:
        """Return the hidden states (B, T, d) of tokens (B, T), which follow those in the cache."""
        if adapters is not None:
            raise InputError("adapters: were given; they can be used with models from GGUF files alone.")
        held = cache.values if cache is not None else None
        found = self.model.base_model(input_ids=ids, past_key_values=held, use_cache=cache is not None)
        states: Tensor = found.last_hidden_state
        return states

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the scores (..., V) of the next token, float32, of hidden states (..., d)."""
        return self.model.get_output_embeddings()(hidden).float()


class TransformersTokens(Tokens):
    """The tokens of a folder in the format of Hugging Face.

    Parameters
    ----------
    folder : Path
    end : int or None
        The token that ends an answer; None takes what the tokens' own settings say.
    """

    def __init__(self, folder: Path, end: int | None) -> None:
        tokenizers = require("tokenizers", "llm")
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise InputError(f"path: {folder} lacks tokenizer.json; save the tokens in the fast format.")
        coder = tokenizers.Tokenizer.from_file(str(path))
        coder.encode_special_tokens = True
        coder.no_padding()
        coder.no_truncation()
        added = coder.get_added_tokens_decoder()
        vocabulary = coder.get_vocab(with_added_tokens=True)
        self.names = [""] * (max(vocabulary.values()) + 1)
        for name, i in vocabulary.items():
            self.names[i] = name
        self.control = {token.content: i for i, token in added.items() if token.special}
        settings = _settings(folder)
        names = {part: _content(settings.get(f"{part}_token")) for part in ("eos", "pad", "bos")}
        found = end if end is not None else vocabulary.get(names["eos"])
        if found is None:
            raise ModelFileError(f"{folder}: names no token that ends an answer; set eos_token_id in config.json.")
        self.end = found
        self.pad = vocabulary.get(names["pad"], self.end)
        begins = bool(settings.get("add_bos_token")) and names["bos"] in vocabulary
        self.begin = vocabulary[names["bos"]] if begins else None
        self._begin_name = names["bos"]
        file = folder / "chat_template.jinja"
        self._template = file.read_text(encoding="utf-8") if file.is_file() else settings.get("chat_template")
        self._folder_coder = coder

    @cached_property
    def _coder(self) -> Any:
        return self._folder_coder

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text; control tokens written in it stay words."""
        return list(self._coder.encode(text, add_special_tokens=False).ids)

    def encode_many(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Return for each text its tokens and the characters [start, stop) each stands for."""
        found = self._coder.encode_batch(list(texts), add_special_tokens=False)
        return [(one.ids, one.offsets) for one in found]

    @cached_property
    def pieces(self) -> list[bytes]:
        """The bytes each token stands for, as the tokens themselves read it; none for a control token."""
        control = set(self.control.values())
        return [b"" if i in control else self._piece(i) for i in range(len(self.names))]

    def _piece(self, i: int) -> bytes:
        # After another token, because some vocabularies leave out the space before the first.
        return str(self._coder.decode([self.encode("a")[0], i])).removeprefix("a").encode()


def _settings(folder: Path) -> Mapping[str, Any]:
    path = folder / "tokenizer_config.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _content(token: Any) -> str:
    return str(token.get("content", "")) if isinstance(token, Mapping) else str(token or "")


def load_folder(folder: Path, device: str) -> tuple[TransformersNet, TransformersTokens]:
    """Read a model from a folder; nothing is fetched from anywhere, and no code of the folder is run.

    Raises
    ------
    InputError
        When the folder has no ``config.json`` or ``tokenizer.json``.
    ModelFileError
        When transformers cannot make a language model of it.
    """
    if not (folder / "config.json").is_file():
        raise InputError(f"path: {folder} lacks config.json; give the folder of a language model, or a GGUF file.")
    transformers = require("transformers", "llm")
    try:
        with torch.inference_mode(mode=False):
            model = transformers.AutoModelForCausalLM.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
            )
    except Exception as error:  # noqa: BLE001 - transformers raises many kinds
        raise ModelFileError(f"{folder}: transformers cannot read a language model from it ({error}).") from None
    end = model.config.eos_token_id
    tokens = TransformersTokens(folder, end[0] if isinstance(end, list) else end)
    return TransformersNet(model.eval().requires_grad_(requires_grad=False).to(device)), tokens
