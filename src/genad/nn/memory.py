"""Nearest neighbours in a bank of vectors, and a first-in first-out memory."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from genad.errors import InputError

MARGIN = 8  # candidates kept beyond k before the exact comparison
_NOBODY = -1  # in the place of a candidate that is not needed


def nearest_distances(queries: Tensor, bank: Tensor, k: int, chunk: int = 1 << 22, p: float = 2) -> Tensor:
    """Return the distances to the ``k`` nearest rows of a bank, smallest first.

    Parameters
    ----------
    queries : torch.Tensor
        Points ``(B, D)``, finite.
    bank : torch.Tensor
        Rows to compare with ``(N, D)``, finite, ``N >= k``.
    k : int
        Number of neighbours.
    chunk : int, default=4194304
        Number of values held at a time; bounds the memory.
    p : float, default=2
        Order of the norm: 2 Euclidean, 1 city block, any other of at least 0.

    Returns
    -------
    torch.Tensor
        Distances ``(B, k)``. A query that equals a row has a distance of exactly 0 to it.
        Differentiable in both arguments.

    Raises
    ------
    InputError
        If the shapes do not fit or ``k`` is out of range.

    Examples
    --------
    >>> bank = torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
    >>> nearest_distances(bank[:1], bank, k=2)
    tensor([[0., 5.]])
    """
    return nearest_neighbors(queries, bank, k, chunk, p)[0]


def nearest_neighbors(
    queries: Tensor, bank: Tensor, k: int, chunk: int = 1 << 22, p: float = 2
) -> tuple[Tensor, Tensor]:
    """Return distances to the ``k`` nearest rows of a bank, and which rows they are.

    Euclidean distances are screened by a matrix product in float64; the best candidates are then
    compared by direct differences, because the product cancels for points that lie close together
    and far from the origin. Where the rounding of the product could have hidden a neighbour, all
    rows are compared directly.

    Parameters
    ----------
    queries, bank, k, chunk, p
        As in `nearest_distances`.

    Returns
    -------
    distances : torch.Tensor
        ``(B, k)``, smallest first.
    indices : torch.Tensor
        Row numbers in the bank ``(B, k)``.

    Raises
    ------
    InputError
        If the shapes do not fit or ``k`` is out of range.
    """
    if queries.ndim != 2 or bank.ndim != 2 or queries.shape[1] != bank.shape[1]:
        msg = (
            f"bank: found shape {tuple(bank.shape)} for queries of shape {tuple(queries.shape)}; "
            "accepted are two matrices with the same number of columns."
        )
        raise InputError(msg)
    if not 1 <= k <= len(bank):
        msg = f"k: found {k}; accepted is 1 to {len(bank)}, the number of rows in the bank. Lower k or give more rows."
        raise InputError(msg)
    dtype = torch.promote_types(queries.dtype, torch.float32)
    per_query = (k + MARGIN) * max(1, bank.shape[1])
    rows = max(1, min(1024, chunk // per_query))
    if len(queries) == 0:
        empty = queries.new_zeros(0, k, dtype=dtype)
        return empty, torch.zeros(0, k, dtype=torch.long, device=queries.device)
    wide = bank.detach().double()
    centre = wide.mean(0)
    select = _screen if p == 2 else _direct
    distances, indices = [], []
    for part in torch.split(queries, rows):
        with torch.no_grad():
            index = select(part.detach().double(), wide, centre, k, max(1, chunk // rows), p)
        difference = part.unsqueeze(1).double() - bank[index].double()
        distance = torch.linalg.vector_norm(difference, ord=p, dim=-1).masked_fill(index == _NOBODY, torch.inf)
        distance, order = distance.sort(dim=1)
        distances.append(distance[:, :k].to(dtype))
        indices.append(index.gather(1, order[:, :k]))
    return torch.cat(distances), torch.cat(indices)


def _merge(best: tuple[Tensor, Tensor] | None, values: Tensor, start: int, keep: int) -> tuple[Tensor, Tensor]:
    """Fold a block of distances into the smallest ``keep`` so far."""
    index = torch.arange(start, start + values.shape[1], device=values.device).expand_as(values)
    if best is not None:
        values = torch.cat([best[0], values], dim=1)
        index = torch.cat([best[1], index], dim=1)
    values, order = values.topk(min(keep, values.shape[1]), dim=1, largest=False)
    return values, index.gather(1, order)


def _direct(part: Tensor, bank: Tensor, centre: Tensor, k: int, block: int, p: float) -> Tensor:
    """Row numbers of the ``k`` nearest by direct differences."""
    del centre  # differences do not depend on it
    best: tuple[Tensor, Tensor] | None = None
    for start in range(0, len(bank), block):
        values = torch.cdist(part, bank[start : start + block], p=p, compute_mode="donot_use_mm_for_euclid_dist")
        best = _merge(best, values, start, k)
    if best is None:  # pragma: no cover - the bank holds at least k >= 1 rows
        raise AssertionError
    return best[1]


def _screen(part: Tensor, bank: Tensor, centre: Tensor, k: int, block: int, p: float) -> Tensor:
    """Row numbers of candidates that hold the ``k`` nearest in Euclidean distance, each once."""
    keep = k + MARGIN
    query = part - centre
    square = query.square().sum(1, keepdim=True)
    best: tuple[Tensor, Tensor] | None = None
    largest = bank.new_zeros(())
    for start in range(0, len(bank), block):
        rows = bank[start : start + block] - centre
        norms = rows.square().sum(1)
        largest = torch.maximum(largest, norms.max())
        best = _merge(best, (square + norms).addmm_(query, rows.T, alpha=-2), start, keep)
    if best is None:  # pragma: no cover - the bank holds at least k >= 1 rows
        raise AssertionError
    approximate, index = best
    if len(bank) <= keep:
        return index
    # a row left out lies no nearer than the worst candidate, up to the rounding of the product
    rounding = 4 * torch.finfo(torch.float64).eps * (bank.shape[1] + 4) * (square[:, 0] + largest)
    exact = (part.unsqueeze(1) - bank[index]).square().sum(-1).topk(k, largest=False).values[:, -1]
    unsure = (exact > 0) & (exact > approximate[:, -1] - rounding)
    if bool(unsure.any()):
        sure = _direct(part[unsure], bank, centre, k, block, p)
        index[unsure, :k] = sure
        index[unsure, k:] = _NOBODY
    return index


class FIFOMemory(nn.Module):
    """Ring buffer of vectors: a new row replaces the oldest one.

    Rows are buffers, not parameters: no gradient changes them, and they travel with
    ``state_dict``.

    Parameters
    ----------
    size : int
        Number of rows held.
    dim : int
        Length of a row.
    metric : {"l1", "l2"}, default="l1"
        Distance used by `knn`.

    Raises
    ------
    InputError
        If a size is below 1 or the metric is unknown.

    Examples
    --------
    >>> memory = FIFOMemory(size=2, dim=1)
    >>> memory.push(torch.tensor([[1.0], [2.0], [4.0]]))
    >>> memory.ordered()
    tensor([[2.],
            [4.]])
    >>> memory.knn(torch.tensor([[5.0]]), k=2)
    tensor([[1., 3.]])
    """

    rows: Tensor
    pushed: Tensor

    def __init__(self, size: int, dim: int, metric: Literal["l1", "l2"] = "l1") -> None:
        super().__init__()
        for name, value in (("size", size), ("dim", dim)):
            if value < 1:
                msg = f"{name}: found {value}; accepted is a whole number of at least 1."
                raise InputError(msg)
        if metric not in {"l1", "l2"}:
            msg = f"metric: found {metric!r}; accepted are 'l1' and 'l2'."
            raise InputError(msg)
        self.size = size
        self.metric = metric
        self.register_buffer("rows", torch.zeros(size, dim))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.long))

    def __len__(self) -> int:
        return min(int(self.pushed), self.size)

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Append rows ``(n, dim)`` in order; beyond ``size`` the oldest are overwritten.

        Parameters
        ----------
        rows : torch.Tensor
            New rows; of more than ``size`` only the last ``size`` remain.

        Raises
        ------
        InputError
            If the rows do not have length ``dim``.
        """
        if rows.ndim != 2 or rows.shape[1] != self.rows.shape[1]:
            msg = f"rows: found shape {tuple(rows.shape)}; accepted is (n, {self.rows.shape[1]})."
            raise InputError(msg)
        start, n = int(self.pushed), len(rows)
        kept = rows[-self.size :].to(self.rows.dtype)
        places = torch.arange(start + n - len(kept), start + n, device=self.rows.device)
        self.rows[places % self.size] = kept
        self.pushed += n

    def stored(self) -> Tensor:
        """Return the rows held ``(len(self), dim)`` in storage order, without a copy."""
        return self.rows[: len(self)]

    def ordered(self) -> Tensor:
        """Return the rows held ``(len(self), dim)``, the oldest first."""
        if int(self.pushed) <= self.size:
            return self.stored()
        return self.rows.roll(-(int(self.pushed) % self.size), 0)

    def knn(self, queries: Tensor, k: int) -> Tensor:
        """Return the distances to the ``k`` nearest rows held, smallest first.

        Parameters
        ----------
        queries : torch.Tensor
            Points ``(B, dim)``.
        k : int
            Number of neighbours, 1 to ``len(self)``.

        Returns
        -------
        torch.Tensor
            Distances ``(B, k)``.

        Raises
        ------
        InputError
            If fewer than ``k`` rows are held or the shapes do not fit.
        """
        return nearest_distances(queries, self.stored(), k, p=1 if self.metric == "l1" else 2)
