"""D3AD: guided latent diffusion from a noise level chosen for each image."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.core.detector import Detector
from genad.core.inference import Inference, Want
from genad.core.parameters import check_choice, check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.core.training import Phase, Training
from genad.data.kinds import Kind
from genad.data.samples import Batch, Samples, everything
from genad.nn.diffusion import DiffusionNet, denoiser
from genad.nn.memory import nearest_distances
from genad.nn.schedule import NoiseSchedule
from genad.nn.structural import gaussian_blur
from genad.nn.working_size import WorkingSize
from genad.reconstruction.diffusion.latent import FeatureExtractor, LatentCoder

# The schedule of the paper.
_STEPS, _BETAS = 1000, (0.0015, 0.0195)
# Bins of the distances of training images; an image in the last one or beyond is noised the most.
_BINS = 10
# Training images that distances refer to, and those that set the scale of the maps.
_BANK, _SCALE = 1000, 200
# A map's scale is this quantile of its values on training images.
_TYPICAL = 0.99
# Share of the training spent on the autoencoder and the extractor, and where the extractor's adaptation starts.
_FIRST, _ADAPT = 0.4, 0.96
# The adaptation's learning rate.
_ADAPT_RATE = 1e-4
# Smoothing of the map: a standard deviation of 4 pixels in an image of 256.
_SMOOTH = 4 / 256
# Images denoised at once: their activations stay in the processor's cache.
_ROWS = 16


class D3ADNet(DiffusionNet):
    """Autoencoder, feature extractor and latent denoiser, with what they found on the training images.

    Attributes
    ----------
    bank : torch.Tensor
        Buffer: feature vectors of training images.
    nearest, width : torch.Tensor
        Buffers: the smallest distance of a training image to the others, and the width of a bin.
    scales : torch.Tensor
        Buffer ``(2,)``: typical large values of the latent and of the feature map.
    """

    bank: Tensor
    nearest: Tensor
    width: Tensor
    scales: Tensor

    def __init__(self, size: WorkingSize, coder: LatentCoder, predict: nn.Module) -> None:
        super().__init__(coder.shape, predict, NoiseSchedule(_STEPS, "linear", *_BETAS))
        self.size = size
        self.coder = coder
        self.extractor = FeatureExtractor(size.shape)
        self.register_buffer("bank", torch.zeros(0, 1))
        self.register_buffer("nearest", torch.zeros(()))
        self.register_buffer("width", torch.ones(()))
        self.register_buffer("scales", torch.ones(2))


@register(
    Card(
        title="Dynamic Addition of Noise in a Diffusion Model for Anomaly Detection",
        authors="Tebbe, Tayyub",
        venue="CVPRW",
        year=2024,
        family=Family.DIFFUSION,
        kinds=(Kind.IMAGE,),
        row="1.1.4-08",
        summary="Latent diffusion from a noise level chosen by how unusual an image's features are.",
        tags=("latent diffusion", "dynamic noise", "industrial inspection"),
    ),
    name="d3ad",
)
@dataclass(eq=False, repr=False)
class D3AD(Detector):
    """Denoise latents towards the input, from a noise level that grows with how unusual the image looks.

    A small autoencoder takes images to latents of half their size, and a denoiser learns the noise in latents of
    normal images. To score an image, the mean L1 distance of its features to the nearest training images picks one of
    ten bins, and the bin a step T of 20 to 80: an unusual image is taken further. The chain starts at
    ``sqrt(abar_T) z``, the latent shrunk as if noised but with no noise added, and takes ten deterministic strides,
    each image its own; every estimate of the clean latent is pulled towards the input's by
    ``guidance * (1 - abar_t)``. The map mixes the difference of the latents with that of features of input and
    reconstruction, by cosine; the score is its largest value.

    The features are learnt on the training images, by reconstructing them, and then adapted so that those of a normal
    image and of its reconstruction agree; the paper starts from an ImageNet network instead. The two maps are
    divided by their 0.99 quantiles on training images, where the release uses the extremes of the test set.

    **When to use.** Small, local changes in images that are otherwise alike; nothing random enters a score.

    **When it fails.** At these levels the latent keeps at least nine tenths of its size and is pulled back to the
    input, so large smooth defects are rebuilt with the rest; and features learnt on few normal images tell less than
    pretrained ones. Image AUROC at 32 px, one seed: 0.716 on magnetic_tile (pixels 0.691), 0.750 on elpv and 0.735 on
    brain_mri; pixel PCA has 0.640, 0.668 and 0.779. With one digit of MNIST as the normal class it has 0.764 on
    average, and pixel PCA 0.943. On the digits 0 to 2 the distance of the features, which sets the level, is itself no
    better than chance (0.46); on the brain slices it is the best part (0.77).

    Parameters
    ----------
    max_step : int
        Level of the most unusual images, out of 1000 steps, at least ``steps``; others get a share of it, down to two
        tenths, rounded to a multiple of ``steps``.
    guidance : float
        Strength of the pull towards the input, at least 0; 0 is plain deterministic denoising. The weight is at most 1,
        which it reaches at step 113 for the default.
    steps : int
        Strides of every chain, at least 1.
    neighbours : int
        Nearest training images that a distance averages, at least 1.
    feature_weight : float
        Weight of the feature map beside the latent one, in [0, 1].
    resolution : int
        Longest side of the images the autoencoder sees, in pixels, at least 1; larger images are averaged down.
    network : {"unet", "diffusers"}
        The denoiser, see :func:`genad.nn.diffusion.denoiser`.

    Attributes
    ----------
    net_ : torch.nn.Module
        ``net_.bank`` holds features of at most 1000 training images.

    Notes
    -----
    Missing pixels stand at the training mean. The restored image is the input plus what the denoiser changed, so that
    the blur of the autoencoder is not in it.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> rng = np.random.default_rng(0)
    >>> phase = rng.uniform(0, 6, (500, 1, 1, 1))
    >>> X = np.sin(np.arange(12)[:, None] / 2 + phase) + np.zeros(12)
    >>> detector = D3AD(training=Training(updates=50)).fit(X)
    >>> spoilt = X[:2].copy()
    >>> spoilt[1, 0, 3:9, 3:9] = 3.0
    >>> scores = detector.anomaly_score(spoilt)
    >>> bool(scores[1] > scores[0])
    True

    References
    ----------
    Tebbe and Tayyub (2024), Dynamic addition of noise in a diffusion model for anomaly detection, CVPR Workshops.
    Song, Meng and Ermon (2021), Denoising diffusion implicit models, ICLR.
    """

    max_step: int = 80
    guidance: float = field(default=4.0, kw_only=True)
    steps: int = field(default=10, kw_only=True)
    neighbours: int = field(default=20, kw_only=True)
    feature_weight: float = field(default=0.15, kw_only=True)
    resolution: int = field(default=64, kw_only=True)
    network: Literal["unet", "diffusers"] = field(default="unet", kw_only=True)

    stackable = False
    defaults = Training(
        epochs=50, min_updates=1000, max_updates=1500, batch_size=32, lr=2e-3, warmup=20, schedule="constant",
        clip=1.0, ema=0.99,
    )  # fmt: skip

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "max_step", "steps", "neighbours", "resolution")
        check_number(self, "max_step", f"[{self.steps}, {_STEPS}]")
        check_number(self, "guidance", "[0, inf)")
        check_number(self, "feature_weight", "[0, 1]")
        check_choice(self, "network", ("unet", "diffusers"))

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the three networks."""
        size = WorkingSize(shape, self.resolution)
        coder = LatentCoder(size.shape)
        return D3ADNet(size, coder, denoiser(coder.shape, self.backbone, self.network))

    # ------------------------------------------------------------------ training

    def phases(self, net: nn.Module) -> list[Phase]:  # noqa: ARG002 - the hook's signature
        """Return the four parts: autoencoder, extractor, denoiser, and the extractor's adaptation to it."""
        return [
            Phase("autoencoder", self.coder_loss, ("coder",), stop=_FIRST),
            Phase("extractor", self.extractor_loss, ("extractor",), stop=_FIRST),
            Phase("noise", self.loss, ("predict",), start=_FIRST),
            Phase("adaptation", self.adaptation_loss, ("extractor.levels",), lr=_ADAPT_RATE, start=_ADAPT),
        ]

    def coder_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the autoencoder's reconstruction error."""
        loss: Tensor = net.coder.loss(net.size.down(batch.x))
        return loss

    def extractor_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the error of images reconstructed from their features."""
        loss: Tensor = net.extractor.loss(net.size.down(batch.x))
        return loss

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the squared error of the predicted noise in latents, at steps that scoring can visit."""
        with torch.no_grad():
            z = net.coder.encode(net.size.down(batch.x))
        loss: Tensor = net.loss(z, torch.randn_like(z), self.max_step)
        return loss

    def adaptation_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return how far features of normal images are from those of their reconstructions, from random levels."""
        x = net.size.down(batch.x)
        with torch.no_grad():
            z = net.coder.encode(x)
            levels = 1 + torch.randint(_BINS, x.shape[:1], device=x.device)
            rebuilt = net.coder.decode(self.denoise(net, z, self._steps_of(levels.clamp_min(2))))
        loss = torch.zeros((), device=x.device)
        for one, two in zip(net.extractor(x), net.extractor(rebuilt), strict=True):
            loss = loss + (1 - F.cosine_similarity(one.flatten(1), two.flatten(1))).mean()
        return loss

    # ------------------------------------------------------------------ what training images look like

    def finish(self, net: Any, samples: Samples) -> None:
        """Keep features of training images, the bins of their distances, and the scales of the two maps."""
        x = net.size.down(everything(samples, net.bank.device, _BANK).x)
        net.bank = net.extractor.vector(x)
        distance = self.distance(net, x, known=True)
        net.nearest = distance.min().clone()
        net.width = ((distance.max() - net.nearest) / _BINS).clamp_min(1e-6)
        few = x[:: -(-len(x) // _SCALE)]
        maps = self._maps(net, few, self._regenerate(net, few, known=True)[1:])
        net.scales = torch.stack([m.flatten().quantile(_TYPICAL) for m in maps]).clamp_min(1e-6)

    def distance(self, net: Any, x: Tensor, *, known: bool = False) -> Tensor:
        """Return the mean L1 distance to the nearest training images; one that is itself in the bank is left out."""
        skip = 1 if known and len(net.bank) > 1 else 0
        k = min(self.neighbours, len(net.bank) - skip)
        return nearest_distances(net.extractor.vector(x), net.bank, k + skip, p=1)[:, skip:].mean(1)

    def _steps_of(self, bins: Tensor) -> Tensor:
        """Return the level of a bin, a multiple of the number of strides."""
        return (bins / _BINS * self.max_step / self.steps).round().clamp_min(1).long() * self.steps

    def level(self, net: Any, x: Tensor, *, known: bool = False) -> Tensor:
        """Return the step up to which each image is taken, (B,): it grows with the distance of its features."""
        bins = ((self.distance(net, x, known=known) - net.nearest) / net.width).floor() + 1
        return self._steps_of(bins.clamp(2, _BINS))

    # ------------------------------------------------------------------ regeneration

    def denoise(self, net: Any, z: Tensor, level: Tensor) -> Tensor:
        """Scale latents down to their level, adding no noise, and denoise them deterministically towards the input.

        Parameters
        ----------
        net : D3ADNet
        z : Tensor of shape (B, 4, h, w)
            Latents of the input.
        level : Tensor of shape (B,)
            Number of steps to undo, each sample its own; all take the same number of strides.

        Returns
        -------
        Tensor
            Latents of the reconstruction.
        """
        schedule = net.schedule
        times = schedule.timetable(level - 1, self.steps)
        z_t = schedule.alpha_bar(times[0], z).sqrt() * z
        for t, to in itertools.pairwise(times):
            estimate = schedule.x0(z_t, t, net.predict(z_t, t))
            # beyond 1 the guidance would overshoot the input
            pull = (self.guidance * (1 - schedule.alpha_bar(t, z))).clamp_max(1.0)
            estimate = estimate + pull * (z - estimate)
            z_t = schedule.ddim(z_t, t, to, schedule.eps(z_t, t, estimate))
        return z_t

    def _regenerate(self, net: Any, x: Tensor, *, known: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Return levels, latents of the input and latents of the reconstruction."""
        level = self.level(net, x, known=known)
        latents = net.coder.encode(x)
        parts = zip(latents.split(_ROWS), level.split(_ROWS), strict=True)
        return level, latents, torch.cat([self.denoise(net, z, t) for z, t in parts])

    def _maps(self, net: Any, x: Tensor, latents: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return the latent difference and the feature difference, each ``(B, 1, h, w)`` at the working size."""
        z, rebuilt = latents
        apart = F.interpolate((z - rebuilt).abs().mean(1, keepdim=True), x.shape[2:], mode="bilinear")
        total = torch.zeros_like(apart)
        two = net.extractor(net.coder.decode(rebuilt))
        for a, b in list(zip(net.extractor(x), two, strict=True))[1:]:
            unlike = 1 - F.cosine_similarity(a, b, dim=1).unsqueeze(1)
            total = total + F.interpolate(unlike, x.shape[2:], mode="bilinear")
        return apart, total

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Compute score, map and restored image from one regeneration."""
        x = net.size.down(batch.x)
        _, z, rebuilt = self._regenerate(net, x, known=batch.known)
        apart, unlike = self._maps(net, x, (z, rebuilt))
        weight = self.feature_weight
        where = (1 - weight) * apart / net.scales[0] + weight * unlike / net.scales[1]
        where = gaussian_blur(where, _SMOOTH * max(x.shape[2:]))
        score = where.flatten(1).amax(1)
        if not want:
            return Inference(score)
        restored = None
        if "restored" in want:
            # The autoencoder's own blur is in both, so only what the denoiser changed is added.
            restored = batch.x + net.size.up(net.coder.decode(rebuilt) - net.coder.decode(z))
        full = net.size.up(where).expand_as(batch.x) / batch.x.shape[1]
        return Inference(score, batch.keep_observed(full) if "map" in want else None, restored)
