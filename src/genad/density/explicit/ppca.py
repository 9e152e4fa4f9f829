"""Probabilistic principal components: the linear Gaussian generative model, in closed form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from genad.core.detector import Detector
from genad.core.inference import Inference, Want
from genad.core.parameters import check_number
from genad.core.registry import Card, Family, register
from genad.data.kinds import DENSE
from genad.data.samples import Batch, Samples, everything

# More samples sharpen the axes no further, and the cost of the decomposition grows with the square.
_MOST_SAMPLES = 4000


class PPCANet(nn.Module):
    """Mean, principal axes, variances along them, and the noise variance, as buffers."""

    mean: Tensor
    axes: Tensor
    variances: Tensor
    noise: Tensor

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dimension))
        self.register_buffer("axes", torch.zeros(0, dimension))
        self.register_buffer("variances", torch.zeros(0))
        self.register_buffer("noise", torch.ones(()))


@register(
    Card(
        title="Probabilistic principal component analysis",
        authors="Tipping, Bishop",
        venue="JRSS B",
        year=1999,
        family=Family.LINEAR,
        kinds=DENSE,
        summary="A linear Gaussian model in closed form; scores the Mahalanobis distance under it.",
        tags=("pca", "baseline", "linear"),
    )
)
@dataclass(eq=False, repr=False)
class PPCA(Detector):
    """Score a sample by its squared Mahalanobis distance under x = W z + mean + noise, per value.

    Inside the principal subspace a sample is measured against the variance along each axis, outside it against one
    noise variance. Both terms matter: the residual alone misses samples that lie in the subspace but far out.

    **When to use.** Windows of series whose channels move together, spectra, and any data that a linear model fits;
    it has no training to speak of. It is one of the three members of the default series detector.

    **When it fails.** Several clusters, curved manifolds, or heavy tails: one Gaussian cannot follow them. Missing
    values stand at the training mean.

    Parameters
    ----------
    keep : float
        Share of the variance that the principal axes explain, in (0, 1).
    floor : float
        Smallest noise variance, in units of the features' variance, above 0.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(size=(600, 1))
    >>> X = np.hstack([z, 2 * z]) + 0.1 * rng.normal(size=(600, 2))
    >>> detector = PPCA(keep=0.9).fit(X)
    >>> detector.anomaly_score([[1.0, 2.0], [1.0, -2.0]]).round().tolist()
    [1.0, 156.0]

    References
    ----------
    Tipping and Bishop, Probabilistic principal component analysis, Journal of the Royal Statistical Society B, 1999.
    """

    keep: float = 0.98
    floor: float = field(default=1e-3, kw_only=True)

    stackable = False

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number(self, "keep", "(0, 1)")
        check_number(self, "floor", "(0, inf)")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make a model of nothing yet."""
        return PPCANet(int(torch.Size(shape).numel()))

    def phases(self, net: nn.Module) -> list[Any]:  # noqa: ARG002 - there is nothing to optimise
        """Return no phases: the maximum of the likelihood has a closed form."""
        return []

    def finish(self, net: Any, samples: Samples) -> None:
        """Decompose the covariance; through the Gram matrix when samples are fewer than values."""
        x = everything(samples, torch.device(self.device_), _MOST_SAMPLES).x.flatten(1).double()
        n, dimension = x.shape
        net.mean = x.mean(0).float()
        x = x - x.mean(0)
        if n < dimension:
            values, vectors = torch.linalg.eigh(x @ x.T / n)
            values = values.flip(0).clamp_min(0)
            axes = (vectors.flip(1).T @ x) / (values * n).clamp_min(1e-12).sqrt()[:, None]
        else:
            values, vectors = torch.linalg.eigh(x.T @ x / n)
            values, axes = values.flip(0).clamp_min(0), vectors.flip(1).T
        total = values.sum().clamp_min(1e-12)
        kept = min(int((values.cumsum(0) / total < self.keep).sum()) + 1, len(values))
        rest = values[kept:].sum() / max(1, dimension - kept)
        net.noise = rest.clamp_min(self.floor).float()
        net.axes = axes[:kept].float().contiguous()
        net.variances = values[:kept].clamp_min(float(net.noise)).float()

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Compute the distance, its parts by value, and the projection."""
        flat = batch.x.flatten(1) - net.mean
        code = flat @ net.axes.T
        inside = code @ net.axes
        outside = flat - inside
        size = flat.shape[1]
        far = (code.square() / net.variances).sum(1)
        score = (outside.square().sum(1) / net.noise + far) / size
        if not want:
            return Inference(score)
        # A sample far out in the subspace is drawn in to the ellipsoid of typical normal samples.
        limit = 3.0 * max(1, code.shape[1]) ** 0.5
        pull = (limit / far.clamp_min(1e-12).sqrt()).clamp(max=1.0)[:, None]
        restored = (inside * pull + net.mean).view_as(batch.x)
        parts = outside.square() / net.noise + (code / net.variances) @ net.axes * flat
        parts = batch.keep_observed(parts.clamp_min(0).view_as(batch.x))
        return Inference(score, parts, restored)
