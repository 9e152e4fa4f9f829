"""Joint energy model: the logits of a classifier of normal samples, read as a density."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.core.labelled import LabelledDetector, LabelledSamples, LabelStore
from genad.core.parameters import check_number, check_whole
from genad.core.registry import Card, Family, register
from genad.core.splits import Labels
from genad.core.training import TrainingReport
from genad.data.adapters import Loaded
from genad.data.kinds import DENSE
from genad.data.samples import Batch, Samples, Subset, iterate
from genad.density.explicit.ebm_sgld import EBMSGLD, ChainedEnergyNet
from genad.errors import InputError

# The least number in y that names a class of normal samples: 1 is an anomaly, 0 and -1 are of no known class.
_FIRST_CLASS = 2
# Samples that decide the clusters which stand in for classes, fewer of large ones, and starts of k-means.
_CLUSTERED, _CLUSTERED_NUMBERS, _STARTS = 4000, 2**22, 3


class JointNet(ChainedEnergyNet):
    """The energy of a classifier: ``E(x) = |x - b|^2 / 2 - log mean_y exp f(x)[y]``.

    Attributes
    ----------
    told : LabelStore
        Samples with a class, while the network is trained.
    names : Tensor of int64
        Buffer: what ``y`` called each class; empty when clusters stood in for classes.
    """

    names: Tensor

    def __init__(self, features: nn.Module, shape: tuple[int, ...], chains: int, renewed: float) -> None:
        super().__init__(features, shape, chains, renewed)
        self.told = LabelStore(shape)
        self.register_buffer("names", torch.zeros(0, dtype=torch.int64))

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of the classes, (B, classes)."""
        found: Tensor = self.features(x)
        return found

    def bonus(self, x: Tensor) -> Tensor:
        """Return what the classes together take off the quadratic energy, (B,)."""
        logits = self.logits(x)
        return logits.logsumexp(1) - math.log(logits.shape[1])


@register(
    Card(
        title="Your Classifier Is Secretly an Energy Based Model and You Should Treat It Like One",
        authors="Grathwohl, Wang, Jacobsen, Duvenaud, Norouzi, Swersky",
        venue="ICLR",
        year=2020,
        family=Family.ENERGY,
        kinds=DENSE,
        row="1.3.1-04b",
        summary="A classifier of normal samples trained as a density too, by Langevin chains.",
        tags=("energy-based model", "classifier", "Langevin", "replay buffer", "classes"),
    ),
    name="jem",
)
@dataclass(eq=False, repr=False)
class JEM(LabelledDetector, EBMSGLD):
    """Train a classifier of normal samples as a density too: the log-sum of its logits is the log-density.

    A network has a logit ``f(x)[y]`` for each class of normal samples. They give the classes as in any classifier, and
    with ``E(x) = |x - b|^2 / 2 - log mean_y exp f(x)[y]`` also an energy, trained as that of ``ebm_sgld``: low at the
    data, high at samples ``x-`` that persistent Langevin chains draw from the model. One loss holds both:

        E(x+) - E(x-) + class_weight * cross entropy of the labelled samples

    What separates the classes thus shapes the density. Three scores are on offer: the energy; the length of its slope,
    the approximate mass, which is high where the density is a peak without room; and the surprise of the most likely
    class, ``-log max_y p(y|x)``. Chains, their restart after a divergence and the jitter are those of ``ebm_sgld``.

    Classes come with ``y``: as for every detector 1 marks an anomaly, which is kept out, and 0 and -1 normal samples of
    no known class; **whole numbers from 2 on name classes of normal samples**, of which some may be labelled and others
    not. When ``y`` names none, clusters of k-means stand in for classes; ``class_weight=0`` does without them.

    When to use
    -----------
    Normal samples of known kinds (products, operating modes, digits) that an anomaly resembles none of, when the kind
    of a sample is wanted as well.

    In a trial on the digits of scikit-learn (0 to 7 as normal, half of them to train; 8 and 9 as anomalies; one
    seed) AUROC was 0.741 by the energy, 0.701 by the slope and 0.912 by the confidence with the classes given, which
    97 % of the normal test digits got right; with clusters in their place 0.740, 0.691 and 0.859, and without any
    0.744, 0.817 and 0.580. ``ppca`` has 0.790 there. Without labels on three ADBench tables, one-class, it is on a
    level with ``ebm_sgld``: 0.949 on cardio, 0.987 on thyroid and 0.998 on satimage-2 by the energy (``ppca``: 0.945,
    0.973 and 0.995), and 0.140, 0.501 and 0.554 by the confidence, which is worthless where classes are made up.

    When it fails
    -------------
    As ``ebm_sgld``: detail finer than ``jitter`` is lost, and results differ between seeds. A classifier is as sure of
    itself far from all classes as within one, so that the confidence finds what lies between classes and misses the
    rest. Clusters know nothing that the rows do not say: without labels little is gained over ``ebm_sgld``.
    Classes teach in a fit on samples; inside ``Windowed`` or ``Ensemble`` they are not looked at. On 14 ADBench tables,
    three seeds, the mean AUROC / AP is 0.943 / 0.823, where ``ebm_sgld`` has 0.934 / 0.800 and ``ppca`` 0.919 / 0.759.

    Parameters
    ----------
    score_by : {"energy", "slope", "confidence"}
        Score by the energy in nats, by the root mean squared slope of the energy, or by the surprise of the most likely
        class in nats.
    classes : int
        Logits, at least 1, and as many as ``y`` names classes; clusters when it names none.
    class_weight : float
        Weight of the cross entropy against the contrast of energies, at least 0; 1 in the paper.

    Examples
    --------
    Three classes, of which the last test point is none.

    >>> import numpy as np
    >>> from genad import Training, create
    >>> rng = np.random.default_rng(0)
    >>> kind = rng.integers(0, 3, 600)
    >>> X = np.array([[0, 2], [2, -1], [-2, -1]])[kind] + 0.3 * rng.normal(size=(600, 2))
    >>> detector = create("jem", classes=3, training=Training(updates=60, lr=5e-3)).fit(X, y=kind + 2)
    >>> detector.classify([[0, 2], [2, -1], [-2, -1]]).tolist()
    [2, 3, 4]
    >>> inside, outside = detector.anomaly_score([[0, 2], [5, 5]])
    >>> bool(outside > inside + 3)
    True

    References
    ----------
    Grathwohl et al. (2020), Your classifier is secretly an energy based model and you should treat it like one, ICLR.
    Du and Mordatch (2019), Implicit generation and modeling with energy-based models, NeurIPS.
    """

    score_by: Literal["energy", "slope", "confidence"] = "energy"  # type: ignore[assignment]
    classes: int = field(default=10, kw_only=True)
    class_weight: float = field(default=1.0, kw_only=True)

    scores = ("energy", "slope", "confidence")

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "classes")
        check_number(self, "class_weight", "[0, inf)")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the classifier, and chains that start from a uniform cube."""
        features = self._features(shape, int(self.classes))
        return JointNet(features, shape, int(self.chains), float(self.renewed))

    def _ingest(self, X: Any, *, reset: bool, y: Any = None) -> Loaded:
        return super()._ingest(X, reset=reset, y=_split_labels(y)[0])

    def _labels(self, y: Any, loaded: Loaded) -> Labels:
        flags, named = _split_labels(y)
        found = super()._labels(flags, loaded)
        if named is None:
            return found
        count = len(np.unique(named[named >= _FIRST_CLASS]))
        if count > self.classes:
            raise InputError(
                f"y: {count} classes of normal units were given, and classes={self.classes}; raise classes to {count}."
            )
        named = loaded.from_user(named)
        return Labels(np.where(named >= _FIRST_CLASS, named, found.values))

    def taught(self, labels: Labels, train: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Learn the classes of samples that are trained on; those held out are calibrated on."""
        return train & (labels.values >= _FIRST_CLASS)

    def optimise(self, net: Any, samples: Samples) -> TrainingReport:
        """Train with the classes that ``y`` named, or with clusters that stand in for them."""
        if isinstance(samples, LabelledSamples) and len(samples.taught):
            net.names, numbers = samples.labels.unique(return_inverse=True)
            samples = LabelledSamples(samples.samples, samples.taught, numbers)
        else:
            samples = self._clustered(samples)
        return super().optimise(net, samples)

    def _clustered(self, samples: Samples) -> LabelledSamples:
        """Give an evenly spread part of the samples the numbers of their clusters."""
        few = min(len(samples), _CLUSTERED, max(16, _CLUSTERED_NUMBERS // math.prod(samples.shape)))
        part = Subset(samples, torch.linspace(0, len(samples) - 1, few, device=self._device).long())
        points = part.batch(torch.arange(few, device=self._device)).x.flatten(1).cpu().double().numpy()
        clusters = min(self.classes, len(np.unique(points, axis=0)))
        model = KMeans(clusters, n_init=_STARTS, random_state=self.seed_ % 2**32).fit(points)
        return LabelledSamples(samples, part, torch.from_numpy(model.labels_).long().to(self._device))

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Lower the energy of the data against that of the chains, and learn the classes."""
        contrast = super().loss(net, batch)
        if not len(net.told) or not self.class_weight:
            return contrast
        told, numbers = net.told.draw(len(batch))
        noised = told.keep_observed(told.x + self.jitter * torch.randn_like(told.x))
        return contrast + self.class_weight * F.cross_entropy(net.logits(noised), numbers) / batch.x[0].numel()

    def score_batch(self, net: Any, batch: Batch) -> Tensor:
        """Return the energy in nats, the length of its slope, or how unsure the classifier is, in nats."""
        if self.score_by != "confidence":
            return super().score_batch(net, batch)
        with torch.no_grad():
            unsure: Tensor = -net.logits(batch.x).log_softmax(1).amax(1)
            return unsure

    def classify(self, X: Any) -> NDArray[np.int64]:
        """Return the most likely class of each sample.

        Parameters
        ----------
        X : array, dataframe, Table, Series or path
            Data of the kind the detector was fitted on.

        Returns
        -------
        int array of shape (n,)
            As ``y`` of the fit named the classes; numbers of clusters, from 0, when it named none.
        """
        check_is_fitted(self, "net_")
        samples = self._ingest(X, reset=False).samples
        net: Any = self.net_
        with torch.inference_mode():
            parts = [net.logits(batch.x) for _, batch in iterate(samples, self._block(samples.shape))]
        logits = torch.cat(parts)
        found = logits[:, : len(net.names)].argmax(1) if len(net.names) else logits.argmax(1)
        named: Tensor = net.names[found] if len(net.names) else found
        return named.cpu().numpy()


def _split_labels(y: Any) -> tuple[Any, NDArray[np.int64] | None]:
    """Return ``y`` with 0 for every class of normal samples, and the classes; None when ``y`` names none."""
    values = np.empty(0) if y is None else np.asarray(y).ravel()
    if values.dtype.kind not in "iuf" or not values.size or not np.isfinite(values).all():
        return y, None
    if (values != np.rint(values)).any() or values.min() < -1 or values.max() < _FIRST_CLASS:
        return y, None
    named = values.astype(np.int64)
    return np.where(named >= _FIRST_CLASS, 0, named), named
