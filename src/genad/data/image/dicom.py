"""DICOM files: the slices of a series, sorted by position, upright, and normalised together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genad.data.image.decode import PIXEL_LIMIT, Frame, Header, named
from genad.data.image.medical import AXES, normalised_frames
from genad.errors import InputError
from genad.extras import require

__all__ = ["DicomSeries", "dicom_volumes"]

_GREY = {"MONOCHROME1", "MONOCHROME2"}
_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))


@dataclass(frozen=True)
class DicomSeries:
    """The DICOM files of one series.

    Slices keep the plane they were taken in, turned so that the patient's right, anterior and superior sides lie as in
    `VolumeFacts`; files that do not say how they lie are left as stored. Stored values are brought to their units by
    slope and intercept, and MONOCHROME1, where large is dark, is negated.

    Parameters
    ----------
    paths : tuple of Path
        In the order of the slices.
    names : tuple of str
        As messages and results shall call each file; a file of several frames gives ``name#k``.
    pixel_limit : int, default 200 million
        Larger slices are refused from the header.
    """

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    pixel_limit: int = PIXEL_LIMIT

    @property
    def name(self) -> str:
        """The name of its first file."""
        return self.names[0]

    def headers(self) -> list[Header]:
        """Return the size of each slice."""
        return [header for path in self.paths for header in self._headers(path)]

    def _headers(self, path: Path) -> list[Header]:
        with named(path):
            data = _header(path)
            height, width = int(data.Rows), int(data.Columns)
            if height * width > self.pixel_limit:
                raise InputError(
                    f"{path} is {width} x {height}; at most {self.pixel_limit:,} pixels are read. Crop it, or raise "
                    "pixel_limit."
                )
            if data.PhotometricInterpretation not in _GREY:
                raise InputError(
                    f"{path} holds {data.PhotometricInterpretation} pixels; accepted are MONOCHROME1 and MONOCHROME2. "
                    "Export colour pictures as PNG."
                )
            if _lies(data).transposed:
                height, width = width, height
            return [Header(height, width, 1, np.dtype(np.float32))] * int(data.get("NumberOfFrames", 1) or 1)

    def frames(self) -> Iterator[Frame]:
        """Decode the slices that are not empty."""
        self.headers()
        slices, names, paths = [], [], []
        for path, name in zip(self.paths, self.names, strict=True):
            found = _pixels(path)
            slices += list(found)
            names += [name] if len(found) == 1 else [f"{name}#{k}" for k in range(len(found))]
            paths += [path] * len(found)
        with named(self.paths[0]):
            if len({pixels.shape for pixels in slices}) > 1:
                raise InputError(f"{self.name}: the slices of one DICOM series differ in size; keep them apart.")
            yield from normalised_frames(np.stack(slices), names, paths, self._known())

    def frame(self, index: int) -> np.ndarray[Any, Any]:
        """Decode one slice again, normalised with the others of its series."""
        for frame in self.frames():
            if frame.index == index:
                return frame.pixels
        raise InputError(f"{self.name} has no slice {index}: its files have changed since they were read.")

    def _known(self) -> tuple[str, str, tuple[float, float, float]]:
        """Return orientation, plane and spacing; the distance of slices comes from their positions."""
        first = _header(self.paths[0])
        lies = _lies(first)
        rows, columns = (float(v) for v in first.get("PixelSpacing", None) or (np.nan, np.nan))
        if lies.transposed:
            rows, columns = columns, rows
        between = float(first.get("SpacingBetweenSlices", None) or first.get("SliceThickness", None) or np.nan)
        if len(self.paths) > 1:
            places = [_position(_header(path)) for path in (self.paths[0], self.paths[-1])]
            if all(np.isfinite(places)):
                between = abs(places[1] - places[0]) / (len(self.paths) - 1)
        return lies.codes, lies.plane, (rows, columns, between)


def dicom_volumes(files: Sequence[tuple[Path, str]], pixel_limit: int = PIXEL_LIMIT) -> list[DicomSeries]:
    """Group DICOM files into series, their slices in the order of their position.

    Parameters
    ----------
    files : sequence of (Path, str)
        Files and their names.
    pixel_limit : int

    Returns
    -------
    list of DicomSeries
        Files of one folder and one series make one; a file that cannot be read makes one of its own, whose reading
        tells what is wrong.
    """
    groups: dict[tuple[Path, str], list[tuple[tuple[float, float, str], Path, str]]] = {}
    for path, name in files:
        try:
            with named(path):
                data = _header(path)
                series = str(data.get("SeriesInstanceUID", "") or name)
                number = float(data.get("InstanceNumber", None) or 0)
                place = _position(data)
        except InputError:
            series, number, place = name, 0.0, np.nan
        order = (place if np.isfinite(place) else 0.0, number, name)
        groups.setdefault((path.parent, series), []).append((order, path, name))
    found = []
    for members in groups.values():
        _, paths, names = zip(*sorted(members), strict=True)
        found.append(DicomSeries(tuple(paths), tuple(names), pixel_limit))
    return found


@dataclass(frozen=True)
class _Lie:
    """How a slice lies: what turns it upright, and in words."""

    transposed: bool = False
    mirrored: bool = False
    upturned: bool = False
    codes: str = ""
    plane: str = "as stored"
    normal: tuple[float, float, float] | None = None

    def upright(self, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        pixels = pixels.swapaxes(-1, -2) if self.transposed else pixels
        pixels = pixels[..., ::-1] if self.mirrored else pixels
        return pixels[..., ::-1, :] if self.upturned else pixels


def _lies(data: Any) -> _Lie:
    stored = data.get("ImageOrientationPatient", None)
    if stored is None or len(stored) != 6:
        return _Lie()
    # DICOM's directions grow to the left and posterior; ours to the right and anterior.
    directions = np.array(stored, np.float64).reshape(2, 3) * (-1, -1, 1)
    along_columns, along_rows = directions
    column, row = (int(np.argmax(np.abs(direction))) for direction in directions)
    if column == row:
        return _Lie()
    axis = 3 - column - row
    normal = np.cross(along_columns, along_rows)
    normal = normal if normal[axis] > 0 else -normal
    transposed = column > row
    first, second = (along_rows[row], along_columns[column]) if transposed else (along_columns[column], along_rows[row])
    letters = [_LETTERS[i][int(d[i] > 0)] for i, d in ((column, along_columns), (row, along_rows), (axis, normal))]
    plane = next(name for name, number in AXES.items() if number == axis)
    return _Lie(transposed, bool(first < 0), bool(second > 0), "".join(letters), plane, tuple(normal.tolist()))


def _position(data: Any) -> float:
    """Return where a slice lies along its normal in millimetres, NaN where the file does not say."""
    normal, corner = _lies(data).normal, data.get("ImagePositionPatient", None)
    if normal is None or corner is None or len(corner) != 3:
        return float("nan")
    return float(np.dot(np.array(corner, np.float64) * (-1, -1, 1), normal))


def _opened(path: Path, *, header: bool) -> Any:
    pydicom = require("pydicom", "medical")
    try:
        return pydicom.dcmread(path, stop_before_pixels=header)
    except pydicom.errors.InvalidDicomError as error:
        raise InputError(
            f"{path} is not a DICOM file: it has no DICOM header. Remove it, or write it again."
        ) from error


def _header(path: Path) -> Any:
    return _opened(path, header=True)


def _pixels(path: Path) -> np.ndarray[Any, Any]:
    """Return the frames of a file, (k, H, W), upright and in the units of its slope and intercept."""
    with named(path):
        data = _opened(path, header=False)
        stored = data.pixel_array
        values = np.asarray(require("pydicom.pixels", "medical").apply_modality_lut(stored, data), np.float32)
        values = values if values.ndim == 3 else values[None]
        return _lies(data).upright(-values if data.PhotometricInterpretation == "MONOCHROME1" else values)
