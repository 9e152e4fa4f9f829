"""Labels of segments and groups, numbers or text, as the text that they are compared by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from genad.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def label_text(label: Any) -> str:
    """Return a label as text; whole numbers read alike, for one missing cell turns a column of integers to floats.

    Examples
    --------
    >>> label_text(1.0), label_text(1), label_text("1"), label_text(2.5)
    ('1', '1', '1', '2.5')
    """
    whole = isinstance(label, float | np.floating) and float(label).is_integer()
    return str(int(label)) if whole else str(label)


def as_labels(segments: ArrayLike, size: int) -> NDArray[np.str_]:
    """Return one label a score as text.

    Raises
    ------
    InputError
        If there are not `size`, or one is missing.
    """
    array = np.asarray(segments)
    if array.ndim != 1 or array.size != size:
        raise InputError(f"segments must hold one label per score, shape ({size},), found shape {array.shape}.")
    if any(name is None or name != name for name in array.tolist()):
        raise InputError(
            "segments must not hold missing labels; give them a name of their own, for instance 'unknown'."
        )
    return np.array([label_text(name) for name in array.tolist()], dtype=np.str_)
