"""A bound on what a network may take while it is built from a file, so that no file can exhaust the memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from genad.errors import ModelFileError

# What a network may take at first beside what is stored of it: banks that fitting makes smaller, and scratch memory.
_BYTES, _TIMES = 2**30, 16


class BoundedBuild(TorchDispatchMode):
    """Refuses to make tensors far larger, one by one or all together, than those stored of the network.

    Parameters
    ----------
    stored : dict of str to Tensor
        The tensors of the network in the file.

    Raises
    ------
    ModelFileError
        Inside the block, before the memory is taken.

    Examples
    --------
    >>> with BoundedBuild({"weight": torch.zeros(2, 3)}):
    ...     torch.nn.Linear(3, 10**9)
    Traceback (most recent call last):
    ...
    genad.errors.ModelFileError: its network would take more than 1.1 GB, but 24 bytes of it are stored
    """

    def __init__(self, stored: dict[str, Tensor]) -> None:
        super().__init__()
        self.stored = sum(value.nbytes for value in stored.values())
        self.most = self.left = _BYTES + _TIMES * self.stored

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(argument.name == "device" for argument in func._schema.arguments):  # noqa: SLF001 - makes a tensor
            self.left -= _size(func, args, kwargs)
            if self.left < 0:
                raise ModelFileError(
                    f"its network would take more than {self.most / 1e9:.1f} GB, but {self.stored} bytes of it are "
                    "stored"
                )
        return func(*args, **kwargs)


def _size(func: Any, args: Any, kwargs: Any) -> int:
    """Return the bytes of what a function makes, without making it."""
    try:
        made = func(*args, **{**kwargs, "device": torch.device("meta")})
    except (NotImplementedError, RuntimeError):
        # Not every function has a form without memory; then it runs, or fails, as it is.
        return 0
    return int(made.nbytes) if isinstance(made, Tensor) else 0
