"""Broad learning: random features side by side, and output weights in closed form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genad.nn.proximal import soft_threshold

# Sparse refinement of the features: weight of the l1 norm, coupling and steps of the alternating directions.
_SPARSE, _COUPLING, _STEPS = 1e-3, 1.0, 30
# Spread of the pre-activations, so that tanh bends but does not saturate.
_SPREAD = 0.8
_SMALL = 1e-6


class BroadLearning(nn.Module):
    """Map vectors to vectors by ``tanh`` features, enhancement nodes on them, and one ridge regression.

    Features are ``Z = tanh([X, 1] W_e)``, where ``W_e`` starts random and is replaced by the sparse decoder of those
    random features; enhancement nodes are ``H = tanh(Z W_h + b_h)`` with random, orthonormal ``W_h`` that stay as
    drawn; and the output is ``[1, Z, H] W`` with ``W`` from ridge regression, solved in float64. It is extended without
    starting over: the sums that decide ``W`` are kept, so further data need no earlier ones, and the Cholesky factor
    grows by a block when enhancement nodes are added. Sums and factor are no part of a saved network.

    Parameters
    ----------
    values, targets : int
        Lengths of input and output.
    groups, nodes : int
        Groups of features, and features in each.
    ridge : float
        Weight of ``||W||^2`` for each sample.

    Attributes
    ----------
    features : Tensor of shape (values + 1, groups * nodes)
        W_e.
    enhance, shift : Tensor of shape (groups * nodes, m) and (m,)
        W_h and b_h of the m enhancement nodes there are.
    output : Tensor of shape (1 + groups * nodes + m, targets)
        W.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> net = BroadLearning(1, 1, groups=4, nodes=5, ridge=1e-6)
    >>> x = torch.linspace(-1, 1, 200)[:, None]
    >>> net.prepare(x, generator)
    >>> net.learn(x, x.square())
    >>> net.grow(x, x.square(), 40, generator)
    >>> bool((net(x) - x.square()).abs().max() < 0.05)
    True

    References
    ----------
    Chen and Liu (2018), Broad learning system: an effective and efficient incremental learning system without the need
    for deep architecture, IEEE Transactions on Neural Networks and Learning Systems 29(1).
    """

    features: Tensor
    enhance: Tensor
    shift: Tensor
    output: Tensor
    gram: Tensor
    cross: Tensor
    factor: Tensor
    count: Tensor

    def __init__(self, values: int, targets: int, *, groups: int, nodes: int, ridge: float) -> None:
        super().__init__()
        self.groups, self.nodes, self.ridge = groups, nodes, ridge
        wide, double = groups * nodes, torch.float64
        self.register_buffer("features", torch.zeros(values + 1, wide))
        self.register_buffer("enhance", torch.zeros(wide, 0))
        self.register_buffer("shift", torch.zeros(0))
        self.register_buffer("output", torch.zeros(1 + wide, targets))
        self.register_buffer("gram", torch.zeros(1 + wide, 1 + wide, dtype=double), persistent=False)
        self.register_buffer("cross", torch.zeros(1 + wide, targets, dtype=double), persistent=False)
        self.register_buffer("factor", torch.zeros(1 + wide, 1 + wide, dtype=double), persistent=False)
        self.register_buffer("count", torch.zeros((), dtype=double), persistent=False)

    def prepare(self, x: Tensor, generator: torch.Generator) -> None:
        """Draw random features and refine them on ``x`` of shape ``(n, values)``."""
        known = _with_one(x)
        random = torch.randn(self.groups, known.shape[1], self.nodes, generator=generator).to(x) / x.shape[1] ** 0.5
        weights = self._sparse_decoders(known, torch.tanh(known @ random)).permute(2, 0, 1).flatten(1)
        self.features = weights * (_SPREAD / (known @ weights).std(0, correction=0).clamp_min(_SMALL))

    @staticmethod
    def _sparse_decoders(x: Tensor, random: Tensor) -> Tensor:
        """Return W of ``min ||Z W - X||^2 / n + l1``, ``(groups, nodes, values)``, by alternating directions."""
        n = len(x)
        gram = random.transpose(1, 2) @ random / n
        right = random.transpose(1, 2) @ x / n
        eye = torch.eye(gram.shape[1], dtype=x.dtype, device=x.device)
        factor = torch.linalg.cholesky(gram + _COUPLING * eye)
        sparse = dual = torch.zeros_like(right)
        for _ in range(_STEPS):
            dense = torch.cholesky_solve(right + _COUPLING * (sparse - dual), factor)
            sparse = soft_threshold(dense + dual, _SPARSE / _COUPLING)
            dual = dual + dense - sparse
        return sparse

    def expand(self, x: Tensor) -> Tensor:
        """Return ``[1, Z, H]``."""
        z = torch.tanh(_with_one(x) @ self.features)
        return torch.cat([torch.ones_like(z[:, :1]), z, torch.tanh(z @ self.enhance + self.shift)], 1)

    def learn(self, x: Tensor, y: Tensor) -> None:
        """Take in pairs ``(n, values)`` and ``(n, targets)`` beside those learnt before, and solve for the output."""
        wide = self.expand(x).double()
        self.gram = self.gram + wide.T @ wide
        self.cross = self.cross + wide.T @ y.double()
        self.count = self.count + len(x)
        self.factor = torch.linalg.cholesky(self._loaded(self.gram))
        self._solve()

    def grow(self, x: Tensor, y: Tensor, nodes: int, generator: torch.Generator) -> None:
        """Add enhancement nodes.

        Parameters
        ----------
        x, y : Tensor of shape (n, values) and (n, targets)
            All pairs learnt so far: the products of the new nodes with the others are needed.
        nodes : int
            How many.
        generator : torch.Generator
            On the CPU; decides their weights.
        """
        old = self.expand(x).double()
        wide = self.enhance.shape[0]
        draws = torch.randn(max(wide, nodes), min(wide, nodes), generator=generator)
        basis = torch.linalg.qr(draws).Q
        basis = (basis if wide >= nodes else basis.T).to(x)
        made = old[:, 1 : 1 + wide].to(x) @ basis
        enhance = basis * (_SPREAD / made.std(0, correction=0).clamp_min(_SMALL))
        shift = torch.rand(nodes, generator=generator).to(x) * 2 - 1
        new = torch.tanh(old[:, 1 : 1 + wide].to(x) @ enhance + shift).double()
        self.enhance, self.shift = torch.cat([self.enhance, enhance], 1), torch.cat([self.shift, shift])
        across, within = old.T @ new, new.T @ new
        self.gram = torch.cat([torch.cat([self.gram, across], 1), torch.cat([across.T, within], 1)])
        self.cross = torch.cat([self.cross, new.T @ y.double()])
        below = torch.linalg.solve_triangular(self.factor, across, upper=False)
        corner = torch.linalg.cholesky(self._loaded(within) - below.T @ below)
        upper = torch.cat([self.factor, torch.zeros_like(across)], 1)
        self.factor = torch.cat([upper, torch.cat([below.T, corner], 1)])
        self._solve()

    def _loaded(self, gram: Tensor) -> Tensor:
        return gram + self.ridge * self.count * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)

    def _solve(self) -> None:
        self.output = torch.cholesky_solve(self.cross, self.factor).to(self.features.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, values)`` to ``(B, targets)``."""
        return self.expand(x) @ self.output


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[:, :1])], 1)
