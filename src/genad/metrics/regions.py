"""Region overlap: every defect counts once, whatever its size."""

from __future__ import annotations

from genad.metrics._pixels import check_rate, exact_steps, overlap_area


def aupro(maps: object, masks: object, fpr_limit: float = 0.3) -> float:
    """Compute the area under the per-region overlap, exactly, up to a false-positive rate.

    At a threshold the overlap of a region is the share of its pixels that are flagged, and the curve is the mean
    overlap of all regions of the set against the share of all normal pixels that are flagged. A region is a
    connected part of a mask, pixels that touch at a corner included. Every distinct value of the maps is a
    threshold; between two the curve is straight, and it is cut, by interpolation, at `fpr_limit`. The area is
    divided by `fpr_limit`.

    Since a region of s pixels gives each of them the weight 1 / s, the curve is a ROC curve of weighted pixels: one
    sort gives it whole, with no grid of thresholds.

    Parameters
    ----------
    maps : array-like of shape (n, h, w), or sequence of n array-likes of shape (h, w)
        Anomaly maps, higher = more anomalous. Images may differ in size.
    masks : same shapes as `maps`
        1 = defect, 0 = normal.
    fpr_limit : float, default=0.3
        In (0, 1], a share of normal pixels.

    Returns
    -------
    float
        In [0, 1]; 1 when every defect pixel outscores every normal one, and half of `fpr_limit` by chance (0.15).

    Raises
    ------
    InputError
        Sizes differ, a value is not finite, a mask is not 0 and 1, a class has no pixel, or `fpr_limit` out of range.
    InputTypeError
        Not numeric.

    See Also
    --------
    PixelMetrics : The same figure image by image, in bounded memory.

    Notes
    -----
    Memory grows with the pixels of the set: about 25 bytes each.

    References
    ----------
    Bergmann, Batzner, Fauser, Sattlegger, Steger. The MVTec Anomaly Detection Dataset. IJCV 2021.

    Examples
    --------
    One defect of one pixel is found first, one of three pixels only after half of the normal pixels:

    >>> from genad.metrics import aupro
    >>> maps = [[[9, 0, 2, 1, 1, 0, 2]]]
    >>> masks = [[[1, 0, 0, 1, 1, 0, 0]]]
    >>> aupro(maps, masks, fpr_limit=0.5)
    0.5
    """
    limit = check_rate(fpr_limit, "fpr_limit")
    return overlap_area(exact_steps(maps, masks, regions=True).require("AUPRO"), limit)[0]
