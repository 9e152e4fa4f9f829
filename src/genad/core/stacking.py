"""Many networks of one architecture trained and run as one: stacked parameters under ``torch.func.vmap``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import stack_module_state, vmap

from genad.data.samples import Batch

MemberFunction = Callable[[Any, Batch], Tensor]


class Members(nn.Module):
    """The common face of several networks of one architecture.

    Parameters
    ----------
    nets : sequence of nn.Module
        The networks; all of one class, with the same shapes.
    """

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        super().__init__()
        self.size = len(nets)

    def call(self, function: MemberFunction, batch: Batch, *, own: bool = False) -> Tensor:
        """Return ``function(net, batch)`` of every member, stacked along a new first axis.

        With ``own`` the batch carries a leading member axis, and each member sees its own part.
        """
        raise NotImplementedError

    def nets(self) -> list[nn.Module]:
        """Return the members as ordinary networks that own copies of the parameters."""
        raise NotImplementedError

    def assign(self, nets: Sequence[nn.Module]) -> None:
        """Take over the parameters and buffers of ``nets``."""
        raise NotImplementedError


class Stacked(Members):
    """Members whose parameters live in one tensor each, so that one graph serves all of them."""

    skeleton: nn.Module
    #: What :meth:`nets` copies.
    pattern: nn.Module

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        super().__init__(nets)
        # The skeleton only lends its structure, so it must not be registered as a part of this module.
        object.__setattr__(self, "skeleton", copy.deepcopy(nets[0]))
        object.__setattr__(self, "pattern", self.skeleton)
        self.assign(nets)

    @staticmethod
    def _key(name: str) -> str:
        return name.replace(".", "/")

    def assign(self, nets: Sequence[nn.Module]) -> None:
        """Take over the parameters and buffers of ``nets``."""
        self.size = len(nets)
        params, buffers = stack_module_state(list(nets))
        self.stacked = nn.ParameterDict(
            {self._key(name): nn.Parameter(value.detach()) for name, value in params.items()}
        )
        self.fixed = nn.Module()
        for name, value in buffers.items():
            self.fixed.register_buffer(self._key(name), value)
        self._homes = [(_home(self.skeleton, name), name.rpartition(".")[2]) for name in self._state()]

    def _state(self) -> dict[str, Tensor]:
        both = [*self.stacked.items(), *self.fixed.named_buffers()]
        return {key.replace("/", "."): value for key, value in both}

    def call(self, function: MemberFunction, batch: Batch, *, own: bool = False) -> Tensor:
        """Return ``function(net, batch)`` of every member, stacked along a new first axis.

        Inside ``vmap`` the skeleton's parameters and buffers are exchanged, in its own dictionaries, for one member's;
        ``torch.func.functional_call`` does the same at several times the cost a step.
        """
        skeleton = self.skeleton
        if skeleton.training != self.training:
            skeleton.train(self.training)
        homes = self._homes
        values = [*self.stacked.values(), *self.fixed.buffers()]
        kept = [home[leaf] for home, leaf in homes]

        def one(values: list[Tensor], x: Tensor, mask: Tensor | None) -> Tensor:
            for (home, leaf), value in zip(homes, values, strict=True):
                home[leaf] = value
            return function(skeleton, Batch(x, mask, batch.known))

        axis = 0 if own else None
        in_dims = (0, axis, None if batch.mask is None else axis)
        try:
            return vmap(one, in_dims=in_dims, randomness="different")(values, batch.x, batch.mask)
        finally:
            for (home, leaf), old in zip(homes, kept, strict=True):
                home[leaf] = old

    def gradients(self, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        """Return the gradients that ``parameters`` have, with the members along the first axis."""
        return [p.grad for p in parameters if p.grad is not None]

    def nets(self) -> list[nn.Module]:
        """Return the members as ordinary networks."""
        found = []
        state = self._state()
        for k in range(self.size):
            net = copy.deepcopy(self.pattern).to(next(iter(self.stacked.values())).device)
            set_state(net, {name: value[k].detach().clone() for name, value in state.items()})
            found.append(net.train(self.training))
        return found


class Looped(Members):
    """Members run one after the other, for networks that cannot be stacked, such as fused recurrent layers."""

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        super().__init__(nets)
        self.assign(nets)

    def assign(self, nets: Sequence[nn.Module]) -> None:
        """Take over the networks themselves."""
        self.size = len(nets)
        self.members = nn.ModuleList(nets)

    def call(self, function: MemberFunction, batch: Batch, *, own: bool = False) -> Tensor:
        """Return ``function(net, batch)`` of every member, stacked along a new first axis."""
        parts = []
        for k, net in enumerate(self.members):
            mine = batch
            if own:
                mine = Batch(batch.x[k], None if batch.mask is None else batch.mask[k])
            parts.append(function(net, mine))
        return torch.stack(parts)

    def nets(self) -> list[nn.Module]:
        """Return the members."""
        return list(self.members)


def _home(net: nn.Module, name: str) -> Any:
    """Return the dictionary of the submodule that holds the parameter or buffer ``name``."""
    owner_name, _, leaf = name.rpartition(".")
    owner = net.get_submodule(owner_name)
    return owner._parameters if leaf in owner._parameters else owner._buffers  # noqa: SLF001 - exchanged in place


def set_state(net: nn.Module, state: dict[str, Tensor]) -> None:
    """Put tensors into a network by name; buffers may change their shape, parameters may not.

    Buffers hold what is known only after fitting (a memory bank, a mixture), so a freshly built network
    has them in another size.

    Raises
    ------
    KeyError
        When names are missing or left over.
    ValueError
        When a parameter has another shape.
    """
    expected = set(net.state_dict())
    if expected != set(state):
        missing, extra = sorted(expected - set(state)), sorted(set(state) - expected)
        raise KeyError(f"missing tensors {missing[:3]}, unknown tensors {extra[:3]}")
    buffers = dict(net.named_buffers())
    for name, value in state.items():
        owner_name, _, leaf = name.rpartition(".")
        owner = net.get_submodule(owner_name)
        if name in buffers:
            owner._buffers[leaf] = value.to(buffers[name].device)  # noqa: SLF001 - the shape may change
            continue
        parameter = owner._parameters[leaf]  # noqa: SLF001 - read beside the buffers
        if parameter is None or parameter.shape != value.shape:
            raise ValueError(f"{name} has shape {tuple(value.shape)}")
        with torch.no_grad():
            parameter.copy_(value)


def call(net: nn.Module, function: MemberFunction, batch: Batch) -> Tensor:
    """Return ``function(net, batch)``, summed over the members when the network is several."""
    if isinstance(net, Members):
        return net.call(function, batch, own=True).sum(0)
    return function(net, batch)


def parameters_of(net: nn.Module, modules: Sequence[str] | None) -> list[nn.Parameter]:
    """Return the trainable parameters of ``net``, or of the named parts of it.

    Parameters
    ----------
    net : nn.Module
        A network, or :class:`Members`.
    modules : sequence of str or None
        Names of attributes of the (member) network; None for all.

    Raises
    ------
    ValueError
        When a named part holds no parameters.
    """
    if isinstance(net, Stacked):
        named = [(key.replace("/", "."), value) for key, value in net.stacked.items()]
    elif isinstance(net, Looped):
        named = [pair for member in net.members for pair in member.named_parameters()]
    else:
        named = list(net.named_parameters())
    if modules is None:
        return [value for _, value in named if value.requires_grad]
    chosen = []
    for part in modules:
        mine = [v for n, v in named if (n == part or n.startswith(part + ".")) and v.requires_grad]
        if not mine:
            raise ValueError(f"the network has no trainable part called {part!r}")
        chosen += mine
    return chosen
