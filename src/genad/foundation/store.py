"""Vectors with names, and what is nearest to a query: one interface, exact search in memory or a Milvus database."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from genad.errors import InputError, InputTypeError

__all__ = ["METRICS", "Neighbours", "VectorStore", "open_store"]

#: How far apart vectors are: 1 - cosine in [0, 2], or the Euclidean distance.
METRICS = ("cosine", "euclidean")

_ID_BYTES, _PAYLOAD_BYTES = 512, 65_535  # what every backend can hold
_ENDINGS = (".vectors", ".safetensors")


@dataclass(frozen=True)
class Neighbours:
    """What is nearest to some queries, the nearest first, ties in the order of the names.

    Parameters
    ----------
    ids : list of list of str
        For each query the names of its neighbours.
    distances : float64 array of shape (queries, neighbours)
        In the metric of the store; never below 0.
    payload : list of list of dict
        What was stored beside each.
    """

    ids: list[list[str]]
    distances: NDArray[np.float64]
    payload: list[list[dict[str, Any]]]


class VectorStore(ABC):
    """Vectors of one length, each with a name and a small payload, searched by distance.

    Parameters
    ----------
    dimension : int
        Numbers of a vector, at least 1.
    metric : {"cosine", "euclidean"}
        Under ``"cosine"`` vectors are kept at length 1.

    Raises
    ------
    InputError
        When an argument is out of range.
    """

    def __init__(self, dimension: int, metric: str = "cosine") -> None:
        if not isinstance(dimension, int | np.integer) or isinstance(dimension, bool) or dimension < 1:
            raise InputError(f"dimension: {dimension!r} was given; use a whole number of at least 1.")
        if metric not in METRICS:
            raise InputError(f"metric: {metric!r} was given; use {' or '.join(map(repr, METRICS))}.")
        self.dimension, self.metric = int(dimension), metric

    def __len__(self) -> int:
        return self.count()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------ what a backend does

    @abstractmethod
    def count(self) -> int:
        """Return how many vectors are held."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what the store holds on to; a closed store cannot be used. Closing twice does nothing."""

    @abstractmethod
    def _known(self, ids: Sequence[str]) -> set[str]:
        """Return those of the names that are held."""

    @abstractmethod
    def _add(self, vectors: NDArray[np.float32], ids: list[str], payload: list[str]) -> None: ...

    @abstractmethod
    def _search(self, queries: NDArray[np.float32], k: int) -> Neighbours: ...

    @abstractmethod
    def _get(self, ids: list[str]) -> tuple[NDArray[np.float32], list[dict[str, Any]]]: ...

    @abstractmethod
    def _delete(self, ids: list[str]) -> None: ...

    # ------------------------------------------------------------------ what users call

    def add(self, vectors: Any, ids: Sequence[str], payload: Sequence[Mapping[str, Any]] | None = None) -> VectorStore:
        """Take in vectors, all or none.

        Parameters
        ----------
        vectors : array of shape (n, dimension)
            Finite numbers; not all 0 under ``"cosine"``.
        ids : sequence of str
            Names that are not in the store yet, of at most 512 bytes.
        payload : sequence of mappings, optional
            What to remember beside each: anything JSON can hold, at most 65,535 bytes.

        Returns
        -------
        VectorStore
            Itself.

        Raises
        ------
        InputError
            Another dimension, values that are not finite, names twice or already there, numbers that differ.
        InputTypeError
            Names that are no text, or a payload that JSON cannot hold.
        """
        rows, names = self._vectors(vectors, "vectors"), self._names(ids)
        if len(names) != len(rows):
            raise InputError(f"ids: {len(names)} were given for {len(rows)} vectors; give one each.")
        texts = ["{}"] * len(rows) if payload is None else [_as_json(part) for part in payload]
        if len(texts) != len(rows):
            raise InputError(f"payload: {len(texts)} were given for {len(rows)} vectors; give one each.")
        if not names:
            return self
        there = sorted(self._known(names))
        if there:
            raise InputError(
                f"ids: {there[0]!r} is in the store already ({len(there)} of {len(names)} are); delete them first, or "
                "choose other names."
            )
        self._add(rows, names, texts)
        return self

    def search(self, queries: Any, k: int) -> Neighbours:
        """Return the nearest vectors of each query.

        Parameters
        ----------
        queries : array of shape (n, dimension)
        k : int
            How many, at least 1; all when the store has fewer.

        Returns
        -------
        Neighbours

        Raises
        ------
        InputError
            Another dimension, values that are not finite, or ``k`` out of range.
        """
        if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
            raise InputError(f"k: {k!r} was given; use a whole number of at least 1.")
        rows = self._vectors(queries, "queries")
        wanted = min(int(k), self.count())
        if not len(rows) or not wanted:
            return Neighbours([[] for _ in rows], np.zeros((len(rows), 0)), [[] for _ in rows])
        return self._search(rows, wanted)

    def get(self, ids: Sequence[str]) -> tuple[NDArray[np.float32], list[dict[str, Any]]]:
        """Return vectors and payload by name, in the order asked for.

        Raises
        ------
        InputError
            When a name is not in the store.
        """
        return self._get(self._there(ids))

    def delete(self, ids: Sequence[str]) -> None:
        """Forget vectors, all or none.

        Raises
        ------
        InputError
            When a name is not in the store.
        """
        names = self._there(ids)
        if names:
            self._delete(names)

    # ------------------------------------------------------------------ checks

    def _vectors(self, given: Any, argument: str) -> NDArray[np.float32]:
        try:
            rows = np.asarray(given, np.float32)
        except (TypeError, ValueError) as error:
            raise InputTypeError(f"{argument}: not an array of numbers ({error}); give shape (n, dimension).") from None
        if rows.ndim != 2 or rows.shape[1] != self.dimension:
            raise InputError(
                f"{argument}: shape {rows.shape} was given; the store takes (n, {self.dimension}). Use the model that "
                "made its vectors."
            )
        if not np.isfinite(rows).all():
            bad = int(np.flatnonzero(~np.isfinite(rows).all(1))[0])
            raise InputError(f"{argument}: row {bad} is not finite; leave such rows out.")
        if self.metric == "cosine":
            lengths = np.linalg.norm(rows, axis=1, keepdims=True)
            if (lengths == 0).any():
                bad = int(np.flatnonzero(lengths[:, 0] == 0)[0])
                raise InputError(f"{argument}: row {bad} is all 0 and has no direction; leave it out.")
            rows = rows / lengths
        return np.ascontiguousarray(rows)

    def _names(self, ids: Sequence[str]) -> list[str]:
        names = [ids] if isinstance(ids, str) else list(ids)
        for name in names:
            if not isinstance(name, str):
                raise InputTypeError(f"ids: {name!r} was given; use texts.")
            if not 0 < len(name.encode("utf-8", "replace")) <= _ID_BYTES:
                raise InputError(f"ids: {name[:40]!r} has {len(name.encode())} bytes; use 1 to {_ID_BYTES}.")
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"ids: {twice!r} was given twice; use each name once.")
        return names

    def _there(self, ids: Sequence[str]) -> list[str]:
        names = self._names(ids)
        known = self._known(names)
        missing = [name for name in names if name not in known]
        if missing:
            raise InputError(
                f"ids: {missing[0]!r} is not in the store ({len(missing)} of {len(names)} are not); it holds "
                f"{self.count()} vectors. Check the spelling."
            )
        return names


def _as_json(part: Mapping[str, Any]) -> str:
    if not isinstance(part, Mapping):
        raise InputTypeError(f"payload: a {type(part).__name__} was given; use one mapping a vector.")
    try:
        text = json.dumps(dict(part), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputTypeError(f"payload: JSON cannot hold it ({error}); use texts, finite numbers, lists.") from None
    if len(text.encode("utf-8", "replace")) > _PAYLOAD_BYTES:
        raise InputError(
            f"payload: {len(text):,} characters were given; use at most {_PAYLOAD_BYTES:,} bytes a vector."
        )
    return text


def open_store(
    where: str | Path | None = None,
    dimension: int | None = None,
    metric: str | None = None,
    *,
    collection: str = "genad",
    token_env: str | None = None,
) -> VectorStore:
    """Return the vector store that a few words name.

    Parameters
    ----------
    where : str, Path or None
        None: a new store in memory. A path that ends in ``.vectors``: a file of
        :meth:`genad.foundation.exact_store.ExactStore.save`, read into memory. A path that ends in ``.db``: a Milvus
        Lite database, made when absent. An address (``http://...`` or ``https://...``): a Milvus server.
    dimension : int, optional
        Needed for a new store; that of a store that exists must agree with it.
    metric : {"cosine", "euclidean"}, optional
        ``"cosine"`` for a new store; likewise.
    collection : str
        Name of the collection within a database.
    token_env : str, optional
        Environment variable that holds the token of a server, ``"user:password"`` or an API key.

    Returns
    -------
    VectorStore

    Raises
    ------
    InputError
        Arguments that contradict each other or the store.
    ModelFileError
        A file that cannot be read.
    MissingExtraError
        Milvus is asked for, and the extra ``store`` is not installed.
    StoreError
        A database that cannot be opened: locked by another process, or a server that does not answer.

    Examples
    --------
    >>> with open_store(dimension=2) as store:
    ...     store.add([[1.0, 0.0], [0.0, 2.0]], ["east", "north"]).search([[1.0, 1.1]], 1).ids
    [['north']]
    """
    text = "" if where is None else str(where)
    if text.startswith(("http://", "https://")) or text.endswith(".db"):
        from genad.foundation.milvus_store import MilvusStore

        return MilvusStore(where or "", dimension, metric, collection=collection, token_env=token_env)
    from genad.foundation.exact_store import ExactStore

    if where is None:
        if dimension is None:
            raise InputError("dimension: none was given; a new store needs one.")
        return ExactStore(dimension, metric or "cosine")
    if not text.endswith(_ENDINGS):
        raise InputError(
            f"where: {text!r} was given; use None, a path that ends in .vectors or .db, or the address of a server."
        )
    store = ExactStore.open(where)
    agree(store, dimension, metric, text)
    return store


def agree(store: VectorStore, dimension: int | None, metric: str | None, where: str) -> None:
    """Refuse a store that is not what was asked for.

    Raises
    ------
    InputError
        When its dimension or metric is another.
    """
    for name, asked, found in (("dimension", dimension, store.dimension), ("metric", metric, store.metric)):
        if asked is not None and asked != found:
            raise InputError(
                f"{name}: {asked!r} was given, but {where} has {found!r}; open it with that, or make another store."
            )
