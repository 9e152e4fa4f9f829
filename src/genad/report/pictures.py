"""Small pictures of images, clips and windows, drawn without an imaging library."""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from genad.data.kinds import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from genad.core.detections import Detections

_LARGEST = 160
_CURVES = 3
_WIDTH, _HEIGHT = 320, 90
# Of what is anomalous: red, green and blue.
_COLOUR = (214, 80, 50)


@dataclass(frozen=True)
class Picture:
    """One picture of an item.

    Attributes
    ----------
    caption : str
        What it shows.
    source : str
        A ``data:`` address of a PNG; "" for curves.
    curves : tuple of (str, str)
        Points of the observed and the expected curve in a box of 320 x 90; "" where there is none.
    """

    caption: str
    source: str = ""
    curves: tuple[str, str] = ("", "")


def pictures(detections: Detections, i: int) -> list[Picture]:
    """Draw unit ``i`` beside its nearest normal sample and the map of where they differ.

    Parameters
    ----------
    detections : Detections
        Of images, clips (their most anomalous frame) or windows (their most telling channels).
    i : int
        The unit.

    Returns
    -------
    list of Picture
        Empty for other kinds, and for what the answer does not hold.
    """
    if detections.observed is None or detections.kind not in (Kind.IMAGE, Kind.VIDEO, Kind.WINDOW):
        return []
    seen = np.asarray(detections.observed[i], np.float64)
    normal = None if detections.expected is None else np.asarray(detections.expected[i], np.float64)
    where = None if detections.maps is None else np.asarray(detections.maps[i], np.float64)
    if detections.kind is Kind.WINDOW:
        return _window(detections.names, seen, normal, where)
    frame = ""
    if detections.kind is Kind.VIDEO:
        at = 0 if where is None else int(np.nansum(where, axis=(1, 2, 3)).argmax())
        frame = f", frame {at}"
        seen = seen[at]
        normal = None if normal is None else normal[at]
        where = None if where is None else where[at]
    low, high = _brightness(detections, seen)
    found = [Picture(f"observed{frame}", _photo(seen, low, high))]
    if normal is not None:
        found.append(Picture("nearest normal", _photo(normal, low, high)))
    if where is None:
        return found
    if detections.kind is not Kind.IMAGE:
        return [*found, Picture("where", _heat(where))]
    total = np.nan_to_num(where).clip(0)
    total = total if total.ndim == 2 else total.sum(0)
    backdrop = _grey(seen, low, high)
    pixels = getattr(detections, "pixels", None)
    # Full colour at twice the pixel threshold at the lowest, so that a normal image looks calm.
    strength = _strength(total)
    if pixels is not None:
        strength = total / max(2 * pixels.value, float(total.max()), 1e-300)
    found.append(Picture("where", _overlay(backdrop, strength)))
    if pixels is not None:
        found.append(Picture("mask", _overlay(backdrop, (total > pixels.value).astype(np.float64))))
    return found


def png(pixels: NDArray[np.uint8]) -> bytes:
    r"""Encode pixels as a PNG.

    Parameters
    ----------
    pixels : uint8 array of shape (rows, columns, channels)
        1 (grey), 3 (RGB) or 4 (RGBA) channels.

    Returns
    -------
    bytes
        The file.

    Examples
    --------
    >>> import numpy as np
    >>> png(np.zeros((2, 3, 1), np.uint8))[:8]
    b'\x89PNG\r\n\x1a\n'
    """
    rows, columns, channels = pixels.shape
    colour_type = {1: 0, 3: 2, 4: 6}[channels]
    # Every line starts with the number of its filter; 0 is none.
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), pixels.reshape(rows, -1)], axis=1)

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", columns, rows, 8, colour_type, 0, 0, 0)
    body = zlib.compress(lines.tobytes(), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def _address(pixels: NDArray[np.uint8]) -> str:
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode("ascii")


def _blocks(image: NDArray[np.float64], reduce: Any) -> NDArray[np.float64]:
    """Shrink (channels, rows, columns) to at most 160 pixels a side by reducing square blocks."""
    side = -(-max(image.shape[1:]) // _LARGEST)
    if side == 1:
        return image
    rows, columns = (-(-size // side) for size in image.shape[1:])
    padding = ((0, 0), (0, rows * side - image.shape[1]), (0, columns * side - image.shape[2]))
    padded = np.pad(image, padding, mode="edge")
    shrunk: NDArray[np.float64] = reduce(padded.reshape(len(image), rows, side, columns, side), axis=(2, 4))
    return shrunk


def _photo(image: NDArray[np.float64], low: float, high: float) -> str:
    # One or three channels are grey or RGB; of any other number the first is shown.
    shown = image if len(image) in (1, 3) else image[:1]
    scaled = (np.nan_to_num(_blocks(shown, np.mean), nan=low) - low) / max(high - low, 1e-12)
    return _address(np.moveaxis((scaled.clip(0, 1) * 255).round().astype(np.uint8), 0, -1).copy())


def _brightness(detections: Detections, seen: NDArray[np.float64]) -> tuple[float, float]:
    """Return the values drawn black and white: the whole range of photographs, else what the sample holds."""
    images = getattr(detections, "images", None)
    if images is not None and images.pixels.dtype == np.uint8:
        return 0.0, 255.0
    known = seen[np.isfinite(seen)]
    return (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)


def _grey(image: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Return an image as one plane from 0 to 1."""
    return ((np.nan_to_num(image.mean(axis=0), nan=low) - low) / max(high - low, 1e-12)).clip(0, 1)


def _strength(total: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt(total / max(float(total.max()), 1e-300))


def _overlay(grey: NDArray[np.float64], strength: NDArray[np.float64]) -> str:
    """Lay one colour over a grey image, as opaque as the map is strong."""
    below = _blocks(grey[None], np.mean)[0][..., None] * 255
    # The highest value of a block is kept, so that a single bad pixel stays visible.
    above = 0.85 * _blocks(strength[None], np.max)[0][..., None]
    mixed = below * (1 - above) + np.array(_COLOUR) * above
    return _address(mixed.round().clip(0, 255).astype(np.uint8))


def _heat(where: NDArray[np.float64]) -> str:
    """Draw a map as one colour of varying opacity, which sits on light and dark pages."""
    # As in an overlay, a single bad pixel stays visible.
    strength = _strength(_blocks(np.nan_to_num(where).clip(0).sum(0, keepdims=True), np.max)[0])
    pixels = np.empty((*strength.shape, 4), np.uint8)
    pixels[..., :3] = _COLOUR
    pixels[..., 3] = (strength * 255).round().astype(np.uint8)
    return _address(pixels)


def _window(
    names: list[str],
    seen: NDArray[np.float64],
    normal: NDArray[np.float64] | None,
    where: NDArray[np.float64] | None,
) -> list[Picture]:
    weight = np.zeros(seen.shape[1]) if where is None else np.nansum(where, axis=0)
    found = []
    for channel in np.argsort(-weight, kind="stable")[:_CURVES]:
        both = [seen[:, channel]] + ([] if normal is None else [normal[:, channel]])
        known = np.concatenate(both)
        known = known[np.isfinite(known)]
        low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
        points = [_points(curve, low, high) for curve in both]
        found.append(Picture(names[channel], curves=(points[0], points[1] if normal is not None else "")))
    return found


def _points(curve: NDArray[np.float64], low: float, high: float) -> str:
    x = np.linspace(2, _WIDTH - 2, len(curve))
    y = _HEIGHT - 4 - (_HEIGHT - 8) * (curve - low) / max(high - low, 1e-12)
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True) if np.isfinite(b))
