"""The contract of synthesizers of series: a normal series in, the series with anomalous events and their steps out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from genad.data.series import Series, as_series
from genad.errors import InputError
from genad.synthesis.contract import SynthesizerBase, check_request
from genad.synthesis.injected import Injected

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

# A change below this share of a channel's standard deviation cannot be seen.
_VISIBLE = 1e-3


@dataclass
class Event:
    """What a method proposes for one stretch of a series.

    Attributes
    ----------
    start, stop : int
        The steps concerned, half-open.
    values : float64 array of shape (stop - start, C)
        Proposed values, standardised.
    channels : int array
        The channels that may change.
    meta : dict
        What was drawn.
    """

    start: int
    stop: int
    values: Floats
    channels: Whole
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Places:
    """Where events go.

    Attributes
    ----------
    starts : int array of shape (n,)
        First steps, ascending.
    length : int
        Steps of each.
    first, last : int arrays of shape (n,)
        The unbroken stretch, half-open, that each lies in.
    """

    starts: Whole
    length: int
    first: Whole
    last: Whole


@dataclass(eq=False, repr=False)
class SeriesSynthesizer(SynthesizerBase):
    """Base of synthesizers of series: dataclasses of hyper-parameters with :meth:`draft` filled in.

    A method proposes events; this class makes the promises: events never overlap nor touch and lie within one
    unbroken stretch, a value outside the mask is the source's to the last bit, missing values stay missing, every
    event changes a value visibly, the source is never written to, and every draw comes from the seed.
    """

    def length(self) -> int:
        """Return the steps that are set aside for each event."""
        raise NotImplementedError

    def gap(self) -> int:
        """Return the normal steps kept between events; twice an event's length is kept at both ends of a stretch."""
        return max(1, self.length() // 2)

    def count(self, steps: int) -> int:
        """Return how many events a series of so many steps gets when nobody says."""
        raise NotImplementedError

    def learn(self, z: Floats, segments: Whole) -> None:
        """Learn from a normal series, standardised and without missing values, with its unbroken stretches."""

    def draft(self, z: Floats, places: Places, rng: np.random.Generator) -> list[Event]:
        """Propose an event at each place of a standardised series without missing values."""
        raise NotImplementedError

    def fit(self, normal: Any) -> Self:
        """Learn level and spread of the channels of a normal series, and what the method needs.

        Parameters
        ----------
        normal : array of shape (steps,) or (steps, channels), dataframe or Series
            NaN where missing.

        Returns
        -------
        Self

        Raises
        ------
        InputError
            For a series that is too short or holds infinite values.
        """
        self.check_parameters()
        series = _read(normal, "normal")
        with np.errstate(invalid="ignore"):
            values = series.values.astype(np.float64)
            seen = np.where(np.isnan(values).all(0), 0.0, values)
        self.centre_: Floats = np.nanmean(seen, 0)
        deviation = np.nanstd(seen, 0)
        # A constant channel has no spread to measure changes in; a hundredth of its level stands in for it.
        small = deviation < 1e-9 * np.maximum(1.0, np.abs(self.centre_))
        self.scale_: Floats = np.where(small, np.maximum(0.01 * np.abs(self.centre_), 0.01), deviation)
        self.learn(standard(series, self.centre_, self.scale_), series.segments)
        return self

    def synthesize(self, X: Any, n: int | None = None, *, random_state: int = 0) -> Injected:
        """Put anomalous events into a normal series.

        Parameters
        ----------
        X : array of shape (steps,) or (steps, channels), dataframe or Series
            A normal series like that of :meth:`fit`; never written to. Without a fit it is learnt from as well.
        n : int, optional
            How many events; the method's own share of the series, as far as they fit, when absent.
        random_state : int
            Seed of every draw.

        Returns
        -------
        Injected
            The series in the kind of ``X``, with masks and labels of the changed steps, and an entry of ``meta`` for
            each event.

        Raises
        ------
        InputError
            For a series that cannot be used, or one that has no room for so many events.
        """
        number, seed = check_request(1 if n is None else n, random_state, "event")
        self.check_parameters()
        series = _read(X, "X")
        fitted = self if hasattr(self, "scale_") else clone(self).fit(series)
        if series.n_channels != len(fitted.scale_):
            raise InputError(
                f"X: a series of {series.n_channels} channels was given; {type(self).__name__} was fitted on "
                f"{len(fitted.scale_)}."
            )
        rng = np.random.default_rng(seed)
        wanted = max(1, fitted.count(len(series))) if n is None else number
        places = place(series.segments, wanted, fitted.length(), fitted.gap(), rng, asked=n is not None)
        z = standard(series, fitted.centre_, fitted.scale_)
        values = series.values.astype(series.values.dtype, copy=True)
        masks = np.zeros(values.shape, bool)
        meta = []
        for event in fitted.draft(z, places, rng):
            steps = slice(event.start, event.stop)
            proposed = visible(z[steps], event)
            chosen = np.zeros(values.shape[1], bool)
            chosen[event.channels] = True
            new = (proposed * fitted.scale_ + fitted.centre_).astype(values.dtype)
            new = np.where(chosen & (proposed != z[steps]) & ~np.isnan(values[steps]), new, values[steps])
            masks[steps] = (new != values[steps]) & ~np.isnan(values[steps])
            values[steps] = new
            facts = {"start": event.start, "stop": event.stop, "channels": event.channels.tolist()}
            meta.append({"method": self.name, **facts, **event.meta})
        labels = np.asarray(masks.any(1), np.int64)
        samples: Any = series.like_original(dict(zip(series.names, values.T, strict=True)))
        if isinstance(X, Series):
            samples = Series(values, X.names, X.time, X.entity, X.segments, X.order, X.axes, original=samples)
        given = series.restore_order
        marked = np.asarray(given(labels), np.int64)
        sources = np.arange(len(marked), dtype=np.int64)
        return Injected(samples, given(masks), marked, sources, meta, list(series.names))


def standard(series: Series, centre: Floats, scale: Floats) -> Floats:
    """Return standardised values; a missing one is the last one seen before it, or the mean."""
    z: Floats = (series.values.astype(np.float64) - centre) / scale
    known = ~np.isnan(z)
    if known.all():
        return z
    last = np.maximum.accumulate(np.where(known, np.arange(len(z))[:, None], -1), 0)
    filled = np.take_along_axis(z, np.maximum(last, 0), 0)
    return np.where(np.isnan(filled), 0.0, filled)


def visible(z: Floats, event: Event) -> Floats:
    """Return what an event proposes, moved by one standard deviation where all would look as before."""
    if (np.abs(event.values - z)[:, event.channels] >= _VISIBLE).any():
        return event.values
    moved = event.values.copy()
    moved[:, event.channels] += 1.0
    return moved


def place(segments: Whole, n: int, length: int, gap: int, rng: np.random.Generator, *, asked: bool) -> Places:
    """Choose places for events that neither overlap nor touch, uniformly among all ways to lay them.

    Parameters
    ----------
    segments : int array of shape (k, 2)
        Unbroken stretches, half-open.
    n : int
        How many.
    length, gap : int
        Steps of each, and between them; twice ``length`` stays normal at both ends of a stretch.
    rng : numpy.random.Generator
        The only source of randomness.
    asked : bool
        Whether fewer than ``n`` are an error.

    Returns
    -------
    Places

    Raises
    ------
    InputError
        When there is no room.

    Examples
    --------
    >>> found = place(np.array([[0, 100]]), 4, 5, 3, np.random.default_rng(0), asked=True)
    >>> bool((np.diff(found.starts) >= 8).all()), bool(found.starts[0] >= 10)
    (True, True)
    """
    lengths = segments[:, 1] - segments[:, 0]
    room = np.maximum((lengths - 4 * length + gap) // (length + gap), 0)
    total = int(room.sum())
    if not total:
        raise InputError(
            f"X: the longest unbroken stretch of the series has {int(lengths.max())} steps; an event of {length} steps "
            f"needs {5 * length}. Give more steps, or make events shorter."
        )
    if asked and n > total:
        raise InputError(f"n: {n} events were asked for; the series has room for {total}.")
    n = min(n, total)
    shares = rng.multivariate_hypergeometric(room, n)
    starts, first, last = [], [], []
    for (a, b), m in zip(segments.tolist(), shares.tolist(), strict=True):
        if m:
            free = (b - a) - 4 * length - m * length - (m - 1) * gap
            offsets = np.sort(rng.integers(0, free + 1, m))
            starts.append(a + 2 * length + offsets + np.arange(m) * (length + gap))
            first.append(np.full(m, a))
            last.append(np.full(m, b))
    return Places(np.concatenate(starts), length, np.concatenate(first), np.concatenate(last))


def _read(X: Any, argument: str) -> Series:
    series = as_series(X)
    if not len(series):
        raise InputError(f"{argument}: a series of 0 steps was given; at least 1 is needed.")
    if np.isinf(series.values).any():
        raise InputError(f"{argument}: the series holds infinite values; mark them as missing (NaN).")
    return series
