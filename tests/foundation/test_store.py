"""Vector stores: both backends give the same answers, keep what they hold, and refuse what they cannot use."""

from __future__ import annotations

import importlib
import subprocess
import sys

import numpy as np
import pytest

from genad.errors import InputError, InputTypeError, MissingExtraError, ModelFileError
from genad.foundation.exact_store import ExactStore
from genad.foundation.store import METRICS, open_store
from genad.tensor_files import write_tensors

pytest.importorskip("pymilvus")
milvus_store = importlib.import_module("genad.foundation.milvus_store")


def data(n: int = 300, d: int = 12, seed: int = 0) -> tuple[np.ndarray, list[str], list[dict[str, object]]]:
    vectors = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return vectors, [f"v{i}" for i in range(n)], [{"line": i, "text": f"naïve {i}"} for i in range(n)]


@pytest.fixture(params=["exact", "milvus"])
def make(request, tmp_path):
    """Return a function that makes stores of one backend, closed afterwards."""
    made = []

    def one(dimension: int = 12, metric: str = "cosine"):
        where = None if request.param == "exact" else tmp_path / f"{len(made)}.db"
        made.append(open_store(where, dimension, metric))
        return made[-1]

    yield one
    for store in made:
        store.close()


@pytest.mark.parametrize("metric", METRICS)
def test_both_give_the_neighbours_of_the_definition(make, metric):
    vectors, ids, payload = data()
    queries = data(20, seed=1)[0]
    store = make(metric=metric).add(vectors, ids, payload)
    found = store.search(queries, 7)
    wide, asked = vectors.astype(float), queries.astype(float)
    if metric == "cosine":
        unit = wide / np.linalg.norm(wide, axis=1, keepdims=True)
        truth = 1 - (asked / np.linalg.norm(asked, axis=1, keepdims=True)) @ unit.T
    else:
        truth = np.linalg.norm(asked[:, None] - wide[None], axis=2)
    order = truth.argsort(axis=1)[:, :7]
    assert found.ids == [[ids[j] for j in row] for row in order]
    np.testing.assert_allclose(found.distances, np.take_along_axis(truth, order, 1), rtol=2e-5, atol=2e-6)
    assert found.payload[3][2] == payload[order[3, 2]]


def test_ties_go_by_name_and_a_vector_is_nearest_to_itself(make):
    store = make(2, "euclidean")
    store.add([[1, 1], [0, 0], [1, 1], [1, 1]], ["c", "far", "a", "b"])
    found = store.search([[1, 1]], 2)
    assert found.ids == [["a", "b"]]
    assert found.distances.tolist() == [[0.0, 0.0]]


def test_ties_beyond_the_block_of_candidates():
    store = ExactStore(3, "euclidean")
    store.add(np.ones((9000, 3)), [f"{i:05d}" for i in range(9000)][::-1])
    assert store.search([[0, 0, 0]], 3).ids == [["00000", "00001", "00002"]]


def test_close_neighbours_far_from_the_origin_are_told_apart():
    # In float32 the expanded square of these is off by more than their distances.
    store = ExactStore(2, "euclidean").add([[1000.0, 0.0], [1000.01, 0.0], [1000.02, 0.0]], ["a", "b", "c"])
    found = store.search([[1000.021, 0.0]], 3)
    assert found.ids == [["c", "b", "a"]]
    assert found.distances[0, 0] == pytest.approx(0.001, abs=1e-4)


def test_deleting_and_counting(make):
    vectors, ids, payload = data(30)
    store = make().add(vectors, ids, payload)
    store.delete(ids[:10])
    assert store.count() == len(store) == 20
    assert store.search(vectors[:1], 1).ids != [["v0"]]
    held, kept = store.get(["v12", "v11"])
    np.testing.assert_allclose(held[0], vectors[12] / np.linalg.norm(vectors[12]), atol=1e-6)
    assert kept == [payload[12], payload[11]]
    store.add(vectors[:1], ["v0"])
    assert store.search(vectors[:1], 1).ids == [["v0"]]
    assert store.search(vectors[:2], 100).distances.shape == (2, 21)


def test_an_empty_store_and_nothing_to_do(make):
    store = make()
    assert store.search(np.ones((2, 12)), 3).ids == [[], []]
    store.add(np.zeros((0, 12)), [])
    store.delete([])
    assert store.count() == 0


@pytest.mark.parametrize(
    ("act", "error", "words"),
    [
        (lambda s: s.add(np.ones((2, 5)), ["a", "b"]), InputError, r"vectors: shape \(2, 5\).*\(n, 12\)"),
        (lambda s: s.search(np.ones(12), 1), InputError, r"queries: shape \(12,\)"),
        (lambda s: s.add([["x"] * 12], ["a"]), InputTypeError, "not an array of numbers"),
        (lambda s: s.add(np.full((1, 12), np.nan), ["a"]), InputError, "row 0 is not finite"),
        (lambda s: s.add(np.zeros((1, 12)), ["a"]), InputError, "no direction"),
        (lambda s: s.add(np.ones((2, 12)), ["a"]), InputError, "ids: 1 were given for 2"),
        (lambda s: s.add(np.ones((2, 12)), ["a", "a"]), InputError, "'a' was given twice"),
        (lambda s: s.add(np.ones((1, 12)), [3]), InputTypeError, "ids: 3"),
        (lambda s: s.add(np.ones((1, 12)), ["x" * 513]), InputError, "has 513 bytes"),
        (lambda s: s.add(np.ones((1, 12)), ["there"]), InputError, "'there' is in the store already"),
        (lambda s: s.add(np.ones((1, 12)), ["a"], []), InputError, "payload: 0 were given for 1"),
        (lambda s: s.add(np.ones((1, 12)), ["a"], [3]), InputTypeError, "one mapping a vector"),
        (lambda s: s.add(np.ones((1, 12)), ["a"], [{"x": float("nan")}]), InputTypeError, "JSON cannot hold"),
        (lambda s: s.add(np.ones((1, 12)), ["a"], [{"x": "y" * 70_000}]), InputError, "65,535 bytes"),
        (lambda s: s.search(np.ones((1, 12)), 0), InputError, "k: 0"),
        (lambda s: s.delete(["there", "nobody"]), InputError, r"'nobody' is not in the store \(1 of 2"),
        (lambda s: s.get(["nobody"]), InputError, "holds 1 vectors"),
    ],
)
def test_what_cannot_be_used_is_refused_and_changes_nothing(make, act, error, words):
    store = make().add(np.ones((1, 12)), ["there"])
    with pytest.raises(error, match=words):
        act(store)
    assert store.count() == 1


def test_a_file_gives_back_the_very_answers(tmp_path):
    vectors, ids, payload = data()
    store = ExactStore(12).add(vectors, ids, payload)
    again = open_store(store.save(tmp_path / "one.vectors"), 12, "cosine")
    first, second = store.search(vectors[:5] + 0.1, 4), again.search(vectors[:5] + 0.1, 4)
    assert first.ids == second.ids
    assert first.payload == second.payload
    assert np.array_equal(first.distances, second.distances)


def test_a_database_keeps_what_it_holds(tmp_path):
    vectors, ids, payload = data()
    with open_store(tmp_path / "one.db", 12, "euclidean") as store:
        assert store.index == "FLAT"
        before = store.add(vectors, ids, payload).search(vectors[:5], 3)
        store.delete(["v9"])
    with pytest.raises(InputError, match="closed"):
        store.count()
    with open_store(tmp_path / "one.db") as again:
        after = again.search(vectors[:5], 3)
        assert (again.dimension, again.metric, again.count()) == (12, "euclidean", 299)
        assert before.ids == after.ids
        assert before.payload == after.payload
    with pytest.raises(InputError, match=r"dimension: 13 was given, but .* has 12"):
        open_store(tmp_path / "one.db", 13)
    with open_store(tmp_path / "one.db", 3, collection="other") as other:
        assert other.count() == 0
        other.drop()


def test_a_refused_index_falls_back(tmp_path, monkeypatch):
    client = importlib.import_module("pymilvus").MilvusClient
    create = client.create_collection

    def refusing(self, name, **settings):
        create(self, name, **settings)
        if any(index.index_type == "FLAT" for index in settings["index_params"]):
            raise RuntimeError("no such index: FLAT")

    monkeypatch.setattr(client, "create_collection", refusing)
    vectors, ids, payload = data(40)
    with open_store(tmp_path / "one.db", 12) as store:
        assert store.index == "AUTOINDEX"
        assert store.add(vectors, ids, payload).search(vectors[:1], 1).ids == [["v0"]]
    with pytest.raises(milvus_store.StoreError, match="with the index FLAT"):
        milvus_store.MilvusStore(tmp_path / "one.db", 3, collection="other", index="FLAT")
    monkeypatch.undo()
    with open_store(tmp_path / "one.db", 3, collection="other") as other:
        assert other.index == "FLAT"


def test_a_half_addition_is_taken_back(tmp_path, monkeypatch):
    monkeypatch.setattr(milvus_store, "_BATCH_ROWS", 10)
    vectors, ids, payload = data(30)
    with open_store(tmp_path / "one.db", 12) as store:
        insert, calls = store._client.insert, []

        def failing(*arguments, **settings):
            calls.append(1)
            if len(calls) == 3:
                raise RuntimeError("no room left")
            return insert(*arguments, **settings)

        monkeypatch.setattr(store._client, "insert", failing)
        with pytest.raises(milvus_store.StoreError, match=r"adding vectors .no room left"):
            store.add(vectors, ids, payload)
        assert store.count() == 0


def test_a_database_that_another_process_holds(tmp_path):
    where = tmp_path / "one.db"
    open_store(where, 3).close()
    hold = "import sys; from genad.foundation.store import open_store; s = open_store(sys.argv[1]); print(1); input()"
    other = subprocess.Popen(
        [sys.executable, "-u", "-c", hold, str(where)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout.readline() == b"1\n"
        with pytest.raises(milvus_store.StoreError, match="another process may have it open"):
            open_store(where)
    finally:
        other.communicate(b"\n")
    with open_store(where) as store, open_store(where, collection="more", dimension=2) as more:
        store.close()
        assert more.count() == 0


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, InputError, "dimension: none was given"),
        ({"dimension": 0}, InputError, "dimension: 0"),
        ({"dimension": 2, "metric": "manhattan"}, InputError, "metric: 'manhattan'.*'cosine' or 'euclidean'"),
        ({"where": "vectors.bin"}, InputError, "where: 'vectors.bin'.*.vectors or .db"),
        ({"where": "nowhere.vectors"}, ModelFileError, "nowhere.vectors"),
        ({"where": "no/such/folder/a.db", "dimension": 2}, InputError, "does not exist"),
        ({"where": "a.db", "dimension": 2, "collection": "1 x"}, InputError, "collection: '1 x'"),
        ({"where": "http://127.0.0.1:9", "dimension": 2, "token_env": "GENAD_NO_SUCH"}, InputError, "GENAD_NO_SUCH"),
        ({"where": "http://127.0.0.1:9", "dimension": 2}, milvus_store.StoreError, "no Milvus server answers"),
    ],
)
def test_what_cannot_be_opened(arguments, error, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        open_store(**arguments)


def test_files_that_are_no_store(tmp_path):
    import torch

    (tmp_path / "a.db").write_text("not a database")
    with pytest.raises(milvus_store.StoreError, match="or it is none"):
        open_store(tmp_path / "a.db", 2)
    write_tensors(tmp_path / "a.vectors", {"vectors": torch.zeros(2, 3)}, {"store": 1, "ids": ["a"]})
    with pytest.raises(ModelFileError, match="holds no vector store"):
        open_store(tmp_path / "a.vectors")


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(MissingExtraError, match=r"genad\[store\]"):
        open_store(tmp_path / "one.db", 2)
