"""DRAEM: a reconstruction and a segmenter that judges it, trained together on synthesised anomalies."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genad.core.registry import Card, Family, register
from genad.core.training import Training
from genad.data.kinds import Kind
from genad.nn.activation import activation_module
from genad.nn.conv import CONV, ResidualBlock, Upsampling, downsampling, pyramid
from genad.nn.segmentation import PixelFrame, Segmenter, focal_loss, map_window, smooth, top_mean
from genad.nn.structural import ssim_map
from genad.reconstruction.hybrid.segmenter import SynthesisDetector, SynthesisNet

_WIDEST = 64


def reconstructor_widths(size: tuple[int, ...]) -> tuple[int, ...]:
    """Choose the widths of a reconstructor: one for every halving down to about 4 px, doubling up to 64.

    Examples
    --------
    >>> reconstructor_widths((64, 64)), reconstructor_widths((32, 32)), reconstructor_widths((8, 8))
    ((8, 16, 32, 64), (16, 32, 64), (64,))
    """
    depth = max(1, min(4, max(size).bit_length() - 3))
    return tuple(max(8, _WIDEST >> level) for level in reversed(range(depth)))


class Reconstructor(nn.Module):
    """Encoder and decoder without skip connections: (B, C, *size) -> (B, C, *size) through a coarse grid of codes.

    Parameters
    ----------
    channels : int
    size : tuple of int
        Rows and columns, any.
    widths : tuple of int, optional
        Channels by level, from half resolution on; :func:`reconstructor_widths` when absent.

    Examples
    --------
    >>> Reconstructor(1, (12, 9))(torch.zeros(2, 1, 12, 9)).shape
    torch.Size([2, 1, 12, 9])
    """

    def __init__(self, channels: int, size: tuple[int, ...], widths: tuple[int, ...] | None = None) -> None:
        super().__init__()
        widths = widths or reconstructor_widths(size)
        sizes = pyramid(size, len(widths))
        down: list[nn.Module] = []
        for before, after, at in zip((channels, *widths[:-1]), widths, sizes[:-1], strict=True):
            down += [downsampling(before, after, at, None), ResidualBlock(after, after, 2, "silu")]
        up: list[nn.Module] = []
        for (after, before), at in reversed(list(zip(itertools.pairwise(widths), sizes[1:-1], strict=True))):
            up += [Upsampling(before, after, at, None), ResidualBlock(after, after, 2, "silu")]
        last = max(8, widths[0] // 2)
        up += [
            Upsampling(widths[0], last, size, "silu"),
            activation_module("silu"),
            CONV[2](last, channels, 3, padding=1),
        ]
        self.encode, self.decode = nn.Sequential(*down), nn.Sequential(*up)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct a batch."""
        restored: Tensor = self.decode(self.encode(x))
        return restored


@register(
    Card(
        title="DRAEM: a discriminatively trained reconstruction embedding for surface anomaly detection",
        authors="Zavrtanik, Kristan, Skocaj",
        venue="ICCV",
        year=2021,
        family=Family.AUTOENCODER,
        kinds=(Kind.IMAGE,),
        row="2.1-02",
        summary="Repair synthesised anomalies, and segment what differs between an image and its repair.",
        tags=("synthesis", "segmentation", "perlin", "self-supervised"),
    ),
    name="draem",
)
@dataclass(eq=False, repr=False)
class DRAEM(SynthesisDetector):
    """Repair synthesised anomalies and segment them by what was repaired: the score is the peak of the smoothed map.

    A network without skip connections learns to undo what a synthesizer did to an image, by ``MSE + (1 - SSIM)`` on
    pixel values of 0 to 1. A U-Net sees the repaired image beside the given one and predicts the mask by the focal
    loss. Both are trained together, and the gradient of the mask reaches the repair. The score is the largest mean
    probability in a window of 21 px in 256, the map the probability, the restored image the repair where the
    probability is not small.

    Defaults are sized for a processor: 32 px inside and widths from 16, against 256 px and widths of 64 and 128 in the
    paper; one learning rate on a cosine. The textures of the anomalies are those of the synthesizer: without a bank
    of photographs half of them are other normal images, strongly changed, which is a weaker stand-in.

    **When to use.** Surfaces with local defects, when both a mask and the repaired image are wanted. Image AUROC on
    magnetic tiles 0.733 (pixel AUROC 0.732), on solar cells (ELPV, 400 updates) 0.742, on brain slices 0.817, against
    0.658, 0.676 and 0.793 of pixel PCA in the same runs; images of 64 px, one seed.

    **When it fails.** What no synthesised anomaly resembles: missing parts, faint changes over a wide area. Detail
    finer than the bottleneck is smoothed where the image is repaired. On tiles with synthesised Perlin defects 0.27 of
    the error inside them was left, and 0.011 of the range outside; on the varied brain slices 0.49 and 0.054; of pasted
    patches of the tile itself, which it was not trained on, 0.72 was left. Image AUROC at 32 px, one seed: 0.744 on
    magnetic_tile (pixels 0.735), 0.751 on elpv, 0.808 on brain_mri, but 0.677 on MNIST one against the rest, for
    another digit is no defect of the kind it was shown; pixel PCA has 0.640, 0.668, 0.779 and 0.943.

    Parameters
    ----------
    synthesizer : Synthesizer or str
        What makes the anomalies: a name such as ``"perlin_texture"`` or ``"cut_paste"``, or an object; give
        :class:`~genad.synthesis.perlin_texture.PerlinTexture` a bank of photographs where there is one.
    resolution : int
        Longest side in pixels that is worked at, at least 8; larger images are averaged down to it.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Conformal, Training
    >>> rng = np.random.default_rng(0)
    >>> ramp = np.linspace(0.2, 0.6, 16) * rng.uniform(0.8, 1.2, (80, 1, 1, 1)) * np.ones((16, 1))
    >>> X = ramp + 0.01 * rng.normal(size=ramp.shape)
    >>> detector = DRAEM(training=Training(updates=50), threshold=Conformal(0.1)).fit(X)
    >>> stained = X[:2].copy()
    >>> stained[1, 0, 4:10, 2:8] = 0.95
    >>> detector.predict(stained)
    array([ 1, -1])
    >>> inside = np.abs(detector.restore(stained) - X[:2])[1, 0, 4:10, 2:8].mean()
    >>> bool(inside < 0.5 * np.abs(stained - X[:2])[1, 0, 4:10, 2:8].mean())
    True

    References
    ----------
    Zavrtanik, Kristan and Skocaj, DRAEM - a discriminatively trained reconstruction embedding for surface anomaly
    detection, ICCV 2021.
    """

    defaults = Training(epochs=14, min_updates=300, max_updates=2000, batch_size=16, lr=2e-3, warmup=20, clip=1.0)

    def networks(self, frame: PixelFrame, channels: int) -> SynthesisNet:
        """Make the reconstructive network, and the discriminative one that sees its output beside its input."""
        return SynthesisNet(frame, Segmenter(2 * channels, frame.size), Reconstructor(channels, frame.size))

    def _judge(self, net: Any, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities and reconstructions of standardised images."""
        restored = net.generate(z)
        return torch.sigmoid(net.segment(torch.cat([restored, z], 1))), restored

    def pair_loss(self, net: Any, clean: Tensor, seen: Tensor, mask: Tensor) -> Tensor:
        """Return ``MSE + (1 - SSIM)`` of the repair, on pixel values, plus the focal loss of the mask."""
        p, restored = self._judge(net, seen)
        wanted, got = net.frame.pixels(clean), net.frame.pixels(restored)
        repair = (got - wanted).square().mean() + 1 - ssim_map(got, wanted).mean()
        return repair + focal_loss(p, mask).mean()

    def examine(self, net: Any, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities and reconstructions."""
        return self._judge(net, z)

    def image_score(self, p: Tensor) -> Tensor:
        """Return the largest smoothed probability."""
        return top_mean(smooth(p, map_window((p.shape[2], p.shape[3]))), 0.0)
