"""Detections: the typed answer of every detector, and the explanation of one of its units."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genad.data.kinds import KINDS, Kind
from genad.errors import InputError

if TYPE_CHECKING:
    from genad.core.calibration import FittedThreshold

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """One part of an explained unit: a feature, a channel at a step, ...

    Attributes
    ----------
    name : str
        The feature or channel.
    observed, expected : float, str or None
        The value found, and the value of the nearest normal sample, both in the user's units; None when missing.
    lower, upper : float or None
        Bounds within which a normal value lies at the calibrated rate; None for parts without an order.
    share : float
        Share of the score that falls to this part, from 0 to 1.
    """

    name: str
    observed: Any
    expected: Any
    lower: float | None
    upper: float | None
    share: float


@dataclass(frozen=True)
class Neighbour:
    """A normal unit that an explained unit is near to.

    Attributes
    ----------
    unit : int
        Its position in the data of the fit.
    distance : float
        In the detector's own measure.
    """

    unit: int
    distance: float


@dataclass(frozen=True)
class Explanation:
    """Why a unit got its score: its parts, the most telling first.

    Attributes
    ----------
    index : int
        Position of the unit in the data.
    score : float
        Its anomaly score, in the detector's raw units.
    p_value : float
        Its conformal p-value.
    parts : tuple of Part
        Ranked by ``share``.
    nearest : tuple of Neighbour
        The nearest normal units, the nearest first; none from a detector that remembers none.
    """

    index: int
    score: float
    p_value: float
    parts: tuple[Part, ...]
    nearest: tuple[Neighbour, ...] = ()

    def __iter__(self) -> Iterator[Part]:
        return iter(self.parts)

    def __str__(self) -> str:
        lines = [f"#{self.index}  score {self.score:.4g}  p-value {self.p_value:.3g}"]
        for part in self.parts[:10]:
            bounds = "" if part.lower is None else f" (normal {part.lower:.4g} to {part.upper:.4g})"
            lines.append(
                f"  {part.share:6.1%}  {part.name}: {_plain(part.observed)}, expected {_plain(part.expected)}{bounds}"
            )
        if self.nearest:
            near = ", ".join(f"#{one.unit} at {one.distance:.4g}" for one in self.nearest)
            lines.append(f"  nearest normal units: {near}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the explanation as plain JSON values."""
        told = {
            "index": self.index,
            "score": self.score,
            "p_value": self.p_value,
            "parts": [{k: jsonable(v) for k, v in vars(part).items()} for part in self.parts],
        }
        return told | ({"nearest": [vars(one) for one in self.nearest]} if self.nearest else {})


@dataclass(frozen=True)
class Event:
    """A run of flagged time steps.

    Attributes
    ----------
    start, stop : int
        Half-open interval of positions in the series.
    peak : int
        Position of the highest score.
    score, p_value : float
        The highest score and the lowest p-value inside.
    start_time, stop_time : object
        Time stamps of the first and the last step, when the series has them.
    entity : object
        The entity the run belongs to, when there are several.
    """

    start: int
    stop: int
    peak: int
    score: float
    p_value: float
    start_time: Any = None
    stop_time: Any = None
    entity: Any = None

    @property
    def length(self) -> int:
        """Number of steps."""
        return self.stop - self.start


@dataclass
class Detections:
    """What a detector says of some data; one entry a unit (row, time step, image, ...).

    Attributes
    ----------
    scores : float64 array of shape (n,)
        Higher is more anomalous; raw units of the method.
    p_values : float64 array of shape (n,)
        Split-conformal p-values in (0, 1].
    is_anomaly : bool array of shape (n,)
        The flags.
    threshold : FittedThreshold
        The rule behind the flags, or the one set aside when ``fdr`` was asked for.
    kind : Kind
        Kind of the data.
    maps : array or None
        Where: same shape as the data, each unit's parts adding up to its share of the score.
    restored : object or None
        The nearest normal samples, in the kind, shape and units of the data.
    bounds : array or None
        Half-width of the normal range around ``restored`` for each feature or channel, in the user's units.
    fdr : float or None
        The false discovery rate that the flags control, when one was asked for.
    observed : dict of str to array, or array
        The data the answer is about, in the user's units, by feature or channel where these have names.
    names : list of str
        Names of the features or channels.
    time, entity : array or None
        Time stamp and entity of each step of a series.
    rows : int array or None
        Row of the user's data that each step of a series comes from; entities that stand interleaved there stand
        together here.
    expected : dict or array or None
        ``restored`` by feature or channel, as ``observed`` is.
    meta : dict
        Facts of the detector and the data, for reports.
    """

    scores: Floats
    p_values: Floats
    is_anomaly: NDArray[np.bool_]
    threshold: FittedThreshold
    kind: Kind
    maps: NDArray[Any] | None = None
    restored: Any = None
    bounds: NDArray[Any] | None = None
    fdr: float | None = None
    observed: Any = None
    expected: Any = None
    names: list[str] = field(default_factory=list)
    time: NDArray[Any] | None = None
    entity: NDArray[Any] | None = None
    rows: NDArray[np.intp] | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        unit = KINDS[self.kind].unit
        rule = f"fdr={self.fdr:g}" if self.fdr is not None else f"threshold={self.threshold.value:.4g}"
        return f"Detections({len(self):,} {unit}s, {int(self.is_anomaly.sum()):,} flagged, {rule})"

    def top(self, k: int = 10) -> NDArray[np.intp]:
        """Return the positions of the ``k`` highest scores, the highest first; ties in the order of the data."""
        if k < 1:
            raise InputError(f"k: {k!r} was given; ask for at least 1.")
        return np.argsort(-self.scores, kind="stable")[:k]

    def position(self, i: int) -> int:
        """Return position ``i``, counted from the end when negative, after checking that there is such a unit."""
        n = len(self)
        if not isinstance(i, int | np.integer) or not -n <= i < n:
            raise InputError(f"i: {i!r} was given; the data have {n} units, so use 0 to {n - 1}.")
        return int(i) % n

    def events(self, gap: int = 0) -> list[Event]:
        """Merge runs of flagged time steps into events.

        Parameters
        ----------
        gap : int
            Runs at most this many steps apart become one.

        Returns
        -------
        list of Event
            In the order of the series.

        Raises
        ------
        InputError
            When the data are not a series.
        """
        if self.kind is not Kind.SERIES:
            raise InputError(f"events: the data are a {self.kind.value}; only a series has events. Use top().")
        found = []
        for start, stop in merge_runs(self.is_anomaly, gap, self.entity):
            peak = start + int(np.argmax(self.scores[start:stop]))
            found.append(
                Event(
                    start=start,
                    stop=stop,
                    peak=peak,
                    score=float(self.scores[peak]),
                    p_value=float(self.p_values[start:stop].min()),
                    start_time=None if self.time is None else self.time[start],
                    stop_time=None if self.time is None else self.time[stop - 1],
                    entity=None if self.entity is None else self.entity[start],
                )
            )
        return found

    def explain(self, i: int, parts: int | None = None) -> Explanation:
        """Explain unit ``i``: what was found, what was expected, and each part's share of the score.

        Parameters
        ----------
        i : int
            Position of the unit.
        parts : int, optional
            Keep the most telling so many parts; all features of a table or series, and 50 places of a larger sample,
            when absent.

        Raises
        ------
        InputError
            When there is no such unit, or maps or restored values were left out.
        """
        if self.maps is None or self.expected is None:
            raise InputError("explain: maps and restored values were left out; call detect() with both.")
        i = self.position(i)
        weights = np.asarray(self.maps[i], np.float64).ravel()
        weights = weights - min(0.0, float(weights.min()))
        total = weights.sum()
        share = weights / total if total > 0 else np.full(weights.size, 1.0 / weights.size)
        order = np.argsort(-share, kind="stable")[: parts or (len(share) if isinstance(self.observed, dict) else 50)]
        found = tuple(self._part(i, int(j), float(share[j])) for j in order)
        return Explanation(i, float(self.scores[i]), float(self.p_values[i]), found)

    def _part(self, i: int, j: int, share: float) -> Part:
        if isinstance(self.observed, dict):
            name, channel = self.names[j], j
            observed = self.observed[name][i]
            # A column that the detector leaves out has no expected value.
            expected = self.expected[name][i] if name in self.expected else None
        else:
            place = np.unravel_index(j, self.observed.shape[1:])
            facts = KINDS[self.kind]
            channel = int(place[facts.channel_axis])
            # Events of a session have names of their own; other places are named by their axes.
            one_axis = len(place) == 1 and len(self.names) > j
            name = self.names[j] if one_axis else ", ".join(f"{a} {k}" for a, k in zip(facts.axes, place, strict=True))
            observed, expected = self.observed[(i, *place)], self.expected[(i, *place)]
        lower = upper = None
        half = np.nan if self.bounds is None else float(self.bounds[channel])
        if np.isfinite(half) and isinstance(expected, int | float | np.number):
            lower, upper = float(expected) - half, float(expected) + half
        return Part(name, _cell(observed), _cell(expected), lower, upper, share)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the answer as named columns: score, p_value, is_anomaly, and the most telling feature."""
        table: dict[str, NDArray[Any]] = {}
        if self.rows is not None and np.any(np.diff(self.rows) != 1):
            table["row"] = self.rows
        if self.entity is not None:
            table["entity"] = self.entity
        if self.time is not None:
            table["time"] = self.time
        table |= {"score": self.scores, "p_value": self.p_values, "is_anomaly": self.is_anomaly}
        if self.maps is not None and self.maps.ndim == 2 and self.names:
            table["top_feature"] = np.array(self.names, dtype=object)[np.argmax(self.maps, axis=1)].astype(str)
        return table

    def to_frame(self, backend: str = "pyarrow") -> Any:
        """Return the answer as a dataframe.

        Parameters
        ----------
        backend : {"pyarrow", "pandas", "polars"}
            Kind of dataframe; it must be installed.
        """
        import narwhals

        frame = narwhals.from_dict(self.columns(), backend=backend)  # type: ignore[arg-type]
        return frame.to_native()

    def report(self, path: str | Path, **options: Any) -> Path:
        """Write one self-contained HTML file with the answer, and return its path.

        Parameters
        ----------
        path : str or Path
        **options
            As for :func:`genad.report.write_report`: ``detector``, ``truth``, ``title``, ``date``.
        """
        import importlib

        # The report is a layer above this one, so it is looked up by name when asked for.
        return importlib.import_module("genad.report").write_report(self, Path(path), **options)


def merge_runs(
    flags: NDArray[np.bool_], gap: int = 0, groups: Sequence[Any] | NDArray[Any] | None = None
) -> list[tuple[int, int]]:
    """Merge runs of True at most ``gap`` apart into half-open intervals, never across groups.

    Examples
    --------
    >>> import numpy as np
    >>> merge_runs(np.array([0, 1, 1, 0, 1, 0, 0, 1], bool), gap=1)
    [(1, 5), (7, 8)]
    """
    found: list[tuple[int, int]] = []
    for position in np.flatnonzero(flags).tolist():
        joins = bool(found) and position - found[-1][1] <= gap
        if joins and (groups is None or groups[found[-1][0]] == groups[position]):
            found[-1] = (found[-1][0], position + 1)
        else:
            found.append((position, position + 1))
    return found


def jsonable(value: Any) -> Any:
    """Turn a NumPy scalar, a date or a non-finite float into a plain JSON value."""
    if isinstance(value, np.generic):
        value = value.item() if not isinstance(value, np.datetime64) else str(value)
    if isinstance(value, float) and not np.isfinite(value):
        return None if np.isnan(value) else str(value)
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    try:
        json.dumps(value)
    except TypeError:
        return str(value)
    return value


def _cell(value: Any) -> Any:
    """Return one cell as a plain value, None when it is missing."""
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else str(value)
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and np.isnan(value) else value


def _plain(value: Any) -> str:
    if value is None:
        return "missing"
    return f"{value:.5g}" if isinstance(value, float | np.floating) else str(value)
