"""Poisson-blended patches of other normal images: the natural synthetic anomalies of NSA."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from genad.core.parameters import check_choice, check_number, check_whole
from genad.data.kinds import Kind
from genad.errors import InputError
from genad.synthesis.base import Draft, SynthesisCard, Synthesizer, register_synthesizer
from genad.synthesis.blend import poisson
from genad.synthesis.masks import foreground, sample_at, shows_object, turned_boxes
from genad.synthesis.noise import normal, uniform

# Places tried at once for a patch that must lie on the object.
_CANDIDATES = 32
# Half a patch is at least this many pixels: a border of fixed values and something inside.
_LEAST_HALF = 1.5


@register_synthesizer(
    SynthesisCard(
        title="Natural Synthetic Anomalies for Self-Supervised Anomaly Detection and Localization",
        authors="H. M. Schlueter, J. Tan, B. Hou, B. Kainz",
        venue="ECCV",
        year=2022,
        kinds=(Kind.IMAGE,),
        row="2.1-A3",
        summary="Patches of other normal images, resized and cloned seamlessly by Poisson blending.",
        aliases=("nsa",),
    )
)
@dataclass(eq=False, repr=False)
class PoissonBlend(Synthesizer):
    """Clone patches of other normal images into an image, seamlessly, by Poisson blending.

    Source and destination are drawn independently; sides follow a gamma law; a patch is resized on its way; and it
    must lie on the object where there is one. Up to ``patches`` patches follow one another.

    Parameters
    ----------
    patches : int
        Largest number of patches; each after the first comes with probability one half.
    shape, scale : float
        Of the gamma law of half a side, as a share of the image's side; ``least`` is added.
    least, most : float
        Bounds of half a side, as shares of the image's side.
    resize : {"auto"} or tuple of float
        Bounds of the factor, normal with mean 1 and standard deviation 0.5, by which a patch is resized:
        ``"auto"`` takes (0.7, 1.3) for objects and (0.5, 2) for textures.
    mode : {"auto", "normal", "mixed"}
        Gradients of the source, or the stronger of source and destination at each pixel; ``"auto"`` takes the first
        for objects and the second for textures.
    on_object : float
        Least share of a patch, at its source and where it lands, that lies on the object; used when the images show
        an object before a background (most of the border on one side of Otsu's threshold).
    least_change : float
        Where the mean change over 5 x 5 pixels stays below this, on 0..1, the image is left as it was: what nobody
        could see should not be in the mask. 0 keeps all.

    Notes
    -----
    When to use: for defects that look like the product itself (misplaced, deformed, missing parts) without seams;
    needs no other data. :meth:`fit` supplies the donors; unfitted, they come from the same batch, and an image alone
    is its own donor. About 2 ms an image of 64 px.

    When it fails: on uniform surfaces, whose patches have hardly any gradient to clone; foreign matter and scratches
    have no model among normal patches. Reported masks hold what changed visibly, not the whole patch;
    :func:`intensity_label` gives the paper's graded target.

    References
    ----------
    Schlueter, Tan, Hou and Kainz, "Natural synthetic anomalies for self-supervised anomaly detection and
    localization", ECCV 2022.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).random((4, 1, 32, 32))
    >>> made = PoissonBlend(patches=2).fit(X).synthesize(X, 3)
    >>> bool((made.samples != X[made.sources]).any(1)[~made.masks].any())
    False
    """

    patches: int = 3
    shape: float = 2.0
    scale: float = 0.05
    least: float = 0.03
    most: float = 0.4
    resize: Literal["auto"] | tuple[float, float] = "auto"
    mode: Literal["auto", "normal", "mixed"] = "auto"
    on_object: float = 0.25
    least_change: float = 5 / 255

    words: ClassVar[dict[str, tuple[str, ...]]] = {"mode": ("normal", "mixed")}

    def check_parameters(self) -> None:
        """Refuse sides outside the image and the like."""
        check_whole(self, "patches")
        check_number(self, "shape", "(0, inf)")
        check_number(self, "scale", "(0, inf)")
        check_number(self, "most", "(0, 0.5)")
        check_number(self, "least", f"(0, {self.most}]")
        check_number(self, "on_object", "[0, 1]")
        check_number(self, "least_change", "[0, 1)")
        check_choice(self, "mode", ("auto", "normal", "mixed"))
        if self.resize != "auto":
            low, high = self.resize
            if not 0 < low <= high:
                raise InputError(f"resize: {self.resize!r} was given; use 'auto' or (low, high) with 0 < low <= high.")

    def draft(self, x: Tensor, generator: torch.Generator) -> Draft:
        """Clone one to ``patches`` patches into each image."""
        batch = len(x)
        objects = torch.full((batch,), self.objects, device=x.device) if self.objects is not None else None
        if objects is None:
            objects = shows_object(x)
        mixed = ~objects if self.mode == "auto" else torch.full_like(objects, self.mode == "mixed")
        ground = foreground(x, objects=self.objects)
        images, regions = x.clone(), torch.zeros_like(ground)
        count = torch.zeros(batch, dtype=torch.long, device=x.device)
        first_box = torch.zeros(batch, 4, device=x.device)
        going = torch.ones(batch, dtype=torch.bool, device=x.device)
        for k in range(self.patches):
            if k:
                going = going & (uniform((batch,), 0, 1, generator).to(x.device) < 0.5)
            now = going.nonzero().flatten()
            if not len(now):
                break
            source, region, box = self._patch(images[now], ground[now], objects[now], generator)
            images[now] = poisson(images[now], source, region, mixed[now]).clamp(0.0, 1.0)
            regions[now] |= region
            count[now] += 1
            if k == 0:
                first_box = box
        change = (images - x).abs().amax(1, keepdim=True)
        seen = functional.avg_pool2d(change, 5, 1, 2, count_include_pad=False) >= self.least_change
        return Draft(images, regions & seen, {"mode": mixed.long(), "patches": count, "first_patch": first_box})

    def _patch(
        self, x: Tensor, ground: Tensor, objects: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draw one patch for each image: the source moved to its place, its region, and its box (centre, sides)."""
        batch, _, height, width = x.shape
        size = torch.tensor([height, width], device=x.device, dtype=torch.float32)
        donors = self.donors(x, generator)
        share = self.least + self.scale * _gamma(self.shape, (batch, 2), generator).to(x.device)
        half = (share.clamp(max=self.most) * size).clamp_min(_LEAST_HALF)
        factor = self._factor(objects, generator)[:, None]
        half = torch.minimum(half, 0.45 * size)
        landed = torch.minimum((half * factor).clamp_min(_LEAST_HALF), 0.45 * size)
        factor = landed / half
        origin = self._place(foreground(donors, objects=self.objects), half, objects, generator)
        target = self._place(ground, landed, objects, generator)
        region, along = turned_boxes(height, width, target, landed, torch.zeros(batch, device=x.device))
        start = origin[:, :, None, None] + along / factor[:, :, None, None]
        return sample_at(donors, start[:, 0], start[:, 1]), region, torch.cat([target, 2 * landed], 1)

    def _factor(self, objects: Tensor, generator: torch.Generator) -> Tensor:
        raw = 1 + 0.5 * normal((len(objects),), generator).to(objects.device)
        if self.resize != "auto":
            return raw.clamp(*self.resize)
        return torch.where(objects, raw.clamp(0.7, 1.3), raw.clamp(0.5, 2.0))

    def _place(self, ground: Tensor, half: Tensor, objects: Tensor, generator: torch.Generator) -> Tensor:
        """Draw centres (B, 2) of patches inside the image: the first of many that lies on the object enough."""
        batch, _, height, width = ground.shape
        size = torch.tensor([height, width], device=ground.device, dtype=torch.float32)
        tries = uniform((batch, _CANDIDATES, 2), 0, 1, generator).to(ground.device)
        centres = half[:, None] + (size - 2 * half)[:, None] * tries
        # A table of sums over all top-left corners gives the share of any box in four look-ups.
        table = functional.pad(ground[:, 0].float().cumsum(1).cumsum(2), (1, 0, 1, 0)).flatten(1)
        low = (centres - half[:, None]).round().long().clamp_min(0)
        high = torch.minimum((centres + half[:, None]).round().long(), size.long())

        def corner(rows: Tensor, columns: Tensor) -> Tensor:
            return table.gather(1, rows * (width + 1) + columns)

        inside = (
            corner(high[..., 0], high[..., 1])
            - corner(low[..., 0], high[..., 1])
            - corner(high[..., 0], low[..., 1])
            + corner(low[..., 0], low[..., 1])
        )
        share = inside / (high - low).prod(2).clamp_min(1)
        good = (share > self.on_object) | ~objects[:, None]
        # The first acceptable place; when there is none, the one that lies on the object most.
        chosen = torch.where(good.any(1), good.int().argmax(1), share.argmax(1))
        return centres[torch.arange(batch, device=centres.device), chosen]


def _gamma(shape: float, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw from the gamma law of unit scale by the method of Marsaglia and Tsang, 2000."""
    boost: Tensor | float = 1.0
    if shape < 1:
        boost = uniform(size, 1e-7, 1, generator) ** (1 / shape)
        shape += 1
    d = shape - 1 / 3
    c = 1 / math.sqrt(9 * d)
    # A proposal is refused 5 times in 100 at worst; the chance that eight in a row are is 1 in 10**10.
    z = normal((8, *size), generator)
    v = (1 + c * z) ** 3
    u = uniform((8, *size), 1e-12, 1, generator)
    accepted = (v > 0) & (u.log() < 0.5 * z.square() + d * (1 - v + v.clamp_min(1e-12).log()))
    first = accepted.int().argmax(0, keepdim=True)
    return boost * d * v.gather(0, first)[0].clamp_min(1e-6)


def intensity_label(
    normal_images: Tensor,
    anomalous: Tensor,
    steepness: float = 1 / 3,
    middle: float = 7.0,
    tolerance: float = 1.0,
) -> Tensor:
    """Grade how anomalous each pixel is by how much it changed: the paper's target for a segmenter.

    The mean change over channels is cut below ``tolerance``, smoothed by a 5 x 5 median, and put through a logistic
    curve where it is not zero.

    Parameters
    ----------
    normal_images, anomalous : Tensor of shape (B, C, H, W)
        Images before and after, in 0..1.
    steepness, middle, tolerance : float
        Of the logistic curve, and the least change that counts, in levels of 0..255: 1/3 and 7 for textures; the
        paper has 1/12 and 24 for bottles, 1 and 3 for screws.

    Returns
    -------
    Tensor of shape (B, 1, H, W)
        0 where nothing changed, else in 0..1.

    Examples
    --------
    >>> before = torch.zeros(1, 1, 12, 12)
    >>> after = before.clone()
    >>> after[..., 3:9, 3:9] = 7 / 255
    >>> label = intensity_label(before, after)
    >>> round(float(label[0, 0, 6, 6]), 3), float(label[0, 0, 0, 0])
    (0.5, 0.0)
    """
    change = 255 * (anomalous - normal_images).abs().mean(1, keepdim=True)
    change = torch.where(change > tolerance, change, 0.0)
    padded = functional.pad(change, (2, 2, 2, 2), mode="replicate")
    patches = functional.unfold(padded, 5)
    smooth = patches.median(1).values.view_as(change)
    return torch.where(smooth > 0, torch.sigmoid(steepness * (smooth - middle)), 0.0)
