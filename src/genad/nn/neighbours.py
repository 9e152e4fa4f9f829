"""A bank of vectors that answers nearest-neighbour queries by the quickest exact way."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genad.nn.memory import nearest_neighbors

# Up to this many dimensions a k-d tree prunes most of the bank; beyond, products are quicker.
_TREE_DIMENSIONS = 12


class Bank(nn.Module):
    """Vectors kept as a buffer, with exact nearest neighbours in Euclidean distance.

    Attributes
    ----------
    rows : Tensor of shape (n, D)
        The vectors.

    Examples
    --------
    >>> bank = Bank(2)
    >>> bank.put(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    >>> bank.nearest(torch.tensor([[0.0, 0.0]]), k=2)[0]
    tensor([[0., 5.]])
    """

    rows: Tensor

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(0, dimension))
        self._tree: Any = None
        self._tree_of: Tensor | None = None

    def __len__(self) -> int:
        return self.rows.shape[0]

    def put(self, rows: Tensor) -> None:
        """Replace what the bank holds."""
        self.rows = rows.detach().clone()

    def nearest(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return the distances to the ``k`` nearest rows (fewer when the bank is smaller), and their numbers."""
        k = min(k, len(self))
        if self.rows.shape[1] > _TREE_DIMENSIONS or self.rows.device.type != "cpu":
            return nearest_neighbors(queries, self.rows, k)
        if self._tree_of is not self.rows:
            from scipy.spatial import cKDTree

            self._tree, self._tree_of = cKDTree(self.rows.double().numpy()), self.rows
        distances, indices = self._tree.query(queries.detach().double().numpy(), k=np.arange(1, k + 1))
        return torch.from_numpy(distances).to(queries.dtype), torch.from_numpy(indices)

    def __deepcopy__(self, memo: dict[int, Any]) -> Bank:
        twin = Bank(self.rows.shape[1])
        twin.put(self.rows)
        return twin.train(self.training)
