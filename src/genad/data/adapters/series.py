"""Adapter of series: standardised channels, and the windows laid over their unbroken stretches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from genad.data.adapters.base import Adapter, Array, Loaded
from genad.data.adapters.table import TableAdapter
from genad.data.encoder import TableEncoder
from genad.data.kinds import Kind
from genad.data.samples import WindowSamples
from genad.data.series import Series
from genad.data.table import as_table
from genad.errors import InputError


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
        return self._settle(X, X)

    def fit_to(self, X: Series, rows: Array) -> Loaded:
        """Learn the channels' scales from some steps; the window is settled by all of them."""
        return self._settle(X, X.take(rows))

    def _settle(self, X: Series, scaled: Series) -> Loaded:
        self.encoder.fit(self._channels(scaled))
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
