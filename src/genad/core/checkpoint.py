"""Checkpoints of an unfinished training: tensors and JSON in one safetensors file, replaced atomically."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from genad.errors import ModelFileError
from genad.files import replace_file


def write_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors and a JSON header to one safetensors file, all or nothing."""
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    replace_file(path, lambda part: save_file(plain, part, metadata={"genad": json.dumps(header)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read back what :func:`write_tensors` wrote.

    Raises
    ------
    ModelFileError
        When the file is not a whole safetensors file of genad's.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["genad"])
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ModelFileError(
            f"{path}: not a whole genad file ({type(error).__name__}: {error}); make it again, or restore a copy."
        ) from error


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
