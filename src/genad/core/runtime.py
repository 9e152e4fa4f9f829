"""Where and how computations run: device, random numbers that leave no trace, and thread counts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from genad.errors import InputError

# Random state and thread count belong to the process, so computations that borrow them take turns.
_PROCESS_STATE = threading.RLock()


def resolve_device(device: str | torch.device | None) -> torch.device:
    """Return the device to use: the one asked for, else CUDA, else MPS, else the CPU.

    Raises
    ------
    InputError
        When the device asked for is not a device or is not there.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise InputError(f"device: {device!r} is not a device; use None, 'cpu', 'cuda', 'cuda:0' or 'mps'.") from None
    missing = (chosen.type == "cuda" and not torch.cuda.is_available()) or (
        chosen.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise InputError(f"device: {device!r} is not available here; use device='cpu' or device=None.")
    return chosen


@contextmanager
def isolated_rng(seed: int, device: torch.device) -> Iterator[None]:
    """Draw random numbers from ``seed`` inside the block and leave the caller's generators as they were.

    Layers initialise themselves and dropout draws from torch's process-wide generator, so that generator is
    seeded here and put back afterwards: nothing outside the block can tell that it ran.
    """
    devices = [device] if device.type == "cuda" else []
    with _PROCESS_STATE, torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@contextmanager
def thread_limit(threads: int | None) -> Iterator[None]:
    """Use at most ``threads`` intra-op threads inside the block; None leaves the user's setting alone."""
    before = torch.get_num_threads()
    if threads is None or threads >= before:
        yield
        return
    with _PROCESS_STATE:
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
