"""A memory of normal patches by their features."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from genad.core.nearest import RemembersNormals
from genad.core.parameters import check_choice, check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.data.kinds import Kind
from genad.data.samples import Batch, Samples
from genad.density.features import FeatureNet, FrozenFeatures, Maps, align
from genad.density.position_gaussian import SharedGaussian

# Patches among which the core set is sought, and the dimensions it is sought in.
_CANDIDATES = 20_000
_PROJECTED = 32


class PatchMemoryNet(FeatureNet):
    """Whitened patch features (m, C), and which remembered patches lie around each (m, b)."""

    rows: Tensor
    around: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.gaussian = SharedGaussian()
        self.register_buffer("rows", torch.zeros(0))
        self.register_buffer("around", torch.zeros(0, dtype=torch.int32))


@register(
    Card(
        title="Towards total recall in industrial anomaly detection",
        authors="Roth, Pemula, Zepeda, Schoelkopf, Brox, Gehler",
        venue="CVPR",
        year=2022,
        family=Family.MEMORY,
        kinds=(Kind.IMAGE,),
        summary="Remember a core set of normal patch features and score the distance to the nearest.",
        tags=("features", "patchcore", "knn"),
    )
)
@dataclass(eq=False, repr=False)
class PatchMemory(RemembersNormals, FrozenFeatures):
    """Score an image by the distances of its patches to the nearest remembered normal patch, wherever that was.

    The maps of stages 3 and 5 of EfficientNet-Lite0 are averaged over 3 x 3 places, brought to the grid of stage 5,
    16 px a place, scaled and whitened by a shrunk covariance. Of all normal patches a core set is remembered: picked
    greedily so that no patch is far from it, or at random. The score is the mean distance of the most distant share
    ``top`` of the patches; a share below one patch takes the most distant alone, as the paper does. With
    ``reweight`` a patch counts less where the remembered patches around its nearest are about as near, as the paper
    has it. :meth:`nearest` and explanations name the images that hold the patches nearest to the most distant one.

    **When to use.** Textures, and objects that move about in the image: a patch is normal wherever it is. AUROC of
    images at 128 px: 0.912 on magnetic tiles (pixels 0.836), 0.887 on solar cells, 0.843 on brain slices. In a trial
    with 1,000 patches ``coreset="random"`` had 0.824 and 0.874 on the first two, and the default 0.891 on both. Core
    set and ``top`` were chosen with these scores in view.

    **When it fails.** A normal patch at the wrong place goes unnoticed; where parts have fixed places PaDiM is
    better. Patches that came along in anomalous training images are remembered too. Smaller defects than about half
    a patch, 8 px of the ``resolution``.

    Parameters
    ----------
    size : int
        Patches remembered, at least 1; a search costs in proportion.
    coreset : {"greedy", "random"}
        How they are picked.
    top : float
        Share of the patches that the score averages, in (0, 1].
    shrink : float
        Share of the identity in the covariance, in (0, 1].
    reweight : int
        Remembered patches around the nearest that weigh the distance; 0 leaves it alone.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Conformal
    >>> rng = np.random.default_rng(0)
    >>> X = np.sin(np.arange(32) / 3) * 0.3 + 0.5 + 0.05 * rng.normal(size=(60, 1, 32, 32))
    >>> detector = PatchMemory(size=200, threshold=Conformal(0.1)).fit(X)
    >>> X[0, 0, 12:20, 12:20] = 0.0
    >>> scores = detector.anomaly_score(X[:2])
    >>> bool(scores[0] > 2 * scores[1])
    True

    References
    ----------
    Roth, Pemula, Zepeda, Schoelkopf, Brox and Gehler (2022), Towards total recall in industrial anomaly detection,
    CVPR.
    """

    size: int = 2000
    coreset: Literal["greedy", "random"] = field(default="greedy", kw_only=True)
    top: float = field(default=0.1, kw_only=True)
    shrink: float = field(default=0.05, kw_only=True)
    reweight: int = field(default=0, kw_only=True)

    stages = (3, 5)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "size")
        check_choice(self, "coreset", ("greedy", "random"))
        check_number(self, "top", "(0, 1]")
        check_number(self, "shrink", "(0, 1]")
        check_whole(self, "reweight", low=0)

    def build(self, shape: tuple[int, ...]) -> nn.Module:  # noqa: ARG002 - the images are brought to one size
        """Make an empty memory."""
        return PatchMemoryNet()

    def learn(self, net: Any, maps: Maps) -> None:
        """Whiten the patches and remember a core set of them."""
        patches = align(maps, self.stages, self.grid(5)).flatten(0, 1)
        net.gaussian.fit(patches, self.shrink)
        generator = torch.Generator().manual_seed(self.seed_)
        order = torch.randperm(len(patches), generator=generator)[: max(_CANDIDATES, self.size)]
        candidates = net.gaussian(patches[order.to(patches.device)])
        picked = torch.arange(min(self.size, len(candidates)))
        if self.coreset == "greedy" and len(candidates) > self.size:
            projection = torch.randn(candidates.shape[1], _PROJECTED, generator=generator)
            picked = farthest_first(candidates @ projection.to(candidates.device), self.size).cpu()
        net.rows = candidates[picked.to(candidates.device)]
        self._owners = order[picked] // self.grid(5) ** 2
        near = min(self.reweight + 1, len(net.rows))
        parts = [torch.cdist(part, net.rows).topk(near, largest=False).indices for part in net.rows.split(1024)]
        net.around = torch.cat(parts).to(torch.int32)

    def finish(self, net: Any, samples: Samples) -> None:
        """Learn, and note which image each remembered patch is from."""
        super().finish(net, samples)
        self.remember(samples, self.learnt_from(samples)[self.__dict__.pop("_owners")])

    def near(self, net: Any, batch: Batch, k: int) -> tuple[Tensor, Tensor]:
        """Return distances from the most distant patch to the nearest ones of different images, and their numbers."""
        side = self.grid(5)
        maps = self.features(net, batch)
        hottest = self.judge(net, maps)[1].flatten(1).argmax(1)
        patches = net.gaussian(align(maps, self.stages, side))[torch.arange(len(batch)), hottest]
        distance = torch.cdist(patches, net.rows, compute_mode="donot_use_mm_for_euclid_dist")
        # Of the patches of one image the nearest counts; any of them stands for the image.
        _, first, owner = np.unique(self.memory_units_, return_index=True, return_inverse=True)
        image = torch.from_numpy(owner).to(distance.device).expand_as(distance)
        least = distance.new_full((len(batch), len(first)), torch.inf).scatter_reduce(1, image, distance, "amin")
        nearest = least.topk(min(k, len(first)), largest=False)
        number = torch.from_numpy(first).to(distance.device)[nearest.indices]
        return nearest.values / net.rows.shape[1] ** 0.5, number

    def judge(self, net: Any, maps: Maps) -> tuple[Tensor, Tensor]:
        """Return the mean of the largest distances, and all of them."""
        side, unit = self.grid(5), net.rows.shape[1] ** 0.5
        patches = net.gaussian(align(maps, self.stages, side))
        # |p|^2 - 2 p m + |m|^2, of which the first term does not decide which patch is nearest.
        rest = torch.addmm(net.rows.square().sum(1), patches.flatten(0, 1), net.rows.T, alpha=-2.0)
        least, index = rest.min(1)
        heat = (least.view(len(patches), -1) + patches.square().sum(2)).clamp_min(0.0).sqrt() / unit
        if self.reweight:
            around = net.rows[net.around[index].long()]
            distances = torch.linalg.vector_norm(patches.flatten(0, 1)[:, None] - around, dim=2) / unit
            share = distances.softmax(1)[:, 0] if distances.shape[1] > 1 else torch.zeros_like(distances[:, 0])
            heat = heat * (1.0 - share).view_as(heat)
        score = heat.topk(max(1, int(self.top * heat.shape[1])), 1).values.mean(1)
        return score, heat.unflatten(1, (side, side))


def farthest_first(points: Tensor, n: int) -> Tensor:
    """Return the numbers of ``n`` points, each the farthest from those before it; the first is the first point.

    Parameters
    ----------
    points : Tensor of shape (m, D)
        With m of at least ``n``.
    n : int

    Examples
    --------
    >>> farthest_first(torch.tensor([[0.0], [1.0], [9.0], [10.0]]), 3)
    tensor([0, 3, 1])
    """
    squares = points.square().sum(1)
    chosen = torch.zeros(n, dtype=torch.long, device=points.device)
    gap = torch.full_like(squares, torch.inf)
    for step in range(1, n):
        last = chosen[step - 1]
        gap = torch.minimum(gap, squares + squares[last] - 2.0 * (points @ points[last]))
        chosen[step] = gap.argmax()
    return chosen
