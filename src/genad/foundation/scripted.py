"""A language model that says what it is told to: for tests, demonstrations and measurements of everything around it."""

from __future__ import annotations

import hashlib
import math
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genad.errors import InputError
from genad.foundation.llm import CAPABILITIES, Prompt, Reply, TokenScores, as_messages
from genad.foundation.model import Model
from genad.foundation.schema import Schema
from genad.foundation.usage import Meter

_WIDTH = 64  # of its vectors
_TOKEN = re.compile(r"\d|\w+|\s*[^\w\s]|\s+")

#: What a script may hold for one answer.
Line = str | Reply | Exception


class Scripted(Model):
    """A model whose answers are written down beforehand.

    Likelihoods, next tokens and vectors come from given functions, or from counts of tokens, so that they depend on
    nothing but the text: a text's vector is near that of a text that shares its words.

    Parameters
    ----------
    script : iterable of (str, Reply or Exception), callable, or mapping
        Answers in order, an exception being raised instead; a function of the messages; or answers by a word that the
        last message contains, ``""`` being for the rest.
    log_prob : callable or None
        Function of (what stands before, token) that returns nats.
    next_token : callable or None
        Function of (prompt text, candidate) that returns nats.
    capabilities : iterable of str
    name : str
    meter : Meter or None
    concurrency : int

    Attributes
    ----------
    requests : list of dict
        What was asked, in order: ``messages`` and the settings of each chat.

    Examples
    --------
    >>> model = Scripted(["first", "second"])
    >>> model.chat("Hello?").text, model.chat("And now?", temperature=0.5).text, model.meter.usage.calls
    ('first', 'second', 2)
    >>> model.requests[1]["temperature"]
    0.5
    """

    def __init__(
        self,
        script: Iterable[Line] | Callable[[list[dict[str, str]]], Line] | Mapping[str, Line] = (),
        *,
        log_prob: Callable[[str, str], float] | None = None,
        next_token: Callable[[str, str], float] | None = None,
        capabilities: Iterable[str] = CAPABILITIES,
        name: str = "scripted",
        meter: Meter | None = None,
        concurrency: int = 1,
    ) -> None:
        super().__init__(name, meter)
        self.capabilities = frozenset(capabilities)
        self.concurrency = concurrency
        self.requests: list[dict[str, Any]] = []
        self._say = _speaker(script)
        self._log_prob = log_prob or _counted_log_prob
        self._next_token = next_token or _counted_log_prob
        self._lock = threading.Lock()

    def chat(
        self,
        messages: Prompt,
        *,
        schema: Schema | None = None,
        max_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
        stop: Sequence[str] = (),
    ) -> Reply:
        """Give the next answer of the script."""
        if "chat" not in self.capabilities:
            self._lacks("chat")
        held = as_messages(messages)
        with self.meter.call() as tally:
            with self._lock:
                self.requests.append({
                    "messages": held, "schema": schema, "max_tokens": max_tokens, "temperature": temperature,
                    "seed": seed, "stop": tuple(stop),
                })  # fmt: skip
                line = self._say(held)
            if isinstance(line, Exception):
                raise line
            tokens_in = sum(len(_TOKEN.findall(message["content"])) for message in held)
            if isinstance(line, Reply):
                reply = line
            else:
                tokens_out = len(_TOKEN.findall(line))
                reply = Reply(line, "stop", tokens_in, tokens_out, None, "ok" if line.strip() else "empty")
            tally.tokens_in, tally.tokens_out = reply.tokens_in, reply.tokens_out
        return reply

    def log_likelihood(self, texts: Sequence[str], contexts: Sequence[Prompt] | None = None) -> list[TokenScores]:
        """Return the log-probabilities of the given function, or of counts."""
        if "log_likelihood" not in self.capabilities:
            self._lacks("log_likelihood")
        before = [_flat(context) for context in contexts] if contexts is not None else [""] * len(texts)
        out = []
        for context, text in zip(before, texts, strict=True):
            with self.meter.call() as tally:
                found = list(_TOKEN.finditer(text))
                tally.tokens_in = len(found)
                scores = [
                    self._log_prob(context + text[: match.start()], match[0]) if context or match.start() else math.nan
                    for match in found
                ]
            spans = np.array([match.span() for match in found], dtype=np.int64).reshape(-1, 2)
            out.append(TokenScores(np.array(scores, dtype=np.float64), spans))
        return out

    def next_token_log_probs(self, prompts: Sequence[Prompt], candidates: Sequence[str]) -> NDArray[np.float64]:
        """Return the log-probabilities of the given function, or of counts."""
        if "next_token" not in self.capabilities:
            self._lacks("next_token")
        with self.meter.call(len(prompts)):
            rows = [[self._next_token(_flat(prompt), candidate) for candidate in candidates] for prompt in prompts]
        return np.array(rows, dtype=np.float64).reshape(len(prompts), len(candidates))

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return sums of a fixed direction for each word, at length 1."""
        if "embedding" not in self.capabilities:
            self._lacks("embedding")
        out = np.zeros((len(texts), _WIDTH), dtype=np.float32)
        with self.meter.call(len(texts)):
            for row, text in zip(out, texts, strict=True):
                for word, count in Counter(re.findall(r"\w+", text.casefold()) or [""]).items():
                    row += count * _direction(word)
        return out / np.linalg.norm(out, axis=1, keepdims=True)


def _speaker(script: Any) -> Callable[[list[dict[str, str]]], Line]:
    if callable(script):
        return script
    if isinstance(script, Mapping):

        def look_up(messages: list[dict[str, str]]) -> Line:
            last = messages[-1]["content"]
            for word, line in script.items():
                if word in last:
                    return line
            raise InputError(f"script: nothing in it fits the message {last[:80]!r}; add an answer for ''.")

        return look_up
    lines = iter(script)

    def read_on(_: list[dict[str, str]]) -> Line:
        for line in lines:
            return line
        raise InputError("script: it is at its end; write more answers.")

    return read_on


def _flat(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)


def _counted_log_prob(before: str, token: str) -> float:
    """Return the log of the share of a token among those before it, as if all of a thousand tokens had come once."""
    return math.log((before.count(token) + 1) / (len(_TOKEN.findall(before)) + 1000))


def _direction(word: str) -> NDArray[np.float32]:
    digest = hashlib.shake_128(word.encode()).digest(_WIDTH)
    return np.frombuffer(digest, dtype=np.uint8).astype(np.float32) - 127.5
