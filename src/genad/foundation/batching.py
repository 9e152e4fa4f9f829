"""Group token sequences for a network: similar lengths together, filled up at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Yield groups of similar length, the longest first, of at most so many tokens with the filling.

    Parameters
    ----------
    lengths : sequence of int
    tokens : int
        An item that is longer stands alone.

    Examples
    --------
    >>> list(batches([3, 1, 2, 9, 1], tokens=6))
    [[3], [0, 2], [1, 4]]
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    start = 0
    while start < len(order):
        size = max(1, tokens // max(lengths[order[start]], 1))
        yield order[start : start + size]
        start += size


def padded(rows: Sequence[Sequence[int]], filling: int, device: torch.device) -> Tensor:
    """Return rows of tokens as one array (rows, longest), filled up at the end.

    Examples
    --------
    >>> padded([[5, 6], [7]], 0, torch.device("cpu")).tolist()
    [[5, 6], [7, 0]]
    """
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[filling] * (longest - len(row))] for row in rows], dtype=torch.long, device=device)


def common_start(rows: Sequence[list[int]], most: int) -> int:
    """Return how many first tokens all rows share, ``most`` at most; 0 for a single row.

    Examples
    --------
    >>> common_start([[1, 2, 3], [1, 2, 4], [1, 2, 3, 5]], most=9), common_start([[1, 2], [1, 2]], most=1)
    (2, 1)
    """
    if len(rows) < 2:
        return 0
    # The first and the last in order differ earliest.
    first, last = min(rows), max(rows)
    most = max(min(most, len(first), len(last)), 0)
    return next((i for i in range(most) if first[i] != last[i]), most)
