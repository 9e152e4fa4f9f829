"""Stretches of linear layers and activations, of all members of an ensemble at once, as one differentiable function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_ATEN = torch.ops.aten


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
        self._run: list[nn.Module | Stretch] = []
        stretch: Stretch | None = None
        for part in self:
            if isinstance(part, MemberLinear):
                if stretch is None:
                    stretch = Stretch()
                    self._run.append(stretch)
                stretch.append(part)
            elif stretch is None or not stretch.activate(part):
                self._run.append(part)
                stretch = None

    @property
    def stretches(self) -> list[Stretch]:
        """The stretches of linear layers."""
        return [each for each in self._run if isinstance(each, Stretch)]

    def forward(self, x: Tensor) -> Tensor:
        """Map a batch that holds the members' rows in turn."""
        if torch.is_autocast_enabled(x.device.type):  # which would leave the saved rows in several precisions
            return super().forward(x)
        for part in self._run:
            x = part(x)
        return x


@dataclass(frozen=True)
class _Merged:
    """Parameters in one tensor, with the memory of their gradient; both also as views, one a value."""

    whole: nn.Parameter
    gradient: Tensor
    values: list[Tensor | None]
    gradients: list[Tensor | None]
    operands: list[tuple[Tensor, Tensor | None]]


class Stretch:
    """Linear layers of all members in a row, each with an activation or none."""

    def __init__(self) -> None:
        self.layers: list[MemberLinear] = []
        self.activations: list[type[nn.Module] | None] = []
        self.merged: _Merged | None = None
        # Whether the merged gradient is that of an earlier step.
        self._stale = True

    def append(self, layer: MemberLinear) -> None:
        """Add a layer."""
        self.layers.append(layer)
        self.activations.append(None)

    def activate(self, part: nn.Module) -> bool:
        """Let the last layer be followed by an activation, unless it has one or the activation is not known."""
        fits = self.activations[-1] is None and type(part) in _ACTIVATIONS
        if fits:
            self.activations[-1] = type(part)
        return fits

    def __call__(self, x: Tensor) -> Tensor:
        """Map a batch that holds the members' rows in turn."""
        given = self._values() if self.merged is None else [self.merged.whole]
        mapped: Tensor = _Run.apply(x, self, *given)
        return mapped

    def _values(self) -> list[Tensor | None]:
        """Return weights and biases in turn, None for a bias that is not there."""
        return [value for layer in self.layers for value in (layer.weight, layer.bias)]

    def parameters(self) -> list[nn.Parameter]:
        """Return the weights and biases that are there, as the layers hold them."""
        return [value for layer in self.layers for value in layer.parameters()]

    def merge(self) -> nn.Parameter:
        """Move the parameters into one tensor, and return it."""
        values = self._values()
        whole = nn.Parameter(torch.cat([value.detach().flatten() for value in values if value is not None]))
        gradient = torch.zeros_like(whole)

        def split(tensor: Tensor) -> list[Tensor | None]:
            parts = tensor.split([0 if value is None else value.numel() for value in values])
            return [None if v is None else part.view(v.shape) for part, v in zip(parts, values, strict=True)]

        views = split(whole.detach())
        self.merged = _Merged(whole, gradient, views, split(gradient), _operands(views))
        for parameter, value in zip(self.parameters(), _there(self.merged.values), strict=True):
            parameter.data, parameter.grad = value, None
        whole.grad = gradient
        return whole

    def begin(self) -> None:
        """Forget the merged gradient."""
        self._stale = True

    def writes(self) -> bool:
        """Say whether a backward pass is the first since :meth:`begin`: it writes its gradient, a later one adds."""
        first, self._stale = self._stale, False
        return first

    def collect(self) -> None:
        """Complete the merged gradient: zero when none came, and with what reached the parameters by themselves."""
        assert self.merged is not None  # noqa: S101 - called between merge and part
        if self.writes():
            self.merged.gradient.zero_()
        for parameter, gradient in zip(self.parameters(), self.gradients(), strict=True):
            if parameter.grad is not None:
                gradient.add_(parameter.grad)
                parameter.grad = None

    def gradients(self) -> list[Tensor]:
        """Return the merged gradient by parameter."""
        return [] if self.merged is None else _there(self.merged.gradients)

    def part(self) -> None:
        """Give the parameters memory of their own."""
        for parameter in self.parameters():
            parameter.data = parameter.data.clone()
        self.merged = None


def _operands(values: Sequence[Tensor | None]) -> list[tuple[Tensor, Tensor | None]]:
    """Return the weights, turned, and the biases, as a product of rows takes them."""
    pairs: Any = zip(values[::2], values[1::2], strict=True)
    return [(weight.transpose(1, 2), None if bias is None else bias.unsqueeze(1)) for weight, bias in pairs]


def _there(values: list[Tensor | None]) -> list[Tensor]:
    return [value for value in values if value is not None]


def _tanh_backward(gradient: Tensor, y: Tensor, out: Tensor) -> Tensor:
    return _ATEN.tanh_backward.grad_input(gradient, y, grad_input=out)


def _relu_backward(gradient: Tensor, y: Tensor, out: Tensor) -> Tensor:
    return _ATEN.threshold_backward.grad_input(gradient, y, 0, grad_input=out)


# Activations whose derivative follows from their value, so that they may overwrite their argument.
_ACTIVATIONS: dict[type[nn.Module], tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    nn.Tanh: (torch.tanh_, _tanh_backward),
    nn.ReLU: (torch.relu_, _relu_backward),
}


class _Run(torch.autograd.Function):
    """Runs a stretch; its values come one by one, or merged into one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stretch: Stretch, *given: Tensor | None) -> Tensor:
        operands = _operands(given) if stretch.merged is None else stretch.merged.operands
        rows = x.reshape(operands[0][0].shape[0], -1, x.shape[-1])
        saved = [rows]
        for (turned, bias), activation in zip(operands, stretch.activations, strict=True):
            rows = torch.bmm(rows, turned)
            if bias is not None:
                rows += bias
            if activation is not None:
                rows = _ACTIVATIONS[activation][0](rows)
            saved.append(rows)
        ctx.stretch = stretch
        ctx.save_for_backward(*saved, *given)
        return rows.view(*x.shape[:-1], rows.shape[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        stretch, count = ctx.stretch, len(ctx.stretch.layers)
        saved, given = ctx.saved_tensors[: count + 1], ctx.saved_tensors[count + 1 :]
        merged = stretch.merged
        values: Any = given
        found: Any
        if merged is None:
            found, adds = [None if value is None else torch.empty_like(value) for value in given], False
        else:
            values, found, adds = merged.values, merged.gradients, not stretch.writes()
        shape = gradient.shape[:-1]
        gradient = gradient.reshape(saved[-1].shape)
        for k in reversed(range(count)):
            activation, of_weight, of_bias = stretch.activations[k], found[2 * k], found[2 * k + 1]
            if activation is not None:
                # The gradient that came in is not this function's to overwrite; those it made are.
                out = gradient if k < count - 1 else torch.empty_like(gradient)
                gradient = _ACTIVATIONS[activation][1](gradient, saved[k + 1], out)
            turned = gradient.transpose(1, 2)
            if adds:
                of_weight.baddbmm_(turned, saved[k])
            else:
                torch.bmm(turned, saved[k], out=of_weight)
            if of_bias is not None and adds:
                of_bias += gradient.sum(1)
            elif of_bias is not None:
                torch.sum(gradient, 1, out=of_bias)
            if k or ctx.needs_input_grad[0]:
                gradient = torch.bmm(gradient, values[2 * k])
        into = gradient.view(*shape, -1) if ctx.needs_input_grad[0] else None
        return into, None, *(found if merged is None else [None])
