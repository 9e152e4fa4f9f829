"""How fast do vector stores take in and search vectors? Exact search and Milvus Lite beside FAISS."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.common import keep, quiet, timed

NEIGHBOURS = 10


def _row(name: str, n: int, insert: float, single: float, many: float, queries: int, found: list[list[str]]) -> Any:
    return {
        "store": name, "inserted a second": round(n / insert), "single searches a second": round(20 / single, 1),
        f"searches a second, {queries} at once": round(queries / many, 1), "found": found,
    }  # fmt: skip


def _measured(name: str, store: Any, vectors: np.ndarray, queries: np.ndarray) -> Any:
    ids = [str(i) for i in range(len(vectors))]
    payload = [{"line": i} for i in range(len(vectors))]
    _, insert = timed(lambda: store.add(vectors, ids, payload))
    store.search(queries[:1], NEIGHBOURS)  # the first search may write what was added
    _, single = timed(lambda: [store.search(queries[i : i + 1], NEIGHBOURS) for i in range(20)])
    found, many = timed(lambda: store.search(queries, NEIGHBOURS))
    return _row(name, len(vectors), insert, single, many, len(queries), found.ids)


def _faiss(faiss: Any, vectors: np.ndarray, queries: np.ndarray) -> Any:
    faiss.omp_set_num_threads(1)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    asked = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    index = faiss.IndexFlatIP(vectors.shape[1])
    _, insert = timed(lambda: index.add(unit))
    index.search(asked[:1], NEIGHBOURS)
    _, single = timed(lambda: [index.search(asked[i : i + 1], NEIGHBOURS) for i in range(20)])
    (_, found), many = timed(lambda: index.search(asked, NEIGHBOURS))
    ids = [[str(i) for i in row] for row in found.tolist()]
    return _row(f"FAISS {faiss.__version__} IndexFlatIP", len(vectors), insert, single, many, len(queries), ids)


def main(options: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks store --")
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--queries", type=int, default=256)
    args = parser.parse_args(options)
    quiet()
    with threadpool_limits(1):
        measure(args, options)


def measure(args: argparse.Namespace, options: list[str]) -> None:
    """Fill each store, search it, and keep the rates."""
    from genad.foundation.exact_store import ExactStore
    from genad.foundation.store import open_store

    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((args.vectors, args.dimension), dtype=np.float32)
    queries = rng.standard_normal((args.queries, args.dimension), dtype=np.float32)
    rows = [_measured("exact, in memory", ExactStore(args.dimension), vectors, queries)]
    try:
        import faiss
    except ImportError:
        print("faiss is not installed; its row is left out")
    else:
        rows.append(_faiss(faiss, vectors, queries))
    try:
        import milvus_lite  # noqa: F401
    except ImportError:
        print("milvus-lite is not installed; its row is left out")
    else:
        with tempfile.TemporaryDirectory() as folder, open_store(Path(folder) / "v.db", args.dimension) as store:
            rows.append(_measured(f"Milvus Lite, index {store.index}", store, vectors, queries))
    truth = rows[0]["found"]
    for row in rows:
        agree = [len(set(one) & set(other)) for one, other in zip(row.pop("found"), truth, strict=True)]
        row["agreement with exact"] = f"{np.mean(agree) / NEIGHBOURS:.4f}"
    keep(
        "store",
        "Vector stores",
        f"{args.vectors:,} standard normal vectors of {args.dimension} dimensions, cosine, {NEIGHBOURS} neighbours; "
        "one thread",
        rows,
        [
            "The stores of genad keep names and payloads and check that names are new; FAISS does not.",
            "Milvus Lite runs as a server within the process, and every call passes through it.",
        ],
        options,
    )
