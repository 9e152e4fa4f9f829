"""Partial diffusion: what the detectors that noise an image a little and denoise it again have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genad.core.detector import Detector
from genad.core.inference import Inference, Want
from genad.core.parameters import check_choice, check_number, check_whole
from genad.core.training import Training
from genad.data.samples import Batch, Samples, everything
from genad.nn.diffusion import DiffusionNet, NoiseSource, denoiser
from genad.nn.schedule import NoiseSchedule
from genad.nn.segmentation import top_mean
from genad.nn.structural import gaussian_blur
from genad.nn.working_size import WorkingSize

# Steps of the schedule the network is trained on; scoring strides over them.
STEPS = 1000
# Training images that the range of clean values is taken from.
_LOOK = 4000
# Images denoised at once: their activations stay in the processor's cache.
ROWS = 16


class PartialNet(DiffusionNet):
    """A denoiser at its working size, a source of noise for training, and fixed noise for scoring.

    Parameters
    ----------
    size : WorkingSize
        From samples to the images that are noised.
    predict : nn.Module
        Predicts the noise.
    source : NoiseSource
        Draws noise in training.
    fields : int
        Fields of noise that one run of a chain takes.
    draws : int
        Runs of the chain.

    Attributes
    ----------
    bank : torch.Tensor
        Buffer ``(draws, fields, *shape)``: the noise used at score time, the same for every image.
    """

    bank: Tensor

    def __init__(self, size: WorkingSize, predict: nn.Module, source: NoiseSource, fields: int, draws: int) -> None:
        super().__init__(size.shape, predict, NoiseSchedule(STEPS))
        self.size = size
        self.source = source
        self.register_buffer("bank", source.draw(draws * fields).unflatten(0, (draws, fields)))


@dataclass(eq=False, repr=False)
class PartialDiffusion(Detector):
    """Base of detectors that noise an image up to step lambda << T and denoise it back from there.

    A method fills in :meth:`noise_source`; the score is the mean of the largest squared errors of the restored image.

    Parameters
    ----------
    level : float
        Step lambda up to which an image is noised, as a share of the schedule's 1000 steps, in [0, 1]. With the linear
        schedule the share of the image left is 0.72 at a quarter and 0.28 at a half. 0 returns the input.
    steps : int
        Strides of the way back, at least 1; each is one pass through the network.
    draws : int
        Runs with different noise, whose restored images are averaged, at least 1.
    smooth : float
        Standard deviation, in pixels of the working size, of a Gaussian that averages the residual before it is
        squared, at least 0: grain and the draw of the noise cancel, defects do not. 0 is the plain error.
    top : float
        Share of the pixels, those with the largest errors, that the score averages, in (0, 1].
    resolution : int
        Longest side of the images that are noised, in pixels, at least 1; larger images are averaged down.
    network : {"unet", "diffusers"}
        The denoiser, see :func:`genad.nn.diffusion.denoiser`.
    """

    level: float = 0.25
    steps: int = field(default=8, kw_only=True)
    draws: int = field(default=3, kw_only=True)
    smooth: float = field(default=0.7, kw_only=True)
    top: float = field(default=0.01, kw_only=True)
    resolution: int = field(default=32, kw_only=True)
    network: Literal["unet", "diffusers"] = field(default="unet", kw_only=True)

    stackable = False
    defaults = Training(
        epochs=30, min_updates=600, max_updates=800, batch_size=32, lr=2e-3, warmup=20, clip=1.0, ema=0.99
    )

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number(self, "level", "[0, 1]")
        check_whole(self, "steps", "draws", "resolution")
        check_number(self, "smooth", "[0, inf)")
        check_number(self, "top", "(0, 1]")
        check_choice(self, "network", ("unet", "diffusers"))

    def noise_source(self, shape: tuple[int, ...]) -> NoiseSource:
        """Return where the noise comes from, for images of ``shape``."""
        raise NotImplementedError

    @property
    def start(self) -> int:
        """Step that images are noised to; -1 for no noise."""
        return round(self.level * STEPS) - 1

    @property
    def horizon(self) -> int:
        """Number of steps the denoiser is trained on: those above ``start`` are never visited."""
        return max(1, self.start + 1)

    @property
    def fields(self) -> int:
        """Fields of noise that one run takes."""
        return self.steps + 1

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the denoiser and draw the noise of score time."""
        size = WorkingSize(shape, self.resolution)
        predict = denoiser(size.shape, self.backbone, self.network)
        return self.make_net(size, predict, self.noise_source(size.shape), self.fields, self.draws)

    def make_net(self, *parts: Any) -> nn.Module:
        """Put the network together."""
        return PartialNet(*parts)

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the squared error of the predicted noise, each sample with noise and a step of its own."""
        x = net.size.down(batch.x)
        loss: Tensor = net.loss(x, net.source.draw(len(x)), self.horizon)
        return loss

    def finish(self, net: Any, samples: Samples) -> None:
        """Note the range of clean values."""
        net.bound(net.size.down(everything(samples, net.low.device, _LOOK).x))

    def regenerate(self, net: Any, x: Tensor) -> Tensor:
        """Noise images at the working size to ``start`` and denoise them, averaged over the draws."""
        if self.start < 0:
            return x
        return torch.cat([self._regenerate(net, part) for part in x.split(ROWS)])

    def _regenerate(self, net: Any, x: Tensor) -> Tensor:
        times = NoiseSchedule.timetable(torch.full(x.shape[:1], self.start, device=x.device), self.steps)
        total = torch.zeros_like(x)
        for noise in net.bank:
            x_t = net.schedule.q(x, times[0], noise[0])
            total = total + net.descend(x_t, times, noise[1 : self.steps + 1])
        return total / len(net.bank)

    def errors(self, x: Tensor, regenerated: Tensor) -> Tensor:
        """Return the squared residual, smoothed before it is squared."""
        return gaussian_blur(x - regenerated, self.smooth).square()

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Compute score, map and restored image from one regeneration."""
        x, seen = net.size.down_observed(batch.x, batch.mask)
        regenerated = self.regenerate(net, x)
        squared = self.errors(x, regenerated)
        if seen is not None:
            squared = squared * seen
        score = top_mean(squared.mean(1), self.top, 1)
        # What was changed is enlarged and not the small image, so that fine detail stays where nothing was changed.
        restored = batch.x + net.size.up(regenerated - x) if "restored" in want else None
        return Inference(score, batch.keep_observed(net.size.up(squared)) if "map" in want else None, restored)
