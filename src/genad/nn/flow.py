"""Planar normalizing flow, kept invertible by construction."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.errors import InputError

SHIFT = math.log(math.e - 1)  # softplus(SHIFT) = 1


class PlanarFlow(nn.Module):
    """Apply planar maps ``f(z) = z + u tanh(w.z + b)`` in turn and track the volume change.

    A planar map is invertible if ``w.u > -1``. The component of ``u`` along ``w`` is therefore
    replaced so that ``w.u = softplus(w.u_raw + c) - 1``. With ``s`` for that softplus, the
    determinant of the Jacobian ``1 + (1 - tanh^2) w.u`` equals ``tanh^2 + (1 - tanh^2) s``, a form
    that stays positive in floating point as well. The constant ``c = log(e - 1)``, which the
    original form lacks, leaves ``u`` as it is where ``w.u_raw = 0``; without it ``u`` grows beyond
    bounds as ``w`` vanishes.

    Parameters
    ----------
    dim : int
        Dimensions of ``z``.
    n : int
        Number of maps.

    Raises
    ------
    InputError
        If ``dim`` or ``n`` is below 1.

    References
    ----------
    Rezende and Mohamed (2015), Variational inference with normalizing flows, ICML, appendix A.1.

    Examples
    --------
    >>> z, log_det = PlanarFlow(dim=3, n=4)(torch.zeros(2, 5, 3))
    >>> z.shape, log_det.shape
    (torch.Size([2, 5, 3]), torch.Size([2, 5]))
    """

    def __init__(self, dim: int, n: int) -> None:
        super().__init__()
        for name, value in (("dim", dim), ("n", n)):
            if value < 1:
                msg = f"{name}: found {value}; accepted is a whole number of at least 1."
                raise InputError(msg)
        scale = 1.0 / dim**0.5
        self.u = nn.Parameter(torch.empty(n, dim).uniform_(-scale, scale))
        self.w = nn.Parameter(torch.empty(n, dim).uniform_(-scale, scale))
        self.b = nn.Parameter(torch.zeros(n))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``(..., dim)`` to the image ``(..., dim)`` and the log-determinant ``(...)``.

        A base density ``q0`` becomes ``log q(f(z)) = log q0(z) - log_det``.
        """
        along = (self.u * self.w).sum(-1)
        scale = F.softplus(along + SHIFT)
        # at w = 0 the map is a plain shift; the floor only avoids 0 / 0 there
        norm = self.w.square().sum(-1).clamp_min(torch.finfo(self.w.dtype).tiny)
        u = self.u + ((scale - 1.0 - along) / norm).unsqueeze(-1) * self.w
        log_det = z.new_zeros(z.shape[:-1])
        for i in range(self.b.shape[0]):
            h = torch.tanh(z @ self.w[i] + self.b[i])
            z = z + h.unsqueeze(-1) * u[i]
            square = h * h
            log_det = log_det + torch.log(square + (1.0 - square) * scale[i])
        return z, log_det
