"""What a synthesizer of tables or series hands back: data with anomalies in it, and which cells they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Injected:
    """Rows or a series with anomalies made from normal ones, and everything known about them.

    Attributes
    ----------
    samples : array, dataframe, Table or Series
        Anomalous rows, or the series with anomalies in it; an array for an array, with its type where that is a float.
    masks : bool array of shape (rows, columns) or (steps, channels)
        True where a cell differs from its source; outside, the two are equal to the last bit.
    labels : int array of shape (rows,) or (steps,)
        1 for an anomalous row or step, else 0.
    sources : int array of shape (rows,) or (steps,)
        The row or step of the source that each was made from.
    meta : list of dict
        For each row, or each event in a series, the method and what was drawn for it; an event has ``start`` and
        ``stop``, half-open, in the order of the series.
    names : list of str
        The columns or channels.
    """

    samples: Any
    masks: NDArray[np.bool_]
    labels: NDArray[np.int64]
    sources: NDArray[np.int64]
    meta: list[dict[str, Any]]
    names: list[str]

    def __len__(self) -> int:
        return len(self.labels)
