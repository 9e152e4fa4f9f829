"""Write text with a local language model, token by token, under rules on what may come next."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from genad.errors import InputError
from genad.foundation.llama import Llama, LoRA
from genad.foundation.tokens import Tokens


def pick(logits: Tensor, mask: Tensor | None, temperature: float, generator: torch.Generator) -> list[int]:
    """Return one token for each row of logits (B, V): the most probable at temperature 0, else a drawn one.

    Parameters
    ----------
    logits : Tensor of shape (B, V)
    mask : Tensor of bool, shape (V,), or None
        Tokens that may be taken; at least one.
    temperature : float
    generator : torch.Generator
    """
    if mask is not None:
        logits = logits.masked_fill(~mask.to(logits.device), float("-inf"))
    if temperature <= 0:
        return [int(token) for token in logits.argmax(-1)]
    shares = (logits / temperature).softmax(-1).cpu()
    return [int(token) for token in torch.multinomial(shares, 1, generator=generator)[:, 0]]


def character_mask(tokens: Tokens, characters: str) -> Tensor:
    """Return which tokens (V,) consist of these characters alone.

    Raises
    ------
    InputError
        When there is none.
    """
    allowed = set(characters.encode())
    mask = torch.tensor([bool(piece) and allowed.issuperset(piece) for piece in tokens.pieces])
    if not mask.any():
        raise InputError(f"characters: no token is made of {characters!r} alone; give more characters.")
    return mask


class Writer:
    """The answer of a model as it grows: forced text, free tokens, the scores of what may come next.

    Parameters
    ----------
    net : Llama
    tokens : Tokens
    prompt : sequence of int
        Tokens that stand before the answer, at least one.
    adapters : LoRA or None
    temperature : float
    generator : torch.Generator
    max_tokens : int
        How many tokens the answer may have; forced text is written even past it.

    Attributes
    ----------
    log_probs : list of float
        Of the tokens that were chosen, among all tokens, in nats.
    """

    def __init__(
        self,
        net: Llama,
        tokens: Tokens,
        prompt: Sequence[int],
        adapters: LoRA | None,
        temperature: float,
        generator: torch.Generator,
        max_tokens: int,
    ) -> None:
        self.net, self.tokens, self.adapters = net, tokens, adapters
        self.temperature, self.generator, self.max_tokens = temperature, generator, max_tokens
        self.ids: list[int] = []
        self.log_probs: list[float] = []
        self._ahead = list(prompt)
        self._forced = ""
        self._cache = net.new_cache(1, len(prompt) + max_tokens)
        self._scores = torch.empty(0)

    @property
    def written(self) -> int:
        """Number of tokens of the answer."""
        return len(self.ids)

    @property
    def left(self) -> int:
        """Number of tokens the answer may still have."""
        return self.max_tokens - len(self.ids)

    def text(self) -> str:
        """Return the answer."""
        self._settle()
        return self.tokens.decode(self.ids)

    def force(self, text: str) -> None:
        """Write a text, whatever the model thinks of it."""
        self._forced += text

    def take(self, token: int) -> None:
        """Write a token."""
        scores = self.scores()
        self.log_probs.append(float(scores[token] - scores.logsumexp(-1)))
        self.ids.append(token)
        self._ahead.append(token)

    def scores(self) -> Tensor:
        """Return the scores (V,) of the next token."""
        self._settle()
        if self._ahead:
            if len(self._ahead) > self._cache.room:
                self._cache = self._cache.repeated(1, 2 * len(self._ahead) + 64)
            ids = torch.tensor([self._ahead], device=self.net.embedding.device)
            self._scores = self.net.logits(self.net(ids, self._cache, self.adapters)[0, -1])
            self._ahead = []
        return self._scores

    def choose(self, mask: Tensor | None) -> int:
        """Return, and do not write, the next token under a mask (V,)."""
        return pick(self.scores()[None], mask, self.temperature, self.generator)[0]

    def choose_text(self, options: Sequence[str]) -> str:
        """Write one of several texts, token by token among those that can still be reached, and return it."""
        self._settle()
        coded = {option: self.tokens.encode(option) for option in options}
        at = 0
        while len(coded) > 1:
            ended = [option for option, ids in coded.items() if len(ids) == at]
            following = sorted({ids[at] for ids in coded.values() if len(ids) > at})
            if not following:
                break
            mask = torch.zeros(len(self.tokens.names), dtype=torch.bool)
            mask[following] = True
            # An option that is the beginning of another ends here if the model would go on with none of the others.
            token = self.choose(None if ended else mask)
            if token not in following:
                return ended[0]
            self.take(token)
            coded = {option: ids for option, ids in coded.items() if len(ids) > at and ids[at] == token}
            at += 1
        option, ids = next(iter(coded.items()))
        self.ids += ids[at:]
        self._ahead += ids[at:]
        return option

    def write_freely(self, stop: Sequence[str] = ()) -> str:
        """Write until the model ends, one of ``stop`` appears or the limit is reached; return why it ended."""
        while self.left > 0:
            token = self.choose(None)
            if token == self.tokens.end:
                return "stop"
            self.take(token)
            # A stop text is found in the last tokens; each has at least one byte.
            if stop:
                tail = self.tokens.decode(self.ids[-max(len(mark.encode()) for mark in stop) - 1 :])
                if any(mark in tail for mark in stop):
                    return "stop"
        return "length"

    def _settle(self) -> None:
        """Turn forced text into tokens."""
        if self._forced:
            ids = self.tokens.encode(self._forced)
            self._forced = ""
            self.ids += ids
            self._ahead += ids
