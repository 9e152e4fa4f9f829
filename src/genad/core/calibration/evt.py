"""Extreme values: the generalised Pareto tail above a high threshold and its quantiles.

Above a high level t the excesses of almost any distribution look generalised Pareto, so a
quantile beyond every score seen so far can be extrapolated (peaks over threshold).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from genad.core.calibration._checks import as_scores, check_count, check_number
from genad.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

MIN_PEAKS = 10
"""Fewest excesses from which a shape is estimated; below this the tail is taken as exponential."""

# Places where the score equation is looked at before roots are refined, as shares of the way
# from 0 to the left end of the support, and the spacing on the right.
_LEFT = np.concatenate([np.geomspace(1e-4, 0.5, 24), 1.0 - np.geomspace(0.45, 1e-7, 20)])
_RIGHT = 36


@dataclass(frozen=True)
class GPD:
    """Generalised Pareto distribution of excesses over a threshold.

    Parameters
    ----------
    shape
        Shape gamma: 0 exponential tail, above 0 heavy tail, below 0 bounded at ``-scale / shape``.
    scale
        Scale sigma, above 0, in units of the score.

    Raises
    ------
    InputError
        If `shape` is not finite or `scale` is not above 0.

    Examples
    --------
    >>> GPD(0.0, 1.0).survival([0.0, 1.0]).round(4)
    array([1.    , 0.3679])
    """

    shape: float
    scale: float

    def __post_init__(self) -> None:
        check_number("shape", self.shape)
        check_number("scale", self.scale, 0.0)

    def survival(self, excesses: ArrayLike) -> NDArray[np.float64]:
        """Return P(Y > y) for excesses y >= 0, float64 of the same shape."""
        y = as_scores("excesses", excesses, flat=False, allow_empty=True) / self.scale
        if self.shape == 0.0:
            exponential: NDArray[np.float64] = np.exp(-y)
            return exponential
        inside = np.maximum(self.shape * y, -1.0)
        with np.errstate(divide="ignore"):
            tail: NDArray[np.float64] = np.exp(-np.log1p(inside) / self.shape)
        return tail

    def log_likelihood(self, excesses: ArrayLike) -> float:
        """Return the log-likelihood in nats, ``-inf`` if an excess is outside the support."""
        return _log_likelihood(as_scores("excesses", excesses), self.shape, self.scale)


def fit_gpd(excesses: ArrayLike, censored: ArrayLike = ()) -> GPD:
    """Fit a generalised Pareto distribution by maximum likelihood (Grimshaw's reduction).

    The two score equations reduce to one in x = shape / scale. Its roots are bracketed on a grid
    over the whole interval where Grimshaw shows them to lie, on both sides of 0, and refined;
    the most likely of them, the exponential fit (shape 0) and the moment estimate is returned.
    Roots with shape <= -1 are left out, because the likelihood is unbounded there; small samples
    of a short tail may have no other, and then the moment estimate usually wins.

    Parameters
    ----------
    excesses
        Score minus threshold of the scores above the threshold (n,), each above 0 and finite.
    censored
        Excesses (m,) of which only a lower bound is known; the reduction holds with them too.

    Returns
    -------
    GPD
        The fit. With fewer than `MIN_PEAKS` excesses, or equal ones, the exponential fit (shape
        0), because the data cannot tell a shape.

    Raises
    ------
    InputError
        If there is no excess, or one is not finite or not above 0 (a bound may be 0).

    References
    ----------
    S. Grimshaw, Computing maximum likelihood estimates for the generalized Pareto distribution,
    Technometrics, 1993.

    Examples
    --------
    >>> import numpy as np
    >>> tail = fit_gpd(np.random.default_rng(0).exponential(2.0, 20_000))
    >>> abs(tail.shape) < 0.02, abs(tail.scale - 2.0) < 0.05
    (True, True)
    """
    y = as_scores("excesses", excesses, finite=True)
    bounds = as_scores("censored", censored, finite=True, allow_empty=True)
    if (y <= 0.0).any() or (bounds < 0.0).any():
        raise InputError(
            f"excesses must be above 0, found {min(y.min(), bounds.min(initial=0.0)):g}. "
            "Give scores[scores > threshold] - threshold."
        )
    mean = float(y.sum() + bounds.sum()) / y.size
    if y.size < MIN_PEAKS or float(y.min()) == float(y.max()):
        return GPD(0.0, mean)
    y, bounds = y / mean, bounds / mean  # scores of any unit: from here on numbers near 1
    candidates = [(0.0, 1.0), *_stationary_points(y, bounds)]
    if not bounds.size:
        candidates.extend(_moments(y))
    shape, scale = max(candidates, key=lambda c: _log_likelihood(y, c[0], c[1], bounds))
    return GPD(shape, scale * mean)


def pot_quantile(gpd: GPD, threshold: float, q: float, n: int, n_excess: int) -> float:
    """Return the score that is exceeded with probability `q`, by extrapolating the tail.

    z = t + scale / shape * ((q n / n_excess)^-shape - 1), and t - scale * log(q n / n_excess) in
    the limit of shape 0. As q n / n_excess <= 1, z never lies below the threshold t; published
    code that adds the logarithm instead of subtracting it puts z on the wrong side.

    Parameters
    ----------
    gpd
        Tail fitted to the excesses over `threshold`.
    threshold
        High level t that the excesses are counted from.
    q
        Probability to be exceeded, in (0, n_excess / n].
    n, n_excess
        Number of scores seen, and how many of them were above `threshold`.

    Returns
    -------
    float
        The quantile z >= threshold, in units of the score.

    Raises
    ------
    InputError
        If counts are below 1, or `q` is above ``n_excess / n``: that quantile lies below the
        threshold, where the tail says nothing.

    References
    ----------
    A. Siffer, P.-A. Fouque, A. Termier, C. Largouet, Anomaly detection in streams with extreme
    value theory, KDD 2017.

    Examples
    --------
    >>> round(pot_quantile(GPD(0.0, 1.0), threshold=3.0, q=1e-3, n=1000, n_excess=50), 4)
    6.912
    """
    total, above = check_count("n", n, 1), check_count("n_excess", n_excess, 1)
    share = check_number("q", q, 0.0, 1.0) * total / above
    if share > 1.0:
        raise InputError(
            f"q must be at most n_excess / n = {above / total:g}, found {q:g}. Take a smaller q, or a lower threshold."
        )
    depth = -math.log(share)
    if gpd.shape == 0.0:
        return threshold + gpd.scale * depth
    # expm1 keeps every digit as the shape goes to 0 from either side: the limit needs no band.
    return threshold + gpd.scale * math.expm1(gpd.shape * depth) / gpd.shape


def _log_likelihood(
    y: NDArray[np.float64], shape: float, scale: float, bounds: NDArray[np.float64] | None = None
) -> float:
    every = y if bounds is None else np.concatenate([y, bounds])
    if shape == 0.0:
        return -y.size * math.log(scale) - float(every.sum()) / scale
    inside = shape / scale * every
    if float(inside.min()) <= -1.0:
        return -math.inf
    logs = np.log1p(inside)
    # Density of what is known, survival of what is only bounded.
    return -y.size * math.log(scale) - float(logs[: y.size].sum()) - float(logs.sum()) / shape


def _moments(y: NDArray[np.float64]) -> Iterator[tuple[float, float]]:
    """Yield the moment estimate of excesses with mean 1."""
    ratio = 1.0 / float(y.var())
    shape = 0.5 * (1.0 - ratio)
    if shape > -1.0:
        yield shape, 0.5 * (1.0 + ratio)


def _stationary_points(y: NDArray[np.float64], bounds: NDArray[np.float64]) -> Iterator[tuple[float, float]]:
    """Yield (shape, scale) where the profile likelihood in x = shape / scale is stationary.

    At given x the best shape is sum(log(1 + x v)) / n over all values v, bounds included, with n
    the number of known ones. Without bounds the equation is Grimshaw's, divided by the factor
    that makes it vanish at x = 0 for any data.
    """
    from scipy.optimize import brentq

    n = y.size
    every = np.concatenate([y, bounds])
    low, high = float(y.min()), float(every.max())

    def slope(x: float) -> float:
        inside = 1.0 + x * every
        pull = every / inside
        spent = float(np.log1p(x * every).sum())
        return n / x - float(pull[:n].sum()) - n * float(pull.sum()) / spent

    # Grimshaw's upper bound, 2 (mean - min) / min^2, grows without end as min goes to 0; a root
    # beyond 1e8 would mean a shape above about 10.
    upper = min(max(2.0 * (1.0 - low) / (low * low), 10.0), 1e8) if low > 1e-8 else 1e8
    for grid in (-_LEFT / high, np.geomspace(1e-4, upper, _RIGHT)):
        values = [slope(float(x)) for x in grid]
        for i in range(len(values) - 1):
            if values[i] * values[i + 1] > 0.0:
                continue
            x = float(brentq(slope, float(grid[i]), float(grid[i + 1]), rtol=1e-10))
            shape = float(np.log1p(x * every).sum()) / n
            if shape > -1.0:
                yield shape, shape / x
