"""TCCM: one evaluation of a field that contracts normal samples to the origin."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from genad.core.families import ReconstructionDetector
from genad.core.registry import Card, Family, register
from genad.core.training import Training
from genad.data.kinds import DENSE
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn import Backbone, TimeEmbedding, mlp, resolve, translator

# Length of the embedding of the time, and how much times in [0, 1] are stretched for it.
_TIME, _STRETCH = 128, 1000.0
# Widths of the paper's network.
_HIDDEN = (256, 256)


class ContractionField(nn.Module):
    """f(x, t) of the sample's shape.

    Rows of a table go through a plain network of sample and embedded time side by side; other shapes through their
    backbone, told the time.

    Parameters
    ----------
    shape : tuple of int
        Shape of one sample.
    spec : Backbone, str or None
        Which network.
    """

    def __init__(self, shape: tuple[int, ...], spec: Backbone | str | None = None) -> None:
        super().__init__()
        kind, full = resolve(shape, spec)
        self.shape = shape
        self.time = TimeEmbedding(_TIME)
        self.flat = kind == "mlp"
        size = math.prod(shape)
        widths = [size + _TIME, *(full.hidden or _HIDDEN), size]
        self.body = mlp(widths, full.activation, full.dropout) if self.flat else translator(shape, full, cond=_TIME)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Map samples ``(B, *shape)`` and times ``(B,)`` in [0, 1] to the field there."""
        told = self.time(_STRETCH * t)
        if not self.flat:
            found: Tensor = self.body(x, told)
            return found
        field_: Tensor = self.body(torch.cat([x.flatten(1), told], 1)).unflatten(1, self.shape)
        return field_


@register(
    Card(
        title="Scalable, Explainable and Provably Robust Anomaly Detection with One-Step Flow Matching",
        authors="Li et al.",
        venue="NeurIPS",
        year=2025,
        family=Family.FLOW,
        kinds=DENSE,
        row="1.3.2-02f",
        summary="One evaluation of a field that contracts normal samples to the origin.",
        tags=("flow matching", "one step", "contraction"),
    ),
    name="tccm",
)
@dataclass(eq=False, repr=False)
class TCCM(ReconstructionDetector):
    """Time-conditioned contraction matching: how far a sample is from where a learnt contraction takes it.

    A network ``f(x, t)`` learns the constant field that carries every normal sample to the origin in unit time, that
    is ``-x`` at every ``t`` drawn from [0, 1]. There is no path between two distributions and no equation to solve:
    the score is ``|f(x, 1) + x|``, one evaluation, in standard deviations summed over the values of a sample, and each
    value's part of it is its explanation.

    When to use
    -----------
    Large tables where training and scoring must be quick; each score splits by feature without further work.

    When it fails
    -------------
    The target does not depend on ``t``, so the network regresses the identity without a bottleneck: it finds anomalies
    by what it extrapolates badly. Trained for long it learns the identity everywhere near the data, and anomalies in
    sparse regions between normal samples score low; untrained, the score is the distance to the mean. Backbones with
    skip connections (images, clips) learn the identity soonest. The score hangs on when training stops: in trials on
    three ADBench tables (one-class, one seed) 300, 1500 and 5000 updates gave AUROCs of 0.96, 0.92 and 0.96 on cardio,
    and 0.87, 0.95 and 0.98 on pendigits. At the defaults the mean with thyroid was 0.96, as that of the distance to the
    mean; ``ppca`` 0.92, nearest neighbours 0.98. A falling learning rate gave 0.95. On 14 ADBench tables, three seeds,
    the mean AUROC / AP is 0.895 / 0.798, where ``ppca`` has 0.919 / 0.759 and nearest neighbours 0.954 / 0.858: the
    order of the paper, where it leads, was not found again. AUROC by seed is 0.71, 0.50 and 0.50 on annthyroid and
    0.87, 0.65 and 0.68 on mammography (``ppca`` 0.85 and 0.88 in the first): of few features the contraction is learnt
    so well that it holds beyond the normals too, and nothing is left to score. On two recordings of each of seven sets
    of series AUROC / AP / VUS-PR are 0.808 / 0.617 / 0.618 on average, those of PCA of windows 0.803 / 0.611 / 0.606;
    in AUROC it is furthest behind on SMAP and MSL (0.390, 0.609) and SKAB (0.866, 0.945).

    Notes
    -----
    One fixed setting serves all data; the published runs choose epochs, batch and learning rate by data set. Missing
    values stand at the training mean and do not count in the score.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training, create
    >>> X = np.random.default_rng(0).normal(size=(500, 3))
    >>> detector = create("tccm", training=Training(updates=50)).fit(X)
    >>> normal, odd = detector.anomaly_score([[0.5, 0, 0], [6, -6, 6]])
    >>> bool(odd > 3 * normal)
    True

    References
    ----------
    Li et al. (2025), Scalable, explainable and provably robust anomaly detection with one-step flow matching, NeurIPS,
    arXiv 2510.18328.
    """

    defaults = Training(epochs=100, min_updates=300, max_updates=1500, batch_size=64, lr=1e-3, schedule="constant")

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the field."""
        return ContractionField(shape, self.backbone)

    def loss(self, net: Any, batch: Batch) -> Tensor:
        """Regress ``-x`` at a time drawn for each sample."""
        t = torch.rand(len(batch), device=batch.x.device)
        return batch.sample_mean((net(batch.x, t) + batch.x).square()).mean()

    def reconstruct(self, net: Any, batch: Batch) -> Tensor:
        """Return where the contraction, run backwards from the origin, would have started: ``-f(x, 1)``."""
        found: Tensor = -net(batch.x, batch.x.new_ones(len(batch)))
        return found

    def residual_score(self, net: Any, batch: Batch, residual: Tensor) -> Tensor:  # noqa: ARG002 - the hook's form
        """Return the Euclidean length of residuals; missing values count as the mean of the observed."""
        return batch.sample_sum(residual.square()).sqrt()

    def lipschitz_bound(self) -> float:
        """Return how much the score of a row can change by a unit step of the row, both on the standardised scale.

        The score of a perturbed row lies within ``bound * |perturbation|`` of its own, so an attack that small cannot
        hide an anomaly that exceeds the threshold by more. The bound is ``1 + prod |W|`` over the layers' spectral
        norms, so it is loose.

        Returns
        -------
        float
            At least 1.

        Raises
        ------
        InputError
            When the network is not the plain one of tables, whose activations never stretch distances.
        """
        check_is_fitted(self, "net_")
        net: Any = self.net_
        _, spec = resolve(self.sample_shape_, self.backbone)
        if not net.flat or spec.activation not in ("relu", "tanh", "leaky_relu", "elu", "softplus"):
            raise InputError(
                f"backbone: the bound is known for fully connected networks of contractive activations such as "
                f"'relu'; {spec.name!r} with {spec.activation!r} was given."
            )
        layers = [layer.weight for layer in net.body if isinstance(layer, nn.Linear)]
        # The time is the same for every row scored: only the columns that see the sample count.
        layers[0] = layers[0][:, : math.prod(net.shape)]
        return 1.0 + math.prod(float(torch.linalg.matrix_norm(weight, 2)) for weight in layers)
