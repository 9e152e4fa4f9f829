"""Split-conformal p-values: how often would a normal sample score at least this high.

The one assumption is exchangeability: a new normal sample and the held-out calibration samples
could have come in any order. Under it the p-value of a normal sample is super-uniform,
P(p <= a) <= a for every a, whatever the detector and whatever the distribution of its score.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from genad.core.calibration._checks import as_scores, check_count, check_number
from genad.errors import InputError, InputTypeError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def conformal_p_values(calibration_scores: ArrayLike, scores: ArrayLike) -> NDArray[np.float64]:
    """Compute split-conformal p-values with the +1 correction.

    p = (1 + number of calibration scores >= score) / (n + 1). Ties count against the sample, so
    the p-value is conservative when scores repeat. Cost O((n + m) log n) for m scores.

    Parameters
    ----------
    calibration_scores
        Scores of n >= 1 normal samples the detector has not trained on; higher = more anomalous.
        Infinite scores are fine, NaN is not.
    scores
        Scores of the samples to judge, of any shape.

    Returns
    -------
    ndarray of float64
        p-values in [1 / (n + 1), 1], of the shape of `scores`.

    Raises
    ------
    InputError
        If a score is NaN, or there is no calibration score.
    InputTypeError
        If scores are not numbers.

    References
    ----------
    V. Vovk, A. Gammerman, G. Shafer, Algorithmic Learning in a Random World, 2005.
    S. Bates, E. Candes, L. Lei, Y. Romano, M. Sesia, Testing for outliers with conformal
    p-values, Annals of Statistics, 2023.

    Examples
    --------
    >>> conformal_p_values([1.0, 2.0, 3.0, 4.0], [0.5, 3.0, 9.0])
    array([1. , 0.6, 0.2])
    """
    calibration = np.sort(as_scores("calibration_scores", calibration_scores))
    values = as_scores("scores", scores, flat=False, allow_empty=True)
    at_least = calibration.size - np.searchsorted(calibration, values, side="left")
    p_values: NDArray[np.float64] = np.asarray((1.0 + at_least) / (calibration.size + 1.0))
    return p_values


def grouped_p_values(
    calibration_scores: ArrayLike,
    calibration_groups: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike,
    *,
    unseen: Literal["raise", "one"] = "raise",
) -> NDArray[np.float64]:
    """Compute Mondrian conformal p-values: each sample is compared with its own group only.

    The false-alarm promise then holds within every group (machine, store, product), not only on
    average over groups. The price: a group of n calibration samples can go no lower than
    1 / (n + 1).

    Parameters
    ----------
    calibration_scores, calibration_groups
        Scores (n,) of held-out normal samples, and the group of each (numbers or strings).
    scores, groups
        Scores (m,) to judge, and the group of each.
    unseen
        What to do with a group that has no calibration sample: ``"raise"``, or ``"one"`` for the
        p-value 1 that the formula gives for n = 0 (such samples are never flagged).

    Returns
    -------
    ndarray of float64, shape (m,)
        p-values in (0, 1].

    Raises
    ------
    InputError
        If a score is NaN, lengths differ, a group is missing (NaN), `unseen` is not known, or a
        group was not calibrated and ``unseen="raise"``.
    InputTypeError
        If groups cannot be sorted, for instance because text and numbers are mixed.

    References
    ----------
    V. Vovk, D. Lindsay, I. Nouretdinov, A. Gammerman, Mondrian confidence machine, 2003.

    Examples
    --------
    >>> grouped_p_values([1.0, 2.0, 10.0, 20.0], ["a", "a", "b", "b"], [3.0, 3.0], ["a", "b"])
    array([0.33333333, 1.        ])
    """
    if unseen not in {"raise", "one"}:
        raise InputError(f"unseen must be 'raise' or 'one', found {unseen!r}.")
    calibration = as_scores("calibration_scores", calibration_scores)
    values = as_scores("scores", scores, allow_empty=True)
    known = _as_groups("calibration_groups", calibration_groups, calibration.size)
    asked = _as_groups("groups", groups, values.size)
    try:
        # One common coding of both group columns: code of calibration rows, code of judged rows.
        names, codes = np.unique(np.concatenate([known, asked]), return_inverse=True)
    except TypeError:
        raise InputTypeError(
            "groups cannot be sorted, they seem to mix text and numbers. Convert both group "
            "columns to one type, for instance with [str(g) for g in groups]."
        ) from None
    known_code, asked_code = codes[: calibration.size], codes[calibration.size :]
    size = np.bincount(known_code, minlength=names.size)
    missing = np.unique(asked_code[size[asked_code] == 0])
    if missing.size and unseen == "raise":
        shown = ", ".join(repr(name) for name in names[missing[:5]].tolist())
        raise InputError(
            f"groups holds {missing.size} group(s) without any calibration sample: {shown}. "
            "Calibrate them, or pass unseen='one' to give their samples the p-value 1."
        )
    p_values = np.ones(values.size)
    order = np.lexsort((calibration, known_code))
    sorted_scores, start = calibration[order], np.concatenate([[0], np.cumsum(size)])
    asked_order = np.argsort(asked_code, kind="stable")
    asked_start = np.concatenate([[0], np.cumsum(np.bincount(asked_code, minlength=names.size))])
    for code in np.unique(asked_code):
        rows = asked_order[asked_start[code] : asked_start[code + 1]]
        own = sorted_scores[start[code] : start[code + 1]]
        at_least = own.size - np.searchsorted(own, values[rows], side="left")
        p_values[rows] = (1.0 + at_least) / (own.size + 1.0)
    return p_values


def attainable_alpha(n: int) -> float:
    """Return the smallest level that n calibration samples can reach, 1 / (n + 1).

    Parameters
    ----------
    n
        Number of calibration samples, at least 1.

    Returns
    -------
    float
        The level, in (0, 0.5].

    Raises
    ------
    InputError
        If `n` is below 1.

    Examples
    --------
    >>> attainable_alpha(99)
    0.01
    """
    return 1.0 / (check_count("n", n, 1) + 1.0)


def samples_needed(alpha: float) -> int:
    """Return how many calibration samples the level `alpha` needs, ceil(1 / alpha) - 1.

    Parameters
    ----------
    alpha
        Level, in (0, 1).

    Returns
    -------
    int
        The smallest n >= 1 with 1 / (n + 1) <= alpha.

    Raises
    ------
    InputError
        If `alpha` is outside (0, 1).

    Examples
    --------
    >>> samples_needed(0.01)
    99
    """
    level = check_number("alpha", alpha, 0.0, 1.0)
    n = max(1, math.ceil(1.0 / level) - 1)
    # 1 / level is rounded: step to the exact answer of the comparison that is made elsewhere.
    while n > 1 and 1.0 / n <= level:
        n -= 1
    while 1.0 / (n + 1.0) > level:
        n += 1
    return n


def conformal_rank(n: int, alpha: float) -> int:
    """Return the largest k with k / (n + 1) <= alpha, in exactly the arithmetic of the p-value.

    Parameters
    ----------
    n
        Number of calibration samples, at least 1.
    alpha
        Level, in (0, 1).

    Returns
    -------
    int
        k in 0 ... n; 0 means that `alpha` is not attainable.

    Raises
    ------
    InputError
        If an argument is out of range.

    Examples
    --------
    >>> conformal_rank(99, 0.05), conformal_rank(99, 0.001)
    (5, 0)
    """
    total = check_count("n", n, 1) + 1.0
    level = check_number("alpha", alpha, 0.0, 1.0)
    k = math.floor(level * total)
    while (k + 1) / total <= level:
        k += 1
    while k > 0 and k / total > level:
        k -= 1
    return k


def conformal_quantile(calibration_scores: ArrayLike, alpha: float) -> float:
    """Return the threshold for which ``score > threshold`` is the same as ``p <= alpha``.

    It is the k-th largest calibration score, k the largest integer with k / (n + 1) <= alpha.
    The equivalence is exact, with ties and with infinite scores.

    Parameters
    ----------
    calibration_scores
        Scores of n >= 1 held-out normal samples.
    alpha
        Level, in (0, 1).

    Returns
    -------
    float
        The threshold; ``inf`` if `alpha` is below :func:`attainable_alpha`, because then no score
        at all has a p-value that low.

    Raises
    ------
    InputError
        If `alpha` is outside (0, 1), a score is NaN or there is no score.

    Examples
    --------
    >>> conformal_quantile([5.0, 1.0, 4.0, 2.0, 3.0, 6.0, 7.0, 8.0, 9.0], 0.2)
    8.0
    >>> conformal_quantile([1.0, 2.0], 0.1)
    inf
    """
    calibration = as_scores("calibration_scores", calibration_scores)
    rank = conformal_rank(calibration.size, alpha)
    return kth_largest(calibration, rank) if rank else math.inf


def kth_largest(scores: NDArray[np.float64], k: int) -> float:
    """Return the k-th largest score (k = 1 is the maximum) in linear time."""
    place = scores.size - k
    return float(np.partition(scores, place)[place])


def _as_groups(name: str, groups: ArrayLike, size: int) -> NDArray[np.generic]:
    """Return a column of group labels of the right length without missing labels."""
    array = np.asarray(groups)
    if array.ndim != 1 or array.size != size:
        raise InputError(f"{name} must have one label per score, shape ({size},), found shape {array.shape}.")
    objects = array.dtype.kind == "O"
    missing = np.array([g is None or g != g for g in array], dtype=bool) if objects else array != array
    if missing.any():
        raise InputError(
            f"{name} must not hold missing labels, found {int(missing.sum())}. "
            "Give them a name of their own, for instance 'unknown'."
        )
    return array
