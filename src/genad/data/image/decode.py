"""Picture files to arrays in their own depth: PNG, JPEG, BMP and WebP through Pillow, TIFF through tifffile.

A file is told by its first bytes, not by its ending, and its header is judged before anything is decoded.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from genad.errors import InputError, MissingExtraError
from genad.extras import require

__all__ = ["PIXEL_LIMIT", "Frame", "Header", "ImageSource", "PictureFile"]

#: Pixels (width x height) above which a file is refused from its header; 12,000 x 12,000 is well inside.
PIXEL_LIMIT = 200_000_000

#: First bytes, Pillow's module and class. The classes are opened directly: ``Image.open`` would try every format
#: Pillow knows, some of which start other programs, and warns of bombs by a limit that is the process's, not ours.
_PILLOW = (
    (b"\x89PNG\r\n\x1a\n", "PngImagePlugin", "PngImageFile"),
    (b"\xff\xd8\xff", "JpegImagePlugin", "JpegImageFile"),
    (b"BM", "BmpImagePlugin", "BmpImageFile"),
    (b"RIFF", "WebPImagePlugin", "WebPImageFile"),
)
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ORIENTATION = 274  # the EXIF and TIFF tag
_GREY_MODES = {"1", "L", "LA", "La", "I", "F"}
#: What decoders raise on broken files; several raise whatever their parsing stumbles over.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    AssertionError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of one of its images before it is decoded.

    Attributes
    ----------
    height, width : int
        Pixels, after the rotation the file asks for.
    channels : int
        An upper bound where grey images are stored as colour.
    dtype : numpy.dtype
        uint8, uint16 or float32.
    """

    height: int
    width: int
    channels: int
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded image.

    Attributes
    ----------
    index : int
        Its place in its source.
    name : str
        Relative to the root, unique.
    path : Path or None
        Its file.
    pixels : ndarray of shape (H, W, C)
        uint8, uint16 or float32.
    facts : object or None
        What is known of the volume it is a slice of.
    """

    index: int
    name: str
    path: Path | None
    pixels: np.ndarray[Any, Any]
    facts: Any = None


class ImageSource(Protocol):
    """Anything that holds one or several images: a file, a page of arrays, a volume."""

    @property
    def name(self) -> str:
        """As messages call it, unique."""

    def headers(self) -> list[Header]:
        """Return what is known of each image without decoding."""

    def frames(self) -> Iterator[Frame]:
        """Decode all images, in order."""

    def frame(self, index: int) -> np.ndarray[Any, Any]:
        """Decode one image again, (H, W, C) in its own depth."""


@dataclass(frozen=True)
class PictureFile:
    """A picture in a file; each page of a TIFF file is an image of its own.

    Rotation stored in the file is applied and palettes are expanded. A transparent image is blended over black; an
    alpha channel that is opaque everywhere is dropped. Colour whose channels are all equal becomes one channel. CMYK
    and YCbCr become RGB. Whole numbers of other widths than 8 and 16 bits become float32. Pillow reads colour PNG files
    of 16 bits a channel with 8: keep such data as TIFF. Of an animation the first picture is read.

    Parameters
    ----------
    path : Path
    name : str
        As messages and results shall call it.
    pixel_limit : int, default 200 million
        Images of more pixels are refused from the header, before they could fill the memory.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.png"
    ...     Image.new("RGB", (4, 2), (10, 10, 10)).save(path)
    ...     PictureFile(path, "a.png").frame(0).shape
    (2, 4, 1)
    """

    path: Path
    name: str
    pixel_limit: int = PIXEL_LIMIT

    def headers(self) -> list[Header]:
        """Return the size and depth of each image in the file.

        Raises
        ------
        InputError
            The file is empty, broken, no picture, or larger than the limit.
        """
        with named(self.path), self.path.open("rb") as file:
            kind = self._kind(file)
            if kind is None:
                from genad.data.image import tiff

                return [self._checked(header) for header in tiff.headers(file)]
            image = _opened(kind, file)
            # A PNG file may hold its rotation behind the pixels; only decoding tells.
            late = kind[1] == "PngImageFile" and "exif" not in image.info
            turned = not late and image.getexif().get(_ORIENTATION, 1) in {5, 6, 7, 8}
            width, height = image.size[::-1] if turned else image.size
            channels = 1 if image.mode in _GREY_MODES or image.mode.startswith("I;16") else 3
            return [self._checked(Header(height, width, channels, _depth(image.mode)))]

    def frames(self) -> Iterator[Frame]:
        """Decode every image in the file.

        Raises
        ------
        InputError
            As `headers` does, and where the pixels are cut short.
        """
        with named(self.path), self.path.open("rb") as file:
            kind = self._kind(file)
            if kind is None:
                from genad.data.image import tiff

                count = len([self._checked(header) for header in tiff.headers(file)])
                for index, pixels in enumerate(tiff.pages(file)):
                    name = self.name if count == 1 else f"{self.name}#{index}"
                    yield Frame(index, name, self.path, without_copies(pixels))
                return
            yield Frame(0, self.name, self.path, self._decoded(kind, file))

    def frame(self, index: int) -> np.ndarray[Any, Any]:
        """Decode one image of the file again."""
        with named(self.path), self.path.open("rb") as file:
            kind = self._kind(file)
            if kind is None:
                from genad.data.image import tiff

                if index < len([self._checked(header) for header in tiff.headers(file)]):
                    return without_copies(next(tiff.pages(file, index)))
            elif index == 0:
                return self._decoded(kind, file)
        raise InputError(f"{self.path} has no image number {index}: the file has changed since it was read.")

    def _decoded(self, kind: tuple[str, str], file: Any) -> np.ndarray[Any, Any]:
        image = _opened(kind, file)
        self._checked(Header(image.size[1], image.size[0], 1, np.dtype(np.uint8)))
        return without_copies(pillow_pixels(image))

    def _kind(self, file: Any) -> tuple[str, str] | None:
        """Return Pillow's module and class for the file, or None for TIFF."""
        head = file.read(16)
        file.seek(0)
        if not head:
            raise InputError(f"{self.path} is empty: remove it, or write it again.")
        if head[:4] in _TIFF:
            return None
        for magic, module, name in _PILLOW:
            if head.startswith(magic) and (magic != b"RIFF" or head[8:12] == b"WEBP"):
                return module, name
        raise InputError(
            f"{self.path} is not an image: it starts with {head[:8]!r}; accepted are PNG, JPEG, TIFF, BMP and WebP. "
            "Remove it, or write it again."
        )

    def _checked(self, header: Header) -> Header:
        pixels = header.height * header.width
        if pixels > self.pixel_limit:
            raise InputError(
                f"{self.path} is {header.width} x {header.height}, {pixels:,} pixels; at most {self.pixel_limit:,} are "
                "read, so that no file can fill the memory. Cut it into tiles, or raise pixel_limit."
            )
        if pixels == 0:
            raise InputError(f"{self.path} is {header.width} x {header.height}: it has no pixels; remove it.")
        return header


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Turn whatever decoders raise within the block into one InputError that names the file."""
    try:
        yield
    except (InputError, MissingExtraError):
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: check the path.") from error
    except PermissionError as error:
        raise InputError(f"{path} may not be read: check its permissions.") from error
    except MemoryError as error:
        raise InputError(f"{path} does not fit in memory: cut it into smaller files.") from error
    except _BROKEN as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(
            f"{path} cannot be decoded ({reason}): it may be cut short. Write it again, remove it, or pass "
            "skip_broken=True to go on without it."
        ) from error


def _opened(kind: tuple[str, str], file: Any) -> Any:
    require("PIL", "image")
    return getattr(require(f"PIL.{kind[0]}", "image"), kind[1])(file)


def _depth(mode: str) -> np.dtype[Any]:
    if mode.startswith("I;16"):
        return np.dtype(np.uint16)
    return np.dtype(np.float32 if mode in {"I", "F"} else np.uint8)


def pillow_pixels(image: Any) -> np.ndarray[Any, Any]:
    """Decode an opened picture into (H, W, C)."""
    image.load()
    orientation = image.getexif().get(_ORIENTATION, 1)
    if image.mode.startswith("I;16") or image.mode in {"I", "F"}:
        pixels = np.asarray(image)
        pixels = pixels.astype(np.uint16 if pixels.dtype.itemsize == 2 else np.float32)
    elif image.has_transparency_data:
        pixels = over_black(np.asarray(image.convert("LA" if image.mode in {"L", "LA", "La", "1"} else "RGBA")))
    else:
        wanted = "L" if image.mode in _GREY_MODES else "RGB"
        # Converting to the same mode would copy a large picture for nothing.
        pixels = np.asarray(image if image.mode == wanted else image.convert(wanted))
    return oriented(pixels if pixels.ndim == 3 else pixels[..., None], orientation)


def oriented(pixels: np.ndarray[Any, Any], orientation: int) -> np.ndarray[Any, Any]:
    """Turn pixels upright.

    Parameters
    ----------
    pixels : ndarray of shape (H, W, ...)
        As stored.
    orientation : int
        The EXIF or TIFF tag, 1 to 8; anything else leaves them as they are.

    Returns
    -------
    ndarray
        A view.

    Examples
    --------
    >>> oriented(np.array([[1, 2, 3]]), 6).tolist()
    [[1], [2], [3]]
    """
    if orientation in {5, 6, 7, 8}:
        pixels = pixels.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return pixels


def over_black(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Blend pixels whose last channel is alpha over black, and drop that channel.

    Parameters
    ----------
    pixels : ndarray of shape (H, W, C + 1)
        Unassociated alpha; full opacity is the largest value of the type, 1 for floats.

    Returns
    -------
    ndarray of shape (H, W, C)
        The same values where the alpha is full.

    Examples
    --------
    >>> over_black(np.array([[[200, 255], [200, 51]]], np.uint8)).ravel().tolist()
    [200, 40]
    """
    colour, alpha = pixels[..., :-1], pixels[..., -1:]
    full = 1 if pixels.dtype.kind == "f" else int(np.iinfo(pixels.dtype).max)
    if (alpha == full).all():
        return colour
    if pixels.dtype.kind == "f":
        return colour * np.clip(alpha, 0, 1)
    blended: np.ndarray[Any, Any] = (colour.astype(np.uint32) * alpha + full // 2) // full
    return blended.astype(pixels.dtype)


def without_copies(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Keep one channel of three that are equal everywhere: a grey image stored as colour."""
    if pixels.shape[2] != 3:
        return pixels
    first = pixels[..., 0]
    grey = np.array_equal(first, pixels[..., 1]) and np.array_equal(first, pixels[..., 2])
    return pixels[..., :1] if grey else pixels


def with_channels(pixels: np.ndarray[Any, Any], channels: int, name: str) -> np.ndarray[Any, Any]:
    """Give an image the number of channels of its collection.

    Parameters
    ----------
    pixels : ndarray of shape (H, W, C)
    channels : int
        Grey is repeated to 3; 3 become grey by the luma of ITU-R BT.601 (0.299 R + 0.587 G + 0.114 B).
    name : str
        For the message.

    Returns
    -------
    ndarray of shape (H, W, channels)

    Raises
    ------
    InputError
        Any other change of the number of channels.
    """
    own = pixels.shape[2]
    if own == channels:
        return pixels
    if own == 1 and channels == 3:
        return np.repeat(pixels, 3, axis=2)
    if own == 3 and channels == 1:
        grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
        return (grey if pixels.dtype.kind == "f" else np.rint(grey)).astype(pixels.dtype)[..., None]
    raise InputError(
        f"{name} has {own} channels where {channels} are wanted; only 1 and 3 can be turned into each other. Keep "
        "images of different channels apart, or write them alike."
    )


def with_depth(pixels: np.ndarray[Any, Any], dtype: np.dtype[Any], name: str) -> np.ndarray[Any, Any]:
    """Give an image the depth of its collection: 8 bits fill the range of 16; whole numbers and floats do not mix.

    Raises
    ------
    InputError
        Another change of depth.
    """
    if pixels.dtype == dtype:
        return pixels
    if pixels.dtype == np.uint8 and dtype == np.uint16:
        return pixels.astype(np.uint16) * np.uint16(257)
    raise InputError(
        f"{name} holds {pixels.dtype} values among images of {dtype}, and nothing says how their scales relate; only "
        "uint8 and uint16 go together. Write all images with one depth."
    )
