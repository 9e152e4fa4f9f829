from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812

from genad.errors import InputError
from genad.nn.memory_bank import SoftMemory, addressing_entropy, hard_shrink


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), items=st.integers(1, 40), threshold=st.floats(0.0, 0.99))
def test_shrunk_weights_sum_to_one_and_none_survives_below_the_threshold(seed, items, threshold):
    weights = (3 * torch.randn(5, items, generator=torch.Generator().manual_seed(seed))).softmax(-1)
    shrunk = hard_shrink(weights, threshold)
    assert torch.allclose(shrunk.sum(-1), torch.ones(5), atol=1e-5)
    largest = weights == weights.amax(-1, keepdim=True)
    assert not (
        shrunk[(weights < threshold - 1e-6) & ~largest & (weights < 0.99 * weights.amax(-1, keepdim=True))]
    ).any()


def test_shrinkage_follows_the_formula_and_then_renormalises():
    weights = torch.tensor([[0.4, 0.3, 0.2, 0.1]])
    raw = F.relu(weights - 0.15) * weights / ((weights - 0.15).abs() + 1e-12)
    assert torch.allclose(hard_shrink(weights, 0.15), raw / raw.sum(), atol=1e-6)
    assert hard_shrink(weights, 0.15)[0, 3] == 0


def test_threshold_above_every_weight_leaves_the_nearest_item_and_not_nothing():
    weights = torch.tensor([[0.26, 0.25, 0.25, 0.24]])
    assert hard_shrink(weights, 0.5).tolist() == [[1.0, 0.0, 0.0, 0.0]]


def test_surviving_weights_pass_gradients():
    logits = torch.tensor([1.0, 0.5, -2.0], requires_grad=True)
    hard_shrink(logits.softmax(-1), 0.1)[0].backward()
    assert (logits.grad[:2].abs() > 1e-3).all()


def test_cosine_ignores_the_length_of_a_query_and_dot_does_not():
    torch.manual_seed(0)
    query = torch.randn(6, 8)
    for similarity, same in (("cosine", True), ("dot", False)):
        memory = SoftMemory(20, 8, similarity)
        assert torch.allclose(memory.address(query), memory.address(5 * query), atol=1e-5) is same


def test_addressing_is_the_softmax_of_cosines():
    torch.manual_seed(0)
    memory = SoftMemory(7, 3, shrink=0.0)
    query = torch.randn(1, 3)
    cosines = F.cosine_similarity(query, memory.rows)
    assert torch.allclose(memory.address(query)[0], cosines.softmax(0), atol=1e-6)


def test_default_threshold_scales_with_the_number_of_items():
    assert SoftMemory(50, 4).shrink == 1 / 50
    assert SoftMemory(50, 4, shrink=0.0).shrink == 0.0


def test_answers_are_mixtures_of_the_items_for_any_number_of_leading_axes():
    torch.manual_seed(0)
    memory = SoftMemory(5, 2)
    answer, weights = memory(100 * torch.randn(3, 4, 2))
    assert answer.shape == (3, 4, 2)
    assert weights.shape == (3, 4, 5)
    assert torch.allclose(answer, weights @ memory.rows)
    assert answer.norm(dim=-1).max() <= memory.rows.norm(dim=-1).max() + 1e-6


def test_items_are_a_trained_parameter_within_one_over_root_dim():
    memory = SoftMemory(100, 16)
    assert [name for name, _ in memory.named_parameters()] == ["rows"]
    assert memory.rows.abs().max() <= 0.25
    memory(torch.randn(4, 16))[0].sum().backward()
    assert memory.rows.grad.abs().sum() > 0


def test_entropy_is_zero_for_one_item_and_log_n_for_all_alike():
    found = addressing_entropy(torch.stack([torch.eye(8)[0], torch.full((8,), 1 / 8)]))
    assert found.tolist() == pytest.approx([0.0, math.log(8)], abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"items": 0, "dim": 2}, "items: found 0"),
        ({"items": 2, "dim": 0}, "dim: found 0"),
        ({"items": 2, "dim": 2, "similarity": "angle"}, "similarity: found 'angle'"),
        ({"items": 2, "dim": 2, "shrink": 1.0}, "shrink: found 1.0"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        SoftMemory(**arguments)
