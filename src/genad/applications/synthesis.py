"""From a folder of normal images to a folder of defective ones with their masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from genad.data.image import Images, read_image_folder, read_images
from genad.data.resize import resize_map
from genad.errors import InputError
from genad.synthesis.base import create_synthesizer, image_synthesizer

__all__ = ["synthesize_folder"]


def synthesize_folder(
    path: str | Path,
    *,
    method: str,
    n: int,
    out: str | Path,
    defects: str | Path | None = None,
    size: int | tuple[int, int] | None = None,
    seed: int = 0,
    overwrite: bool = False,
    **params: Any,
) -> dict[str, Any]:
    """Make defective images out of normal ones and write them.

    Parameters
    ----------
    path : str or Path
        Normal images; a folder in a known layout gives its normal training images.
    method : str
        Name of a synthesizer of images, see :func:`genad.synthesis.registry.list_synthesizers`.
    n : int
        How many to make, at least 1.
    out : str or Path
        Folder to write: ``images/``, ``masks/`` and a manifest.
    defects : str or Path, optional
        Folder of defective images with masks in a known layout, for synthesizers that learn from some.
    size : int or tuple of int, optional
        Working size in pixels.
    seed : int
        Seed of everything random.
    overwrite : bool
        Write into a folder that is not empty.
    **params
        Hyper-parameters of the synthesizer.

    Returns
    -------
    dict
        What was made: method, images, folder and notes.

    Raises
    ------
    InputError
        When the images, the folder or a parameter cannot be used.
    """
    synthesizer = image_synthesizer("method", create_synthesizer(method, **params))
    normal, notes = _normal(path, size)
    if defects is None:
        synthesizer.fit(normal.pixels)
    else:
        few = _defective(defects, normal.shape)
        masks = [few.mask(i) for i in range(len(few))]
        shape = (normal.shape[1], normal.shape[2])
        planes = np.stack([resize_map(np.asarray(mask, np.float32), shape) > 0.5 for mask in masks])
        synthesizer.fit(normal.pixels, few.pixels, planes)
    made = synthesizer.synthesize(normal.pixels, n, random_state=seed)
    made.save(out, overwrite=overwrite)
    return {"method": method, "images": len(made.samples), "folder": str(out), "notes": notes}


def _normal(path: str | Path, size: Any) -> tuple[Images, list[str]]:
    folder = Path(path)
    layout = folder.is_dir() and any((folder / name).is_dir() for name in ("train", "Data"))
    if not layout:
        return read_images(folder, size=size), []
    found = read_image_folder(folder, size=size)
    return found.train, [*found.notes, f"only the normal images to train on are used: {found.why}"]


def _defective(path: str | Path, shape: tuple[int, ...]) -> Images:
    """Return the defective images that have masks, in the working shape of the normal ones."""
    found = read_image_folder(path, size=(shape[1], shape[2]), channels=shape[0])
    test = found.test if found.test is not None else found.train
    with_mask = [i for i in range(len(test)) if test.labels is not None and test.labels[i] == 1]
    with_mask = [i for i in with_mask if test.mask(i) is not None]
    if not with_mask:
        raise InputError(f"defects: {path} has no defective image with a mask; give a folder in the layout of MVTec.")
    return test.take(np.asarray(with_mask))
