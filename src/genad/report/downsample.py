"""Thin out long curves for drawing, without hiding a spike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def keep_extremes(
    curves: Sequence[NDArray[np.floating]],
    buckets: int,
    spans: Sequence[tuple[int, int]] = (),
) -> NDArray[np.intp]:
    """Choose the positions to draw: the extremes of each bucket and of each span.

    Parameters
    ----------
    curves : sequence of arrays of shape (n,)
        Curves drawn over the same axis; NaN marks a missing value.
    buckets : int
        Stretches of equal length into which the axis is cut; each keeps the lowest and the
        highest point of every curve. With ``n <= 2 * buckets`` nothing is left out.
    spans : sequence of (start, stop)
        Half-open intervals, for instance events, whose first, last, lowest and highest points
        are kept as well.

    Returns
    -------
    array of int
        Positions in ascending order, the first and the last of the axis among them.

    Examples
    --------
    >>> import numpy as np
    >>> curve = np.zeros(10_000)
    >>> curve[1234] = 5.0
    >>> kept = keep_extremes([curve], buckets=100)
    >>> len(kept) <= 202, bool((kept == 1234).any())
    (True, True)
    """
    n = len(curves[0])
    if n <= 2 * buckets:
        return np.arange(n)
    size = -(-n // buckets)
    offsets = np.arange(0, n, size)
    kept = [np.array([0, n - 1])]
    for curve in curves:
        padded = np.full(len(offsets) * size, np.nan)
        padded[:n] = curve
        blocks = padded.reshape(len(offsets), size)
        missing = np.isnan(blocks)
        kept.append(offsets + np.where(missing, np.inf, blocks).argmin(axis=1))
        kept.append(offsets + np.where(missing, -np.inf, blocks).argmax(axis=1))
        # A gap must stay a gap, so the first missing value of a bucket is drawn too.
        kept.append((offsets + missing.argmax(axis=1))[missing.any(axis=1)])
    for start, stop in spans:
        kept.append(np.array([start, stop - 1]))
        for curve in curves:
            # A NaN would win both, and is drawn as the gap that it is.
            part = curve[start:stop]
            kept.append(np.array([start + part.argmin(), start + part.argmax()]))
    found = np.unique(np.concatenate(kept))
    return found[found < n]
