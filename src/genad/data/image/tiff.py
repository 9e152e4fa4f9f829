"""Pages of TIFF files: any number of channels, 8 and 16 bits, floats, and what only Pillow can decompress."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from genad.data.image.decode import Header, oriented, over_black, pillow_pixels
from genad.errors import InputError
from genad.extras import require

__all__ = ["headers", "pages"]

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE = range(4)
#: None, PackBits, two kinds of Deflate, LZMA: what tifffile unpacks by itself. Pillow knows LZW, JPEG and fax codes.
_COMPRESSION = {1, 8, 32773, 32946, 34925}
_ALPHA = {1, 2}


def headers(file: Any) -> list[Header]:
    """Return the size and depth of each page.

    Parameters
    ----------
    file : binary file
        At any position.

    Returns
    -------
    list of Header
        Thumbnails and reduced copies are left out.
    """
    file.seek(0)
    with require("tifffile", "image").TiffFile(file) as opened:
        return [_header(page) for page in _full_pages(opened)]


def pages(file: Any, start: int = 0) -> Iterator[np.ndarray[Any, Any]]:
    """Decode the pages one after another.

    Parameters
    ----------
    file : binary file
        At any position.
    start : int, default 0
        The first page wanted.

    Yields
    ------
    ndarray of shape (H, W, C)
        uint8, uint16 or float32.

    Raises
    ------
    InputError
        A compression that neither tifffile nor Pillow unpacks.
    """
    file.seek(0)
    with require("tifffile", "image").TiffFile(file) as opened:
        for index, page in _numbered(opened)[start:]:
            yield _decoded(page) if _own(page) else _by_pillow(file, index, page)


def _numbered(opened: Any) -> list[tuple[int, Any]]:
    return [(i, page) for i, page in enumerate(opened.pages) if not page.is_reduced and not page.is_mask]


def _full_pages(opened: Any) -> list[Any]:
    found = [page for _, page in _numbered(opened)]
    if not found:
        raise InputError(f"{opened.filename} holds no image: write it again.")
    return found


def _own(page: Any) -> bool:
    return page.photometric in {_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE} and page.compression in _COMPRESSION


def _header(page: Any) -> Header:
    height, width = page.imagelength, page.imagewidth
    if _orientation(page) in {5, 6, 7, 8}:
        height, width = width, height
    if page.photometric in {_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB}:
        channels = page.samplesperpixel - (1 if _has_alpha(page) else 0)
    else:
        channels = 3
    return Header(height, width, channels, _depth(page))


def _depth(page: Any) -> np.dtype[Any]:
    if page.photometric == _PALETTE or page.dtype is None or page.dtype.kind == "b":
        return np.dtype(np.uint8)
    return page.dtype if page.dtype in (np.uint8, np.uint16) else np.dtype(np.float32)


def _orientation(page: Any) -> int:
    tag = page.tags.get(274)
    return 1 if tag is None else int(tag.value)


def _has_alpha(page: Any) -> bool:
    extra = page.extrasamples
    return len(extra) > 0 and int(extra[-1]) in _ALPHA and page.samplesperpixel in {2, 4}


def _decoded(page: Any) -> np.ndarray[Any, Any]:
    if page.imagedepth != 1:
        raise ValueError("a page is a volume, which is not read")
    pixels = page.asarray()
    pixels = pixels.reshape(page.shaped[1:]) if pixels.ndim < 2 else pixels
    if page.planarconfig == 2 and page.samplesperpixel > 1:
        pixels = np.moveaxis(pixels.reshape(page.samplesperpixel, page.imagelength, page.imagewidth), 0, -1)
    pixels = pixels.reshape(page.imagelength, page.imagewidth, page.samplesperpixel)
    if page.photometric == _PALETTE:
        # The colours of a TIFF palette have 16 bits; 8 of them are what any palette image was made from.
        pixels = (np.asarray(page.colormap)[:, pixels[..., 0]] >> 8).astype(np.uint8).transpose(1, 2, 0)
    elif page.photometric == _WHITE_IS_ZERO and pixels.dtype.kind in "bu":
        full = (1 << page.bitspersample) - 1
        pixels = ~pixels if pixels.dtype.kind == "b" else (full - pixels).astype(pixels.dtype)
    return oriented(_plain(pixels, page), _orientation(page))


def _plain(pixels: np.ndarray[Any, Any], page: Any) -> np.ndarray[Any, Any]:
    if pixels.dtype.kind == "b":
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype == np.uint8 and page.photometric != _PALETTE and page.bitspersample < 8:
        # A picture of 1, 2 or 4 bits fills the range of 8.
        pixels = (pixels.astype(np.uint16) * 255 // ((1 << page.bitspersample) - 1)).astype(np.uint8)
    pixels = pixels.astype(_depth(page))
    return over_black(pixels) if _has_alpha(page) else pixels


def _by_pillow(file: Any, index: int, page: Any) -> np.ndarray[Any, Any]:
    plugin = require("PIL.TiffImagePlugin", "image")
    try:
        # Pillow turns a TIFF image upright by itself when it loads it.
        file.seek(0)
        image = plugin.TiffImageFile(file)
        image.seek(index)
        image.load()
        return pillow_pixels(image)
    except (OSError, SyntaxError, ValueError, KeyError) as error:
        found = " ".join(str(error).split())[:120]
    raise InputError(
        f"{getattr(file, 'name', 'the file')} is a TIFF file packed by {page.compression.name} with "
        f"{page.samplesperpixel} channels of {page.bitspersample} bits, which cannot be unpacked ({found}): "
        "write it uncompressed or with Deflate."
    )
