"""RePaint: restore what is hidden or suspicious with an unconditional diffusion model."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.core.inference import Inference, Want
from genad.core.parameters import check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.data.kinds import Kind
from genad.data.samples import Batch, Samples, everything
from genad.errors import InputError
from genad.nn.diffusion import GaussianNoise, NoiseSource
from genad.nn.segmentation import top_mean
from genad.reconstruction.diffusion.partial import ROWS, STEPS, PartialDiffusion, PartialNet

# Training images that the limits of normal errors are taken from.
_NORMALS = 200
# Pixels around a suspicious one that are restored with it.
_MARGIN = 1
# Errors below this share of an image's largest are taken for the shadow that a defect casts on its surroundings.
_FAINT = 0.05


def resampling_path(strides: int, jump: int, resamples: int) -> list[int]:
    """Lay out a way down from ``strides`` to 0 that goes back up and down again on the way.

    Whenever the way first reaches a multiple of ``jump``, it climbs ``jump`` strides and comes back,
    ``resamples - 1`` times.

    Parameters
    ----------
    strides : int
        Height of the start; 0 is the clean sample.
    jump : int
        Strides of a jump.
    resamples : int
        How often each part of the way is gone down.

    Returns
    -------
    list of int
        Heights, each one apart from the one before.

    Examples
    --------
    >>> resampling_path(4, 2, 2)
    [4, 3, 2, 3, 4, 3, 2, 1, 0, 1, 2, 1, 0]
    """
    left = dict.fromkeys(range(0, strides - jump + 1, jump), resamples - 1)
    path = [strides]
    while True:
        here = path[-1]
        if left.get(here, 0):
            left[here] -= 1
            path += range(here + 1, here + jump + 1)
        elif here == 0:
            return path
        else:
            path.append(here - 1)


class RePaintNet(PartialNet):
    """A denoiser with what normal errors look like.

    Attributes
    ----------
    limit : torch.Tensor
        Buffer ``(1, h, w)``: the error at each pixel that few normal images exceed.
    """

    limit: Tensor

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.register_buffer("limit", torch.zeros(1, *self.size.size))


@register(
    Card(
        title="RePaint: Inpainting using Denoising Diffusion Probabilistic Models",
        authors="Lugmayr, Danelljan, Romero, Yu, Timofte, Van Gool",
        venue="CVPR",
        year=2022,
        family=Family.DIFFUSION,
        kinds=(Kind.IMAGE,),
        summary="Restore hidden or suspicious pixels by resampled diffusion around the known ones.",
        tags=("restoration", "inpainting", "masked resampling"),
    ),
    name="repaint",
)
@dataclass(eq=False, repr=False)
class RePaint(PartialDiffusion):
    """Restore hidden or suspicious pixels by diffusion, conditioned on the others by putting them back at every step.

    An unconditional denoiser is trained on normal images; no mask is seen in training. To restore, the hidden pixels
    start from noise. Before every step down the known pixels are put back, freshly noised to the current step, and the
    chain keeps jumping back up and down again, so that what is made up and what is known come to fit together. At the
    end the known pixels are put back exactly.

    Pixels that are missing (NaN) are what is hidden. In an image without any, the mask is estimated: the image is
    noised a quarter of the way and denoised, and pixels whose error exceeds the ``quantile`` of training images there,
    and a twentieth of the image's largest, are restored, with a margin of one pixel. The map is the squared difference
    from the restored image there, and from the denoised image elsewhere; the score is the mean of its largest values.

    **When to use.** A defect is to be taken out and everything else left as it is, by a known mask or by itself.

    **When it fails.** The restored part is a plausible guess: where the known pixels do not settle what is hidden, it
    may be normal and yet not what was there. What partial diffusion does not notice is not restored. On digits of one
    class (28 px, one seed) with a pasted patch, the mean absolute error inside the patch falls from 0.50 of the range
    to 0.23 when the mask is given and 0.31 when it is estimated; outside it is 0 and 0.03. As a detector it tells these
    from intact digits with an image AUROC of 0.64 only, though its maps find the patch with a pixel AUROC of 0.81:
    intact strokes have large errors too. As a detector it has an image AUROC of 0.617 on magnetic_tile and 0.621 on
    elpv (32 px, one seed), below pixel PCA with 0.640 and 0.668, and 0.797 on brain_mri against 0.779; with one digit
    of MNIST as the normal class 0.769 against 0.943. It is made to restore. ``strides`` was chosen with the error of
    these restorations in view.

    Parameters
    ----------
    level : float
        Step up to which an image is noised to estimate its mask, as a share of the schedule's 1000 steps, in [0, 1].
    steps : int
        Strides of that way down, at least 1.
    draws : int
        Runs with different noise, whose results are averaged, at least 1.
    resolution : int
        Longest side of the images that are noised, in pixels, at least 1; larger images are averaged down, and
        restored pixels are as coarse.
    strides : int
        Strides from noise to a restored image, at least 1.
    jump : int
        Strides of a jump back up, from 1 to ``strides``.
    resamples : int
        How often each part of the way down is gone, at least 1; 1 does not resample.
    quantile : float
        Quantile of the errors of training images, pixel by pixel, above which a pixel is suspicious, in (0, 1).

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(500, 1, 1, 1)) + np.zeros((1, 12, 12))
    >>> detector = RePaint(training=Training(updates=50)).fit(X)
    >>> hidden = X[:1].copy()
    >>> hidden[0, 0, 4:7, 4:7] = np.nan
    >>> restored = detector.restore(hidden)
    >>> bool(np.isfinite(restored).all()), bool(np.allclose(restored[~np.isnan(hidden)], X[0, 0, 0, 0]))
    (True, True)

    References
    ----------
    Lugmayr, Danelljan, Romero, Yu, Timofte and Van Gool (2022), RePaint: Inpainting using denoising diffusion
    probabilistic models, CVPR.
    Bercea, Neumayr, Rueckert and Schnabel (2023), Mask, stitch, and re-sample, ICML Workshop on Imageomics: the
    estimated mask.
    """

    steps: int = field(default=5, kw_only=True)
    draws: int = field(default=2, kw_only=True)
    strides: int = field(default=12, kw_only=True)
    jump: int = field(default=4, kw_only=True)
    resamples: int = field(default=2, kw_only=True)
    quantile: float = field(default=0.99, kw_only=True)

    inpaints = True

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "strides", "jump", "resamples")
        check_number(self, "quantile", "(0, 1)")
        if self.jump > self.strides:
            raise InputError(f"jump: {self.jump} was given for {self.strides} strides; use at most as many.")

    def noise_source(self, shape: tuple[int, ...]) -> NoiseSource:
        """Return white noise: the hidden part starts from noise alone."""
        return GaussianNoise(shape)

    @property
    def horizon(self) -> int:
        """Number of steps the denoiser is trained on: all of them."""
        return STEPS

    @property
    def path(self) -> list[int]:
        """Heights that one restoration visits."""
        return resampling_path(self.strides, self.jump, self.resamples)

    @property
    def fields(self) -> int:
        """Fields of noise that one run takes: one to start from and two a step, or those of the partial diffusion."""
        return max(2 * len(self.path), self.steps + 1)

    def make_net(self, *parts: Any) -> nn.Module:
        """Put the network together."""
        return RePaintNet(*parts)

    def finish(self, net: Any, samples: Samples) -> None:
        """Note the range of clean values and, pixel by pixel, the error that few training images exceed."""
        super().finish(net, samples)
        x = net.size.down(everything(samples, net.low.device, _NORMALS).x)
        errors = self.errors(x, self.regenerate(net, x)).mean(1, keepdim=True)
        net.limit = errors.quantile(self.quantile, dim=0)

    def inpaint(self, net: Any, x: Tensor, hidden: Tensor) -> Tensor:
        """Restore hidden pixels at the working size.

        Parameters
        ----------
        net : RePaintNet
        x : Tensor of shape (B, C, h, w)
            Images; what is hidden is not looked at.
        hidden : Tensor of bool, shape (B, C, h, w)
            True where to restore.

        Returns
        -------
        Tensor
            Equal to ``x`` wherever it is not hidden; elsewhere the mean over the draws.
        """
        if not bool(hidden.any()):
            return x
        parts = zip(x.split(ROWS), hidden.split(ROWS), strict=True)
        return torch.cat([self._inpaint(net, one, mask) for one, mask in parts])

    def _inpaint(self, net: Any, x: Tensor, hidden: Tensor) -> Tensor:
        known = torch.where(hidden, torch.zeros_like(x), x)
        restored = torch.zeros_like(x)
        for bank in net.bank:
            restored = restored + self._resample(net, known, hidden, bank)
        return torch.where(hidden, restored / len(net.bank), x)

    def _resample(self, net: Any, known: Tensor, hidden: Tensor, bank: Tensor) -> Tensor:
        schedule = net.schedule
        last = torch.full(known.shape[:1], STEPS - 1, device=known.device)
        times = schedule.timetable(last, self.strides).flip(0)  # by height: the clean sample first
        fresh = iter(bank)
        x_t = next(fresh).expand_as(known)
        for here, there in itertools.pairwise(self.path):
            t, to = times[here], times[there]
            if there > here:
                x_t = schedule.renoise(x_t, t, to, next(fresh))
                continue
            # the known part at the very noise level that the denoiser is about to see
            x_t = torch.where(hidden, x_t, schedule.q(known, t, next(fresh)))
            x_t = schedule.ddpm(x_t, t, to, net.clean(x_t, t), next(fresh), "small")
        return x_t

    def suspicious(self, net: Any, errors: Tensor) -> Tensor:
        """Return where errors ``(B, C, h, w)`` exceed what is normal there, with a margin, ``(B, 1, h, w)`` bool."""
        mean = errors.mean(1, keepdim=True)
        beyond = (mean > net.limit) & (mean > _FAINT * mean.amax((2, 3), keepdim=True))
        return F.max_pool2d(beyond.to(mean.dtype), 2 * _MARGIN + 1, stride=1, padding=_MARGIN) > 0

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Restore what is hidden, else what is suspicious, and score the difference."""
        x, seen = net.size.down_observed(batch.x, batch.mask)
        hidden = torch.zeros_like(x, dtype=torch.bool) if seen is None else ~seen
        filled = self.inpaint(net, x, hidden)
        regenerated = self.regenerate(net, filled)
        # A mask that is given says all that is to be restored.
        masked = hidden.flatten(1).any(1).view(-1, 1, 1, 1)
        doubtful = self.suspicious(net, self.errors(filled, regenerated)) & ~masked
        doubtful = doubtful.expand_as(x)
        restored = self.inpaint(net, filled, doubtful)
        squared = self.errors(filled, torch.where(doubtful, restored, regenerated))
        score = top_mean(squared.mean(1), self.top, 1)
        if not want:
            return Inference(score)
        where = batch.keep_observed(net.size.up(squared)) if "map" in want else None
        if "restored" not in want:
            return Inference(score, where)
        # Outside of what is restored the image stays as it is, to the last pixel.
        blend = net.size.up(doubtful.to(x.dtype))
        small = net.size.up(restored)
        full = batch.x + blend * (small - batch.x)
        return Inference(score, where, full if batch.mask is None else torch.where(batch.mask, full, small))
