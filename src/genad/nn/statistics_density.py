"""Small density models of a few statistics of each sample: the last stage of detectors that compute such."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal

import numpy as np
import torch
import zuko
from torch import Tensor, nn

from genad.nn.mixture import mixture_energy, mixture_parameters
from genad.nn.neighbours import Bank

Tail = Literal["gmm", "flow", "nearest", "gaussian"]
TAILS: tuple[Tail, ...] = ("gmm", "flow", "nearest", "gaussian")

# Numbers of components that cross-validation chooses from, its folds, and the fewest points a component.
_COMPONENTS, _FOLDS, _POINTS = (1, 2, 4, 8), 3, 20
# Added to the variances of standardised statistics: a statistic that never varies must not dominate.
_SHRINK = 1e-3
# Points that decide a mixture, and those kept for neighbours.
_MIXTURE_POINTS, _BANK_POINTS = 3000, 20_000
# Training of the flow: width of its networks, updates, points an update, and peak rate.
_WIDTH, _UPDATES, _BATCH, _RATE = 64, 300, 256, 5e-3
# Standardised statistics are cut here: their squares stay finite in float32, and order is kept well beyond all data.
_LARGEST = 1e12


class StatisticsDensity(nn.Module):
    """Score vectors of statistics by how unlikely they are under a density fitted on those of normal samples.

    Parameters
    ----------
    count : int
        Length of a vector.
    kind : {"gmm", "flow", "nearest", "gaussian"}
        A Gaussian mixture whose number of components cross-validation chooses; a masked autoregressive flow; the
        distance to the ``neighbours``-th nearest vector; or one Gaussian, that is half the squared Mahalanobis
        distance up to a constant.
    neighbours : int, default=5
        For ``"nearest"``.

    Attributes
    ----------
    centre, scale : Tensor
        Buffers ``(count,)``, float64: mean and standard deviation of the fitted vectors.
    weights, means, covariances : Tensor
        Buffers ``(K,)``, ``(K, count)`` and ``(K, count, count)``: the mixture.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> density = StatisticsDensity(2, "gaussian").fit_to(torch.from_numpy(rng.normal(size=(500, 2))), seed=0)
    >>> far, near = density(torch.tensor([[5.0, -5.0], [0.0, 0.0]]))
    >>> bool(far > near + 20)
    True
    """

    centre: Tensor
    scale: Tensor
    weights: Tensor
    means: Tensor
    covariances: Tensor

    def __init__(self, count: int, kind: Tail, neighbours: int = 5) -> None:
        super().__init__()
        self.kind = kind
        self.neighbours = neighbours
        self.register_buffer("centre", torch.zeros(count, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(count, dtype=torch.float64))
        self.register_buffer("weights", torch.ones(1, dtype=torch.float64))
        self.register_buffer("means", torch.zeros(1, count, dtype=torch.float64))
        self.register_buffer("covariances", torch.eye(count, dtype=torch.float64)[None])
        self.bank = Bank(count) if kind == "nearest" else None
        hidden = (_WIDTH, _WIDTH)
        # One statistic has nothing to be regressed on, and nothing to be turned round between the blocks.
        self.flow = (
            zuko.flows.MAF(count, transforms=3 if count > 1 else 1, hidden_features=hidden, activation=nn.ELU)
            if kind == "flow"
            else None
        )

    def fit_to(self, vectors: Tensor, seed: int) -> StatisticsDensity:
        """Fit the density to vectors ``(n, count)``, at least one.

        Parameters
        ----------
        vectors : Tensor of shape (n, count)
        seed : int
            Of the folds, the mixture and the flow.

        Returns
        -------
        StatisticsDensity
            Itself.
        """
        vectors = vectors.detach().double()
        self.centre = vectors.mean(0)
        spread = vectors.std(0, unbiased=False)
        # What does not vary is measured in units of its own size.
        self.scale = torch.where(spread > 1e-6 * self.centre.abs(), spread, self.centre.abs()).clamp_min(1e-6)
        rows = self._standardised(vectors)
        if self.bank is not None:
            self.bank.put(_some(rows, _BANK_POINTS).float())
        elif self.flow is not None:
            self._train_flow(rows.float(), seed)
        else:
            self._fit_mixture(_some(rows, _MIXTURE_POINTS), seed)
        return self

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the negative log-density of standardised vectors in nats, or the distance; ``(B,)``, float64."""
        rows = self._standardised(vectors.double())
        if self.bank is not None:
            return self.bank.nearest(rows.float(), self.neighbours)[0][:, -1].double()
        if self.flow is not None:
            z, volume = self.flow().transform.call_and_ladj(rows.float())
            # A bounded stand-in where the map overflows: as far out as the vector itself.
            z = torch.where(z.isfinite(), z.double(), rows)
            far = 0.5 * z.square().sum(1) - torch.nan_to_num(volume.double(), 0.0, 0.0, 0.0)
            return far + 0.5 * rows.shape[1] * math.log(2 * math.pi)
        return mixture_energy(rows, self.weights, self.means, self.covariances, eps=_SHRINK)

    def _standardised(self, vectors: Tensor) -> Tensor:
        return ((vectors - self.centre) / self.scale).clamp(-_LARGEST, _LARGEST)

    def _fit_mixture(self, rows: Tensor, seed: int) -> None:
        one = torch.ones(len(rows), 1, dtype=rows.dtype, device=rows.device)
        self.weights, self.means, self.covariances = mixture_parameters(rows, one)
        points = rows.cpu().numpy()
        components = 1 if self.kind == "gaussian" else _chosen_components(points, seed)
        if components == 1:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a mixture that stopped short of convergence is one all the same
            mixture = _mixture(components, seed).fit(points)
        self.weights, self.means, self.covariances = (
            torch.from_numpy(np.asarray(found)).to(rows.device)
            for found in (mixture.weights_, mixture.means_, mixture.covariances_)
        )

    def _train_flow(self, rows: Tensor, seed: int) -> None:
        flow = self.flow
        assert flow is not None  # noqa: S101 - the caller looked
        generator = torch.Generator().manual_seed(seed)
        with torch.inference_mode(mode=False), torch.enable_grad():
            rows = rows.clone().clamp(-10, 10)
            flow.requires_grad_()
            optimizer = torch.optim.Adam(flow.parameters(), lr=_RATE)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _UPDATES)
            for _ in range(_UPDATES):
                drawn = torch.randint(len(rows), (min(_BATCH, len(rows)),), generator=generator).to(rows.device)
                batch = rows[drawn]
                # A little noise, as the covariances of a mixture get: vectors without spread must not make a spike.
                noise = torch.randn(batch.shape, generator=generator).to(rows.device)
                loss = -flow().log_prob(batch + _SHRINK**0.5 * noise).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            flow.requires_grad_(requires_grad=False)


def _some(rows: Tensor, most: int) -> Tensor:
    """Return all rows, or an evenly spaced ``most`` of them."""
    if len(rows) <= most:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, most, device=rows.device).long()]


def _mixture(components: int, seed: int) -> Any:
    from sklearn.mixture import GaussianMixture

    return GaussianMixture(components, reg_covar=_SHRINK, random_state=seed % 2**32, max_iter=50, tol=1e-2)


def _chosen_components(points: np.ndarray, seed: int) -> int:
    """Return the number of components with the best log-likelihood of points left out of the fit."""
    fold = np.random.default_rng(seed).permutation(len(points)) % _FOLDS
    best, chosen = -math.inf, 1
    with warnings.catch_warnings():
        # A mixture cut short is as good a candidate as any: the points left out judge it.
        warnings.simplefilter("ignore")
        for components in _COMPONENTS:
            if len(points) < _FOLDS * _POINTS * components:
                break
            found = np.mean(
                [_mixture(components, seed).fit(points[fold != k]).score(points[fold == k]) for k in range(_FOLDS)]
            )
            if found > best:
                best, chosen = float(found), components
    return chosen
