"""What adversarial detectors share: critics with features, their losses, and the search for latent codes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.errors import InputError
from genad.nn.activation import activation_module
from genad.nn.backbone import Backbone, encoder, resolve

if TYPE_CHECKING:
    from collections.abc import Sequence

# Features of a critic whose backbone does not end in a linear layer.
_FEATURES = 64
# Values up to which one dense layer holds an image well enough to be searched.
_LIGHT = 4096
# Values of a search that are worked on at a time: what is made of them stays in the processor's cache.
_CACHED = 2**17
# Keeps the root of a vanished second moment from dividing by zero.
_TINY = 1e-12


def leaky(shape: Sequence[int], spec: Backbone | str | None = None, *, light: bool = False) -> Backbone:
    """Complete a backbone for adversarial training: leaky rectifiers unless another activation was asked for.

    A rectifier that dies takes the generator's gradient with it, which is why these networks leak.

    Parameters
    ----------
    shape : sequence of int
        Shape of one sample.
    spec : Backbone, str or None, default=None
        What the user asked for.
    light : bool, default=False
        Take one dense layer in place of convolutions for images of at most 4,096 values, when no backbone was
        asked for: about a tenth of the time a step, for networks that are run hundreds of times a sample.

    Returns
    -------
    Backbone

    Examples
    --------
    >>> leaky((1, 32, 32), light=True)
    Backbone(name='mlp', hidden=(128,), activation='leaky_relu', dropout=0.0)
    >>> leaky((1, 32, 32)).name, leaky((5,), Backbone(activation="silu")).activation
    ('conv', 'silu')
    """
    name, full = resolve(shape, spec)
    if light and spec is None and name == "conv" and math.prod(shape) <= _LIGHT:
        return Backbone("mlp", (128,), "leaky_relu")
    return Backbone(name, full.hidden, "leaky_relu" if full.activation == "relu" else full.activation, full.dropout)


class Critic(nn.Module):
    """A discriminator or critic that also shows its last hidden layer.

    There is no normalisation over the batch, so that neither a score nor a gradient penalty mixes samples.

    Parameters
    ----------
    shape : sequence of int
        Shape of one sample.
    spec : Backbone, str or None, default=None
        Which network; None chooses by the shape.

    Examples
    --------
    >>> critic = Critic((1, 8, 8))
    >>> logit, features = critic.both(torch.zeros(5, 1, 8, 8))
    >>> logit.shape, features.ndim
    (torch.Size([5]), 2)
    """

    def __init__(self, shape: Sequence[int], spec: Backbone | str | None = None) -> None:
        super().__init__()
        full = leaky(shape, spec)
        net = encoder(shape, 1, full)
        if isinstance(net, nn.Sequential) and isinstance(net[-1], nn.Linear):
            self.body: nn.Module = net[:-1]
            self.head: nn.Module = net[-1]
        else:
            self.body = nn.Sequential(encoder(shape, _FEATURES, full), activation_module(full.activation))
            self.head = nn.Linear(_FEATURES, 1)

    def features(self, x: Tensor) -> Tensor:
        """Return the last hidden layer of ``(B, *shape)``, flattened to (B, F)."""
        found: Tensor = self.body(x).flatten(1)
        return found

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B,) and features (B, F)."""
        found = self.features(x)
        return self.head(found).squeeze(-1), found

    def forward(self, x: Tensor) -> Tensor:
        """Return the logit of each sample, (B,); higher is more real."""
        return self.both(x)[0]


class JointCritic(nn.Module):
    """A discriminator of pairs, a sample and its code; it also shows its last hidden layer.

    Sample and code are read apart, joined, and judged together, so that a pair is real only if both fit each other.

    Parameters
    ----------
    shape : sequence of int
        Shape of one sample.
    latent : int
        Length of a code.
    spec : Backbone, str or None, default=None
        Which network reads the sample; None chooses by the shape.

    References
    ----------
    Donahue, Krähenbühl and Darrell (2017), Adversarial feature learning, ICLR.

    Examples
    --------
    >>> critic = JointCritic((6,), 2)
    >>> critic(torch.zeros(5, 6), torch.zeros(5, 2)).shape, critic.features(torch.zeros(5, 6), torch.zeros(5, 2)).shape
    (torch.Size([5]), torch.Size([5, 64]))
    """

    def __init__(self, shape: Sequence[int], latent: int, spec: Backbone | str | None = None) -> None:
        super().__init__()
        full = leaky(shape, spec)

        def active() -> nn.Module:
            return activation_module(full.activation)

        self.sees = nn.Sequential(encoder(shape, _FEATURES, full), active())
        self.reads = nn.Sequential(nn.Linear(latent, _FEATURES), active())
        self.joins = nn.Sequential(nn.Linear(2 * _FEATURES, _FEATURES), active())
        self.head = nn.Linear(_FEATURES, 1)

    def features(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the last hidden layer for samples (B, *shape) and codes (B, latent), (B, F)."""
        found: Tensor = self.joins(torch.cat([self.sees(x), self.reads(z)], 1))
        return found

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the logit of each pair, (B,); higher is more like a real sample with its code."""
        logit: Tensor = self.head(self.features(x, z)).squeeze(-1)
        return logit


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return half the sum of both cross-entropies of telling real from generated samples by their logits.

    Examples
    --------
    >>> round(float(discriminator_loss(torch.zeros(3), torch.zeros(3))), 4)
    0.6931
    """
    return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())


def generator_loss(fake: Tensor) -> Tensor:
    """Return the non-saturating loss of a generator: the cross-entropy of its samples being called real."""
    return F.softplus(-fake).mean()


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """Return how far the critic's slope is from 1 between real and generated samples, squared and averaged.

    Parameters
    ----------
    critic : callable
        (B, *shape) to (B,); it must treat every sample alone.
    real, fake : Tensor of shape (B, *shape)
        The slope is taken at one random point between each pair.

    Returns
    -------
    Tensor
        A scalar, differentiable in the critic's parameters.

    References
    ----------
    Gulrajani et al. (2017), Improved training of Wasserstein GANs, NeurIPS.

    Examples
    --------
    A plane of slope 3 is 2 too steep everywhere.

    >>> x = torch.randn(8, 2)
    >>> round(float(gradient_penalty(lambda v: 3.0 * v[:, 0], x, x + 1.0)), 4)
    4.0
    """
    share = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device, dtype=real.dtype)
    between = torch.lerp(real.detach(), fake.detach(), share).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    # the root has no slope at 0, where a critic that ignores its input sits
    length = (slope.flatten(1).square().sum(1) + 1e-12).sqrt()
    return (length - 1.0).square().mean()


def feature_distance(real: Tensor, fake: Tensor, p: Literal[1, 2] = 2) -> Tensor:
    """Return the mean absolute (p=1) or squared (p=2) difference of features (B, F), by sample, (B,)."""
    apart = (real - fake).abs() if p == 1 else (real - fake).square()
    return apart.flatten(1).mean(1)


class _AffineResidual(torch.autograd.Function):
    """Mean absolute value of ``hidden @ weight.T + offset`` by row, without keeping what is averaged.

    Its slope is the sign of what is left over, led back through the weight, which is taken along while a part of the
    rows is still in the processor's cache; the way back only scales it.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, offset: Tensor, spare: Tensor) -> Tensor:
        residual = offset.new_empty(len(offset))
        slope = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for begin in range(0, len(offset), spare.shape[1]):
            part = slice(begin, begin + spare.shape[1])
            apart, size = spare[:, : len(offset[part])]
            torch.addmm(offset[part], hidden[part], weight.t(), out=apart)
            torch.mean(torch.abs(apart, out=size), 1, out=residual[part])
            if slope is not None:
                torch.mm(torch.sign(apart, out=apart), weight, out=slope[part])
        ctx.slope, ctx.n = slope, offset.shape[1]
        return residual

    @staticmethod
    def backward(ctx: Any, *found: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.slope * (found[0] / ctx.n)[:, None], None, None, None


class DenseSearch:
    """How far samples and their features are from what codes give, for dense networks, with half of the arithmetic.

    A generator that ends in an affine layer and a critic that begins with one meet in a single affine map, from the
    last hidden layer of the one to the first of the other. It is multiplied out once a search, so that a step runs
    through the wide layer of the values once forth and once back, and not twice each. The results are those of
    running both networks, up to rounding.

    Parameters
    ----------
    generator : nn.Module
        Codes (B, latent) to samples (B, *shape); its parameters are frozen.
    critic : Critic
        The critic whose features are compared, frozen too.
    x : Tensor of shape (B, *shape)
        The samples searched for, without missing values.

    Raises
    ------
    InputError
        If the two do not meet in affine layers; ask :meth:`fits` first.

    Examples
    --------
    >>> generator = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 16), nn.Unflatten(1, (1, 4, 4)))
    >>> critic = Critic((1, 4, 4), Backbone("mlp", (5,)))
    >>> generator, critic = generator.requires_grad_(False), critic.requires_grad_(False)
    >>> x, codes = torch.zeros(6, 1, 4, 4), torch.randn(6, 2)
    >>> residual, apart = DenseSearch(generator, critic, x)(codes)
    >>> torch.allclose(residual, generator(codes).abs().mean((1, 2, 3)), atol=1e-5)
    True
    >>> made = critic.features(generator(codes))
    >>> torch.allclose(apart, feature_distance(critic.features(x), made, 1), atol=1e-5)
    True
    """

    def __init__(self, generator: nn.Module, critic: Critic, x: Tensor) -> None:
        parts = self._parts(generator, critic)
        if parts is None:
            raise InputError(
                "generator, critic: found networks that do not meet in affine layers around more values than the "
                "generator's last hidden layer; accepted are dense ones. Ask DenseSearch.fits first."
            )
        self.lead, self.last, first, self.rest = parts
        values = x.flatten(1)
        with torch.no_grad():
            self.weight = first.weight @ self.last.weight
            self.bias = first(self.last.bias)
            self.offset = self.last.bias - values
            self.features = critic.features(x)
        rows = min(len(x), max(1, _CACHED // values.shape[1]))
        self.spare = values.new_empty(2, rows, values.shape[1])

    @classmethod
    def fits(cls, generator: nn.Module, critic: Critic) -> bool:
        """Return whether the two meet in affine layers, around more values than the generator's last hidden layer."""
        return cls._parts(generator, critic) is not None

    @staticmethod
    def _parts(generator: nn.Module, critic: Critic) -> tuple[nn.Module, nn.Linear, nn.Linear, nn.Module] | None:
        if not isinstance(generator, nn.Sequential) or not isinstance(critic.body, nn.Sequential):
            return None
        # reshaping is dropped: a search works on flat values throughout
        makes = [part for part in generator if not isinstance(part, nn.Unflatten)]
        reads = [part for part in critic.body if not isinstance(part, nn.Flatten)]
        last, first = makes[-1], reads[0]
        if not isinstance(last, nn.Linear) or not isinstance(first, nn.Linear):
            return None
        if last.out_features != first.in_features or last.in_features >= last.out_features:
            return None
        return nn.Sequential(*makes[:-1]), last, first, nn.Sequential(*reads[1:])

    def __call__(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean absolute residuals of values and of features, each (B,), of codes (B, latent)."""
        hidden = self.lead(codes)
        residual: Tensor = _AffineResidual.apply(hidden, self.last.weight, self.offset, self.spare)
        made = self.rest(F.linear(hidden, self.weight, self.bias))
        # a sum, divided once a row: the slope of a mean is divided once a value
        return residual, (made - self.features).abs().sum(1) / made.shape[1]


def invert_latent(
    loss: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    steps: int,
    rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
    tolerance: float = -float("inf"),
) -> tuple[Tensor, Tensor, Tensor]:
    """Search the latent code of every row at once by Adam, each row as if it were alone.

    One tensor holds all codes and the rows' losses are added up before the gradient is taken, so that each row
    receives its own gradient; Adam works element by element, so its moments are each row's own as well. Nothing but
    the codes is differentiated: pass a loss through networks whose parameters are frozen.

    Parameters
    ----------
    loss : callable
        Codes (B, ...) to the loss of each row, (B,); a row's loss depends on its own code alone.
    start : Tensor of shape (B, ...)
        Where the searches begin.
    steps : int
        Steps of the search, at least 1.
    rate : float
        Adam's learning rate.
    betas : tuple of float, default=(0.9, 0.999)
        Decay of Adam's first and second moment; 0 for the first gives RMSprop with corrected bias.
    tolerance : float, default=-inf
        A row stops moving once its loss is at most this.

    Returns
    -------
    codes : Tensor of shape (B, ...)
        The code of least loss that each row met.
    losses : Tensor of shape (B,)
        Its loss.
    trace : Tensor of shape (steps + 1, B)
        The loss before each step and after the last; shorter when every row stopped early.

    Examples
    --------
    >>> target = torch.tensor([[1.0, 2.0], [-3.0, 0.5]])
    >>> codes, losses, trace = invert_latent(
    ...     lambda z: (z - target).square().sum(1), torch.zeros(2, 2), steps=200, rate=0.1
    ... )
    >>> bool((codes - target).abs().max() < 0.01), trace.shape
    (True, torch.Size([201, 2]))
    """
    z = start.detach().clone()
    row = (-1, *[1] * (z.ndim - 1))
    best, lowest = z, z.new_full((len(z),), float("inf"))
    first, second = torch.zeros_like(z), torch.zeros_like(z)
    trace = []
    for step in range(steps + 1):
        # nothing moves after the last step, so its loss needs no gradient
        point = z.detach().requires_grad_(step < steps)
        with torch.set_grad_enabled(step < steps):
            found = loss(point)
            if step < steps:
                (slope,) = torch.autograd.grad(found.sum(), point)
        found = found.detach()
        trace.append(found)
        better = found < lowest
        lowest = torch.where(better, found, lowest)
        best = torch.where(better.view(row), z, best)
        moving = lowest > tolerance
        if step == steps or not bool(moving.any()):
            break
        first = first.lerp(slope, 1 - betas[0])
        second = second.lerp(slope.square(), 1 - betas[1])
        # both moments start at zero, so the early ones are corrected for it
        root = (second / (1 - betas[1] ** (step + 1))).sqrt() + _TINY
        move = rate / (1 - betas[0] ** (step + 1)) * first / root
        z = torch.where(moving.view(row), z - move, z)
    return best, lowest, torch.stack(trace)
