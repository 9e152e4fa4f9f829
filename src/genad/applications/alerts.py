"""Alerts: what a team reads of an answer, as many as it can read, alike ones together, each with what it differs in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from genad.core.log_detections import LogDetections
from genad.data.columns import ColumnKind
from genad.errors import InputError
from genad.report.wording import number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from genad.core.detections import Detections, Part
    from genad.data.table import Table

__all__ = ["Alert", "AlertFigures", "Difference", "UsualValues", "alert_figures", "differences", "make_alerts"]

# An alert is told by the features that hold half of its score, at most so many.
_HALF, _MOST_TOLD = 0.5, 3
# The range in which this share of the normal rows lies is called usual.
_USUAL = 0.99


@dataclass(frozen=True)
class Difference:
    """One feature in which a row differs from normal ones.

    Attributes
    ----------
    feature : str
        The column; of a session the line.
    observed, expected : str
        What is there, and what the nearest normal row has there; "" where nothing in particular is expected.
    usual : str
        What normal rows have there, in words; "" when not known.
    share : float
        Share of the score, from 0 to 1.
    """

    feature: str
    observed: str
    expected: str
    usual: str
    share: float

    def __str__(self) -> str:
        expected = f", expected {self.expected}" if self.expected else ""
        usual = f" ({self.usual})" if self.usual else ""
        return f"{self.feature} is {self.observed}{expected}{usual}: {100 * self.share:.0f} % of the score"


@dataclass(frozen=True)
class Alert:
    """One thing to look at: a flagged unit, and those that are flagged for the same reason.

    Attributes
    ----------
    rank : int
        From 1, the highest score first.
    position : int
        The unit with the highest score among those alike.
    positions : tuple of int
        All units alike, the highest score first.
    score, p_value : float
        Of the first.
    differences : tuple of Difference
        What the first differs in, the most telling first.
    why : str
        The same in words.
    """

    rank: int
    position: int
    positions: tuple[int, ...]
    score: float
    p_value: float
    differences: tuple[Difference, ...]
    why: str


@dataclass
class UsualValues:
    """What normal rows have in each column: the range of 99 % of the numbers, and the share of each category.

    Attributes
    ----------
    ranges : dict of str to (float, float)
        By column of numbers.
    shares : dict of str to dict of str to float
        By column of categories and truth values.

    Examples
    --------
    >>> from genad.data.table import as_table
    >>> usual = UsualValues.of(as_table({"bytes": range(1001), "flag": ["SF", *["S0"] * 1000]}))
    >>> usual.of_value("bytes", 7e6), usual.of_value("flag", "REJ")
    ('99 % of normal rows: 5 to 995', 'never in normal rows')
    >>> usual.of_value("flag", "SF")
    '0.0999 % of normal rows have it'
    """

    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    shares: dict[str, dict[str, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, table: Table, labels: NDArray[Any] | None = None) -> UsualValues:
        """Look at the normal rows of a table: all that are not labelled 1."""
        if labels is not None:
            table = table.take(np.asarray(labels) != 1)
        made = cls()
        tail = 100 * (1 - _USUAL) / 2
        for name, kind in table.kinds.items():
            values = table.column(name)
            if kind is ColumnKind.NUMERIC and len(values):
                low, high = np.nanpercentile(values.astype(np.float64), [tail, 100 - tail])
                made.ranges[name] = float(low), float(high)
            elif kind in {ColumnKind.CATEGORICAL, ColumnKind.BOOLEAN}:
                levels, counts = np.unique([_level(value) for value in values], return_counts=True)
                made.shares[name] = dict(zip(levels.tolist(), (counts / len(values)).tolist(), strict=True))
        return made

    def of_value(self, name: str, observed: Any) -> str:
        """Say in words what normal rows have in a column, beside the value found; "" for an unknown column."""
        if name in self.ranges:
            low, high = (number(round(value) if abs(value) >= 100 else value) for value in self.ranges[name])
            same = f"always {low}" if low == high else f"{low} to {high}"
            return f"{100 * _USUAL:.0f} % of normal rows: {same}"
        if name not in self.shares:
            return ""
        share = self.shares[name].get(_level(observed), 0.0)
        return f"{100 * share:.3g} % of normal rows have it" if share else "never in normal rows"


def _level(value: Any) -> str:
    return "missing" if value is None or value != value else str(value)


def differences(found: Detections, i: int, usual: UsualValues | None = None) -> tuple[Difference, ...]:
    """Return what unit ``i`` differs in: the features that hold half of its score, at most three.

    Parameters
    ----------
    found : Detections
        With maps and restored values.
    i : int
        Position of the unit.
    usual : UsualValues, optional
        Adds what normal rows have.
    """
    return tuple(
        Difference(
            part.name,
            number(part.observed),
            "" if part.expected is None else number(part.expected),
            "" if usual is None else usual.of_value(part.name, part.observed),
            part.share,
        )
        for part in _telling(found.explain(i, parts=_MOST_TOLD).parts)
    )


def _telling(parts: tuple[Part, ...]) -> list[Part]:
    shares = np.array([part.share for part in parts])
    before = np.cumsum(shares) - shares
    return [part for part, told in zip(parts, before, strict=True) if told < _HALF]


def make_alerts(
    found: Detections, most: int = 50, *, group: bool = True, usual: UsualValues | None = None
) -> list[Alert]:
    """Make a list of alerts that a team can read from the flagged units.

    The flagged units are gone through from the highest score down. Two are alike when the features that hold half of
    their scores (at most three) are the same, with the same categories, and numbers off in the same direction and of
    the same power of ten; the later one joins the alert of the earlier one. Of sessions, the events that hold half of
    the score are compared.

    Parameters
    ----------
    found : Detections
        With maps and restored values.
    most : int
        Alerts to list, at least 1.
    group : bool
        Whether units alike make one alert; otherwise each makes its own.
    usual : UsualValues, optional
        Adds what normal rows have to the explanations.

    Returns
    -------
    list of Alert
        The highest score first; fewer than ``most`` when no more is flagged.

    Raises
    ------
    InputError
        When ``most`` is below 1, or maps or restored values were left out.

    Examples
    --------
    >>> import numpy as np, genad
    >>> X = np.random.default_rng(0).normal(size=(500, 3))
    >>> X[[7, 8]] = [[0, 90, 0], [0, 95, 0]]
    >>> y = np.zeros(500, int)
    >>> y[[7, 8]] = 1
    >>> found = genad.Autoencoder(training=genad.Training(updates=50)).fit(X, y).detect(X)
    >>> first = make_alerts(found, 1)[0]
    >>> first.positions, first.differences[0].feature
    ((8, 7), 'x1')
    """
    if not isinstance(most, int | np.integer) or isinstance(most, bool) or most < 1:
        raise InputError(f"alerts: {most!r} was given; use a whole number of at least 1.")
    order = np.argsort(-found.scores, kind="stable")
    groups: dict[Any, list[int]] = {}
    for i in order[found.is_anomaly[order]].tolist():
        key = _likeness(found, i) if group else i
        if key in groups:
            groups[key].append(i)
        elif len(groups) < most:
            groups[key] = [i]
        elif not group:
            break
    alerts = []
    for rank, alike in enumerate(groups.values(), 1):
        first = alike[0]
        told = differences(found, first, usual)
        alerts.append(
            Alert(
                rank,
                first,
                tuple(alike),
                float(found.scores[first]),
                float(found.p_values[first]),
                told,
                "; ".join(found.why(first) if isinstance(found, LogDetections) else map(str, told)),
            )
        )
    return alerts


def _likeness(found: Detections, i: int) -> frozenset[Any]:
    """Return what two alerts must share to be alike."""
    if isinstance(found, LogDetections) and not isinstance(found.observed, dict) and found.sessions is not None:
        lines = sorted(found.lines(i), key=lambda line: -line.share)[:_MOST_TOLD]
        shares = np.array([line.share for line in lines])
        before = np.cumsum(shares) - shares
        return frozenset(line.event for line, told in zip(lines, before, strict=True) if told < _HALF)
    parts = _telling(found.explain(i, parts=_MOST_TOLD).parts)
    if not isinstance(found.observed, Mapping):
        return frozenset(str(part.observed) for part in parts)
    return frozenset((part.name, _size(part.observed, part.expected)) for part in parts)


def _size(observed: Any, expected: Any) -> Any:
    """Return a category as it is, and of a number its direction and power of ten."""
    if isinstance(observed, bool) or not isinstance(observed, int | float):
        return observed
    power = 0 if observed == 0 else int(np.floor(np.log10(abs(observed)) + 1e-9))
    above = isinstance(expected, int | float) and observed > expected
    return above, observed > 0, max(power, 0)


@dataclass(frozen=True)
class AlertFigures:
    """How good a list of alerts is, when the truth is known.

    Attributes
    ----------
    listed : int
        Alerts in the list.
    flagged : int
        Units flagged in all.
    covered : int
        Flagged units that belong to an alert of the list.
    precision : float or None
        Share of the alerts whose first unit is an anomaly, of those whose label is known; None without labels.
    covered_precision : float or None
        The same over all units that belong to the alerts.
    top_precision : float or None
        Share of anomalies among as many units with the highest scores, flagged or not and one by one, as alerts were
        asked for.
    """

    listed: int
    flagged: int
    covered: int
    precision: float | None = None
    covered_precision: float | None = None
    top_precision: float | None = None


def alert_figures(
    found: Detections, alerts: list[Alert], most: int, labels: NDArray[np.int64] | None = None
) -> AlertFigures:
    """Compare a list of alerts with known labels.

    Parameters
    ----------
    found : Detections
    alerts : list of Alert
        From :func:`make_alerts`.
    most : int
        Alerts that were asked for.
    labels : int array of shape (n,), optional
        1 anomaly, 0 normal, -1 unlabelled, in the order of ``found``.

    Returns
    -------
    AlertFigures
    """
    firsts = np.array([alert.position for alert in alerts], np.intp)
    members = np.array([i for alert in alerts for i in alert.positions], np.intp)
    counted = AlertFigures(len(alerts), int(found.is_anomaly.sum()), len(members))
    if labels is None or not (np.asarray(labels) >= 0).any():
        return counted
    return AlertFigures(
        counted.listed,
        counted.flagged,
        counted.covered,
        _share_of_anomalies(labels[firsts]),
        _share_of_anomalies(labels[members]),
        _share_of_anomalies(labels[found.top(most)]),
    )


def _share_of_anomalies(labels: NDArray[np.int64]) -> float | None:
    known = labels[labels >= 0]
    return float((known == 1).mean()) if len(known) else None
