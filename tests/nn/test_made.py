"""Masked autoregressive networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

from genad.errors import InputError
from genad.nn.made import MADE, MaskedLinear, gaussian_mixture_log_prob


@pytest.mark.parametrize("dim", [1, 2, 6])
def test_a_value_hangs_on_earlier_values_alone_and_on_all_of_them(dim):
    torch.manual_seed(0)
    net = MADE(dim, 2, (24, 16), orders=3, activation="tanh")
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    for order in range(3):
        x = 0.1 * torch.randn(dim)
        slopes = torch.autograd.functional.jacobian(lambda x, k=order: net(x[None], k)[0].sum(1), x)
        assert torch.equal(slopes != 0, net.rank[order][:, None] > net.rank[order])


def test_orders_are_permutations_that_differ():
    torch.manual_seed(0)
    net = MADE(8, 1, (16,), orders=4)
    assert (net.rank.sort(1).values == torch.arange(8)).all()
    assert len(net.rank.unique(dim=0)) == 4
    assert {name for name, _ in net.named_buffers()} == {"rank", "degrees"}


def test_a_masked_input_is_told_from_a_zero():
    layer = MaskedLinear(2, 1)
    nn.init.constant_(layer.seen, 3.0)
    x = torch.zeros(1, 2)
    assert (layer(x, torch.tensor([[1.0, 0.0]])) - layer(x, torch.zeros(1, 2))).item() == pytest.approx(3.0)


def test_the_mixture_is_that_of_scipy():
    rng = np.random.default_rng(0)
    logits, mean, raw = rng.normal(size=(3, 5, 4))
    x = rng.normal(size=5)
    found = gaussian_mixture_log_prob(torch.tensor(x), torch.tensor(np.concatenate([logits, mean, raw], 1)), 0.2)
    weight = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = np.log((weight * norm.pdf(x[:, None], mean, np.log1p(np.exp(raw)) + 0.2)).sum(1))
    assert found.numpy() == pytest.approx(truth)


@pytest.mark.parametrize("sizes", [(0, 1, (4,), 1), (3, 0, (4,), 1), (3, 1, (), 1), (3, 1, (0,), 1), (3, 1, (4,), 0)])
def test_sizes_that_make_no_network_are_refused(sizes):
    with pytest.raises(InputError, match="dim, outputs, hidden, orders"):
        MADE(*sizes)
