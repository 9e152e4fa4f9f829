"""Comparisons that make nothing up: groups of rows, which candidates do not learn from and then have to notice."""

from __future__ import annotations

import numpy as np
from sklearn.cluster import KMeans

from genad.applications.selection_trials import UNSEEN, Trial, stacked
from genad.data.kinds import Kind
from genad.synthesis.rows import RowForm

# Groups that the rows are cut into, and how many of them are left out one by one.
_GROUPS, _LEFT_OUT = 10, 6
# Fewest rows of a group, fewest beside it to learn from, and the largest share that it may have of all.
_FEWEST, _REST, _LARGEST = 5, 20, 0.5
# Most rows of a group that are judged beside its held-out ones.
_JUDGED = 300


def trials_without_a_group(trial: Trial, seed: int) -> list[Trial]:
    """Return trials in which a group of the rows is left out of what is learnt, and has to be told from the others.

    The groups are those of k-means on the standardised numbers. What is left out is as real as the rest, where a
    made-up anomaly is only as real as its model; but gross anomalies are not among the groups.

    Parameters
    ----------
    trial : Trial
        As :func:`~genad.applications.selection_trials.make_trial` gives it.
    seed : int
        Of the groups, and of the draw of rows that are judged in a large one.

    Returns
    -------
    list of Trial
        At most six, groups of the most usual size first; the held-out units are the given trial's. None for series, and
        for rows without numbers.

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
    if trial.kind is not Kind.TABLE:
        return []
    source = trial.judged.take(np.arange(trial.held))
    form = RowForm.of(trial.learnt)
    if not form.continuous:
        return []
    numbers, others = (np.nan_to_num(form.read(part)[0]) for part in (trial.learnt, source))
    found = KMeans(_GROUPS, n_init=2, random_state=seed).fit(numbers)
    learnt, held = found.labels_, found.predict(others)
    sizes, beside = np.bincount(learnt, minlength=_GROUPS), trial.held - np.bincount(held, minlength=_GROUPS)
    able = np.flatnonzero(
        (np.minimum(sizes, beside) >= _FEWEST) & (len(learnt) - sizes >= _REST) & (sizes <= _LARGEST * len(learnt))
    )
    unusual = np.abs(np.log(sizes[able] * _GROUPS / len(learnt)))
    rng = np.random.default_rng([seed, 1])
    trials = []
    for k, group in enumerate(able[np.argsort(unusual, kind="stable")][:_LEFT_OUT].tolist(), 1):
        shown = np.sort(rng.permutation(np.flatnonzero(learnt == group))[:_JUDGED])
        judged = stacked([source, trial.learnt.take(shown)])
        odd = np.concatenate([np.flatnonzero(held == group), trial.held + np.arange(len(shown))])
        kept = trial.learnt.take(np.flatnonzero(learnt != group))
        name = f"{UNSEEN} {k}"
        trials.append(Trial(Kind.TABLE, kept, judged, trial.held, {name: odd}, {name: np.flatnonzero(held != group)}))
    return trials
