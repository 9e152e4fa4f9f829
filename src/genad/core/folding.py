"""Multilayer perceptrons of one architecture trained and run as one, their rows folded into one batch."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence

from torch import Tensor, nn

from genad.core.stacking import MemberFunction, Stacked
from genad.core.stretches import MemberLinear, MemberSequential, Stretch
from genad.data.samples import Batch


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
        self._merged: list[Stretch] = []
        self._left: list[nn.Parameter] = []

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

    def merge(self) -> list[nn.Parameter]:
        """Lay the parameters of each stretch of layers into one tensor, and return what an optimiser has to step.

        Until :meth:`part` the parameters are views of these tensors. A backward pass then stands between :meth:`begin`
        and :meth:`collect`, and writes gradients where they belong, instead of adding them to zeros. Parameters that
        two stretches share, that are frozen or that are in no stretch stay as they are.
        """
        stretches = [each for module in self.skeleton.modules() for each in getattr(module, "stretches", ())]
        uses = Counter(id(value) for stretch in stretches for value in stretch.parameters())
        left = {id(value): value for value in self.stacked.values()}
        whole = []
        for stretch in stretches:
            values = stretch.parameters()
            if all(value.requires_grad and uses[id(value)] == 1 for value in values):
                self._merged.append(stretch)
                whole.append(stretch.merge())
                for value in values:
                    del left[id(value)]
        self._left = list(left.values())
        return whole + self._left

    def begin(self) -> None:
        """Forget the gradients of the last backward pass."""
        for stretch in self._merged:
            stretch.begin()
        for parameter in self._left:
            parameter.grad = None

    def collect(self) -> None:
        """Complete the gradients: those of no backward pass are 0; some came to parameters outside of their stretch."""
        for stretch in self._merged:
            stretch.collect()

    def gradients(self, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        """Return the gradients that ``parameters`` have, merged ones in parts; the members come first."""
        parts = {id(stretch.merged.whole): stretch.gradients() for stretch in self._merged if stretch.merged}
        found = [parts.get(id(p), [p.grad]) for p in parameters]
        return [gradient for each in found for gradient in each if gradient is not None]

    def part(self) -> None:
        """Give every parameter memory of its own again."""
        for stretch in self._merged:
            stretch.part()
        self._merged.clear()


def _for_members(part: nn.Module, done: dict[nn.Module, nn.Module]) -> nn.Module:
    """Exchange the linear layers and sequences of a network, those it uses twice too, for the members' own."""
    if part not in done:
        for name, child in part._modules.items():  # noqa: SLF001 - named_children leaves out second uses
            if child is not None:
                part._modules[name] = _for_members(child, done)  # noqa: SLF001 - in their place
        made = MemberLinear(part) if type(part) is nn.Linear else part
        done[part] = MemberSequential(part) if type(part) is nn.Sequential else made
    return done[part]
