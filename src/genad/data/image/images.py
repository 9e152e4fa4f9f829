"""Images: a collection of pictures of one working size, with their names, own sizes, labels and masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genad.data.container import listing
from genad.data.image.arrays import ArraySource, split_arrays
from genad.data.image.cache import MEMORY, gather
from genad.data.image.decode import ImageSource, with_channels, with_depth
from genad.data.image.masks import Mask, check_masks, read_mask
from genad.errors import InputError

__all__ = ["Images", "NumberedSource"]


@dataclass(frozen=True, slots=True)
class NumberedSource:
    """One image of a source: where `Images.original` finds it again."""

    source: ImageSource
    index: int


class Images:
    """A collection of images, decoded once and brought to one working size.

    Users get one from `read_images`, `read_image_folder` or `Images.from_arrays`; the constructor is for those.

    A collection is colour when any of its images is: grey images are repeated to three channels. When every image is
    grey, also where files store grey as colour, it has one channel. 8-bit images among 16-bit ones are scaled to fill
    their range.

    Attributes
    ----------
    pixels : ndarray of shape (n, C, height, width)
        uint8, uint16 or float32 at the working size; a `numpy.memmap` in a temporary file when larger than the budget.
    names : list of str
        Unique; paths relative to the folder read, with ``#page`` or ``#slice`` where a file holds several images.
    paths : list of Path or None
        The file of each image; None for arrays.
    sizes : ndarray of int, shape (n, 2)
        Height and width of each image as its file has it.
    low, high : float
        The range of values: 0 to 255, 0 to 65535, or for floats 0 to 1 where they lie in it, otherwise what they span.
    labels : ndarray of int, shape (n,), or None
        1 anomaly, 0 normal, -1 unknown.
    classes : list of str or None
        Kind of defect of each image, ``"good"`` for normal ones and ``""`` for unknown ones.
    origins : list of NumberedSource
        Where each image comes from.
    mask_files : list of Mask or None
        Where the mask of each image is kept; read by `mask`.
    broken : dict of str to str
        Files left out because of ``skip_broken=True``, and why.
    meta : dict
        What is known beside the pixels; ``meta["volumes"]`` has the orientation and spacing of medical volumes.
    memory : int
        Budget of the pixels in bytes.

    Examples
    --------
    >>> images = Images.from_arrays(np.zeros((3, 8, 6), np.uint8), labels=[0, 0, 1])
    >>> images
    Images(3 of 1 x 8 x 6, uint8; 2 normal, 1 anomalous)
    >>> images.take([2]).names
    ['2']
    """

    def __init__(
        self,
        pixels: np.ndarray[Any, Any],
        names: list[str],
        sizes: np.ndarray[Any, Any],
        origins: list[NumberedSource],
        *,
        paths: list[Path | None],
        value_range: tuple[float, float],
        labels: np.ndarray[Any, Any] | None = None,
        classes: list[str] | None = None,
        masks: list[Mask | None] | None = None,
        broken: dict[str, str] | None = None,
        meta: dict[str, Any] | None = None,
        memory: int = MEMORY,
    ) -> None:
        self.pixels = pixels
        self.names = names
        self.sizes = sizes
        self.paths = paths
        self.low, self.high = value_range
        self.labels = labels
        self.classes = classes
        self.broken = broken or {}
        self.meta = meta or {}
        self.origins = origins
        self.mask_files = masks
        self.memory = memory

    @classmethod
    def from_arrays(
        cls,
        arrays: Any,
        labels: Any = None,
        names: Sequence[str] | None = None,
        *,
        size: Any = None,
        channels: int | None = None,
        memory: int = MEMORY,
    ) -> Images:
        """Make a collection of arrays.

        Parameters
        ----------
        arrays : array or tensor, or list of them
            One of shape (n, H, W), (n, H, W, C) or (n, C, H, W), or a list of (H, W), (H, W, C) or (C, H, W) of any
            sizes. With up to four channels their axis is found by its length; where both ends could be it, and for more
            channels, arrays have it last and tensors first. uint8 and uint16 are kept, bool becomes 0 and 255, anything
            else float32.
        labels : array of int, shape (n,), optional
            1 anomaly, 0 normal, -1 unknown.
        names : sequence of str, optional
            Unique; the numbers from 0 when omitted.
        size, channels, memory
            As in `read_images`.

        Returns
        -------
        Images

        Raises
        ------
        InputError
            No image, no pixels, NaN, a wrong rank, or labels or names of another length.
        InputTypeError
            Values that are no numbers.

        Examples
        --------
        >>> Images.from_arrays([np.zeros((8, 8, 3)), np.ones((4, 4))]).shape
        (1, 8, 8)
        """
        from genad.data.image.reading import load

        items = split_arrays(arrays)
        names = [str(i) for i in range(len(items))] if names is None else [str(name) for name in names]
        if len(names) != len(items):
            raise InputError(f"names: {len(names)} were given for {len(items)} images; give one each.")
        images = load(
            [ArraySource(n, a) for n, a in zip(names, items, strict=True)], size=size, channels=channels, memory=memory
        )
        return images if labels is None else images.described(labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every working image."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    @property
    def has_masks(self) -> bool:
        """Whether any image has a mask file."""
        return self.mask_files is not None and any(mask is not None for mask in self.mask_files)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        return self.pixels[range(len(self))[index]]

    def __repr__(self) -> str:
        text = f"Images({len(self)} of {' x '.join(map(str, self.shape))}, {self.pixels.dtype}"
        if self.labels is None:
            return text + ")"
        counts = [(int((self.labels == code).sum()), word) for code, word in _WORDS.items()]
        return f"{text}; {', '.join(f'{n} {word}' for n, word in counts if n)})"

    def original(self, i: int) -> np.ndarray[Any, Any]:
        """Decode one image again, in its own size and depth.

        Parameters
        ----------
        i : int

        Returns
        -------
        ndarray of shape (H, W, C)
            C is that of the collection.

        Raises
        ------
        InputError
            The file is gone or broken.
        """
        origin = self.origins[range(len(self))[i]]
        pixels = origin.source.frame(origin.index)
        return with_depth(with_channels(pixels, self.shape[0], self.names[i]), self.pixels.dtype, self.names[i])

    def mask(self, i: int) -> np.ndarray[Any, Any] | None:
        """Read which pixels of an image are anomalous.

        Parameters
        ----------
        i : int

        Returns
        -------
        ndarray of bool, shape (H, W), or None
            In the image's own size, to which a mask of the same aspect ratio is resized (nearest neighbour). Every
            value above zero in the file counts. Normal images of a collection read with masks get an empty one. None
            when nothing is known.

        Raises
        ------
        InputError
            The mask's size is not the image's, nor does it have the same aspect ratio; or the file is broken.
        """
        i = range(len(self))[i]
        height, width = (int(side) for side in self.sizes[i])
        mask = None if self.mask_files is None else self.mask_files[i]
        if mask is None:
            normal = self.mask_files is not None and self.labels is not None and self.labels[i] == 0
            return np.zeros((height, width), bool) if normal else None
        return read_mask(mask, self.names[i], (height, width))

    def take(self, indices: Any) -> Images:
        """Return some of the images.

        Parameters
        ----------
        indices : array of int or bool, or slice
            In the order wanted; an image may not be taken twice.

        Returns
        -------
        Images
            Shares the pixels of a run of neighbours, and copies others.

        Raises
        ------
        InputError
            No index, an index out of range or a repeated one.
        """
        rows = np.arange(len(self))[_index(indices, len(self))]
        if len(rows) == 0 or len(np.unique(rows)) < len(rows):
            raise InputError(f"indices: {len(rows)} were given; give at least 1, each only once.")
        picked = rows.tolist()
        return Images(
            gather(self.pixels, rows, self.memory),
            [self.names[i] for i in picked],
            self.sizes[rows],
            [self.origins[i] for i in picked],
            paths=[self.paths[i] for i in picked],
            value_range=(self.low, self.high),
            labels=None if self.labels is None else self.labels[rows],
            classes=None if self.classes is None else [self.classes[i] for i in picked],
            masks=None if self.mask_files is None else [self.mask_files[i] for i in picked],
            broken=self.broken,
            meta=self.meta,
            memory=self.memory,
        )

    def as_shape(self, shape: Sequence[int]) -> Images:
        """Return the same images at another working size and number of channels.

        Parameters
        ----------
        shape : (C, height, width)

        Returns
        -------
        Images
            These very ones where they have that shape; otherwise decoded again, so that the pixels are those that
            ``read_images(..., size=(height, width), channels=C)`` gives.

        Raises
        ------
        InputError
            A change of channels other than between 1 and 3, or a file that is gone.
        """
        if tuple(shape) == tuple(self.shape):
            return self
        from genad.data.image.reading import load

        sources = list(dict.fromkeys(origin.source for origin in self.origins))
        again = load(sources, size=tuple(shape[1:]), channels=int(shape[0]), memory=self.memory, quiet=True)
        places = {origin: i for i, origin in enumerate(again.origins)}
        chosen = again.take([places[origin] for origin in self.origins])
        if chosen.pixels.dtype.kind == "f":
            chosen.low, chosen.high = self.low, self.high
        chosen.labels, chosen.classes, chosen.mask_files = self.labels, self.classes, self.mask_files
        chosen.broken = self.broken
        return chosen

    def described(
        self, labels: Any, classes: list[str] | None = None, masks: list[Mask | None] | None = None
    ) -> Images:
        """Return the same images with labels, and with classes and masks where they are known.

        Parameters
        ----------
        labels : array of int, shape (n,)
            1 anomaly, 0 normal, -1 unknown.
        classes : list of str, optional
        masks : list of Mask or None, optional

        Returns
        -------
        Images
            Shares the pixels.

        Raises
        ------
        InputError
            Another number of labels than of images, other values, or a mask whose size is not that of its image.

        Warns
        -----
        DataWarning
            Masks have the aspect ratio of their images, but not their size.
        """
        marks = np.asarray(labels)
        if marks.shape != (len(self),):
            raise InputError(f"labels: shape {marks.shape} was given for {len(self)} images; give one label each.")
        if marks.dtype.kind not in "biuf" or not np.isin(marks, [-1, 0, 1]).all():
            raise InputError(
                f"labels: {listing(sorted(set(marks.tolist())))} were given; use 1, 0, and -1 for unknown."
            )
        if classes is not None and len(classes) != len(self):
            raise InputError(f"classes: {len(classes)} were given for {len(self)} images; give one each.")
        chosen = self.take(slice(None))
        chosen.labels = marks.astype(np.int64)
        chosen.classes = classes if classes is not None else chosen.classes
        chosen.mask_files = masks if masks is not None else chosen.mask_files
        if masks is not None:
            check_masks(masks, self.names, self.sizes)
        return chosen

    @staticmethod
    def concat(parts: Sequence[Images]) -> Images:
        """Join collections of one working size, number of channels and depth.

        Parameters
        ----------
        parts : sequence of Images
            What only some of them have is unknown for the others: label -1, class ``""``, no mask.

        Returns
        -------
        Images

        Raises
        ------
        InputError
            None given, differing shapes or depths, or a name in two of them.

        Examples
        --------
        >>> a = Images.from_arrays(np.zeros((2, 4, 4)), names=["a", "b"])
        >>> len(Images.concat([a, Images.from_arrays(np.ones((1, 4, 4)), names=["c"])]))
        3
        """
        from genad.data.image.join import join

        return join(parts)


_WORDS = {0: "normal", 1: "anomalous", -1: "unknown"}


def _index(indices: Any, n: int) -> Any:
    if isinstance(indices, slice):
        return indices
    rows = np.asarray(indices)
    if rows.size == 0:
        return np.zeros(0, np.int64)
    if rows.ndim == 1 and rows.dtype.kind == "b" and len(rows) == n:
        return rows
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or rows.min() < -n or rows.max() >= n:
        raise InputError(
            f"indices: use whole numbers from 0 to {n - 1}, a slice, or one bool for each of the {n} images."
        )
    return rows
