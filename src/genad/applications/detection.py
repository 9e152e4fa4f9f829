"""The main job: read a file or a dataframe, choose a detector for its kind, fit, calibrate and answer."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genad.core.calibration import Conformal
from genad.core.detections import Detections
from genad.core.detector import Detector
from genad.core.registry import create, detector_class
from genad.core.windows import Windowed
from genad.data.io import read_table
from genad.data.kinds import Kind
from genad.data.series import Series, as_series
from genad.data.table import Table, as_table
from genad.errors import DataWarning, GenadError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The detector of each kind when none is named; docs/benchmarks.md says why.
DEFAULTS: dict[Kind, str] = {Kind.TABLE: "table_committee", Kind.SERIES: "series_committee"}


@dataclass
class Data:
    """Data read for a job.

    Attributes
    ----------
    X : Table or Series
        What a detector takes.
    kind : Kind
        Table or series.
    labels : int array or None
        1 anomaly, 0 normal, -1 unlabelled, in the order of the rows; None when not given.
    notes : list of str
        What was assumed in reading, for the user to see.
    """

    X: Table | Series
    kind: Kind
    labels: NDArray[np.int64] | None
    notes: list[str]

    def __len__(self) -> int:
        return len(self.X)


def default_detector(kind: Kind | str, **params: Any) -> Detector:
    """Make the detector that genad uses for a kind of data when none is named.

    Parameters
    ----------
    kind : {"table", "series"}
    **params
        Hyper-parameters, as for :func:`genad.create`.

    Examples
    --------
    >>> default_detector("table").name
    'table_committee'
    """
    if kind not in DEFAULTS:
        raise InputError(f"kind: {str(kind)!r} has no default detector; use one of {', '.join(DEFAULTS)}.")
    return create(DEFAULTS[Kind(kind)], **params)


def read(
    source: Any,
    *,
    kind: Kind | str | None = None,
    time: str | None = None,
    entity: str | None = None,
    labels: str | Path | NDArray[Any] | None = None,
    delimiter: str | None = None,
) -> Data:
    """Read data for a job and settle whether they are a table or a series.

    Parameters
    ----------
    source : path, "-", array or dataframe
        A path is read by its suffix; ``"-"`` is standard input.
    kind : {"table", "series"}, optional
        Taken as a series when absent if ``time`` is given or some column holds ascending time stamps.
    time, entity : str, optional
        Columns of a series.
    labels : str, path or array, optional
        A column of the data, a file whose only column (or column ``label``) holds them, or the labels themselves.
    delimiter : str, optional
        Column separator of a text file.

    Raises
    ------
    InputError
        When the data, the labels or a column cannot be used.
    """
    if kind is not None and kind not in DEFAULTS:
        raise InputError(f"kind: {str(kind)!r} was given; use 'table' or 'series'.")
    if isinstance(source, Series):
        return Data(source, Kind.SERIES, _labels(labels, None, len(source))[0], [])
    path_like = isinstance(source, str | Path)
    table = read_table(source, delimiter=delimiter) if path_like else as_table(source)
    values, used = _labels(labels, table, len(table))
    if used is not None:
        table = table.drop([used])
    notes: list[str] = []
    if kind is None and (time or entity):
        kind = Kind.SERIES
    if kind != Kind.TABLE:
        series = _try_series(table, time, entity, must=kind is not None)
        if series is not None:
            if kind is None:
                notes.append("read as a series, because it has ascending time stamps; --kind table reads rows instead")
            return Data(series, Kind.SERIES, values, notes)
    return Data(table, Kind.TABLE, values, notes)


def _try_series(table: Table, time: str | None, entity: str | None, *, must: bool) -> Series | None:
    """Return the table as a series; None when it need not be one and has no usable time."""
    try:
        with warnings.catch_warnings():
            if not must:
                warnings.simplefilter("ignore", DataWarning)
            series = as_series(table, time=time, entity=entity)
    except GenadError:
        if must:
            raise
        return None
    return series if must or series.time is not None else None


def _labels(given: Any, table: Table | None, n: int) -> tuple[NDArray[np.int64] | None, str | None]:
    """Return the labels and the column of the data they came from."""
    if given is None:
        return None, None
    used = None
    if isinstance(given, str | Path):
        if table is not None and str(given) in table.names:
            used = str(given)
            column = table.column(used)
        elif Path(given).is_file():
            other = read_table(given)
            name = "label" if "label" in other.names else other.names[-1]
            column = other.column(name)
        else:
            names = "" if table is None else f" (columns: {', '.join(table.names[:20])})"
            raise InputError(f"labels: {str(given)!r} is neither a column of the data{names} nor a file.")
    else:
        column = np.asarray(given).ravel()
    if len(column) != n:
        raise InputError(f"labels: {len(column)} labels were given for {n} rows; give one a row.")
    try:
        values = np.where([cell is None for cell in column], -1, column) if column.dtype == object else column
        numbers = np.nan_to_num(np.asarray(values, np.float64), nan=-1.0)
    except (TypeError, ValueError):
        numbers = np.full(n, 2.0)
    if not np.isin(numbers, (-1, 0, 1)).all():
        raise InputError(
            f"labels: found {sorted({str(v) for v in column})[:5]}; use 1 for anomalies, 0 for normal rows and -1 or "
            "nothing for unlabelled ones."
        )
    return numbers.astype(np.int64), used


def make_detector(
    kind: Kind,
    method: str | None,
    params: Mapping[str, Any],
    *,
    alpha: float | None = None,
    window: int | None = None,
) -> Detector:
    """Make the detector of a job: the named or default one, wrapped in windows where a series needs it.

    Raises
    ------
    InputError
        For an unknown method or parameter.
    """
    settings = dict(params)
    if alpha is not None:
        settings["threshold"] = Conformal(alpha)
    if method is None:
        if window is not None:
            settings["window"] = window
        return default_detector(kind, **settings)
    if kind is Kind.SERIES and detector_class(method).reads_as is None:
        outer = {key: settings.pop(key) for key in ("threshold", "holdout", "random_state", "device") if key in settings}
        return Windowed(create(method, **settings), window=window, **outer)
    if window is not None:
        settings["window"] = window
    return create(method, **settings)


def detect(
    source: Any,
    *,
    train: Any = None,
    method: str | None = None,
    kind: Kind | str | None = None,
    time: str | None = None,
    entity: str | None = None,
    labels: Any = None,
    alpha: float | None = None,
    fdr: float | None = None,
    window: int | None = None,
    **params: Any,
) -> Detections:
    """Find the anomalies in some data: read, choose a detector, fit, calibrate, score, localise and restore.

    Parameters
    ----------
    source : path, array or dataframe
        What to look at.
    train : path, array or dataframe, optional
        Mostly normal data to learn from; ``source`` itself when absent.
    method : str, optional
        Name of a detector; the kind's default when absent.
    kind : {"table", "series"}, optional
        See :func:`read`.
    time, entity : str, optional
        Columns of a series.
    labels : str, path or array, optional
        Known labels of the training data; units labelled 1 are not learnt from.
    alpha : float, optional
        False-alarm rate on normal units; 0.01 when absent.
    fdr : float, optional
        False discovery rate of the flags, instead of ``alpha``.
    window : int, optional
        Steps in a window of a series.
    **params
        Hyper-parameters of the detector.

    Returns
    -------
    Detections

    Examples
    --------
    >>> import numpy as np, genad
    >>> X = np.random.default_rng(0).normal(size=(500, 3))
    >>> X[7] += 9
    >>> found = genad.detect(X, method="autoencoder", training=genad.Training(updates=50))
    >>> int(found.top(1)[0])
    7
    """
    same = train is None
    given = read(source, kind=kind, time=time, entity=entity, labels=labels if same else None)
    learnt = given if same else read(train, kind=given.kind, time=time, entity=entity, labels=labels)
    detector = make_detector(given.kind, method, params, alpha=alpha, window=window)
    detector.fit(learnt.X, learnt.labels)
    return detector.detect(given.X, fdr=fdr)
