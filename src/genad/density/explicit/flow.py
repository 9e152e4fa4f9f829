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
from genad.nn import ACTIVATIONS, resolve
from genad.nn.spectrum import spectrum

# Principal components that the flow models; the rest of a larger sample is an isotropic Gaussian.
_COMPONENTS = 64
# Samples that decide the principal components; fewer for long ones, whose Gram matrix is taken.
_SAMPLES = 20_000
_LONG = 2048
_HIDDEN = (64, 64)
_BLOCKS = {"spline": 4, "maf": 3, "affine": 6}
# Share of the mean variance added to each component's: keeps directions without variance from
# being blown up to unit scale, where sampling error would look like structure.
_SHRINK = 0.05
# Least variance of a direction, for constant columns: 0.01 standard deviations squared.
_LEAST = 1e-4
# Widest uniform noise on a discrete column, in standard deviations: a rare truth value has values
# so far apart that a full step of noise would drown every other column.
_WIDEST = 0.5
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
    """

    centre: Tensor
    axes: Tensor
    scale: Tensor
    rest: Tensor
    grain: Tensor

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

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return whitened components (B, k) and the residual (B, d) of samples."""
        centred = x.flatten(1) - self.centre
        along = centred @ self.axes
        return along / self.scale, centred - along @ self.axes.T

    def join(self, whitened: Tensor, residual: Tensor) -> Tensor:
        """Undo :meth:`split`."""
        flat = self.centre + (whitened * self.scale) @ self.axes.T + residual
        return flat.view(-1, *self.shape)

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
    """Normalising flow: exact ``log p(x) = log N(f(x); 0, I) + log |det df/dx|``.

    ``f`` whitens the leading principal components of a sample (a fixed linear map, in closed form,
    shrunk towards isotropy) and then applies trained blocks, each seeing the components in another
    order. With more than 64 values the components beyond the 64 leading ones are an isotropic
    Gaussian, so the score stays the negative log-density of the whole sample, in nats on the
    standardised scale. Training adds Gaussian noise to the components and uniform noise of one
    step to columns with few distinct values, so constant and integer columns have finite density.

    Mean AUROC/AP over 14 ADBench tables, one-class, 3 seeds: 0.941/0.823. Only
    the default bijector was measured.

    When to use
    -----------
    Tables of correlated numbers; where a calibrated log-density or new samples are wanted.

    When it fails
    -------------
    Likelihood is not typicality: a smooth, dull sample may score below every normal one. Where
    normal data fill many small clusters (fault, satellite) plain nearest neighbours do better:
    0.953 over the same tables. Splines cost five times as much as ``"maf"`` for about the same
    AUROC. Missing values stand where the observed ones make
    them likeliest, which is more likely than they deserve: few rows with some are flagged.

    Parameters
    ----------
    bijector : {"maf", "spline", "affine"}
        Masked autoregressive affine; rational-quadratic spline coupling (identity beyond 5);
        affine coupling (RealNVP). The autoregressive one samples slowest, a pass a component.
    blocks : int, optional
        Trained blocks; by default 3 (maf), 4 (spline) or 6 (affine).
    bins : int
        Bins of a spline, at least 2.
    noise : float
        Standard deviation of the smoothing noise on the whitened components, at least 0.

    Notes
    -----
    ``backbone`` gives the widths and activation of the conditioners, ``Backbone(hidden=(64, 64))``
    by default. The restored sample climbs the log-density until it is as likely as a typical
    normal sample. Shrinking the latent and mapping it back was the alternative: with one value of
    a row moved by 4 standard deviations (4 tables) it left 89 % of the error, the climb 81 %.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training, create
    >>> X = np.random.default_rng(0).normal(size=(500, 2))
    >>> flow = create("flow", training=Training(updates=50)).fit(X)
    >>> flow.log_prob([[0.0, 0.0], [4.0, -4.0]]).round(0)
    array([ -2., -14.])
    >>> flow.sample(3).shape
    (3, 2)

    References
    ----------
    Durkan, Bekasov, Murray and Papamakarios (2019), Neural spline flows, NeurIPS.
    Papamakarios, Pavlakou and Murray (2017), Masked autoregressive flow for density estimation,
    NeurIPS.
    Dinh, Sohl-Dickstein and Bengio (2017), Density estimation using Real NVP, ICLR.
    """

    bijector: Literal["maf", "spline", "affine"] = "maf"
    blocks: int | None = field(default=None, kw_only=True)
    bins: int = field(default=8, kw_only=True)
    noise: float = field(default=0.1, kw_only=True)

    stackable = False
    # One climb along the missing values is enough.
    refills = 1
    defaults = Training(updates=400, batch_size=256, lr=3e-3, weight_decay=1e-5, clip=5.0, warmup=20, patience=10)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.bijector not in _BLOCKS:
            raise InputError(f"bijector: {self.bijector!r} was given; use one of {', '.join(_BLOCKS)}.")
        blocks = 1 if self.blocks is None else self.blocks
        for name, value, least in (("blocks", blocks, 1), ("bins", self.bins, 2)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{name}: {value!r} was given; use a whole number of at least {least}.")
        if not (isinstance(self.noise, int | float) and 0 <= self.noise < math.inf):
            raise InputError(f"noise: {self.noise!r} was given; use a number of at least 0.")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the untrained flow."""
        k = min(math.prod(shape), _COMPONENTS)
        return FlowNet(self._flow(k), shape, k)

    def _flow(self, k: int) -> nn.Module:
        _, spec = resolve((k,), self.backbone)
        shared: dict[str, Any] = {
            "features": k,
            "hidden_features": spec.hidden or _HIDDEN,
            "activation": ACTIVATIONS[spec.activation],
        }
        if self.bijector == "spline":
            shared["univariate"] = zuko.transforms.MonotonicRQSTransform
            shared["shapes"] = [(self.bins,), (self.bins,), (self.bins - 1,)]
        blocks = []
        order = torch.arange(k)
        for i in range(self.blocks or _BLOCKS[self.bijector]):
            # A fresh permutation for every pair of blocks; the second of a pair turns it round, so
            # that what conditions in one is conditioned in the other.
            order = torch.randperm(k) if i % 2 == 0 else order.flip(0)
            if self.bijector == "maf":
                block = zuko.flows.MaskedAutoregressiveTransform(order=order, **shared)
            else:
                first = torch.zeros(k, dtype=torch.bool)
                first[order[: (k + i % 2) // 2]] = True
                block = zuko.flows.GeneralCouplingTransform(mask=first, **shared)
            if k > 1:
                block.hyper = nn.Sequential(Saturate(), block.hyper)
            else:
                # A single component has no conditioner: its own parameters start at the identity.
                for parameter in block.parameters():
                    nn.init.zeros_(parameter)
            blocks.append(block)
        base = zuko.lazy.UnconditionalDistribution(
            zuko.distributions.DiagNormal, torch.zeros(k), torch.ones(k), buffer=True
        )
        flow: nn.Module = zuko.flows.Flow(blocks, base)
        return flow

    def optimise(self, net: nn.Module, samples: Samples) -> TrainingReport:
        """Fix the linear part from the data, then train the blocks."""
        self._whiten(net, samples)
        return super().optimise(net, samples)

    @torch.no_grad()
    def _whiten(self, net: Any, samples: Samples) -> None:
        place = net.centre.device
        long = net.centre.shape[0] > _LONG
        # Eigenvalues come in float64, which not every device has.
        x = everything(samples, place, _LONG if long else _SAMPLES).x.flatten(1).cpu().double()
        n, d = x.shape
        k = net.scale.shape[0]
        centre = x.mean(0)
        centred = x - centre
        if long:
            values, left = spectrum(centred @ centred.T / n)
            # The triangular factor drops out; directions without data are filled up orthogonally.
            spanned = torch.zeros(d, k, dtype=x.dtype)
            spanned[:, : min(n, k)] = centred.T @ left.flip(1)[:, :k]
            axes = torch.linalg.qr(spanned).Q
        else:
            values, axes = spectrum(centred.T @ centred / n)
            axes = axes.flip(1)[:, :k]
        kept = torch.zeros(k, dtype=x.dtype)
        kept[: min(k, len(values))] = values.flip(0)[:k].clamp_min(0)
        total = centred.square().sum() / n
        extra = _SHRINK * total / d
        net.centre, net.axes = centre.float().to(place), axes.float().to(place)
        net.scale = (kept + extra).clamp_min(_LEAST).sqrt().float().to(place)
        left_out = (total - kept.sum()).clamp_min(0) / max(d - k, 1)
        net.rest = (left_out + extra).clamp_min(_LEAST).sqrt().float().to(place)
        if len(net.shape) == 1 and n > 1:
            net.grain = _grain(x).float().to(place)

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the mean negative log-likelihood of noised samples, a component."""
        x = batch.x
        if x.ndim == 2:
            x = x + net.grain * (torch.rand_like(x) - 0.5)
        nll: Tensor = -net.log_prob(x, self.noise).mean() / net.scale.shape[0]
        return nll

    def log_density(self, net: Any, x: Tensor) -> Tensor:
        """Return log p(x) of each sample in nats."""
        found: Tensor = net.log_prob(x)
        return found

    def generate(self, net: Any, n: int) -> Tensor:
        """Map Gaussian noise back through the flow."""
        k, d = net.scale.shape[0], net.centre.shape[0]
        whitened = net.flow().transform.inv(torch.randn(n, k, device=net.scale.device))
        residual = net.rest * torch.randn(n, d, device=net.scale.device)
        drawn: Tensor = net.join(whitened, residual - (residual @ net.axes) @ net.axes.T)
        return drawn


def _grain(x: Tensor) -> Tensor:
    """Return the smallest step (d,) between values of each column, 0 for continuous ones.

    A column is discrete when it has fewer distinct values than the square root of the rows.
    """
    gap = x.sort(0).values.diff(dim=0)
    real = gap > 1e-6
    distinct = real.sum(0)
    step = torch.where(real, gap, math.inf).amin(0).clamp_max(_WIDEST)
    discrete = (distinct > 0) & (distinct < math.sqrt(len(x)))
    return torch.where(discrete, step, 0.0)
