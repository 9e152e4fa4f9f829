"""CutPaste: a piece of the image, cut out, jittered in colour and pasted elsewhere; and its thin turned variant."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genad.core.parameters import check_number, check_span
from genad.data.kinds import Kind
from genad.synthesis.augment import colour_jitter
from genad.synthesis.base import Draft, SynthesisCard, Synthesizer, register_synthesizer
from genad.synthesis.masks import sample_at, turned_boxes
from genad.synthesis.noise import uniform

# The image size, in pixels, that the scar's size in pixels was given for.
_REFERENCE = 256


@register_synthesizer(
    SynthesisCard(
        title="CutPaste: Self-Supervised Learning for Anomaly Detection and Localization",
        authors="C.-L. Li, K. Sohn, J. Yoon, T. Pfister",
        venue="CVPR",
        year=2021,
        kinds=(Kind.IMAGE,),
        row="2.1-A1",
        summary="A patch or a thin scar of the image itself, pasted elsewhere.",
    )
)
@dataclass(eq=False, repr=False)
class CutPaste(Synthesizer):
    """Cut a patch out of the image and paste it somewhere else.

    A patch has a random area and aspect; a scar is thin and turned. The colours of the piece, not of the image, are
    jittered after it is cut, and it never lands where it came from. Needs no fit.

    Parameters
    ----------
    scar : float
        Share of scars among the samples, 0..1; the rest are patches.
    area : tuple of float
        Smallest and largest area of a patch, as a share of the image.
    aspect : float
        Height over width of a patch is log-uniform from ``aspect`` to ``1 / aspect``; in (0, 1].
    jitter : float
        Strength of the change of brightness, contrast, saturation and hue; greys take the first two. 0 for none.
    scar_width, scar_height : tuple of float
        Range of a scar's sides in pixels at an image of 256 px; scaled to the image at hand, at least 1 px.
    turn : float
        Largest turn of a scar to either side, in degrees.

    Notes
    -----
    When to use: a strong default for textures and objects alike, with no data but the normal images; about 0.4 ms an
    image of 64 px.

    When it fails: on uniform surfaces a pasted piece hardly differs from what it covers (the mask is then only the
    part that differs); the pieces have hard, straight edges, which a segmenter may learn instead of defects.

    The paper trains a classifier of {normal, patch, scar} and scores with a Gaussian on its features; this class is
    the synthesizer, and ``meta`` names the class of every sample.

    References
    ----------
    Li, Sohn, Yoon and Pfister, "CutPaste: Self-supervised learning for anomaly detection and localization",
    CVPR 2021.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).random((4, 3, 32, 32))
    >>> made = CutPaste().synthesize(X, 6)
    >>> made.samples.shape, made.masks.shape, bool(made.masks.any(axis=(1, 2)).all())
    ((6, 3, 32, 32), (6, 32, 32), True)
    >>> made.meta[0]["method"]
    'cut_paste'
    """

    scar: float = 0.5
    area: tuple[float, float] = (0.02, 0.15)
    aspect: float = 0.3
    jitter: float = 0.1
    scar_width: tuple[float, float] = (2.0, 16.0)
    scar_height: tuple[float, float] = (10.0, 25.0)
    turn: float = 45.0

    words: ClassVar[dict[str, tuple[str, ...]]] = {"kind": ("patch", "scar")}

    def check_parameters(self) -> None:
        """Refuse shares outside 0..1, sides that are not ranges, and the like."""
        check_number(self, "scar", "[0, 1]")
        check_number(self, "aspect", "(0, 1]")
        check_number(self, "jitter", "[0, 1]")
        check_number(self, "turn", "[0, 180]")
        for name, most in (("area", 1.0), ("scar_width", math.inf), ("scar_height", math.inf)):
            check_span(self, name, most)

    def draft(self, x: Tensor, generator: torch.Generator) -> Draft:
        """Draw a patch or a scar for each image."""
        batch, _, height, width = x.shape
        scar = uniform((batch,), 0, 1, generator) < self.scar
        half, angle = self._sides(scar, height, width, generator)
        # The turned piece must fit at both ends, so its upright extent bounds the centres.
        cos, sin = angle.cos().abs(), angle.sin().abs()
        reach = torch.stack([cos * half[:, 0] + sin * half[:, 1], sin * half[:, 0] + cos * half[:, 1]], 1)
        size = torch.tensor([height, width], device=reach.device, dtype=reach.dtype)
        reach = torch.minimum(reach, size / 2)
        room = size - 2 * reach
        target = reach + room * uniform((batch, 2), 0, 1, generator)
        origin = reach + room * uniform((batch, 2), 0, 1, generator)
        # Whole-pixel moves keep the piece sharp; a move of nothing at all is turned into a move of one pixel.
        shift = (origin - target).round()
        still = (shift == 0).all(1)
        shift[still, 1] = torch.where(target[still, 1] < size[1] / 2, 1.0, -1.0)
        target, shift, half, angle = (value.to(x.device) for value in (target, shift, half, angle))
        region, along = turned_boxes(height, width, target, half, angle)
        # The piece is cut upright and turned as it is pasted, so its own frame says where each pixel comes from.
        start = (target + shift)[:, :, None, None] + along
        piece = sample_at(x, start[:, 0], start[:, 1])
        piece = colour_jitter(piece, region, self.jitter, generator)
        drawn = {
            "kind": scar.long().to(x.device),
            "centre": target,
            "sides": 2 * half,
            "degrees": torch.rad2deg(angle),
            "moved": -shift,
        }
        return Draft(piece, region, drawn)

    def _sides(self, scar: Tensor, height: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw half sides (B, 2), rows before columns, and angles (B,)."""
        batch = (len(scar),)
        area = uniform(batch, *self.area, generator) * height * width
        spread = -math.log(self.aspect)
        ratio = uniform(batch, -spread, spread, generator).exp()
        patch = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1)
        scale = min(height, width) / _REFERENCE
        wide = scale * uniform(batch, *self.scar_width, generator)
        tall = scale * uniform(batch, *self.scar_height, generator)
        sides = torch.where(scar[:, None], torch.stack([tall, wide], 1), patch).clamp_min(1.0)
        turn = torch.deg2rad(uniform(batch, -self.turn, self.turn, generator))
        return sides / 2, torch.where(scar, turn, 0.0)
