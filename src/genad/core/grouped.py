"""One detector a group: machines, users or sites that each have their own normal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from genad.core.calibration import FittedThreshold, benjamini_hochberg
from genad.core.detections import Detections
from genad.core.detector import Detector
from genad.core.feedback import check_query, read_feedback
from genad.core.group_calibration import calibrate_groups, fit_shared, sharing_model, threshold_of_all
from genad.core.group_monitor import GroupMonitor
from genad.core.group_names import names_in, rows_by_name
from genad.core.inference import Floats
from genad.core.pixels import PIXEL_ALPHA
from genad.core.registry import Card, Family, register
from genad.data.adapters import Loaded
from genad.data.frames import like_frame
from genad.data.io import read_table
from genad.data.kinds import KINDS, Kind
from genad.data.table import Table, as_table
from genad.errors import InputError


@register(
    Card(
        title="One detector for each group of rows or each entity of series",
        authors="genad",
        venue="",
        year=2026,
        family=Family.WRAPPER,
        kinds=(Kind.TABLE, Kind.SERIES),
        summary="Splits the data by a column; model, threshold and p-values are each group's own.",
    )
)
@dataclass(eq=False, repr=False)
class Grouped(Detector):
    """Give each group its own detector, or its own calibration of a shared one.

    Scores of different models do not compare, so a group's scores are returned in units of its own normal spread:
    0 is the median of its calibration scores and 1 the distance from there to their 90 % quantile.

    **When to use.** Machines, sites or users that each have their own normal. With much data in each, a model a group;
    with many groups or little data in each, ``shared``.

    **When it fails.** Without ``shared``, each group needs the data of a detector: a model learnt from a few rows and a
    threshold set on fewer promise little, and each says so in a warning. With ``shared``, a group whose part of the
    calibration is smaller than its threshold needs (99 rows at 1 %, which are the fifth of 495) is judged by all such
    groups together: their false alarms are as promised over them together, while the noisiest of them have more and
    faults in the quietest are missed. With 300 groups of 3, 10 and 30 rows, whose levels differ as much as their rows,
    0.8 %, 1.1 % and 1.1 % of normal rows were flagged at 1 %, on average over 12 fits.

    Parameters
    ----------
    detector : Detector
        Fitted once a group, or once in all when ``shared``. A :class:`~genad.SeriesDetector` makes each group a series.
    by : str
        Column that names the group; it is not a feature. Text counts as it is spelled, and whole numbers alike whether
        they are kept as integers or as floats; a missing name is an error.
    shared : bool
        Learn one model from all groups and calibrate it for each. The end of each group, ``holdout`` of it, is kept
        for that. A group not seen in fit is then judged by all groups' calibration; without ``shared`` it is an error.

    Attributes
    ----------
    detectors_ : dict of str to Detector
        By group.
    base_ : Detector or None
        When ``shared``: the model, calibrated on all groups together.
    pooled_ : list of str
        When ``shared``: the groups that have no calibration of their own.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Autoencoder, Grouped, Training
    >>> rng = np.random.default_rng(0)
    >>> table = {"site": ["a"] * 600 + ["b"] * 600, "load": np.r_[rng.normal(0, 1, 600), rng.normal(50, 9, 600)]}
    >>> detector = Grouped(Autoencoder(training=Training(updates=20)), by="site").fit(table)
    >>> sorted(detector.detectors_)
    ['a', 'b']
    """

    detector: Detector | None = None
    by: str = field(default="entity", kw_only=True)
    shared: bool = field(default=False, kw_only=True)

    takes_backbone = False

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if not isinstance(self.detector, Detector):
            raise InputError(f"detector: {self.detector!r} was given; use a detector, for instance Autoencoder().")
        self.detector._check_parameters()  # noqa: SLF001 - a wrapper speaks for its detector

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit each group; ``X`` needs the column ``by``."""
        self._check_parameters()
        table = self._table(X)
        labels, groups = self._given(y, len(table)), self._groups(table)
        features = table.drop([self.by])
        base = self._new() if self.shared else None
        pooled: list[str] = []
        if base is None:
            detectors = {
                name: self._new().fit(features.take(rows), None if labels is None else labels[rows])
                for name, rows in groups.items()
            }
        else:
            detectors, pooled = fit_shared(base, features, groups, labels, self.holdout)
        self.n_features_in_ = len(table.names)
        self.detectors_, self.base_, self.pooled_ = detectors, base, pooled
        self._promise()
        return self

    @staticmethod
    def _given(y: Any, n: int) -> Any:
        labels = None if y is None else np.asarray(y).ravel()
        if labels is not None and len(labels) != n:
            raise InputError(f"y: {len(labels)} labels were given for {n} rows of X; give one a row.")
        return labels

    def _promise(self) -> None:
        self.threshold_ = threshold_of_all(self.detectors_, self.pooled_)
        self.offset_ = 0.0

    def _new(self) -> Detector:
        inner: Detector = clone(self.detector)
        if self.threshold is not None:
            inner.threshold = self.threshold
        inner.verbose = self.verbose
        return inner

    def _table(self, X: Any) -> Table:
        table = read_table(X) if isinstance(X, str | Path) else as_table(X)
        if self.by not in table.names:
            raise InputError(f"by: there is no column {self.by!r}; the columns are {', '.join(table.names[:20])}.")
        return table

    def _groups(self, table: Table) -> dict[str, NDArray[np.intp]]:
        return rows_by_name(names_in(table[self.by], f"by: column {self.by!r}"))

    def _of(self, name: str) -> Detector:
        if name in self.detectors_:
            return self.detectors_[name]
        if self.base_ is not None:
            return self.base_
        known = ", ".join(list(self.detectors_)[:10])
        raise InputError(f"X: the group {name!r} was not seen in fit (known: {known}); use shared=True to judge it.")

    def _each(self, X: Any, ask: Callable[[Detector, Table], Any]) -> tuple[int, list[tuple[Detector, Any, Any]]]:
        check_is_fitted(self, "threshold_")
        table = self._table(X)
        features = table.drop([self.by])
        asked = []
        for name, rows in self._groups(table).items():
            detector = self._of(name)
            asked.append((detector, rows, ask(detector, features.take(rows))))
        return len(table), asked

    def _collect(self, X: Any, ask: Callable[[Detector, Table], Any]) -> Any:
        """Ask each group's detector about its rows and put the answers in the order of the data."""
        n, asked = self._each(X, ask)
        first = np.asarray(asked[0][2])
        whole = np.empty((n, *first.shape[1:]), first.dtype)
        for _, rows, part in asked:
            whole[rows] = part
        return whole

    def anomaly_score(self, X: Any) -> Floats:
        """Return each row's score in units of its group's normal spread."""
        return self._collect(X, lambda d, part: _standardised(d, d.anomaly_score(part)))

    def decision_function(self, X: Any) -> Floats:
        """Return threshold minus score of each row, by its group: negative for anomalies."""
        return self._collect(X, lambda d, part: d.decision_function(part))

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Return -1 for anomalies and +1 for normal rows, each by its group's threshold."""
        return self._collect(X, lambda d, part: d.predict(part))

    def p_value(self, X: Any) -> Floats:
        """Return the conformal p-value of each row within its group."""
        return self._collect(X, lambda d, part: d.p_value(part))

    def anomaly_map(self, X: Any) -> NDArray[Any]:
        """Return where the anomaly is, one value a feature, without the group's column."""
        return self._collect(X, lambda d, part: d.anomaly_map(part))

    def restore(self, X: Any, mask: Any = None) -> Any:
        """Return the nearest normal rows in the kind of ``X``, with the group's column; rows take no mask."""
        if mask is not None:
            raise InputError("mask: groups of rows take none; set the cells to restore to missing (NaN) instead.")
        _, asked = self._each(X, lambda d, part: d.restore(part))
        return self._native(X, [(rows, part) for _, rows, part in asked])

    def _native(self, X: Any, parts: list[tuple[Any, Table]]) -> Any:
        """Return the groups' restored rows in the order and the kind of ``X``, its other columns as they were."""
        table, columns = self._table(X), {}
        for name in parts[0][1].names:
            whole = np.empty(len(table), np.result_type(*(part.column(name) for _, part in parts)))
            for rows, part in parts:
                whole[rows] = part.column(name)
            columns[name] = whole
        if hasattr(X, "columns") and not isinstance(X, Table):
            return like_frame(X, columns)
        columns = {name: columns.get(name, table.column(name)) for name in table.names}
        return np.column_stack(list(columns.values())) if isinstance(X, np.ndarray) else as_table(columns)

    def detect(
        self,
        X: Any,
        *,
        fdr: float | None = None,
        maps: bool = True,
        restore: bool = True,
        pixel_alpha: float = PIXEL_ALPHA,  # noqa: ARG002 - rows have no pixels
    ) -> Detections:
        """Score, flag, localise and restore group by group; a series answer keeps its entities together."""
        if fdr is not None:
            # A wrong rate shows at once, not after long scoring.
            benjamini_hochberg((), fdr)
        X = self._table(X) if isinstance(X, str | Path) else X
        _, asked = self._each(X, lambda d, part: d.detect(part, maps=maps, restore=restore))
        parts: list[Detections] = [found for _, _, found in asked]
        order = np.concatenate([rows if f.rows is None else rows[f.rows] for _, rows, f in asked])
        first, series = parts[0], parts[0].kind is Kind.SERIES
        place = np.arange(len(order)) if series else np.argsort(order, kind="stable")

        def joined(values: list[Any]) -> Any:
            if values[0] is None:
                return None
            if isinstance(values[0], dict):
                return {key: joined([v[key] for v in values]) for key in values[0]}
            return np.concatenate([np.asarray(v) for v in values])[place]

        p_values = joined([f.p_values for f in parts])
        flags = joined([f.is_anomaly for f in parts]) if fdr is None else benjamini_hochberg(p_values, fdr)
        names = [name for name, rows in self._groups(self._table(X)).items() for _ in rows]
        expected = joined([f.expected for f in parts])
        return Detections(
            scores=joined([_standardised(d, f.scores) for d, _, f in asked]),
            p_values=p_values,
            is_anomaly=flags,
            threshold=self.threshold_,
            kind=first.kind,
            maps=joined([f.maps for f in parts]),
            restored=self._native(X, [(rows, f.restored) for _, rows, f in asked]) if restore else None,
            expected=expected,
            observed=joined([f.observed for f in parts]),
            bounds=first.bounds,
            fdr=fdr,
            names=first.names,
            time=joined([f.time for f in parts]),
            entity=np.array(names)[place],
            rows=order if series else None,
            meta=self.describe() | {"groups": {n: d.threshold_.value for n, d in self.detectors_.items()}},
        )

    def monitor(self, alpha: float = 0.01) -> GroupMonitor:  # type: ignore[override]  # its scores come with groups
        """Return a watch over scores in service, which says in which groups they no longer resemble held-out normals.

        Each group is watched against what it is judged by. Where that is other groups' calibration, the alarm also
        says that the group is unlike them, so that its p-values mean nothing; calibrate it on more data of its own.

        Parameters
        ----------
        alpha : float
            Probability of ever raising a false alarm in any group while nothing has changed, in (0, 1).

        Returns
        -------
        GroupMonitor
            Feed it scores of :meth:`anomaly_score` and the groups they belong to, in the order they arrive.

        Examples
        --------
        >>> import numpy as np
        >>> import genad
        >>> rng = np.random.default_rng(0)
        >>> def rows(spread):
        ...     return {"site": np.repeat(["a", "b"], 500), "x": rng.normal(size=1000), "y": rng.normal(0, spread)}
        >>> detector = genad.Grouped(genad.create("ppca"), by="site").fit(rows(np.ones(1000)))
        >>> watch, changed = detector.monitor(), rows(np.repeat([1.0, 3.0], 500))
        >>> bool(watch.run(detector.anomaly_score(changed), changed["site"]).any()), list(watch.alarms)
        (True, ['b'])
        """
        check_is_fitted(self, "threshold_")
        base = self.base_
        return GroupMonitor(alpha).initialize(
            {name: _standardised(d, d.calibration_scores_) for name, d in self.detectors_.items()},
            None if base is None else _standardised(base, base.calibration_scores_),
        )

    def describe(self) -> dict[str, Any]:
        """Return plain facts of the fitted groups."""
        # A shared model was trained once, however many groups it judges.
        reports = [d.describe() for d in ([self.base_] if self.base_ is not None else self.detectors_.values())]
        summed = ("updates", "seconds", "network_parameters", "training_samples")
        return reports[0] | {
            "detector": f"grouped {reports[0]['detector']}",
            "parameters": {k: v for k, v in self.get_params(deep=False).items() if v is not None},
            "unit": KINDS[Kind(reports[0]["kind"])].unit,
            **{key: sum(r[key] for r in reports) for key in summed},
            "calibration_units": self.threshold_.n,
        }

    def calibrate(self, X: Any, y: Any = None) -> Self:
        """Set each group's threshold and p-values from other normal data; groups without rows in it stay as they are.

        When ``shared``, a group not seen in fit gets a detector too, groups with little data in ``X`` are calibrated
        together as in the fit, and groups yet unseen are judged anew when ``X`` holds all known ones.
        """
        check_is_fitted(self, "threshold_")
        table = self._table(X)
        labels, groups = self._given(y, len(table)), self._groups(table)
        features = table.drop([self.by])
        if self.base_ is None:
            asked = [(self._of(name), rows) for name, rows in groups.items()]
            for detector, rows in asked:
                detector.calibrate(features.take(rows), None if labels is None else labels[rows])
        else:
            every = groups.keys() >= self.detectors_.keys()
            poor = calibrate_groups(self.base_, self.detectors_, features, groups, labels, all_groups=every)
            self.pooled_ = sorted({*self.pooled_} - groups.keys() | {*poor})
        self._promise()
        return self

    def feedback(self, X: Any, y: Any, *, keep: bool = True) -> Self:
        """Teach each group's detector the labels of its rows; no label moves another group's scores or threshold."""
        check_is_fitted(self, "threshold_")
        table = self._table(X)
        labels, features = read_feedback(y, len(table)), table.drop([self.by])
        groups = self._groups(table)
        told = [(name, self._of(name), rows) for name, rows in groups.items() if (labels[rows] >= 0).any()]
        for name, known, rows in told:
            # A group not seen in fit gets a detector of its own, so that all others like it stay as they are.
            detector = sharing_model(known) if known is self.base_ else known
            detector.feedback(features.take(rows), labels[rows], keep=keep)
            self.detectors_[name] = detector
        self._promise()
        return self

    def forget(self) -> Self:
        """Undo :meth:`feedback` in every group."""
        check_is_fitted(self, "threshold_")
        for detector in self.detectors_.values():
            detector.forget()
        self._promise()
        return self

    def query(self, X: Any, n: int = 10) -> NDArray[np.intp]:
        """Return positions of rows to label: the groups' own proposals in turn, the best of each first."""
        table = self._table(X)
        check_query(n, len(table))
        _, found = self._each(X, lambda d, part: d.query(part, min(n, len(part))))
        ranked = sorted((k, int(rows[place])) for _, rows, places in found for k, place in enumerate(places))
        return np.array([place for _, place in ranked[:n]], np.intp)

    def fitted_state(self) -> dict[str, Any]:
        """Return the groups' detectors."""
        return {
            "groups": list(self.detectors_),
            "pooled": self.pooled_,
            "base": self.base_,
            "n_features_in": self.n_features_in_,
            "threshold": self.threshold_.to_dict(),
            "reading": dict(self.reading_),
            **{f"detector{k}": d for k, d in enumerate(self.detectors_.values())},
        }

    def set_fitted_state(self, state: dict[str, Any]) -> None:
        """Put back the groups' detectors."""
        self.detectors_ = {name: state[f"detector{k}"] for k, name in enumerate(state["groups"])}
        # Older files keep the shared model among the groups, without a name.
        self.base_ = state["base"] if "base" in state else self.detectors_.pop("", None)
        self.pooled_ = list(state.get("pooled", []))
        self.threshold_ = FittedThreshold.from_dict(state["threshold"])
        self.reading_ = dict(state.get("reading", {}))
        self.n_features_in_ = int(state["n_features_in"])
        self.offset_ = 0.0

    def _ingest(self, X: Any, *, reset: bool, y: Any = None) -> Loaded:
        raise NotImplementedError  # every public method works through the groups


def _standardised(detector: Detector, scores: Floats) -> Floats:
    normal = detector.calibration_scores_
    middle, high = np.quantile(normal, [0.5, 0.9])
    spread = high - middle
    return (scores - middle) / (spread if spread > 0 else max(abs(middle), 1e-12))
