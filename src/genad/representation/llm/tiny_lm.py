"""A language model of a few thousand weights whose words are the activities of one process, trained in seconds.

Its language is closed: a trace, a question of one token, and an answer. The questions are for the verdict (normal or
anomalous), for the cause (its kind, the activities, the activity they stand wrongly by), and for a normal trace. Of
what names mean it knows nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.representation.llm.traces import END, KINDS, Cause, Trace

PAD, UNSEEN, BEGIN, ASK_LABEL, ASK_CAUSE, ASK_TRACE, NORMAL, ANOMALOUS, SEPARATOR, STOP, LAST = range(11)
FIRST_KIND = 11
FIRST_ACTIVITY = FIRST_KIND + len(KINDS)
#: Tokens of a trace that are read; the rest is left out.
LONGEST = 400

_PASS, _ALIGN = 16_384, 16  # tokens computed at once, and what numbers of rows are filled up to

#: Tokens of a prompt and of the answer to it.
Pair = tuple[list[int], list[int]]


class Speech:
    """Turns traces and causes into tokens and back.

    Parameters
    ----------
    activities : sequence of str

    Examples
    --------
    >>> speech = Speech(["order", "pay"])
    >>> prompt, answer = speech.verdict(("order", "fly"), anomalous=True)
    >>> prompt == [BEGIN, speech.code("order"), UNSEEN, ASK_LABEL], answer == [ANOMALOUS]
    (True, True)
    """

    def __init__(self, activities: Sequence[str]) -> None:
        self.activities = list(activities)
        self._codes = {name: FIRST_ACTIVITY + i for i, name in enumerate(self.activities)}

    def __len__(self) -> int:
        return FIRST_ACTIVITY + len(self.activities)

    def code(self, name: str) -> int:
        """Return the token of an activity, that for an unseen one when it is unknown."""
        return LAST if name == END else self._codes.get(name, UNSEEN)

    def trace(self, trace: Sequence[str]) -> list[int]:
        """Return the tokens of a trace."""
        return [self.code(name) for name in trace[:LONGEST]]

    def verdict(self, trace: Sequence[str], *, anomalous: bool) -> Pair:
        """Return the question for the verdict and its answer."""
        return [BEGIN, *self.trace(trace), ASK_LABEL], [ANOMALOUS if anomalous else NORMAL]

    def cause_prompt(self, trace: Sequence[str]) -> list[int]:
        """Return the question for the cause, after the verdict that the trace is anomalous."""
        return [BEGIN, *self.trace(trace), ASK_LABEL, ANOMALOUS, ASK_CAUSE]

    def cause(self, trace: Sequence[str], cause: Cause) -> Pair:
        """Return the question for the cause and its answer."""
        what = [self.code(name) for name in cause.what]
        anchor = [self.code(cause.anchor)] if cause.anchor else []
        return self.cause_prompt(trace), [FIRST_KIND + KINDS.index(cause.kind), *what, SEPARATOR, *anchor, STOP]

    def recall(self, trace: Sequence[str]) -> Pair:
        """Return the question for a normal trace, and the trace."""
        return [ASK_TRACE], [*self.trace(trace), STOP]

    def read_cause(self, tokens: Sequence[int], trace: Trace) -> Cause | None:
        """Return the cause that tokens state, None when they state none; an unseen activity is the one of the trace."""
        if not tokens or not FIRST_KIND <= tokens[0] < FIRST_ACTIVITY:
            return None
        unseen = [name for name in trace if name not in self._codes]
        parts: list[list[str]] = [[]]
        for token in tokens[1:]:
            if token == SEPARATOR:
                parts.append([])
            elif token >= FIRST_ACTIVITY:
                parts[-1].append(self.activities[token - FIRST_ACTIVITY])
            elif token == UNSEEN and unseen:
                parts[-1].extend(name for name in unseen if name not in parts[-1])
            elif token == LAST:
                parts[-1].append(END)
            elif token == STOP:
                break
        kind = KINDS[tokens[0] - FIRST_KIND]
        anchor = parts[1][0] if len(parts) > 1 and parts[1] and kind != "insert" else ""
        return Cause(kind, tuple(dict.fromkeys(parts[0])), anchor) if parts[0] else None


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        parts = self.mix(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.feed(self.feed_norm(x))


class TinyLM(nn.Module):
    """A causal transformer over tokens.

    Parameters
    ----------
    tokens : int
        Size of the vocabulary.
    width : int
        Even, a multiple of ``heads``.
    layers, heads : int

    Attributes
    ----------
    trained : bool Tensor of shape (tokens,)
        Which activities occur in the traces trained on; the rest counts as unseen.
    variants : Tensor of uint8
        The most frequent normal traces, as bytes.
    """

    trained: Tensor
    variants: Tensor

    def __init__(self, tokens: int, width: int = 64, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        nn.init.normal_(self.embedding.weight, std=0.3)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, tokens)
        self.register_buffer("trained", torch.ones(tokens, dtype=torch.bool))
        self.register_buffer("variants", torch.zeros(0, dtype=torch.uint8))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, T) to the scores (B, T, vocabulary) of those that follow."""
        tokens = torch.where(self.trained[tokens], tokens, UNSEEN)
        x = self.embedding(tokens) + _positions(tokens.shape[1], self.embedding.embedding_dim, tokens.device)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

    def answer_loss(self, pairs: Sequence[Pair]) -> Tensor:
        """Return the mean surprise of the tokens of answers in nats; those of prompts carry no loss."""
        tokens, targets = answer_targets(pairs)
        place = self.embedding.weight.device
        return F.cross_entropy(self(tokens.to(place)).flatten(0, 1), targets.to(place).flatten(), ignore_index=-100)

    def log_probs(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        """Return for each row the log-probabilities (T, vocabulary) of what follows each of its tokens.

        Rows of one length are computed together, filled up to a multiple of 16, so that no row depends on others.
        """
        out: list[Tensor] = [torch.empty(0)] * len(rows)
        lengths: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            lengths.setdefault(len(row), []).append(i)
        for length, places in lengths.items():
            size = max(_ALIGN, _PASS // max(length, 1) // _ALIGN * _ALIGN)
            for start in range(0, len(places), size):
                part = places[start : start + size]
                held = torch.tensor([rows[i] for i in part], device=self.embedding.weight.device)
                filled = torch.cat([held, held[-1:].expand(-len(held) % _ALIGN, -1)])
                for i, scores in zip(part, self(filled).log_softmax(-1), strict=False):
                    out[i] = scores
        return out

    def write(self, prompts: Sequence[Sequence[int]], most: int) -> list[list[int]]:
        """Return the most probable answer to each prompt, token by token, up to the end or ``most`` tokens."""
        written: list[list[int]] = [[] for _ in prompts]
        for _ in range(most):
            going = [i for i, answer in enumerate(written) if answer[-1:] != [STOP]]
            for i, scores in zip(going, self.log_probs([[*prompts[i], *written[i]] for i in going]), strict=True):
                written[i].append(int(scores[-1].argmax()))
        return written


def answer_targets(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """Return tokens (B, T), and what follows each where that belongs to an answer, -100 elsewhere.

    Examples
    --------
    >>> tokens, targets = answer_targets([([2, 20, 3], [6]), ([5], [20, 9])])
    >>> tokens.tolist(), targets.tolist()
    ([[2, 20, 3], [5, 20, 0]], [[-100, -100, 6], [20, 9, -100]])
    """
    longest = max(len(prompt) + len(answer) for prompt, answer in pairs) - 1
    tokens = torch.full((len(pairs), longest), PAD)
    targets = torch.full((len(pairs), longest), -100)
    for i, (prompt, answer) in enumerate(pairs):
        row = [*prompt, *answer]
        tokens[i, : len(row) - 1] = torch.tensor(row[:-1])
        targets[i, len(prompt) - 1 : len(row) - 1] = torch.tensor(answer)
    return tokens, targets


def _positions(length: int, width: int, device: torch.device) -> Tensor:
    """Return sines and cosines of positions (length, width), at the scale of the embedding."""
    steps = torch.arange(length, device=device, dtype=torch.float32)[:, None]
    rates = torch.exp(torch.arange(0, width, 2, device=device, dtype=torch.float32) * (-6.0 / width))
    return 0.3 * torch.cat([torch.sin(steps * rates), torch.cos(steps * rates)], 1)
