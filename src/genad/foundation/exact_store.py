"""Vectors in memory, compared with every query: exact, and the same answer each time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from genad.errors import InputError, ModelFileError
from genad.foundation.store import Neighbours, VectorStore
from genad.tensor_files import read_tensors, write_tensors

_FORMAT = 1
_CELLS = 2**24  # distances computed at once: 64 MB
_EXACT_ROWS = 8192  # candidates whose distances are computed anew at once


class ExactStore(VectorStore):
    """Vectors in memory, compared with every query: exact, and the same answer each time.

    Candidates come from products in float32, block by block; their distances are then computed again in float64, so
    that equal vectors have equal distances and ties go by name.

    **When to use.** Up to some hundred thousand vectors, or when answers must not depend on an index.

    **When it fails.** Each search costs one pass over all vectors, and all of them stand in memory: beyond a million,
    or for many users at once, use Milvus by :func:`open_store`.

    Parameters
    ----------
    dimension : int
    metric : {"cosine", "euclidean"}

    Examples
    --------
    >>> store = ExactStore(2, "euclidean")
    >>> _ = store.add([[0, 0], [3, 4], [6, 8]], ["origin", "near", "far"], [{"line": i} for i in range(3)])
    >>> found = store.search([[3, 3]], k=2)
    >>> found.ids, found.distances.round(2).tolist(), found.payload[0][0]
    ([['near', 'origin']], [[1.0, 4.24]], {'line': 1})
    """

    def __init__(self, dimension: int, metric: str = "cosine") -> None:
        super().__init__(dimension, metric)
        self._forget()

    def _forget(self) -> None:
        self._rows = np.zeros((0, self.dimension), np.float32)
        self._squares = np.zeros(0, np.float32)
        self._ids: list[str] = []
        self._payload: list[str] = []
        self._places: dict[str, int] = {}

    def count(self) -> int:
        """Return how many vectors are held."""
        return len(self._ids)

    def close(self) -> None:
        """Forget everything; :meth:`save` first what is to last."""
        self._forget()

    def save(self, path: str | Path) -> Path:
        """Write the store to one checked file, all or nothing; :meth:`open` reads it back.

        Parameters
        ----------
        path : str or Path

        Returns
        -------
        Path
        """
        path = Path(path)
        header = {
            "store": _FORMAT, "metric": self.metric, "dimension": self.dimension, "ids": self._ids,
            "payload": self._payload,
        }  # fmt: skip
        write_tensors(path, {"vectors": torch.from_numpy(self._rows[: len(self)])}, header)
        return path

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Read a store that :meth:`save` wrote.

        Raises
        ------
        ModelFileError
            When the file is missing, damaged, of a newer version or no store.
        """
        tensors, header = read_tensors(Path(path))
        try:
            version, ids, texts = header["store"], list(header["ids"]), list(header["payload"])
            rows = tensors["vectors"].numpy()
            store = cls(header["dimension"], header["metric"])
            whole = version == _FORMAT and rows.shape == (len(ids), store.dimension) and len(texts) == len(ids)
        except (KeyError, TypeError, InputError):
            whole = False
        if not whole:
            raise ModelFileError(f"{path}: holds no vector store of this version; make it again by save().")
        store._put(rows, ids, texts)
        return store

    def _known(self, ids: Sequence[str]) -> set[str]:
        return {name for name in ids if name in self._places}

    def _add(self, vectors: NDArray[np.float32], ids: list[str], payload: list[str]) -> None:
        self._put(vectors, ids, payload)

    def _put(self, vectors: NDArray[np.float32], ids: list[str], payload: list[str]) -> None:
        held, after = len(self._ids), len(self._ids) + len(ids)
        if after > len(self._rows):
            # Room for twice as many, so that adding one by one costs no more than adding all at once.
            rows = np.empty((max(after, 2 * held), self.dimension), np.float32)
            squares = np.empty(len(rows), np.float32)
            rows[:held], squares[:held] = self._rows[:held], self._squares[:held]
            self._rows, self._squares = rows, squares
        self._rows[held:after] = vectors
        self._squares[held:after] = np.einsum("nd,nd->n", vectors, vectors)
        self._places |= {name: held + i for i, name in enumerate(ids)}
        self._ids += ids
        self._payload += payload

    def _get(self, ids: list[str]) -> tuple[NDArray[np.float32], list[dict[str, Any]]]:
        places = [self._places[name] for name in ids]
        return self._rows[places], [json.loads(self._payload[place]) for place in places]

    def _delete(self, ids: list[str]) -> None:
        gone = {self._places[name] for name in ids}
        kept = [place for place in range(len(self)) if place not in gone]
        rows, names = self._rows[kept], [self._ids[place] for place in kept]
        payload = [self._payload[place] for place in kept]
        self.close()
        self._put(rows, names, payload)

    def _search(self, queries: NDArray[np.float32], k: int) -> Neighbours:
        n = len(self)
        ids: list[list[str]] = []
        distances = np.empty((len(queries), k))
        payload = []
        rows, squares = self._rows[:n], self._squares[:n]
        # The float32 products are off by at most some 1e-6 of the lengths involved.
        slack = 4e-6 * float(squares.max())
        size = max(1, min(256, _CELLS // n))
        for start in range(0, len(queries), size):
            block = queries[start : start + size]
            rough = block @ rows.T
            rough *= -2.0
            rough += squares
            last = np.partition(rough, k - 1, axis=1)[:, k - 1]
            near = last + 2 * slack + 8e-6 * np.einsum("nd,nd->n", block, block)
            for i, query in enumerate(block):
                places = np.flatnonzero(rough[i] <= near[i])
                exact = self._distances(query, places)
                # Of what is as near as the k-th, the names decide; only these few are compared as texts.
                limit = np.partition(exact, k - 1)[k - 1]
                close = np.flatnonzero(exact <= limit)
                order = sorted(close.tolist(), key=lambda j: (exact[j], self._ids[places[j]]))[:k]
                chosen = places[order].tolist()
                ids.append([self._ids[place] for place in chosen])
                payload.append([json.loads(self._payload[place]) for place in chosen])
                distances[start + i] = exact[order]
        return Neighbours(ids, distances, payload)

    def _distances(self, query: NDArray[np.float32], places: NDArray[np.int64]) -> NDArray[np.float64]:
        wide, parts = query.astype(np.float64), []
        for start in range(0, len(places), _EXACT_ROWS):
            apart = self._rows[places[start : start + _EXACT_ROWS]].astype(np.float64) - wide
            parts.append(np.einsum("nd,nd->n", apart, apart))
        squares = np.concatenate(parts)
        # At length 1, 1 - cosine is half the squared distance.
        return squares / 2.0 if self.metric == "cosine" else np.sqrt(squares)
