"""Any service that speaks the OpenAI protocol: OpenAI itself, Ollama, vLLM, llama.cpp, LM Studio and others."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from typing import Any, NoReturn, Self, TypeVar
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from genad.errors import InputError
from genad.extras import require
from genad.foundation.background import Background
from genad.foundation.backoff import Backoff
from genad.foundation.llm import (
    Cancelled,
    CapabilityError,
    ModelServiceError,
    Prompt,
    Reply,
    TokenScores,
    as_messages,
)
from genad.foundation.model import Model
from genad.foundation.problems import Problem, explain, problem_of, shortened, unknown_model
from genad.foundation.protocol import candidate_log_probs, is_strict, read_chat, read_echo, read_vectors
from genad.foundation.schema import Schema
from genad.foundation.usage import Meter

_Found = TypeVar("_Found")
_EMBED_BATCH = 64  # texts of one request
_TOP = 20  # the most alternatives the protocol gives


class _Key:
    """A key that is never shown, copied into text or written to a file."""

    def __init__(self, value: str) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "'***'"

    def __reduce__(self) -> NoReturn:
        raise TypeError("the key of a service is not written anywhere; name its environment variable instead.")


class OpenAIBackend(Model):
    """A language model behind an address that speaks the OpenAI protocol.

    Requests that fail for a while (no connection, no answer in time, status 408, 409, 425, 429, 5xx) are repeated
    after waits that double, or as long as the service asks for. Parts of a request that a service does not know are
    left out from then on. Nothing is sent before the first call, and nowhere but to ``base_url``.

    Parameters
    ----------
    base_url : str
        The address up to the version, for instance ``"http://localhost:11434/v1"``.
    model : str
        The name of the model at the service.
    api_key : str or None
        The key itself. It is never shown, logged or written; still, ``api_key_env`` keeps it out of your code.
    api_key_env : str or None
        The environment variable that holds the key, read at the first call. Without either no key is sent.
    embedding_model : str or None
        The model that :meth:`embed` asks; None declares no embeddings.
    echo : bool
        Whether the service gives the likelihoods of a prompt at ``/completions`` (vLLM does): declares
        ``"log_likelihood"``.
    timeout : float
        Seconds one attempt may take in all.
    retries : int
        How often a failed request is repeated.
    first_wait, most_wait : float
        Seconds: the longest wait after the first failure, and of all. A service that asks for more ends the call.
    concurrency : int
        The most requests under way at once.
    meter : Meter or None
        With a budget and prices; None counts without limit.
    seed : int
        Of the spread of the waits.

    Raises
    ------
    InputError
        When an argument is out of range; at the first call when the environment variable is not set.

    Notes
    -----
    :meth:`next_token_log_probs` sees the 20 most probable tokens. A candidate gets the probability of the tokens that
    begin it and no other candidate; one that is not among the 20 gets the least probable one's log-probability, which
    is then an upper bound.

    Examples
    --------
    >>> model = OpenAIBackend("http://localhost:11434/v1", "qwen3", timeout=30.0)
    >>> sorted(model.capabilities)
    ['chat', 'json_schema', 'next_token']
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        api_key_env: str | None = None,
        embedding_model: str | None = None,
        echo: bool = False,
        timeout: float = 60.0,
        retries: int = 4,
        first_wait: float = 1.0,
        most_wait: float = 60.0,
        concurrency: int = 4,
        meter: Meter | None = None,
        seed: int = 0,
    ) -> None:
        _check_address(base_url)
        if api_key is not None and api_key_env is not None:
            raise InputError("api_key: was given beside api_key_env; give one of the two.")
        for name, value, low in (("retries", retries, 0), ("concurrency", concurrency, 1)):
            if not isinstance(value, int) or value < low:
                raise InputError(f"{name}: {value!r} was given; use a whole number of at least {low}.")
        for name, wait in (("timeout", timeout), ("first_wait", first_wait), ("most_wait", most_wait)):
            if not wait > 0:
                raise InputError(f"{name}: {wait!r} was given; use a number of seconds above 0.")
        super().__init__(f"{model} at {base_url.rstrip('/')}", meter)
        self.base_url, self.model, self.embedding_model = base_url.rstrip("/"), model, embedding_model
        self.timeout, self.retries, self.concurrency = timeout, retries, concurrency
        self._key, self._key_env = _Key(api_key) if api_key is not None else None, api_key_env
        self._backoff = Backoff(first_wait, most_wait, seed)
        self._unknown: set[str] = set()
        self._declared = {"chat", "json_schema", "next_token"}
        self._declared |= {"embedding"} if embedding_model is not None else set()
        self._declared |= {"log_likelihood"} if echo else set()
        self._background: Background | None = None
        self._lock = threading.Lock()
        self._stopped = False

    @property
    def capabilities(self) -> frozenset[str]:  # type: ignore[override]
        """What was declared, less what the service turned out not to know."""
        lost = {"response_format": "json_schema", "logprobs": "next_token"}
        return frozenset(self._declared - {lost[name] for name in self._unknown if name in lost})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        with self._lock:
            background, self._background = self._background, None
        if background is not None:
            background.close()

    def cancel(self) -> None:
        """End the calls under way, in whatever thread, with :class:`Cancelled`, and refuse new ones."""
        self._stopped = True
        if self._background is not None:
            for future in list(self._background.pending):
                future.cancel()

    def resume(self) -> None:
        """Accept calls again after :meth:`cancel`."""
        self._stopped = False

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
        """Answer a conversation; an answer in a strange form comes back as it is, with its status."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": as_messages(messages),
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
        }
        if stop:
            body["stop"] = list(stop)
        if schema is not None:
            form = {"name": "answer", "schema": dict(schema), "strict": is_strict(schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": form}

        async def work(background: Background) -> Reply:
            with self.meter.call() as tally:
                reply = read_chat(await self._post(background, "/chat/completions", body), max_tokens)
                tally.tokens_in, tally.tokens_out = reply.tokens_in, reply.tokens_out
            return reply

        return self._run(work, [()])[0]

    def next_token_log_probs(self, prompts: Sequence[Prompt], candidates: Sequence[str]) -> NDArray[np.float64]:
        """Return how probable each candidate is as the beginning of the answer; see the notes of the class."""
        if not all(candidate.strip() for candidate in candidates):
            raise InputError(f"candidates: {tuple(candidates)!r} were given; each needs at least one character.")

        async def work(background: Background, prompt: Prompt) -> NDArray[np.float64]:
            body = {"model": self.model, "messages": as_messages(prompt), "max_tokens": 1, "temperature": 0.0}
            body |= {"logprobs": True, "top_logprobs": _TOP}
            with self.meter.call() as tally:
                answer = await self._post(background, "/chat/completions", body)
                reply = read_chat(answer, 1)
                tally.tokens_in, tally.tokens_out = reply.tokens_in, reply.tokens_out
            found = candidate_log_probs(answer, candidates)
            if found is None:
                raise CapabilityError(
                    f"llm: {self.name} gave no log-probabilities; ask it in words instead, or use another model."
                )
            return found

        rows = self._run(work, [(prompt,) for prompt in prompts])
        return np.array(rows, dtype=np.float64).reshape(len(prompts), len(candidates))

    def log_likelihood(self, texts: Sequence[str], contexts: Sequence[Prompt] | None = None) -> list[TokenScores]:
        """Return how probable the tokens of texts are, each after its context, which must be text."""
        if "log_likelihood" not in self.capabilities:
            self._lacks("log_likelihood")
        before = list(contexts) if contexts is not None else [""] * len(texts)
        if len(before) != len(texts) or not all(isinstance(context, str) for context in before):
            raise InputError(f"contexts: give one text for each of the {len(texts)} texts; messages cannot be echoed.")

        async def work(background: Background, context: str, text: str) -> TokenScores:
            body = {"model": self.model, "prompt": context + text, "max_tokens": 1, "temperature": 0.0}
            body |= {"echo": True, "logprobs": 1}
            with self.meter.call() as tally:
                answer = await self._post(background, "/completions", body)
                usage = answer.get("usage") if isinstance(answer, dict) else None
                tally.tokens_in = int((usage or {}).get("prompt_tokens") or 0)
            found = read_echo(answer, len(context), len(context) + len(text))
            if found is None:
                raise CapabilityError(f"llm: {self.name} does not echo likelihoods; use echo=False or another model.")
            return found

        return self._run(work, list(zip(map(str, before), texts, strict=True)))

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of the embedding model, brought to length 1."""
        if self.embedding_model is None:
            self._lacks("embedding")

        async def work(background: Background, part: Sequence[str]) -> NDArray[np.float32]:
            with self.meter.call(len(part)) as tally:
                answer = await self._post(
                    background, "/embeddings", {"model": self.embedding_model, "input": list(part)}
                )
                vectors, tally.tokens_in = read_vectors(answer, len(part))
            if vectors is None:
                raise ModelServiceError(
                    f"embedding_model: {self.base_url} gave no usable vectors for {len(part)} texts; "
                    f"is {self.embedding_model!r} a model for embeddings?"
                )
            return vectors

        parts = [texts[i : i + _EMBED_BATCH] for i in range(0, len(texts), _EMBED_BATCH)]
        found = self._run(work, [(part,) for part in parts])
        return np.concatenate(found) if found else np.zeros((0, 0), dtype=np.float32)

    def _run(self, work: Callable[..., Coroutine[Any, Any, _Found]], items: Sequence[tuple[Any, ...]]) -> list[_Found]:
        """Do the work for all items side by side, to the end of the last, and return what came of it."""
        with self._lock:
            if self._stopped:
                raise Cancelled("llm: calls were cancelled; call resume() to go on.")
            if self._background is None:
                self._background = Background(self._client(), self.concurrency)
                weakref.finalize(self, Background.close, self._background)
            background = self._background

        async def in_turn(item: tuple[Any, ...]) -> _Found:
            # Work waits here before it looks at the budget, which by then knows what the work before it took.
            async with background.slots:
                return await work(background, *item)

        async def together() -> list[Any]:
            return await asyncio.gather(*map(in_turn, items), return_exceptions=True)

        future = background.submit(together())
        try:
            found = future.result()
        except CancelledError:
            # Whoever catches this needs neither the loop nor its frames.
            found = None
        except BaseException:
            future.cancel()
            raise
        if found is None:
            raise Cancelled("llm: the call was cancelled; answers got before stand.")
        for item in found:
            if isinstance(item, BaseException):
                raise item
        return found

    def _client(self) -> Any:
        openai = require("openai", "llm")
        if self._key_env is not None:
            value = os.environ.get(self._key_env, "").strip()
            if not value:
                raise InputError("api_key_env: the environment variable named there is not set; set it to the key.")
            self._key = _Key(value)
        client = openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self._key.value if self._key is not None else "none",
            max_retries=0,
            timeout=self.timeout,
        )
        # The client fills these from the environment, and they are no business of a service the user names.
        client.organization = client.project = None
        return client

    async def _post(self, background: Background, path: str, body: dict[str, Any]) -> Any:
        """Send a request, repeated as the class says, and return the answer read as JSON, or None if it is none."""
        failed = 0
        while True:
            found = await self._attempt(background.client, path, self._known(body))
            if not isinstance(found, Problem):
                return found
            if found.refused_part is not None and found.refused_part not in self._unknown:
                self._unknown.add(found.refused_part)
                continue
            wait = self._backoff.wait(failed, found.headers) if found.passing else None
            if wait is None or failed >= self.retries:
                raise await self._error(background.client, found, failed + 1)
            failed += 1
            await asyncio.sleep(wait)

    def _known(self, body: dict[str, Any]) -> dict[str, Any]:
        """Leave out, or name anew, what the service does not know."""
        known = {name: value for name, value in body.items() if name not in self._unknown}
        if "max_tokens" in self._unknown:
            known["max_completion_tokens"] = body["max_tokens"]
        if "logprobs" in self._unknown:
            known.pop("top_logprobs", None)
        return known

    async def _attempt(self, client: Any, path: str, body: dict[str, Any]) -> Any:
        openai = require("openai", "llm")
        try:
            async with asyncio.timeout(self.timeout):
                return await client.post(path, cast_to=object, body=body)
        except (TimeoutError, openai.APIError, json.JSONDecodeError, UnicodeDecodeError) as error:
            return problem_of(error, body)

    async def _error(self, client: Any, problem: Problem, attempts: int) -> ModelServiceError:
        """Return the error for the user, never with the key in it."""
        key = self._key.value if self._key is not None else None
        offered = await self._offered(client) if unknown_model(problem) else []
        return explain(
            replace(problem, text=shortened(problem.text, key)),
            base_url=self.base_url,
            model=self.model,
            timeout=self.timeout,
            keyed=key is not None,
            attempts=attempts,
            offered=[shortened(name, key) for name in offered],
        )

    async def _offered(self, client: Any) -> list[str]:
        """Return the names of some models the service offers, if it says."""
        try:
            async with asyncio.timeout(min(self.timeout, 10.0)):
                answer = await client.get("/models", cast_to=object)
            return [str(entry["id"]) for entry in answer["data"]][:10]
        except Exception:  # noqa: BLE001 - only to make a message better
            return []


def _check_address(base_url: str) -> None:
    parts = urlsplit(base_url)
    if parts.username or parts.password or parts.query:
        raise InputError("base_url: holds a name, password or query; give the key with api_key_env instead.")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(
            f"base_url: {base_url!r} was given; use an address such as 'http://localhost:11434/v1' or "
            "'https://api.openai.com/v1'."
        )
