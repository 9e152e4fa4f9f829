"""The network of Llama-like language models in plain PyTorch: scores of the next token, hidden states, gradients.

Plain because loading then takes a fraction of a second beside the numbers themselves, adapters can be handed in with
every call, and nothing but torch is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

#: The linear maps of a block that an adapter can change.
LINEAR_MAPS = ("q", "k", "v", "o", "gate", "up", "down")


@dataclass(frozen=True)
class LlamaShape:
    """Sizes of the network.

    Parameters
    ----------
    blocks, width, heads, key_heads, feed_forward, vocabulary, context : int
        Numbers of blocks, of features, of attention heads, of heads of the keys and values, of features within the
        feed-forward part, of tokens, and of positions the network was trained for.
    rotary_base : float
        Base of the wave lengths of the rotary positions.
    epsilon : float
        Added to the mean square in the norms.
    """

    blocks: int
    width: int
    heads: int
    key_heads: int
    feed_forward: int
    vocabulary: int
    context: int = 2048
    rotary_base: float = 10_000.0
    epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        """Number of features of a head."""
        return self.width // self.heads

    def linear_shape(self, name: str) -> tuple[int, int]:
        """Return the numbers of outputs and inputs of a linear map of a block."""
        keys = self.key_heads * self.head_width
        outputs = {"k": keys, "v": keys, "gate": self.feed_forward, "up": self.feed_forward}.get(name, self.width)
        return outputs, self.feed_forward if name == "down" else self.width


class KeyValueCache:
    """Keys and values of the positions already seen, for all blocks.

    Parameters
    ----------
    shape : LlamaShape
    rows : int
        Number of sequences.
    room : int
        Number of positions there is room for.
    like : Tensor
        Gives the type of the numbers and the device.
    """

    def __init__(self, shape: LlamaShape, rows: int, room: int, like: Tensor) -> None:
        size = (shape.blocks, 2, rows, shape.key_heads, room, shape.head_width)
        self.values = torch.empty(size, dtype=like.dtype, device=like.device)
        self.length = 0

    @property
    def room(self) -> int:
        """Number of positions there is still room for."""
        return self.values.shape[4] - self.length

    def extend(self, block: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values (B, heads, T, width) of one block; return those of all positions."""
        end = self.length + keys.shape[2]
        self.values[block, 0, :, :, self.length : end] = keys
        self.values[block, 1, :, :, self.length : end] = values
        return self.values[block, 0, :, :, :end], self.values[block, 1, :, :, :end]

    def repeated(self, rows: int, room: int) -> KeyValueCache:
        """Return a copy of a cache of one sequence for ``rows`` sequences, with room for ``room`` more positions."""
        copy = object.__new__(KeyValueCache)
        blocks, two, _, heads, _, width = self.values.shape
        copy.values = self.values.new_empty((blocks, two, rows, heads, self.length + room, width))
        copy.values[..., : self.length, :] = self.values[..., : self.length, :]
        copy.length = self.length
        return copy


class LoRA(nn.Module):
    """Low-rank adapters of the linear maps of a Llama: W x becomes W x + (alpha / rank) B A x.

    A starts random and B at zero, so that nothing changes before training. The state of this module holds the
    adapters and none of the weights they adapt.

    Parameters
    ----------
    shape : LlamaShape
    rank : int
        Number of rows of A, at least 1.
    alpha : float
        The change is multiplied by ``alpha / rank``.
    targets : sequence of str
        Which linear maps of every block are adapted, of :data:`LINEAR_MAPS`.
    seed : int
        Of the random start of A.

    References
    ----------
    Hu et al. (2022), LoRA: Low-rank adaptation of large language models, ICLR.
    """

    def __init__(self, shape: LlamaShape, rank: int, alpha: float, targets: Sequence[str], seed: int = 0) -> None:
        super().__init__()
        self.rank, self.alpha, self.targets = rank, alpha, tuple(targets)
        self.scale = alpha / rank
        generator = torch.Generator().manual_seed(seed)
        self.parts = nn.ParameterDict()
        for block in range(shape.blocks):
            for name in self.targets:
                outputs, inputs = shape.linear_shape(name)
                bound = (3.0 / inputs) ** 0.5
                down = torch.rand(rank, inputs, generator=generator) * 2.0 * bound - bound
                self.parts[f"{block}_{name}_a"] = nn.Parameter(down)
                self.parts[f"{block}_{name}_b"] = nn.Parameter(torch.zeros(outputs, rank))

    def change(self, block: int, name: str, x: Tensor) -> Tensor | None:
        """Return what to add to the output of a linear map at x, or None where it is not adapted."""
        if name not in self.targets:
            return None
        a, b = self.parts[f"{block}_{name}_a"], self.parts[f"{block}_{name}_b"]
        return F.linear(F.linear(x, a.to(x.dtype)), b.to(x.dtype)) * self.scale


class Llama(nn.Module):
    """A decoder of root-mean-square norms, rotary positions, grouped attention and gated feed-forward parts.

    Rotary positions turn the neighbouring pairs (0, 1), (2, 3), ... of the features of a head, which is how GGUF files
    order the rows of queries and keys.

    Parameters
    ----------
    shape : LlamaShape
    weights : mapping of str to Tensor
        ``embedding`` (V, d), ``norm`` (d,), optionally ``output`` (V, d) and ``wave_factors`` (head width / 2,), and
        for block i ``i.norm``, ``i.feed_norm`` and ``i.q`` to ``i.down`` of :data:`LINEAR_MAPS`. Without ``output``
        the embedding serves for it.
    dtype : torch.dtype
        Of the computation; norms and attention scores are computed in float32.

    References
    ----------
    Touvron et al. (2023), LLaMA: Open and efficient foundation language models.
    """

    embedding: Tensor
    output: Tensor
    waves: Tensor

    def __init__(self, shape: LlamaShape, weights: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.shape = shape
        pairs = torch.arange(0, shape.head_width, 2, dtype=torch.float64)
        waves = shape.rotary_base ** (-pairs / shape.head_width)
        if "wave_factors" in weights:
            waves = waves / weights["wave_factors"].double()
        self.register_buffer("waves", waves)
        for name, value in weights.items():
            if name != "wave_factors":
                self.register_buffer(name.replace(".", "_"), value.to(dtype))
        if "output" not in weights:
            self.output = self.embedding

    def new_cache(self, rows: int, room: int) -> KeyValueCache:
        """Return an empty cache for ``rows`` sequences of up to ``room`` tokens."""
        return KeyValueCache(self.shape, rows, room, self.embedding)

    def forward(self, ids: Tensor, cache: KeyValueCache | None = None, adapters: LoRA | None = None) -> Tensor:
        """Return the hidden states (B, T, d) of tokens (B, T), each of which sees those before it alone.

        With a cache the tokens follow those in it, and are added to it.
        """
        start = cache.length if cache is not None else 0
        angles = torch.outer(torch.arange(start, start + ids.shape[1], device=ids.device), self.waves)
        turn = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)
        seen = None
        if start and ids.shape[1] > 1:
            seen = torch.ones(ids.shape[1], start + ids.shape[1], dtype=torch.bool, device=ids.device).tril(start)
        x = F.embedding(ids, self.embedding)
        for block in range(self.shape.blocks):
            x = x + self._attend(block, self._norm(f"{block}_norm", x), turn, seen, cache, adapters)
            x = x + self._feed(block, self._norm(f"{block}_feed_norm", x), adapters)
        if cache is not None:
            cache.length += ids.shape[1]
        return self._norm("norm", x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the scores (..., V) of the next token, float32, of hidden states (..., d)."""
        return F.linear(hidden, self.output).float()

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight: Tensor = self.get_buffer(name)
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.shape.epsilon)).to(x.dtype) * weight

    def _linear(self, block: int, name: str, x: Tensor, adapters: LoRA | None) -> Tensor:
        out = F.linear(x, self.get_buffer(f"{block}_{name}"))
        change = adapters.change(block, name, x) if adapters is not None else None
        return out if change is None else out + change

    def _attend(
        self,
        block: int,
        x: Tensor,
        turn: Tensor,
        seen: Tensor | None,
        cache: KeyValueCache | None,
        adapters: LoRA | None,
    ) -> Tensor:
        rows, length, _ = x.shape

        def heads(name: str) -> Tensor:
            out = self._linear(block, name, x, adapters)
            return out.view(rows, length, -1, self.shape.head_width).transpose(1, 2)

        queries, keys, values = _turned(heads("q"), turn), _turned(heads("k"), turn), heads("v")
        if cache is not None:
            keys, values = cache.extend(block, keys, values)
        repeats = self.shape.heads // self.shape.key_heads
        keys, values = (part.repeat_interleave(repeats, dim=1) for part in (keys, values))
        causal = seen is None and length > 1
        out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen, is_causal=causal)
        return self._linear(block, "o", out.transpose(1, 2).reshape(rows, length, -1), adapters)

    def _feed(self, block: int, x: Tensor, adapters: LoRA | None) -> Tensor:
        gate = F.silu(self._linear(block, "gate", x, adapters))
        return self._linear(block, "down", gate * self._linear(block, "up", x, adapters), adapters)


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    """Turn the neighbouring pairs of features of x (B, heads, T, width) by angles (T, width / 2)."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)
