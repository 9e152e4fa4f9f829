"""Robust deep autoencoder: split the data into what can be reconstructed and a sparse rest, in turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from genad.core.families import EncodeMixin, ReconstructionDetector
from genad.core.inference import Inference, Want
from genad.core.loop import TINY, TrainingLoop
from genad.core.parameters import check_choice, check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.core.runtime import thread_limit
from genad.core.training import Training, TrainingReport
from genad.data.kinds import DENSE
from genad.data.samples import Batch, Samples, Subset, iterate
from genad.nn import Backbone, decoder, default_latent, encoder
from genad.nn.backbone import for_tables
from genad.nn.proximal import group_shrink, soft_threshold
from genad.reconstruction.autoencoder.autoencoder import AutoencoderNet

_TABLE = Backbone("mlp", hidden=(64, 64), activation="tanh")
# Numbers of the sparse part held at most, 256 MB; more samples than fit into it are thinned out.
_MOST_NUMBERS = 2**26
# Samples looked at together in the sparse step, and values that a quantile is taken of.
_BLOCK, _VALUES = 1024, 2**20

Sparsity = Literal["samples", "values"]


class RobustNet(AutoencoderNet):
    """An autoencoder, the level at which residuals are shrunk, and the sparse part while training lasts.

    Attributes
    ----------
    level : Tensor
        Residual above which a value, or the root mean square of a sample, has a sparse part.
    sparse : Tensor of shape (n, *shape)
        Sparse part of the training samples; empty once training is over.
    """

    level: Tensor
    sparse: Tensor

    def __init__(self, encode: nn.Module, decode: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__(encode, decode)
        self.register_buffer("level", torch.zeros(()))
        # Part of the state, so that an interrupted training goes on with the same decomposition.
        self.register_buffer("sparse", torch.zeros(0, *shape))

    def shrink(self, residual: Tensor, sparsity: Sparsity) -> Tensor:
        """Return the sparse part of residuals, ``(B, *shape)``."""
        if sparsity == "values":
            return soft_threshold(residual, self.level)
        return group_shrink(residual, self.level * residual[0].numel() ** 0.5)


@dataclass(slots=True)
class CleanedSamples:
    """Samples less their present sparse part.

    Attributes
    ----------
    samples : Samples
    net : RobustNet
        Holds the sparse part by number of the sample.
    """

    samples: Samples
    net: RobustNet

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.samples.shape

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, indices: Tensor) -> Batch:
        """Return the cleaned samples at ``indices``."""
        batch = self.samples.batch(indices)
        return Batch(batch.x - self.net.sparse.index_select(0, indices), batch.mask)

    def stretch(self, start: int, stop: int) -> Batch:
        """Return the cleaned samples from ``start`` to ``stop``."""
        batch = self.samples.stretch(start, stop)
        return Batch(batch.x - self.net.sparse[start:stop], batch.mask)

    def to(self, device: torch.device) -> CleanedSamples:
        """Return the samples on ``device``, where the network already is."""
        return CleanedSamples(self.samples.to(device), self.net)


@register(
    Card(
        title="Anomaly detection with robust deep autoencoders",
        authors="Zhou, Paffenroth",
        venue="KDD",
        year=2017,
        family=Family.AUTOENCODER,
        kinds=DENSE,
        row="1.1.1-02",
        summary="Learn from contaminated data: what cannot be reconstructed is moved to a sparse part.",
        tags=("robust", "contaminated", "sparse", "l2,1"),
    ),
    name="robust_deep_ae",
)
@dataclass(eq=False, repr=False)
class RobustDeepAE(EncodeMixin, ReconstructionDetector):
    """Split contaminated data ``X = L + S``: an autoencoder reconstructs L, and S is sparse and holds the anomalies.

    Training minimises ``||L - D(E(L))||^2 + lambda ||S||`` with ``X = L + S`` in rounds: the autoencoder learns on
    ``X - S`` for a share of the updates, going on from the weights of the round before; then ``L = D(E(X - S))``, and
    ``S = prox(X - L)``. The norm of S is ``||S||_{2,1}``, whose step shrinks the residual of a whole sample and leaves
    most samples exactly 0, or ``||S||_1``, which does so value by value. What enters S no longer pulls at the network.

    The score of a sample is ``rms(S) + rms(x - D(E(x)))``, in standard deviations of the training data, with S found
    by the same turns with the network held still; a sample is an outlier in the paper's sense where its S is not 0,
    see :meth:`decompose`. The paper ties the decoder's weights to the encoder's; here both are the library's networks
    for the shape of the data.

    **When to use.** Training data with anomalies among them and no labels, about ``share`` of the samples.

    **When it fails.** The level of S decides everything: a ``share`` far below the true contamination leaves an
    ordinary autoencoder, far above it normal samples are thrown away. Clean data gain little. In a trial on three
    ADBench tables, one seed, trained on normals alone, AUROC was 0.901 on cardio, 0.964 on ionosphere and 0.957 on
    thyroid, with ``sparsity="values"`` 0.922, 0.965 and 0.978, of the plain autoencoder 0.921, 0.967 and 0.926. With
    anomalies added to the training data, 5 % of it where there were enough, it was 0.734, 0.953 and 0.863, by values
    0.796, 0.962 and 0.817, of the plain autoencoder 0.811, 0.955 and 0.844, of the residual of principal components
    0.732, 0.956 and 0.854: anomalies that cluster, as in cardio, are learnt before they can be set apart. On 14 ADBench
    tables, three seeds, the mean AUROC / AP is 0.940 / 0.806; :class:`~genad.PPCA` has 0.919 / 0.759. On two recordings
    of each of seven sets AUROC / AP / VUS-PR are 0.770 / 0.587 / 0.578 on average, those of PCA of windows 0.803 /
    0.611 / 0.606; in AUROC it is furthest behind on SMAP and MSL (0.304, 0.609) and SKAB (0.734, 0.945).

    Parameters
    ----------
    sparsity : {"samples", "values"}
        What S is sparse in: whole samples (l2,1 norm, outliers) or single values (l1 norm, noise).
    share : float
        Share of the training samples, or values, that S may hold, in (0, 0.5); lambda is searched anew each round to
        meet it.
    penalty : float, optional
        Lambda itself instead, at least 0: the residual that is left alone, in standard deviations, of a value or of
        the root mean square over a sample.
    rounds : int
        Turns between network and S, at least 1; the updates of the training are shared out among them.
    latent : int, optional
        Length of the code, at least 1; from the size of a sample when absent.

    Examples
    --------
    One row in twenty is off the line that the others lie on.

    >>> import numpy as np
    >>> from genad import Training
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(600, 1)) @ np.ones((1, 5)) + 0.05 * rng.normal(size=(600, 5))
    >>> X[::20] += 2 * rng.normal(size=(30, 5))
    >>> detector = RobustDeepAE(latent=1, training=Training(updates=200)).fit(X)
    >>> clean, sparse = detector.decompose(X)
    >>> outlier = sparse.any(axis=1)
    >>> bool(outlier[::20].mean() > 0.7), bool(outlier.mean() < 0.1)
    (True, True)

    References
    ----------
    Zhou and Paffenroth (2017), Anomaly detection with robust deep autoencoders, KDD.
    """

    sparsity: Sparsity = "samples"
    share: float = 0.05
    penalty: float | None = None
    rounds: int = 8
    latent: int | None = None

    stackable = False
    defaults = Training(epochs=20, min_updates=400, max_updates=2000, batch_size=128, lr=5e-3, warmup=20)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice(self, "sparsity", ("samples", "values"))
        check_number(self, "share", "(0, 0.5)")
        check_whole(self, "rounds")
        if self.penalty is not None:
            check_number(self, "penalty", "[0, inf)")
        if self.latent is not None:
            check_whole(self, "latent")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the encoder and the decoder."""
        latent = int(self.latent or default_latent(shape))
        backbone = for_tables(shape, self.backbone, _TABLE)
        return RobustNet(encoder(shape, latent, backbone), decoder(shape, latent, backbone), shape)

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the mean squared residual over the observed values of L."""
        return batch.sample_mean((net(batch.x) - batch.x).square()).mean()

    def optimise(self, net: Any, samples: Samples) -> TrainingReport:
        """Train in rounds, the sparse part set anew between them."""
        most = max(1, _MOST_NUMBERS // int(np.prod(samples.shape)))
        if len(samples) > most:
            samples = Subset(samples, torch.linspace(0, len(samples) - 1, most, device=self._device).long())
        net.sparse = torch.zeros(len(samples), *samples.shape, device=self._device)
        training = self._training_for(samples.shape)
        total = training.total_updates(len(samples))
        turns = {total * k // self.rounds for k in range(1, self.rounds)}

        def after_step(*_: Any) -> None:
            if loop.step + 1 in turns:
                net.eval()
                self._separate(net, samples)
                net.train()

        loop = TrainingLoop(
            net,
            self.phases(net),
            training,
            seed=self.seed_,
            device=self._device,
            after_step=after_step,
            verbose=self.verbose,
            title=self.name,
        )
        with thread_limit(1 if sum(p.numel() for p in net.parameters()) < TINY else None):
            report = loop.run(CleanedSamples(samples, net))
            self._separate(net, samples)
        net.sparse = net.sparse[:0].clone()
        return report

    @torch.no_grad()
    def _separate(self, net: Any, samples: Samples) -> None:
        """Set S to the shrunk residual of X against what the autoencoder makes of X - S."""
        for where, batch in iterate(samples, _BLOCK):
            restored = net(batch.x - net.sparse[where])
            net.sparse[where] = batch.keep_observed(batch.x - restored)
        net.level.fill_(self._level(net.sparse) if self.penalty is None else self.penalty)
        for where, _ in iterate(samples, _BLOCK):
            net.sparse[where] = net.shrink(net.sparse[where], self.sparsity)

    def _level(self, residual: Tensor) -> float:
        """Return the level that ``share`` of the samples or values exceed."""
        if self.sparsity == "samples":
            size = torch.linalg.vector_norm(residual.flatten(1), dim=1) / residual[0].numel() ** 0.5
        else:
            size = residual.flatten()
            size = size[:: max(1, len(size) // _VALUES)].abs()
        return float(np.quantile(size.cpu().numpy(), 1.0 - self.share))

    def separate(self, net: Any, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return L, S and the plain reconstruction of a batch, with the network held still."""
        first = restored = net(batch.x)
        sparse = torch.zeros_like(batch.x)
        for turn in range(self.rounds):
            if turn:
                restored = net(batch.x - sparse)
            sparse = net.shrink(batch.keep_observed(batch.x - restored), self.sparsity)
        return restored, sparse, first

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Compute score, map and L from one decomposition."""
        restored, sparse, first = self.separate(net, batch)
        plain = batch.keep_observed(batch.x - first)
        score = self.residual_score(net, batch, sparse) + self.residual_score(net, batch, plain)
        return self.answer(batch, want, score, restored)

    def code(self, net: Any, batch: Batch) -> Tensor:
        """Return the code of the part that can be reconstructed."""
        code: Tensor = net.encode(batch.x - self.separate(net, batch)[1])
        return code

    def decompose(self, X: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Split samples into L, which the autoencoder explains, and the sparse S; ``L + S`` is near the sample.

        Parameters
        ----------
        X : array, dataframe, Table or path
            Data of the kind the detector was fitted on.

        Returns
        -------
        tuple of float32 arrays of shape (n, *sample shape)
            L and S on the standardised scale; S of a sample that is no outlier is exactly 0.
        """
        check_is_fitted(self, "net_")
        samples = self._ingest(X, reset=False).samples
        with torch.inference_mode():
            parts = [self.separate(self.net_, batch)[:2] for _, batch in iterate(samples, self._block(samples.shape))]
        clean, sparse = (np.concatenate([part[k].cpu().numpy() for part in parts]) for k in range(2))
        return clean, sparse
