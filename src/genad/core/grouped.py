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
from genad.core.inference import Floats
from genad.core.pixels import PIXEL_ALPHA
from genad.core.registry import Card, Family, register
from genad.data.adapters import Loaded
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

    Parameters
    ----------
    detector : Detector
        Fitted once a group, or once in all when ``shared``. A :class:`~genad.SeriesDetector` makes each group a series.
    by : str
        Column that names the group; it is not a feature.
    shared : bool
        Learn one model from all groups and calibrate it for each: for many groups with little data in each. A group
        not seen in fit is then judged by all groups' calibration; without ``shared`` it is an error.

    Attributes
    ----------
    detectors_ : dict of str to Detector
        By group.

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

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if not isinstance(self.detector, Detector):
            raise InputError(f"detector: {self.detector!r} was given; use a detector, for instance Autoencoder().")
        self.detector._check_parameters()  # noqa: SLF001 - a wrapper speaks for its detector

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit each group; ``X`` needs the column ``by``."""
        self._check_parameters()
        table = self._table(X)
        labels = None if y is None else np.asarray(y)
        if labels is not None and len(labels) != len(table):
            raise InputError(f"y: {len(labels)} labels were given for {len(table)} rows of X; give one a row.")
        groups = self._groups(table)
        self.n_features_in_ = len(table.names)
        features = table.drop([self.by])
        if self.shared:
            self._fit_shared(features, groups, labels)
        else:
            self.detectors_ = {
                name: self._new().fit(features.take(rows), None if labels is None else labels[rows])
                for name, rows in groups.items()
            }
        first = next(iter(self.detectors_.values()))
        count = len(self.detectors_)
        self.threshold_ = FittedThreshold(
            value=0.0,
            rule="Grouped",
            promise=f"Each of {count} groups by its own threshold; for the first: {first.threshold_.promise}",
            n=sum(len(d.calibration_scores_) for d in self.detectors_.values()),
        )
        self.offset_ = 0.0
        return self

    def _new(self) -> Detector:
        inner: Detector = clone(self.detector)
        if self.threshold is not None:
            inner.threshold = self.threshold
        inner.verbose = self.verbose
        return inner

    def _fit_shared(self, features: Table, groups: dict[str, NDArray[np.intp]], labels: Any) -> None:
        # The end of each group is kept for its own calibration, as a series needs.
        held = {name: rows[len(rows) - max(1, int(len(rows) * self.holdout)) :] for name, rows in groups.items()}
        kept = np.setdiff1d(np.arange(len(features)), np.concatenate(list(held.values())))
        base = self._new().fit(features.take(kept), None if labels is None else labels[kept])
        self.detectors_ = {}
        for name, rows in held.items():
            own = sharing_model(base)
            own.calibrate(features.take(rows), None if labels is None else labels[rows])
            self.detectors_[name] = own
        self.detectors_[""] = base

    def _table(self, X: Any) -> Table:
        table = read_table(X) if isinstance(X, str | Path) else as_table(X)
        if self.by not in table.names:
            raise InputError(f"by: there is no column {self.by!r}; the columns are {', '.join(table.names[:20])}.")
        return table

    def _groups(self, table: Table) -> dict[str, NDArray[np.intp]]:
        names = np.array([str(value) for value in table.column(self.by)])
        return {str(name): np.flatnonzero(names == name) for name in np.unique(names)}

    def _of(self, name: str) -> Detector:
        if name in self.detectors_:
            return self.detectors_[name]
        if self.shared:
            return self.detectors_[""]
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

    def restore(self, X: Any, mask: Any = None) -> Table:
        """Return the nearest normal rows as a table of the features; rows take no mask."""
        if mask is not None:
            raise InputError("mask: groups of rows take none; set the cells to restore to missing (NaN) instead.")
        n, asked = self._each(X, lambda d, part: d.restore(part))
        columns = {}
        for name in asked[0][2].names:
            parts = [part.column(name) for _, _, part in asked]
            whole = np.empty(n, np.result_type(*parts))
            for (_, rows, _), part in zip(asked, parts, strict=True):
                whole[rows] = part
            columns[name] = whole
        return as_table(columns)

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
        _, asked = self._each(X, lambda d, part: d.detect(part, maps=maps, restore=restore))
        parts: list[Detections] = [found for _, _, found in asked]
        order = np.concatenate([rows if f.rows is None else rows[f.rows] for _, rows, f in asked])
        first = parts[0]
        series = first.kind is Kind.SERIES
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
            restored=None if expected is None else as_table(expected),
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

    def describe(self) -> dict[str, Any]:
        """Return plain facts of the fitted groups."""
        reports = [d.describe() for d in self.detectors_.values()]
        kind = Kind(reports[0]["kind"])
        summed = (
            "updates",
            "seconds",
            "network_parameters",
            "training_samples",
            "calibration_units",
        )
        return reports[0] | {
            "detector": f"grouped {reports[0]['detector']}",
            "parameters": {k: v for k, v in self.get_params(deep=False).items() if v is not None},
            "unit": KINDS[kind].unit,
            **{key: sum(r[key] for r in reports) for key in summed},
        }

    def calibrate(self, X: Any, y: Any = None) -> Self:
        """Set each group's threshold and p-values from other normal data."""
        check_is_fitted(self, "threshold_")
        labels = None if y is None else np.asarray(y)
        table = self._table(X)
        features = table.drop([self.by])
        for name, rows in self._groups(table).items():
            self._of(name).calibrate(features.take(rows), None if labels is None else labels[rows])
        return self

    def feedback(self, X: Any, y: Any, *, keep: bool = True) -> Self:
        """Teach each group's detector the labels of its rows."""
        check_is_fitted(self, "threshold_")
        table = self._table(X)
        labels, features = read_feedback(y, len(table)), table.drop([self.by])
        groups = self._groups(table)
        told = [(self._of(name), rows) for name, rows in groups.items() if (labels[rows] >= 0).any()]
        for detector, rows in told:
            detector.feedback(features.take(rows), labels[rows], keep=keep)
        return self

    def forget(self) -> Self:
        """Undo :meth:`feedback` in every group."""
        for detector in self.detectors_.values():
            detector.forget()
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
        state: dict[str, Any] = {
            "groups": list(self.detectors_),
            "n_features_in": self.n_features_in_,
        }
        state |= {"threshold": self.threshold_.to_dict(), "reading": dict(self.reading_)}
        return state | {f"detector{k}": d for k, d in enumerate(self.detectors_.values())}

    def set_fitted_state(self, state: dict[str, Any]) -> None:
        """Put back the groups' detectors."""
        self.detectors_ = {name: state[f"detector{k}"] for k, name in enumerate(state["groups"])}
        self.threshold_ = FittedThreshold.from_dict(state["threshold"])
        self.reading_ = dict(state.get("reading", {}))
        self.n_features_in_ = int(state["n_features_in"])
        self.offset_ = 0.0

    def _ingest(self, X: Any, *, reset: bool, y: Any = None) -> Loaded:
        raise NotImplementedError  # every public method works through the groups


def sharing_model(detector: Detector) -> Detector:
    """Return a second detector on the same fitted model, to be calibrated apart."""
    twin: Detector = clone(detector)
    twin.__dict__.update(detector.__dict__)
    return twin


def _standardised(detector: Detector, scores: Floats) -> Floats:
    normal = detector.calibration_scores_
    middle, high = np.quantile(normal, [0.5, 0.9])
    spread = high - middle
    return (scores - middle) / (spread if spread > 0 else max(abs(middle), 1e-12))
