"""Answers kept on disk by a hash of the question: asked once, and a run can be replayed to the byte.

What is kept is the answer and the hash, neither the question nor anything of the connection.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from genad.errors import GenadError, InputError
from genad.foundation.llm import LanguageModel, Prompt, Reply, TokenScores, as_messages
from genad.foundation.model import Model
from genad.foundation.schema import Schema

_AT_ONCE = 64  # texts asked about before their answers are written down
_ABOUT = "about"  # key of the name and capabilities of the model


class ReplayMissing(GenadError):  # noqa: N818
    """A replayed run asks something that was not recorded."""


def request_key(**request: Any) -> str:
    """Return the hash of a request: of its canonical JSON, so that the order of names does not count.

    Examples
    --------
    >>> request_key(a=1, b=[2]) == request_key(b=(2,), a=1)
    True
    """
    text = json.dumps(request, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=dict)
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


class _Store(Protocol):
    def get(self, key: str) -> str | None: ...

    def put(self, key: str, value: str) -> None: ...

    def close(self) -> None: ...


class _Table:
    """A SQLite file; several processes may use it at once."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            self._base = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30.0)
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("PRAGMA synchronous=NORMAL")
            self._base.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
        except sqlite3.Error as error:
            raise _unusable(path, error) from None
        self._path = path

    def get(self, key: str) -> str | None:
        try:
            with self._lock:
                row = self._base.execute("SELECT value FROM answers WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise _unusable(self._path, error) from None
        return row[0] if row else None

    def put(self, key: str, value: str) -> None:
        try:
            with self._lock:
                self._base.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, value))
        except sqlite3.Error as error:
            raise _unusable(self._path, error) from None

    def close(self) -> None:
        self._base.close()


class _Lines:
    """A text file of one JSON line for each answer, to be read by people and kept under version control."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, str] = {}
        raw = path.read_bytes() if path.exists() else b""
        *whole, rest = raw.split(b"\n")
        try:
            for line in whole:
                entry = json.loads(line)
                self._known[entry["key"]] = json.dumps(entry["value"], ensure_ascii=False)
        except (ValueError, KeyError, TypeError) as error:
            raise _unusable(path, error) from None
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        if rest:
            # A writer died within its last line.
            os.ftruncate(self._file, len(raw) - len(rest))

    def get(self, key: str) -> str | None:
        return self._known.get(key)

    def put(self, key: str, value: str) -> None:
        with self._lock:
            if self._known.get(key) != value:
                self._known[key] = value
                os.write(self._file, f'{{"key": "{key}", "value": {value}}}\n'.encode())

    def close(self) -> None:
        os.close(self._file)


def _unusable(path: Path, error: Exception) -> GenadError:
    return InputError(f"cache: {path} cannot be used ({error}); delete it, or choose another path.")


class Cached(Model):
    """A model whose answers are kept on disk, or come from there alone.

    Each text of a call for likelihoods, next tokens or vectors is kept by itself, so that a run that was broken off
    goes on where it ended. Answers from disk cost nothing and are not counted by the meter.

    Parameters
    ----------
    model : LanguageModel or None
        None only to replay.
    path : str or Path
        A file ending in ``.jsonl`` is written as lines of JSON, best for small recordings; any other as SQLite.
    mode : {"cache", "record", "replay"}
        ``"cache"``: ask what is not kept yet; ``"record"``: ask everything anew; ``"replay"``: never ask, so that a
        run gives the same bytes without the model.

    Attributes
    ----------
    hits, misses : int
        How many questions were answered from disk, and how many were asked.

    Raises
    ------
    InputError
        When the mode is unknown, the file cannot be used, or there is nothing to replay.

    Examples
    --------
    >>> import tempfile
    >>> from genad.foundation.scripted import Scripted
    >>> path = Path(tempfile.mkdtemp()) / "answers.sqlite"
    >>> with Cached(Scripted(["once"]), path) as model:
    ...     model.chat("Well?").text, model.chat("Well?").text, model.hits
    ('once', 'once', 1)
    >>> with Cached(None, path, mode="replay") as model:
    ...     model.name, model.chat("Well?").text
    ('scripted', 'once')
    """

    def __init__(
        self, model: LanguageModel | None, path: str | Path, *, mode: Literal["cache", "record", "replay"] = "cache"
    ) -> None:
        path = Path(path)
        if mode not in ("cache", "record", "replay"):
            raise InputError(f"mode: {mode!r} was given; use 'cache', 'record' or 'replay'.")
        if mode == "replay" and not path.is_file():
            raise InputError(f"cache: there is no file {str(path)!r} to replay; record it first.")
        if mode != "replay" and model is None:
            raise InputError("model: None was given; only mode='replay' works without a model.")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._store: _Store = _Lines(path) if path.suffix == ".jsonl" else _Table(path)
        self._mode, self._inner, self._path = mode, model, path
        self._asked: dict[str, str] = {}
        self.hits = self.misses = 0
        known = self._store.get(_ABOUT)
        if model is None:
            if known is None:
                self._store.close()
                raise InputError(f"cache: {path} says nothing of its model; record it with the model first.")
            about = json.loads(known)
            super().__init__(about["name"])
            self.capabilities = frozenset(about["capabilities"])
        else:
            super().__init__(model.name, model.meter)
            self.concurrency = model.concurrency
            self.capabilities = model.capabilities
            self._store.put(_ABOUT, json.dumps({"name": model.name, "capabilities": sorted(model.capabilities)}))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._store.close()

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
        """Answer a conversation, from disk where it was asked before with the same settings."""
        settings: dict[str, Any] = {
            "schema": schema, "max_tokens": max_tokens, "temperature": temperature, "seed": seed, "stop": tuple(stop)
        }  # fmt: skip
        held = as_messages(messages)
        key = request_key(model=self.name, what="chat", messages=held, **settings)
        kept = self._kept(key)
        if kept is None:
            reply = self._model().chat(held, **settings)
            self._keep(key, asdict(reply))
            return reply
        return Reply(**{**kept, "log_probs": None if kept["log_probs"] is None else tuple(kept["log_probs"])})

    def log_likelihood(self, texts: Sequence[str], contexts: Sequence[Prompt] | None = None) -> list[TokenScores]:
        """Return how probable the tokens of texts are, from disk where they were asked before."""
        before = list(contexts) if contexts is not None else None
        if before is not None and len(before) != len(texts):
            raise InputError(f"contexts: {len(before)} were given for {len(texts)} texts; give one for each text.")
        keys = [
            request_key(model=self.name, what="log_likelihood", text=text, before=None if before is None else before[i])
            for i, text in enumerate(texts)
        ]

        def get(rows: list[int]) -> list[Any]:
            part = None if before is None else [before[row] for row in rows]
            found = self._model().log_likelihood([texts[row] for row in rows], part)
            return [{"log_probs": _packed(one.log_probs), "spans": _packed(one.spans)} for one in found]

        kept = self._each(keys, get)
        return [TokenScores(_unpacked(one["log_probs"]), _unpacked(one["spans"])) for one in kept]

    def next_token_log_probs(self, prompts: Sequence[Prompt], candidates: Sequence[str]) -> NDArray[np.float64]:
        """Return how probable each candidate is, from disk where the same was asked before."""
        listed = list(candidates)
        keys = [request_key(model=self.name, what="next_token", prompt=one, candidates=listed) for one in prompts]

        def get(rows: list[int]) -> list[Any]:
            return [_packed(row) for row in self._model().next_token_log_probs([prompts[i] for i in rows], listed)]

        found = [_unpacked(one) for one in self._each(keys, get)]
        return np.array(found, dtype=np.float64).reshape(len(prompts), len(listed))

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of texts, from disk where they were asked before."""
        keys = [request_key(model=self.name, what="embed", text=text) for text in texts]

        def get(rows: list[int]) -> list[Any]:
            return [_packed(row) for row in self._model().embed([texts[row] for row in rows])]

        found = [_unpacked(one) for one in self._each(keys, get)]
        return np.array(found, dtype=np.float32) if found else np.zeros((0, 0), dtype=np.float32)

    def cancel(self) -> None:
        """End the calls of the model under way, and refuse new ones."""
        if self._inner is not None:
            self._inner.cancel()

    def resume(self) -> None:
        """Let the model accept calls again."""
        if self._inner is not None:
            self._inner.resume()

    def _model(self) -> LanguageModel:
        if self._inner is None or self._mode == "replay":
            raise ReplayMissing(
                f"cache: {self._path} does not hold the answer to this question; the run differs from the recorded one "
                "(model, prompt, data or settings). Record it anew with mode='cache'."
            )
        return self._inner

    def _kept(self, key: str) -> Any:
        # Recording asks everything once, and the same question within one run gets the same answer.
        text = self._asked.get(key) if self._mode == "record" else self._store.get(key)
        if text is None:
            return None
        self.hits += 1
        return json.loads(text)

    def _keep(self, key: str, value: Any) -> None:
        self.misses += 1
        text = json.dumps(value, ensure_ascii=False)
        if self._mode == "record":
            self._asked[key] = text
        self._store.put(key, text)

    def _each(self, keys: Sequence[str], get: Callable[[list[int]], list[Any]]) -> list[Any]:
        """Return the answer for each key; ask those that are not kept, some at a time."""
        found = [self._kept(key) for key in keys]
        first = {
            key: i for i, (key, value) in reversed(list(enumerate(zip(keys, found, strict=True)))) if value is None
        }
        missing = sorted(first.values())
        for part in _parts(missing):
            for row, value in zip(part, get(part), strict=True):
                self._keep(keys[row], value)
                found[row] = value
        return [value if value is not None else found[first[key]] for key, value in zip(keys, found, strict=True)]


def _parts(rows: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(rows), _AT_ONCE):
        yield rows[start : start + _AT_ONCE]


def _packed(values: NDArray[Any]) -> dict[str, Any]:
    """Return an array as JSON, to the bit."""
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    data = base64.b64encode(little.tobytes()).decode("ascii")
    return {"dtype": values.dtype.name, "shape": list(values.shape), "data": data}


def _unpacked(kept: Mapping[str, Any]) -> NDArray[Any]:
    raw = np.frombuffer(base64.b64decode(kept["data"]), dtype=np.dtype(kept["dtype"]).newbyteorder("<"))
    return raw.astype(kept["dtype"]).reshape(kept["shape"])
