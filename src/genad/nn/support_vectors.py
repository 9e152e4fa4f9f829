"""Support vector machines with a radial kernel, solved by scikit-learn and kept as tensors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

# A feature that moves less than this among normal vectors counts as constant, and is left out.
_CONSTANT = 1e-6


class SupportVectors(nn.Module):
    """Score vectors by the signed decision of a support vector machine, the anomalous side positive.

    The kernel is ``k(a, b) = exp(-gamma ||a - b||^2)`` on standardised vectors, with ``gamma = 1 / D``. The score is
    ``offset - sum_i weight_i k(v, v_i)``. Far from everything it is ``offset``.

    Parameters
    ----------
    dimension : int
        Length D of a vector.

    Attributes
    ----------
    centre, scale : Tensor
        Buffers ``(D,)``, float64: mean and inverse standard deviation of the normal vectors, 0 for constant features.
    vectors, weights, offset : Tensor
        Buffers ``(m, D)``, ``(m,)`` and a number, float64: support vectors, their coefficients and the bias.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> machine = SupportVectors(2)
    >>> machine.fit_one_class(torch.from_numpy(rng.normal(size=(300, 2))), nu=0.1)
    >>> far, near = machine(torch.tensor([[5.0, 5.0], [0.0, 0.0]]))
    >>> bool(far > 0 > near)
    True
    """

    centre: Tensor
    scale: Tensor
    vectors: Tensor
    weights: Tensor
    offset: Tensor

    def __init__(self, dimension: int) -> None:
        super().__init__()
        double = torch.float64
        self.register_buffer("centre", torch.zeros(dimension, dtype=double))
        self.register_buffer("scale", torch.ones(dimension, dtype=double))
        self.register_buffer("vectors", torch.zeros(0, dimension, dtype=double))
        self.register_buffer("weights", torch.zeros(0, dtype=double))
        self.register_buffer("offset", torch.zeros((), dtype=double))

    def fit_one_class(self, normal: Tensor, nu: float) -> None:
        """Enclose normal vectors ``(n, D)``; at most a share ``nu`` of them, in (0, 1], is left outside."""
        from sklearn.svm import OneClassSVM

        rows = self._standardise(normal)
        machine = OneClassSVM(nu=nu, gamma=1.0 / rows.shape[1])
        machine.random_state = 0  # otherwise the solver draws a seed from numpy's global generator
        machine.fit(rows)
        self._take(machine.support_vectors_, machine.dual_coef_[0], -machine.intercept_[0])

    def fit_two_class(self, normal: Tensor, anomalous: Tensor, cost: float) -> None:
        """Separate normal from anomalous vectors; both sides weigh alike, whatever their numbers."""
        from sklearn.svm import SVC

        inside = self._standardise(normal)
        outside = self._scaled(anomalous).cpu().numpy()
        y = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
        machine = SVC(C=cost, gamma=1.0 / inside.shape[1], class_weight="balanced", random_state=0)
        machine.fit(np.r_[inside, outside], y)
        self._take(machine.support_vectors_, machine.dual_coef_[0], -machine.intercept_[0])

    def _standardise(self, normal: Tensor) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        rows = normal.double()
        spread = rows.std(0, correction=0)
        self.centre = rows.mean(0)
        self.scale = torch.where(spread > _CONSTANT, 1.0 / spread.clamp_min(_CONSTANT), 0.0)
        return self._scaled(rows).cpu().numpy()

    def _scaled(self, rows: Tensor) -> Tensor:
        return (rows.double() - self.centre) * self.scale

    def _take(self, vectors: object, weights: object, offset: float) -> None:
        device = self.centre.device
        self.vectors = torch.from_numpy(np.array(vectors, np.float64)).to(device)
        self.weights = torch.from_numpy(np.array(weights, np.float64)).to(device)
        self.offset = torch.tensor(float(offset), dtype=torch.float64, device=device)

    def forward(self, rows: Tensor) -> Tensor:
        """Score vectors ``(B, D)``, giving ``(B,)`` in float64."""
        # Without matrix products, whose rounding depends on how many rows there are; many scores tie at the threshold.
        apart = torch.cdist(self._scaled(rows), self.vectors, compute_mode="donot_use_mm_for_euclid_dist")
        alike = torch.exp(-apart.square() / self.vectors.shape[1])
        score: Tensor = self.offset - (alike * self.weights).sum(1)
        return score
