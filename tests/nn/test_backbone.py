from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from genad.errors import InputError, InputTypeError
from genad.nn import Backbone, backbone, decoder, default_latent, encoder, resolve, translator

SHAPES = [
    ((1,), None),
    ((2,), None),
    ((7,), None),
    ((300,), None),
    ((2, 1), None),
    ((3, 4), None),
    ((17, 2), None),
    ((100, 5), None),
    ((100, 5), "mlp"),
    ((2, 1), "gru"),
    ((9, 3), "gru"),
    ((1, 4, 4), None),
    ((3, 5, 7), None),
    ((1, 8, 8), None),
    ((2, 4, 37), None),
    ((1, 28, 28), None),
    ((3, 33, 32), None),
    ((1, 2, 2), None),
    ((1, 8, 8), "mlp"),
    ((2, 1, 4, 4), None),
    ((3, 2, 5, 6), None),
    ((8, 1, 16, 17), None),
    ((16, 1, 8, 8), None),
]
SMALL = [
    ((6,), None),
    ((1, 25, 6), None),
    ((11, 3), None),
    ((2, 9, 8), None),
    ((3, 1, 6, 5), None),
    ((7, 2), "gru"),
]
BUILDERS = ["encoder", "decoder", "heads", "translator", "conditional"]


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _redraw(net: nn.Module, seed: int = 0) -> nn.Module:
    generator = _generator(seed)
    for parameter in net.parameters():
        bound = 1 / math.sqrt(max(1, parameter[0].numel()))
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return net


def _build(builder: str, shape: tuple[int, ...], spec, rows: int = 4, seed: int = 1):
    """Return a network, its inputs and the shape of its output."""
    generator = _generator(seed)
    x = torch.randn(rows, *shape, generator=generator)
    z = torch.randn(rows, 3, generator=generator)
    if builder == "encoder":
        return _redraw(encoder(shape, 5, spec)), (x,), (rows, 5)
    if builder == "decoder":
        return _redraw(decoder(shape, 3, spec)), (z,), (rows, *shape)
    if builder == "heads":
        return _redraw(decoder(shape, 3, spec, heads=2)), (z,), (rows, 2, *shape)
    if builder == "translator":
        return _redraw(translator(shape, spec)), (x,), (rows, *shape)
    return _redraw(translator(shape, spec, cond=3)), (x, z), (rows, *shape)


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize(("shape", "spec"), SHAPES)
def test_every_shape_gives_finite_output_of_the_promised_shape(shape, spec, builder):
    net, inputs, expected = _build(builder, shape, spec)
    with torch.no_grad():
        out = net(*inputs)
    assert tuple(out.shape) == expected
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("shape", [(1, 256, 255), (3, 129, 4), (400, 3), (4, 3, 40, 33)])
def test_large_samples_pass_and_stay_below_a_million_parameters(shape):
    nets = [encoder(shape, 32), decoder(shape, 32), translator(shape, cond=16)]
    x = torch.zeros(1, *shape)
    with torch.no_grad():
        assert nets[1](nets[0](x)).shape == x.shape
        assert nets[2](x, torch.zeros(1, 16)).shape == x.shape
    for net in nets:
        assert sum(p.numel() for p in net.parameters()) < 1_000_000


@pytest.mark.parametrize(("shape", "spec"), [((3, 64, 64), None), ((8, 3, 32, 32), None), ((3, 64, 64), "mlp")])
def test_default_sizes_stay_below_a_million_parameters(shape, spec):
    latent = default_latent(shape)
    for net in (encoder(shape, latent, spec), decoder(shape, latent, spec), translator(shape)):
        assert sum(p.numel() for p in net.parameters()) < 1_000_000


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize(("shape", "spec"), SMALL)
def test_gradients_reach_every_parameter(shape, spec, builder):
    net, inputs, _ = _build(builder, shape, spec, rows=16)
    net(*inputs).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize(("shape", "spec"), SMALL)
def test_rows_do_not_depend_on_their_neighbours(shape, spec, builder):
    net, inputs, _ = _build(builder, shape, spec)
    changed = tuple(torch.cat([value[:1], 10 * value[1:] + 1]) for value in inputs)
    with torch.no_grad():
        whole, other = net(*inputs), net(*changed)
        alone = net(*(value[:1] for value in inputs))
    torch.testing.assert_close(whole[:1], other[:1], atol=1e-6, rtol=0)
    torch.testing.assert_close(whole[:1], alone, atol=1e-6, rtol=1e-5)
    assert (whole[1:] - other[1:]).abs().max() > 1e-4


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize(("shape", "spec"), SMALL)
def test_train_and_eval_agree_without_dropout_and_differ_with_it(shape, spec, builder):
    net, inputs, _ = _build(builder, shape, spec)
    with torch.no_grad():
        torch.testing.assert_close(net.train()(*inputs), net.eval()(*inputs), atol=0, rtol=0)
    hidden = (16, 16)
    dropped, inputs, _ = _build(builder, shape, Backbone(spec, hidden, dropout=0.5))
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        noisy = dropped.train()(*inputs)
        quiet = dropped.eval()(*inputs)
    assert (noisy - quiet).abs().max() > 1e-4


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize(("shape", "spec"), [pair for pair in SMALL if pair[1] != "gru"])
def test_stacked_members_under_vmap_equal_the_loop(shape, spec, builder):
    members = [_redraw(_build(builder, shape, spec)[0], seed) for seed in range(3)]
    inputs = _build(builder, shape, spec)[1]
    params, buffers = stack_module_state(members)

    def call(p, b):
        return functional_call(members[0], (p, b), inputs)

    together = vmap(call)(params, buffers)
    alone = torch.stack([member(*inputs) for member in members])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert (alone[0] - alone[1]).abs().max() > 1e-4
    # training goes through vmap as well: the gradients are those of the members alone
    together.square().sum().backward()
    alone.square().sum().backward()
    for name, parameter in members[1].named_parameters():
        torch.testing.assert_close(params[name].grad[1], parameter.grad, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("shape", "spec"), SMALL)
def test_condition_changes_the_translation(shape, spec):
    net, (x, cond), _ = _build("conditional", shape, spec)
    with torch.no_grad():
        assert (net(x, cond) - net(x, cond + 1)).abs().max() > 1e-3


@pytest.mark.parametrize("shape", [(13, 2), (100, 2)])
def test_tcn_translator_is_not_causal_and_sees_the_whole_window(shape):
    net, (x,), _ = _build("translator", shape, Backbone(activation="tanh"))
    x.requires_grad_()
    net(x)[0, 0].sum().backward()
    assert x.grad[0, -1].abs().sum() > 0  # the first output depends on the last input
    assert x.grad[1].abs().sum() == 0


def test_no_module_normalises_over_the_batch():
    for shape, spec in SMALL:
        for builder in BUILDERS:
            net = _build(builder, shape, spec)[0]
            kinds = {type(module).__name__ for module in net.modules()}
            assert not {kind for kind in kinds if "BatchNorm" in kind}


@pytest.mark.parametrize("name", ["relu", "silu", "gelu", "tanh", "softplus", "elu", "leaky_relu"])
def test_every_activation_is_used(name):
    net = encoder((4,), 2, Backbone(activation=name))
    assert type(net[1]).__name__.lower() == name.replace("_", "")


def test_hidden_widths_are_used_by_every_kind():
    spec = Backbone(hidden=[12, 20])
    assert [m.out_features for m in encoder((6,), 3, spec) if isinstance(m, nn.Linear)] == [
        12,
        20,
        3,
    ]
    assert [m.out_features for m in decoder((6,), 3, spec) if isinstance(m, nn.Linear)] == [
        20,
        12,
        6,
    ]
    convolutions = [m for m in encoder((1, 16, 16), 3, spec).modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [12, 20]
    assert encoder((30, 2), 3, spec)(torch.zeros(2, 30, 2)).shape == (2, 3)
    gru = encoder((30, 2), 3, Backbone("gru", (12, 20)))
    assert [m.hidden_size for m in gru.modules() if isinstance(m, nn.GRU)] == [12, 20]
    clip = decoder((4, 1, 8, 8), 3, spec)
    transposed = [m for m in clip.modules() if isinstance(m, nn.ConvTranspose3d)]
    assert [m.in_channels for m in transposed] == [20, 12]


def test_mlp_holds_nothing_but_linear_layers_and_activations():
    kinds = [type(m).__name__ for m in encoder((10,), 2)]
    assert kinds == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]


@pytest.mark.parametrize(
    ("shape", "name"),
    [((3,), "mlp"), ((9, 2), "tcn"), ((1, 8, 8), "conv"), ((4, 1, 8, 8), "conv3d")],
)
def test_the_default_follows_the_shape(shape, name):
    assert resolve(shape)[0] == name
    assert resolve(shape, Backbone(hidden=(8,)))[1] == Backbone(name, (8,))


def test_numpy_sizes_are_accepted():
    shape = np.zeros((3, 4)).shape
    assert encoder(tuple(np.int64(s) for s in shape), np.int64(2))(torch.zeros(1, 3, 4)).shape == (
        1,
        2,
    )


@pytest.mark.parametrize(("shape", "expected"), [((1,), 1), ((2,), 1), ((3,), 2), ((25,), 6), ((3, 64, 64), 64)])
def test_default_latent_is_a_bottleneck(shape, expected):
    assert default_latent(shape) == expected


@pytest.mark.parametrize("rank", [5, 6])
def test_unusual_ranks_fall_back_to_the_mlp(rank):
    shape = (2,) * rank
    assert resolve(shape)[0] == "mlp"
    assert decoder(shape, 2)(torch.zeros(1, 2)).shape == (1, *shape)


def test_a_registered_kind_is_found_by_name_and_by_shape(monkeypatch):
    monkeypatch.setattr(backbone, "KINDS", dict(backbone.KINDS))
    kind = backbone.BackboneKind(
        lambda shape: len(shape) == 5,
        "five axes",
        lambda shape, out, spec: nn.Sequential(nn.Flatten(), nn.LazyLinear(out)),
        lambda shape, latent, spec, heads: nn.Identity(),
        lambda shape, spec, cond: nn.Identity(),
    )
    backbone.register_backbone("five", kind)
    assert resolve((1, 1, 1, 1, 2))[0] == "five"
    assert isinstance(translator((1, 1, 1, 1, 2), "five"), nn.Identity)
    with pytest.raises(InputError, match=r"backbone: found 'five' .* takes five axes"):
        encoder((3,), 2, "five")
    with pytest.raises(InputError, match="name: found 'five', which is taken"):
        backbone.register_backbone("five", kind)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: encoder((3,), 2, "rnn"), InputError, "backbone: found 'rnn'; accepted are tcn"),
        (
            lambda: encoder((3,), 2, "conv"),
            InputError,
            r"found 'conv' for samples of shape \(3,\).*image.*accepted for this shape are mlp",
        ),
        (lambda: encoder((3, 2), 2, "conv3d"), InputError, "accepted for this shape are tcn, gru"),
        (lambda: encoder((3,), 2, 7), InputTypeError, "backbone: found int"),
        (lambda: encoder((), 2), InputError, r"shape: found \(\)"),
        (lambda: encoder((3, 0), 2), InputError, r"shape: found \(3, 0\)"),
        (lambda: encoder((3.5,), 2), InputError, r"shape: found \(3.5,\)"),
        (lambda: encoder(3, 2), InputTypeError, "shape: found 3"),
        (lambda: encoder((3,), 0), InputError, "out: found 0; accepted .* at least 1"),
        (lambda: encoder((3,), True), InputError, "out: found True"),
        (lambda: decoder((3,), -1), InputError, "latent: found -1"),
        (lambda: decoder((3,), 1, heads=0), InputError, "heads: found 0"),
        (lambda: translator((3,), cond=-1), InputError, "cond: found -1; .* at least 0"),
        (lambda: Backbone(name=3), InputTypeError, "name: found 3"),
        (lambda: Backbone(hidden=()), InputError, r"hidden: found \(\)"),
        (lambda: Backbone(hidden=(8, 0)), InputError, r"hidden: found \(8, 0\)"),
        (lambda: Backbone(hidden="64"), InputTypeError, "hidden: found '64'"),
        (lambda: Backbone(hidden=64), InputTypeError, "hidden: found 64"),
        (lambda: Backbone(activation="swish"), InputError, "activation: found 'swish'; .* relu"),
        (lambda: Backbone(dropout=1.0), InputError, "dropout: found 1.0"),
        (lambda: Backbone(dropout="a"), InputError, "dropout: found 'a'"),
        (lambda: default_latent("ab"), InputTypeError, "shape: found 'ab'"),
        (lambda: backbone.mlp.mlp([3]), InputError, r"sizes: found \[3\]"),
        (lambda: backbone.mlp.mlp([3, 0]), InputError, r"sizes: found \[3, 0\]"),
    ],
)
def test_messages_name_the_argument_what_was_found_and_what_is_accepted(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_mlp_output_activation_and_dropout_layers():
    net = backbone.mlp.mlp([3, 4, 2], "tanh", dropout=0.2, out_activation="softplus")
    assert [type(m).__name__ for m in net] == ["Linear", "Tanh", "Dropout", "Linear", "Softplus"]
