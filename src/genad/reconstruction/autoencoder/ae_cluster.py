"""Autoencoder and clusters: how far a code is from the groups of normal codes, and how well it is reconstructed."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.core.families import EncodeMixin, ReconstructionDetector
from genad.core.inference import Inference, Want
from genad.core.parameters import check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.core.training import Training
from genad.data.kinds import DENSE
from genad.data.samples import Batch, Samples, everything, iterate
from genad.errors import InputError
from genad.nn import Backbone, decoder, encoder
from genad.nn.backbone import for_tables
from genad.reconstruction.autoencoder.autoencoder import AutoencoderNet

_TABLE = Backbone("mlp", hidden=(64, 64), activation="tanh")
# Samples that the clusters are found on, and those that the silhouette compares in pairs.
_MOST, _SILHOUETTE = 10_000, 1000
# Starts of k-means, the most clusters tried, and the fewest samples a cluster may have on average.
_STARTS, _CLUSTERS, _POINTS = 10, 15, 20
# A clear grouping; below this silhouette the codes are one cloud.
_CLEAR = 0.25
_SMALL = 1e-6


class ClusterNet(AutoencoderNet):
    """An autoencoder, the clusters of its normal features, and the distances and errors of normal samples.

    Attributes
    ----------
    middle, scale : Tensor of shape (D,)
        Mean and inverse standard deviation of the features, 0 for constant ones.
    centres : Tensor of shape (k, D)
        Cluster centres on the standardised scale.
    spread : Tensor of shape (k,)
        Root mean square distance of a cluster's members to its centre.
    distances, errors : Tensor of shape (n,)
        Of normal samples, ascending: what ranks are taken against.
    """

    middle: Tensor
    scale: Tensor
    centres: Tensor
    spread: Tensor
    distances: Tensor
    errors: Tensor

    def __init__(self, encode: nn.Module, decode: nn.Module, features: int) -> None:
        super().__init__(encode, decode)
        self.register_buffer("middle", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("centres", torch.zeros(1, features))
        self.register_buffer("spread", torch.ones(1))
        self.register_buffer("distances", torch.zeros(1))
        self.register_buffer("errors", torch.zeros(1))

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return code, relative error and cosine of each sample, ``(B, latent + 2)``, and the reconstruction."""
        code = self.encode(batch.x)
        restored = self.decode(code)
        x, y = batch.x.flatten(1), batch.keep_observed(restored).flatten(1)
        size = torch.linalg.vector_norm(x, dim=1).clamp_min(_SMALL)
        # Both are taken on a log or bounded scale, so that one gross sample does not stretch the space.
        relative = torch.log1p(torch.linalg.vector_norm(x - y, dim=1) / size)
        cosine = F.cosine_similarity(x, y, dim=1)
        return torch.cat([code, relative[:, None], cosine[:, None]], 1), restored

    def nearest(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the distance to the nearest cluster in units of its spread, and which cluster that is."""
        placed = (features - self.middle) * self.scale
        apart = torch.cdist(placed, self.centres, compute_mode="donot_use_mm_for_euclid_dist") / self.spread
        found = apart.min(1)
        return found.values, found.indices


def tail_rank(values: Tensor, normal: Tensor) -> Tensor:
    """Rank values among ascending normal ones, as ``-log`` of the share of normal values above.

    Between normal values the rank is interpolated; above all of them it goes on rising with the logarithm of the
    value, so that gross anomalies keep their order.

    Examples
    --------
    >>> tail_rank(torch.tensor([0.0, 2.5, 4.0, 8.0]), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    tensor([0.0000, 0.4700, 1.3863, 2.0794])
    """
    n = len(normal)
    above = torch.searchsorted(normal, values.contiguous())
    low, high = normal[(above - 1).clamp_min(0)], normal[above.clamp_max(n - 1)]
    part = ((values - low) / (high - low).clamp_min(_SMALL)).clamp(0, 1)
    below = (above - 1 + torch.where(above < n, part, 0.0)).clamp(0.0, n - 1.0)
    beyond = torch.log((values / normal[-1].clamp_min(_SMALL)).clamp_min(1.0))
    return beyond - torch.log1p(-below / n)


@register(
    Card(
        title="Autoencoder codes in clusters, and a type for every anomaly",
        authors="genad, after Zong et al. and Xie et al.",
        venue="",
        year=2018,
        family=Family.AUTOENCODER,
        kinds=DENSE,
        summary="Distance to the nearest cluster of normal codes, ranked beside the reconstruction error.",
        tags=("clustering", "k-means", "anomaly types"),
    ),
    name="ae_cluster",
)
@dataclass(eq=False, repr=False)
class AECluster(EncodeMixin, ReconstructionDetector):
    """Cluster the codes of normal samples; score the distance to the nearest cluster and the error, each by its rank.

    An autoencoder is trained first and then left alone. Code, relative error ``||x - x'|| / ||x||`` and cosine of a
    sample, standardised, are clustered by k-means. With d the distance to the nearest centre in units of that
    cluster's spread, and e the reconstruction error, the score is ``(1 - w) r(d) + w r(e)``, w being ``error_weight``:
    r is the rank among normal samples, on the scale ``-log(share of normal samples above)``. Distances and errors have
    different units, ranks have none. Beyond all normal samples r goes on with the logarithm of the value.
    :meth:`anomaly_types` groups the flagged samples by what they look like.

    **When to use.** Normal data in several groups, each of which may be dense or wide; and reports that should say
    which kind of anomaly has been found.

    **When it fails.** One cloud without groups: the distance to a few centres says less than the error. In a trial on
    three ADBench tables, one-class, one seed, AUROC was 0.936 on cardio, 0.947 on ionosphere and 0.970 on thyroid, by
    the distance alone 0.938, 0.912 and 0.925, by the error alone 0.913, 0.964 and 0.974; the residual of principal
    components has 0.826, 0.958 and 0.865. On 14 ADBench tables, three seeds, the mean AUROC / AP is 0.926 / 0.783;
    :class:`~genad.PPCA` has 0.919 / 0.759. On two recordings of each of seven sets AUROC / AP / VUS-PR are 0.741 /
    0.561 / 0.573 on average, those of PCA of windows 0.803 / 0.611 / 0.606; in AUROC it is furthest behind on SKAB
    (0.612, 0.945) and SMAP and MSL (0.291, 0.609).

    Parameters
    ----------
    clusters : int, optional
        Number of clusters, at least 1; when absent the one from 1 to 15 with the best silhouette, 1 where no
        grouping is clear.
    error_weight : float
        Weight w of the reconstruction error against the distance, in [0, 1].
    latent : int
        Length of the code, at least 1.

    Examples
    --------
    Two groups of rows; the space between them is empty.

    >>> import numpy as np
    >>> from genad import Training
    >>> rng = np.random.default_rng(0)
    >>> X = np.where(rng.random((600, 1)) < 0.5, -3.0, 3.0) + 0.3 * rng.normal(size=(600, 4))
    >>> detector = AECluster(latent=2, training=Training(updates=100)).fit(X)
    >>> len(detector.net_.centres), detector.predict([[3.0, 3, 3, 3], [0.0, 0, 0, 0]])
    (2, array([ 1, -1]))

    References
    ----------
    Zong et al. (2018), Deep autoencoding Gaussian mixture model for unsupervised anomaly detection, ICLR.
    Xie et al. (2016), Unsupervised deep embedding for clustering analysis, ICML.
    """

    clusters: int | None = None
    error_weight: float = 0.5
    latent: int = 8

    stackable = False
    defaults = Training(epochs=10, min_updates=300, max_updates=2000, batch_size=128, lr=1e-2, warmup=20)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.clusters is not None:
            check_whole(self, "clusters")
        check_whole(self, "latent")
        check_number(self, "error_weight", "[0, 1]")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the encoder and the decoder; a code is never longer than all but one of the values."""
        latent = max(1, min(int(self.latent), int(np.prod(shape)) - 1))
        backbone = for_tables(shape, self.backbone, _TABLE)
        return ClusterNet(encoder(shape, latent, backbone), decoder(shape, latent, backbone), latent + 2)

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the mean squared residual over the observed values."""
        return batch.sample_mean((net(batch.x) - batch.x).square()).mean()

    def finish(self, net: Any, samples: Samples) -> None:
        """Find the clusters, and note the distances and errors of normal samples."""
        whole = everything(samples, self._device, _MOST)
        parts, errors = [], []
        for rows in torch.arange(len(whole), device=whole.x.device).split(256):
            batch = Batch(whole.x[rows], None if whole.mask is None else whole.mask[rows])
            features, restored = net.features(batch)
            parts.append(features)
            errors.append(self._error(net, batch, restored))
        features = torch.cat(parts)
        spread = features.std(0, correction=0)
        net.middle = features.mean(0)
        net.scale = torch.where(spread > _SMALL, 1.0 / spread.clamp_min(_SMALL), 0.0)
        placed = ((features - net.middle) * net.scale).double().cpu().numpy()
        labels, centres = self._clustered(placed)
        net.centres = torch.from_numpy(centres).to(features)
        own = np.square(placed - centres[labels]).sum(1)
        sizes = np.bincount(labels, minlength=len(centres))
        mean = np.bincount(labels, own, minlength=len(centres)) / np.maximum(sizes, 1)
        # A cluster of one point, or of equal ones, is as wide as a tenth of the whole at least.
        least = 0.1 * max(np.sqrt(own.mean()), _SMALL)
        net.spread = torch.from_numpy(np.maximum(np.sqrt(mean), least)).to(features)
        net.distances = net.nearest(features)[0].sort().values
        net.errors = torch.cat(errors).sort().values

    def _clustered(self, points: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Return the cluster of every point and the centres."""
        distinct = len(np.unique(points.round(9), axis=0))
        if self.clusters is not None:
            labels, centres, _ = self._k_means(points, min(self.clusters, distinct))
            return labels, centres
        best = (np.zeros(len(points), np.int64), points.mean(0, keepdims=True))
        clearest = _CLEAR
        for k in range(2, 1 + min(_CLUSTERS, distinct - 1, len(points) // _POINTS)):
            labels, centres, clear = self._k_means(points, k)
            if clear > clearest:
                clearest, best = clear, (labels, centres)
        return best

    def _k_means(self, points: NDArray[np.float64], k: int) -> tuple[NDArray[Any], NDArray[np.float64], float]:
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.metrics import silhouette_score

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = KMeans(k, n_init=_STARTS, random_state=self.seed_).fit(points)
        labels, few = found.labels_, slice(None, None, -(-len(points) // _SILHOUETTE))
        groups = len(np.unique(labels[few]))
        clear = silhouette_score(points[few], labels[few]) if 1 < groups < len(labels[few]) else -1.0
        return labels, found.cluster_centers_, float(clear)

    def _error(self, net: Any, batch: Batch, restored: Tensor) -> Tensor:
        return self.residual_score(net, batch, batch.keep_observed(batch.x - restored))

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Compute both ranks from one pass; the map is the squared residual."""
        features, restored = net.features(batch)
        distance, _ = net.nearest(features)
        error = self._error(net, batch, restored)
        weight = self.error_weight
        score = (1 - weight) * tail_rank(distance, net.distances) + weight * tail_rank(error, net.errors)
        return self.answer(batch, want, score, restored)

    def code(self, net: Any, batch: Batch) -> Tensor:
        """Return the code, the relative error and the cosine, as they are clustered."""
        placed: Tensor = (net.features(batch)[0] - net.middle) * net.scale
        return placed

    def assign(self, X: Any) -> NDArray[np.int64]:
        """Return the number of the normal cluster that each sample is nearest to, from 0.

        Parameters
        ----------
        X : array, dataframe, Table or path
            Data of the kind the detector was fitted on.

        Returns
        -------
        int64 array of shape (n,)
        """
        check_is_fitted(self, "net_")
        samples = self._ingest(X, reset=False).samples
        with torch.inference_mode():
            found = [
                self.net_.nearest(self.net_.features(batch)[0])[1].cpu().numpy()  # type: ignore[operator]
                for _, batch in iterate(samples, self._block(samples.shape))
            ]
        return np.concatenate(found)

    def anomaly_types(self, X: Any, types: int | None = None) -> NDArray[np.int64]:
        """Group the flagged samples by the direction in which they leave their reconstruction.

        Parameters
        ----------
        X : array, dataframe, Table or path
            Data of the kind the detector was fitted on.
        types : int, optional
            Number of groups, at least 1; by the silhouette, up to 15, when absent.

        Returns
        -------
        int64 array of shape (n,)
            -1 for samples that are not flagged; the others are numbered from 0, the largest group first.

        Raises
        ------
        InputError
            When ``types`` is not a whole number of at least 1.
        """
        if types is not None and (not isinstance(types, int | np.integer) or isinstance(types, bool) or types < 1):
            raise InputError(f"types: {types!r} was given; use a whole number of at least 1, or None.")
        check_is_fitted(self, "net_")
        flagged = np.flatnonzero(self.predict(X) == -1)
        found = np.full(len(self._ingest(X, reset=False).samples), -1, np.int64)
        if not len(flagged):
            return found
        samples = self._ingest(X, reset=False).samples
        residual = []
        with torch.inference_mode():
            for start in range(0, len(flagged), 256):
                rows = torch.from_numpy(flagged[start : start + 256]).to(self._device)
                batch = samples.batch(rows)
                residual.append(batch.keep_observed(batch.x - self.net_(batch.x)).flatten(1).cpu().numpy())
        # Direction says what is wrong, length only how much.
        apart = np.concatenate(residual).astype(np.float64)
        apart /= np.maximum(np.linalg.norm(apart, axis=1, keepdims=True), _SMALL)
        labels = self._typed(apart, types)
        order = np.argsort(-np.bincount(labels), kind="stable")
        found[flagged] = np.argsort(order)[labels]
        return found

    def _typed(self, points: NDArray[np.float64], types: int | None) -> NDArray[Any]:
        distinct = len(np.unique(points.round(9), axis=0))
        if types is not None:
            return self._k_means(points, min(types, distinct))[0]
        tried = [self._k_means(points, k) for k in range(2, 1 + min(_CLUSTERS, distinct - 1))]
        best = max(tried, key=lambda found: found[2], default=None)
        if best is None or best[2] < _CLEAR:
            return np.zeros(len(points), np.int64)
        return best[0]
