"""DSEBM: a deep energy, learnt by denoising, whose gradient points back to the data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import grad, grad_and_value
from torch.nn import functional as F  # noqa: N812

from genad.core.detector import Inference, Want
from genad.core.families import DensityDetector, DensityNet
from genad.core.registry import Card, Family, register
from genad.core.training import Training
from genad.data.kinds import DENSE
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn import encoder, resolve

# Widths of the network on vectors; other shapes take their backbone's own.
_HIDDEN = (128,)
# Activations whose second derivative vanishes, so that score matching cannot train through them.
_PIECEWISE_LINEAR = ("relu", "leaky_relu")


class EnergyNet(DensityNet):
    """E(x) = |x - b|^2 / 2 - sum_j softplus(g_j(x)).

    Attributes
    ----------
    features : nn.Module
        The network g, from samples to (B, units).
    visible : Parameter
        The offset b, of the sample's shape.
    """

    def __init__(self, features: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.features = features
        self.visible = nn.Parameter(torch.zeros(shape))

    def bonus(self, x: Tensor) -> Tensor:
        """Return what the hidden units take off the quadratic energy, (B,)."""
        return F.softplus(self.features(x)).sum(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the energy of each sample, (B,)."""
        return 0.5 * (x - self.visible).square().flatten(1).sum(1) - self.bonus(x)

    def restored(self, x: Tensor) -> Tensor:
        """Return f(x) = x - grad E(x) = b + grad sum_j softplus(g_j(x)).

        The second form never subtracts a large x from itself.
        """
        return self.visible + grad(lambda v: self.bonus(v).sum())(x)

    def energy_and_restored(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return energies (B,) and f(x) from one pass."""

        def total(v: Tensor) -> tuple[Tensor, Tensor]:
            each = self.bonus(v)
            return each.sum(), each

        slope, (_, bonus) = grad_and_value(total, has_aux=True)(x)
        quadratic = 0.5 * (x - self.visible).square().flatten(1).sum(1)
        return quadratic - bonus, self.visible + slope


@register(
    Card(
        title="Deep Structured Energy Based Models for Anomaly Detection",
        authors="Zhai, Cheng, Lu, Zhang",
        venue="ICML",
        year=2016,
        family=Family.ENERGY,
        kinds=DENSE,
        row="1.3.1-04a",
        summary="A deep energy trained by denoising score matching.",
        tags=("energy-based model", "score matching"),
    ),
    name="dsebm",
)
@dataclass(eq=False, repr=False)
class DSEBM(DensityDetector):
    """DRAFT."""

    score_by: Literal["energy", "reconstruction"] = "energy"
    noise: float = field(default=0.5, kw_only=True)
    units: int = field(default=128, kw_only=True)

    # torch.func differentiates inside inference mode and under vmap, so autograd stays off.
    grad_at_score = False
    restore_steps = 16
    defaults = Training(updates=500, batch_size=128, lr=3e-3, warmup=20)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.score_by not in ("energy", "reconstruction"):
            raise InputError(
                f"score_by: {self.score_by!r} was given; use 'energy' or 'reconstruction'."
            )

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the energy network."""
        kind, spec = resolve(shape, self.backbone)
        if spec.activation in _PIECEWISE_LINEAR:
            spec = replace(spec, activation="softplus")
        if kind == "mlp" and spec.hidden is None:
            spec = replace(spec, hidden=_HIDDEN)
        return EnergyNet(encoder(shape, self.units, spec), shape)

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Denoise: f of a noised sample should be the sample."""
        noised = batch.x + self.noise * torch.randn_like(batch.x)
        return batch.sample_mean((net.restored(noised) - batch.x).square()).mean()

    def log_density(self, net: Any, x: Tensor) -> Tensor:
        """Return -E(x) / noise^2, log p(x) of the noised data up to a constant, in nats."""
        return -net(x) / self.noise**2

    def score(self, net: Any, batch: Batch) -> Tensor:
        """Return the energy in nats, or the root mean squared length of its gradient."""
        if self.score_by == "energy":
            return -self.log_density(net, batch.x)
        return self._residual(batch, net.restored(batch.x))

    @staticmethod
    def _residual(batch: Batch, restored: Tensor) -> Tensor:
        return batch.sample_mean((batch.x - restored).square()).sqrt()

    def reconstruct(self, net: Any, batch: Batch) -> Tensor:
        """Descend the energy by repeated f until a sample is as likely as a typical one."""
        current = batch.x
        for _ in range(self.restore_steps):
            energy, better = net.energy_and_restored(current)
            score = (
                energy / self.noise**2
                if self.score_by == "energy"
                else self._residual(Batch(current, batch.mask), better)
            )
            moving = (score > net.typical_score).view(-1, *[1] * (current.ndim - 1))
            current = torch.where(moving, better, current)
        return current
