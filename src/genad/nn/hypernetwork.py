"""Hypernetworks: a network that moves the weights of another one, for every sample by itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.nn.mlp import mlp

# Conditions are cut here, in standard deviations: weights that grow with a gross value would overflow.
_FARTHEST = 10.0


class WeightShift(nn.Module):
    """Read a condition, and return what to add to the weights of a dense network.

    The last layer starts at 0, so an untrained hypernetwork changes nothing.

    Parameters
    ----------
    condition : int
        Length of the condition.
    net : nn.Sequential
        The network whose linear layers are shifted; only their sizes are kept.
    hidden : sequence of int
        Widths of the hypernetwork.

    Examples
    --------
    >>> net = mlp([3, 5, 2])
    >>> shift = WeightShift(4, net, (8,))
    >>> [tuple(part.shape) for part in shift(torch.zeros(7, 4))]
    [(7, 5, 3), (7, 5), (7, 2, 5), (7, 2)]
    """

    def __init__(self, condition: int, net: nn.Sequential, hidden: Sequence[int]) -> None:
        super().__init__()
        self.shapes = [tuple(p.shape) for layer in net if isinstance(layer, nn.Linear) for p in layer.parameters()]
        self.sizes = [torch.Size(shape).numel() for shape in self.shapes]
        self.body = mlp([condition, *hidden, sum(self.sizes)])
        last = self.body[-1]
        assert isinstance(last, nn.Linear)  # noqa: S101 - what mlp ends in
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, condition: Tensor) -> list[Tensor]:
        """Map conditions ``(B, condition)`` to one shift a sample of every weight and bias in turn."""
        flat = self.body(condition.clamp(-_FARTHEST, _FARTHEST)).split(self.sizes, dim=1)
        return [part.unflatten(1, shape) for part, shape in zip(flat, self.shapes, strict=True)]


def run_shifted(net: nn.Sequential, x: Tensor, shifts: Sequence[Tensor]) -> Tensor:
    """Run a dense network with shifted weights, the shifts of each sample for that sample.

    Parameters
    ----------
    net : nn.Sequential
        Linear layers and activations; its own weights receive no gradient.
    x : Tensor of shape (B, in)
        Input.
    shifts : sequence of Tensor
        As :class:`WeightShift` returns them.

    Returns
    -------
    Tensor of shape (B, out)

    Examples
    --------
    >>> net, x = mlp([3, 5, 2]), torch.ones(7, 3)
    >>> shifts = WeightShift(4, net, (8,))(torch.ones(7, 4))
    >>> torch.allclose(run_shifted(net, x, shifts), net(x))
    True
    """
    moves = iter(shifts)
    for layer in net:
        if isinstance(layer, nn.Linear):
            fixed = F.linear(x, layer.weight.detach(), layer.bias.detach())
            x = fixed + torch.bmm(next(moves), x[:, :, None])[:, :, 0] + next(moves)
        else:
            x = layer(x)
    return x
