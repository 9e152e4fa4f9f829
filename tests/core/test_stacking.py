"""Members stacked under vmap do exactly what the members would do one by one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genad.core.stacking import Looped, Stacked, call, parameters_of, set_state
from genad.data.samples import Batch


class Net(nn.Module):
    """Two parts, a buffer at the top and one further down."""

    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.encode = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
        self.decode = nn.Linear(4, 3)
        self.register_buffer("shift", torch.full((3,), float(seed)))
        self.encode.register_buffer("scale", torch.tensor(1.0 + seed))
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator)

    def forward(self, x):
        return self.decode(self.encode(x) * self.encode.scale) + self.shift


def loss(net, batch):
    return batch.sample_mean((net(batch.x) - batch.x).square()).mean()


def score(net, batch):
    return batch.sample_mean((net(batch.x) - batch.x).square())


def batches(n=5, masked=False):
    x = torch.randn(3, n, 3, generator=torch.Generator().manual_seed(9))
    mask = x.abs() < 1 if masked else None
    return Batch(x, mask), [Batch(x[k], None if mask is None else mask[k]) for k in range(3)]


@pytest.mark.parametrize("kind", [Stacked, Looped])
@pytest.mark.parametrize("masked", [False, True])
def test_values_equal_the_members_own(kind, masked):
    nets = [Net(k) for k in range(3)]
    members = kind(nets)
    own, parts = batches(masked=masked)
    shared = parts[0]
    torch.testing.assert_close(members.call(score, shared), torch.stack([score(net, shared) for net in nets]))
    expected = torch.stack([score(net, part) for net, part in zip(nets, parts, strict=True)])
    torch.testing.assert_close(members.call(score, own, own=True), expected)
    torch.testing.assert_close(call(members, loss, own), sum(map(loss, nets, parts)))


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_equal_the_members_own(masked):
    nets = [Net(k) for k in range(3)]
    stacked = Stacked(nets)
    own, parts = batches(masked=masked)
    call(stacked, loss, own).backward()
    for net, part in zip(nets, parts, strict=True):
        loss(net, part).backward()
    for name, value in nets[0].named_parameters():
        found = stacked.stacked[name.replace(".", "/")].grad
        assert found.shape == (3, *value.shape)
        expected = torch.stack([dict(net.named_parameters())[name].grad for net in nets])
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", [Stacked, Looped])
def test_nets_and_assign_are_a_round_trip(kind):
    nets = [Net(k) for k in range(3)]
    members = kind(nets)
    for net, again in zip(nets, members.nets(), strict=True):
        assert all(
            torch.equal(a, b) for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True)
        )
        assert list(net.state_dict()) == list(again.state_dict())
    members.assign([Net(7), Net(8)])
    assert members.size == 2
    x = Batch(torch.ones(2, 3))
    torch.testing.assert_close(members.call(score, x), torch.stack([score(Net(7), x), score(Net(8), x)]))


def test_stacked_members_are_copies():
    nets = [Net(0), Net(1)]
    stacked = Stacked(nets)
    before = stacked.call(score, Batch(torch.ones(2, 3)))
    for p in nets[0].parameters():
        p.data.zero_()
    assert torch.equal(stacked.call(score, Batch(torch.ones(2, 3))), before)
    out = stacked.nets()
    out[0].shift.fill_(99)
    assert torch.equal(stacked.call(score, Batch(torch.ones(2, 3))), before)


def test_members_draw_their_own_noise():
    stacked = Stacked([Net(0), Net(0)])
    noise = stacked.call(lambda net, batch: torch.randn(4), Batch(torch.ones(1, 3)))
    assert not torch.equal(noise[0], noise[1])


def test_the_mode_reaches_the_members():
    class Modal(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.zeros(1))

    def mode(net, batch):
        return net.a + float(net.training)

    stacked = Stacked([Modal(), Modal()])
    x = Batch(torch.ones(1, 1))
    assert stacked.train().call(mode, x).flatten().tolist() == [1.0, 1.0]
    assert stacked.eval().call(mode, x).flatten().tolist() == [0.0, 0.0]
    assert not any(net.training for net in stacked.nets())


def test_parameters_of_named_parts():
    net = Net(0)
    stacked, looped = Stacked([Net(0), Net(1)]), Looped([Net(0), Net(1)])
    assert len(parameters_of(net, None)) == 4
    assert len(parameters_of(net, ["decode"])) == 2
    assert {tuple(p.shape) for p in parameters_of(stacked, ["decode"])} == {(2, 3, 4), (2, 3)}
    assert len(parameters_of(looped, ["decode"])) == 4
    net.decode.requires_grad_(requires_grad=False)
    assert len(parameters_of(net, None)) == 2
    for part in ("decod", "decode"):
        with pytest.raises(ValueError, match=f"no trainable part called '{part}'"):
            parameters_of(net, [part])


def test_set_state_lets_buffers_grow_and_holds_parameters():
    net, other = Net(0), Net(5)
    state = {k: v.clone() for k, v in other.state_dict().items()}
    state["shift"] = torch.zeros(7, 3)
    set_state(net, state)
    assert net.shift.shape == (7, 3)
    assert torch.equal(net.decode.weight, other.decode.weight)
    assert net.encode.scale.item() == 6.0
    with pytest.raises(ValueError, match=r"decode.weight has shape \(2, 2\)"):
        set_state(net, state | {"decode.weight": torch.zeros(2, 2)})
    with pytest.raises(KeyError, match="unknown tensors"):
        set_state(net, state | {"more": torch.zeros(1)})
    state.pop("shift")
    with pytest.raises(KeyError, match="missing tensors"):
        set_state(net, state)
