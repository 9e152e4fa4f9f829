"""MACE: many services in one model, each judged on the frequencies of its own normal behaviour."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.core.inference import Inference, Want
from genad.core.parameters import check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.core.training import Training, TrainingReport
from genad.core.windows import SeriesDetector, as_windows
from genad.data.adapters import Loaded
from genad.data.kinds import Kind
from genad.data.samples import Batch, Samples, everything
from genad.errors import InputError
from genad.reconstruction.vae.steps import step_sum

# Windows a service's frequencies are chosen from, at most.
_LOOK_AT = 2000
# Keeps the slope of a root finite at 0.
_TINY = 1e-6


class PowerMean(nn.Module):
    """Convolution by a weighted power mean: with a large odd power it follows the largest value under the kernel.

    ``peak(x)_t = (sum_i w_i (x_{t+i} + shift)^power)^(1 / power) - shift`` with weights that are positive and add up to
    1; the valley ``-peak(-x)`` follows the smallest value. The power is odd, so that values below ``-shift`` keep
    their sign.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    kernel : int
        Values under the kernel, odd.
    power : int
        Odd, at least 3.
    shift : float
        Above 0; deviations up to about this size are told apart by sign.
    stride : int
        Steps from one output to the next.

    Examples
    --------
    >>> peak = PowerMean(1, 1, 3, power=7, shift=5.0)
    >>> spike = torch.tensor([[[0.0, 0.0, 3.0, 0.0, 0.0]]])
    >>> high, low = peak(spike)[0, 0, 2], -peak(-spike)[0, 0, 2]
    >>> bool(high > 1.0 > low)
    True
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, power: int, shift: float, stride: int = 1) -> None:
        super().__init__()
        self.kernel, self.power, self.shift, self.stride = kernel, power, shift, stride
        # All start near the plain average, a little apart so that outputs can part ways.
        self.raw = nn.Parameter(0.5 * torch.randn(outputs, inputs, kernel))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, L) to (B, outputs, ceil(L / stride))."""
        side = self.kernel // 2
        # In units of the shift the powers stay near 1.
        lifted = F.pad(x / self.shift + 1.0, (side, side), mode="replicate").pow(self.power)
        weight = self.raw.flatten(1).softmax(1).view_as(self.raw)
        mean = F.conv1d(lifted, weight, stride=self.stride)
        root = mean.sign() * (mean.abs() + _TINY).pow(1.0 / self.power)
        return self.shift * (root - 1.0)


class Branch(nn.Module):
    """One of the two views, peaks or valleys: amplify in time, reconstruct the sparse spectrum, come back.

    Parameters
    ----------
    sign : float
        1 for peaks, -1 for valleys.
    bases : int
        Frequencies of a service.
    width : int
        Features of the encoder.
    kernel, power, shift
        As in :class:`PowerMean`.
    """

    def __init__(self, sign: float, bases: int, width: int, kernel: int, power: int, shift: float) -> None:
        super().__init__()
        self.sign, self.bases = sign, bases
        self.time = PowerMean(1, 1, kernel, power=power, shift=shift)
        self.encode = PowerMean(2, width, kernel, power=power, shift=shift, stride=2)
        self.decode = nn.Linear(width * -(-bases // 2), 2 * bases)

    def forward(self, x: Tensor, basis: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Return amplified windows and their reconstruction, both (B, T, C), given bases (B or 1, T, 2k)."""
        batch, steps, channels = x.shape
        rows = self.sign * x.transpose(1, 2).reshape(-1, 1, steps)
        amplified = self.sign * self.time(rows).view(batch, channels, steps)
        spectrum = (amplified @ basis) / scale
        parts = self.sign * spectrum.reshape(-1, 2, self.bases)
        code = self.sign * self.encode(parts)
        made = self.decode(code.flatten(1)).view(batch, channels, -1) * scale
        return amplified.transpose(1, 2), (made @ basis.transpose(1, 2)).transpose(1, 2)


class MACENet(nn.Module):
    """Both branches, and the frequencies of every service.

    Parameters
    ----------
    shape : tuple of int
        Steps T and channels C of a window.
    bases : int
        Frequencies of a service, k.
    width, kernel, power, shift
        As in :class:`Branch`.

    Attributes
    ----------
    known : int64 Tensor of shape (S,)
        The services met in training.
    basis : Tensor of shape (S + 1, T, 2k)
        Orthonormal cosines and sines of each; the last are for services never met.
    scale : Tensor of shape (S + 1, 1, 2k)
        Root mean square of their coefficients in training.
    """

    known: Tensor
    basis: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, ...], bases: int, width: int, kernel: int, power: int, shift: float) -> None:
        super().__init__()
        steps = shape[0]
        self.bases = min(bases, steps // 2 + 1)
        self.peak = Branch(1.0, self.bases, width, kernel, power, shift)
        self.valley = Branch(-1.0, self.bases, width, kernel, power, shift)
        self.register_buffer("known", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("basis", fourier(steps, range(self.bases)).repeat(2, 1, 1))
        self.register_buffer("scale", torch.ones(2, 1, 2 * self.bases))

    @torch.no_grad()
    def learn_bases(self, batch: Batch) -> None:
        """Choose the frequencies that are largest on average in the windows of each service, and of all."""
        service = batch.x.new_zeros(len(batch), dtype=torch.int64) if batch.group is None else batch.group
        self.known = service.unique()
        amplitude = torch.fft.rfft(batch.x, dim=1, norm="ortho").abs()
        found, scales = [], []
        for mine in [*(service == one for one in self.known), torch.ones_like(service, dtype=torch.bool)]:
            mean = amplitude[mine].mean((0, 2))
            chosen = mean.argsort(descending=True, stable=True)[: self.bases].sort().values
            basis = fourier(batch.x.shape[1], chosen.tolist()).to(batch.x.device)
            spectrum = batch.x[mine].transpose(1, 2) @ basis
            found.append(basis)
            scales.append(spectrum.square().mean((0, 1)).sqrt().clamp_min(1e-3)[None])
        self.basis, self.scale = torch.stack(found), torch.stack(scales)

    def of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the bases and scales of the services of a batch, those usual for all where one was never met."""
        if len(self.known) == 1:
            place = torch.zeros(1, dtype=torch.int64, device=self.basis.device)
        elif batch.group is None:
            place = torch.full((1,), len(self.known), device=self.basis.device)
        else:
            same = batch.group[:, None] == self.known
            place = torch.where(same.any(1), same.float().argmax(1), len(self.known))
        return self.basis[place], self.scale[place]

    def forward(self, batch: Batch) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return amplified and reconstructed windows of both branches."""
        basis, scale = self.of(batch)
        return self.peak(batch.x, basis, scale), self.valley(batch.x, basis, scale)


def fourier(steps: int, frequencies: Any) -> Tensor:
    """Return orthonormal cosines, then sines, of some frequencies of a window, (T, 2k); a sine may be 0 throughout.

    Examples
    --------
    >>> (fourier(8, [0, 2]).T @ fourier(8, [0, 2])).diagonal().round(decimals=3)
    tensor([1., 1., 0., 1.])
    """
    angle = 2.0 * torch.pi / steps * torch.outer(torch.arange(steps, dtype=torch.float64), torch.tensor([*frequencies]))
    waves = torch.cat([angle.cos(), angle.sin()], 1)
    length = torch.linalg.vector_norm(waves, dim=0)
    # The sine of frequency 0, or of half the steps, is rounding error and nothing else.
    return torch.where(length > 1e-6, waves / length.clamp_min(1e-6), 0.0).float()


@register(
    Card(
        title="Learning multi-pattern normalities in the frequency domain for efficient time series anomaly detection",
        authors="Chen, Zhang, Qin, Fan, Jiang, Liang, Wen, Deng",
        venue="ICDE",
        year=2024,
        family=Family.VAE,
        kinds=(Kind.SERIES,),
        row="1.1.2-06",
        summary="One model of many services, each reconstructed on its own few frequencies.",
        tags=("frequency domain", "multi-pattern", "dualistic convolution"),
    ),
    name="mace",
)
@dataclass(eq=False, repr=False)
class MACE(SeriesDetector):
    """Reconstruct windows on the few frequencies that are usual for their own service.

    From its normal windows each service (an entity of the series; the whole series where there is none) gets the k
    Fourier frequencies that are largest on average. Two branches look at a window. One amplifies its peaks and one its
    valleys, by power means (:class:`PowerMean`), in time and again in the encoder of the sparse spectrum, whose decoder
    is linear; the way back to time uses the service's own frequencies only. The networks are shared by all services and
    channels. The score of a step is the larger of the squared errors of both branches, averaged over channels and
    over the windows that hold the step. What does not fit the service's frequencies, as a spike does not, cannot be
    reconstructed.

    This is a reading of the paper's published ideas: exponent, shift, kernel, and the way the branches are merged are
    unverified. In particular the shift is added before the power is taken, since with a factor in its place
    the valley of an odd power would equal the peak. Despite its place in the family it is not variational.

    **When to use.** Many periodic services in one file (``as_series(..., entity=...)``), too many for a model each.

    **When it fails.** Where normal behaviour has no few frequencies. An anomaly that lasts longer than a window and
    oscillates as usual is not seen. An entity unknown to the fit is judged by the frequencies usual for all together.
    In a trial, mean AUROC / AP over three SKAB recordings and one stretch of SMD, one seed, are 0.834 / 0.691, behind
    0.943 / 0.806 of PCA of windows: channels are reconstructed one by one, so what is odd about their relation is not
    seen. On two recordings of each of seven sets AUROC / AP / VUS-PR are 0.778 / 0.463 / 0.520 on average, those of PCA
    of windows 0.803 / 0.611 / 0.606; in AUROC it is furthest behind on SKAB (0.815, 0.945) and ASD (0.607, 0.682).

    Parameters
    ----------
    bases : int
        Frequencies of a service, at least 1; at most half the window and one are used.
    power : int
        Exponent of the power means, odd and at least 3: an even one would lose signs.
    shift : float
        What is added before the power is taken, above 0, in standard deviations of the training data.
    kernel : int
        Steps and frequencies under a power mean, odd and at least 3.
    width : int
        Features of the encoder at every other frequency, at least 1.

    Examples
    --------
    Two services of one file; later the slow one oscillates for a while as the fast one does.

    >>> import numpy as np
    >>> from genad import Training, as_series
    >>> t = np.arange(400)
    >>> values = np.r_[np.sin(t / 5), np.sin(t / 2)]
    >>> service = np.repeat(["slow", "fast"], 400)
    >>> detector = MACE(training=Training(updates=60)).fit(as_series(values, entity=service))
    >>> values[300:340] = values[700:740]
    >>> scores = detector.anomaly_score(as_series(values, entity=service))
    >>> bool(scores[310:330].mean() > 5 * np.median(scores))
    True

    References
    ----------
    Chen, Zhang, Qin, Fan, Jiang, Liang, Wen and Deng (2024), Learning multi-pattern normalities in the frequency domain
    for efficient time series anomaly detection, ICDE.
    """

    bases: int = 10
    power: int = 7
    shift: float = 5.0
    kernel: int = 3
    width: int = 4

    default_window: ClassVar[int] = 40
    stackable = False
    defaults = Training(updates=300, batch_size=64, lr=5e-3, clip=10.0)
    takes_backbone = False

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "bases", "width")
        check_number(self, "shift", "(0, inf)")
        for name in ("power", "kernel"):
            check_whole(self, name, low=3)
            if getattr(self, name) % 2 == 0:
                raise InputError(f"{name}: {getattr(self, name)!r} was given; use an odd number of at least 3.")

    def _ingest(self, X: Any, *, reset: bool, y: Any = None) -> Loaded:
        loaded = super()._ingest(X, reset=reset, y=y)
        entity = getattr(loaded.source, "entity", None)
        if entity is not None:
            names, place = np.unique(np.asarray(entity).astype(str), return_inverse=True)
            # Numbers that stay the same in another series and after saving.
            numbers = np.array([zlib.crc32(str(name).encode()) for name in names], np.int64)[place]
            loaded.samples = replace(as_windows(loaded.samples), group=torch.from_numpy(numbers).to(self._device))
        return loaded

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make both branches."""
        return MACENet(shape, self.bases, self.width, self.kernel, self.power, self.shift)

    def optimise(self, net: Any, samples: Samples) -> TrainingReport:
        """Choose the frequencies of each service from the training windows, then train."""
        net.learn_bases(everything(samples, self._device, max(_LOOK_AT, len(samples) // 20)))
        return super().optimise(net, samples)

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the mean squared errors of both branches' reconstructions of what they amplified, added up."""
        # A target that could move would move to where it is easy, so it does not.
        errors = [(made - amplified.detach()).square() for amplified, made in net(batch)]
        return batch.sample_mean(errors[0] + errors[1]).mean()

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Score every step by the larger error of the branches; their mean reconstruction is the restored window."""
        (high, made_high), (low, made_low) = net(batch)
        error = torch.maximum((high - made_high).square(), (low - made_low).square())
        score = step_sum(batch, error) / batch.x.shape[-1]
        return Inference.of(batch, want, score, error, 0.5 * (made_high + made_low))
