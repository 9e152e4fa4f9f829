"""A memory of whole normal images by their pooled features."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from genad.core.nearest import RemembersNormals
from genad.core.parameters import check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.data.kinds import Kind
from genad.data.samples import Batch, Samples
from genad.density.features import FeatureNet, FrozenFeatures, Maps, align
from genad.density.position_gaussian import SharedGaussian

# Whitened distances below this are those of an image to itself, up to rounding.
_EQUAL = 1e-2


class FeatureMemoryNet(FeatureNet):
    """Whitened pooled features of normal images, (n, C)."""

    rows: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.gaussian = SharedGaussian()
        self.register_buffer("rows", torch.zeros(0))


@register(
    Card(
        title="Nearest normal images by pooled features of a frozen network",
        authors="Bergman, Cohen, Hoshen",
        venue="arXiv",
        year=2020,
        family=Family.MEMORY,
        kinds=(Kind.IMAGE,),
        summary="Remember pooled features of normal images and score the whitened distance to the nearest.",
        tags=("features", "knn", "baseline"),
    )
)
@dataclass(eq=False, repr=False)
class FeatureMemory(RemembersNormals, FrozenFeatures):
    """Score an image by the mean distance of its pooled features to those of the k nearest normal images.

    The maps of stages 3, 5 and 7 of EfficientNet-Lite0 are averaged over the image, scaled by their spread and
    whitened by a shrunk covariance: directions in which normal images hardly differ count as much as those in which
    they differ most. ``shrink=1`` leaves the plain scaled features. One remembered image that equals the one being
    judged does not count, so that the memory can judge the very images it was fitted on. :meth:`nearest` and
    explanations name the nearest images.

    The squared distance to the nearest image is linear in the features at each place, given the difference; the map
    is that share of each place, of at least 0. It says which places make the image unlike the nearest, not where
    single pixels are wrong.

    **When to use.** Images that are anomalous as a whole, or whose parts are not at fixed places; small data. AUROC of
    images at 128 px: 0.929 on magnetic tiles (pixels 0.816), 0.914 on solar cells; in a trial with ``shrink=1``,
    without whitening, 0.889 and 0.898. The whitening was chosen with these scores in view.

    **When it fails.** Small defects drown in the average over the image. Normal images of many kinds with few of
    each. The map is coarse, 16 px a place, and the weakest of the feature methods.

    Parameters
    ----------
    neighbours : int
        How many neighbours are averaged, at least 1.
    shrink : float
        Share of the identity in the covariance, in (0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Conformal
    >>> rng = np.random.default_rng(0)
    >>> X = np.sin(np.arange(32) / 3) * 0.3 + 0.5 + 0.05 * rng.normal(size=(60, 1, 32, 32))
    >>> detector = FeatureMemory(threshold=Conformal(0.1)).fit(X)
    >>> scores = detector.anomaly_score(np.concatenate([X[:1].swapaxes(2, 3), X[:1]]))
    >>> bool(scores[0] > 2 * scores[1])
    True

    References
    ----------
    Bergman, Cohen and Hoshen (2020), Deep nearest neighbor anomaly detection, arXiv 2002.10445.
    """

    neighbours: int = 3
    shrink: float = field(default=0.1, kw_only=True)

    stages = (3, 5, 7)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "neighbours")
        check_number(self, "shrink", "(0, 1]")

    def build(self, shape: tuple[int, ...]) -> nn.Module:  # noqa: ARG002 - the images are brought to one size
        """Make an empty memory."""
        return FeatureMemoryNet()

    def _pooled(self, maps: Maps) -> Tensor:
        return torch.cat([maps[stage].mean((2, 3)) for stage in self.stages], 1)

    def learn(self, net: Any, maps: Maps) -> None:
        """Whiten the pooled features and remember them."""
        pooled = self._pooled(maps)
        net.gaussian.fit(pooled, self.shrink)
        net.rows = net.gaussian(pooled)

    def finish(self, net: Any, samples: Samples) -> None:
        """Learn, and note which images are remembered."""
        super().finish(net, samples)
        self.remember(samples, self.learnt_from(samples))

    def near(self, net: Any, batch: Batch, k: int) -> tuple[Tensor, Tensor]:
        """Return distances and numbers of the nearest remembered images, in units of the score."""
        code = net.gaussian(self._pooled(self.features(net, batch)))
        return self._nearest_rows(net, code, k)

    def _nearest_rows(self, net: Any, code: Tensor, k: int) -> tuple[Tensor, Tensor]:
        # Direct differences: products would cancel where an image is compared with itself.
        distance = torch.cdist(code, net.rows, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distance.topk(min(k + 1, distance.shape[1]), largest=False)
        first = (nearest.values[:, :1] < _EQUAL).long()
        last = nearest.values.shape[1] - 1
        kept = (first + torch.arange(min(k, last + 1), device=code.device)).clamp(max=last)
        return nearest.values.gather(1, kept) / code.shape[1] ** 0.5, nearest.indices.gather(1, kept)

    def judge(self, net: Any, maps: Maps) -> tuple[Tensor, Tensor]:
        """Return mean distances to the nearest images, and the share of each place in the distance to the nearest."""
        pooled = self._pooled(maps)
        code = net.gaussian(pooled)
        distance, index = self._nearest_rows(net, code, self.neighbours)
        score, unit = distance.mean(1), code.shape[1] ** 0.5
        difference = code - net.rows[index[:, 0]]
        length = torch.linalg.vector_norm(difference, dim=1, keepdim=True)
        slope = difference @ net.gaussian.whitener.T / length.clamp_min(_EQUAL)
        parts = align(maps, self.stages, self.grid(5)) @ slope[:, :, None]
        parts = parts[:, :, 0] - (pooled * slope).sum(1, keepdim=True) + length
        return score, (parts.clamp_min(0.0) / unit).unflatten(1, (self.grid(5), self.grid(5)))
