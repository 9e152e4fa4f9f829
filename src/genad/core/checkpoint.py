"""What a checkpoint of an unfinished training keeps of an optimiser, as named tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def pack_optimizer(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """Flatten the state of an optimiser into named tensors."""
    packed = {}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            packed[f"{prefix}/{index}/{key}"] = torch.as_tensor(value)
    return packed


def unpack_optimizer(optimizer: torch.optim.Optimizer, prefix: str, tensors: dict[str, Tensor]) -> None:
    """Put back what :func:`pack_optimizer` packed."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        head, _, rest = name.partition(prefix + "/")
        if head or not rest:
            continue
        index, key = rest.split("/")
        state.setdefault(int(index), {})[key] = value
    whole = optimizer.state_dict()
    whole["state"] = state
    optimizer.load_state_dict(whole)
