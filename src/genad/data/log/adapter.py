"""The bridges between logs and samples: sequences of event codes, counts of events, and embedded events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from genad.data.adapters import Adapter, Array, Loaded, TableAdapter
from genad.data.container import Table
from genad.data.encoder import TableEncoder
from genad.data.kinds import Kind
from genad.data.log.counts import UNSEEN_EVENTS, count_array, event_codes, used_events
from genad.data.log.drain import Drain
from genad.data.log.sessions import Sessions
from genad.data.samples import ArraySamples, Batch
from genad.data.table import as_table
from genad.errors import InputError

#: Codes of what is no event of the vocabulary: nothing (the session is over), and an event never seen in training.
PADDING, UNSEEN_EVENT, FIRST_EVENT = 0, 1, 2

#: Turns texts into one vector each.
Embedder = Callable[[list[str]], Any]


@dataclass(slots=True)
class SessionSamples:
    """Sessions kept end to end, laid side by side only when a batch asks for them.

    Attributes
    ----------
    codes : Tensor of int64, shape (events in all,)
        0 stands for nothing, 1 for an event never seen in training, events follow from 2.
    offsets : Tensor of int64, shape (n + 1,)
        Where each session begins.
    longest : int
        Events of the longest one.
    """

    codes: torch.Tensor
    offsets: torch.Tensor
    longest: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one session, (T,)."""
        return (self.longest,)

    def __len__(self) -> int:
        return self.offsets.shape[0] - 1

    def _lay(self, first: torch.Tensor, after: torch.Tensor) -> Batch:
        places = first[:, None] + torch.arange(self.longest, device=first.device)
        mask = places < after[:, None]
        codes = self.codes[places.clamp(max=len(self.codes) - 1)]
        return Batch(torch.where(mask, codes, PADDING).float(), mask)

    def batch(self, indices: torch.Tensor) -> Batch:
        """Return the sessions at ``indices``: their codes as floating numbers, and which are events."""
        return self._lay(self.offsets[indices], self.offsets[indices + 1])

    def stretch(self, start: int, stop: int) -> Batch:
        """Return the sessions from ``start`` to ``stop``."""
        return self._lay(self.offsets[start:stop], self.offsets[start + 1 : stop + 1])

    def to(self, device: torch.device) -> SessionSamples:
        """Return the sessions on ``device``."""
        return SessionSamples(self.codes.to(device), self.offsets.to(device), self.longest)


@dataclass
class _EventReader(Adapter):
    """What the bridges share: the vocabulary of the training data, and the miner that made it."""

    vocabulary: list[str] = field(default_factory=list)
    miner: Drain | None = None
    kind: Kind = Kind.LOG

    def _learn(self, X: Sessions) -> None:
        self.vocabulary = used_events(X)
        self.miner = None if X.log is None else X.log.miner

    def _read(self, X: Sessions) -> Sessions:
        """Return sessions whose messages have the templates of the training data."""
        return X if self.miner is None else X.matched(self.miner)

    def half_widths(self, bounds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return NaN: events have no order, so there is nothing to bound."""
        return np.full(max(len(bounds), len(self.names)), np.nan)

    def state(self) -> dict[str, Any]:
        """Return the fitted state as plain JSON values."""
        return {"vocabulary": self.vocabulary, "miner": None if self.miner is None else self.miner.to_dict()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Make a fitted adapter again."""
        made = cls()
        made.vocabulary = [str(text) for text in state["vocabulary"]]
        made.miner = None if state["miner"] is None else Drain.from_dict(state["miner"])
        return made


@dataclass
class SessionAdapter(_EventReader):
    """Sessions as sequences of event codes, for methods that read events in their order.

    A sample is (T,): code 0 where the session is over, 1 for an event that the training data do not have, the events
    of the vocabulary from 2. Logs to score are matched to the templates of the log that was fitted on.

    Attributes
    ----------
    vocabulary : list of str
        Templates or names of the events, in the order of their codes.
    miner : Drain or None
        What gives messages their templates; None for plain events.
    longest : int
        Events of the longest session seen so far, in training or later; it only names the places of maps.
    """

    longest: int = 0

    @property
    def names(self) -> list[str]:
        """Names of the places of a session."""
        return [f"event {i}" for i in range(1, self.longest + 1)]

    def fit(self, X: Sessions) -> Loaded:
        """Learn the vocabulary."""
        self._learn(X)
        return self.transform(X)

    def transform(self, X: Sessions) -> Loaded:
        """Return the codes of the events."""
        read = self._read(X)
        codes = event_codes(self.vocabulary, read)
        codes = np.where(codes < 0, UNSEEN_EVENT, codes + FIRST_EVENT)
        longest = int(read.lengths.max())
        self.longest = max(self.longest, longest)
        samples = SessionSamples(torch.from_numpy(codes), torch.from_numpy(np.asarray(read.offsets)), longest)
        return Loaded(samples, read, X)

    def columns(self, values: Array) -> Array:
        """Return codes as texts, empty where the session is over."""
        texts = np.array(["", "an unseen event", *self.vocabulary], object)
        return texts[np.clip(np.rint(values), 0, len(texts) - 1).astype(np.int64)]

    def observed(self, loaded: Loaded) -> Array:
        """Return the events as texts, one row a session, empty where it is over."""
        read: Sessions = loaded.source
        found = np.full((len(read), int(read.lengths.max())), "", object)
        inside = np.arange(found.shape[1])[None, :] < read.lengths[:, None]
        found[inside] = np.array(read.vocabulary, object)[read.events]
        return found

    def native(self, values: Array, loaded: Loaded, mask: Any = None) -> list[list[str]]:  # noqa: ARG002 - refused in hidden
        """Return the expected events of each session as texts."""
        lengths = loaded.source.lengths
        return [row[:n].tolist() for row, n in zip(self.columns(values), lengths, strict=True)]

    def state(self) -> dict[str, Any]:
        """Return the fitted state as plain JSON values."""
        return super().state() | {"longest": self.longest}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Make a fitted adapter again."""
        made = super().from_state(state)
        made.longest = int(state["longest"])
        return made


@dataclass
class CountAdapter(TableAdapter):
    """Sessions as counts of their events, so that every detector of tables reads logs.

    Attributes
    ----------
    events : SessionAdapter
        The vocabulary; a last column counts the events that it does not have.
    """

    kind: Kind = Kind.LOG
    events: SessionAdapter = field(default_factory=SessionAdapter)

    def fit(self, X: Sessions) -> Loaded:
        """Learn the vocabulary and the scale of each count."""
        self.events.fit(X)
        counts = self._counts(X)
        # Counts that never varied, that of unseen events to begin with, have no scale. One session more than there
        # are, in which each of them is one higher, gives them that of an event that one session in n has.
        odd = counts.mean(0) + (counts == counts[0]).all(0)
        self.encoder.fit(self._named(np.vstack([counts, odd])))
        return self.transform(X)

    def transform(self, X: Sessions) -> Loaded:
        """Return the standardised counts."""
        loaded = self._load(self._named(self._counts(X)), X)
        loaded.original = loaded.source  # restored sessions are answered as a table of counts
        return loaded

    def columns(self, values: Array) -> dict[str, Array]:
        """Return the counts; expected ones are fractions, of which two digits say enough."""
        return {name: np.round(column, 2) + 0.0 for name, column in super().columns(values).items()}

    def _counts(self, X: Sessions) -> NDArray[np.float64]:
        return count_array(self.events.transform(X).source, self.events.vocabulary)

    def _named(self, counts: NDArray[np.float64]) -> Table:
        return as_table(counts, [*self.events.vocabulary, UNSEEN_EVENTS])

    def state(self) -> dict[str, Any]:
        """Return the fitted state as plain JSON values."""
        return super().state() | {"events": self.events.state()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Make a fitted adapter again."""
        return cls(TableEncoder.from_dict(state["encoder"]), events=SessionAdapter.from_state(state["events"]))


@dataclass
class EmbeddingAdapter(_EventReader):
    """Sessions as the mean embedding of their events, for methods that compare meanings.

    Attributes
    ----------
    embed : callable
        From a list of texts to an array (texts, dimensions); set before use, as a function cannot be stored.
    raw : bool
        Whether messages are embedded as they stand, and not their templates.
    dimensions : int
        Length of an embedding.
    """

    embed: Embedder | None = None
    raw: bool = False
    dimensions: int = 0

    @property
    def names(self) -> list[str]:
        """Names of the dimensions."""
        return [f"dimension {i}" for i in range(self.dimensions)]

    def fit(self, X: Sessions) -> Loaded:
        """Learn the templates."""
        self._learn(X)
        self.dimensions = 0
        return self.transform(X)

    def transform(self, X: Sessions) -> Loaded:
        """Return one vector a session."""
        vectors = self._vectors(self._read(X)).astype(np.float32)
        return Loaded(ArraySamples(torch.from_numpy(vectors)), vectors, X)

    def _vectors(self, read: Sessions) -> NDArray[np.float64]:
        texts: list[str] = read.vocabulary
        events: NDArray[Any] = read.events
        if self.raw and read.log is not None:
            distinct, inverse = np.unique(read.log.message[read.rows].astype(str), return_inverse=True)
            texts, events = distinct.tolist(), inverse
        used, events = np.unique(events, return_inverse=True)
        table = embedded([texts[event] for event in used.tolist()], self.embed, self.dimensions or None)
        self.dimensions = table.shape[1]
        sums = np.zeros((len(read), self.dimensions))
        np.add.at(sums, np.repeat(np.arange(len(read)), read.lengths), table[events])
        return sums / read.lengths[:, None]

    def native(self, values: Array, loaded: Loaded, mask: Any = None) -> Array:  # noqa: ARG002 - refused in hidden
        """Return embeddings as they are."""
        return values

    def columns(self, values: Array) -> dict[str, Array]:
        """Return embeddings by dimension."""
        return dict(zip(self.names, values.T, strict=True))

    def observed(self, loaded: Loaded) -> dict[str, Array]:
        """Return the embeddings by dimension."""
        return self.columns(loaded.source)

    def state(self) -> dict[str, Any]:
        """Return the fitted state as plain JSON values, without the embedder."""
        return super().state() | {"raw": self.raw, "dimensions": self.dimensions}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Make a fitted adapter again; its embedder is to be set."""
        made = super().from_state(state)
        made.raw, made.dimensions = bool(state["raw"]), int(state["dimensions"])
        return made


def embedded(texts: list[str], embed: Embedder | None, dimensions: int | None = None) -> NDArray[np.float64]:
    """Return one vector of length 1 a text.

    Raises
    ------
    InputError
        When the embedder gives something else than one finite vector a text, or vectors of another length.
    """
    if embed is None:
        raise InputError("embedder: none is set; pass a function from a list of texts to an array of vectors.")
    found = np.asarray(embed(texts), np.float64)
    if found.ndim != 2 or len(found) != len(texts) or found.shape[1] == 0 or not np.isfinite(found).all():
        raise InputError(
            f"embedder: it gave shape {found.shape} for {len(texts)} texts; it must return finite numbers (texts, d)."
        )
    if dimensions is not None and found.shape[1] != dimensions:
        raise InputError(
            f"embedder: it gives {found.shape[1]} dimensions, but the detector was fitted with {dimensions}; use the "
            "embedder of the fit."
        )
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
