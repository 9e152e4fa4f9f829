"""Score networks: the gradient of the log-density of noised samples, at any level of noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from genad.nn.backbone import Backbone, for_tables, translator
from genad.nn.embedding import TimeEmbedding

# Length of the embedding of a noise level.
_LEVEL = 64
# Log levels are stretched by this, or neighbouring ones would look alike to the embedding.
_STRETCH = 100.0
# Predicted noise is cut here, so that the squares of absurd inputs stay finite in float32; and what the network sees,
# since normalisation inside of it squares too. The linear part goes on beyond.
_LARGEST, _SEEN = 1e15, 1e4


class ScoreNet(nn.Module):
    """Predict the noise in samples, at any standard deviation of it: ``score = -noise / sigma``.

    The network learns what is left of the noise after that of a standard Gaussian is taken away. Without a look at
    the data it is thus right for standardised Gaussian samples, and far from all data its score points back with a
    strength that grows with the distance, where that of a plain network would be whatever it extrapolates to.

    Parameters
    ----------
    shape : tuple of int
        Shape of one sample.
    spec : Backbone, str or None, default=None
        Which network; it is told the logarithm of the noise level.
    tables : Backbone
        The network for rows of a table when ``spec`` is None.

    References
    ----------
    Karras, Aittala, Aila and Laine (2022), Elucidating the design space of diffusion-based generative models, NeurIPS.

    Examples
    --------
    >>> net = ScoreNet((3,))
    >>> net(torch.zeros(5, 3), torch.full((5,), 0.1)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        spec: Backbone | str | None = None,
        tables: Backbone = Backbone("mlp", (128, 128, 128), "silu"),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        self.level = nn.Sequential(TimeEmbedding(_LEVEL), nn.Linear(_LEVEL, _LEVEL), nn.SiLU())
        self.body = translator(shape, for_tables(shape, spec, tables), cond=_LEVEL)

    def condition(self, sigma: Tensor) -> Tensor:
        """Embed noise levels ``(B,)`` for the body."""
        found: Tensor = self.level(_STRETCH * sigma.log())
        return found

    def seen(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return noised samples as the body sees them: of about unit variance, and never absurdly large."""
        each = sigma.view(-1, *(1,) * (x.ndim - 1))
        return (x * (1 + each.square()).rsqrt()).clamp(-_SEEN, _SEEN)

    def noise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Estimate the standard normal noise in samples ``(B, *shape)`` noised at levels ``(B,)``, above 0."""
        each = sigma.view(-1, *(1,) * (x.ndim - 1))
        variance = 1 + each.square()
        rest = self.body(self.seen(x, sigma), self.condition(sigma))
        found: Tensor = (each / variance * x + variance.rsqrt() * rest).clamp(-_LARGEST, _LARGEST)
        return found

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the gradient of the log-density of noised samples, of the shape of ``x``."""
        return -self.noise(x, sigma) / sigma.view(-1, *(1,) * (x.ndim - 1))


def denoising_error(net: ScoreNet, x: Tensor, sigma: Tensor) -> Tensor:
    """Return ``(sigma score(x + sigma z, sigma) + z)^2`` of every value: denoising score matching, weighted by sigma^2.

    Parameters
    ----------
    net : ScoreNet
    x : Tensor
        Clean samples ``(B, *shape)``.
    sigma : Tensor
        Noise level of each sample ``(B,)``.

    Returns
    -------
    Tensor
        Of the shape of ``x``; near 1 on average for a network that knows nothing.

    References
    ----------
    Vincent (2011), A connection between score matching and denoising autoencoders, Neural Computation.
    """
    z = torch.randn_like(x)
    noised = x + sigma.view(-1, *(1,) * (x.ndim - 1)) * z
    return (net.noise(noised, sigma) - z).square()


def geometric_levels(low: float, high: float, count: int) -> Tensor:
    """Return ``count`` noise levels from ``high`` down to ``low`` in equal ratios.

    Examples
    --------
    >>> geometric_levels(0.01, 1.0, 3)
    tensor([1.0000, 0.1000, 0.0100])
    """
    return torch.logspace(0, 1, count, base=low / high, dtype=torch.float64).mul(high).float()


class DenoisingDescent(nn.Module):
    """Restore samples by a score network, moving each only as far as it is odder than normal ones are.

    At each noise level, from the highest, a sample goes towards its expected clean version by the part of the way
    that exceeds the typical one of training samples; those no odder than half of them stay where they are.

    Parameters
    ----------
    levels : sequence of float
        Noise levels, falling.

    Attributes
    ----------
    levels, typical : Tensor
        Buffers ``(L,)``: noise levels, and the median over training samples of the root mean squared noise
        estimated at each.
    """

    levels: Tensor
    typical: Tensor

    def __init__(self, levels: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("levels", torch.tensor(levels))
        self.register_buffer("typical", torch.ones(len(levels)))

    def learn(self, net: ScoreNet, x: Tensor, mean: Callable[[Tensor], Tensor]) -> None:
        """Take the typical lengths from training samples; ``mean`` averages over the observed values of each."""
        found = [mean(net.noise(x, sigma.expand(len(x))).square()).sqrt() for sigma in self.levels]
        self.typical = torch.stack([length.median() for length in found])

    def forward(self, net: ScoreNet, x: Tensor, mean: Callable[[Tensor], Tensor]) -> Tensor:
        """Return restored samples, of the shape of ``x``."""
        for sigma, typical in zip(self.levels, self.typical, strict=True):
            noise = net.noise(x, sigma.expand(len(x)))
            length = mean(noise.square()).sqrt().clamp_min(1e-12)
            excess = (1 - typical / length).clamp_min(0.0)
            x = x - sigma * excess.view(-1, *(1,) * (x.ndim - 1)) * noise
        return x
