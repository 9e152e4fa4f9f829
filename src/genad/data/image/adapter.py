"""The bridge between a collection of images and standardised samples."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from genad.data.adapters import Array, DenseAdapter, Loaded
from genad.data.kinds import Kind
from genad.data.resize import resize_planes
from genad.data.samples import Batch
from genad.errors import InputError

if TYPE_CHECKING:
    from genad.data.image.images import Images

# Images turned into floating numbers at a time.
_CHUNK = 256
# From here on results live in a temporary file and not in memory.
_ROOM = 2**30


@dataclass(slots=True)
class ImageSamples:
    """Images kept as they were decoded, standardised only when a batch asks for them.

    Attributes
    ----------
    pixels : Tensor of shape (n, C, H, W)
        uint8, uint16 or float32, in the images' own units.
    mean, scale : Tensor of shape (C, 1, 1)
        By channel, in the same units.
    device : torch.device
        Where batches go.
    """

    pixels: torch.Tensor
    mean: torch.Tensor
    scale: torch.Tensor
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return tuple(self.pixels.shape[1:])

    def __len__(self) -> int:
        return self.pixels.shape[0]

    def _standardise(self, pixels: torch.Tensor) -> Batch:
        values = pixels.to(self.device).to(torch.float32)
        return Batch((values - self.mean) / self.scale)

    def batch(self, indices: torch.Tensor) -> Batch:
        """Return the images at ``indices``."""
        # Indexing, unlike index_select, takes every type of pixel.
        return self._standardise(self.pixels[indices.to(self.pixels.device)])

    def stretch(self, start: int, stop: int) -> Batch:
        """Return the images from ``start`` to ``stop``."""
        return self._standardise(self.pixels[start:stop])

    def to(self, device: torch.device) -> ImageSamples:
        """Return the same images, standardised on ``device``; they move there when they fit well."""
        fits = device.type == "cpu" or self.pixels.numel() * self.pixels.element_size() < _ROOM
        pixels = self.pixels.to(device) if fits else self.pixels
        return ImageSamples(pixels, self.mean.to(device), self.scale.to(device), device)


@dataclass
class ImageAdapter(DenseAdapter):
    """A collection of images, standardised by channel.

    Unlike a plain array, images come back in their own sizes and in the type they were read in.

    Attributes
    ----------
    dtype : str
        Type of the pixels: ``"uint8"``, ``"uint16"`` or ``"float32"``.
    """

    kind: Kind = Kind.IMAGE
    dtype: str = "uint8"

    def fit(self, X: Images) -> Loaded:
        """Learn mean and scale of each channel."""
        pixels = X.pixels
        self.shape, self.dtype = tuple(int(s) for s in pixels.shape[1:]), str(pixels.dtype)
        total = np.zeros(self.shape[0])
        squares = np.zeros(self.shape[0])
        for part in _chunks(pixels):
            values = part.astype(np.float64)
            total += values.sum(axis=(0, 2, 3))
            squares += np.square(values).sum(axis=(0, 2, 3))
        count = pixels.size / self.shape[0]
        mean = total / count
        scale = np.sqrt(np.maximum(squares / count - np.square(mean), 0.0))
        scale[~(scale > 1e-6 * np.maximum(1.0, np.abs(mean)))] = 1.0
        self.mean, self.scale = mean.tolist(), scale.tolist()
        self.low, self.high = float(X.low), float(X.high)
        return self.transform(X)

    def transform(self, X: Images) -> Loaded:
        """Standardise images; those of another size are brought to the one learnt from."""
        given = X.as_shape(self.shape)
        column = (len(self.mean), 1, 1)
        # A model learnt at another depth (8 against 16 bit) reads the same brightness; floating numbers have no depth.
        whole = given.pixels.dtype.kind == "u" and np.dtype(self.dtype).kind == "u"
        factor = float(given.high) / self.high if whole else 1.0
        mean = np.asarray(self.mean) * factor
        samples = ImageSamples(
            torch.from_numpy(given.pixels),
            torch.tensor(mean, dtype=torch.float32).view(column),
            torch.tensor(np.asarray(self.scale) * factor, dtype=torch.float32).view(column),
        )
        # The source has the working size, the original is what the user holds.
        return Loaded(samples, given, X)

    def collapse(self, maps: Array) -> Array:
        """Add up the channels: one value a pixel, (n, rows, columns)."""
        if maps.shape[1] == 1:
            return maps[:, 0]
        flat = _room((len(maps), *maps.shape[2:]), np.dtype(np.float32))
        for start, part in _numbered(maps):
            flat[start : start + len(part)] = part.sum(axis=1)
        return flat

    def native(self, values: Array, loaded: Loaded, mask: Any = None) -> list[Array]:
        """Return images (rows, columns, channels) in their own sizes and type."""
        found = []
        for i, (image, size) in enumerate(zip(self.columns(values), loaded.source.sizes, strict=True)):
            own = self._quantise(resize_planes(image, (int(size[0]), int(size[1]))))
            restored = np.moveaxis(own, 0, -1)
            if mask is not None:
                before = np.asarray(loaded.original.original(i))
                where = self._own_mask(mask, i, restored.shape[:2])
                restored = np.where(where[..., None], restored, before.astype(restored.dtype))
            found.append(restored)
        return found

    def _own_mask(self, mask: Any, i: int, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Return the mask of one image in its own size."""
        given = np.asarray(mask[i])
        if given.ndim == 2 and given.shape != size and given.shape == self.shape[1:]:
            given = resize_planes(given[None].astype(np.float32), size)[0] > 0.5
        if given.shape != size or given.dtype != np.bool_:
            raise InputError(
                f"mask: the one at position {i} is {given.dtype} of shape {given.shape}; use bool of shape {size}, the "
                f"size of the image, or {self.shape[1:]}, the working size."
            )
        return given

    def hidden(self, mask: Any, loaded: Loaded) -> torch.Tensor:
        """Return the masks at the working size; a pixel any part of which is masked is hidden."""
        sizes = loaded.source.sizes
        if len(mask) != len(sizes):
            raise InputError(f"mask: {len(mask)} masks were given for {len(sizes)} images; give one an image.")
        found = np.empty((len(sizes), *self.shape[1:]), np.bool_)
        for i, size in enumerate(sizes):
            own = self._own_mask(mask, i, (int(size[0]), int(size[1])))
            found[i] = resize_planes(own[None].astype(np.float32), self.shape[1:])[0] > 1e-3  # type: ignore[arg-type]
        return torch.from_numpy(found)[:, None].expand(-1, *self.shape)

    def images(self, loaded: Loaded) -> Any:
        """Return the collection of images."""
        return loaded.original

    def columns(self, values: Array) -> Array:
        """Return images in the user's units and type, at the working size."""
        units = _room(values.shape, np.dtype(self.dtype))
        for start, part in _numbered(values):
            units[start : start + len(part)] = self._quantise(part * self._along(self.scale) + self._along(self.mean))
        return units

    def _quantise(self, values: Array) -> Array:
        kept = np.clip(values, self.low, self.high)
        return (np.rint(kept) if np.dtype(self.dtype).kind in "ui" else kept).astype(self.dtype)

    def observed(self, loaded: Loaded) -> Array:
        """Return the images as read, at the working size."""
        pixels: Array = loaded.source.pixels
        return pixels

    def state(self) -> dict[str, Any]:
        """Return the fitted state as plain JSON values."""
        return super().state() | {"dtype": self.dtype}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ImageAdapter:
        """Make a fitted adapter again."""
        made = super().from_state(state)
        made.dtype = state["dtype"]
        return made


def _chunks(array: Array) -> Iterator[Array]:
    for _, part in _numbered(array):
        yield part


def _numbered(array: Array) -> Iterator[tuple[int, Array]]:
    for start in range(0, len(array), _CHUNK):
        yield start, array[start : start + _CHUNK]


def _room(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return room for a result: in memory, or in a temporary file that goes when the array does."""
    if int(np.prod(shape)) * dtype.itemsize < _ROOM:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)
