"""Members folded into one batch do exactly what the members would do one by one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from genad import Autoencoder, Ensemble, Training
from genad.core.calibration import Conformal
from genad.core.folding import Folded
from genad.core.stacking import call, set_state
from genad.core.stretches import MemberLinear, MemberSequential
from genad.data.samples import Batch


def loss(net, batch):
    return batch.sample_mean((net(batch.x) - batch.x).square()).mean()


def score(net, batch):
    return batch.sample_mean((net(batch.x) - batch.x).square())


def batches(n=5, masked=False):
    x = torch.randn(3, n, 3, generator=torch.Generator().manual_seed(9))
    mask = x.abs() < 1 if masked else None
    return Batch(x, mask), [Batch(x[k], None if mask is None else mask[k]) for k in range(3)]


def check_gradients(folded, nets, own, parts):
    value = call(folded, loss, own)
    torch.testing.assert_close(value, sum(map(loss, nets, parts)))
    value.backward()
    for net, part in zip(nets, parts, strict=True):
        loss(net, part).backward()
    for name, _ in nets[0].named_parameters():
        expected = torch.stack([dict(net.named_parameters())[name].grad for net in nets])
        torch.testing.assert_close(folded.stacked[name.replace(".", "/")].grad, expected)


class Plain(nn.Module):
    """Linear layers at two depths, one without a bias, and nothing else that learns."""

    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.encode = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4, bias=False))
        self.decode = nn.Linear(4, 3)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator)

    def forward(self, x):
        return self.decode(self.encode(x))


@pytest.mark.parametrize("masked", [False, True])
def test_folded_members_do_what_they_would_do_alone(masked):
    nets = [Plain(k) for k in range(3)]
    folded = Folded(nets)
    own, parts = batches(masked=masked)
    shared = parts[0]
    torch.testing.assert_close(folded.call(score, shared), torch.stack([score(net, shared) for net in nets]))
    expected = torch.stack([score(net, part) for net, part in zip(nets, parts, strict=True)])
    torch.testing.assert_close(folded.call(score, own, own=True), expected)
    if not masked:  # with missing values too, each row's mean is its own
        torch.testing.assert_close(
            folded.call(lambda net, b: net(b.x), shared), torch.stack([n(shared.x) for n in nets])
        )
    check_gradients(folded, nets, own, parts)


def test_folded_members_come_out_as_ordinary_networks():
    folded = Folded([Plain(k) for k in range(3)])
    with torch.no_grad():
        for value in folded.stacked.values():
            value.add_(1.0)
    x = batches()[1][0]
    again = folded.nets()
    assert type(again[0].encode[0]) is nn.Linear
    torch.testing.assert_close(folded.call(score, x), torch.stack([score(net, x) for net in again]))
    twin = Folded([Plain(9) for _ in range(3)])
    set_state(twin, folded.state_dict())
    assert torch.equal(twin.call(score, x), folded.call(score, x))


def test_what_may_be_folded():
    assert Folded.fits(Plain())
    held = Plain()
    held.register_buffer("shift", torch.zeros(3))
    assert not Folded.fits(held)
    assert not Folded.fits(nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)))


def sequence(*layers):
    """Three networks of these layers, each with its own weights."""
    nets = []
    for seed in range(3):
        net = copy.deepcopy(nn.Sequential(*layers))
        generator = torch.Generator().manual_seed(seed)
        for p in net.parameters():
            p.data = torch.randn(p.shape, generator=generator)
        nets.append(net)
    return nets


@pytest.mark.parametrize("layers", [
    (nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)),
    (nn.Linear(3, 5, bias=False), nn.Tanh(), nn.Linear(5, 3, bias=False), nn.Tanh()),  # an activation at the end
    (nn.Linear(3, 4), nn.Linear(4, 4), nn.SiLU(), nn.Linear(4, 3), nn.ReLU(), nn.Tanh()),  # stretches broken off
    (nn.Tanh(), nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 3)),
    (nn.Flatten(), nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 6), nn.Tanh()), nn.Linear(6, 3)),
], ids=["both", "no bias", "broken", "leading", "nested"])  # fmt: skip
def test_sequences_of_any_layers_do_what_they_would_do_alone(layers):
    nets = sequence(*layers)
    own, parts = batches()
    check_gradients(Folded(nets), nets, own, parts)


def test_gradients_reach_what_comes_before():
    """The gradient passes through a sequence to its input, to weights used twice, and through values used twice."""
    shared = nn.Linear(3, 3)
    nets = sequence(nn.Sequential(shared, nn.Tanh()), nn.Sequential(shared, nn.ReLU()), nn.Linear(3, 3))
    own, parts = batches()
    check_gradients(Folded(nets), nets, own, parts)
    folded = Folded(nets)
    x = own.x.clone().requires_grad_()
    y = folded.call(lambda net, batch: net(batch.x) + net(2 * batch.x), Batch(x), own=True)
    y.square().sum().backward()
    for k, net in enumerate(nets):
        mine = own.x[k].clone().requires_grad_()
        (net(mine) + net(2 * mine)).square().sum().backward()
        torch.testing.assert_close(x.grad[k], mine.grad)


def test_the_gradient_that_comes_in_is_left_alone():
    folded = Folded(sequence(nn.Linear(3, 3), nn.Tanh()))
    own, _ = batches()
    y = folded.call(lambda net, batch: net(batch.x), own, own=True)
    given = torch.ones_like(y)
    y.backward(given)
    assert (given == 1).all()


def test_parts_of_a_sequence_are_found_as_before():
    nets = [Plain(k) for k in range(3)]
    skeleton = Folded(nets).skeleton
    assert isinstance(skeleton.encode, MemberSequential)
    assert [type(part) for part in skeleton.encode] == [MemberLinear, nn.Tanh, MemberLinear]
    own, _ = batches()
    found = Folded(nets).call(lambda net, batch: net.encode[2](net.encode[1](net.encode[0](batch.x))), own, own=True)
    torch.testing.assert_close(found, Folded(nets).call(lambda net, batch: net.encode(batch.x), own, own=True))


def test_frozen_layers_receive_no_gradient():
    nets = [Plain(k) for k in range(3)]
    folded = Folded(nets)
    folded.stacked["encode/0/weight"].requires_grad_(requires_grad=False)
    own, _ = batches()
    call(folded, loss, own).backward()
    assert folded.stacked["encode/0/weight"].grad is None
    assert folded.stacked["encode/0/bias"].grad.abs().min() > 0


def test_half_precision_goes_the_plain_way():
    nets = [Plain(k) for k in range(3)]
    own, _ = batches()
    folded = Folded(nets)
    with torch.autocast("cpu", torch.bfloat16):
        value = call(folded, loss, own)
    value.backward()
    torch.testing.assert_close(value.float(), call(folded, loss, own), rtol=0.1, atol=0.1)
    assert all(p.grad is not None for p in folded.stacked.values())


def gradients_of(folded, parameters):
    """Return the merged gradients by the name of their parameter, as an optimiser would take them."""
    before = {name: value.detach().clone() for name, value in folded.stacked.items()}
    torch.optim.SGD(parameters, lr=1.0).step()
    return {name: before[name] - value.detach() for name, value in folded.stacked.items()}


def twice(net, batch):
    """Runs the network twice, and a layer of it alone."""
    again = net.encode[0](batch.x).square().mean()
    return loss(net, batch) + loss(net, Batch(2 * batch.x)) + again + net.encode[2].weight.square().mean()


@pytest.mark.parametrize("function", [loss, twice], ids=["once", "twice and beside"])
def test_merged_parameters_get_the_same_gradients(function):
    folded, twin = (Folded([Plain(k) for k in range(3)]) for _ in range(2))
    own, _ = batches()
    call(twin, function, own).backward()
    parameters = folded.merge()
    assert sum(p.numel() for p in parameters) == sum(p.numel() for p in twin.parameters())
    for _ in range(2):  # the second time there are old gradients to forget
        folded.begin()
        call(folded, function, own).backward()
        folded.collect()
    parts = folded.gradients(parameters)
    assert sorted(p.numel() for p in parts) == sorted(p.numel() for p in twin.parameters())
    found = gradients_of(folded, parameters)
    for name, value in twin.stacked.items():
        torch.testing.assert_close(found[name], value.grad, rtol=1e-5, atol=1e-6)
    folded.part()
    assert all(value.untyped_storage().nbytes() == 4 * value.numel() for value in folded.stacked.values())


def test_a_stretch_that_took_no_part_has_a_gradient_of_zero():
    folded = Folded([Plain(k) for k in range(3)])
    parameters, (own, _) = folded.merge(), batches()
    folded.begin()
    call(folded, loss, own).backward()
    folded.collect()
    folded.begin()
    call(folded, lambda net, batch: net.decode(torch.ones(len(batch.x), 4)).mean(), own).backward()
    folded.collect()
    encoder = next(p for p in parameters if p.ndim == 1)
    assert encoder.grad.abs().max() == 0


def test_shared_and_frozen_layers_are_not_merged():
    shared = nn.Linear(3, 3)
    folded = Folded(sequence(nn.Sequential(shared, nn.Tanh()), nn.Sequential(shared, nn.ReLU())))
    assert [id(p) for p in folded.merge()] == [id(p) for p in folded.stacked.values()]
    frozen = Folded([Plain(k) for k in range(3)])
    frozen.stacked["encode/0/weight"].requires_grad_(requires_grad=False)
    assert len(frozen.merge()) == len(frozen.stacked)


@pytest.mark.parametrize("settings", [{}, {"clip": 0.5, "ema": 0.9}, {"patience": 2}, {"optimizer": "rmsprop"}])
def test_training_leaves_ordinary_parameters(settings):
    X = torch.randn(80, 4, generator=torch.Generator().manual_seed(0)).numpy()
    inner = Autoencoder(training=Training(updates=12, **settings))
    ensemble = Ensemble(inner, n=2, threshold=Conformal(alpha=0.2)).fit(X)
    assert isinstance(ensemble.net_, Folded)
    assert all(p.grad is None and not p.requires_grad for p in ensemble.net_.parameters())
