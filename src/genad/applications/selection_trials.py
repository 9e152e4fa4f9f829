"""What candidates are compared on: held-out normals, and anomalies of several kinds made from them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genad.data.kinds import Kind
from genad.data.series import Series
from genad.data.table import Table
from genad.errors import InputError
from genad.synthesis.cut_add_paste import CutAddPaste
from genad.synthesis.series_taxonomy import SeriesTaxonomy
from genad.synthesis.spans import SeriesSynthesizer
from genad.synthesis.tabular_anomalies import TabularAnomalies

Floats = NDArray[np.float64]

# Share of the data that is kept from the candidates, and the most rows or steps of it that are judged.
_HELD, _MOST = 0.3, 1000
_MOST_STEPS = 3000
# Fewest rows or steps to split; below, neither part says anything.
_FEWEST, _FEWEST_STEPS = 40, 200
# Anomalous rows of a kind: half of them slight, half of them as strong as the synthesizer's default.
_OF_A_KIND = 300
_SETTINGS: dict[str, tuple[dict[str, float], ...]] = {
    "local": ({"alpha": 2.0}, {}),
    "cluster": ({"alpha": 2.0}, {}),
    "global": ({"share": 0.3}, {}),
    "dependency": ({"share": 0.3}, {}),
}
# Half the steps of a made-up pattern; a slope that comes to three standard deviations over it.
_RADIUS, _SLOPE = 10, 0.15
# Steps to either side of an event that are not judged: windows that hold some of it rightly score high there.
_GUARD = 16
#: How the kinds of anomaly begin that are groups of rows left out.
UNSEEN = "unseen group"
# What a standard deviation between kinds of anomaly takes off the mean AUROC.
_SPREAD = 0.5


@dataclass(frozen=True)
class Trial:
    """Data to learn from, and data to judge in one pass.

    Attributes
    ----------
    kind : Kind
    learnt : object
        What candidates learn from.
    judged : object
        Held-out normals, and anomalies made from them.
    held : int
        Number of held-out normal units; the first ones of ``judged`` are these, unchanged.
    anomalous : dict of str to int array
        Units of ``judged`` that are anomalous, by the kind of anomaly.
    beside : dict of str to int array
        The normal units that each kind is compared with; modulo ``held`` they are the held-out units.
    grain : int
        How many neighbouring units say the same and so count as one.
    """

    kind: Kind
    learnt: Any
    judged: Any
    held: int
    anomalous: dict[str, NDArray[np.int64]]
    beside: dict[str, NDArray[np.int64]]
    grain: int = 1

    @property
    def size(self) -> int:
        """Number of rows or steps to learn from."""
        return len(self.learnt)

    def part(self, share: float, seed: int, least: int) -> Any:
        """Return a share of the rows to learn from, at random, or the latest of the steps; at least so many."""
        n = self.size
        m = min(n, max(least, round(share * n)))
        if m == n:
            return self.learnt
        if self.kind is Kind.SERIES:
            return self.learnt.take(np.sort(np.asarray(self.learnt.order)[n - m :]))
        return self.learnt.take(np.sort(np.random.default_rng(seed).permutation(n)[:m]))


def make_trial(X: Any, kind: Kind, seed: int) -> Trial:
    """Split normal data and make anomalies from the held-out part.

    Models of the normals are fitted to the part to learn from alone.

    Parameters
    ----------
    X : Table or Series
        Mostly normal data.
    kind : Kind
        TABLE or SERIES.
    seed : int
        Of the split and of every draw.

    Returns
    -------
    Trial

    Raises
    ------
    InputError
        When the data are too few or too constant to make anomalies from.

    Examples
    --------
    >>> from genad.data.table import as_table
    >>> X = as_table(np.random.default_rng(0).normal(size=(200, 3)))
    >>> trial = make_trial(X, Kind.TABLE, 0)
    >>> trial.size, trial.held, sorted(trial.anomalous)
    (140, 60, ['cluster', 'dependency', 'global', 'local'])
    """
    return _of_series(X, seed) if kind is Kind.SERIES else _of_table(X, seed)


def _of_table(X: Table, seed: int) -> Trial:
    n = len(X)
    if n < _FEWEST:
        raise InputError(f"X: {n} rows are too few to hold some out and compare on them; give at least {_FEWEST}.")
    order = np.random.default_rng(seed).permutation(n)
    held = min(round(_HELD * n), _MOST)
    learnt, source = X.take(np.sort(order[held:])), X.take(np.sort(order[:held]))
    fitted = TabularAnomalies().fit(learnt)
    parts, normal, makers = [source], {}, {}
    for k, kind in enumerate(fitted.kinds_):
        makers[kind] = [copy.copy(fitted).set_params(kind=kind, **settings) for settings in _SETTINGS[kind]]
        if kind == "global" or fitted.mixture_ is None:
            normal[kind] = np.arange(held)
            continue
        # Rows of the same model without the anomaly, one for each held-out row: to tell a model's rows from observed
        # ones is no merit.
        drawn = makers[kind][0].normals(source, held, random_state=1000 * seed + 100 + k)
        normal[kind] = len(parts) * held + np.arange(held)
        parts.append(drawn.samples.take(np.argsort(drawn.sources)))
    anomalous, end = {}, len(parts) * held
    for k, kind in enumerate(fitted.kinds_):
        for j, maker in enumerate(makers[kind]):
            made = maker.synthesize(source, _OF_A_KIND // len(makers[kind]), random_state=1000 * seed + 10 * k + j)
            parts.append(made.samples)
        anomalous[kind] = np.arange(end, end + _OF_A_KIND)
        end += _OF_A_KIND
    return Trial(Kind.TABLE, learnt, stacked(parts), held, anomalous, normal)


def stacked(parts: list[Table]) -> Table:
    """Lay tables of the same columns under each other.

    Examples
    --------
    >>> from genad.data.table import as_table
    >>> stacked([as_table({"a": [1.0]}), as_table({"a": [2.0]})]).column("a").tolist()
    [1.0, 2.0]
    """
    first = parts[0]
    columns = {}
    for name in first.names:
        values = np.concatenate([part.column(name) for part in parts])
        columns[name] = type(first[name])(values, first[name].kind)
    numbers = [column.values for column in columns.values()]
    matrix = None if first.matrix is None else np.stack(numbers, 1)
    return Table(columns, matrix=matrix, named=first.named, logarithmic=first.logarithmic)


def _of_series(X: Series, seed: int) -> Trial:
    n = len(X)
    if n < _FEWEST_STEPS:
        raise InputError(
            f"X: {n} steps are too few to hold some out and compare on them; give at least {_FEWEST_STEPS}."
        )
    # The end of every unbroken stretch is held out, so that no window straddles the two parts.
    lengths = X.segments[:, 1] - X.segments[:, 0]
    share = min(_HELD, _MOST_STEPS / n)
    cuts = X.segments[:, 1] - np.round(share * lengths).astype(int)
    held = np.concatenate([np.arange(a, b) for a, b in zip(cuts, X.segments[:, 1], strict=True)])
    rest = np.setdiff1d(np.arange(n), held)
    learnt, source = (X.take(np.asarray(X.order)[rows]) for rows in (rest, held))
    makers: dict[str, SeriesSynthesizer] = {
        kind: SeriesTaxonomy(kind, radius=_RADIUS, factor=_SLOPE if kind == "trend" else None, channels=0.5)
        for kind in SeriesTaxonomy.KINDS
    }
    makers["paste"] = CutAddPaste(window=2 * _RADIUS, cut=_RADIUS)
    versions, anomalous, beside = [source.values], {}, {}
    for k, (kind, maker) in enumerate(makers.items()):
        # As many events as leave half of the steps beside them to be judged as normal.
        maker.set_params(ratio=maker.length() / (2 * (maker.length() + 2 * _GUARD)))
        try:
            made = maker.fit(learnt).synthesize(source, random_state=1000 * seed + k)
        except InputError:
            continue
        first = len(versions) * len(held)
        marked = made.labels[source.order].astype(bool)
        near = np.convolve(marked, np.ones(2 * _GUARD + 1), "same") > 0
        anomalous[kind], beside[kind] = (first + np.flatnonzero(rows) for rows in (marked, ~near))
        versions.append(made.samples.values)
    kept = [kind for kind in anomalous if len(beside[kind]) >= _FEWEST]
    if not kept:
        longest = int((source.segments[:, 1] - source.segments[:, 0]).max())
        raise InputError(
            f"X: the longest unbroken stretch of {longest} held-out steps has no room for anomalies; give more steps."
        )
    bad, good = ({kind: units[kind] for kind in kept} for units in (anomalous, beside))
    return Trial(Kind.SERIES, learnt, _beside(versions, source), len(held), bad, good, 2 * _RADIUS)


def _beside(versions: list[NDArray[Any]], source: Series) -> Series:
    """Return versions of one series as so many entities of one series."""
    n = len(source)
    values = np.concatenate(versions)
    segments = np.concatenate([source.segments + k * n for k in range(len(versions))])
    entity = np.repeat(np.arange(len(versions)), n)
    original = values if isinstance(source.original, np.ndarray) else None
    return Series(values, source.names, None, entity, segments, np.arange(len(values)), original=original)


@dataclass(frozen=True)
class Marks:
    """How well a candidate tells anomalies of each kind from normals.

    Attributes
    ----------
    of_anomalies : dict of str to float64 array
        For each anomaly the share of normals that score lower; their mean is the AUROC of the kind.
    of_normals : dict of str to float64 array
        For each held-out unit the share of the kind's anomalies that score higher; NaN where it was not judged.
    grain : int
        As the trial's.
    """

    of_anomalies: dict[str, Floats]
    of_normals: dict[str, Floats]
    grain: int = 1

    @classmethod
    def of(cls, scores: Floats, trial: Trial) -> Marks:
        """Compare scores by kind; ties count one half."""
        above, below = {}, {}
        for kind, rows in trial.anomalous.items():
            bad, good = scores[rows], scores[trial.beside[kind]]
            above[kind] = _share_below(bad, good)
            below[kind] = np.full(trial.held, np.nan)
            below[kind][trial.beside[kind] % trial.held] = 1 - _share_below(good, bad)
        return cls(above, below, trial.grain)

    @property
    def auroc(self) -> dict[str, float]:
        """The area under the ROC curve by kind."""
        return {kind: float(values.mean()) for kind, values in self.of_anomalies.items()}

    @property
    def weights(self) -> Floats:
        """What each kind counts, summing to 1: what was made up and what was left out one half each, if there is both.

        Of what is made up a detector may see little that matters; groups left out say nothing of what lies far off.
        """
        left_out = np.array([kind.startswith(UNSEEN) for kind in self.of_anomalies])
        sides = [side for side in (left_out, ~left_out) if side.any()]
        return np.asarray(sum(side / side.sum() for side in sides) / len(sides))

    @property
    def score(self) -> float:
        """Mean AUROC over the kinds, less half of its spread: an even candidate is a safer one."""
        values = np.array(list(self.auroc.values()))
        mean = float(self.weights @ values)
        return mean - _SPREAD * float(np.sqrt(self.weights @ (values - mean) ** 2))

    def __or__(self, other: Marks) -> Marks:
        """Return the marks of two trials that hold out the same units, together."""
        return Marks(self.of_anomalies | other.of_anomalies, self.of_normals | other.of_normals, self.grain)


def _share_below(values: Floats, others: Floats) -> Floats:
    ordered = np.sort(others)
    lower, upper = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    shares: Floats = (lower + upper) / (2 * len(ordered))
    return shares


def difference(one: Marks, other: Marks) -> tuple[float, float]:
    """Return by how much the mean AUROC of one candidate is above another's, and the standard error of that.

    The error has two parts: the chance in which normals and anomalies were drawn (DeLong's, paired, the normals shared
    by the kinds), and the spread of the difference between kinds, for the kinds tried stand for those not tried.

    Examples
    --------
    >>> same = Marks({"a": np.array([1.0, 0.5])}, {"a": np.array([0.5, 1.0])})
    >>> difference(same, same)
    (0.0, 0.0)
    """
    kinds, weights = list(one.of_anomalies), one.weights
    gains = np.array([float((one.of_anomalies[k] - other.of_anomalies[k]).mean()) for k in kinds])
    drawn = 0.0
    for kind, weight in zip(kinds, weights, strict=True):
        apart = one.of_anomalies[kind] - other.of_anomalies[kind]
        drawn += weight**2 * float(apart.var()) / len(apart)
    # A kind in which a unit was not judged says nothing about that unit.
    each = np.stack([one.of_normals[k] - other.of_normals[k] for k in kinds])
    known = ~np.isnan(each)
    units = known.any(0)
    if units.any():
        parts = np.where(known, each, 0.0) * (weights / known.sum(1).clip(min=1))[:, None]
        drawn += float(parts.sum(0)[units].var()) * units.sum()
    gain = float(weights @ gains)
    between = 0.0
    if len(kinds) > 1:
        # As many kinds as would say as much if all counted the same.
        alike = 1 / float((weights**2).sum())
        between = float((weights**2) @ (gains - gain) ** 2) * alike / (alike - 1)
    return gain, float(np.sqrt(one.grain * drawn + between))
