"""Merging the p-values of several detectors into one that is still a p-value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from genad.core.calibration._checks import check_number
from genad.core.calibration.fdr import as_p_values
from genad.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

#: Ways of merging, and what each promises.
MERGERS = ("average", "bonferroni", "cauchy")


def merge_p_values(
    p: ArrayLike,
    method: Literal["average", "bonferroni", "cauchy"] = "average",
    weights: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Return one p-value a sample from those of several detectors.

    The detectors saw the same data, so their p-values depend on each other in a way that nobody knows. A plain
    average is then no p-value; these are.

    ``"average"``
        Twice the weighted mean. Valid whatever the dependence; strong when most detectors agree.
    ``"bonferroni"``
        The smallest, divided by its weight. Valid whatever the dependence; strong when one detector alone is sure.
    ``"cauchy"``
        The tail of the weighted mean of standard Cauchy quantiles. Nearly exact for small values under most
        dependences, and stronger than either; a promise in the limit, not for each level.

    Parameters
    ----------
    p
        p-values (detectors, samples), in [0, 1].
    method
        How to merge.
    weights
        One a detector, above 0; equal when absent. They must not have been chosen with these samples in view.

    Returns
    -------
    ndarray of float64, shape (samples,)
        In (0, 1] as far as `p` is.

    Raises
    ------
    InputError
        If `p` is not such a matrix, the method is not known, or the weights do not fit.

    References
    ----------
    V. Vovk, R. Wang, Combining p-values via averaging, Biometrika, 2020.
    Y. Liu, J. Xie, Cauchy combination test: a powerful test with analytic p-value calculation under arbitrary
    dependency structures, JASA, 2020.

    Examples
    --------
    >>> p = [[0.01, 0.5], [0.03, 0.2], [0.20, 0.9]]
    >>> merge_p_values(p).round(3).tolist()
    [0.16, 1.0]
    >>> merge_p_values(p, "bonferroni").round(3).tolist()
    [0.03, 0.6]
    >>> merge_p_values(p, "cauchy").round(3).tolist()
    [0.022, 0.664]
    """
    if method not in MERGERS:
        raise InputError(f"method: {method!r} was given; use {', '.join(map(repr, MERGERS))}.")
    values = np.asarray(p, np.float64)
    if values.ndim != 2 or not len(values):
        raise InputError(
            f"p: an array of shape {values.shape} was given; use (detectors, samples), one detector or more."
        )
    as_p_values("p", values.ravel())
    share = _shares(weights, len(values))[:, None]
    if method == "average":
        # One detector needs no correction, and neither do weights that leave all the say to one of them.
        largest = float(share.max())
        factor = min(2.0, 1.0 / largest)
        return np.minimum(factor * (share * values).sum(axis=0), 1.0)
    if method == "bonferroni":
        return np.minimum((values / share).min(axis=0), 1.0)
    # cot(pi p), which keeps its precision near 0, where tan(pi (1/2 - p)) loses it; 1 counts as just below 1.
    held = np.clip(values, 1e-300, 1.0 - 1e-15)
    mean = (share / np.tan(np.pi * held)).sum(axis=0)
    merged: NDArray[np.float64] = np.arctan2(1.0, mean) / np.pi
    return merged


def _shares(weights: ArrayLike | None, n: int) -> NDArray[np.float64]:
    """Return weights that sum to 1."""
    given = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    if given.shape != (n,) or not np.all(np.isfinite(given)) or not np.all(given > 0):
        raise InputError(f"weights: {weights!r} was given for {n} detectors; give one above 0 for each.")
    for weight in given:
        check_number("weights", float(weight), 0.0)
    return given / given.sum()
