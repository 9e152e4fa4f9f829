"""Memory-augmented autoencoder: what leaves the decoder is made of remembered normal pieces alone."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from genad.core.families import EncodeMixin, ReconstructionDetector
from genad.core.parameters import check_choice, check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.core.training import Training
from genad.data.kinds import DENSE
from genad.data.samples import Batch
from genad.nn import Backbone, decoder, default_latent, encoder, resolve
from genad.nn.activation import activation_module
from genad.nn.conv import Upsampling, conv_widths, downsampling, pyramid
from genad.nn.memory_bank import SoftMemory, addressing_entropy
from genad.nn.structural import contrast
from genad.nn.video import ChannelsFirst, clip_widths

_TABLE = Backbone("mlp", hidden=(64, 64), activation="tanh")


class MemAENet(nn.Module):
    """Encoder, memory and decoder; the decoder is given what the memory answers and nothing else.

    Parameters
    ----------
    encode : nn.Module
        ``(B, *shape) -> (B, D)`` or ``(B, D, ...)``, with any number of positions.
    memory : SoftMemory
        Items of length D.
    decode : nn.Module
        From the shape of the code back to ``(B, *shape)``.
    """

    def __init__(self, encode: nn.Module, memory: SoftMemory, decode: nn.Module) -> None:
        super().__init__()
        self.encode, self.memory, self.decode = encode, memory, decode

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the reconstruction, and the addressing weights ``(B, positions, N)``."""
        code = self.encode(x)
        # Every position of a map is a query of its own; a code vector is one query.
        queries = code.flatten(2).transpose(1, 2) if code.ndim > 2 else code.unsqueeze(1)
        read, weights = self.memory(queries)
        return self.decode(read.transpose(1, 2).reshape(code.shape)), weights


def _map_coder(shape: tuple[int, ...], spec: Backbone) -> tuple[nn.Module, nn.Module, int]:
    """Make an encoder of images or clips to a map of features, its mirror, and say how many features there are."""
    clip = len(shape) == 4
    channels, size = (shape[1], (shape[0], *shape[2:])) if clip else (shape[0], shape[1:])
    widths = spec.hidden or (clip_widths(size) if clip else conv_widths(size))
    sizes = pyramid(size, len(widths))
    down: list[nn.Module] = []
    up: list[nn.Module] = []
    for (before, after), at in zip(itertools.pairwise((channels, *widths)), sizes[:-1], strict=True):
        down += [downsampling(before, after, at, spec.activation), activation_module(spec.activation)]
        up = [activation_module(spec.activation), Upsampling(after, before, at, spec.activation), *up]
    # Queries of either sign spread over all directions; and the items are read as they are.
    down, up = down[:-1], up[1:]
    swap: list[nn.Module] = [ChannelsFirst()] if clip else []
    return nn.Sequential(*swap, *down), nn.Sequential(*up, *swap), widths[-1]


@register(
    Card(
        title="Memorizing normality to detect anomaly: memory-augmented deep autoencoder for unsupervised anomaly "
        "detection",
        authors="Gong, Liu, Le, Saha, Mansour, Venkatesh, van den Hengel",
        venue="ICCV",
        year=2019,
        family=Family.AUTOENCODER,
        kinds=DENSE,
        row="1.1.1-06",
        summary="Rebuild a sample from a sparse mixture of remembered normal codes.",
        tags=("memory", "sparse addressing"),
    ),
    name="memae",
)
@dataclass(eq=False, repr=False)
class MemAE(EncodeMixin, ReconstructionDetector):
    """Put a memory between encoder and decoder: the score is the root mean squared error of what the memory rebuilds.

    A code ``z`` only addresses the memory: ``w = softmax(cos(z, m_i))``, weights below ``shrink`` become 0 and the
    rest sums to 1 again, and the decoder is given ``sum_i w_i m_i`` alone. Training moves encoder, decoder and items
    to minimise ``mean (x - D(M^T w))^2 + entropy_weight H(w)``, so that few items describe a normal sample. An anomaly
    is rebuilt from normal items too, and comes out wrong. For images and clips each position of the feature
    map is a query; for rows and windows the code vector is.

    **When to use.** An autoencoder rebuilds the anomalies as well; normal samples consist of pieces that recur.

    **When it fails.** Pieces small enough to recur everywhere (strokes, edges) also make up anomalies, so the finer the
    map, the less the memory forbids. Image AUROC at 32 px, three seeds: 0.580 on magnetic_tile, 0.670 on elpv, 0.783 on
    brain_mri and 0.846 on MNIST one against the rest; pixel PCA has 0.640, 0.668, 0.779 and 0.943. It is barely ahead
    on elpv and brain_mri, and behind on digits, where the pieces of one make up the others. On 14 ADBench tables, three
    seeds, the mean AUROC / AP is 0.935 / 0.810; :class:`~genad.PPCA` has 0.919 / 0.759. On two recordings of each of
    seven sets AUROC / AP / VUS-PR are 0.778 / 0.616 / 0.605 on average, those of PCA of windows 0.803 / 0.611 / 0.606;
    in AUROC it is furthest behind on SMAP and MSL (0.287, 0.609) and SKAB (0.735, 0.945).

    Parameters
    ----------
    memory_size : int
        Items in the memory, at least 1.
    shrink : float, optional
        Weight below which an item is not read, in [0, 1); 1 / ``memory_size`` when absent. The paper suggests 1 to 3
        times that.
    entropy_weight : float
        Weight of the addressing entropy, at least 0.
    similarity : {"cosine", "dot"}
        Cosine as in the paper, or the plain inner product, as in its published program.
    latent : int, optional
        Length of the code vector of rows and windows, and of a backbone asked for by name ``mlp``; from the size of a
        sample when absent. Maps have as many features as their last layer.
    relative : bool
        For images and clips, whether the error counts relative to the contrast of the sample, see
        :func:`~genad.nn.structural.contrast`; False is the paper's plain error.

    References
    ----------
    Gong et al. (2019), Memorizing normality to detect anomaly: memory-augmented deep autoencoder for unsupervised
    anomaly detection, ICCV.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> rng = np.random.default_rng(0)
    >>> angle = rng.uniform(0, 2 * np.pi, 600)
    >>> ring = np.column_stack([np.cos(angle), np.sin(angle), np.cos(angle)]) + 0.03 * rng.normal(size=(600, 3))
    >>> detector = MemAE(training=Training(updates=300)).fit(ring)
    >>> detector.predict([[0.0, 1.0, 0.0], [1.0, 0.0, -1.0]])
    array([ 1, -1])
    """

    memory_size: int = 100
    shrink: float | None = None
    entropy_weight: float = 2e-4
    similarity: Literal["cosine", "dot"] = "cosine"
    latent: int | None = None
    relative: bool = True

    defaults = Training(epochs=40, min_updates=300, max_updates=1500, batch_size=64, lr=3e-3, warmup=20)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "memory_size")
        check_number(self, "entropy_weight", "[0, inf)")
        check_choice(self, "similarity", ("cosine", "dot"))
        if self.shrink is not None:
            check_number(self, "shrink", "[0, 1)")
        if self.latent is not None:
            check_whole(self, "latent")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make encoder, memory and decoder; from maps for images and clips, from a code vector otherwise."""
        name, spec = resolve(shape, self.backbone)
        if name in {"conv", "conv3d"}:
            encode, decode, width = _map_coder(shape, spec)
        else:
            if name == "mlp" and self.backbone is None:
                spec = _TABLE
            width = int(self.latent or default_latent(shape))
            encode, decode = encoder(shape, width, spec), decoder(shape, width, spec)
        return MemAENet(encode, SoftMemory(int(self.memory_size), width, self.similarity, self.shrink), decode)

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the mean squared residual plus the mean addressing entropy."""
        restored, weights = net(batch.x)
        error = batch.sample_mean((restored - batch.x).square()).mean()
        return error + self.entropy_weight * addressing_entropy(weights).mean()

    def reconstruct(self, net: Any, batch: Batch) -> Tensor:
        """Return what the memory rebuilds."""
        restored: Tensor = net(batch.x)[0]
        return restored

    def residual_score(self, net: Any, batch: Batch, residual: Tensor) -> Tensor:
        """Return the root mean squared residual, for images and clips relative to their contrast."""
        error = super().residual_score(net, batch, residual)
        return error / contrast(batch.x, batch.mask) if self.relative and batch.x.ndim > 3 else error

    def code(self, net: Any, batch: Batch) -> Tensor:
        """Return the mean addressing weights over the positions: which items a sample is made of."""
        weights: Tensor = net(batch.x)[1]
        return weights.mean(1)
