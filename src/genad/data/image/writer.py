"""Write images whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genad.errors import InputError
from genad.extras import require
from genad.files import replace_file

#: Endings an image can be written with.
ENDINGS = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg", ".webp")
# The others hold 8 bits and at most 4 channels.
_DEEP = (".tif", ".tiff")


def check_image_target(path: str | Path) -> Path:
    """Refuse a file name whose ending no image has.

    Raises
    ------
    InputError
        When the ending is unknown.
    """
    target = Path(path)
    if target.suffix.lower() not in ENDINGS:
        raise InputError(f"out: {str(path)!r} was given; an image file ends in {', '.join(ENDINGS)}.")
    return target


def write_image(pixels: NDArray[Any], path: str | Path) -> Path:
    """Write one image, by way of a file beside it that is renamed when complete.

    Parameters
    ----------
    pixels : array of shape (rows, columns) or (rows, columns, channels)
        bool (0 and 255), uint8, uint16 or float32. PNG takes 8 bits of 1, 3 or 4 channels and 16 bits of one; TIFF
        takes everything.
    path : str or Path
        Its ending says the format.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        When the format cannot hold the pixels.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_image(np.eye(4, dtype=bool), f"{folder}/mask.png").name
    'mask.png'
    """
    target = check_image_target(path)
    values = np.asarray(pixels)
    values = values.astype(np.uint8) * 255 if values.dtype == np.bool_ else values
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    suffix = target.suffix.lower()

    def save(part: Path) -> None:
        if suffix in _DEEP:
            require("tifffile", "image").imwrite(part, values)
        else:
            image = require("PIL.Image", "image").fromarray(values)
            image.save(part, format={".jpg": "JPEG", ".jpeg": "JPEG"}.get(suffix, suffix[1:].upper()))

    plain = values.dtype == np.uint8 and (values.ndim == 2 or values.shape[2] in (3, 4))
    deep_png = suffix == ".png" and values.dtype == np.uint16 and values.ndim == 2
    if suffix not in _DEEP and not plain and not deep_png:
        raise InputError(
            f"out: {target.name} cannot hold {values.dtype} pixels of shape {values.shape}; use a name ending in .tif."
        )
    replace_file(target, save)
    return target
