"""Maps and masks, checked once and brought to the steps that every pixel metric is read from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from genad.errors import InputError, InputTypeError
from genad.metrics._validate import check_numeric

if TYPE_CHECKING:
    import numpy.typing as npt

    from genad.metrics._validate import BoolArray, FloatArray


def check_map(values: object, name: str) -> FloatArray:
    """Return one map as float64 of shape (h, w), or say why it is none.

    Raises
    ------
    InputError
        Not two-dimensional, without a pixel, or with a value that is not finite.
    InputTypeError
        Not numeric.
    """
    array = _plane(values, name).astype(np.float64)
    bad = ~np.isfinite(array)
    if bad.any():
        row, column = np.argwhere(bad)[0].tolist()
        msg = (
            f"{name} holds {array[row, column]} at row {row}, column {column} ({int(bad.sum())} non-finite of "
            f"{array.size}); only finite numbers can be ranked. Mend the detector that made the map."
        )
        raise InputError(msg)
    return array


def check_mask(values: object, name: str) -> BoolArray:
    """Return one mask as bool of shape (h, w), or say why it is none.

    Raises
    ------
    InputError
        Not two-dimensional, without a pixel, or with a value other than 0 and 1.
    InputTypeError
        Not numeric.
    """
    array = _plane(values, name)
    bad = (array != 0) & (array != 1)
    if bad.any():
        row, column = np.argwhere(bad)[0].tolist()
        msg = (
            f"{name} holds {array[row, column].item()!r} at row {row}, column {column}; only 0 (normal) and 1 "
            f"(defect), or booleans, are accepted. If every value above 0 marks a defect, pass mask > 0."
        )
        raise InputError(msg)
    return array.astype(np.bool_)


def check_pair(map_: object, mask: object, names: tuple[str, str] = ("map", "mask")) -> tuple[FloatArray, BoolArray]:
    """Check a map and its mask together.

    Returns
    -------
    map : ndarray of float64, shape (h, w)
    mask : ndarray of bool, shape (h, w)

    Raises
    ------
    InputError
        As the two checks, and when the sizes differ.
    InputTypeError
        Not numeric.
    """
    values, truth = check_map(map_, names[0]), check_mask(mask, names[1])
    if values.shape != truth.shape:
        msg = (
            f"{names[0]} has {values.shape[0]} x {values.shape[1]} pixels but {names[1]} has "
            f"{truth.shape[0]} x {truth.shape[1]}; bring the map to the size of the mask."
        )
        raise InputError(msg)
    return values, truth


def check_pairs(maps: object, masks: object) -> Iterator[tuple[FloatArray, BoolArray]]:
    """Yield the checked maps and masks of a set, one image at a time.

    Parameters
    ----------
    maps, masks : array-like of shape (n, h, w), or sequence of n array-likes of shape (h, w)
        Images may differ in size; a single pair of shape (h, w) counts as a set of one.

    Raises
    ------
    InputError
        As `check_pair`, and when the numbers of images differ or are 0.
    InputTypeError
        Not numeric.
    """
    left, right = _planes(maps, "maps"), _planes(masks, "masks")
    if len(left) != len(right):
        msg = f"maps has {len(left)} images but masks has {len(right)}; both need one entry an image, in one order."
        raise InputError(msg)
    if not left:
        msg = "maps is empty; at least one image is needed."
        raise InputError(msg)
    for k, (values, truth) in enumerate(zip(left, right, strict=True)):
        yield check_pair(values, truth, (f"maps[{k}]", f"masks[{k}]"))


def region_weights(mask: BoolArray) -> tuple[FloatArray, int]:
    """Weigh each defect pixel by one over the size of its region, pixels that touch at a corner being neighbours.

    Parameters
    ----------
    mask : ndarray of bool, shape (h, w)

    Returns
    -------
    weights : ndarray of float64, shape (number of defect pixels,)
        In the order of ``mask[mask]``; they add up to the number of regions.
    regions : int
    """
    from scipy.ndimage import label

    numbers, regions = label(mask, structure=np.ones((3, 3)))
    inside = numbers[mask]
    return 1.0 / np.bincount(inside, minlength=regions + 1)[inside], int(regions)


@dataclass(frozen=True, slots=True)
class Steps:
    """What each step of a falling threshold adds, from the highest scores to the lowest.

    Attributes
    ----------
    normal, anomalous : ndarray of float64, shape (m,)
        Pixels of either class that the step flags.
    weight : ndarray of float64, shape (m,)
        Shares of regions that the step covers; it adds up to the number of regions.
    """

    normal: FloatArray
    anomalous: FloatArray
    weight: FloatArray

    def require(self, purpose: str) -> Steps:
        """Return the steps when both classes have pixels, else raise `InputError`."""
        found = int(self.anomalous.sum()), int(self.normal.sum())
        for count, other, kind, value in ((*found, "defect", 1), (*found[::-1], "normal", 0)):
            if not count:
                msg = (
                    f"masks holds no {kind} pixel (none of {other} is {value}). {purpose} is undefined without one: "
                    f"evaluate on images with at least one pixel {value}."
                )
                raise InputError(msg)
        return self


def exact_steps(maps: object, masks: object, *, regions: bool = False) -> Steps:
    """Return the steps that the distinct values of the maps make; `regions` fills in the weights.

    Steps of normal pixels alone that follow one another are joined: no metric here can tell them apart. So the many
    normal pixels are sorted but never indexed, and there are about twice as many steps as distinct defect values.
    """
    normal, anomalous, weights = [], [], []
    for map_, mask in check_pairs(maps, masks):
        normal.append(map_[~mask])
        anomalous.append(map_[mask])
        weights.append(region_weights(mask)[0] if regions else np.zeros(int(mask.sum())))
    below = np.sort(np.concatenate(normal))
    levels, place = np.unique(np.concatenate(anomalous), return_inverse=True)
    if not levels.size:
        return Steps(np.array([float(below.size)]), np.zeros(1), np.zeros(1))
    under, upto = (np.searchsorted(below, levels, side) for side in ("left", "right"))
    # From the top: the normal pixels above a level, then the level itself; at the end those below all levels.
    falls = [np.zeros(2 * levels.size + 1) for _ in range(3)]
    falls[0][:-1:2] = (np.append(under[1:], below.size) - upto)[::-1]
    falls[0][1::2] = (upto - under)[::-1]
    falls[0][-1] = under[0]
    falls[1][1::2] = np.bincount(place)[::-1]
    falls[2][1::2] = np.bincount(place, np.concatenate(weights))[::-1]
    return Steps(*falls)


def roc_area(steps: Steps) -> tuple[float, float]:
    """Return the area under the ROC curve, and how far off it is at most if a step hides an order of its own."""
    pairs = steps.anomalous.sum() * steps.normal.sum()
    above = np.cumsum(steps.anomalous) - steps.anomalous
    tied = float((steps.normal * steps.anomalous).sum() / 2)
    return float(((steps.normal * above).sum() + tied) / pairs), float(tied / pairs)


def precision_area(steps: Steps) -> tuple[float, float]:
    """Return average precision, and how far off it is at most if a step hides an order of its own."""
    hits, alarms = np.cumsum(steps.anomalous), np.cumsum(steps.normal)
    first = hits - steps.anomalous + 1
    some = steps.anomalous > 0
    share = steps.anomalous[some] / hits[-1]
    at = hits[some] / (hits + alarms)[some]
    # At best all defects of the step come first, at worst all its normal pixels do.
    best = hits[some] / (hits + alarms - steps.normal)[some]
    worst = first[some] / (first + alarms)[some]
    return float((share * at).sum()), float((share * np.maximum(best - at, at - worst)).sum())


def overlap_area(steps: Steps, limit: float) -> tuple[float, float]:
    """Return the normalised area under the overlap of regions, and how far off it is at most, as above.

    The curve is straight between thresholds and is cut where the false-positive rate is `limit`.
    """
    alarms, overlap = np.cumsum(steps.normal), np.cumsum(steps.weight)
    rate, covered = np.append(0.0, alarms / alarms[-1]), np.append(0.0, overlap / overlap[-1])
    full, rise = np.diff(rate), np.diff(covered)
    width = np.clip(limit - rate[:-1], 0.0, full)
    part = np.divide(width, full, out=np.zeros_like(full), where=full > 0)
    # What is missing above the curve, and not the area itself, is added up: a perfect map then gets 1 to the last bit.
    missing = float((width * (1 - covered[:-1] - part * rise / 2)).sum())
    slack = float((width * rise * (1 - part / 2)).sum())
    return max(0.0, 1 - missing / limit), slack / limit


def check_rate(value: object, name: str) -> float:
    """Return `value` when it is a number in (0, 1], else raise."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        msg = f"{name} is {value!r} ({type(value).__name__}); a number above 0 and at most 1 is needed."
        raise InputTypeError(msg)
    if not 0 < value <= 1:
        msg = f"{name} is {value!r}; a number above 0 and at most 1 is needed (0.3 means 30 % of normal pixels)."
        raise InputError(msg)
    return float(value)


def _plane(values: object, name: str) -> npt.NDArray[np.generic]:
    array = _array(values, name)
    if array.ndim != 2:
        msg = f"{name} has shape {array.shape}; one image of shape (rows, columns) is needed."
        raise InputError(msg)
    if not array.size:
        msg = f"{name} has shape {array.shape}; at least one pixel is needed."
        raise InputError(msg)
    return array


def _planes(values: object, name: str) -> list[object]:
    """Return a set of images as a list; each is checked when its turn comes."""
    if isinstance(values, (list, tuple)):
        items = list(values)
        # A list of rows of numbers is one image, as an array of two axes is.
        return [values] if items and _is_row(items[0]) else items
    array = _array(values, name)
    if array.ndim == 2:
        return [array]
    if array.ndim != 3:
        hint = f" Add up the channels first: {name}.sum(axis=1)." if array.ndim == 4 else ""
        msg = f"{name} has shape {array.shape}; (images, rows, columns) or a list of images is needed.{hint}"
        raise InputError(msg)
    return list(array)


def _is_row(item: object) -> bool:
    if isinstance(item, (list, tuple)):
        return bool(item) and isinstance(item[0], (int, float, np.number, np.bool_))
    return getattr(item, "ndim", None) == 1


def _array(values: object, name: str) -> npt.NDArray[np.generic]:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        msg = f"{name} cannot be read as an array ({error}); pass an array of shape (rows, columns)."
        raise InputTypeError(msg) from error
    check_numeric(array, name)
    return array
