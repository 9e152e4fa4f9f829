"""What a job has read: the data, their kind and labels, and why they were read so."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from genad.data.kinds import Kind


@dataclass
class Data:
    """Data read for a job.

    Attributes
    ----------
    X : Table, Series, Images, Sessions or array
        What a detector takes.
    kind : Kind
        Of the data.
    labels : int array or None
        1 anomaly, 0 normal, -1 unlabelled, in the order of the rows; None when not given.
    why : str
        Why the data are read as this kind.
    notes : list of str
        What was assumed in reading, for the user to see.
    """

    X: Any
    kind: Kind
    labels: NDArray[np.int64] | None
    why: str = ""
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.X)
