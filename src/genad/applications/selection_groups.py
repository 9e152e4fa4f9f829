"""Comparisons that make nothing up: groups of the rows, which candidates do not learn from and then have to notice."""

from __future__ import annotations

import numpy as np

from genad.applications.selection_trials import UNSEEN, Trial, stacked
from genad.data.kinds import Kind

# Groups that are left out one by one, the fewest rows of one and beside it, and its largest share of the rows.
_LEFT_OUT, _FEWEST, _LARGEST = 3, 10, 0.5
# Most rows of a group that are judged beside its held-out ones.
_JUDGED = 300


def trials_without_a_group(trial: Trial, seed: int) -> list[Trial]:
    """Return trials in which a group of the rows is left out of what is learnt, and has to be told from the others.

    The groups are those of k-means on the standardised numbers, as many as the Gaussian mixture has components that
    fits the rows best: rows that hang together have no groups. What is left out is as real as the rest,
    where a made-up anomaly is only as real as its model; but gross anomalies are not among the groups.

    Parameters
    ----------
    trial : Trial
        As :func:`~genad.applications.selection_trials.make_trial` gives it.
    seed : int
        Of the draw of rows that are judged, in a large group.

    Returns
    -------
    list of Trial
        At most three, those of groups of the most usual size first; the held-out units are the given trial's. None for
        series, and for rows without groups.

    Examples
    --------
    >>> from genad.applications.selection_trials import make_trial
    >>> from genad.data.table import as_table
    >>> X = np.random.default_rng(0).normal(size=(600, 2)) + 9 * np.eye(3)[np.arange(600) % 3, :2]
    >>> [list(each.anomalous) for each in trials_without_a_group(make_trial(as_table(X), Kind.TABLE, 0), 0)]
    [['unseen group 1'], ['unseen group 2'], ['unseen group 3']]
    >>> trials_without_a_group(make_trial(as_table(X[::3]), Kind.TABLE, 0), 0)
    []
    """
    if trial.groups is None:
        return []
    held, learnt = trial.groups[: trial.held], trial.groups[trial.held :]
    source = trial.judged.take(np.arange(trial.held))
    sizes, rng = np.bincount(learnt), np.random.default_rng([seed, 1])
    trials: list[Trial] = []
    for group in np.argsort(np.abs(sizes - len(learnt) / len(sizes)), kind="stable").tolist():
        inside, outside = np.flatnonzero(held == group), np.flatnonzero(held != group)
        left_out, rest = np.flatnonzero(learnt == group), np.flatnonzero(learnt != group)
        few = min(len(left_out), len(outside), len(rest)) < _FEWEST
        if few or len(left_out) > _LARGEST * len(learnt) or len(trials) == _LEFT_OUT:
            continue
        shown = np.sort(rng.permutation(left_out)[:_JUDGED])
        name = f"{UNSEEN} {len(trials) + 1}"
        odd = {name: np.concatenate([inside, trial.held + np.arange(len(shown))])}
        judged = stacked([source, trial.learnt.take(shown)])
        trials.append(Trial(Kind.TABLE, trial.learnt.take(rest), judged, trial.held, odd, {name: outside}))
    return trials
