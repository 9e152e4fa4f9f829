"""Visual inspection: what a line wants to know, in false calls and escapes, from a folder of product photos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from genad.core.pixels import ImageDetections

__all__ = ["InspectionFigures", "inspection_figures"]


@dataclass(frozen=True)
class InspectionFigures:
    """How an inspection did on parts whose state is known.

    Attributes
    ----------
    good, defective : int
        Parts of each state.
    false_calls : float or None
        Good parts that were flagged, per 1,000 good parts; None without good parts.
    escapes : dict of str to float
        Share of the parts of each kind of defect that was not flagged, from 0 to 1; the most missed first.
    """

    good: int
    defective: int
    false_calls: float | None
    escapes: dict[str, float]


def inspection_figures(found: ImageDetections) -> InspectionFigures | None:
    """Return false calls and escapes of an inspection.

    Parameters
    ----------
    found : ImageDetections
        Of images with labels.

    Returns
    -------
    InspectionFigures or None
        None when nothing is known of the parts.
    """
    images = found.images
    if images is None or images.labels is None:
        return None
    labels = np.asarray(images.labels)
    good, bad = labels == 0, labels == 1
    kinds = np.asarray(images.classes or ["defective"] * len(labels))
    missed = {str(kind): float((~found.is_anomaly[bad & (kinds == kind)]).mean()) for kind in np.unique(kinds[bad])}
    return InspectionFigures(
        int(good.sum()),
        int(bad.sum()),
        1000.0 * float(found.is_anomaly[good].mean()) if good.any() else None,
        dict(sorted(missed.items(), key=lambda item: (-item[1], item[0]))),
    )
