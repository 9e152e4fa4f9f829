"""Medical volumes as slices: NIfTI files and DICOM series, upright, normalised by volume, and written back."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from genad.data.image.decode import PIXEL_LIMIT, Frame, Header, named
from genad.errors import InputError
from genad.extras import require
from genad.files import replace_file

__all__ = ["AXES", "NiftiVolume", "VolumeFacts", "save_nifti", "slice_intensities"]

#: The axis of a canonical volume (right, anterior, superior) that each kind of slice runs along.
AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
#: Slices with a smaller share of foreground are left out.
EMPTY = 0.05
_VOXELS_PER_PIXEL = 10


@dataclass(frozen=True)
class VolumeFacts:
    """What was found out of a volume, so that its slices can be understood and put back.

    Attributes
    ----------
    orientation : str
        Directions in which the stored axes grow, such as ``"LPS"``; ``""`` where the file does not say. Slices are
        shown with the patient's right, then anterior, then superior side growing: columns along the first of the two
        axes in the plane, rows against the second, so that superior, or in axial slices anterior, is at the top.
    axis : str
        ``"axial"``, ``"coronal"``, ``"sagittal"``, or ``"as stored"``.
    spacing : tuple of float
        Millimetres between rows, columns and slices; NaN where the file does not say.
    slices : int
        Of the volume.
    dropped : tuple of int
        Slices left out: less than 5 % foreground.
    low, high : float
        Intensities that became 0 and 1: the 1st and 99th percentile of the foreground.
    foreground : float
        Intensity above which a voxel is foreground: a tenth of the way from the smallest to the 99th percentile.
    """

    orientation: str
    axis: str
    spacing: tuple[float, float, float]
    slices: int
    dropped: tuple[int, ...]
    low: float
    high: float
    foreground: float


def slice_intensities(slices: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    """Return the intensities of a volume that become 0 and 1, and the one above which a voxel is foreground.

    Parameters
    ----------
    slices : ndarray of shape (k, H, W)
        Finite.

    Returns
    -------
    low, high, foreground : float

    Raises
    ------
    ValueError
        The volume is constant.

    Examples
    --------
    >>> volume = np.zeros((1, 10, 10))
    >>> volume[0, 5:] = np.linspace(100, 200, 50).reshape(5, 10)
    >>> [round(float(v)) for v in slice_intensities(volume)]
    [101, 199, 20]
    """
    smallest = float(slices.min())
    foreground = smallest + 0.1 * (float(np.percentile(slices, 99)) - smallest)
    inside = slices[slices > foreground]
    if inside.size == 0:
        raise ValueError("all its voxels are equal")
    low, high = (float(v) for v in np.percentile(inside, [1, 99]))
    return low, high if high > low else low + 1.0, foreground


def _scaled(pixels: np.ndarray[Any, Any], low: float, high: float) -> np.ndarray[Any, Any]:
    return np.clip((pixels - low) / (high - low), 0, 1).astype(np.float32)


@dataclass(frozen=True)
class NiftiVolume:
    """A NIfTI file: its slices along one axis of the canonical orientation.

    Parameters
    ----------
    path : Path
    name : str
        As messages and results shall call it; slices are ``name#k``, k counted along the canonical axis.
    axis : {"axial", "coronal", "sagittal"}, default "axial"
    scaled : bool, default True
        Normalise intensities; without it slices hold the stored values, as masks need.
    pixel_limit : int, default 200 million
        Slices of more pixels, and volumes of more than ten times as many voxels, are refused.
    """

    path: Path
    name: str
    axis: str = "axial"
    scaled: bool = True
    pixel_limit: int = PIXEL_LIMIT

    def __post_init__(self) -> None:
        if self.axis not in AXES:
            raise InputError(f"axis: {self.axis!r} was given; use {' or '.join(map(repr, AXES))}.")

    def headers(self) -> list[Header]:
        """Return the size of each slice."""
        with named(self.path):
            shape, _ = _canonical_shape(self.opened())
            along = AXES[self.axis]
            width, height = (side for i, side in enumerate(shape) if i != along)
            return [Header(height, width, 1, np.dtype(np.float32))] * shape[along]

    def frames(self) -> Iterator[Frame]:
        """Decode the slices that are not empty."""
        with named(self.path):
            image = self.opened()
            slices = _slices(_canonical(image), self.axis)
            shape, zooms = _canonical_shape(image)
            along = AXES[self.axis]
            columns, rows = (zooms[i] for i in range(len(shape)) if i != along)
            codes = "".join(require("nibabel", "medical").aff2axcodes(image.affine))
            yield from normalised_frames(
                slices,
                [f"{self.name}#{k}" for k in range(len(slices))],
                [self.path] * len(slices),
                (codes, self.axis, (rows, columns, zooms[along])),
            )

    def frame(self, index: int) -> np.ndarray[Any, Any]:
        """Decode one slice again; the volume read last is kept, since slices are mostly asked for in a row."""
        with named(self.path):
            facts = self.path.stat()
            slices, low, high = _kept_volume(self, facts.st_mtime_ns, facts.st_size)
            pixels = slices[index]
            return (_scaled(pixels, low, high) if self.scaled else np.array(pixels, np.float32))[..., None]

    def opened(self) -> Any:
        """Open the file and judge its header."""
        nibabel = require("nibabel", "medical")
        try:
            image = nibabel.load(self.path)
        except nibabel.filebasedimages.ImageFileError as error:
            raise InputError(f"{self.path} is not a NIfTI file: remove it, or write it again.") from error
        shape = image.shape
        if len(shape) < 3 or any(side != 1 for side in shape[3:]):
            raise InputError(f"{self.path} has shape {shape}; give volumes of 3 axes, one file for each time or kind.")
        voxels = int(np.prod(shape))
        if voxels == 0 or voxels > _VOXELS_PER_PIXEL * self.pixel_limit:
            raise InputError(
                f"{self.path} has {voxels:,} voxels; from 1 to {_VOXELS_PER_PIXEL * self.pixel_limit:,} are read. "
                "Crop it, or raise pixel_limit."
            )
        return image


@lru_cache(maxsize=1)
def _kept_volume(
    volume: NiftiVolume,
    changed: int,  # noqa: ARG001  part of the key
    size: int,  # noqa: ARG001  part of the key
) -> tuple[np.ndarray[Any, Any], float, float]:
    slices = _slices(_canonical(volume.opened()), volume.axis)
    low, high, _ = slice_intensities(slices) if volume.scaled else (0.0, 1.0, 0.0)
    return slices, low, high


def _canonical_shape(image: Any) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return the sides and spacings of a volume along right, anterior and superior."""
    order = np.argsort(require("nibabel", "medical").io_orientation(image.affine)[:, 0])
    zooms = image.header.get_zooms()
    return tuple(int(image.shape[i]) for i in order), tuple(float(zooms[i]) for i in order)


def _canonical(image: Any) -> np.ndarray[Any, Any]:
    """Return the voxels with their axes growing to the right, anterior and superior."""
    nibabel = require("nibabel", "medical")
    voxels = np.asarray(image.dataobj, dtype=np.float32).reshape(image.shape[:3])
    upright = nibabel.apply_orientation(voxels, nibabel.io_orientation(image.affine))
    return np.nan_to_num(upright, copy=False, nan=0.0, posinf=0.0, neginf=0.0)


def _slices(voxels: np.ndarray[Any, Any], axis: str) -> np.ndarray[Any, Any]:
    """Return a view (k, H, W): columns grow along the first canonical axis in the plane, rows against the second."""
    return np.moveaxis(voxels, AXES[axis], 0).swapaxes(1, 2)[:, ::-1]


def _voxels(slices: np.ndarray[Any, Any], axis: str) -> np.ndarray[Any, Any]:
    """Undo `_slices`."""
    return np.moveaxis(slices[:, ::-1].swapaxes(1, 2), 0, AXES[axis])


def normalised_frames(
    slices: np.ndarray[Any, Any],
    names: list[str],
    paths: list[Path],
    known: tuple[str, str, tuple[float, float, float]],
) -> Iterator[Frame]:
    """Normalise the slices of a volume and leave out empty ones."""
    low, high, foreground = slice_intensities(slices)
    full = (slices > foreground).mean(axis=(1, 2)) >= EMPTY
    if not full.any():
        raise ValueError(f"every slice has less than {EMPTY:.0%} foreground")
    facts = VolumeFacts(*known, len(slices), tuple(np.flatnonzero(~full).tolist()), low, high, foreground)
    for k in np.flatnonzero(full).tolist():
        yield Frame(k, names[k], paths[k], _scaled(slices[k], low, high)[..., None], facts)


def save_nifti(
    path: str | Path,
    volume: Any,
    like: str | Path,
    *,
    indices: Sequence[int] | None = None,
    axis: str = "axial",
    value_range: tuple[float, float] | None = None,
) -> Path:
    """Write slices as a volume that lies on the one they were read from.

    Parameters
    ----------
    path : str or Path
        Ends in .nii or .nii.gz. A file of that name is replaced when the new one is complete.
    volume : array of shape (k, H, W) or (k, H, W, 1)
        Slices as `read_images` gives them, in their own size: masks, maps or restored slices.
    like : str or Path
        The NIfTI file they come from; orientation, spacing and header are its own.
    indices : sequence of int, optional
        The number behind the # of each slice; the others become zero. Omitted when all slices are given.
    axis : {"axial", "coronal", "sagittal"}, default "axial"
        As the slices were read.
    value_range : (low, high), optional
        Undo the normalisation: 0 becomes ``low`` and 1 ``high`` (see `VolumeFacts`).

    Returns
    -------
    Path

    Raises
    ------
    InputError
        Slices of another number or size than the volume has, or another ending.
    GenadError
        The file cannot be written; no part of it is left.
    """
    nibabel = require("nibabel", "medical")
    path = Path(path)
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise InputError(f"path: {path} was given; it must end in .nii or .nii.gz.")
    source = NiftiVolume(Path(like), str(like), axis)
    header = source.headers()
    given = np.asarray(volume)
    given = given[..., 0] if given.ndim == 4 and given.shape[3] == 1 else given
    places = np.arange(len(header)) if indices is None else np.asarray(indices, np.int64)
    size = (header[0].height, header[0].width)
    if given.shape != (len(places), *size):
        raise InputError(
            f"volume: shape {given.shape} was given; {like} has {len(header)} {axis} slices of {size}, of which "
            f"{len(places)} are to be written."
        )
    if len(np.unique(places)) < len(places) or len(places) == 0 or places.min() < 0 or places.max() >= len(header):
        raise InputError(f"indices: use different whole numbers from 0 to {len(header) - 1}.")
    with named(source.path):
        image = nibabel.load(source.path)
    values = given.astype(np.uint8 if given.dtype.kind == "b" else np.float32)
    if value_range is not None:
        values = value_range[0] + values.astype(np.float32) * np.float32(value_range[1] - value_range[0])
    slices = np.zeros((len(header), *size), values.dtype)
    slices[places] = values
    back = nibabel.orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], nibabel.io_orientation(image.affine))
    stored = nibabel.apply_orientation(_voxels(slices, axis), back)
    made = nibabel.Nifti1Image(np.ascontiguousarray(stored), image.affine, image.header)
    made.set_data_dtype(values.dtype)
    made.header.set_slope_inter(1, 0)
    zipped = path.name.lower().endswith(".gz")

    def write(part: Path) -> None:
        stream = made.to_bytes()
        # Without the time in its header, the same slices give the same file.
        part.write_bytes(gzip.compress(stream, compresslevel=6, mtime=0) if zipped else stream)

    replace_file(path, write)
    return path
