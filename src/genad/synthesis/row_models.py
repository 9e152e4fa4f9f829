"""Generative models of normal rows: a Gaussian mixture on principal axes, and a copula with kernel-smoothed margins."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

Floats = NDArray[np.float64]

# Rows a model is fitted on, and axes it is fitted in: more cost much and change little.
_ROWS, _AXES = 2000, 30
# Rows for each component of a mixture, below which its covariance is chance.
_ROWS_A_COMPONENT = 10
# Columns whose joint behaviour the copula models.
_COPULA_COLUMNS = 50


def thinned(z: Floats, most: int = _ROWS) -> Floats:
    """Return at most so many rows, evenly spaced."""
    return z if len(z) <= most else z[np.linspace(0, len(z) - 1, most).astype(int)]


class RowMixture:
    """A Gaussian mixture on the principal axes of normal rows, its size chosen by BIC.

    What lies off the axes is no part of the mixture; a row keeps its own.

    Parameters
    ----------
    z : float64 array of shape (n, d)
        Standardised rows without missing values.
    most : int
        Largest number of components.

    Attributes
    ----------
    axes : float64 array of shape (d, r)
        Orthonormal.
    weights, means, roots : arrays of shape (k,), (k, r), (k, r, r)
        ``roots @ roots.T`` are the covariances.
    """

    def __init__(self, z: Floats, most: int) -> None:
        z = thinned(z)
        _, _, axes = np.linalg.svd(z - z.mean(0), full_matrices=False)
        self.axes: Floats = axes[: min(_AXES, len(axes))].T
        p = z @ self.axes
        best, lowest, worse = None, np.inf, 0
        for k in range(1, max(1, min(most, len(z) // _ROWS_A_COMPONENT)) + 1):
            mixture = GaussianMixture(k, reg_covar=1e-4, random_state=0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                mixture.fit(p)
            bic = mixture.bic(p)
            if bic < lowest:
                best, lowest, worse = mixture, bic, 0
            else:
                worse += 1
            # Two larger mixtures in a row that are not worth their parameters: the still larger ones will not be.
            if worse == 2:
                break
        assert best is not None  # noqa: S101 - a likelihood is finite with regularised covariances
        self._mixture = best
        self.weights: Floats = best.weights_
        self.means: Floats = best.means_
        self.roots: Floats = np.linalg.cholesky(best.covariances_)

    @property
    def size(self) -> int:
        """Number of components."""
        return len(self.weights)

    def component(self, z: Floats) -> NDArray[np.int64]:
        """Return the most probable component of each row."""
        found: NDArray[np.int64] = self._mixture.predict(z @ self.axes)
        return found

    def residual(self, z: Floats) -> Floats:
        """Return what of each row lies off the axes."""
        return z - (z @ self.axes) @ self.axes.T

    def draw(self, component: NDArray[np.int64], means: Floats, spread: float, rng: np.random.Generator) -> Floats:
        """Draw a row from each component with other means (k, r), and covariances ``spread`` times as large."""
        noise = rng.standard_normal((len(component), self.axes.shape[1]))
        drawn = means[component] + np.sqrt(spread) * np.einsum("nij,nj->ni", self.roots[component], noise)
        return drawn @ self.axes.T

    def shifted(self, factor: float) -> Floats:
        """Return the means moved away from the centre of the rows, each to ``factor`` times its distance.

        A component at the centre has no way out of its own and a factor does not move it; it moves along its longest
        axis, by its standard deviation there times ``factor - 1``.
        """
        moved = self.means.copy()
        for k, (mean, root) in enumerate(zip(self.means, self.roots, strict=True)):
            lengths, directions = np.linalg.eigh(root @ root.T)
            deviation = np.sqrt(lengths[-1])
            distance = np.linalg.norm(mean)
            step = mean if distance > deviation else directions[:, -1] * deviation
            moved[k] = mean + (factor - 1) * step
        return moved


class RowCopula:
    """A Gaussian copula of normal rows with margins of their own values, smoothed by kernels.

    Parameters
    ----------
    z : float64 array of shape (n, d)
        Standardised rows without missing values.
    rng : numpy.random.Generator
        Chooses the columns that are modelled when there are more than 50.

    Attributes
    ----------
    columns : int array
        The columns modelled.
    correlation : float64 array
        Of the normal scores of their ranks.
    """

    def __init__(self, z: Floats, rng: np.random.Generator) -> None:
        d = z.shape[1]
        self.columns = np.sort(rng.permutation(d)[:_COPULA_COLUMNS])
        self.sorted: Floats = np.sort(thinned(z)[:, self.columns], 0)
        n = len(self.sorted)
        ranks = thinned(z)[:, self.columns].argsort(0).argsort(0)
        scores = ndtri((ranks + 1) / (n + 1))
        # Shrunk a little, so that columns that say the same do not make it singular.
        self.correlation: Floats = 0.999 * np.atleast_2d(np.corrcoef(scores, rowvar=False)) + 0.001 * np.eye(
            len(self.columns)
        )
        self._root = np.linalg.cholesky(self.correlation)
        # Silverman's rule, with the narrower of two measures of spread.
        quartiles = np.quantile(self.sorted, [0.25, 0.75], axis=0)
        spread = np.minimum(self.sorted.std(0), (quartiles[1] - quartiles[0]) / 1.349)
        self.bandwidth: Floats = 0.9 * spread * n ** (-0.2)

    def independent(self, n: int, rng: np.random.Generator) -> Floats:
        """Draw each column on its own from a kernel estimate of its density: the dependence is gone."""
        chosen = rng.integers(len(self.sorted), size=(n, len(self.columns)))
        values = np.take_along_axis(self.sorted, chosen, 0)
        return values + self.bandwidth * rng.standard_normal(values.shape)

    def joint(self, n: int, rng: np.random.Generator) -> Floats:
        """Draw rows whose columns depend on each other as the normal ones do."""
        scores = rng.standard_normal((n, len(self.columns))) @ self._root.T
        # The share of normal scores below each, looked up among the sorted values.
        place = ndtr(scores) * (len(self.sorted) - 1)
        below = np.floor(place).astype(int)
        above = np.minimum(below + 1, len(self.sorted) - 1)
        low, high = (np.take_along_axis(self.sorted, at, 0) for at in (below, above))
        return low + (place - below) * (high - low)
