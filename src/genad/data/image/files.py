"""Find image files, and what reads each of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from genad.data.container import listing
from genad.data.image.decode import PIXEL_LIMIT, ImageSource, PictureFile
from genad.errors import InputError

__all__ = ["ENDINGS", "find_files", "holds_images", "is_dicom", "is_image_name", "sources_of"]

#: Endings of the files that a folder is searched for, beside DICOM files without an ending.
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".nii", ".nii.gz", ".dcm")


def find_files(source: Any) -> tuple[list[Path], Path]:
    """Return the image files that a path or a list of paths stands for, and the folder their names are relative to.

    Parameters
    ----------
    source : path or list of paths
        Folders are searched through and through; hidden files are passed over.

    Returns
    -------
    files : list of Path
        In the order of their names.
    root : Path

    Raises
    ------
    InputError
        A path that does not exist, a folder without images, a file given twice.
    """
    if isinstance(source, list | tuple):
        files = [Path(item) for item in source]
        for file in files:
            _check_exists(file)
        if len(set(files)) < len(files):
            raise InputError(f"X: {listing(sorted({str(f) for f in files if files.count(f) > 1}))} was given twice.")
        root = Path(os.path.commonpath([file.absolute().parent for file in files]))
        return [file.absolute() for file in files], root
    path = Path(source)
    _check_exists(path)
    if path.is_file():
        return [path], path.parent
    found = sorted(_walk(path), key=lambda file: file.relative_to(path).as_posix())
    if not found:
        others = sorted({p.suffix.lower() for p in path.iterdir() if p.is_file() and p.suffix})
        hint = f"; it has files ending in {listing(others)}" if others else ""
        raise InputError(f"{path} holds no image{hint}: accepted are files ending in {', '.join(ENDINGS)}.")
    return found, path


def holds_images(source: Any) -> bool:
    """Tell whether a path is an image file, or a folder with an image anywhere in it.

    Parameters
    ----------
    source : path
        Need not exist.

    Returns
    -------
    bool

    Examples
    --------
    >>> holds_images("measurements.csv"), holds_images("nowhere")
    (False, False)
    """
    path = Path(source)
    if path.is_dir():
        return next(_walk(path), None) is not None
    return path.is_file() and is_image_name(path)


def _check_exists(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path} does not exist: check the path.")


def _walk(root: Path) -> Iterator[Path]:
    for folder, inner, files in os.walk(root):
        inner[:] = [name for name in inner if not name.startswith(".")]
        yield from (Path(folder, name) for name in files if is_image_name(Path(folder, name)))


def is_image_name(path: Path) -> bool:
    """Tell whether a file is taken for an image: by its ending, or as a DICOM file by its first bytes."""
    name = path.name.lower()
    if name.startswith("."):
        return False
    return name.endswith(ENDINGS) or ("." not in name and is_dicom(path))


def is_dicom(path: Path) -> bool:
    """Tell whether a file is a DICOM file: by its ending, or by the mark behind its preamble."""
    if path.suffix.lower() == ".dcm":
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def sources_of(
    files: Sequence[Path], root: Path, pixel_limit: int = PIXEL_LIMIT, axis: str = "axial"
) -> list[ImageSource]:
    """Return what reads each file; DICOM files of one series make one volume.

    Parameters
    ----------
    files : sequence of Path
    root : Path
        Names are relative to it.
    pixel_limit, axis
        As in `read_images`.

    Returns
    -------
    list of ImageSource
    """
    found: list[ImageSource] = []
    slices: list[tuple[Path, str]] = []
    for path in files:
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
        lower = path.name.lower()
        if lower.endswith((".nii", ".nii.gz")):
            from genad.data.image.medical import NiftiVolume

            found.append(NiftiVolume(path, name, axis, pixel_limit=pixel_limit))
        elif lower.endswith(".dcm") or (not path.suffix and is_dicom(path)):
            slices.append((path, name))
        else:
            found.append(PictureFile(path, name, pixel_limit))
    if slices:
        from genad.data.image.dicom import dicom_volumes

        found += dicom_volumes(slices, pixel_limit)
    return found
