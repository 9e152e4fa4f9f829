"""Read images: find the files, decode each once in a few threads, bring them to one size, depth and channel count."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from genad.data.container import listing
from genad.data.image.cache import MEMORY, allocate
from genad.data.image.decode import PIXEL_LIMIT, Frame, Header, ImageSource, with_channels, with_depth
from genad.data.image.files import find_files, sources_of
from genad.data.image.images import Images, NumberedSource
from genad.data.image.notice import warn
from genad.data.image.resize import resized, working_size
from genad.errors import InputError, InputTypeError

__all__ = ["load", "read_images"]

_THREADS = 4
_SLICE = 1 << 24
_ASPECTS = 1.1

Progress = Callable[[int, int], None]


def read_images(
    source: Any,
    *,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    skip_broken: bool = False,
    memory: int = MEMORY,
    labels: Any = None,
    pixel_limit: int = PIXEL_LIMIT,
    axis: str = "axial",
    progress: Progress | None = None,
) -> Images:
    """Read images from wherever they are.

    Parameters
    ----------
    source : path, list of paths, array, tensor, list of arrays, or Images
        A folder is searched with all folders in it. See `PictureFile` for how files are read and `Images.from_arrays`
        for arrays. Images are returned as they are.
    size : int or (height, width), optional
        The working size; a whole number gives squares. See `working_size` for the choice when omitted.
    channels : {1, 3} or int, optional
        Otherwise 3 when any image has colour, 1 when all are grey.
    skip_broken : bool, default False
        Go on without files that cannot be decoded.
    memory : int, default 1 GB
        Bytes of pixels kept in memory; more lie in a temporary file.
    labels : array, or path of a table, optional
        One label per image (1 anomaly, 0 normal, -1 unknown), or a file with a column of names and one of labels.
    pixel_limit : int, default 200 million
        Files of more pixels are refused before they are decoded.
    axis : {"axial", "coronal", "sagittal"}, default "axial"
        The plane in which NIfTI volumes are sliced; DICOM slices stay as they were taken.
    progress : callable, optional
        Called with the number of files done and the number of all.

    Returns
    -------
    Images

    Raises
    ------
    InputError
        Nothing to read, a broken file (named), images whose channels or depths do not go together.
    InputTypeError
        A source of another type.

    Warns
    -----
    DataWarning
        Files were left out, or aspect ratios differ by more than 10 % so that images are stretched.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, side in [("a.png", 8), ("b.png", 8), ("c.png", 16)]:
    ...         Image.new("L", (side, side), 9).save(Path(folder) / name)
    ...     images = read_images(folder)
    >>> images, images.names, images.sizes[:, 0].tolist()
    (Images(3 of 1 x 8 x 8, uint8), ['a.png', 'b.png', 'c.png'], [8, 8, 16])
    """
    if isinstance(source, Images):
        return source
    if not _are_paths(source):
        if not isinstance(source, list | tuple) and not hasattr(source, "shape"):
            raise InputTypeError(
                f"X: a {type(source).__name__} was given; images are read from a folder, a file, a list of files, an "
                "array, a tensor, or a list of arrays."
            )
        return Images.from_arrays(source, labels, size=size, channels=channels, memory=memory)
    files, root = find_files(source)
    images = load(
        sources_of(files, root, pixel_limit, axis),
        size=size,
        channels=channels,
        skip_broken=skip_broken,
        memory=memory,
        progress=progress,
    )
    if labels is None:
        return images
    if isinstance(labels, str | Path):
        from genad.data.image.labels import read_labels

        return read_labels(labels).apply(images, root)
    return images.described(labels)


def _are_paths(source: Any) -> bool:
    if isinstance(source, list | tuple):
        return len(source) > 0 and all(isinstance(item, str | Path) for item in source)
    return isinstance(source, str | Path)


def load(
    sources: Sequence[ImageSource],
    *,
    size: Any = None,
    channels: int | None = None,
    skip_broken: bool = False,
    memory: int = MEMORY,
    progress: Progress | None = None,
    quiet: bool = False,
) -> Images:
    """Decode sources into one collection.

    Parameters
    ----------
    sources : sequence of ImageSource
        At least one.
    size, channels, skip_broken, memory, progress
        As in `read_images`.
    quiet : bool, default False
        Do not warn of differing aspect ratios: the collection has been read before.

    Returns
    -------
    Images
    """
    _check_names([source.name for source in sources])
    if channels is not None and (isinstance(channels, bool) or not isinstance(channels, int) or channels < 1):
        raise InputError(f"channels: {channels!r} was given; use 1, 3, or None for what the images have.")
    broken: dict[str, str] = {}
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        answers = pool.map(lambda source: _tried(source.headers), sources)
        headers = dict(_kept(zip(sources, answers, strict=True), broken, skip_broken))
    known = [header for found in headers.values() for header in found]
    if not known:
        raise InputError(_nothing_left(broken))
    target = working_size(np.array([[h.height, h.width] for h in known]), size)
    depth = _depth(headers)
    wanted = channels or _channels(headers)
    pixels = allocate((len(known), wanted, *target), depth, memory)

    def decode(source: ImageSource) -> list[tuple[Frame, tuple[int, int]]]:
        return [_fitted(frame, wanted, depth, target) for frame in source.frames()]

    names: list[str] = []
    sizes: list[tuple[int, int]] = []
    origins: list[NumberedSource] = []
    paths: list[Path | None] = []
    volumes: dict[str, Any] = {}
    coloured = False
    # Decoding a picture takes far more room than keeping it, so few large ones are decoded at a time.
    largest = max(sum(header.height * header.width for header in several) for several in headers.values())
    threads = max(1, min(_THREADS, os.cpu_count() or 1, PIXEL_LIMIT // largest))
    with ThreadPoolExecutor(threads) as pool:
        answers = pool.map(lambda source: _tried(lambda: decode(source)), headers)
        for done, (source, frames) in enumerate(_kept(zip(headers, answers, strict=True), broken, skip_broken), 1):
            for frame, own in frames:
                coloured = coloured or frame.pixels.shape[2] == wanted > 1
                pixels[len(names)] = frame.pixels.transpose(2, 0, 1)
                names.append(frame.name)
                sizes.append(own)
                origins.append(NumberedSource(source, frame.index))
                paths.append(frame.path)
                if frame.facts is not None:
                    volumes[source.name] = frame.facts
            if progress is not None:
                progress(done, len(headers))
    if not names:
        raise InputError(_nothing_left(broken))
    if broken:
        warn(f"{len(broken)} files cannot be read and are left out: {listing(list(broken))}")
    pixels = pixels[: len(names)]
    if channels is None and wanted == 3 and not coloured:
        grey = allocate((len(names), 1, *target), depth, memory)
        grey[:] = pixels[:, :1]
        pixels = grey
    own_sizes = np.array(sizes, dtype=np.int64)
    if not quiet:
        _warn_of_aspects(own_sizes, target)
    return Images(
        pixels,
        names,
        own_sizes,
        origins,
        paths=paths,
        value_range=_value_range(pixels),
        broken=broken,
        meta={"volumes": volumes} if volumes else {},
        memory=memory,
    )


def _tried(action: Callable[[], Any]) -> Any:
    """Return the answer or the error, so that one broken file does not end the others."""
    try:
        return action()
    except InputError as error:
        return error


def _kept(answers: Any, broken: dict[str, str], skip_broken: bool) -> Iterator[tuple[ImageSource, Any]]:
    for source, answer in answers:
        if not isinstance(answer, InputError):
            yield source, answer
        elif skip_broken:
            broken[source.name] = str(answer)
        else:
            raise answer


def _nothing_left(broken: dict[str, str]) -> str:
    first = next(iter(broken.values()), "")
    return f"X: none of the {len(broken)} files can be read. The first: {first}"


def _check_names(names: list[str]) -> None:
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InputError(f"names: {listing(twice)} stand for more than one image; names are unique.")


def _depth(headers: dict[ImageSource, list[Header]]) -> np.dtype[Any]:
    found = {header.dtype: source.name for source, several in headers.items() for header in several}
    if len(found) > 1 and np.dtype(np.float32) in found:
        named = ", ".join(f"{name} {dtype}" for dtype, name in found.items())
        raise InputError(
            f"X: images of floats and of whole numbers are mixed ({named}), and nothing says how their scales relate; "
            "read them apart, or write them with one depth."
        )
    return max(found, key=lambda dtype: dtype.itemsize)


def _channels(headers: dict[ImageSource, list[Header]]) -> int:
    found = {header.channels: source.name for source, several in headers.items() for header in several}
    if len(found) > 1 and set(found) != {1, 3}:
        named = ", ".join(f"{name} {count}" for count, name in sorted(found.items()))
        raise InputError(
            f"X: images of different numbers of channels are mixed ({named}); only 1 and 3 go together. Read them "
            "apart."
        )
    return max(found)


def _fitted(
    frame: Frame, channels: int, dtype: np.dtype[Any], target: tuple[int, int]
) -> tuple[Frame, tuple[int, int]]:
    """Bring a decoded image to the working size and depth; grey stays one channel, which is repeated when stored."""
    own = (frame.pixels.shape[0], frame.pixels.shape[1])
    pixels = with_depth(frame.pixels, dtype, frame.name)
    if not (pixels.shape[2] == 1 and channels == 3):
        pixels = with_channels(pixels, channels, frame.name)
    return replace(frame, pixels=resized(pixels, target)), own


def _value_range(pixels: np.ndarray[Any, Any]) -> tuple[float, float]:
    if pixels.dtype.kind != "f":
        return 0.0, float(np.iinfo(pixels.dtype).max)
    step = max(1, _SLICE // max(1, pixels[0].size))
    parts = [pixels[i : i + step] for i in range(0, len(pixels), step)]
    low, high = min(float(p.min()) for p in parts), max(float(p.max()) for p in parts)
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    return low, high if high > low else low + 1.0


def _warn_of_aspects(sizes: np.ndarray[Any, Any], target: tuple[int, int]) -> None:
    aspects = sizes[:, 1] / sizes[:, 0]
    low, high = aspects.min(), aspects.max()
    if high / low > _ASPECTS:
        ratio = np.maximum(aspects * target[0] / target[1], target[1] / target[0] / aspects)
        warn(
            f"aspect ratios (width / height) run from {low:.3g} to {high:.3g}: all images are brought to {target[1]} x "
            f"{target[0]} pixels (width x height), which stretches {int((ratio > _ASPECTS).sum())} of {len(sizes)} by "
            "more than 10 %"
        )
