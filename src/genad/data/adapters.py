"""Adapters: the fitted bridge between what users hold (tables, arrays, series) and standardised samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from genad.data.encoder import TableEncoder
from genad.data.kinds import KINDS, Kind
from genad.data.samples import ArraySamples, Batch, Samples, WindowSamples
from genad.data.series import Series
from genad.data.table import Table, as_table
from genad.errors import InputError

Array = NDArray[Any]

#: Standardised values are held within this, so that their squares stay finite in float32.
EXTREME = 1e15


def value_range(low: float, high: float) -> tuple[float, float]:
    """Return the range that pixel values are meant to span, from the lowest and the highest one found.

    Examples
    --------
    >>> value_range(0.1, 0.9), value_range(3.0, 200.0), value_range(-5.0, 7.0)
    ((0.0, 1.0), (0.0, 255.0), (-5.0, 7.0))
    """
    for top in (1.0, 255.0):
        if low >= 0.0 and high <= top:
            return 0.0, top
    return (low, high) if high > low else (low, low + 1.0)


@dataclass
class Loaded:
    """Data made ready for a detector.

    Attributes
    ----------
    samples : Samples
        Standardised tensors.
    source : ndarray, Table or Series
        The data as read, in the user's units.
    original : object
        What the user passed, to answer in the same kind.
    """

    samples: Samples
    source: Any
    original: Any = None

    def to_user(self, values: Array) -> Array:
        """Bring one value a unit into the order of the user's rows, where entities may stand interleaved."""
        return self.source.restore_order(values) if isinstance(self.source, Series) else values

    def from_user(self, values: Array) -> Array:
        """Bring one value a row of the user's data into the order of the units."""
        return values[self.source.order] if isinstance(self.source, Series) else values


class Adapter:
    """Base of the adapters; see the module's classes."""

    kind: Kind
    #: Registry of adapters by the word that stands for them in model files.
    types: ClassVar[dict[str, type[Adapter]]] = {}

    def __init_subclass__(cls) -> None:
        Adapter.types[cls.__name__] = cls

    @property
    def names(self) -> list[str]:
        """Names of the features or channels."""
        raise NotImplementedError

    def fit(self, X: Any) -> Loaded:
        """Learn the scales from ``X`` and return it standardised."""
        raise NotImplementedError

    def transform(self, X: Any) -> Loaded:
        """Return ``X`` standardised by the learnt scales."""
        raise NotImplementedError

    def collapse(self, maps: Array) -> Array:
        """Turn maps on the encoded features into maps on the user's."""
        return maps

    def native(self, values: Array, loaded: Loaded, mask: Any = None) -> Any:
        """Return standardised ``values`` in the kind, shape and units of the user's data.

        Where a ``mask`` of the user's is given, what lies outside is as it was.
        """
        raise NotImplementedError

    def hidden(self, mask: Any, loaded: Loaded) -> torch.Tensor:  # noqa: ARG002 - the dense kinds take one
        """Return which standardised values a mask of the user's hides, a bool tensor in the samples' shape."""
        raise InputError(
            f"mask: a {self.kind.value} takes none; set the cells to restore to missing (NaN), or leave the mask out."
        )

    def pixel_scale(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (scale, shift) by channel: ``z * scale + shift`` is a standardised value within 0 to 1."""
        raise InputError(f"X: a {self.kind.value} has no pixels.")

    def images(self, loaded: Loaded) -> Any:  # noqa: ARG002 - only images as files have them
        """Return the collection of images behind the data, None when there is none."""
        return None

    def columns(self, values: Array) -> dict[str, Array] | Array:
        """Return standardised ``values`` in the user's units: by feature, or whole for images and windows."""
        raise NotImplementedError

    def observed(self, loaded: Loaded) -> dict[str, Array] | Array:
        """Return the user's data in the form of :meth:`columns`."""
        raise NotImplementedError

    def half_widths(self, bounds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn bounds on the standardised scale into the user's units, NaN for features without an order."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """Return the fitted state as plain JSON values."""
        raise NotImplementedError

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Make a fitted adapter again."""
        raise NotImplementedError


@dataclass(slots=True)
class EncodedRows:
    """Rows encoded only when a batch asks for them, so that scoring needs no second copy of a large array.

    Attributes
    ----------
    rows : array of shape (n, d)
        In the user's units.
    encoder : TableEncoder
    device : torch.device
        Where batches go.
    """

    rows: Array
    encoder: TableEncoder
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one encoded row."""
        return (self.encoder.n_encoded,)

    def __len__(self) -> int:
        return len(self.rows)

    def _encode(self, rows: Array) -> Batch:
        x, mask = self.encoder.transform_array(rows)
        masked = None if mask is None else torch.from_numpy(mask).to(self.device)
        return Batch(torch.from_numpy(x).to(self.device), masked)

    def batch(self, indices: torch.Tensor) -> Batch:
        """Encode the rows at ``indices``."""
        return self._encode(self.rows[indices.cpu().numpy()])

    def stretch(self, start: int, stop: int) -> Batch:
        """Encode the rows from ``start`` to ``stop``."""
        return self._encode(self.rows[start:stop])

    def to(self, device: torch.device) -> EncodedRows:
        """Return the same rows, encoded for ``device``."""
        return EncodedRows(self.rows, self.encoder, device)


@dataclass
class TableAdapter(Adapter):
    """Rows of a table: numbers, categories, truth values and dates, with missing cells masked.

    Attributes
    ----------
    encoder : TableEncoder
        The columns' codes.
    """

    encoder: TableEncoder = field(default_factory=TableEncoder)
    kind: Kind = Kind.TABLE

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return self.encoder.feature_names

    def fit(self, X: Any) -> Loaded:
        """Learn the codes of the columns."""
        source = X if isinstance(X, np.ndarray) else as_table(X)
        self.encoder.fit(source)
        return self._load(source, X)

    def transform(self, X: Any) -> Loaded:
        """Encode rows with the learnt codes."""
        if isinstance(X, np.ndarray) and X.dtype.kind == "f":
            return Loaded(EncodedRows(X, self.encoder), X, X)
        return self._load(X if isinstance(X, np.ndarray) else as_table(X), X)

    def _load(self, source: Any, original: Any) -> Loaded:
        if isinstance(source, np.ndarray):
            x, mask = self.encoder.transform_array(source)
        else:
            x, mask = self.encoder.transform(source)
        masked = None if mask is None else torch.from_numpy(mask)
        return Loaded(ArraySamples(torch.from_numpy(x), masked), source, original)

    def collapse(self, maps: Array) -> Array:
        """Add up the parts of the encoded columns of each column."""
        return self.encoder.collapse(maps)

    def native(self, values: Array, loaded: Loaded, mask: Any = None) -> Any:  # noqa: ARG002 - refused in hidden
        """Return rows as an array, a Table or a dataframe, whatever came in."""
        if isinstance(loaded.original, np.ndarray) and isinstance(loaded.source, np.ndarray):
            whole = self.encoder.inverse_numeric(values)
            return whole.astype(loaded.original.dtype if loaded.original.dtype.kind == "f" else np.float64)
        restored = self.columns(values)
        # Columns that were left out of the model come back as they are.
        columns = {name: restored.get(name, given) for name, given in self.observed(loaded).items()}
        if isinstance(loaded.original, Table):
            return as_table(columns)
        if isinstance(loaded.original, np.ndarray):
            return np.column_stack([np.asarray(column, dtype=object) for column in columns.values()])
        import narwhals as nw

        backend = nw.get_native_namespace(loaded.original)
        return nw.from_dict(columns, backend=backend).to_native()

    def columns(self, values: Array) -> dict[str, Array]:
        """Return the columns in the user's units."""
        return self.encoder.inverse(values)

    def observed(self, loaded: Loaded) -> dict[str, Array]:
        """Return the columns as they came."""
        source = loaded.source
        if isinstance(source, np.ndarray):
            return {name: source[:, j] for j, name in enumerate(self.names)}
        by_name = self.encoder.named and source.named
        found = self.names if by_name else source.names
        return {name: source.column(other) for name, other in zip(self.names, found, strict=True)}

    def half_widths(self, bounds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return one half-width a column."""
        widths = np.full(len(self.names), np.nan)
        for j, (name, part) in enumerate(self.encoder.groups):
            scale = self.encoder.scale_of(name)
            if part.stop - part.start == 1 and np.isfinite(scale):
                widths[j] = bounds[part.start] * scale
        return widths

    def state(self) -> dict[str, Any]:
        """Return the fitted state as plain JSON values."""
        return {"encoder": self.encoder.to_dict()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Make a fitted adapter again."""
        return cls(TableEncoder.from_dict(state["encoder"]))


@dataclass
class DenseAdapter(Adapter):
    """Dense arrays of rank 3 to 5: windows, images and clips, standardised by channel.

    Attributes
    ----------
    kind : Kind
        Window, image or video.
    shape : tuple of int
        Shape of one sample.
    mean, scale : list of float
        By channel, in the user's units.
    low, high : float
        Range of the values, in the user's units: 0 to 1 or 0 to 255 when they all lie within, else what was found.
    """

    kind: Kind = Kind.IMAGE
    shape: tuple[int, ...] = ()
    mean: list[float] = field(default_factory=list)
    scale: list[float] = field(default_factory=list)
    low: float = 0.0
    high: float = 1.0

    @property
    def names(self) -> list[str]:
        """Names of the channels."""
        return [f"channel {c}" for c in range(len(self.mean))]

    def _along(self, values: list[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        shape = [1] * (len(self.shape) + 1)
        shape[1 + KINDS[self.kind].channel_axis] = -1
        return np.asarray(values, np.float64).reshape(shape)

    def fit(self, X: Any) -> Loaded:
        """Learn mean and scale of each channel."""
        self.shape = tuple(X.shape[1:])
        axis = 1 + KINDS[self.kind].channel_axis
        others = tuple(i for i in range(X.ndim) if i != axis)
        self.mean = list(np.nanmean(X, axis=others, dtype=np.float64))
        scale = np.nanstd(X, axis=others, dtype=np.float64)
        scale[~(scale > 1e-6 * np.maximum(1.0, np.abs(self.mean)))] = 1.0
        self.scale = [float(value) for value in scale]
        self.low, self.high = value_range(float(np.nanmin(X)), float(np.nanmax(X)))
        return self.transform(X)

    def pixel_scale(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (scale, shift) by channel: ``z * scale + shift`` is a standardised value within 0 to 1."""
        span = self.high - self.low
        return np.asarray(self.scale) / span, (np.asarray(self.mean) - self.low) / span

    def transform(self, X: Any) -> Loaded:
        """Standardise arrays of the fitted shape."""
        if tuple(X.shape[1:]) != self.shape:
            raise InputError(
                f"X: samples of shape {tuple(X.shape[1:])} were given; the detector was fitted on {self.shape}."
            )
        z = ((X - self._along(self.mean)) / self._along(self.scale)).astype(np.float32)
        np.clip(z, -EXTREME, EXTREME, out=z)
        missing = np.isnan(z)
        mask = None
        if missing.any():
            z[missing] = 0.0
            mask = torch.from_numpy(~missing)
        return Loaded(ArraySamples(torch.from_numpy(z), mask), X, X)

    def native(self, values: Array, loaded: Loaded, mask: Any = None) -> Any:
        """Return arrays in the user's units and floating type."""
        kept = loaded.original.dtype if loaded.original.dtype.kind == "f" else np.float64
        units = self.columns(values).astype(kept)
        if mask is None:
            return units
        return np.where(self.hidden(mask, loaded).numpy(), units, loaded.source)

    def hidden(self, mask: Any, loaded: Loaded) -> torch.Tensor:
        """Return the mask in the samples' shape; one of images may leave the channels out."""
        found = np.asarray(mask)
        shape = (len(loaded.source), *self.shape)
        if self.kind is Kind.IMAGE and found.ndim == 3:
            found = found[:, None]
        fits = found.ndim == len(shape) and all(a in (1, b) for a, b in zip(found.shape[1:], shape[1:], strict=True))
        if found.dtype != np.bool_ or not fits or len(found) != shape[0]:
            raise InputError(
                f"mask: an array of {found.dtype} and shape {np.asarray(mask).shape} was given; use one of bool and "
                f"shape {shape}" + (f" or {(shape[0], *shape[2:])}." if self.kind is Kind.IMAGE else ".")
            )
        return torch.from_numpy(np.broadcast_to(found, shape).copy())

    def columns(self, values: Array) -> Array:
        """Return arrays in the user's units."""
        return values * self._along(self.scale) + self._along(self.mean)

    def observed(self, loaded: Loaded) -> Array:
        """Return the arrays as they came."""
        return np.asarray(loaded.source)

    def half_widths(self, bounds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return one half-width a channel."""
        return bounds * np.asarray(self.scale)

    def state(self) -> dict[str, Any]:
        """Return the fitted state as plain JSON values."""
        return {
            "kind": self.kind.value,
            "shape": list(self.shape),
            "mean": self.mean,
            "scale": self.scale,
            "range": [self.low, self.high],
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Make a fitted adapter again."""
        low, high = state["range"]
        return cls(Kind(state["kind"]), tuple(state["shape"]), state["mean"], state["scale"], low, high)


@dataclass
class SeriesAdapter(Adapter):
    """A series: its channels standardised, its windows views that never straddle a gap or two entities.

    Attributes
    ----------
    window : int or None
        Steps in a window; None takes ``default``, or a quarter of a shorter series.
    default : int
        Steps in a window of a long enough series.
    clip : float
        Standardised values beyond this many standard deviations are held there, so that one wild reading does not
        drown its neighbours in every window that holds it.
    encoder : TableEncoder
        The channels' codes.
    length : int
        The window in force.
    """

    window: int | None = None
    default: int = 32
    clip: float = 10.0
    encoder: TableEncoder = field(default_factory=TableEncoder)
    length: int = 0
    kind: Kind = Kind.SERIES

    @property
    def names(self) -> list[str]:
        """Names of the channels."""
        return self.encoder.feature_names

    def fit(self, X: Series) -> Loaded:
        """Learn the channels' scales and settle the window."""
        self.encoder.fit(self._channels(X))
        longest = max(int(stop - start) for start, stop in X.segments)
        self.length = self.window or int(np.clip(longest // 4, 2, self.default))
        return self.transform(X)

    def transform(self, X: Series) -> Loaded:
        """Standardise a series and lay windows over its unbroken stretches."""
        x, mask = self.encoder.transform(self._channels(X))
        np.clip(x, -self.clip, self.clip, out=x)
        starts = self._starts(X)
        masked = None if mask is None else torch.from_numpy(mask)
        samples = WindowSamples(torch.from_numpy(x), torch.from_numpy(starts), self.length, masked)
        return Loaded(samples, X, X.original)

    @staticmethod
    def _channels(X: Series) -> Any:
        return X.values if isinstance(X.original, np.ndarray) else as_table(X.values, X.names)

    def _starts(self, X: Series) -> NDArray[np.int64]:
        parts = [np.arange(a, b - self.length + 1) for a, b in X.segments if b - a >= self.length]
        if not parts:
            longest = max(int(b - a) for a, b in X.segments)
            raise InputError(
                f"X: the longest unbroken stretch of the series has {longest} steps, but a window has {self.length}. "
                "Give more steps, or fit with a shorter window."
            )
        return np.concatenate(parts).astype(np.int64)

    def collapse(self, maps: Array) -> Array:
        """Add up the parts of the encoded columns of each channel."""
        return self.encoder.collapse(maps)

    def native(self, values: Array, loaded: Loaded, mask: Any = None) -> Any:  # noqa: ARG002 - refused in hidden
        """Return the restored series in the user's kind, order and units."""
        return loaded.source.like_original(self.columns(values))

    def columns(self, values: Array) -> dict[str, Array]:
        """Return the channels in the user's units."""
        return self.encoder.inverse(values)

    def observed(self, loaded: Loaded) -> dict[str, Array]:
        """Return the channels as they came."""
        source: Series = loaded.source
        by_name = self.encoder.named and not isinstance(source.original, np.ndarray)
        found = [source.names.index(name) for name in self.names] if by_name else range(len(self.names))
        return {name: source.values[:, j] for name, j in zip(self.names, found, strict=True)}

    def half_widths(self, bounds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return one half-width a channel."""
        return TableAdapter(self.encoder).half_widths(bounds)

    def state(self) -> dict[str, Any]:
        """Return the fitted state as plain JSON values."""
        return {
            "encoder": self.encoder.to_dict(),
            "window": self.window,
            "clip": self.clip,
            "length": self.length,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Make a fitted adapter again."""
        return cls(
            window=state["window"],
            clip=state["clip"],
            encoder=TableEncoder.from_dict(state["encoder"]),
            length=state["length"],
        )
