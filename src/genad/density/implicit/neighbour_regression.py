"""Values predicted from the other values of a sample, by the nearest remembered normal samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from genad.core.inference import Inference, Want
from genad.core.parameters import check_number
from genad.core.registry import Card, Family, register
from genad.data.kinds import DENSE
from genad.data.samples import Batch
from genad.density.implicit.nearest_memory import NearestMemory

# Values of neighbours that are compared at a time, so that they stay in memory.
_VALUES = 1 << 22
# Power of the mean over a sample's residuals: between the mean square (2) and the largest alone (infinite).
_POWER = 4


@register(
    Card(
        title="Regression of each value on the others, over the nearest normal samples",
        authors="genad, after Nadaraya; Watson; Paulheim, Meusel",
        venue="",
        year=2026,
        family=Family.MEMORY,
        kinds=DENSE,
        summary="Ask the nearest normal samples what each value should be, given the other values.",
        tags=("knn", "pseudo-likelihood"),
    )
)
@dataclass(eq=False, repr=False)
class NeighbourRegression(NearestMemory):
    """Score a sample by its residuals from what similar normal samples have in place of each value.

    A distance adds up small deviations of all values and a large one of one value alike. Here each value is predicted
    by kernel regression (Nadaraya-Watson) from the other values: of the ``neighbours`` nearest remembered samples,
    each weighs ``exp(-d^2 / (2 bandwidth^2))``, with ``d`` the root mean square distance *without the value in
    question*: one wrong value has a say in who is asked, but not in whom to believe. The score is the mean over the
    values of the residuals to the power of 4, and the fourth root of that, in standard deviations: the few values that
    contradict the others count most. The predictions are also the restored sample; missing values are filled by them.

    **When to use.** Tables in which single values are wrong against the others; as a member of a committee beside
    distances, which see what is far off in many values (:class:`~genad.TableCommittee`).

    **When it fails.** Few values, or a gross error: the wrong one then draws the neighbours towards itself, and is
    restored part of the way only (with four values, of which one has the wrong sign, half of it). Values that do not
    depend on each other: the residual is then the distance from the mean of the neighbours. Many values (above some
    hundred), where leaving one out changes no distance; anomalies in all values at once, which a distance sees as well
    or better. On 14 ADBench tables, three seeds, the mean AUROC / AP is 0.952 / 0.857, where ``ppca`` has 0.919 /
    0.759. On two recordings of each of seven sets AUROC / AP / VUS-PR are 0.768 / 0.589 / 0.580 on average, those of
    PCA of windows 0.803 / 0.611 / 0.606; in AUROC it is furthest behind on SMAP and MSL (0.297, 0.609) and SKAB (0.689,
    0.945).

    Parameters
    ----------
    neighbours : int
        How many remembered samples are asked, at least 1.
    size : int
        Most samples remembered; a random subset of more.
    bandwidth : float
        Of the kernel, a root mean square distance in standard deviations of the values, above 0.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(600, 1)) * np.ones(12)
    >>> detector = NeighbourRegression().fit(X)
    >>> one_wrong = np.ones((1, 12))
    >>> one_wrong[0, 3] = -1.0
    >>> detector.restore(one_wrong)[0, 3:5].round(1).tolist()
    [0.8, 0.8]
    >>> detector.anomaly_score([np.ones(12), one_wrong[0]]).round(1).tolist()
    [0.0, 1.0]

    References
    ----------
    Nadaraya, On estimating regression, Theory of Probability and its Applications 9 (1964); Watson, Smooth regression
    analysis, Sankhya A 26 (1964). Paulheim and Meusel, A decomposition of the outlier detection problem into a set of
    supervised learning problems, Machine Learning 100 (2015): a regression of each attribute on the others.
    """

    neighbours: int = 64
    size: int = field(default=4_000, kw_only=True)
    bandwidth: float = field(default=0.3, kw_only=True)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number(self, "bandwidth", "(0, inf)")

    def _expected(self, net: Any, batch: Batch) -> Tensor:
        """Return what the neighbours say that each value should be, (B, values)."""
        _, index = self._neighbours(net, batch, min(self.neighbours, len(net.bank)))
        x = batch.x.flatten(1)
        seen = torch.ones_like(x) if batch.mask is None else batch.mask.flatten(1).to(x.dtype)
        rows = max(1, _VALUES // (index.shape[1] * x.shape[1]))
        parts = []
        for mine, shown, chosen in zip(x.split(rows), seen.split(rows), index.split(rows), strict=True):
            near = net.bank.rows[chosen]
            apart = (mine.unsqueeze(1) - near).square() * shown.unsqueeze(1)
            # What the other observed values of each neighbour come to, for every value that is left out.
            counted = (shown.sum(1, keepdim=True) - shown).clamp_min(1).unsqueeze(1)
            others = (apart.sum(2, keepdim=True) - apart) / counted
            weights = torch.softmax(others / (-2 * self.bandwidth**2), 1)
            parts.append((weights * near).sum(1))
        return torch.cat(parts)

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Compare the sample with what its neighbours expect."""
        expected = self._expected(net, batch).view_as(batch.x)
        squares = batch.keep_observed((batch.x - expected).square())
        # In double precision, which holds the fourth power of the largest value that a sample may have.
        score = batch.sample_mean(squares.double() ** (_POWER / 2)) ** (1 / _POWER)
        if not want:
            return Inference(score)
        return Inference(score, squares, expected)
