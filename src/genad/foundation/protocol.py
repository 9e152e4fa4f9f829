"""Read answers of the OpenAI protocol, in whatever state they come; nothing here raises for bad content."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genad.foundation.llm import Reply, ReplyStatus, TokenScores
from genad.foundation.schema import Schema

_CHARACTERS_A_TOKEN = 32  # an answer that is longer than this many times its limit of tokens is cut


def _at(value: Any, *path: str | int) -> Any:
    """Follow a path into JSON; None where it does not lead on."""
    for step in path:
        if isinstance(step, str) and isinstance(value, dict):
            value = value.get(step)
        elif isinstance(step, int) and isinstance(value, list) and len(value) > step:
            value = value[step]
        else:
            return None
    return value


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def is_strict(schema: Schema) -> bool:
    """Tell whether a schema has the form that OpenAI itself can hold answers to in every case.

    The whole must be an object, and every object must require all its properties and allow no other.

    Examples
    --------
    >>> is_strict({"type": "array", "items": {"type": "integer"}})
    False
    """

    def closed(part: Any) -> bool:
        if not isinstance(part, Mapping):
            return True
        known = part.get("properties", {})
        if part.get("type") == "object" and (
            part.get("additionalProperties") is not False or set(part.get("required", ())) != set(known)
        ):
            return False
        return all(map(closed, [*known.values(), part.get("items"), *part.get("anyOf", ())]))

    return schema.get("type") == "object" and closed(schema)


def read_chat(answer: Any, max_tokens: int) -> Reply:
    """Return the reply in the answer of ``/chat/completions``.

    Parameters
    ----------
    answer : object
        JSON, or anything.
    max_tokens : int
        What was allowed: much longer text is cut.

    Examples
    --------
    >>> read_chat({"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}, 5)
    Reply(text='yes', finish_reason='stop', tokens_in=0, tokens_out=0, log_probs=None, status='ok')
    >>> read_chat("<html>", 5).status
    'malformed'
    """
    tokens_in = _count(_at(answer, "usage", "prompt_tokens"))
    tokens_out = _count(_at(answer, "usage", "completion_tokens"))
    choice = _at(answer, "choices", 0)
    if not isinstance(_at(choice, "message"), dict):
        return Reply("", "error", tokens_in, tokens_out, None, "malformed")
    content = _at(choice, "message", "content")
    text = content if isinstance(content, str) else ""
    finish = str(_at(choice, "finish_reason") or "stop")
    written = _at(choice, "logprobs", "content")
    scores = [_at(token, "logprob") for token in written] if isinstance(written, list) else []
    numeric = bool(scores) and all(isinstance(score, int | float) for score in scores)
    log_probs = tuple(float(score) for score in scores) if numeric else None
    longest = _CHARACTERS_A_TOKEN * max_tokens
    status: ReplyStatus = "ok"
    if len(text) > longest:
        text, status = text[:longest], "cut"
    elif finish == "content_filter" or (not text and isinstance(_at(choice, "message", "refusal"), str)):
        status = "refused"
    elif finish == "length":
        status = "cut"
    elif not text.strip():
        status = "empty"
    return Reply(text, finish, tokens_in, tokens_out, log_probs, status)


def candidate_log_probs(answer: Any, candidates: Sequence[str]) -> NDArray[np.float64] | None:
    """Return the log-probability of each candidate as the first token; None when the answer has none.

    A token counts for the one candidate it begins, blanks at the ends aside. One that no token begins gets the least
    log-probability that was given.

    Examples
    --------
    >>> top = [{"token": " normal", "logprob": -0.2}, {"token": "ab", "logprob": -2.0}, {"token": "x", "logprob": -5}]
    >>> answer = {"choices": [{"logprobs": {"content": [{"top_logprobs": top}]}}]}
    >>> candidate_log_probs(answer, ["normal", "abnormal", "error"]).tolist()
    [-0.2, -2.0, -5.0]
    """
    top = _at(answer, "choices", 0, "logprobs", "content", 0, "top_logprobs")
    pairs = [
        (str(_at(entry, "token")).strip(), float(_at(entry, "logprob")))
        for entry in (top if isinstance(top, list) else [])
        if isinstance(_at(entry, "logprob"), int | float) and not math.isnan(_at(entry, "logprob"))
    ]
    if not pairs:
        return None
    found: list[list[float]] = [[] for _ in candidates]
    for token, log_prob in pairs:
        begun = [i for i, candidate in enumerate(candidates) if token and candidate.strip().startswith(token)]
        if len(begun) == 1:
            found[begun[0]].append(log_prob)
    floor = min(log_prob for _, log_prob in pairs)
    return np.array([np.logaddexp.reduce(values) if values else floor for values in found])


def read_echo(answer: Any, start: int, stop: int) -> TokenScores | None:
    """Return the scores of the characters [start, stop) of an echoed prompt; None when they were not given."""
    scores, offsets = _at(answer, "choices", 0, "logprobs", "token_logprobs"), None
    if isinstance(scores, list):
        offsets = _at(answer, "choices", 0, "logprobs", "text_offset")
    if not isinstance(offsets, list) or len(offsets) != len(scores) or not all(isinstance(at, int) for at in offsets):
        return None
    kept = [i for i, at in enumerate(offsets) if start <= at < stop]
    numbers = [scores[i] if isinstance(scores[i], int | float) else math.nan for i in kept]
    ends = [min(offsets[i + 1], stop) if i + 1 < len(offsets) else stop for i in kept]
    spans = np.array([(offsets[i] - start, end - start) for i, end in zip(kept, ends, strict=True)], dtype=np.int64)
    return TokenScores(np.array(numbers, dtype=np.float64), spans.reshape(-1, 2))


def read_vectors(answer: Any, count: int) -> tuple[NDArray[np.float32] | None, int]:
    """Return ``count`` vectors at length 1 in the order asked, or None; and the tokens read."""
    tokens = _count(_at(answer, "usage", "prompt_tokens"))
    entries = _at(answer, "data")
    if not isinstance(entries, list) or len(entries) != count:
        return None, tokens
    places = [_at(entry, "index") for entry in entries]
    if sorted(place for place in places if isinstance(place, int)) == list(range(count)):
        entries = [entries[places.index(i)] for i in range(count)]
    try:
        vectors = np.array([_at(entry, "embedding") for entry in entries], dtype=np.float32)
    except (TypeError, ValueError):
        return None, tokens
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        return None, tokens
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, np.finfo(np.float32).tiny), tokens
