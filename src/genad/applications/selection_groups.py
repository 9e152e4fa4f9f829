"""Comparisons that make nothing up: groups of the data, which candidates do not learn from and then have to notice."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from genad.applications.selection_trials import GUARD, UNSEEN, Trial, beside, stacked
from genad.data.kinds import Kind
from genad.data.series import Series
from genad.synthesis.rows import RowForm

Groups = NDArray[np.int64]

# Groups that the data are cut into, and how many of them are left out one by one.
_GROUPS, _LEFT_OUT = {Kind.TABLE: 10, Kind.SERIES: 8}, {Kind.TABLE: 6, Kind.SERIES: 3}
# Fewest rows or steps of a group, and of the others; the largest share that it may have of all.
_FEWEST, _REST, _LARGEST = {Kind.TABLE: 5, Kind.SERIES: 20}, {Kind.TABLE: 20, Kind.SERIES: 100}, 0.5
# Most rows or steps of a group that are judged beside its held-out ones; steps around them that show the context.
_JUDGED, _CONTEXT = {Kind.TABLE: 300, Kind.SERIES: 2000}, 128
# Steps of a piece of series, fewest pieces, and fewest of a group; values so many standard deviations off say no more.
_PIECE, _PIECES, _OF_A_GROUP, _CLIP = 32, 40, 5, 10.0


def trials_without_a_group(trial: Trial, seed: int) -> list[Trial]:
    """Return trials in which a group of the data is left out of what is learnt, and has to be told from the rest.

    The groups of a table are those of k-means on the standardised numbers of its rows, those of a series of k-means on
    the means and standard deviations of the channels in short pieces: its regimes. What is left out is as real as the
    rest, where a made-up anomaly is only as real as its model; but gross anomalies are not among the groups.

    Parameters
    ----------
    trial : Trial
        As :func:`~genad.applications.selection_trials.make_trial` gives it.
    seed : int
        Of the groups, and of the draw of rows that are judged in a large one.

    Returns
    -------
    list of Trial
        At most six of a table and three of a series, groups of the most usual size first; the held-out units are the
        given trial's. None for tables without numbers.

    Examples
    --------
    >>> from genad.applications.selection_trials import make_trial
    >>> from genad.data.table import as_table
    >>> X = np.random.default_rng(0).normal(size=(600, 2))
    >>> trial = make_trial(as_table(X), Kind.TABLE, 0)
    >>> found = trials_without_a_group(trial, 0)
    >>> [list(each.anomalous) for each in found][:2], all(each.size < trial.size for each in found)
    ([['unseen group 1'], ['unseen group 2']], True)
    """
    source = trial.judged.take(np.arange(trial.held))
    if trial.kind is Kind.SERIES:
        return _without_a_regime(trial, source, *_regimes(trial.learnt, source, seed), seed)
    form = RowForm.of(trial.learnt)
    learnt, held = (np.nan_to_num(form.read(part)[0]) for part in (trial.learnt, source))
    if not learnt.shape[1]:
        return []
    return _without_a_cluster(trial, source, *_cut(learnt, held, _GROUPS[Kind.TABLE], seed), seed)


def _cut(learnt: NDArray[Any], held: NDArray[Any], count: int, seed: int) -> tuple[Groups, Groups]:
    """Return the group of what is learnt, and of what is held out."""
    found = KMeans(count, n_init=2, random_state=seed).fit(learnt)
    return found.labels_.astype(np.int64), found.predict(held).astype(np.int64)


def _usual(learnt: Groups, held: Groups, kind: Kind) -> list[int]:
    """Return the groups to leave out, those of the most usual size first."""
    count = int(max(learnt.max(), held.max())) + 1
    sizes, rest = np.bincount(learnt, minlength=count), len(held) - np.bincount(held, minlength=count)
    able = np.flatnonzero(
        (np.minimum(sizes, rest) >= _FEWEST[kind])
        & (len(learnt) - sizes >= _REST[kind])
        & (sizes <= _LARGEST * len(learnt))
    )
    unusual = np.abs(np.log(sizes[able] * count / len(learnt)))
    chosen: list[int] = able[np.argsort(unusual, kind="stable")][: _LEFT_OUT[kind]].tolist()
    return chosen


def _without_a_cluster(trial: Trial, source: Any, learnt: Groups, held: Groups, seed: int) -> list[Trial]:
    rng = np.random.default_rng([seed, 1])
    trials = []
    for k, group in enumerate(_usual(learnt, held, Kind.TABLE), 1):
        shown = np.sort(rng.permutation(np.flatnonzero(learnt == group))[: _JUDGED[Kind.TABLE]])
        judged = stacked([source, trial.learnt.take(shown)])
        odd = np.concatenate([np.flatnonzero(held == group), trial.held + np.arange(len(shown))])
        kept = trial.learnt.take(np.flatnonzero(learnt != group))
        name = f"{UNSEEN} {k}"
        trials.append(Trial(Kind.TABLE, kept, judged, trial.held, {name: odd}, {name: np.flatnonzero(held != group)}))
    return trials


def _regimes(learnt: Series, source: Series, seed: int) -> tuple[Groups, Groups]:
    """Return the regime of each step, found on pieces of some steps."""
    steps = max(4, min(_PIECE, len(learnt) // _PIECES))
    mean, spread = np.nanmean(learnt.values, 0), np.nanstd(learnt.values, 0)
    spread = np.where(spread > 1e-6 * (1 + np.abs(mean)), spread, 1.0)
    features, lengths = [], []
    for part in (learnt, source):
        z = np.clip(np.nan_to_num((part.values - mean) / spread), -_CLIP, _CLIP)
        starts = _pieces(part.segments, steps)
        length = np.diff([*starts, len(z)])
        level, power = (np.add.reduceat(values, starts) / length[:, None] for values in (z, z**2))
        features.append(np.c_[level, np.sqrt(np.clip(power - level**2, 0, None))])
        lengths.append(length)
    count = min(_GROUPS[Kind.SERIES], max(2, len(features[0]) // _OF_A_GROUP))
    found = _cut(features[0], features[1], count, seed)
    first, second = (np.repeat(groups, length) for groups, length in zip(found, lengths, strict=True))
    return first, second


def _pieces(segments: NDArray[np.int64], steps: int) -> NDArray[np.int64]:
    """Return where pieces of an unbroken stretch begin; its last one takes what is left over.

    Examples
    --------
    >>> _pieces(np.array([[0, 10], [10, 13]]), 4).tolist()
    [0, 4, 10]
    """
    return np.concatenate([a + steps * np.arange(max(1, (b - a) // steps)) for a, b in segments.tolist()])


def _without_a_regime(trial: Trial, source: Series, learnt: Groups, held: Groups, seed: int) -> list[Trial]:
    rng = np.random.default_rng([seed, 1])
    trials = []
    for k, group in enumerate(_usual(learnt, held, Kind.SERIES), 1):
        marked = learnt == group
        shown = _some(marked, rng)
        around = _widened(shown, _CONTEXT)
        order = np.asarray(trial.learnt.order)
        judged = beside([source, trial.learnt.take(order[around])])
        odd = np.concatenate([np.flatnonzero(held == group), trial.held + np.flatnonzero(shown[around])])
        name, kept = f"{UNSEEN} {k}", trial.learnt.take(order[~marked])
        normal = {name: np.flatnonzero(~_widened(held == group, GUARD))}
        trials.append(Trial(Kind.SERIES, kept, judged, trial.held, {name: odd}, normal, trial.grain))
    return trials


def _some(marked: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Keep whole runs of what is marked, at random, until there are enough steps."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]]).astype(np.int8))).reshape(-1, 2)
    edges = edges[rng.permutation(len(edges))]
    enough = np.cumsum(edges[:, 1] - edges[:, 0]) >= _JUDGED[Kind.SERIES]
    shown = np.zeros_like(marked)
    for a, b in edges[: int(np.argmax(enough)) + 1 if enough.any() else None].tolist():
        shown[a:b] = True
    return shown


def _widened(marked: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """Mark the neighbours too, up to so many steps away."""
    near: NDArray[np.bool_] = np.convolve(marked, np.ones(2 * by + 1))[by : by + len(marked)] > 0.5
    return near
