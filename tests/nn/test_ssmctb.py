from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from genad.errors import InputError
from genad.nn.ssmctb import ChannelTokenGate, MaskedCornerConv, SSMCTBlock


def offsets_seen(size, gap):
    """Rows and columns, relative to the centre of a large map, that reach its value."""
    torch.manual_seed(0)
    side = 4 * (size + gap) + 1
    centre = side // 2
    x = torch.randn(1, 2, side, side, requires_grad=True)
    MaskedCornerConv(2, size, gap)(x)[0, 0, centre, centre].backward()
    return {(int(r) - centre, int(c) - centre) for r, c in x.grad[0].abs().sum(0).nonzero()}


@pytest.mark.parametrize(("size", "gap"), [(1, 1), (1, 0), (2, 0), (2, 1), (3, 2)])
def test_only_the_four_corners_reach_a_position(size, gap):
    near = range(gap + 1, gap + size + 1)
    expected = {(s * a, t * b) for a in near for b in near for s in (-1, 1) for t in (-1, 1)}
    assert offsets_seen(size, gap) == expected


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (9, 3)])
def test_output_has_the_size_of_the_input_even_below_the_field(shape):
    output, surprise = SSMCTBlock(4, size=2, gap=1)(torch.randn(3, 4, *shape))
    assert output.shape == (3, 4, *shape)
    assert surprise.shape == (3, *shape)
    assert output.isfinite().all()


def test_corners_have_kernels_of_their_own():
    torch.manual_seed(0)
    conv = MaskedCornerConv(1).requires_grad_(requires_grad=False)
    values = []
    for row, column in ((1, 1), (1, 5), (5, 1), (5, 5)):
        x = torch.zeros(1, 1, 7, 7)
        x[0, 0, row, column] = 1.0
        values.append(round(float(conv(x)[0, 0, 3, 3] - conv(torch.zeros_like(x))[0, 0, 3, 3]), 5))
    expected = [round(float(corner.weight.squeeze()), 5) for corner in conv.corners]
    assert values == expected
    assert len(set(values)) == 4


def test_gates_lie_between_zero_and_one_and_channels_attend_to_each_other():
    torch.manual_seed(0)
    gate = ChannelTokenGate(6)
    x = torch.randn(2, 6, 4, 4, requires_grad=True)
    gates = gate(x)
    assert gates.shape == (2, 6)
    assert ((gates > 0) & (gates < 1)).all()
    gates[0, 0].backward()
    per_channel = x.grad[0].abs().sum((1, 2))
    assert (per_channel > 0).all()
    assert not x.grad[1].any()


def test_equal_channels_get_gates_by_their_position():
    torch.manual_seed(0)
    gates = ChannelTokenGate(3)(torch.ones(1, 3, 2, 2))[0].tolist()
    assert len({round(value, 4) for value in gates}) == 3


def test_attention_has_five_heads_of_64_by_default():
    gate = ChannelTokenGate(8)
    assert gate.qkv.weight.shape == (3 * 5 * 64, 64)
    assert gate.merge.weight.shape == (64, 5 * 64)


def test_penalty_is_hubers_of_output_against_input_and_reaches_both():
    torch.manual_seed(0)
    block = SSMCTBlock(4)
    x = (3 * torch.randn(2, 4, 6, 6)).requires_grad_()
    output, surprise = block(x)
    assert torch.allclose(surprise, F.huber_loss(output, x, reduction="none").mean(1))
    surprise.sum().backward()
    # Through the comparison alone, a pixel no corner of which lies on the map would still be pulled.
    assert (x.grad.abs().sum(1) > 0).all()
    assert all(p.grad is not None for p in block.parameters())


def test_squared_penalty_is_larger_than_hubers_for_large_errors():
    torch.manual_seed(0)
    huber, squared = SSMCTBlock(2), SSMCTBlock(2, loss="squared")
    squared.load_state_dict(huber.state_dict())
    x = 10 * torch.randn(1, 2, 5, 5)
    assert torch.allclose(squared(x)[1], (squared(x)[0] - x).square().mean(1))
    assert squared(x)[1].mean() > 2 * huber(x)[1].mean()


def test_block_learns_what_its_surroundings_predict_and_is_surprised_by_the_rest():
    torch.manual_seed(0)
    block = SSMCTBlock(8)
    optimizer = torch.optim.Adam(block.parameters(), 1e-2)
    smooth = torch.linspace(0.5, 1.5, 10).expand(1, 8, 10, 10)
    for _ in range(200):
        optimizer.zero_grad()
        block(smooth)[1][:, 2:-2, 2:-2].mean().backward()
        optimizer.step()
    odd = smooth.clone()
    odd[0, :, 5, 5] = 4.0
    with torch.no_grad():
        normal, surprised = block(smooth)[1], block(odd)[1]
    assert surprised[0, 5, 5] > 20 * normal[0, 2:-2, 2:-2].mean()


def test_any_convolutional_network_can_take_the_block():
    host = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
    block, last = SSMCTBlock(4), nn.Conv2d(4, 1, 1)
    features, surprise = block(host(torch.randn(2, 1, 8, 8)))
    (last(features).square().mean() + 0.1 * surprise.mean()).backward()
    assert host[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaskedCornerConv(0), "channels: found 0"),
        (lambda: MaskedCornerConv(1, size=0), "size: found 0"),
        (lambda: MaskedCornerConv(1, gap=-1), "gap: found -1"),
        (lambda: SSMCTBlock(1, loss="absolute"), "loss: found 'absolute'"),
    ],
)
def test_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
