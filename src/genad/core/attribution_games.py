"""The games behind attribution: a unit and normal data, whose features or groups of cells can be exchanged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from genad.core.detections import jsonable
from genad.data.columns import Column, ColumnKind
from genad.data.io import read_table
from genad.data.kinds import KINDS, Kind, kind_of_shape
from genad.data.series import Series, as_series
from genad.data.table import Table, as_table
from genad.errors import InputError

__all__ = ["Game", "make_game"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# Rows of normal data that stand for all of them.
_MEDOIDS = 30
# Groups of a sample with axes, when the caller names no length of a block; numbers in one call of the detector.
_GROUPS, _NUMBERS = 48, 2**22


@dataclass
class Game:
    """A unit and its background as a game: the players are groups of cells that come from the one or the other.

    ``mixed(keep, which)`` makes units whose players come from the unit where ``keep`` and from background ``which``
    elsewhere, ``score`` judges them, and ``differs`` tells the players that are not the same on both sides.
    """

    names: list[str]
    weights: Floats
    differs: Bools
    size: int
    mixed: Callable[[Bools, NDArray[np.intp]], Any]
    score: Callable[[Any], Floats]
    observed: tuple[Any, ...]
    expected: tuple[Any, ...]
    evaluations: int = 0

    def starts(self) -> Floats:
        """Return the score of each background."""
        m = len(self.weights)
        return self.value(np.zeros((m, len(self.names)), np.bool_), np.arange(m))

    def value(self, keep: Bools, which: NDArray[np.intp]) -> Floats:
        """Return the scores of mixed units, in as few calls of the detector as memory allows."""
        block = max(1, _NUMBERS // self.size)
        parts = [
            np.asarray(self.score(self.mixed(keep[at : at + block], which[at : at + block])), np.float64)
            for at in range(0, len(keep), block)
        ]
        self.evaluations += len(keep)
        found = np.concatenate(parts)
        if not np.isfinite(found).all():
            raise InputError(
                "detector: it gave a mixed unit a score that is not finite, which cannot be shared out; give a "
                "detector with finite scores."
            )
        return found


def make_game(detector: Any, X: Any, i: int, background: Any, block: int | None, seed: int) -> tuple[int, Game]:
    """Return the position counted from the start, and the game of that unit."""
    if isinstance(background, str) and background not in {"restored", "mean"}:
        raise InputError(f"background: {background!r} was given; use 'restored', 'mean' or normal data.")
    if detector.reads_as is Kind.SERIES:
        return _series_game(detector, as_series(X), i, background, block)
    if isinstance(X, str | Path):
        X = read_table(X)
    if isinstance(X, np.ndarray) and X.dtype.kind in "biuf" and X.ndim in {2, 3, 4, 5}:
        i = _position(i, len(X))
        sample = X[i].astype(X.dtype if X.dtype.kind == "f" else np.float64)
        rows, weights = _array_background(detector, sample, background, seed)
        owner, names = _cells(detector, kind_of_shape(sample.shape), sample.shape, block)
        return i, _array_game(sample, rows, weights, owner, names, detector.anomaly_score)
    if not (isinstance(X, Table | Mapping | list | np.ndarray) or hasattr(X, "columns")):
        raise InputError(
            f"X: a {type(X).__name__} was given; scores of rows, series and arrays of samples can be shared out. Use "
            "the maps of detect() for other kinds."
        )
    return _table_game(detector, as_table(X), i, background, seed)


def _position(i: int, n: int) -> int:
    if not isinstance(i, int | np.integer) or isinstance(i, bool) or not -n <= i < n:
        raise InputError(f"i: {i!r} was given; the data have {n} units, so use 0 to {n - 1}.")
    return int(i) % n


def _array_game(
    sample: NDArray[Any],
    rows: NDArray[Any],
    weights: Floats,
    owner: NDArray[np.intp],
    names: list[str],
    score: Callable[[Any], Floats],
) -> Game:
    """Return the game of an array whose cells belong to the players that ``owner`` names."""
    rows = rows.astype(sample.dtype)
    same = ((rows == sample) | (np.isnan(rows) & np.isnan(sample))).all(axis=0)
    differs = np.bincount(owner.ravel(), ~same.ravel(), len(names)) > 0

    def means(values: NDArray[Any]) -> tuple[float | None, ...]:
        known = ~np.isnan(values)
        count = np.bincount(owner.ravel(), known.ravel(), len(names))
        total = np.bincount(owner.ravel(), np.where(known, values, 0.0).ravel(), len(names))
        return tuple(float(t / c) if c else None for t, c in zip(total, count, strict=True))

    def mixed(keep: Bools, which: NDArray[np.intp]) -> NDArray[Any]:
        return np.where(keep[:, owner], sample, rows[which])

    expected = np.tensordot(weights, rows.astype(np.float64), axes=1)
    return Game(names, weights, differs, sample.size, mixed, score, means(sample), means(expected))


def _cells(detector: Any, kind: Kind, shape: tuple[int, ...], block: int | None) -> tuple[NDArray[np.intp], list[str]]:
    """Divide the cells of a sample among groups: features, channels by steps, or squares of an image."""
    if kind is Kind.TABLE:
        adapter = getattr(detector, "adapter_", None)
        names = list(adapter.names) if adapter is not None else [f"x{j}" for j in range(shape[0])]
        return np.arange(shape[0]), names
    facts = KINDS[kind]
    free = [a for a in range(len(shape)) if a != facts.channel_axis]
    # Channels of a window mean different things, colours of an image do not.
    apart = kind in {Kind.WINDOW, Kind.SERIES}
    channels = shape[facts.channel_axis] if apart else 1
    side = block or max(1, round((np.prod([shape[a] for a in free]) * channels / _GROUPS) ** (1 / len(free))))
    axes: list[tuple[NDArray[np.intp], int]] = []
    for axis, length in enumerate(shape):
        step = side if axis in free else (1 if apart else length)
        axes.append((np.arange(length) // step, -(-length // step)))
    owner = np.ravel_multi_index(np.ix_(*(a for a, _ in axes)), tuple(n for _, n in axes))
    names = []
    for place in np.ndindex(*(n for _, n in axes)):
        words = []
        for axis, k in enumerate(place):
            if axis in free:
                low, high = k * side, min((k + 1) * side, shape[axis]) - 1
                words.append(f"{facts.axes[axis]} {low}" + (f" to {high}" if high > low else ""))
            elif apart:
                words.insert(0, f"{facts.axes[axis]} {k}")
        names.append(", ".join(words))
    return owner, names


def _array_background(detector: Any, sample: NDArray[Any], background: Any, seed: int) -> tuple[NDArray[Any], Floats]:
    if isinstance(background, str):
        if background == "restored":
            return np.asarray(detector.restore(sample[None])), np.ones(1)
        columns = _centre(detector, (1, *detector.sample_shape_))
        return np.column_stack(list(columns.values())) if isinstance(columns, Mapping) else columns, np.ones(1)
    rows = np.asarray(background)
    if rows.dtype.kind not in "biuf" or rows.shape[1:] != sample.shape or not len(rows):
        raise InputError(
            f"background: {rows.dtype} of shape {rows.shape} was given; use numbers of shape (n, *{sample.shape})."
        )
    chosen, weights = _medoids(rows.reshape(len(rows), -1).astype(np.float64), seed)
    return rows[chosen], weights


def _centre(detector: Any, shape: tuple[int, ...]) -> Any:
    """Return the mean of the training data in the user's units."""
    if not hasattr(detector, "adapter_"):
        raise InputError("background: this detector keeps no mean of its training data; use 'restored' or normal data.")
    return detector.adapter_.columns(np.zeros(shape, np.float32))


def _medoids(points: Floats, seed: int) -> tuple[NDArray[np.intp], Floats]:
    """Return the rows nearest to the centres of k-means, and the share of all rows that each stands for."""
    if len(points) <= _MEDOIDS:
        return np.arange(len(points)), np.full(len(points), 1.0 / len(points))
    known = np.isfinite(points)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, points, 0.0).sum(axis=0) / count
    points = np.where(known, points, mean) - mean
    spread = points.std(axis=0)
    points = points / np.where(spread > 0, spread, 1.0)
    distinct = len(np.unique(points, axis=0))
    model = KMeans(min(_MEDOIDS, distinct), n_init=1, random_state=seed).fit(points)
    chosen = np.unique(model.transform(points).argmin(axis=0))
    # A row goes with the nearest medoid, so that every medoid has a share.
    nearest = ((points[:, None] - points[chosen]) ** 2).sum(axis=-1).argmin(axis=1)
    return chosen, np.bincount(nearest, minlength=len(chosen)) / len(points)


def _table_game(detector: Any, table: Table, i: int, background: Any, seed: int) -> tuple[int, Game]:
    i = _position(i, len(table))
    row = table.take(np.array([i]))
    weights = np.ones(1)
    if not isinstance(background, str):
        given = as_table(background)
        lacking = [name for name in table.names if name not in given.names]
        if lacking:
            raise InputError(f"background: it has no column {lacking[0]!r}; give normal rows with the columns of X.")
        chosen, weights = _medoids(_numbers(given.select(table.names)), seed)
        normal = given.take(chosen)
    elif background == "restored":
        normal = as_table(detector.restore(row))
    else:
        normal = as_table(_centre(detector, (1, *detector.sample_shape_)))
    if len(normal.names) == len(table.names) and not set(normal.names) & set(table.names):
        # A detector fitted on an array knows columns by their places only.
        normal = as_table({name: normal.column(other) for name, other in zip(table.names, normal.names, strict=True)})
    # The column that names a row's group stays as it is: it says who judges the row, and is not judged itself.
    names = [name for name in table.names if name in normal.names and name != getattr(detector, "by", None)]
    own = {name: row.column(name) for name in table.names}
    other = {name: normal.column(name) for name in names}
    differs = np.array([not _alike(own[name], other[name]) for name in names], np.bool_)
    kinds = table.kinds

    def mixed(keep: Bools, which: NDArray[np.intp]) -> Table:
        place = {name: j for j, name in enumerate(names)}
        columns = {}
        for name in table.names:
            cells = np.repeat(own[name], len(keep))
            if name in place:
                cells = _either(keep[:, place[name]], cells, other[name][which])
            kind = normal.kinds[name] if kinds[name] is ColumnKind.EMPTY and name in place else kinds[name]
            columns[name] = Column(cells, kind)
        return Table(columns, named=table.named)

    def expected(cells: NDArray[Any]) -> Any:
        if len(cells) == 1:
            return jsonable(cells[0])
        return float(weights @ cells.astype(np.float64)) if cells.dtype.kind in "biuf" else None

    observed = tuple(jsonable(own[name][0]) for name in names)
    game = Game(
        names,
        weights,
        differs,
        len(table.names),
        mixed,
        detector.anomaly_score,
        observed,
        tuple(expected(other[name]) for name in names),
    )
    return i, game


def _alike(cell: NDArray[Any], others: NDArray[Any]) -> bool:
    value = cell[0]
    missing = value is None or value != value
    return all((other is None or other != other) if missing else bool(other == value) for other in others)


def _either(keep: Bools, own: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """Return cells of the one column where ``keep`` and of the other elsewhere, text staying objects."""
    if own.dtype == object or other.dtype == object:
        return np.where(keep, own.astype(object), other.astype(object))
    return np.where(keep, own, other)


def _numbers(table: Table) -> Floats:
    """Return rows as numbers for distances: categories by one column each level."""
    parts: list[Floats] = []
    for name, kind in table.kinds.items():
        cells = table.column(name)
        if kind is ColumnKind.CATEGORICAL:
            text = np.array([str(cell) for cell in cells])
            parts.append((text[:, None] == np.unique(text)).astype(np.float64))
        elif kind is ColumnKind.DATETIME:
            parts.append(cells.astype("datetime64[s]").astype(np.float64)[:, None])
        else:
            parts.append(cells.astype(np.float64)[:, None])
    return np.concatenate(parts, axis=1)


def _series_game(detector: Any, series: Series, i: int, background: Any, block: int | None) -> tuple[int, Game]:
    """Return the game of one step: the cells of the windows that hold it."""
    i = _position(i, len(series))
    begin, end = next((a, b) for a, b in series.segments.tolist() if a <= i < b)
    reach = int(getattr(getattr(detector, "adapter_", None), "length", 0)) or 32
    first, last = max(begin, i - reach + 1), min(end, i + reach)
    stretch = np.asarray(series.values[first:last], np.float64)
    length, channels = stretch.shape
    if length < reach:
        raise InputError(
            f"i: step {i} lies in an unbroken stretch of {length} steps, fewer than the {reach} of a window; no score "
            "of its own can be shared out."
        )
    plain = isinstance(series.original, np.ndarray)

    def stacked(values: NDArray[np.float64]) -> Series:
        n = len(values)
        starts = np.arange(n) * length
        flat = values.reshape(-1, channels)
        original = flat if plain else as_table(flat, series.names)
        segments = np.column_stack([starts, starts + length])
        return Series(flat, series.names, None, None, segments, np.arange(len(flat)), original=original)

    def score(values: NDArray[np.float64]) -> Floats:
        return detector.anomaly_score(stacked(values)).reshape(len(values), length)[:, i - first]

    weights = np.ones(1)
    if not isinstance(background, str):
        normal = as_series(background)
        if normal.n_channels != channels:
            raise InputError(f"background: a series of {normal.n_channels} channels was given; use {channels}.")
        starts = np.concatenate([np.arange(a, b - length + 1) for a, b in normal.segments.tolist()])
        if not len(starts):
            raise InputError(f"background: no unbroken stretch has {length} steps; give a longer normal series.")
        starts = starts[np.unique(np.linspace(0, len(starts) - 1, min(_MEDOIDS, len(starts))).astype(np.intp))]
        rows = normal.values[starts[:, None] + np.arange(length)]
        weights = np.full(len(starts), 1.0 / len(starts))
    elif background == "restored":
        rows = _channel_values(detector.restore(stacked(stretch[None])))[None]
    else:
        columns = _centre(detector, (1, channels))
        rows = np.repeat(_channel_values(columns)[None], length, axis=1)
    owner, _ = _cells(detector, Kind.SERIES, stretch.shape, block)
    names = []
    step = int((owner[:, 0] == 0).sum())
    for low in range(0, length, step):
        at, to = first + low, first + min(low + step, length) - 1
        words = f"step {at}" + (f" to {to}" if to > at else "")
        names += [f"{name}, {words}" for name in series.names]
    return i, _array_game(stretch, rows, weights, owner, names, score)


def _channel_values(found: Any) -> NDArray[np.float64]:
    """Return restored channels, an array or named columns, as (steps, channels)."""
    if isinstance(found, np.ndarray):
        return found.astype(np.float64).reshape(len(found), -1)
    table = as_table(found)
    return np.column_stack([table.column(name).astype(np.float64) for name in table.names])
