"""False discovery rate of a batch of tests: Benjamini-Hochberg and Benjamini-Yekutieli.

Of the samples flagged in a batch, a share of at most q are false alarms, on average. Written in
numpy although scipy has the adjustment, because importing ``scipy.stats`` takes longer than the
whole package; the tests compare both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from genad.core.calibration._checks import as_scores, check_number
from genad.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

# p * m / k is rounded, and conformal p-values are fractions that often meet q exactly: without
# this slack 0.1 * 3 <= 0.3 would be false. It weakens the promise by one part in 10^12.
_SLACK = 1e-12


def adjusted_p_values(p: ArrayLike, method: Literal["bh", "by"] = "bh") -> NDArray[np.float64]:
    """Return q-values: the smallest false discovery rate at which each sample is flagged.

    Parameters
    ----------
    p
        p-values (m,), in [0, 1].
    method
        ``"bh"`` for independent or positively dependent p-values (conformal p-values of one
        calibration set are), ``"by"`` for any dependence.

    Returns
    -------
    ndarray of float64, shape (m,)
        Adjusted p-values in [0, 1], never smaller than `p`, in the order of `p`.

    Raises
    ------
    InputError
        If a p-value is NaN or outside [0, 1], or `method` is not known.

    References
    ----------
    Y. Benjamini, Y. Hochberg, Controlling the false discovery rate, JRSS B, 1995.
    Y. Benjamini, D. Yekutieli, The control of the false discovery rate in multiple testing under
    dependency, Annals of Statistics, 2001.

    Examples
    --------
    >>> adjusted_p_values([0.01, 0.04, 0.03, 0.9]).round(4)
    array([0.04  , 0.0533, 0.0533, 0.9   ])
    """
    if method not in {"bh", "by"}:
        raise InputError(f"method must be 'bh' or 'by', found {method!r}.")
    values = as_p_values("p", p)
    m = values.size
    if not m:
        return values.copy()
    rank = np.arange(1, m + 1, dtype=np.float64)
    factor = float(np.sum(1.0 / rank)) if method == "by" else 1.0
    order = np.argsort(values, kind="stable")
    scaled = values[order] * (m * factor) / rank
    adjusted = np.empty(m)
    # A q-value is a minimum over all less significant samples, hence the walk from the end.
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return adjusted


def benjamini_hochberg(p: ArrayLike, q: float = 0.05) -> NDArray[np.bool_]:
    """Flag samples so that the expected share of false alarms among them is at most `q`.

    Parameters
    ----------
    p
        p-values (m,), in [0, 1], independent or positively dependent.
    q
        False discovery rate, in (0, 1).

    Returns
    -------
    ndarray of bool, shape (m,)
        True where the sample is flagged. All samples with the same p-value share one answer.

    Raises
    ------
    InputError
        If a p-value is NaN or outside [0, 1], or `q` is outside (0, 1).

    References
    ----------
    Y. Benjamini, Y. Hochberg, Controlling the false discovery rate, JRSS B, 1995.
    S. Bates et al., Testing for outliers with conformal p-values, Annals of Statistics, 2023
    (conformal p-values satisfy the dependence this procedure needs).

    Examples
    --------
    >>> benjamini_hochberg([0.001, 0.9, 0.02, 0.5], q=0.05)
    array([ True, False,  True, False])
    """
    level = check_number("q", q, 0.0, 1.0)
    mask: NDArray[np.bool_] = adjusted_p_values(p, "bh") <= level * (1.0 + _SLACK)
    return mask


def benjamini_yekutieli(p: ArrayLike, q: float = 0.05) -> NDArray[np.bool_]:
    """Flag samples at false discovery rate `q` whatever the dependence between p-values.

    The price is a factor 1 + 1/2 + ... + 1/m in the level (7.5 for a thousand samples).

    Parameters
    ----------
    p
        p-values (m,), in [0, 1].
    q
        False discovery rate, in (0, 1).

    Returns
    -------
    ndarray of bool, shape (m,)
        True where the sample is flagged; a subset of what :func:`benjamini_hochberg` flags.

    Raises
    ------
    InputError
        If a p-value is NaN or outside [0, 1], or `q` is outside (0, 1).

    References
    ----------
    Y. Benjamini, D. Yekutieli, The control of the false discovery rate in multiple testing under
    dependency, Annals of Statistics, 2001.

    Examples
    --------
    >>> benjamini_yekutieli([0.001, 0.9, 0.02, 0.5], q=0.05)
    array([ True, False, False, False])
    """
    level = check_number("q", q, 0.0, 1.0)
    mask: NDArray[np.bool_] = adjusted_p_values(p, "by") <= level * (1.0 + _SLACK)
    return mask


def as_p_values(name: str, p: ArrayLike) -> NDArray[np.float64]:
    """Return `p` as a float64 vector of p-values in [0, 1], or say which one is not."""
    values = as_scores(name, p, allow_empty=True)
    outside = (values < 0.0) | (values > 1.0)
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        raise InputError(
            f"{name} must hold p-values in [0, 1], found {values[first]:g} at position {first}. "
            "Scores become p-values with conformal_p_values."
        )
    return values
