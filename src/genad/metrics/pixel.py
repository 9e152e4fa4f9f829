"""Pixel metrics: every pixel of a set of images counts once, whichever image or defect it belongs to."""

from __future__ import annotations

from typing import Literal

import numpy as np

from genad.errors import InputError, InputTypeError
from genad.metrics._pixels import check_mask, check_pairs, exact_steps, precision_area, roc_area

Average = Literal["pixel", "image"]


def pixel_auroc(maps: object, masks: object) -> float:
    """Compute the area under the ROC curve of all pixels of a set.

    Defects cover few pixels, so a map that is wrong on most flagged pixels can still come near 1, and large defects
    outweigh small ones; read `pixel_ap` and `aupro` beside it.

    Parameters
    ----------
    maps : array-like of shape (n, h, w), or sequence of n array-likes of shape (h, w)
        Anomaly maps, higher = more anomalous. Images may differ in size.
    masks : same shapes as `maps`
        1 = defect, 0 = normal.

    Returns
    -------
    float
        In [0, 1]; 0.5 is chance. Exact; ties count one half.

    Raises
    ------
    InputError
        Sizes differ, a value is not finite, a mask is not 0 and 1, or a class has no pixel.
    InputTypeError
        Not numeric.

    See Also
    --------
    PixelMetrics : The same figure image by image, in bounded memory.

    Examples
    --------
    >>> from genad.metrics import pixel_auroc
    >>> pixel_auroc([[[0.1, 0.4], [0.35, 0.8]]], [[[0, 0], [1, 1]]])
    0.75
    """
    return roc_area(exact_steps(maps, masks).require("Pixel AUROC"))[0]


def pixel_ap(maps: object, masks: object) -> float:
    """Compute average precision of all pixels of a set.

    Parameters
    ----------
    maps : array-like of shape (n, h, w), or sequence of n array-likes of shape (h, w)
        Anomaly maps, higher = more anomalous. Images may differ in size.
    masks : same shapes as `maps`
        1 = defect, 0 = normal.

    Returns
    -------
    float
        In [0, 1]; chance is about the share of defect pixels. Exact; equal values are one step.

    Raises
    ------
    InputError
        Sizes differ, a value is not finite, a mask is not 0 and 1, or a class has no pixel.
    InputTypeError
        Not numeric.

    Examples
    --------
    >>> from genad.metrics import pixel_ap
    >>> round(pixel_ap([[[0.1, 0.4], [0.35, 0.8]]], [[[0, 0], [1, 1]]]), 4)
    0.8333
    """
    return precision_area(exact_steps(maps, masks).require("Pixel average precision"))[0]


def dice_score(maps: object, masks: object, threshold: float | None = None, *, average: Average = "pixel") -> float:
    """Compute the Dice score of the pixels flagged at a threshold: twice the overlap over the sum of the areas.

    Parameters
    ----------
    maps : array-like of shape (n, h, w), or sequence of n array-likes of shape (h, w)
        Anomaly maps, higher = more anomalous; or flags when `threshold` is None.
    masks : same shapes as `maps`
        1 = defect, 0 = normal.
    threshold : float or None, default=None
        A pixel is flagged when its value is above; None: `maps` holds flags, 0 or 1. A threshold that did not see
        `masks`, for instance one calibrated on normal images, gives a figure that holds in use.
    average : {"pixel", "image"}, default="pixel"
        "pixel" counts the pixels of all images together; "image" takes the mean over the images with a defect, so
        that small defects count as much as large ones but false alarms on normal images do not count.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    InputError
        Sizes differ, a value is not finite, a mask is not 0 and 1, no defect pixel, flags other than 0 and 1, or an
        unknown `average`.
    InputTypeError
        Not numeric.

    Examples
    --------
    >>> from genad.metrics import dice_score
    >>> dice_score([[[0.1, 0.9], [0.8, 0.7]]], [[[0, 0], [1, 1]]], threshold=0.5)
    0.8
    """
    hits, flagged, truth = _overlaps(maps, masks, threshold, average, "The Dice score")
    return float(np.mean(2 * hits / (flagged + truth)))


def iou_score(maps: object, masks: object, threshold: float | None = None, *, average: Average = "pixel") -> float:
    """Compute the intersection over union of the pixels flagged at a threshold and those of the masks.

    Parameters
    ----------
    maps : array-like of shape (n, h, w), or sequence of n array-likes of shape (h, w)
        Anomaly maps, higher = more anomalous; or flags when `threshold` is None.
    masks : same shapes as `maps`
        1 = defect, 0 = normal.
    threshold : float or None, default=None
        As in `dice_score`.
    average : {"pixel", "image"}, default="pixel"
        As in `dice_score`.

    Returns
    -------
    float
        In [0, 1]; of pixels counted together it is D / (2 - D) of the Dice score D.

    Raises
    ------
    InputError
        As `dice_score`.
    InputTypeError
        Not numeric.

    Examples
    --------
    >>> from genad.metrics import iou_score
    >>> round(iou_score([[[0.1, 0.9], [0.8, 0.7]]], [[[0, 0], [1, 1]]], threshold=0.5), 4)
    0.6667
    """
    hits, flagged, truth = _overlaps(maps, masks, threshold, average, "The intersection over union")
    return float(np.mean(hits / (flagged + truth - hits)))


def _overlaps(
    maps: object, masks: object, threshold: float | None, average: str, purpose: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count pixels flagged rightly, flagged, and of the truth: of all images together, or of each with a defect."""
    if average not in ("pixel", "image"):
        msg = f"average is {average!r}; 'pixel' (all pixels together) or 'image' (mean of the images) is needed."
        raise InputError(msg)
    if threshold is not None and (isinstance(threshold, bool) or not isinstance(threshold, (int, float, np.number))):
        msg = f"threshold is {threshold!r} ({type(threshold).__name__}); a number, or None for flags, is needed."
        raise InputTypeError(msg)
    if threshold is not None and np.isnan(threshold):
        msg = "threshold is nan; a number, or None for flags, is needed."
        raise InputError(msg)
    counts = []
    for k, (values, mask) in enumerate(check_pairs(maps, masks)):
        flags = check_mask(values, f"maps[{k}] (threshold is None)") if threshold is None else values > threshold
        counts.append((int((flags & mask).sum()), int(flags.sum()), int(mask.sum())))
    table = np.array(counts, np.int64)
    defective = table[:, 2] > 0
    if not defective.any():
        msg = (
            f"masks holds no defect pixel in {len(table)} images. {purpose} is undefined without one: evaluate on "
            f"images with at least one pixel 1."
        )
        raise InputError(msg)
    table = table.sum(0, keepdims=True) if average == "pixel" else table[defective]
    return table[:, 0], table[:, 1], table[:, 2]
