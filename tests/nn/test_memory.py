from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from genad.errors import InputError
from genad.nn import FIFOMemory, memory, nearest_distances, nearest_neighbors


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("chunk", [1, 64, 1 << 22])
def test_distances_equal_brute_force(p, offset, chunk):
    rng = np.random.default_rng(0)
    queries = (rng.normal(size=(23, 4)) + offset).astype(np.float32)
    bank = (rng.normal(size=(70, 4)) + offset).astype(np.float32)
    expected = np.sort(cdist(queries.astype(float), bank.astype(float), "minkowski", p=p))[:, :5]
    found, index = nearest_neighbors(torch.from_numpy(queries), torch.from_numpy(bank), 5, chunk=chunk, p=p)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    again = np.linalg.norm(queries[:, None].astype(float) - bank[index.numpy()], ord=p, axis=-1)
    np.testing.assert_allclose(again, expected, rtol=1e-6)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    k=st.integers(1, 4),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    offset=st.sampled_from([0.0, 1e4, 1e8]),
    levels=st.sampled_from([1, 2, 50]),
)
def test_hard_cases_equal_brute_force(seed, k, scale, offset, levels):
    """Large offsets, tiny gaps and many equal rows: where the matrix product alone goes wrong."""
    rng = np.random.default_rng(seed)
    bank = scale * rng.integers(0, levels, size=(40, 3)) + offset
    queries = np.concatenate([bank[:5], bank[5:9] + scale * rng.normal(size=(4, 3))])
    expected = np.sort(cdist(queries, bank))[:, :k]
    distance, index = nearest_neighbors(torch.from_numpy(queries), torch.from_numpy(bank), k)
    np.testing.assert_allclose(distance.numpy(), expected, rtol=1e-9)
    assert (distance[:5, 0] == 0).all()
    assert all(len(set(rows)) == k for rows in index.tolist())


def test_rows_at_equal_distance_are_named_once_each():
    # On a sphere only rounding tells which row is nearer, and a product and differences round differently.
    sphere = np.random.default_rng(0).normal(size=(200, 7))
    bank = torch.from_numpy(sphere / np.linalg.norm(sphere, axis=1, keepdims=True))
    for k in range(1, 40):
        index = nearest_neighbors(torch.zeros(1, 7, dtype=torch.float64), bank, k)[1]
        assert len(set(index[0].tolist())) == k


def test_one_tiny_coordinate_beside_a_huge_one_is_resolved():
    # differences of 1e-5 vanish in a product of numbers around 1e12, even in float64
    bank = torch.zeros(60, 2, dtype=torch.float64)
    bank[:, 0] = 1e6 * torch.arange(60).remainder(2)
    bank[:, 1] = 1e-5 * torch.arange(60)
    distance, index = nearest_neighbors(bank, bank, 2)
    assert (distance[:, 0] == 0).all()
    assert index[:, 0].tolist() == list(range(60))
    torch.testing.assert_close(distance[:, 1], torch.full((60,), 2e-5, dtype=torch.float64))


def test_a_query_in_the_bank_is_at_exactly_zero_in_float32():
    rng = np.random.default_rng(3)
    bank = torch.from_numpy((1e4 + rng.normal(size=(500, 20))).astype(np.float32))
    distance = nearest_distances(bank, bank, k=2)
    assert distance.dtype == torch.float32
    assert (distance[:, 0] == 0).all()
    assert (distance[:, 1] > 0.1).all()
    assert (nearest_distances(bank, bank, k=1, p=1) == 0).all()


def test_gradient_points_away_from_the_neighbour_and_is_zero_on_it():
    query = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    nearest_distances(query, torch.tensor([[0.0, 0.0], [90.0, 0.0]]), k=1).sum().backward()
    torch.testing.assert_close(query.grad, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


def test_no_queries_and_whole_numbers():
    assert nearest_distances(torch.zeros(0, 2), torch.zeros(3, 2), 2).shape == (0, 2)
    whole = nearest_distances(torch.tensor([[1]]), torch.tensor([[3], [8]]), 1)
    assert whole.tolist() == [[2.0]]
    assert whole.dtype == torch.float32


@pytest.mark.parametrize(
    ("queries", "bank", "k", "message"),
    [
        ((2, 3), (5, 4), 1, "bank: found shape"),
        ((3,), (5, 3), 1, "bank: found shape"),
        ((2, 3), (5, 3), 6, "k: found 6; accepted is 1 to 5"),
        ((2, 3), (5, 3), 0, "k: found 0"),
    ],
)
def test_wrong_arguments_are_refused(queries, bank, k, message):
    with pytest.raises(InputError, match=message):
        nearest_distances(torch.zeros(queries), torch.zeros(bank), k)


def test_margin_is_positive():
    assert memory.MARGIN > 0


def test_fifo_replaces_the_oldest_first():
    store = FIFOMemory(3, 1)
    assert len(store) == 0
    for value in range(5):
        store.push(torch.tensor([[float(value)]]))
        expected = [[float(v)] for v in range(max(0, value - 2), value + 1)]
        assert store.ordered().tolist() == expected
        assert len(store) == len(expected)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.integers(1, 6), st.lists(st.integers(0, 9), max_size=8))
def test_fifo_holds_the_last_rows_whatever_the_blocks(size, blocks):
    store, flow = FIFOMemory(size, 1), torch.arange(float(sum(blocks))).unsqueeze(1)
    done = 0
    for n in blocks:
        store.push(flow[done : done + n])
        done += n
    assert store.ordered().tolist() == flow[-size:].tolist()
    assert sorted(store.stored().tolist()) == flow[-size:].tolist()


@pytest.mark.parametrize(("metric", "order"), [("l1", 1), ("l2", 2)])
def test_knn_sees_only_the_rows_held(metric, order):
    generator = torch.Generator().manual_seed(0)
    store = FIFOMemory(10, 4, metric=metric)
    rows = torch.randn(7, 4, generator=generator) + 5
    store.push(rows)  # the three empty places, all zeros, must not count
    query = torch.zeros(1, 4)
    expected = torch.linalg.vector_norm(rows, ord=order, dim=1).sort().values[:3]
    torch.testing.assert_close(store.knn(query, 3)[0], expected)
    with pytest.raises(InputError, match="k: found 8; accepted is 1 to 7"):
        store.knn(query, 8)


def test_fifo_survives_the_state_dict_and_has_no_parameters():
    store, other = FIFOMemory(3, 2), FIFOMemory(3, 2)
    store.push(torch.arange(10.0).view(5, 2))
    other.load_state_dict(store.state_dict())
    assert other.ordered().tolist() == store.ordered().tolist()
    assert not list(store.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0, "dim": 1}, "size: found 0"),
        ({"size": 1, "dim": 0}, "dim: found 0"),
        ({"size": 1, "dim": 1, "metric": "cosine"}, "metric: found 'cosine'"),
    ],
)
def test_fifo_refuses_wrong_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        FIFOMemory(**arguments)
    with pytest.raises(InputError, match=r"rows: found shape \(2, 2\); accepted is \(n, 3\)"):
        FIFOMemory(4, 3).push(torch.zeros(2, 2))
