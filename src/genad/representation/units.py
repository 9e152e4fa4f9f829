"""Units that are texts: sessions of a log as the lists of lines or templates that a prompt is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from genad.data.adapters import Adapter, Array, Loaded
from genad.data.kinds import Kind
from genad.data.log import Drain, Sessions
from genad.data.samples import Batch, Samples, Subset
from genad.errors import InputError


@dataclass(slots=True)
class UnitSamples:
    """Units that are no numbers: texts, lists of texts, or anything a prompt can be made of.

    Attributes
    ----------
    units : list
        One a unit.
    """

    units: list[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the number that stands for a unit in a batch: its position."""
        return (1,)

    def __len__(self) -> int:
        return len(self.units)

    def batch(self, indices: torch.Tensor) -> Batch:
        """Return positions; :func:`units_of` gives the units themselves."""
        return Batch(indices.to(torch.float32)[:, None])

    def stretch(self, start: int, stop: int) -> Batch:
        """Return the positions from ``start`` to ``stop``."""
        return self.batch(torch.arange(start, stop))

    def to(self, device: torch.device) -> UnitSamples:  # noqa: ARG002 - texts live nowhere else
        """Return the same units."""
        return self


def units_of(samples: Samples) -> list[Any]:
    """Return the units behind samples, subsets resolved."""
    if isinstance(samples, Subset):
        units = units_of(samples.samples)
        return [units[i] for i in samples.indices.tolist()]
    if not isinstance(samples, UnitSamples):
        raise InputError(
            f"X: samples of type {type(samples).__name__} hold no texts; fit on a log, texts or sequences."
        )
    return samples.units


def holds_units(samples: Samples) -> bool:
    """Say whether there are units behind samples, and no numbers."""
    return holds_units(samples.samples) if isinstance(samples, Subset) else isinstance(samples, UnitSamples)


def lines_of(unit: Any) -> list[str]:
    """Return the parts of a unit as texts: its lines or events, or the one text that stands for it."""
    return [str(line) for line in unit] if isinstance(unit, list | tuple) else [str(unit)]


def text_array(rows: Sequence[Sequence[str]]) -> Any:
    """Return rows of texts of different lengths as one array of objects, "" beyond the end of each."""
    out = np.full((len(rows), max(map(len, rows), default=0)), "", object)
    for place, row in zip(out, rows, strict=True):
        place[: len(row)] = row
    return out


@dataclass
class UnitAdapter(Adapter):
    """Sessions of a log as lists of texts: the messages themselves where there are some, else the names of events.

    What a prompting detector calls restored is its unit as it came, unless the method knows better.

    Attributes
    ----------
    longest : int
        Parts of the longest unit seen so far; it only names the places of maps.
    """

    kind: Kind = Kind.LOG
    longest: int = 0

    @property
    def names(self) -> list[str]:
        """Names of the places of a unit."""
        return [f"event {i}" for i in range(1, self.longest + 1)]

    def unit(self, X: Sessions, i: int) -> Any:
        """Return what stands for session ``i``."""
        return X.texts(i)

    def lines(self, unit: Any) -> list[str]:
        """Return the parts of a unit as texts."""
        return lines_of(unit)

    def fit(self, X: Sessions) -> Loaded:
        """Return the units."""
        return self.transform(X)

    def transform(self, X: Sessions) -> Loaded:
        """Return the units."""
        units = [self.unit(X, i) for i in range(len(X))]
        self.longest = max(self.longest, *(len(self.lines(unit)) for unit in units))
        return Loaded(UnitSamples(units), X, X)

    def native(self, values: Array, loaded: Loaded, mask: Any = None) -> list[list[str]]:  # noqa: ARG002 - refused in hidden
        """Return rows of texts without what fills them up."""
        lengths = [len(self.lines(unit)) for unit in units_of(loaded.samples)]
        return [row[:length].tolist() for row, length in zip(values, lengths, strict=True)]

    def columns(self, values: Array) -> Array:
        """Return the texts."""
        return values

    def observed(self, loaded: Loaded) -> Array:
        """Return the texts, one row a unit, "" where it is over."""
        return np.asarray(text_array([self.lines(unit) for unit in units_of(loaded.samples)]))

    def half_widths(self, bounds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return NaN: texts have no order."""
        return np.full(max(len(bounds), self.longest), np.nan)

    def state(self) -> dict[str, Any]:
        """Return the fitted state as plain JSON values."""
        return {"longest": self.longest}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Make a fitted adapter again."""
        made = cls()
        made.longest = int(state.get("longest", 0))
        return made


@dataclass
class TemplateAdapter(UnitAdapter):
    """Sessions as lists of templates: those of the log that was fitted on, which nothing scored later can change.

    A message that none of them fits is its own template, with its values masked.

    Attributes
    ----------
    miner : Drain or None
        What gives messages their templates; None for plain events.
    """

    miner: Drain | None = None

    def fit(self, X: Sessions) -> Loaded:
        """Keep the miner."""
        self.miner = None if X.log is None else X.log.miner
        return self.transform(X)

    def unit(self, X: Sessions, i: int) -> list[str]:
        """Return the templates of session ``i``."""
        return [X.vocabulary[event] for event in X[i]]

    def transform(self, X: Sessions) -> Loaded:
        """Return the templates of each session."""
        loaded = super().transform(X if self.miner is None else X.matched(self.miner))
        loaded.original = X
        return loaded

    def state(self) -> dict[str, Any]:
        """Return the fitted state as plain JSON values."""
        return super().state() | {"miner": None if self.miner is None else self.miner.to_dict()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Make a fitted adapter again."""
        made = super().from_state(state)
        made.miner = None if state["miner"] is None else Drain.from_dict(state["miner"])
        return made
