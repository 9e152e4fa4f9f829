"""Network flows and logs: choose a method, list alerts that a team can read, and count what was found by class."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from genad.applications.alerts import (
    Alert,
    AlertFigures,
    UsualValues,
    alert_figures,
    differences,
    make_alerts,
)
from genad.applications.choosing import Choice
from genad.applications.detection import choice_for, make_detector
from genad.applications.security_reading import SecurityData, read_security
from genad.data.kinds import Kind
from genad.data.table import Table
from genad.metrics.classes import by_class
from genad.metrics.point import recall_at_false_alarm_rate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from genad.core.detections import Detections
    from genad.core.detector import Detector

__all__ = [
    "ClassRecall",
    "SecurityAnswer",
    "answer_of",
    "choose_for_security",
    "class_recalls",
    "investigate",
]

_FEW_ALARMS = 0.01
# Rows to judge beyond which comparing each with a memory takes minutes: about 1,000 a second on one busy core.
_MANY = 200_000


def choose_for_security(data: SecurityData) -> Choice:
    """Choose a detector for network flows or a log.

    Parameters
    ----------
    data : SecurityData

    Returns
    -------
    Choice
        For flows the committee of denoisers and a memory, or with more than 200,000 of them to judge a denoiser alone;
        for a log what :func:`genad.applications.choosing.choose_for_log` says.

    Examples
    --------
    >>> read = read_security({"bytes": [12, 90, 7], "flag": ["SF", "SF", "S0"]})
    >>> choose_for_security(read).method
    'table_committee'
    """
    chosen = choice_for(data.given, data.learnt)
    if chosen is not None:
        return chosen
    kinds = [str(kind) for kind in data.learnt.X.kinds.values()]
    mixed = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    if len(data.given) > _MANY:
        return Choice(
            "denoising_autoencoder",
            f"{len(data.given):,} flows are many to compare with a memory of normal ones; a denoiser is faster",
        )
    return Choice(
        "table_committee",
        f"{len(data.learnt):,} flows of {mixed} columns: denoisers know how columns depend on each other, and a memory "
        "knows every normal case",
    )


@dataclass(frozen=True)
class ClassRecall:
    """How much of one class of attacks was found.

    Attributes
    ----------
    name : str
        The class.
    units : int
        Attacks of the class.
    auroc : float
        Of these against all normal units, in [0, 1].
    flagged : float
        Share that was flagged, at the false alarm rate that the threshold promises.
    at_one_percent : float
        Share above the threshold that the labels would have chosen to flag 1 % of the normal units at hand. It tells
        the ranking from the calibration where the normal units at hand differ from those learnt from.
    """

    name: str
    units: int
    auroc: float
    flagged: float
    at_one_percent: float


def class_recalls(
    found: Detections, labels: NDArray[np.int64], classes: NDArray[Any] | None = None
) -> list[ClassRecall]:
    """Return how much of each class of attacks was found, the hardest class first.

    Parameters
    ----------
    found : Detections
    labels : int array of shape (n,)
        1 anomaly, 0 normal, -1 unlabelled.
    classes : array of str, optional
        Of each unit; one class "attack" when absent.

    Returns
    -------
    list of ClassRecall
        Empty without attacks or without normal units.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Detections, Kind
    >>> from genad.core.calibration import FittedThreshold
    >>> scores = np.array([1.0, 2.0, 9.0, 1.5])
    >>> fixed = FittedThreshold(8.0, "FixedValue", "Flags scores above 8.", n=0)
    >>> found = Detections(scores, 1 / scores, scores > 8, fixed, Kind.TABLE)
    >>> for row in class_recalls(found, np.array([0, 0, 1, 1]), np.array(["", "", "DoS", "Probe"])):
    ...     print(row)
    ClassRecall(name='Probe', units=1, auroc=0.5, flagged=0.0, at_one_percent=0.0)
    ClassRecall(name='DoS', units=1, auroc=1.0, flagged=1.0, at_one_percent=1.0)
    """
    known = labels >= 0
    truth, scores, flags = labels[known], found.scores[known], found.is_anomaly[known]
    if not (truth == 1).any() or not (truth == 0).any():
        return []
    names = np.full(len(truth), "attack", object) if classes is None else classes[known]
    rows = []
    for row in by_class(scores, truth, names, flags):
        kept = (truth == 0) | (names == row.name)
        late = recall_at_false_alarm_rate(truth[kept], scores[kept], _FEW_ALARMS)
        rows.append(ClassRecall(row.name, row.units, row.auroc, float(row.recall or 0.0), late))
    return rows


@dataclass
class SecurityAnswer:
    """What was found, as a team needs it.

    Attributes
    ----------
    found : Detections
        Scores, p-values, flags and explanations of every unit.
    alerts : list of Alert
        What to read, the highest score first.
    figures : AlertFigures
        How many flags the alerts stand for, and how many of them are right where that is known.
    classes : list of ClassRecall
        How much of each class of attacks was found; empty without labels.
    false_alarms : float or None
        Share of the normal units at hand that were flagged; None without labels.
    names : array of str, or None
        Class of each unit, in the order of ``found``.
    choice : Choice or None
        The method and why; None when one was asked for.
    most : int
        Alerts that were asked for.
    grouped : bool
        Whether units alike make one alert.
    usual : UsualValues or None
        What normal rows have in each column; None for a log.
    """

    found: Detections
    alerts: list[Alert]
    figures: AlertFigures
    classes: list[ClassRecall] = field(default_factory=list)
    false_alarms: float | None = None
    names: NDArray[Any] | None = None
    choice: Choice | None = None
    most: int = 50
    grouped: bool = True
    usual: UsualValues | None = None

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the answer by unit: its columns, the number of its alert, and of flagged ones what they differ in."""
        columns = dict(self.found.columns())
        rank = np.full(len(self.found), "", object)
        for alert in self.alerts:
            rank[list(alert.positions)] = str(alert.rank)
        columns["alert"] = rank
        if "why" not in columns:
            why = np.full(len(self.found), "", object)
            for i in np.flatnonzero(self.found.is_anomaly).tolist():
                why[i] = "; ".join(map(str, differences(self.found, i, self.usual)))
            columns["why"] = why
        return columns

    def alert_columns(self) -> dict[str, NDArray[Any]]:
        """Return the alerts as columns, one line each: where, how many alike, and what the first differs in most."""
        alerts, firsts = self.alerts, [alert.position for alert in self.alerts]
        unit = "session" if self.found.kind is Kind.LOG else "row"
        columns = {
            "alert": np.array([alert.rank for alert in alerts], np.int64),
            unit: np.array(firsts, np.int64),
            "score": np.array([alert.score for alert in alerts]),
            "p_value": np.array([alert.p_value for alert in alerts]),
            "alike": np.array([len(alert.positions) for alert in alerts], np.int64),
        }
        if self.names is not None:
            columns["class"] = self.names[np.array(firsts, np.intp)]
        for name in ("feature", "observed", "expected", "usual"):
            columns[name] = np.array([getattr(alert.differences[0], name) for alert in alerts], object)
        columns["share"] = np.array([alert.differences[0].share for alert in alerts])
        columns["why"] = np.array([alert.why for alert in alerts], object)
        return columns


def answer_of(
    found: Detections, data: SecurityData, *, alerts: int = 50, group: bool = True, choice: Choice | None = None
) -> SecurityAnswer:
    """Sum an answer up for a team: alerts to read, their figures, and the recall of each class.

    Parameters
    ----------
    found : Detections
        Of ``data.given``.
    data : SecurityData
    alerts : int
        Alerts that can be read, at least 1.
    group : bool
        Whether flags alike make one alert.
    choice : Choice, optional
        The method and why.

    Returns
    -------
    SecurityAnswer
    """
    learnt = data.learnt
    usual = UsualValues.of(learnt.X, learnt.labels) if isinstance(learnt.X, Table) else None
    listed = make_alerts(found, alerts, group=group, usual=usual)
    labels = data.given.labels
    figures = alert_figures(found, listed, alerts, labels)
    answer = SecurityAnswer(
        found, listed, figures, names=data.classes, choice=choice, most=alerts, grouped=group, usual=usual
    )
    if labels is not None:
        answer.classes = class_recalls(found, labels, data.classes)
        if (labels == 0).any():
            answer.false_alarms = float(found.is_anomaly[labels == 0].mean())
    return answer


def investigate(
    source: Any,
    train: Any = None,
    *,
    alerts: int = 50,
    group: bool = True,
    method: str | None = None,
    alpha: float | None = None,
    fdr: float | None = None,
    params: Mapping[str, Any] | None = None,
    **reading: Any,
) -> SecurityAnswer:
    """Find attacks in network flows or a log: the whole job.

    Parameters
    ----------
    source, train
        As in :func:`read_security`.
    alerts : int
        Alerts that a team can read, at least 1.
    group : bool
        Whether flags alike make one alert.
    method : str, optional
        Name of a detector; chosen by the data when absent.
    alpha : float, optional
        False-alarm rate on normal units, in (0, 1); 0.01 when absent.
    fdr : float, optional
        False discovery rate of the flags, in (0, 1), instead of ``alpha``.
    params : mapping, optional
        Hyper-parameters of the detector.
    **reading
        As for :func:`read_security`.

    Returns
    -------
    SecurityAnswer

    Raises
    ------
    InputError
        When the data or an argument cannot be used.

    Examples
    --------
    >>> import numpy as np, genad
    >>> rng = np.random.default_rng(0)
    >>> flows = {"bytes": rng.lognormal(5, 1, 400), "flag": ["SF", "REJ"] * 195 + ["S0"] * 10}
    >>> flows["attack"] = ["normal"] * 390 + ["neptune"] * 10
    >>> answer = investigate(flows, labels="attack", method="nearest_memory", alerts=3, alpha=0.02)
    >>> answer.alerts[0].differences[0].feature, answer.classes[0].flagged
    ('flag', 1.0)
    """
    data = read_security(source, train, **reading)
    choice = choose_for_security(data) if method is None else None
    settings = dict(params or {})
    if choice is not None:
        method, settings = choice.method, choice.params | settings
    detector: Detector = make_detector(data.given.kind, method, settings, alpha=alpha)
    detector.fit(data.learnt.X, data.learnt.labels)
    return answer_of(detector.detect(data.given.X, fdr=fdr), data, alerts=alerts, group=group, choice=choice)
