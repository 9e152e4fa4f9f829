"""Adapter of tables: rows of mixed columns to standardised vectors and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from genad.data.adapters.base import Adapter, Array, Loaded
from genad.data.encoder import TableEncoder
from genad.data.frames import like_frame
from genad.data.kinds import Kind
from genad.data.samples import ArraySamples, Batch
from genad.data.table import Table, as_table


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
        """Return rows as an array, a Table or a dataframe, whatever came in.

        A dataframe keeps its index, its columns and their types: :func:`genad.data.frames.like_frame` says which types
        cannot hold restored values, and what they become.
        """
        if isinstance(loaded.original, np.ndarray) and isinstance(loaded.source, np.ndarray):
            whole = self.encoder.inverse_numeric(values)
            return whole.astype(loaded.original.dtype if loaded.original.dtype.kind == "f" else np.float64)
        restored = self.columns(values)
        if not isinstance(loaded.original, Table | np.ndarray):
            given = dict(zip(self.names, self._given_names(loaded.source), strict=True))
            return like_frame(loaded.original, {given[name]: column for name, column in restored.items()})
        # Columns that were left out of the model come back as they are.
        columns = {name: restored.get(name, given) for name, given in self.observed(loaded).items()}
        if isinstance(loaded.original, Table):
            return as_table(columns)
        return np.column_stack([np.asarray(column, dtype=object) for column in columns.values()])

    def columns(self, values: Array) -> dict[str, Array]:
        """Return the columns in the user's units."""
        return self.encoder.inverse(values)

    def observed(self, loaded: Loaded) -> dict[str, Array]:
        """Return the columns as they came."""
        source = loaded.source
        if isinstance(source, np.ndarray):
            return {name: source[:, j] for j, name in enumerate(self.names)}
        return {name: source.column(other) for name, other in zip(self.names, self._given_names(source), strict=True)}

    def _given_names(self, source: Table) -> list[str]:
        """Return the names that the columns of the model have in a table."""
        return self.names if self.encoder.named and source.named else source.names

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
