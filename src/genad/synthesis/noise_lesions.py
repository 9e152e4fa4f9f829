"""Lesions with the outline of fractal simplex noise, and coarse noise over the organ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from genad.core.parameters import check_choice, check_number, check_span, check_whole
from genad.data.kinds import Kind
from genad.synthesis.base import Draft, SynthesisCard, Synthesizer, register_synthesizer
from genad.synthesis.blend import compositional, gaussian_blur
from genad.synthesis.masks import foreground
from genad.synthesis.noise import coarse_gaussian, simplex_octaves, uniform

# Below this weight the soft border of a lesion is cut off.
_EDGE = 0.1


@register_synthesizer(
    SynthesisCard(
        title="Lesions of fractal simplex noise (noise of AnoDDPM) and coarse noise (denoising autoencoders)",
        authors="composition of J. Wyatt et al. and A. Kascenas et al.",
        venue="CVPR Workshops / MIDL",
        year=2022,
        kinds=(Kind.IMAGE,),
        row="2.1-A5",
        summary="Brighter or darker regions with the outline of fractal simplex noise and soft borders.",
    )
)
@dataclass(eq=False, repr=False)
class NoiseLesions(Synthesizer):
    """Brighten or darken regions whose outline is a level line of fractal simplex noise.

    The noise, lowered with the distance from a random point of the organ, is thresholded inside the organ at the
    quantile that gives the lesion its area; the border is smoothed;
    and the intensity inside moves up or down by a share of the organ's own range. The variant ``"coarse"`` instead
    adds Gaussian noise, drawn on a coarse grid and enlarged, all over the organ: the corruption of denoising
    autoencoders, whose mask is nearly the whole organ.

    Parameters
    ----------
    variant : {"simplex", "coarse"}
        Lesions, or coarse noise.
    area : tuple of float
        Smallest and largest area of the lesions, as a share of the organ.
    shift : tuple of float
        Smallest and largest change of intensity, as a share of the organ's range from its 5 % to its 95 % quantile.
    sign : {"both", "bright", "dark"}
        Direction of the change.
    wavelength : float
        Wavelength of the coarsest octave as a share of the image's smaller side; a quarter corresponds to the 64 px
        at 256 px of the reference.
    focus : float
        How strongly a lesion gathers about its point: 0 thresholds the bare noise, which scatters many small ones
        over the whole organ.
    octaves, persistence : int, float
        Each octave halves the wavelength and multiplies the amplitude by ``persistence``.
    border : tuple of float
        Range of the width (standard deviation, in pixels) of the smoothed border; at most half a lesion's radius.
    coarse : int
        Cells along each axis of the coarse noise.
    strength : float
        Standard deviation of the coarse noise at its cells, on 0..1.

    Notes
    -----
    When to use: for images of organs and tissues, and for stains on surfaces; the organ is the foreground by Otsu's
    threshold when it puts most of the border on one side, else the whole image. About 3 ms an image of 64 px.

    When it fails: real lesions have texture and displace what surrounds them; these only change brightness. Never
    judge a detector trained on this noise by anomalies of the same noise.

    No single paper proposes these lesions: the noise is AnoDDPM's, the coarse noise that of the denoising
    autoencoders of Kascenas et al.; thresholding and shift are a plain composition.

    References
    ----------
    Wyatt, Leach, Schmon and Willcocks, "AnoDDPM: Anomaly detection with denoising diffusion probabilistic models
    using simplex noise", CVPR Workshops 2022.

    Kascenas, Pugeault and O'Neil, "Denoising autoencoders for unsupervised anomaly detection in brain MRI",
    MIDL 2022.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).random((3, 1, 32, 32))
    >>> made = NoiseLesions(sign="bright").synthesize(X, 2)
    >>> bool((made.samples >= X[made.sources]).all())
    True
    """

    variant: Literal["simplex", "coarse"] = "simplex"
    area: tuple[float, float] = (0.005, 0.08)
    shift: tuple[float, float] = (0.1, 0.6)
    sign: Literal["both", "bright", "dark"] = "both"
    wavelength: float = 0.25
    focus: float = 1.0
    octaves: int = 6
    persistence: float = 0.8
    border: tuple[float, float] = (1.0, 2.0)
    coarse: int = 16
    strength: float = 0.2

    words: ClassVar[dict[str, tuple[str, ...]]] = {"sign": ("dark", "bright")}

    def check_parameters(self) -> None:
        """Refuse areas outside 0..1 and the like."""
        check_choice(self, "variant", ("simplex", "coarse"))
        check_choice(self, "sign", ("both", "bright", "dark"))
        check_number(self, "wavelength", "(0, 4]")
        check_number(self, "focus", "[0, inf)")
        check_number(self, "persistence", "(0, 1]")
        check_number(self, "strength", "(0, 1]")
        check_whole(self, "octaves", "coarse")
        for name, most in (("area", 0.5), ("shift", 1.0), ("border", 32.0)):
            check_span(self, name, most)

    def draft(self, x: Tensor, generator: torch.Generator) -> Draft:
        """Draw lesions, or coarse noise, for each image."""
        organ = foreground(x, objects=self.objects)
        if self.variant == "coarse":
            batch, channels, height, width = x.shape
            noise = coarse_gaussian((batch, channels, height, width), self.coarse, generator).to(x)
            return Draft(x + self.strength * noise, organ)
        return self._lesions(x, organ, generator)

    def _lesions(self, x: Tensor, organ: Tensor, generator: torch.Generator) -> Draft:
        batch, _, height, width = x.shape
        length = max(2.0, self.wavelength * min(height, width))
        noise = simplex_octaves(batch, height, width, length, generator, self.octaves, self.persistence).to(x)
        area = uniform((batch,), *self.area, generator).to(x.device)
        # The radius a lesion would have as a disc.
        radius = (area * organ.flatten(1).sum(1) / math.pi).sqrt().clamp_min(0.5)
        noise = noise - self.focus * _away(organ, radius, generator)
        lesion = _top_share(noise[:, None], organ, area)
        sigma = torch.minimum(uniform((batch,), *self.border, generator).to(x.device), radius / 2)
        soft = gaussian_blur(lesion.to(x.dtype), sigma) * organ
        # A small lesion is thinned by the smoothing; its middle is brought back to full weight.
        soft = soft / soft.amax((2, 3), keepdim=True).clamp_min(1e-6)
        soft = torch.where(soft > _EDGE, soft, 0.0)
        share = uniform((batch,), *self.shift, generator).to(x.device)
        bright = uniform((batch,), 0, 1, generator).to(x.device) < 0.5
        if self.sign != "both":
            bright = torch.full_like(bright, self.sign == "bright")
        change = share * _range(x, organ) * torch.where(bright, 1.0, -1.0)
        images = compositional(x, x + change.view(-1, 1, 1, 1), soft)
        return Draft(images, soft > 0, {"sign": bright.long(), "shift": change, "area": area, "border": sigma})


def _away(organ: Tensor, radius: Tensor, generator: torch.Generator) -> Tensor:
    """Return the squared distance (B, H, W) from a random point of each organ, in units of the radius."""
    height, width = organ.shape[2:]
    lottery = uniform((len(organ), height * width), 0, 1, generator).to(organ.device)
    point = torch.where(organ.flatten(1), lottery, -1.0).argmax(1).view(-1, 1, 1)
    rows = torch.arange(height, device=organ.device).view(1, -1, 1) - point // width
    columns = torch.arange(width, device=organ.device).view(1, 1, -1) - point % width
    return (rows.square() + columns.square()) / radius.square().view(-1, 1, 1)


def _top_share(noise: Tensor, organ: Tensor, share: Tensor) -> Tensor:
    """Mark the pixels of the organ where the noise is highest: this share of the organ, at least one pixel."""
    ranked = torch.where(organ, noise, -torch.inf).flatten(1)
    wanted = (share * organ.flatten(1).sum(1)).round().clamp_min(1).long()
    threshold = ranked.sort(1, descending=True).values.gather(1, wanted[:, None] - 1)
    return (ranked >= threshold).view_as(organ)


def _range(x: Tensor, organ: Tensor) -> Tensor:
    """Return the span from the 5 % to the 95 % quantile of each organ's brightness."""
    values = torch.where(organ, x.mean(1, keepdim=True), torch.nan).flatten(1)
    low, high = torch.nanquantile(values, values.new_tensor([0.05, 0.95]), dim=1)
    return high - low
