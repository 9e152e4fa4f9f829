"""Recourse: the smallest change of a flagged row, within what may be changed, that a detector finds normal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from genad.core.detector import Detector
from genad.core.parameters import check_number, check_whole
from genad.data.columns import ColumnKind
from genad.data.io import read_table
from genad.data.kinds import Kind
from genad.data.table import Table, as_table, listing
from genad.errors import InputError
from genad.restoration.recourse_search import Search, renamed
from genad.restoration.recourse_terms import Action, Change, Recourse

__all__ = ["Action", "Change", "Recourse", "recourse"]

Bools = NDArray[np.bool_]


def recourse(
    detector: Detector,
    X: Any,
    rows: Sequence[int] | None = None,
    *,
    immutable: Sequence[str] = (),
    actions: Mapping[str, Action] | None = None,
    max_changes: int | None = None,
    margin: float = 0.1,
    normal: Any = None,
    judge: Detector | None = None,
) -> list[Recourse]:
    """Find the smallest change of each row that the detector finds normal: what would look normal instead.

    Several normal rows are tried as targets for each row: the row as the detector restores it, once and again; what it
    expects of the others where its map is highest (the counterfactual by restoration), and of the features that may
    not change alone; and the nearest of ``normal``. Towards
    each, features are changed one at a time, always the one that lowers the score most for its cost, until the score
    reaches the goal; then changes that are not needed are taken back, the others are shortened by line search, and
    the cheapest answer wins. Features that do not change keep their values to the last digit.

    When to use: someone can act on a flagged row (a setting, a claim, a form) and asks what to look at first.

    When it fails: the answer is about the detector, not about causes; changing the value need not mend the thing. It
    is the cheapest of what was searched, not provably the cheapest of all, and when nothing is found some other
    change might still exist. A detector with holes accepts rows that are not normal: of 62 rows of the cardio table
    that a default autoencoder flagged, all were brought below its threshold, with 1.2 changes each, but probabilistic
    principal components found 3 % of the new rows normal at 1 %. So give a second detector as ``judge``.

    Parameters
    ----------
    detector : Detector
        Fitted on a table; one of :class:`genad.Grouped`'s ``detectors_`` for a row of its group.
    X : array, dataframe, Table or path
        Rows.
    rows : sequence of int, optional
        Positions of the rows to change; the flagged ones when absent.
    immutable : sequence of str
        Features that must not change. Dates never do.
    actions : mapping of str to Action, optional
        Costs, bounds and directions of features; those not named may change freely at cost 1.
    max_changes : int, optional
        The most features that may change in a row, at least 1; all when absent.
    margin : float
        How far below the threshold the new score must be, as a share of the way from there to the median score of
        normal rows, in [0, 1); a change that ends right at the threshold is worth little.
    normal : table of normal rows, optional
        Real rows as further targets; their spread is then the unit of cost (the median absolute deviation), otherwise
        the standard deviation that the detector learnt is.
    judge : Detector, optional
        Another fitted detector that says how normal the new rows are.

    Returns
    -------
    list of Recourse
        One a row asked for, in that order.

    Raises
    ------
    InputError
        When the detector does not judge rows of a table, a name is no column, a position is out of range, or no
        feature is left to change.

    References
    ----------
    S. Wachter, B. Mittelstadt, C. Russell, Counterfactual explanations without opening the black box, Harvard Journal
    of Law & Technology, 2017.
    B. Ustun, A. Spangher, Y. Liu, Actionable recourse in linear classification, FAT* 2019.

    Examples
    --------
    >>> import numpy as np
    >>> import genad
    >>> rng = np.random.default_rng(0)
    >>> load = rng.normal(size=600)
    >>> detector = genad.create("ppca").fit({"load": load, "heat": load + 0.1 * rng.normal(size=600)})
    >>> found = recourse(detector, {"load": [0.0], "heat": [5.0]}, immutable=["load"])[0]
    >>> found.found, [change.name for change in found.changes]
    (True, ['heat'])
    """
    check_is_fitted(detector, "threshold_")
    check_number(SimpleNamespace(margin=margin), "margin", "[0, 1)")
    check_whole(SimpleNamespace(max_changes=1 if max_changes is None else max_changes), "max_changes")
    if not hasattr(detector, "calibration_scores_") or detector.adapter_.kind is not Kind.TABLE:
        raise InputError(
            f"detector: {type(detector).__name__} was given; recourse needs a detector of table rows with a "
            "calibration of its own (of Grouped, the one in detectors_ that the row belongs to)."
        )
    table = read_table(X) if isinstance(X, str | Path) else as_table(X)
    scores = detector.anomaly_score(table)
    wanted = _rows(rows, len(table), detector.threshold_.flag(scores))
    if not len(wanted):
        return []
    threshold = detector.threshold_.value
    goal = threshold - margin * max(0.0, threshold - float(np.median(detector.calibration_scores_)))
    # A row that is not flagged needs nothing, even if it is above the goal.
    goals = np.where(detector.threshold_.flag(scores[wanted]), goal, threshold)
    rules = _rules(table, immutable, actions or {})
    given = table.take(wanted)
    known = None if normal is None else renamed(as_table(normal), table)
    search = Search(detector, given, rules, _scales(detector, table, known), goals)
    search.aim(known)
    fractions, reached = search.run(max_changes)
    return search.answers(wanted, scores[wanted], threshold, fractions, reached, judge)


def _rows(rows: Sequence[int] | None, n: int, flags: Bools) -> NDArray[np.intp]:
    if rows is None:
        return np.flatnonzero(flags)
    asked = np.asarray(rows)
    if asked.ndim != 1 or (asked.size and asked.dtype.kind not in "iu") or (asked < -n).any() or (asked >= n).any():
        raise InputError(f"rows: {rows!r} was given; use positions from 0 to {n - 1}.")
    return asked.astype(np.intp) % n


def _rules(table: Table, immutable: Sequence[str], actions: Mapping[str, Action]) -> dict[str, Action]:
    """Return the columns that may change, each with how."""
    if isinstance(immutable, str):
        raise InputError(f"immutable: {immutable!r} was given; use a list of names.")
    for argument, names in (("immutable", immutable), ("actions", actions)):
        strange = [name for name in names if name not in table.names]
        if strange:
            raise InputError(f"{argument}: no column named {strange[0]!r}; the columns are {listing(table.names)}.")
    fixed = {ColumnKind.DATETIME, ColumnKind.EMPTY}
    free = [name for name in table.names if name not in set(immutable) and table.kinds[name] not in fixed]
    if not free:
        raise InputError("immutable: no feature is left that may change; leave some out.")
    whole = {name for name in free if table.column(name).dtype.kind in "iu"}
    rules = {}
    for name in free:
        action = actions.get(name, Action())
        if not isinstance(action, Action):
            raise InputError(f"actions: {action!r} was given for {name!r}; use an Action.")
        integer = action.integer or name in whole
        rules[name] = Action(action.cost, action.low, action.high, action.direction, integer)
    return rules


def _scales(detector: Any, table: Table, normal: Table | None) -> dict[str, float]:
    """Return what costs as much as one: a robust standard deviation of each column of numbers."""
    learnt = dict(zip(table.names, detector.adapter_.names, strict=False))
    encoder = detector.adapter_.encoder
    by_name = set(table.names) <= set(detector.adapter_.names)
    found = {}
    for name, kind in table.kinds.items():
        if kind is not ColumnKind.NUMERIC:
            continue
        scale = float(encoder.scale_of(name if by_name else learnt[name]))
        if normal is not None:
            cells = normal.column(name).astype(np.float64)
            spread = 1.4826 * float(np.nanmedian(np.abs(cells - np.nanmedian(cells))))
            scale = spread if spread > 0 else scale
        found[name] = scale
    return found
