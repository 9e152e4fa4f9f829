"""Vectors in Milvus: a file of Milvus Lite in this process, or a server that many share."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genad.errors import GenadError, InputError, ServiceError
from genad.extras import require
from genad.foundation.store import Neighbours, VectorStore, agree

_BATCH_NUMBERS = 2**20  # of vectors in one message: 4 MB of a limit of 64
_BATCH_ROWS = 1000
_QUERIES = 128  # in one message; more are no quicker
_MOST = 16_384  # neighbours that Milvus gives
_SPARE = 16  # further neighbours that are asked for, so that ties at the last place are settled by name
_NAME = re.compile(r"[A-Za-z_]\w{0,200}")
_INDEXES = ("FLAT", "AUTOINDEX")  # exact search where the database offers it
# Milvus Lite keeps a file locked as long as its server runs in this process; it is stopped with the last store of it.
_USERS: Counter[str] = Counter()
_LOCK = threading.Lock()


class StoreError(ServiceError):
    """A vector database cannot be opened, does not answer, or refuses what it is asked."""


@contextmanager
def _calling(where: str, doing: str) -> Iterator[None]:
    """Turn what Milvus raises into one message; its own logging of the same is held back meanwhile."""
    loggers = [logging.getLogger(name) for name in ("pymilvus", "milvus_lite", "grpc")]
    loggers += [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("pymilvus.")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    except GenadError:
        raise
    except Exception as error:
        text = getattr(error, "message", None) or str(error)
        first = str(text).strip().split("\n", 1)[0][:200]
        raise StoreError(f"{where}: Milvus failed when {doing} ({first}).") from error
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


class MilvusStore(VectorStore):
    """Vectors in a collection of Milvus, which outlive the process; those of a server are shared.

    Under ``"cosine"`` vectors are kept at length 1 and compared by their inner product. Search is exact where the
    database offers the index FLAT, as Milvus Lite and servers do; otherwise its own choice of index is taken, which
    may miss neighbours. The attribute ``index`` says which it is.

    **When to use.** Vectors that must last, that do not fit in memory, or that several users search.

    **When it fails.** One process at a time can open a Milvus Lite file. Single searches of Milvus Lite cost several
    times those of :class:`~genad.foundation.exact_store.ExactStore`: hand over many queries at once. Under
    ``"euclidean"`` Milvus Lite compares the vectors one by one, which is slower by far.

    Parameters
    ----------
    where : str or Path
        A path for Milvus Lite, or the address of a server.
    dimension, metric
        Needed for a new collection (the metric is ``"cosine"`` when absent); one that exists must agree.
    collection : str
        Letters, digits and ``_``, not beginning with a digit.
    token_env : str, optional
        Environment variable that holds the token of a server.
    index : str, optional
        Type of the index of a new collection as Milvus names it; ``"FLAT"``, then ``"AUTOINDEX"`` when absent.
    timeout : float
        Seconds to wait for a server.

    Raises
    ------
    InputError, MissingExtraError, StoreError
        As :func:`~genad.foundation.store.open_store`.

    References
    ----------
    Wang et al. (2021), Milvus: A purpose-built vector data management system, SIGMOD.
    """

    def __init__(
        self,
        where: str | Path,
        dimension: int | None = None,
        metric: str | None = None,
        *,
        collection: str = "genad",
        token_env: str | None = None,
        index: str | None = None,
        timeout: float = 10.0,
    ) -> None:
        if not _NAME.fullmatch(collection):
            raise InputError(f"collection: {collection!r} was given; use letters, digits and _, a letter first.")
        self.where, self.collection = str(where), collection
        self._client: Any = None
        self._lite = not self.where.startswith(("http://", "https://"))
        self._unwritten = False
        milvus = require("pymilvus", "store")
        if self._lite:
            require("milvus_lite", "store")
        client = self._connect(milvus, token_env, timeout)
        try:
            with _calling(self.where, "opening the collection"):
                exists = client.has_collection(collection)
                facts = self._facts(client) if exists else None
            if facts is None:
                if dimension is None:
                    raise InputError(
                        f"dimension: none was given, and {self.where} has no collection {collection!r}; give the "
                        "dimension of a new one."
                    )
                super().__init__(dimension, metric or "cosine")
                self.index = self._create(milvus, client, index)
            else:
                super().__init__(facts[0], facts[1])
                self.index = facts[2]
                agree(self, dimension, metric, f"the collection {collection!r} of {self.where}")
            with _calling(self.where, "loading the collection"):
                client.load_collection(collection)
        except BaseException:
            self._let_go(client)
            raise
        self._client = client

    def __repr__(self) -> str:
        return f"MilvusStore({self.where!r}, {self.dimension}, {self.metric!r}, collection={self.collection!r})"

    # ------------------------------------------------------------------ opening

    def _connect(self, milvus: Any, token_env: str | None, timeout: float) -> Any:
        settings: dict[str, Any] = {}
        if token_env is not None:
            token = os.environ.get(token_env)
            if not token:
                raise InputError(f"token_env: the environment variable {token_env!r} is not set; set it to the token.")
            settings["token"] = token
        if self._lite:
            folder = Path(self.where).absolute().parent
            if not folder.is_dir():
                raise InputError(f"where: the folder {folder} does not exist; make it first.")
        else:
            settings["timeout"] = timeout
        try:
            with _calling(self.where, "connecting"), _LOCK:
                client = milvus.MilvusClient(self.where, **settings)
                _USERS[str(Path(self.where).absolute())] += self._lite
                return client
        except StoreError as error:
            if not self._lite:
                raise StoreError(
                    f"{self.where}: no Milvus server answers there; check the address, the token and that it runs."
                ) from error.__cause__
            if Path(self.where).exists():
                raise StoreError(
                    f"{self.where}: cannot be opened as a Milvus Lite database; another process may have it open "
                    "(close it there), or it is none."
                ) from error.__cause__
            raise

    def _facts(self, client: Any) -> tuple[int, str, str]:
        """Return dimension, metric and index of the collection."""
        fields = {field["name"]: field for field in client.describe_collection(self.collection)["fields"]}
        if not {"id", "vector", "payload"} <= set(fields):
            raise InputError(
                f"collection: {self.collection!r} of {self.where} has the fields {', '.join(fields)} and was not made "
                "by genad; use another name."
            )
        index: dict[str, Any] = client.describe_index(self.collection, client.list_indexes(self.collection)[0])
        metric = {"IP": "cosine", "L2": "euclidean"}.get(str(index.get("metric_type")).upper())
        if metric is None:
            raise InputError(
                f"collection: {self.collection!r} of {self.where} compares by {index.get('metric_type')!r} and was not "
                "made by genad; use another name."
            )
        return int(fields["vector"]["params"]["dim"]), metric, str(index.get("index_type"))

    def _create(self, milvus: Any, client: Any, index: str | None) -> str:
        kinds = milvus.DataType
        types = _INDEXES if index is None else (index,)
        for kind in types:
            schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("id", kinds.VARCHAR, is_primary=True, max_length=512)
            schema.add_field("vector", kinds.FLOAT_VECTOR, dim=self.dimension)
            schema.add_field("payload", kinds.JSON)
            wanted = client.prepare_index_params()
            wanted.add_index("vector", index_type=kind, metric_type="IP" if self.metric == "cosine" else "L2")
            try:
                with _calling(self.where, f"making a collection with the index {kind}"):
                    client.create_collection(
                        self.collection, schema=schema, index_params=wanted, consistency_level="Strong"
                    )
            except StoreError:
                # A collection whose index was refused may be left behind.
                with _calling(self.where, "clearing up"):
                    if client.has_collection(self.collection):
                        client.drop_collection(self.collection)
                if kind == types[-1]:
                    raise
                continue
            return kind
        raise AssertionError  # the loop returns or raises

    @property
    def _open(self) -> Any:
        if self._client is None:
            raise InputError(f"{self.where}: the store is closed; open it again.")
        return self._client

    # ------------------------------------------------------------------ the interface

    def close(self) -> None:
        """Close the connection; what was added stays."""
        if self._client is not None:
            client, self._client = self._client, None
            self._let_go(client)

    def _let_go(self, client: Any) -> None:
        with _calling(self.where, "closing"), _LOCK:
            client.close()
            path = str(Path(self.where).absolute())
            _USERS[path] -= self._lite
            if self._lite and not _USERS[path]:
                require("milvus_lite.server_manager", "store").server_manager_instance.release_server(path)

    def drop(self) -> None:
        """Remove the collection from the database for good, and close the store."""
        client = self._open
        with _calling(self.where, "dropping the collection"):
            client.drop_collection(self.collection)
        self.close()

    def count(self) -> int:
        """Return how many vectors are held."""
        client = self._open
        with _calling(self.where, "counting"):
            found = client.query(self.collection, filter="", output_fields=["count(*)"])
        return int(found[0]["count(*)"])

    def _known(self, ids: Sequence[str]) -> set[str]:
        client, found = self._open, set()
        for start in range(0, len(ids), _BATCH_ROWS):
            with _calling(self.where, "looking up names"):
                part = list(ids[start : start + _BATCH_ROWS])
                found |= {row["id"] for row in client.query(self.collection, ids=part, output_fields=["id"])}
        return found

    def _add(self, vectors: NDArray[np.float32], ids: list[str], payload: list[str]) -> None:
        client, size = self._open, max(1, min(_BATCH_ROWS, _BATCH_NUMBERS // self.dimension))
        for start in range(0, len(ids), size):
            part = slice(start, start + size)
            rows = [
                {"id": name, "vector": vector, "payload": json.loads(text)}
                for name, vector, text in zip(ids[part], vectors[part], payload[part], strict=True)
            ]
            try:
                with _calling(self.where, "adding vectors"):
                    client.insert(self.collection, rows)
            except StoreError:
                if start:
                    with _calling(self.where, "taking back a half addition"):
                        client.delete(self.collection, ids=ids[:start])
                raise
        self._unwritten = True

    def _get(self, ids: list[str]) -> tuple[NDArray[np.float32], list[dict[str, Any]]]:
        client = self._open
        found: dict[str, Any] = {}
        for start in range(0, len(ids), _BATCH_ROWS):
            with _calling(self.where, "reading vectors"):
                rows = client.get(
                    self.collection, ids=ids[start : start + _BATCH_ROWS], output_fields=["id", "vector", "payload"]
                )
            found |= {row["id"]: row for row in rows}
        vectors = np.array([found[name]["vector"] for name in ids], np.float32).reshape(-1, self.dimension)
        return vectors, [_payload(found[name]["payload"]) for name in ids]

    def _delete(self, ids: list[str]) -> None:
        client = self._open
        for start in range(0, len(ids), _BATCH_ROWS):
            with _calling(self.where, "deleting vectors"):
                client.delete(self.collection, ids=ids[start : start + _BATCH_ROWS])
        self._unwritten = True

    def _search(self, queries: NDArray[np.float32], k: int) -> Neighbours:
        if k > _MOST:
            raise InputError(f"k: {k:,} was given; Milvus gives at most {_MOST:,} neighbours.")
        client = self._open
        if self._lite and self._unwritten:
            # Milvus Lite searches what is not yet written ten times slower.
            with _calling(self.where, "writing"):
                client.flush(self.collection)
            self._unwritten = False
        ids: list[list[str]] = []
        payload: list[list[dict[str, Any]]] = []
        distances = np.full((len(queries), k), np.inf)
        for start in range(0, len(queries), _QUERIES):
            with _calling(self.where, "searching"):
                found = client.search(
                    self.collection,
                    data=list(queries[start : start + _QUERIES]),
                    anns_field="vector",
                    limit=min(k + _SPARE, _MOST),
                    output_fields=["payload"],
                )
            for i, hits in enumerate(found, start):
                near = ((self._distance(hit["distance"]), str(hit["id"]), hit["entity"]["payload"]) for hit in hits)
                ranked = sorted(near, key=lambda one: one[:2])[:k]
                # An index that is not exact may find fewer; their places stay empty and infinitely far.
                spare = k - len(ranked)
                distances[i, : len(ranked)] = [one[0] for one in ranked]
                ids.append([one[1] for one in ranked] + [""] * spare)
                payload.append([_payload(one[2]) for one in ranked] + [{}] * spare)
        return Neighbours(ids, distances, payload)

    def _distance(self, value: float) -> float:
        return max(1.0 - value, 0.0) if self.metric == "cosine" else float(np.sqrt(max(value, 0.0)))


def _payload(value: Any) -> dict[str, Any]:
    """Return a payload as it was given; some servers answer with JSON as text."""
    return json.loads(value) if isinstance(value, str | bytes) else dict(value)
