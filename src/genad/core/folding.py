"""Multilayer perceptrons of one architecture trained and run as one, their rows folded into one batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from genad.core.stacking import MemberFunction, Stacked
from genad.data.samples import Batch

_ATEN = torch.ops.aten


class Folded(Stacked):
    """Stacked members whose rows are folded into one batch: no ``vmap``, and half its cost a step.

    Only for networks of linear layers and elementwise functions, and for functions of them that treat each row alone
    and end in a mean over the rows, if in anything: the mean over all rows is then the mean of the members' means.
    Such a function is differentiated once, not twice.
    """

    @staticmethod
    def fits(net: nn.Module) -> bool:
        """Say whether every parameter belongs to a linear layer and there are no buffers."""
        linear = {id(p) for layer in net.modules() if type(layer) is nn.Linear for p in layer.parameters()}
        return all(id(p) in linear for p in net.parameters()) and not list(net.buffers())

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        super().__init__(nets)
        object.__setattr__(self, "pattern", copy.deepcopy(nets[0]))

    def assign(self, nets: Sequence[nn.Module]) -> None:
        """Take over the parameters of ``nets``; the skeleton's layers refer to the stacked ones."""
        object.__setattr__(self, "skeleton", _for_members(copy.deepcopy(nets[0]), {}))
        super().assign(nets)
        for (home, leaf), value in zip(self._homes, self.stacked.values(), strict=True):
            home[leaf] = value

    def call(self, function: MemberFunction, batch: Batch, *, own: bool = False) -> Tensor:
        """Return ``function(net, batch)`` of every member, stacked along a new first axis."""
        skeleton = self.skeleton
        if skeleton.training != self.training:
            skeleton.train(self.training)

        def folded(values: Tensor) -> Tensor:
            every = values if own else values.expand(self.size, *values.shape)
            return every.flatten(0, 1)

        mask = None if batch.mask is None else folded(batch.mask)
        result = function(skeleton, Batch(folded(batch.x), mask, batch.known))
        return result.expand(self.size) if result.ndim == 0 else result.unflatten(0, (self.size, -1))


def merged(parameters: Sequence[nn.Parameter]) -> nn.Parameter:
    """Move parameters into one tensor that an optimiser steps at once; they and their gradients become views of it."""
    whole = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in parameters]))
    whole.grad = torch.zeros_like(whole)
    sizes = [p.numel() for p in parameters]
    for parameter, value, gradient in zip(parameters, whole.data.split(sizes), whole.grad.split(sizes), strict=True):
        parameter.data = value.view(parameter.shape)
        parameter.grad = gradient.view(parameter.shape)
    return whole


class MemberLinear(nn.Module):
    """The linear layers of all members as one batched product, for batches that hold the members' rows in turn."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight = layer.weight
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map (K * B, ..., in) to (K * B, ..., out), each member's rows by its own weights."""
        members, out, size = self.weight.shape
        rows = x.reshape(members, -1, size)
        turned = self.weight.transpose(1, 2)
        y = torch.bmm(rows, turned) if self.bias is None else torch.baddbmm(self.bias.unsqueeze(1), rows, turned)
        return y.view(*x.shape[:-1], out)


class MemberSequential(nn.Sequential):
    """A sequence that runs each stretch of linear layers, and of activations it knows, as one function.

    Activations overwrite their argument, and the backward pass its own gradients, which saves memory and calls.
    """

    def __init__(self, parts: nn.Sequential) -> None:
        super().__init__()
        self._modules.update(parts._modules)  # noqa: SLF001 - the same names, so that parts are found as before
        self._stretches: list[nn.Module | tuple[list[MemberLinear], list[type[nn.Module] | None]]] = []
        layers: list[MemberLinear] = []
        activations: list[type[nn.Module] | None] = []
        for part in self:
            if isinstance(part, MemberLinear):
                if not layers:
                    self._stretches.append((layers, activations))
                layers.append(part)
                activations.append(None)
            elif layers and activations[-1] is None and type(part) in _ACTIVATIONS:
                activations[-1] = type(part)
            else:
                self._stretches.append(part)
                layers, activations = [], []

    def forward(self, x: Tensor) -> Tensor:
        """Map a batch that holds the members' rows in turn."""
        if torch.is_autocast_enabled(x.device.type):  # which would leave the saved rows in several precisions
            return super().forward(x)
        for stretch in self._stretches:
            if isinstance(stretch, nn.Module):
                x = stretch(x)
            else:
                layers, activations = stretch
                values = [value for layer in layers for value in (layer.weight, layer.bias)]
                x = _Stretch.apply(x, activations, *values)
        return x


def _tanh_backward(gradient: Tensor, y: Tensor, out: Tensor) -> Tensor:
    return _ATEN.tanh_backward.grad_input(gradient, y, grad_input=out)


def _relu_backward(gradient: Tensor, y: Tensor, out: Tensor) -> Tensor:
    return _ATEN.threshold_backward.grad_input(gradient, y, 0, grad_input=out)


# Activations whose derivative follows from their value, so that they may overwrite their argument.
_ACTIVATIONS: dict[type[nn.Module], tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    nn.Tanh: (torch.tanh_, _tanh_backward),
    nn.ReLU: (torch.relu_, _relu_backward),
}


class _Stretch(torch.autograd.Function):
    """Linear layers of all members, each with an activation or none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, activations: list[type[nn.Module] | None], *values: Any) -> Tensor:
        rows = x.reshape(values[0].shape[0], -1, x.shape[-1])
        saved = [rows]
        for weight, bias, activation in zip(values[::2], values[1::2], activations, strict=True):
            rows = torch.bmm(rows, weight.transpose(1, 2))
            if bias is not None:
                rows += bias.unsqueeze(1)
            if activation is not None:
                rows = _ACTIVATIONS[activation][0](rows)
            saved.append(rows)
        ctx.activations = activations
        ctx.save_for_backward(*saved, *values)
        return rows.view(*x.shape[:-1], rows.shape[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.activations)
        saved, values = ctx.saved_tensors[: count + 1], ctx.saved_tensors[count + 1 :]
        shape = gradient.shape[:-1]
        gradient = gradient.reshape(saved[-1].shape)
        given: list[Tensor | None] = []
        for k in reversed(range(count)):
            weight, bias, activation = values[2 * k], values[2 * k + 1], ctx.activations[k]
            if activation is not None:
                # The gradient that came in is not this function's to overwrite; those it made are.
                out = gradient if k < count - 1 else torch.empty_like(gradient)
                gradient = _ACTIVATIONS[activation][1](gradient, saved[k + 1], out)
            given += [None if bias is None else gradient.sum(1), torch.bmm(gradient.transpose(1, 2), saved[k])]
            if k or ctx.needs_input_grad[0]:
                gradient = torch.bmm(gradient, weight)
        into = gradient.view(*shape, -1) if ctx.needs_input_grad[0] else None
        return into, None, *reversed(given)


def _for_members(part: nn.Module, done: dict[nn.Module, nn.Module]) -> nn.Module:
    """Exchange the linear layers and sequences of a network, those it uses twice too, for the members' own."""
    if part not in done:
        for name, child in part._modules.items():  # noqa: SLF001 - named_children leaves out second uses
            if child is not None:
                part._modules[name] = _for_members(child, done)  # noqa: SLF001 - in their place
        made = MemberLinear(part) if type(part) is nn.Linear else part
        done[part] = MemberSequential(part) if type(part) is nn.Sequential else made
    return done[part]
