from __future__ import annotations

import pytest
import torch

from genad.nn.quasi_recurrent import QRNNLayer


def layer_of(taps=2, *, reverse=False):
    torch.manual_seed(0)
    return QRNNLayer(3, 4, taps, reverse=reverse)


@pytest.mark.parametrize("taps", [1, 2, 3])
def test_the_state_is_a_running_mean_behind_convolved_gates(taps):
    layer = layer_of(taps)
    x = torch.randn(2, 6, 3)
    c = torch.zeros(2, 4)
    padded = torch.cat([torch.zeros(2, taps - 1, 3), x], 1)
    got = layer(x)
    for t in range(6):
        gates = torch.einsum("ock,bkc->bo", layer.gates.weight, padded[:, t : t + taps]) + layer.gates.bias
        enter, forget, show = gates.chunk(3, 1)
        c = forget.sigmoid() * c + (1 - forget.sigmoid()) * enter.tanh()
        torch.testing.assert_close(got[:, t], show.sigmoid() * c)


def test_it_is_causal_and_its_reverse_is_the_mirror_image():
    forth, back = layer_of(), layer_of(reverse=True)
    x = torch.randn(1, 8, 3)
    other = x.clone()
    other[:, 4] += 1
    moved = (forth(x) - forth(other)).abs().sum(-1)[0]
    assert (moved[:4] == 0).all()
    assert (moved[4:] > 0).all()
    torch.testing.assert_close(back(x), forth(x.flip(1)).flip(1))
