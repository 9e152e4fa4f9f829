"""Normalising flow: an invertible map to a Gaussian, and with it the exact density of a sample."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import zuko
from torch import Tensor, nn

from genad.core.families import DensityDetector, DensityNet, SampleMixin
from genad.core.registry import Card, Family, register
from genad.core.training import Training, TrainingReport
from genad.data.kinds import DENSE
from genad.data.samples import Batch, Samples, everything
from genad.errors import InputError

# Principal components that the flow models; the rest of a larger sample is an isotropic Gaussian.
_COMPONENTS = 64
# Samples that decide the principal components.
_SAMPLES = 20_000
# Share of the mean variance added to each component's: keeps directions without variance from
# being blown up to unit scale, where sampling error would look like structure.
_SHRINK = 0.05
# Latent values are cut here so that the squares of absurd inputs stay finite in float32.
_LARGEST = 1e16


class Saturate(nn.Module):
    """Squash what a conditioner sees to (-bound, bound).

    Far from the data its outputs, and so the scales of the map, become constants: the density then
    falls off like a Gaussian instead of following the extrapolation of a network.
    """

    bound = 6.0

    def forward(self, x: Tensor) -> Tensor:
        """Map a batch elementwise."""
        return self.bound * torch.tanh(x / self.bound)


class FlowNet(DensityNet):
    """A flow on standardised principal components, with a Gaussian for what they leave out.

    Attributes
    ----------
    flow : zuko.flows.Flow
        Maps whitened components (B, k) to a standard normal.
    centre, axes, scale, rest : Tensor
        Buffers (d,), (d, k), (k,) and (): mean, principal axes, spread along them and
        the standard deviation of the residual.
    grain : Tensor
        Width (d,) of the uniform noise on columns with few distinct values, 0 elsewhere.
    radius : Tensor
        Median latent norm of the training samples.
    """

    centre: Tensor
    axes: Tensor
    scale: Tensor
    rest: Tensor
    grain: Tensor
    radius: Tensor

    def __init__(self, flow: nn.Module, shape: tuple[int, ...], components: int) -> None:
        super().__init__()
        d = math.prod(shape)
        self.flow = flow
        self.shape = shape
        self.register_buffer("centre", torch.zeros(d))
        self.register_buffer("axes", torch.eye(d, components))
        self.register_buffer("scale", torch.ones(components))
        self.register_buffer("rest", torch.ones(()))
        self.register_buffer("grain", torch.zeros(d))
        self.register_buffer("radius", torch.zeros(()))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return whitened components (B, k) and the residual (B, d) of samples."""
        centred = x.flatten(1) - self.centre
        along = centred @ self.axes
        return along / self.scale, centred - along @ self.axes.T

    def join(self, whitened: Tensor, residual: Tensor) -> Tensor:
        """Undo :meth:`split`."""
        flat = self.centre + (whitened * self.scale) @ self.axes.T + residual
        return flat.unflatten(1, self.shape)

    def latent(self, whitened: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latent (B, k) of whitened components and the log-determinant (B,)."""
        z, volume = self.flow().transform.call_and_ladj(whitened)
        return z.clamp(-_LARGEST, _LARGEST), volume

    def log_prob(self, x: Tensor, noise: float = 0.0) -> Tensor:
        """Return log p(x) in nats, (B,); ``noise`` smooths the components while training."""
        whitened, residual = self.split(x)
        if noise:
            whitened = whitened + noise * torch.randn_like(whitened)
        z, volume = self.latent(whitened)
        k, d = z.shape[1], residual.shape[1]
        value = volume - 0.5 * z.square().sum(1) - self.scale.log().sum()
        if d > k:
            far = (residual / self.rest).clamp(-_LARGEST, _LARGEST).square().sum(1)
            value = value - 0.5 * far - (d - k) * self.rest.log()
        return value - 0.5 * d * math.log(2 * math.pi)


@register(
    Card(
        title="Neural Spline Flows",
        authors="Durkan, Bekasov, Murray, Papamakarios",
        venue="NeurIPS",
        year=2019,
        family=Family.FLOW,
        kinds=DENSE,
        row="1.3.1-03a",
        summary="Exact log-likelihood by an invertible map to a Gaussian.",
        tags=("normalising flow", "NSF", "MAF", "RealNVP", "likelihood"),
    )
)
@dataclass(eq=False, repr=False)
class Flow(SampleMixin, DensityDetector):
    """DRAFT."""

    transform: Literal["spline", "maf", "affine"] = "spline"
    blocks: int = field(default=4, kw_only=True)
    hidden: tuple[int, ...] = field(default=(64, 64), kw_only=True)
    bins: int = field(default=8, kw_only=True)
    noise: float = field(default=0.1, kw_only=True)
    restore_by: str = "climb"
    sat: bool = True
    grainy: bool = True

    stackable = False
    defaults = Training(
        updates=400, batch_size=256, lr=3e-3, weight_decay=1e-5, clip=5.0, warmup=20, patience=10
    )

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        k = min(math.prod(shape), _COMPONENTS)
        return FlowNet(self._flow(k), shape, k)

    def _flow(self, k: int) -> nn.Module:
        spline = {
            "univariate": zuko.transforms.MonotonicRQSTransform,
            "shapes": [(self.bins,), (self.bins,), (self.bins - 1,)],
        }
        transforms = []
        for block in range(self.blocks):
            if block % 2 == 0:
                order = torch.randperm(k)
            else:
                order = order.flip(0)
            step = zuko.flows.MaskedAutoregressiveTransform(
                features=k,
                passes=None if self.transform == "maf" else 2,
                order=order,
                hidden_features=self.hidden,
                activation=nn.ReLU,
                **(spline if self.transform == "spline" else {}),
            )
            if self.sat and hasattr(step, "hyper"):
                step.hyper = nn.Sequential(Saturate(), step.hyper)
            transforms.append(step)
        base = zuko.lazy.UnconditionalDistribution(
            zuko.distributions.DiagNormal, torch.zeros(k), torch.ones(k), buffer=True
        )
        return zuko.flows.Flow(transforms, base)

    @torch.no_grad()
    def _whiten(self, net: FlowNet, samples: Samples) -> None:
        batch = everything(samples, net.centre.device, _SAMPLES)
        x = batch.x.flatten(1)
        n, d = x.shape
        k = net.scale.shape[0]
        net.centre = x.mean(0)
        centred = x - net.centre
        if d <= 4096:
            values, axes = torch.linalg.eigh((centred.T @ centred / n).double())
            values, axes = values.flip(0)[:k].clamp_min(0), axes.flip(1)[:, :k]
        total = centred.square().sum().double() / n
        mean = total / d
        net.scale = (values + _SHRINK * mean).sqrt().float()
        net.axes = axes.float()
        net.rest = ((total - values.sum()) / max(d - k, 1)).clamp_min(1e-4).sqrt().float()
        if self.grainy and len(net.shape) == 1:
            s = x.sort(0).values
            gap = s.diff(dim=0)
            distinct = (gap > 1e-6).sum(0)
            few = distinct < math.sqrt(n)
            step = torch.where(gap > 1e-6, gap, torch.inf).amin(0) if n > 1 else torch.zeros(d)
            net.grain = torch.where(few & (distinct > 0), step.clamp_max(self.cap), 0.0)

    cap = 0.5

    def optimise(self, net: nn.Module, samples: Samples) -> TrainingReport:
        self._whiten(net, samples)
        return super().optimise(net, samples)

    def loss(self, net: Any, batch: Batch) -> Tensor:
        x = batch.x
        if self.grainy:
            x = x + (net.grain * (torch.rand_like(x.flatten(1)) - 0.5)).view_as(x)
        return -net.log_prob(x, self.noise).mean() / batch.x[0].numel()

    def finish(self, net: Any, samples: Samples) -> None:
        super().finish(net, samples)
        few = everything(samples, torch.device(self.device_), 2000)
        with torch.no_grad():
            net.radius = net.latent(net.split(few.x)[0])[0].norm(dim=1).median()

    def log_density(self, net: Any, x: Tensor) -> Tensor:
        return net.log_prob(x)

    def reconstruct(self, net: Any, batch: Batch) -> Tensor:
        if self.restore_by == "climb":
            return super().reconstruct(net, batch)
        with torch.no_grad():
            w, r = net.split(batch.x)
            z, _ = net.latent(w)
            norm = z.norm(dim=1, keepdim=True)
            z = z * (net.radius / norm.clamp_min(1e-12)).clamp_max(1.0)
            return net.join(net.flow().transform.inv(z), r * 0)

    def generate(self, net: Any, n: int) -> Tensor:
        k, d = net.scale.shape[0], net.centre.shape[0]
        whitened = net.flow().transform.inv(torch.randn(n, k, device=net.scale.device))
        residual = net.rest * torch.randn(n, d, device=net.scale.device)
        return net.join(whitened, residual - (residual @ net.axes) @ net.axes.T)
