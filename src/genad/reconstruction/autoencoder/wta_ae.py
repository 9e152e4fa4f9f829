"""Winner-take-all autoencoders: hidden units compete for samples, and positions of a feature map for their unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.core.families import EncodeMixin, ReconstructionDetector
from genad.core.inference import Inference, Want
from genad.core.parameters import check_choice, check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.core.training import Training
from genad.data.kinds import DENSE
from genad.data.samples import Batch, Samples, everything
from genad.nn import Backbone, mlp, resolve
from genad.nn.conv import CONV, CONV_TRANSPOSE
from genad.nn.support_vectors import SupportVectors
from genad.nn.video import ChannelsFirst

# Units of rows, and maps of windows, images and clips.
_UNITS, _MAPS = 256, 16
# Longest side, in positions, at which feature maps are computed, and the width of the decoder's kernel.
_SIDE, _PATCH = 64, 11
# Samples that the support vector machine learns from, and that the winners' levels are taken of.
_MACHINE, _LEVELS = 2000, 4000
# Axes of a batch of windows.
_WINDOWS = 3


def lifetime_winners(code: Tensor, share: float) -> Tensor:
    """Keep of each unit its largest activations over the batch, and set the others to 0.

    Parameters
    ----------
    code : Tensor of shape (B, units)
    share : float
        Share of the batch that each unit keeps, in (0, 1]; at least one sample.

    Returns
    -------
    Tensor
        Gradients reach the winners alone.

    Examples
    --------
    >>> lifetime_winners(torch.tensor([[1.0, 5.0], [3.0, 2.0], [2.0, 4.0]]), 0.3)
    tensor([[0., 5.],
            [3., 0.],
            [0., 0.]])
    """
    count = max(1, round(share * len(code)))
    winners = code.detach().topk(count, dim=0).indices
    return code * torch.zeros_like(code).scatter(0, winners, 1.0)


def spatial_winners(maps: Tensor) -> Tensor:
    """Keep of each sample and map ``(B, C, *positions)`` the largest position, one even among equals.

    Examples
    --------
    >>> spatial_winners(torch.tensor([[[1.0, 7.0, 2.0], [4.0, 4.0, 4.0]]]))
    tensor([[[0., 7., 0.],
             [4., 0., 0.]]])
    """
    flat = maps.flatten(2)
    winners = flat.detach().argmax(2, keepdim=True)
    return (flat * torch.zeros_like(flat).scatter(2, winners, 1.0)).view_as(maps)


class WinnerNet(nn.Module):
    """Encoder and linear decoder, the level above which each unit wins, and the machine on the codes.

    Parameters
    ----------
    encode : nn.Module
        ``(B, *shape)`` to activations of at least 0: ``(B, units)``, or ``(B, maps, *positions)``.
    decode : nn.Module
        Linear, back to ``(B, *shape)``.
    units : int
        Units, or maps.

    Attributes
    ----------
    levels : Tensor of shape (units,)
        Activation that a unit's winners among the training samples exceed.
    """

    levels: Tensor

    def __init__(self, encode: nn.Module, decode: nn.Module, units: int) -> None:
        super().__init__()
        self.encode, self.decode = encode, decode
        self.register_buffer("levels", torch.zeros(units))
        self.machine = SupportVectors(units)


class Deconvolution(nn.Module):
    """One transposed convolution to an exact size, whose kernel is as wide as a stroke.

    Parameters
    ----------
    maps, channels : int
    size : tuple of int
        Positions of a sample.
    kernel, stride : tuple of int
        By axis; kernels are odd.
    """

    def __init__(
        self, maps: int, channels: int, size: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...]
    ) -> None:
        super().__init__()
        padding = tuple(k // 2 for k in kernel)
        # The stride leaves the size of the output open by a few positions.
        extra = tuple((n - 1) % s for n, s in zip(size, stride, strict=True))
        self.layer = CONV_TRANSPOSE[len(size)](
            maps, channels, kernel, stride=stride, padding=padding, output_padding=extra
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Return ``(B, channels, *size)``."""
        restored: Tensor = self.layer(maps)
        return restored


class Swapped(nn.Module):
    """Windows ``(B, T, C)`` to ``(B, C, T)``, and back."""

    def forward(self, x: Tensor) -> Tensor:
        """Swap the last two axes."""
        return x.transpose(1, 2)


def _row_coder(shape: tuple[int, ...], spec: Backbone, units: int) -> tuple[nn.Module, nn.Module]:
    values = int(torch.Size(shape).numel())
    hidden = mlp([values, *(spec.hidden or ()), units], spec.activation, spec.dropout, "relu")
    return nn.Sequential(nn.Flatten(), *hidden), nn.Sequential(nn.Linear(units, values), nn.Unflatten(1, shape))


def _map_coder(shape: tuple[int, ...], maps: int) -> tuple[nn.Module, nn.Module]:
    """Make two convolutions that keep the size (large sides are strided once), and one wide deconvolution."""
    channels: int
    size: tuple[int, ...]
    swap: type[nn.Module]
    if len(shape) == 2:
        channels, size, swap = shape[1], shape[:1], Swapped
    elif len(shape) == 3:
        channels, size, swap = shape[0], shape[1:], nn.Identity
    else:
        channels, size, swap = shape[1], (shape[0], *shape[2:]), ChannelsFirst
    ndim = len(size)
    stride = tuple(max(1, -(-n // _SIDE)) for n in size)
    width = 3 if ndim == 3 else 5
    wide = 5 if ndim == 3 else _PATCH
    kernel = tuple(min(wide, n if n % 2 else max(1, n - 1)) for n in size)
    first = CONV[ndim](channels, maps, width, stride=stride, padding=width // 2)
    second = CONV[ndim](maps, maps, width, padding=width // 2)
    encode = nn.Sequential(swap(), first, nn.ReLU(), second, nn.ReLU())
    return encode, nn.Sequential(Deconvolution(maps, channels, size, kernel, stride), swap())


@register(
    Card(
        title="Winner-take-all autoencoders",
        authors="Makhzani, Frey",
        venue="NeurIPS",
        year=2015,
        family=Family.AUTOENCODER,
        kinds=DENSE,
        row="1.1.1-14",
        summary="Hidden units compete: each answers for the few samples, or the one place, that excite it most.",
        tags=("sparse", "lifetime sparsity", "one-class svm"),
    ),
    name="wta_ae",
)
@dataclass(eq=False, repr=False)
class WinnerTakeAllAE(EncodeMixin, ReconstructionDetector):
    """Let hidden units compete for samples: each is trained on the few that excite it most, and is 0 for the rest.

    The code is ``relu``, and there is no penalty: in the forward pass of training every unit keeps its largest
    activations over the batch, a share ``lifetime`` of it (lifetime sparsity), and a linear decoder minimises
    ``mean ||x - x^||^2``. Gradients reach the winners alone, so that no unit dies and each learns a
    prototype. For windows, images and clips a convolutional encoder keeps the size of the sample, every map keeps the
    one position of each sample that is largest (spatial sparsity) before the maps compete for samples, and one wide
    deconvolution draws a stroke around each winner. Both layers of the encoder are trained together.

    Competition over a batch would let a sample's score depend on its neighbours. At scoring no samples compete:
    spatial winners stay, and with ``at_score="levels"`` a unit is heard where it exceeds the level that its winners
    among the training samples exceed; with ``"off"`` it is always heard, as the paper does for features.
    The paper is about features; its use for detection is a choice made here, the machine on pooled codes that of Tran
    and Hogg.

    **When to use.** Samples made of a few recurring parts, and many of them, so that units find their own.

    **When it fails.** Anomalies made of the same parts, and samples that are no sum of parts. Far from all normal codes
    the machine gives one and the same score. In a trial on three ADBench tables, one-class, one seed, AUROC was 0.969
    on cardio, 0.972 on ionosphere and 0.982 on thyroid; the residual of principal components has 0.826, 0.958 and
    0.865. By reconstruction it was 0.860, 0.957 and 0.420: more units than values rebuild whatever they are given, and
    worse with ``at_score="off"`` (0.333, 0.840 and 0.275), because the decoder has only ever heard few units at once.
    The machine became the default for these figures, for windows the error: there an odd sample excites few units, and
    a code of little looks ordinary to the machine (in windows of 32 steps of one TEP recording 6 units of 256 were
    heard at the fault, 139 before it; AUROC of two recordings each 0.83 and 0.23 by the machine and 1.00 and 0.97 by
    the error on TEP, 0.39 and 0.13 against 0.86 and 0.75 on SKAB). On 14 ADBench tables, three seeds, the mean AUROC /
    AP is 0.922 / 0.811; :class:`~genad.PPCA` has 0.919 / 0.759. On two recordings of each of seven sets AUROC / AP /
    VUS-PR are 0.747 / 0.418 / 0.429 on average, those of PCA of windows 0.803 / 0.611 / 0.606; in AUROC it is furthest
    behind on UCR (0.699, 1.000) and SMAP and MSL (0.407, 0.609).

    Parameters
    ----------
    units : int, optional
        Hidden units, or maps, at least 1; when absent 256 for rows, 16 maps otherwise.
    lifetime : float, optional
        Share of the batch for which a unit may be active, in (0, 1]; when absent 0.05 for rows, 0.2 for maps.
    score_by : {"svm", "reconstruction"}, optional
        The signed decision of a one-class support vector machine on the codes, each map pooled by its largest value;
        or the root mean square error. When absent the error for windows, and the machine for all else.
    at_score : {"levels", "off"}
        What stands in for the competition between samples.
    nu : float
        Share of the normal codes that the machine may leave outside, in (0, 1).

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> rng = np.random.default_rng(0)
    >>> parts = np.array([[3.0, 3, 0, 0, 0, 0], [0, 0, 3, 3, 0, 0], [0, 0, 0, 0, 3, 3]])
    >>> X = parts[rng.integers(3, size=600)] + 0.1 * rng.normal(size=(600, 6))
    >>> detector = WinnerTakeAllAE(training=Training(updates=100)).fit(X)
    >>> detector.predict([[3.0, 3, 0, 0, 0, 0], [3.0, 0, 0, 3, 0, 0]])
    array([ 1, -1])

    References
    ----------
    Makhzani and Frey (2015), Winner-take-all autoencoders, NeurIPS.
    Tran and Hogg (2017), Anomaly detection using a convolutional winner-take-all autoencoder, BMVC.
    """

    units: int | None = None
    lifetime: float | None = None
    score_by: Literal["svm", "reconstruction"] | None = None
    at_score: Literal["levels", "off"] = "levels"
    nu: float = 0.1

    stackable = False
    defaults = Training(epochs=20, min_updates=400, max_updates=1500, batch_size=128, lr=5e-3)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.units is not None:
            check_whole(self, "units")
        if self.lifetime is not None:
            check_number(self, "lifetime", "(0, 1]")
        if self.score_by is not None:
            check_choice(self, "score_by", ("svm", "reconstruction"))
        check_choice(self, "at_score", ("levels", "off"))
        check_number(self, "nu", "(0, 1)")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make a fully connected or a convolutional network; a backbone of another kind than those means the latter."""
        name, spec = resolve(shape, self.backbone)
        if name == "mlp":
            units = self.units or _UNITS
            return WinnerNet(*_row_coder(shape, spec, units), units)
        units = self.units or _MAPS
        return WinnerNet(*_map_coder(shape, units), units)

    def _share(self, code: Tensor) -> float:
        return self.lifetime or (0.05 if code.ndim == 2 else 0.2)

    def compete(self, code: Tensor) -> Tensor:
        """Return the winners of a batch: of positions, where there are any, and then of samples."""
        share = self._share(code)
        if code.ndim == 2:
            return lifetime_winners(code, share)
        maps = spatial_winners(code)
        peaks = maps.flatten(2).sum(2)
        # A map that lost has its only winner set to 0.
        kept = lifetime_winners(torch.ones_like(peaks) + peaks.detach(), share) > 0
        return maps * kept.view(*peaks.shape, *[1] * (code.ndim - 2))

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the mean squared residual of what the winners draw."""
        restored = net.decode(self.compete(net.encode(batch.x)))
        return batch.sample_mean((restored - batch.x).square()).mean()

    @staticmethod
    def _pooled(code: Tensor) -> Tensor:
        return code if code.ndim == 2 else code.flatten(2).amax(2)

    def finish(self, net: Any, samples: Samples) -> None:
        """Set the levels of the winners, and fit the machine where it is asked for."""
        x = everything(samples, self._device, _LEVELS).x
        codes = torch.cat([self._pooled(net.encode(part)) for part in x.split(256)])
        share = self._share(net.encode(x[:1]))
        count = max(1, round(share * len(codes)))
        net.levels.copy_(codes.topk(count, dim=0).values[-1])
        if self._by_machine(x):
            few = codes[:: -(-len(codes) // _MACHINE)]
            net.machine.fit_one_class(self._admitted(net, few), self.nu)

    def _by_machine(self, x: Tensor) -> bool:
        """Whether samples (B, *shape) are scored by the machine."""
        return x.ndim != _WINDOWS if self.score_by is None else self.score_by == "svm"

    def _admitted(self, net: Any, code: Tensor) -> Tensor:
        """Silence units below their level; each sample is judged alone."""
        if self.at_score == "off":
            return code
        levels = net.levels.view(-1, *[1] * (code.ndim - 2))
        return code * (code >= levels)

    def _drawn(self, net: Any, code: Tensor) -> Tensor:
        maps = code if code.ndim == 2 else spatial_winners(code)
        restored: Tensor = net.decode(self._admitted(net, maps))
        return restored

    def reconstruct(self, net: Any, batch: Batch) -> Tensor:
        """Draw a batch from its winners."""
        return self._drawn(net, net.encode(batch.x))

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Score by the error, or by the machine; the map is the squared residual in both cases."""
        if not self._by_machine(batch.x):
            return super().infer(net, batch, want)
        code = net.encode(batch.x)
        score = net.machine(self._admitted(net, self._pooled(code)))
        if not want:
            return Inference(score)
        restored = self._drawn(net, code)
        return Inference(score, batch.keep_observed(batch.x - restored).square(), restored)

    def code(self, net: Any, batch: Batch) -> Tensor:
        """Return the activations without any competition; of a map the largest."""
        return F.relu(self._pooled(net.encode(batch.x)))
