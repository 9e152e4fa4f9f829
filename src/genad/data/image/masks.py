"""Masks of images: which pixels are anomalous, read from a file when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genad.data.image.decode import ImageSource
from genad.data.image.notice import warn
from genad.errors import InputError

__all__ = ["Mask", "check_masks", "read_mask"]

#: Sides are whole pixels, so aspect ratios of one picture at two sizes differ a little.
_SAME_ASPECT = 0.01


@dataclass(frozen=True, slots=True)
class Mask:
    """Where the mask of an image is kept: a file, and the image in it when it holds several."""

    source: ImageSource
    index: int = 0


def read_mask(mask: Mask, image: str, size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Read a mask in the size of its image.

    Parameters
    ----------
    mask : Mask
    image : str
        Name of the image, for the message.
    size : (int, int)
        Its height and width.

    Returns
    -------
    ndarray of bool, shape ``size``
        True where any channel is above zero. A mask of the same aspect ratio is resized by nearest neighbour.

    Raises
    ------
    InputError
        The mask has another aspect ratio than its image, or cannot be read.
    """
    found = np.asarray(np.any(mask.source.frame(mask.index) > 0, axis=2))
    if found.shape == size:
        return found
    _check_aspect(mask, (found.shape[0], found.shape[1]), image, size)
    rows = (np.arange(size[0]) + 0.5) * found.shape[0] / size[0]
    columns = (np.arange(size[1]) + 0.5) * found.shape[1] / size[1]
    return found[rows.astype(int)[:, None], columns.astype(int)]


def check_masks(masks: Sequence[Mask | None], images: Sequence[str], sizes: np.ndarray[Any, Any]) -> None:
    """Compare the sizes of masks with those of their images, from the headers of the files.

    Parameters
    ----------
    masks : sequence of Mask or None
    images : sequence of str
        Names of the images.
    sizes : ndarray of int, shape (n, 2)
        Their heights and widths.

    Raises
    ------
    InputError
        A mask has another aspect ratio than its image; both sizes are named.

    Warns
    -----
    DataWarning
        Masks have the aspect ratio of their images, but not their size.
    """
    count, others = 0, []
    for mask, image, (height, width) in zip(masks, images, sizes.tolist(), strict=True):
        if mask is None:
            continue
        count += 1
        header = mask.source.headers()[mask.index]
        if (header.height, header.width) != (height, width):
            _check_aspect(mask, (header.height, header.width), image, (height, width))
            others.append(f"{mask.source.name} {header.width} x {header.height} for {width} x {height}")
    if others:
        warn(
            f"{len(others)} of {count} masks do not have the size of their image but its aspect ratio, and are resized "
            f"to it by nearest neighbour ({others[0]})"
        )


def _check_aspect(mask: Mask, found: tuple[int, int], image: str, size: tuple[int, int]) -> None:
    """Refuse a mask that no resizing brings onto its image."""
    if abs(found[0] * size[1] / (found[1] * size[0]) - 1) > _SAME_ASPECT:
        raise InputError(
            f"the mask {mask.source.name} is {found[1]} x {found[0]} but its image {image} is {size[1]} x {size[0]} "
            "(width x height): a mask marks its image's own pixels; export it again in that size."
        )
