from __future__ import annotations

import math

import pytest
import torch

from genad.nn.transformer import Attention, DecoderLayer, EncoderLayer, encoder_stack, positions


def test_positions_are_sines_and_cosines_of_falling_rates():
    code = positions(50, 6)
    assert code[7, 0].item() == pytest.approx(math.sin(7))
    assert code[7, 3].item() == pytest.approx(math.cos(7 * 10_000 ** (-2 / 6)), abs=1e-6)
    assert positions(4, 5).shape == (4, 5)


def test_attention_is_that_of_torch():
    torch.manual_seed(0)
    ours, theirs = Attention(8, 2), torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
        theirs.out_proj.weight.copy_(ours.output.weight)
        theirs.out_proj.bias.copy_(ours.output.bias)
    x, memory = torch.randn(3, 5, 8), torch.randn(3, 7, 8)
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0])
    torch.testing.assert_close(ours(x, memory), theirs(x, memory, memory)[0])


def test_causal_layers_see_nothing_later():
    torch.manual_seed(0)
    layer, x = EncoderLayer(8, 2, 16).eval(), torch.randn(1, 6, 8)
    other = x.clone()
    other[:, 3, 0] += 1
    moved = (layer(x, causal=True) - layer(other, causal=True)).abs().sum(2)[0]
    assert (moved[:3] == 0).all()
    assert (moved[3:] > 0).all()
    assert ((layer(x) - layer(other)).abs().sum(2) > 0).all()


def test_a_decoder_layer_reads_its_memory():
    torch.manual_seed(0)
    layer, x, memory = DecoderLayer(8, 2, 16).eval(), torch.randn(2, 5, 8), torch.randn(2, 4, 8)
    out = layer.decode(x, memory)
    assert out.shape == x.shape
    assert ((out - layer.decode(x, memory + 1.0)).abs().sum(2) > 0).all()


def test_a_stack_normalises_its_tokens():
    torch.manual_seed(0)
    out = encoder_stack(8, 2, 2, 16)(5 * torch.randn(2, 5, 8))
    torch.testing.assert_close(out.mean(2), torch.zeros(2, 5), atol=1e-5, rtol=0)
