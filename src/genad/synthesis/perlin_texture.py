"""Perlin regions filled with foreign textures: the anomalies DRAEM is trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from genad.core.parameters import check_number, check_whole
from genad.data.kinds import Kind
from genad.errors import InputError
from genad.synthesis.augment import CHANGES, strong_augment
from genad.synthesis.base import Draft, SynthesisCard, Synthesizer, register_synthesizer
from genad.synthesis.blend import alpha
from genad.synthesis.masks import foreground, perlin_mask
from genad.synthesis.noise import uniform
from genad.synthesis.textures import TextureBank, procedural


@register_synthesizer(
    SynthesisCard(
        title="DRAEM - A discriminatively trained reconstruction embedding for surface anomaly detection",
        authors="V. Zavrtanik, M. Kristan, D. Skocaj",
        venue="ICCV",
        year=2021,
        kinds=(Kind.IMAGE,),
        row="2.1-A2",
        summary="Regions of thresholded Perlin noise, filled with augmented foreign textures at random opacity.",
    )
)
@dataclass(eq=False, repr=False)
class PerlinTexture(Synthesizer):
    """Fill regions of thresholded Perlin noise with strongly augmented textures.

    With M the region, A the texture and b the transparency drawn for a sample, the result is
    ``(1 - M) x + M ((1 - b) A + b x)``.

    Parameters
    ----------
    textures : path, sequence of paths or array of shape (n, C, H, W), optional
        Pictures unrelated to the product. Without them the textures are half other normal images (those of
        :meth:`fit`, else of the same batch) and half drawn by formula; ``meta`` says which.
    transparency : tuple of float
        Range of b, within 0..1.
    threshold : float
        Where the noise, in about -1..1, becomes the region.
    exponents : int
        The noise has 2**k cells along an axis, k from 0 to ``exponents - 1``.
    smallest_cell : float
        Pixels of the smallest cell allowed; the paper's 256 px and 32 cells come to 8.
    changes : int
        How many of ten changes of colour and shape a texture is put through.
    on_object : bool
        Keep the region on the object, found by Otsu's threshold, as MemSeg and RealNet do.

    Notes
    -----
    When to use: to train a segmenter that should find anything out of place; the anomalies are far from real ones
    but cover a wide range of shapes, sizes and contrasts. About 1.5 ms an image of 64 px.

    When it fails: on faint defects, since most textures differ strongly; a segmenter trained on nothing else misses
    low-contrast ones. Self-sourced textures resemble the product more than photographs of other surfaces would.

    The paper leaves half of the images as they are and turns some at random; both belong to the training loop that
    uses this class, whose promise is that nothing changes outside the mask.

    References
    ----------
    Zavrtanik, Kristan and Skocaj, "DRAEM - A discriminatively trained reconstruction embedding for surface anomaly
    detection", ICCV 2021.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).random((4, 1, 32, 32)).astype(np.float32)
    >>> made = PerlinTexture().fit(X).synthesize(X, 3)
    >>> made.samples.dtype, sorted({m["texture"] for m in made.meta}) != []
    (dtype('float32'), True)
    """

    textures: Any = None
    transparency: tuple[float, float] = (0.0, 0.8)
    threshold: float = 0.5
    exponents: int = 6
    smallest_cell: float = 4.0
    changes: int = 3
    on_object: bool = False

    words: ClassVar[dict[str, tuple[str, ...]]] = {"texture": ("given", "other normal image", "drawn by formula")}

    def check_parameters(self) -> None:
        """Refuse transparencies outside 0..1 and the like."""
        check_number(self, "threshold", "(-1, 1)")
        check_number(self, "smallest_cell", "[1, inf)")
        check_whole(self, "exponents")
        check_whole(self, "changes", low=0)
        if self.changes > len(CHANGES):
            raise InputError(f"changes: {self.changes} was given; there are {len(CHANGES)}.")
        low, high = self.transparency
        if not 0 <= low <= high < 1:
            raise InputError(f"transparency: {(low, high)!r} was given; use (low, high) with 0 <= low <= high < 1.")

    def draft(self, x: Tensor, generator: torch.Generator) -> Draft:
        """Draw region, texture and transparency for each image."""
        batch, _, height, width = x.shape
        region, cells = perlin_mask(
            batch,
            height,
            width,
            generator,
            exponents=self.exponents,
            threshold=self.threshold,
            smallest_cell=self.smallest_cell,
        )
        region = region.to(x.device)
        if self.on_object:
            region = region & foreground(x, objects=self.objects)
        texture, origin = self._texture(x, generator)
        texture = strong_augment(texture, generator, self.changes)
        see_through = uniform((batch,), *self.transparency, generator).to(x.device)
        images = alpha(x, texture, region, 1 - see_through)
        return Draft(images, region, {"texture": origin, "transparency": see_through, "cells": cells.to(x.device)})

    def _texture(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return a texture for each image, before augmentation, and where it is from."""
        batch, channels, height, width = x.shape
        if self.textures is not None:
            drawn = self._bank().draw(batch, channels, height, width, generator).to(x)
            return drawn, torch.zeros(batch, dtype=torch.long, device=x.device)
        formula = uniform((batch,), 0, 1, generator).to(x.device) < 0.5
        drawn, _ = procedural(batch, channels, height, width, generator)
        texture = torch.where(formula.view(-1, 1, 1, 1), drawn.to(x), self.donors(x, generator))
        return texture, 1 + formula.long()

    def _bank(self) -> TextureBank:
        if isinstance(self.textures, TextureBank):
            return self.textures
        # Read once; a change of the parameter is noticed.
        kept = getattr(self, "_kept_bank", None)
        if kept is None or kept[0] is not self.textures:
            kept = (self.textures, TextureBank(self.textures))
            self._kept_bank = kept
        return kept[1]
