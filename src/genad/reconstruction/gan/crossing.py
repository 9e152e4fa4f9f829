"""Several generators against several critics: each pair of them is an adversarial network of its own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn


class Crossable:
    """What a detector says of its network, so that its generators and critics can be crossed.

    Its losses and scores read generator and critic as attributes of one network, which may then be any pair of them.
    """

    #: Attributes of the network, modules and buffers, that belong to the critic; all others to the generator.
    critic_side: ClassVar[tuple[str, ...]] = ("critic",)
    #: Whether a batch trains one pair, drawn at random, or each network against the average over all its opponents.
    pairing: ClassVar[Literal["sample", "all"]] = "sample"
    #: Whether the score looks at the critic; where it does not, all pairs of one generator have the same score.
    critic_scores: ClassVar[bool] = True


class Crossed(nn.Module):
    """The generators and critics of several networks of one kind; any pair can be had as a network.

    Parameters
    ----------
    nets : sequence of nn.Module
        At least as many networks as there are to be generators, and critics. Their parts are taken over.
    generators, critics : int
        How many of either.
    critic_side : sequence of str
        As in :class:`Crossable`.

    Attributes
    ----------
    turn : Tensor of int64, shape (2,)
        The pair that the next batch trains, where pairs are drawn.
    met : Tensor of int64, shape (generators, critics)
        Batches that each pair has been trained on.

    Examples
    --------
    >>> nets = [nn.ModuleDict({"generator": nn.Linear(1, 2), "critic": nn.Linear(2, 1)}) for _ in range(3)]
    >>> crossed = Crossed(nets, generators=2, critics=3, critic_side=("critic",))
    >>> pair = crossed.pair(1, 2)
    >>> pair["generator"] is nets[1]["generator"], pair["critic"] is nets[2]["critic"]
    (True, True)
    """

    turn: Tensor
    met: Tensor

    def __init__(self, nets: Sequence[nn.Module], generators: int, critics: int, critic_side: Sequence[str]) -> None:
        super().__init__()
        self.size = (generators, critics)
        self.critic_side = tuple(critic_side)
        # The pattern only lends its class and its plain attributes; parts are put into copies of it.
        pattern: Any = copy.copy(nets[0])
        parts, buffers = pattern._modules, pattern._buffers  # noqa: SLF001 - taken apart
        pattern._modules, pattern._buffers = {}, {}  # noqa: SLF001
        object.__setattr__(self, "pattern", pattern)
        self.own_parts, self.own_buffers = tuple(parts), tuple(buffers)
        for name in parts:
            self.add_module(name, nn.ModuleList(getattr(net, name) for net in nets[: self._count(name)]))
        for name in buffers:
            self.register_buffer(name, torch.stack([getattr(net, name) for net in nets[: self._count(name)]]))
        self.register_buffer("turn", torch.zeros(2, dtype=torch.int64))
        self.register_buffer("met", torch.zeros(generators, critics, dtype=torch.int64))

    def _count(self, name: str) -> int:
        return self.size[name in self.critic_side]

    def pair(self, i: int, j: int) -> Any:
        """Return generator ``i`` and critic ``j`` as one network that shares their parameters and buffers."""
        view: Any = copy.copy(self.pattern)
        where = {name: j if name in self.critic_side else i for name in (*self.own_parts, *self.own_buffers)}
        view._modules = {name: getattr(self, name)[where[name]] for name in self.own_parts}  # noqa: SLF001
        view._buffers = {name: getattr(self, name)[where[name]] for name in self.own_buffers}  # noqa: SLF001
        view.training = self.training
        return view

    def pairs(self) -> list[tuple[int, int]]:
        """Return all pairs of a generator's and a critic's number."""
        return [(i, j) for i in range(self.size[0]) for j in range(self.size[1])]

    def move_on(self, trained: Sequence[tuple[int, int]]) -> None:
        """Count the pairs that a batch has trained, and draw the next one."""
        for i, j in trained:
            self.met[i, j] += 1
        if len(self.pairs()) > 1:
            self.turn.copy_(torch.cat([torch.randint(size, (1,)) for size in self.size]))
