"""The report of an answer about network flows or a log: the usual one, with alerts and classes of attacks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from genad.core.log_detections import LogDetections
from genad.data.kinds import Kind
from genad.files import replace_file
from genad.report.alerts import AlertItem, AlertSection, ClassRow, with_alerts
from genad.report.items import Row, position, top_features
from genad.report.page import render
from genad.report.wording import clip_text, count, number, probability, unit_of

if TYPE_CHECKING:
    from genad.applications.alerts import Alert
    from genad.applications.cybersecurity import SecurityAnswer

__all__ = ["alert_notes", "class_notes", "write_security_report"]

_LONGEST_CLASS = 30


def write_security_report(
    answer: SecurityAnswer, path: str | Path, *, detector: Any = None, truth: Any = None, title: str | None = None
) -> Path:
    """Write an answer as one self-contained HTML file.

    Parameters
    ----------
    answer : SecurityAnswer
    path : str or Path
        The file to write; its folder is made when missing.
    detector, truth, title
        As for :func:`genad.report.write_report`.

    Returns
    -------
    Path
        The file, whole or not there.
    """
    page = render(answer.found, detector=detector, truth=truth, title=title)
    section = AlertSection(
        alert_notes(answer),
        [_item(answer, alert) for alert in answer.alerts],
        [ClassRow(row.name, row.units, row.auroc, row.flagged, row.at_one_percent) for row in answer.classes],
        class_notes(answer),
    )
    text = with_alerts(page, section)
    target = Path(path)
    # Bytes, so that line ends are the same on every system.
    replace_file(target, lambda part: part.write_bytes(text.encode("utf-8")))
    return target


def alert_notes(answer: SecurityAnswer) -> list[str]:
    """Say what the alerts stand for, and how many are right where that is known."""
    figures, unit = answer.figures, unit_of(answer.found)
    if not figures.flagged:
        return [f"No {unit} is flagged, so there is nothing to read."]
    stands = f"{count(figures.listed, 'alert')} for {figures.covered:,} of {count(figures.flagged, f'flagged {unit}')}"
    notes = [f"{stands}, the highest score first. {_alike(answer)}"]
    if figures.precision is not None:
        text = f"Of the alerts whose truth is known, {_percent(figures.precision)} are right"
        if figures.covered_precision is not None:
            text += f", and of all that belong to them {_percent(figures.covered_precision)}"
        most = min(answer.most, len(answer.found))
        one_by_one = f"One by one, {_percent(figures.top_precision)} of the {most:,} highest scores are anomalies."
        notes.append(f"{text}. {one_by_one}")
    return notes


def class_notes(answer: SecurityAnswer) -> list[str]:
    """Say how to read the recall of each class."""
    if answer.false_alarms is None:
        return []
    return [
        f"Flagged: by the rule above, which flags {_percent(answer.false_alarms)} of the normal ones at hand.",
        "At 1 % false alarms: above the threshold that would flag 1 % of the normal ones at hand; it saw the labels.",
    ]


def _alike(answer: SecurityAnswer) -> str:
    """Say what makes two units one alert."""
    if not answer.grouped:
        return "Each flagged one is an alert of its own."
    if answer.found.kind is Kind.LOG:
        return "Sessions are alike when the same events hold half of their scores."
    return (
        "Rows are alike when the same columns hold half of their scores, with the same categories, and numbers off in "
        "the same direction and of the same power of ten; each alert shows the one with the highest score."
    )


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.3g} %"


def _item(answer: SecurityAnswer, alert: Alert) -> AlertItem:
    found = answer.found
    where = position(found, alert.position)
    if answer.names is not None and answer.names[alert.position]:
        where += f", {clip_text(str(answer.names[alert.position]), _LONGEST_CLASS)}"
    parts = [
        Row(told.feature, told.observed, told.expected, told.usual, outside=False, share=100 * told.share)
        for told in alert.differences
    ]
    return AlertItem(
        alert.rank,
        where,
        len(alert.positions),
        number(alert.score),
        probability(alert.p_value),
        top_features(parts),
        parts,
        # Of rows the parts tell all there is; of sessions there are reasons in words.
        alert.why if isinstance(found, LogDetections) else "",
    )
