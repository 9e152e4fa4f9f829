"""Likelihood and local dimension: a sample is normal where the density is high and spreads in as many directions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_curve
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from genad.core.detector import Detector
from genad.core.families import SampleMixin
from genad.core.inference import Inference, Want
from genad.core.parameters import check_choice, check_number
from genad.core.registry import Card, Family, register
from genad.core.tail import Tail
from genad.core.training import TrainingReport
from genad.core.windows import inner_detector
from genad.data.kinds import DENSE
from genad.data.samples import Batch, Samples, Subset, everything, iterate
from genad.density.explicit.flow import Flow, FlowNet
from genad.errors import InputError
from genad.nn.intrinsic_dimension import neighbour_dimension

# Training samples whose spectra set the scale, and the scales tried.
_SPECTRA, _SCALES = 1000, 100
# Scales that a plateau is at least long, and every how manieth training sample is kept for the ranks.
_PLATEAU, _RANKED = 10, 5
# Rates of false alarms and thresholds on the dimension that a dual threshold is swept over.
_GRID, _THRESHOLDS = 1001, 100
# Singular values are kept from 0, whose logarithm no scale could be compared with.
_LEAST = 1e-12


class LIDNet(nn.Module):
    """A flow, the scale below which its directions do not count, and what is rare among normal samples.

    Attributes
    ----------
    flow : FlowNet
    log_scale : Tensor
        Buffer: logarithm of the scale, in standard deviations of the data.
    unlikely, flat : Tail
        How rare a low likelihood and a low dimension are.
    """

    log_scale: Tensor

    def __init__(self, flow: FlowNet) -> None:
        super().__init__()
        self.flow = flow
        self.register_buffer("log_scale", torch.zeros(()))
        self.unlikely, self.flat = Tail(), Tail()

    def spectrum(self, x: Tensor) -> Tensor:
        """Return the logarithms of the singular values (B, d) of the map from the latent at each sample."""
        flow = self.flow
        along, _ = flow.split(x)
        with torch.enable_grad():
            along = along.detach().requires_grad_()
            latent, _ = flow.latent(along)
            # One output at a time: samples do not meet in the flow, so a sum over them keeps their gradients apart.
            rows = [torch.autograd.grad(z.sum(), along, retain_graph=True)[0] for z in latent.unbind(1)]
        # The inverse of the map to the latent has the inverse singular values.
        there = torch.stack(rows, 1).double() / flow.scale
        found = -torch.linalg.svdvals(torch.nan_to_num(there)).clamp_min(_LEAST).log()
        left = len(flow.centre) - found.shape[1]
        return torch.cat([found, flow.rest.double().log().expand(len(x), left)], 1)

    def dimension(self, x: Tensor, smooth: float) -> Tensor:
        """Return the local intrinsic dimension (B,) at the scale: the directions in which the model spreads wider."""
        wider = self.spectrum(x) - self.log_scale
        return ((wider / smooth).sigmoid() if smooth else (wider > 0).double()).sum(1)


def plateau(spectra: Tensor) -> float:
    """Return the log-scale in the middle of the longest stretch of scales over which the mean dimension hardly moves.

    Parameters
    ----------
    spectra : Tensor of shape (n, d)
        Logarithms of singular values.
    """
    scales = torch.linspace(float(spectra.min()) - 1e-6, float(spectra.max()) + 1e-6, _SCALES, dtype=torch.float64)
    ordered = spectra.flatten().sort().values
    mean = (ordered.numel() - torch.searchsorted(ordered, scales)) / len(spectra)
    fall = mean[:-_PLATEAU] - mean[_PLATEAU:]
    # At either end every direction counts, or none does; that is a plateau which says nothing.
    inside = (mean[:-_PLATEAU] < spectra.shape[1] - 0.5) & (mean[_PLATEAU:] > 0.5)
    if not bool(inside.any()):
        return float(ordered.median())
    fall = torch.where(inside, fall, math.inf)
    flattest = torch.nonzero(fall <= fall.min() + 1e-9).flatten()
    return float(scales[flattest[len(flattest) // 2] + _PLATEAU // 2])


def scale_of_dimension(spectra: Tensor, dimension: float) -> float:
    """Return the log-scale at which the mean dimension of spectra (n, d) is the one asked for."""
    ordered = spectra.flatten().sort(descending=True).values
    place = min(max(round(dimension * len(spectra)), 1), ordered.numel() - 1)
    return float(ordered[place - 1 : place + 1].mean())


@register(
    Card(
        title="A Geometric Explanation of the Likelihood OOD Detection Paradox",
        authors="Kamkari, Ross, Cresswell, Caterini, Krishnan, Loaiza-Ganem",
        venue="ICML",
        year=2024,
        family=Family.FLOW,
        kinds=DENSE,
        row="1.3.2-01h",
        summary="Normal is what is likely and lies where the model has as many dimensions as elsewhere.",
        tags=("local intrinsic dimension", "likelihood paradox", "normalising flow", "dual threshold"),
    ),
    name="lid_likelihood",
)
@dataclass(eq=False, repr=False)
class LIDLikelihood(SampleMixin, Detector):
    """Judge by likelihood and by local dimension: normal is what is likely and spreads in as many directions.

    A density can be high on samples unlike any it was trained on, if they lie in regions of fewer dimensions: a thin
    region packs little mass into a high peak. The remedy asks for both. A normalising flow is trained by maximum
    likelihood; the singular values of its map from the latent to the data, at a sample, say how far the model spreads
    along each direction there, and those above a ``scale`` count as dimensions. A sample is normal if its likelihood
    and its dimension are both high. As a single score it is the larger of the rarities
    of ``-log p`` and ``-dimension``, each as -log of the share of normal samples beyond, counted on a fifth of the
    training samples that the flow does not see.

    The scale is settled on training data alone. ``"dimension"`` takes the one at which their mean dimension is that of
    the points themselves, estimated from the distances to neighbours; ``"plateau"`` the middle of the longest stretch,
    among 100 scales, over which the mean dimension hardly moves, which is where the small singular values of noise part
    from those of the data. The Jacobian is exact, and taken along the components that the flow models (64 at most);
    what is left over counts by its one standard deviation. Map and restored sample are those of ``flow``.

    When to use
    -----------
    Samples on a manifold, where odd ones are too simple and not too strange: flat windows, blank or smooth images. Both
    numbers, from :meth:`likelihood_and_dimension`, tell which of the two an alarm is.

    When it fails
    -------------
    Anomalies that scatter raise the dimension, and then asking for it only costs. In a trial on three ADBench tables,
    one-class, one seed, at most 1,500 test rows, anomalies of all three had the higher mean dimension; AUROC on cardio,
    thyroid and satellite was 0.837, 0.972 and 0.817 by the score, and 0.910, 0.979 and 0.807 by the likelihood alone,
    where ``ppca`` has 0.945, 0.970 and 0.800 and the residual of its components 0.826, 0.855 and 0.810. With
    ``scale="plateau"`` the score had 0.878, 0.957 and 0.801. The best pair of thresholds for the test labels, which is
    what the paper reports, reaches 0.910, 0.979 and 0.828 (:func:`dual_threshold_auc`): that is not the AUROC of any
    score, and it is never below that of the likelihood. Dimensions estimated from neighbours are too low when they are
    many and the samples few. Scoring takes a pass backwards for every component. On 14 ADBench tables, three seeds, the
    mean AUROC / AP is 0.911 / 0.759, where ``ppca`` has 0.919 / 0.759. In one seed its AUROC is furthest behind on
    cardio (0.84 against 0.94), fault (0.61, 0.70) and mammography (0.84, 0.88). On two recordings of each of seven sets
    of series AUROC / AP / VUS-PR are 0.840 / 0.639 / 0.644 on average, those of PCA of windows 0.803 / 0.611 / 0.606;
    in AUROC it is behind on SKAB alone (0.921, 0.945).

    Parameters
    ----------
    scale : {"dimension", "plateau"} or float
        How the least spread of a dimension is settled, or that spread itself, in standard deviations, above 0.
    smooth : float
        Width of the step from no dimension to one, in natural logarithms of the spread, at least 0; 0 counts whole
        ones, and then many samples tie.
    bijector : {"maf", "spline", "affine"}
        Which flow, as in ``flow``; ``backbone`` and ``training`` are handed on to it too.

    Examples
    --------
    Points near a plane in four dimensions.

    >>> import numpy as np
    >>> from genad import Training, create
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(500, 2)) @ rng.normal(size=(2, 4)) + 0.02 * rng.normal(size=(500, 4))
    >>> detector = create("lid_likelihood", scale="plateau", training=Training(updates=60)).fit(X)
    >>> log_density, dimension = detector.likelihood_and_dimension(X[:3])
    >>> dimension.round().tolist()
    [2.0, 2.0, 2.0]

    References
    ----------
    Kamkari et al. (2024), A geometric explanation of the likelihood OOD detection paradox, ICML.
    """

    scale: Literal["dimension", "plateau"] | float = "dimension"
    smooth: float = field(default=0.1, kw_only=True)
    bijector: Literal["maf", "spline", "affine"] = field(default="maf", kw_only=True)

    stackable = False
    grad_at_score = True

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if isinstance(self.scale, str):
            check_choice(self, "scale", ("dimension", "plateau"))
        else:
            check_number(self, "scale", "(0, inf)")
        check_number(self, "smooth", "[0, inf)")
        check_choice(self, "bijector", ("maf", "spline", "affine"))

    def _prepare(self) -> None:
        flow = Flow(self.bijector, backbone=self.backbone, training=self.training)
        self.flow_: Flow = inner_detector(self, flow)

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the untrained flow."""
        flow = self.flow_.build(shape)
        assert isinstance(flow, FlowNet)  # noqa: S101 - a flow makes nothing else
        return LIDNet(flow)

    def optimise(self, net: Any, samples: Samples) -> TrainingReport:
        """Train the flow by maximum likelihood, then set the scale on what it saw, and the ranks on what it did not."""
        rows = torch.arange(len(samples), device=self._device)
        apart = rows % _RANKED == _RANKED - 1 if len(rows) >= 2 * _RANKED else torch.ones_like(rows, dtype=torch.bool)
        train = Subset(samples, rows[~apart] if bool((~apart).any()) else rows)
        report = self.flow_.optimise(net.flow, train)
        net.eval().requires_grad_(requires_grad=False)
        seen = everything(train, self._device, _SPECTRA).x
        spectra = net.spectrum(seen)
        if self.scale == "plateau":
            log_scale = plateau(spectra)
        elif self.scale == "dimension":
            log_scale = scale_of_dimension(spectra, neighbour_dimension(seen.flatten(1)))
        else:
            log_scale = math.log(self.scale)
        net.log_scale = torch.tensor(log_scale, device=self._device)
        unlikely, dimension = zip(
            *(self._look(net, batch) for _, batch in iterate(Subset(samples, rows[apart]), self._block(samples.shape))),
            strict=True,
        )
        net.unlikely.fit(torch.cat(unlikely))
        net.flat.fit(-torch.cat(dimension))
        return report

    def _look(self, net: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the negative log-density (B,) and the local dimension (B,) of samples."""
        return self.flow_.score_batch(net.flow, batch).detach(), net.dimension(batch.x, self.smooth)

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Score by the rarer of the two; the map and the restored sample are the flow's."""
        unlikely, dimension = self._look(net, batch)
        score = torch.maximum(net.unlikely(unlikely), net.flat(-dimension))
        found = self.flow_.infer(net.flow, batch, want) if want else Inference(score)
        return Inference(score, found.map, found.restored)

    def generate(self, net: Any, n: int) -> Tensor:
        """Map Gaussian noise back through the flow."""
        return self.flow_.generate(net.flow, n)

    def likelihood_and_dimension(self, X: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the two numbers that the score is made of.

        Parameters
        ----------
        X : array, dataframe, Table, Series or path
            Data of the kind the detector was fitted on.

        Returns
        -------
        log_density : float64 array of shape (n,)
            log p(x) of each sample on the standardised scale, in nats.
        dimension : float64 array of shape (n,)
            Local intrinsic dimension at each sample, in [0, values of a sample]; whole numbers for ``smooth=0``.
        """
        check_is_fitted(self, "net_")
        samples = self._ingest(X, reset=False).samples
        pairs = [self._look(self.net_, batch) for _, batch in iterate(samples, self._block(samples.shape))]
        likely, dimension = (torch.cat(part).double().cpu().numpy() for part in zip(*pairs, strict=True))
        return -likely, dimension


def dual_threshold_auc(log_density: ArrayLike, dimension: ArrayLike, y: ArrayLike) -> float:
    """Return the area under the best trade-off that a threshold on each of two numbers reaches.

    A sample is taken for normal when both numbers exceed their thresholds. The thresholds are swept over all pairs, and
    of those with equal false alarms the one that finds most anomalies counts: a figure of what the pair could tell by
    the labels' own choice of thresholds, which no single score need reach.

    Parameters
    ----------
    log_density, dimension : array of shape (n,)
        As of :meth:`LIDLikelihood.likelihood_and_dimension`.
    y : array of int, shape (n,)
        1 anomaly, 0 normal; both must be there.

    Returns
    -------
    float
        In [0, 1], at least the AUROC of the density alone.

    Raises
    ------
    InputError
        When the lengths differ, or a class is missing.

    Examples
    --------
    >>> dual_threshold_auc([0.0, 0.0, 9.0, -9.0], [2.0, 2.0, 1.0, 2.0], [0, 0, 1, 1])
    1.0
    """
    density, local, labels = (np.asarray(values, float).ravel() for values in (log_density, dimension, y))
    if not len(density) == len(local) == len(labels) or set(np.unique(labels)) != {0.0, 1.0}:
        raise InputError(
            f"y: {len(density)} densities, {len(local)} dimensions and {len(labels)} labels, among them "
            f"{np.unique(labels)[:3]}, were given; give as many of each, with labels 0 and 1 and some of both."
        )
    grid = np.linspace(0, 1, _GRID)
    best, high = np.zeros(_GRID), density.max() - density.min()
    levels = np.unique(np.quantile(local, np.linspace(0, 1, _THRESHOLDS), method="lower"))
    # The highest would flag all.
    for least in [-np.inf, *levels[:-1]]:
        flagged, found, _ = roc_curve(labels, np.where(local <= least, high + 1, density.max() - density))
        best = np.maximum(best, np.interp(grid, flagged, found))
    return float(np.trapezoid(best, grid))
