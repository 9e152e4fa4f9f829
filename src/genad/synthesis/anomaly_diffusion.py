"""Real defects, learnt from a few and painted into normal images by masked diffusion: AnomalyDiffusion at CPU size."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from genad.core.loop import TrainingLoop
from genad.core.parameters import check_choice, check_number, check_whole
from genad.core.runtime import isolated_rng, resolve_device
from genad.core.training import BASE_TRAINING, Phase, Training
from genad.data.kinds import Kind
from genad.data.samples import ArraySamples, Batch
from genad.errors import DataWarning, InputError
from genad.nn.schedule import NoiseSchedule
from genad.synthesis.base import Draft, SynthesisCard, Synthesizer, register_synthesizer
from genad.synthesis.masks import foreground
from genad.synthesis.noise import normal, uniform, whole
from genad.synthesis.token_denoiser import TokenDenoiser
from genad.synthesis.windows import cut, frame_masks, move_inside, put_back, quarter_turns, vary_masks

_STEPS = 200
_WIDTHS = (16, 32, 48)
# Below this number of real anomalies a warning is given.
_FEW = 5
# Range of the attention paid to the appearance tokens where the anomaly does not show yet.
_MOST_ATTENTION = 1.5


class _Painter(nn.Module):
    """The denoiser, its schedule, and the few real anomalies it learns from, as windows."""

    windows: Tensor
    masks: Tensor
    scale: Tensor

    def __init__(self, windows: Tensor, masks: Tensor, scale: Tensor, tokens: int, dim: int) -> None:
        super().__init__()
        self.denoiser = TokenDenoiser(windows.shape[1], _WIDTHS, tokens, dim)
        self.schedule = NoiseSchedule(_STEPS)
        self.register_buffer("windows", windows)
        self.register_buffer("masks", masks.to(windows))
        self.register_buffer("scale", scale)

    def masked_loss(self, x: Tensor, mask: Tensor, kind: int) -> Tensor:
        """Mean squared error of the predicted noise, over the masked pixels alone."""
        t = torch.randint(_STEPS, (len(x),), device=x.device)
        noise = torch.randn_like(x)
        kinds = torch.full((len(x),), kind, device=x.device)
        predicted = self.denoiser(self.schedule.q(x, t, noise), t, x, mask, kinds)
        return ((predicted - noise).square().mean(1, keepdim=True) * mask).sum() / mask.sum()

    def normal_loss(self, batch: Batch) -> Tensor:
        """Fill the masks of real anomalies, on normal windows, with normal content."""
        chosen = torch.randint(len(self.masks), (len(batch.x),), device=batch.x.device)
        return self.masked_loss(batch.x, self._turned(chosen)[1], 0)

    def anomaly_loss(self, batch: Batch) -> Tensor:
        """Fill them, on the anomalies' own windows, with the anomalies."""
        chosen = torch.randint(len(self.masks), (len(batch.x),), device=batch.x.device)
        windows, masks = self._turned(chosen)
        return self.masked_loss(windows, masks, 1)

    def _turned(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        turns = torch.randint(4, (len(chosen),), device=chosen.device)
        mirrored = torch.rand(len(chosen), device=chosen.device) < 0.5
        return (
            quarter_turns(self.windows[chosen], turns, mirrored),
            quarter_turns(self.masks[chosen], turns, mirrored),
        )


@register_synthesizer(
    SynthesisCard(
        title="AnomalyDiffusion: Few-Shot Anomaly Image Generation with Diffusion Model",
        authors="T. Hu, J. Zhang, R. Yi, Y. Du, X. Chen, L. Liu, Y. Wang, C. Wang",
        venue="AAAI",
        year=2024,
        kinds=(Kind.IMAGE,),
        row="2.1-A10",
        summary="Defects learnt from a few real ones with masks, painted into normal images by masked diffusion.",
        learned=True,
    )
)
@dataclass(eq=False, repr=False)
class AnomalyDiffusion(Synthesizer):
    """Learn one kind of defect from a few examples with masks, and paint new ones into normal images.

    A denoising network is trained on windows about the masks. First it learns to fill them with normal content, then,
    steered by appearance tokens, with the defect; the loss counts masked pixels alone. To make a defect, a real mask
    is turned, mirrored, stretched and bent, put somewhere on a normal image, and its inside is sampled by reverse
    diffusion, while everything outside is held at the noised normal image in every step.

    Parameters
    ----------
    resolution : int
        Side in pixels, a multiple of 4, at which windows are learnt. A window is at least as large where the image
        allows, and 1.6 times the defect; larger ones are reduced.
    steps : int
        Sampling steps, of 200.
    tokens, dim : int
        Number of appearance tokens, and of spatial tokens made from the mask, and their length.
    tune : {"all", "tokens"}
        What learns from the defects: the whole network, or only the tokens and the encoder of the mask.
    normal_share : float
        Share of the training spent on normal content, in (0, 1).
    strength : float
        1 paints the defect as learnt; more exaggerates its difference from normal content, at twice the time.
    reweight : bool
        Raise the attention to the appearance tokens, by up to a half, where the estimate still equals the image.
    zoom, turn : float
        By how much, and by how many degrees to either side, real masks are varied beside quarter turns.
    training : Training, optional
        Overrides of :attr:`defaults`.
    random_state : int
        Seed of the training.
    device : str, optional
        Where to train and sample.

    Attributes
    ----------
    net_ : nn.Module
        The trained network.
    training_report_ : TrainingReport
        What the training did.

    Notes
    -----
    When to use: when 5 to 50 real defects of one kind have been marked, and more are wanted that look alike. Fit one
    synthesizer for each kind. On magnetic tiles of 64 px, with 20 blowholes to learn from, the grey of generated
    blowholes lies 0.14 below their surroundings (standard deviation 0.06); that of the 95 blowholes not learnt from
    0.13 (0.06).

    When it fails: appearance is learnt from what is marked, so loose masks give vague defects, and 5 examples little
    variety; defects larger than a window lose detail; a defect that changes the outline of the object cannot be
    painted into a mask. Sampling takes about 40 ms an image on one core: inside a training loop it is the slow part.

    The paper starts from a large text-to-image model and learns nothing but the tokens. Here a network of 350,000
    parameters is trained from nothing, so by default all of it learns from the defects: on the blowholes,
    ``tune="tokens"`` ended at a training loss of 0.23 against 0.11, and its samples were as often too bright as too
    dark. Two more departures: the network also sees the clean surroundings and the mask as channels, and masks are
    varied real ones, because a handful of them cannot train a generator of masks.

    References
    ----------
    Hu, Zhang, Yi, Du, Chen, Liu, Wang and Wang, "AnomalyDiffusion: Few-shot anomaly image generation with diffusion
    model", AAAI 2024.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> normal = rng.uniform(0.5, 0.7, (20, 1, 16, 16))
    >>> defects, masks = normal[:8].copy(), np.zeros((8, 16, 16), bool)
    >>> masks[:, 6:10, 5:9] = True
    >>> defects[masks[:, None]] = 0.1
    >>> synthesizer = AnomalyDiffusion(resolution=16, training=Training(updates=60))
    >>> made = synthesizer.fit(normal, defects, masks).synthesize(normal, 20)
    >>> bool(made.samples[made.masks[:, None]].mean() < 0.4)
    True
    """

    resolution: int = 32
    steps: int = 12
    tokens: int = 4
    dim: int = 64
    tune: Literal["all", "tokens"] = "all"
    normal_share: float = 0.3
    strength: float = 1.0
    reweight: bool = True
    zoom: float = 0.25
    turn: float = 15.0
    training: Training | None = None
    random_state: int = 0
    device: str | None = None

    defaults: ClassVar[Training] = Training(updates=500, batch_size=16, lr=2e-3, ema=0.995, clip=1.0)

    def check_parameters(self) -> None:
        """Refuse windows that cannot be halved twice and the like."""
        check_whole(self, "steps", "tokens")
        check_whole(self, "resolution", low=8)
        check_whole(self, "dim", low=2)
        check_whole(self, "random_state", low=0)
        check_choice(self, "tune", ("all", "tokens"))
        check_number(self, "normal_share", "(0, 1)")
        check_number(self, "strength", "[0, 10]")
        check_number(self, "zoom", "[0, 1]")
        check_number(self, "turn", "[0, 180]")
        if self.resolution % 4:
            raise InputError(f"resolution: {self.resolution} was given; use a multiple of 4.")
        if self.steps > _STEPS:
            raise InputError(f"steps: {self.steps} was given; there are {_STEPS} diffusion steps to pick from.")
        if self.training is not None and not isinstance(self.training, Training):
            raise InputError(f"training: {self.training!r} was given; use a genad Training, or None.")

    def learn(self, normal: Tensor, anomalous: Tensor | None, masks: Tensor | None) -> None:
        """Train the denoiser on normal windows, then on the windows of the anomalies."""
        if anomalous is None or masks is None:
            raise InputError(
                f"anomalous: {type(self).__name__} learns from real anomalies; "
                "pass fit(normal, anomalous, masks) with their masks."
            )
        if len(anomalous) < _FEW:
            warnings.warn(
                f"anomalous: only {len(anomalous)} were given; what is generated will repeat them. "
                f"From {_FEW} on, better 20, there is some variety.",
                DataWarning,
                stacklevel=3,
            )
        device = resolve_device(self.device)
        centres, sides = frame_masks(masks, self.resolution)
        # New masks are made from centred ones; the windows learnt from are moved inside their images, and masks that
        # are lost when a window is reduced are left out.
        shapes = cut(masks.float(), centres, sides, self.resolution, padding="zeros") > 0.5
        inner = move_inside(centres, sides, *masks.shape[2:])
        windows = cut(anomalous, inner, sides, self.resolution)
        marked = cut(masks.float(), inner, sides, self.resolution) > 0.5
        kept = shapes.flatten(1).any(1) & marked.flatten(1).any(1)
        if not kept.any():
            raise InputError(f"masks: they vanish at resolution={self.resolution}; use a finer resolution.")
        windows, marked, self.shapes_, self.sides_ = windows[kept], marked[kept], shapes[kept], sides[kept]
        with isolated_rng(self.random_state, device):
            canvas = self._canvas(normal)
            windows, canvas = _centre(windows, marked), _centre(canvas, torch.zeros_like(canvas[:, :1]).bool())
            together = torch.cat([windows, canvas]).transpose(0, 1).flatten(1)
            scale = together.std(1).clamp_min(1e-3).view(1, -1, 1, 1)
            net = _Painter(windows / scale, marked, scale, self.tokens, self.dim).to(device)
            self.training_report_ = TrainingLoop(
                net,
                self._phases(),
                (self.training or Training()).over(self.defaults).over(BASE_TRAINING),
                seed=self.random_state,
                device=device,
                title=type(self).__name__,
            ).run(ArraySamples((canvas / scale).to(device)))
        self.net_ = net

    def _phases(self) -> list[Phase]:
        moved = None if self.tune == "all" else ("denoiser.appearance", "denoiser.mask_encoder")
        return [
            Phase("normal", _Painter.normal_loss, stop=self.normal_share),
            Phase("anomaly", _Painter.anomaly_loss, moved, start=self.normal_share),
        ]

    def _canvas(self, images: Tensor) -> Tensor:
        """Cut normal windows of the sizes of the anomalies' at random places."""
        n, _, height, width = images.shape
        repeats = max(1, -(-256 // n))
        images = images.repeat(repeats, 1, 1, 1)[:1024]
        sides = self.sides_[torch.randint(len(self.sides_), (len(images),))]
        centres = torch.rand(len(images), 2) * torch.tensor([height, width])
        centres = move_inside(centres, sides, height, width).round()
        return cut(images, centres, sides, self.resolution)

    def draft(self, x: Tensor, generator: torch.Generator) -> Draft:
        """Paint one anomaly into each image."""
        check_is_fitted(self, "net_")
        net: _Painter = self.net_
        batch, channels, height, width = x.shape
        device = net.scale.device
        if channels != net.windows.shape[1]:
            raise InputError(
                f"x: images of {channels} channels were given to a {type(self).__name__} fitted on images of "
                f"{net.windows.shape[1]}; fit it on images like these."
            )
        chosen = whole((batch,), 0, len(self.shapes_), generator).to(device)
        mask = quarter_turns(
            self.shapes_.to(device)[chosen],
            whole((batch,), 0, 4, generator).to(device),
            uniform((batch,), 0, 1, generator).to(device) < 0.5,
        )
        mask = vary_masks(mask, generator, self.zoom, self.turn)
        sides = self.sides_.to(device)[chosen].clamp_max(max(height, width))
        centres = self._place(x, mask, sides, generator)
        canvas = cut(x.to(net.scale), centres, sides, self.resolution)
        mean = _surroundings(canvas, mask)
        painted = self._paint((canvas - mean) / net.scale, mask.to(canvas), generator)
        filled = put_back(painted * net.scale + mean, centres, sides, height, width)
        region = put_back(mask.to(canvas), centres, sides, height, width) > 0.5
        drawn = {"mask_of": chosen, "centre": centres, "window": sides}
        return Draft(filled.to(x), region.to(x.device), {key: value.to(x.device) for key, value in drawn.items()})

    def _place(self, x: Tensor, mask: Tensor, sides: Tensor, generator: torch.Generator) -> Tensor:
        """Draw whole-pixel window centres whose masks lie inside the image, on the object where there is one."""
        height, width = x.shape[2:]
        ground = foreground(x, objects=self.objects).flatten(1)
        lottery = uniform((len(x), height * width), 0, 1, generator).to(x.device)
        point = torch.where(ground, lottery, -1.0).argmax(1).to(mask.device)
        centres = []
        for along, size, place in ((3, height, point // width), (2, width, point % width)):
            marked = mask.any(along)[:, 0].int()
            pixel = sides / self.resolution
            before = (self.resolution / 2 - marked.argmax(1)) * pixel
            after = (self.resolution / 2 - marked.flip(1).argmax(1)) * pixel
            low = before.clamp_max(size / 2)
            high = torch.maximum(size - after, low)
            # Windows of even sides sit on pixel borders, of odd sides on pixel centres: no resampling.
            half = (sides / 2) % 1
            centre = torch.minimum(torch.maximum(place + 0.5, low), high)
            centres.append((centre - half).round() + half)
        return torch.stack(centres, 1)

    def _paint(self, canvas: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Sample the masked part by deterministic reverse diffusion; outside, the noised canvas at every step."""
        net: _Painter = self.net_
        schedule, denoiser = net.schedule, net.denoiser
        limit = 1.1 * net.windows.abs().amax()
        times = torch.linspace(_STEPS - 1, 0, self.steps).round().long().tolist()
        noise = normal(tuple(canvas.shape), generator).to(canvas)
        anomaly = torch.ones(len(canvas), dtype=torch.long, device=canvas.device)
        x, weights = noise, None
        for here, then in zip(times, [*times[1:], -1], strict=True):
            t = torch.full((len(canvas),), here, device=canvas.device)
            x = mask * x + (1 - mask) * schedule.q(canvas, t, noise)
            eps = denoiser(x, t, canvas, mask, anomaly, weights)
            if self.strength != 1.0:
                plain = denoiser(x, t, canvas, mask, torch.zeros_like(anomaly))
                eps = plain + self.strength * (eps - plain)
            clean = schedule.x0(x, t, eps).clamp(-limit, limit)
            if self.reweight:
                weights = _attention(clean, canvas, mask)
            if then < 0:
                return clean
            eps = schedule.eps(x, t, clean)
            x = schedule.q(clean, torch.full_like(t, then), eps)
        return x


def _attention(clean: Tensor, canvas: Tensor, mask: Tensor) -> Tensor:
    """Weigh the appearance tokens up, from 1 to 1.5, where the estimate still equals the normal canvas."""
    apart = ((clean - canvas) * mask).square().mean(1, keepdim=True)
    inverse = mask / (apart + 1e-3)
    total = inverse.sum((2, 3), keepdim=True).clamp_min(1e-9)
    weights = inverse / total * mask.sum((2, 3), keepdim=True)
    return torch.where(mask > 0, weights.clamp(1.0, _MOST_ATTENTION), 1.0)


def _surroundings(windows: Tensor, masks: Tensor) -> Tensor:
    """Return the mean (B, C, 1, 1) of what lies outside the mask, or of everything when nothing does."""
    outside = (~masks).to(windows)
    outside = torch.where(outside.flatten(1).any(1).view(-1, 1, 1, 1), outside, 1.0)
    return (windows * outside).sum((2, 3), keepdim=True) / outside.sum((2, 3), keepdim=True)


def _centre(windows: Tensor, masks: Tensor) -> Tensor:
    return windows - _surroundings(windows, masks)
