"""How well anomalies are found inside images, and by kind of defect, when the truth is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from genad.data.resize import resize_map
from genad.errors import InputError
from genad.metrics.classes import ClassFigures, by_class
from genad.metrics.streamed import PixelMetrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from genad.core.pixels import ImageDetections

# Larger images are compared with their masks at this size, in pixels of the longer side.
_LARGEST = 512


def pixel_figures(found: ImageDetections) -> dict[str, float] | None:
    """Compare maps and masks with the true masks.

    Parameters
    ----------
    found : ImageDetections
        Of images some of which have masks; a normal image without one counts as free of defects, a defective image
        without one is left out.

    Returns
    -------
    dict or None
        AUROC, average precision and AUPRO (to a false-positive rate of 0.3) of the maps, and Dice and IoU of the
        masks, all pixels together; None without maps, masks, or defective pixels.
    """
    images = found.images
    if images is None or found.maps is None or found.pixels is None or not images.has_masks:
        return None
    counted = PixelMetrics()
    both = predicted = true = 0
    for i in range(len(found)):
        truth = images.mask(i)
        where = found.pixel_map(i)
        if truth is None:
            if images.labels is None or images.labels[i] != 0:
                continue
            truth = np.zeros(where.shape, np.bool_)
        shrink = min(1.0, _LARGEST / max(where.shape))
        if shrink < 1:
            size = (max(1, round(where.shape[0] * shrink)), max(1, round(where.shape[1] * shrink)))
            where, truth = resize_map(where, size), resize_map(truth.astype(np.float32), size) > 0.5
        counted.update(where, truth)
        mask = where > found.pixels.value
        both += int((mask & truth).sum())
        predicted += int(mask.sum())
        true += int(truth.sum())
    if not true:
        return None
    figures = counted.compute()
    return {
        "pixel_auroc": figures.auroc,
        "pixel_average_precision": figures.average_precision,
        "aupro": figures.aupro,
        "dice": 2 * both / (predicted + true),
        "iou": both / (predicted + true - both),
    }


def class_figures(found: ImageDetections, labels: NDArray[np.int64]) -> list[ClassFigures]:
    """Return the figures of each kind of defect against all normal images; empty without kinds."""
    if found.images is None or found.images.classes is None:
        return []
    known = labels >= 0
    classes = np.asarray(found.images.classes)[known]
    try:
        return by_class(found.scores[known], labels[known], classes, found.is_anomaly[known])
    except InputError:  # one of the two sides is missing
        return []
