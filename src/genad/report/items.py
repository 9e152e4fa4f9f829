"""The list of the most anomalous units or events, each with its explanation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from genad.core.log_detections import LogDetections
from genad.data.kinds import Kind
from genad.report.log_view import SessionView, session_facts, session_name, session_view, why_line
from genad.report.pictures import Picture, pictures
from genad.report.wording import clip_text, count, moment, number, probability, unit_of

if TYPE_CHECKING:
    from genad.core.detections import Detections, Event, Part

_UNITS = 20
_EVENTS = 50
_PARTS = 10
_TOP_FEATURES = 3
# A feature with less of the score than this is not worth naming in one line.
_TELLING = 0.05


@dataclass(frozen=True)
class Row:
    """One part of an explanation, written out.

    Attributes
    ----------
    name, observed, expected, normal : str
        The feature, what was found, the nearest normal value, and the normal range; "" where
        there is none.
    outside : bool
        Whether the value found is outside its normal range.
    share : float
        Share of the score in percent.
    """

    name: str
    observed: str
    expected: str
    normal: str
    outside: bool
    share: float


@dataclass(frozen=True)
class Item:
    """One entry of the list.

    Attributes
    ----------
    rank : int
        From 1.
    where : str
        Position, time and entity, as far as known.
    length : str
        Length of an event; "" for a single unit.
    score, p_value : str
        Of the unit, or of the peak of the event.
    features : str
        The most telling features with their shares.
    flagged : bool
        Whether it was flagged.
    parts : list of Row
        The explanation, most telling first.
    rest : str
        What the parts left out amount to; "" when none were.
    peak : str
        The step that is explained; "" for a single unit.
    entity : str
        Entity of an event; "" without.
    span : tuple of (int, int) or None
        Half-open interval of an event, in positions of the series.
    pictures : list of Picture
        Of images, clips and windows.
    session : SessionView or None
        Of a log: the lines, and why in words.
    """

    rank: int
    where: str
    length: str
    score: str
    p_value: str
    features: str
    flagged: bool
    parts: list[Row]
    rest: str
    peak: str = ""
    entity: str = ""
    span: tuple[int, int] | None = None
    pictures: list[Picture] = field(default_factory=list)
    session: SessionView | None = None


def top_items(detections: Detections) -> tuple[list[Item], str, str]:
    """List what to look at first.

    Returns
    -------
    tuple of (list of Item, str, str)
        The 50 events of a series with the highest scores, or the 20 units with the highest
        scores; the heading; and a note on what the list holds.
    """
    if detections.kind is Kind.SERIES:
        events = detections.events()
        if events:
            ranked = sorted(events, key=lambda event: (-event.score, event.start))[:_EVENTS]
            note = "Runs of flagged time steps, highest score first; each is explained at its peak."
            if len(events) > _EVENTS:
                note = f"{note} {_EVENTS} of {count(len(events), 'event')} are listed."
            return (
                [_of_event(detections, event, rank) for rank, event in enumerate(ranked, 1)],
                "Events",
                note,
            )
    if not len(detections):
        return [], "Top anomalies", "There is nothing to list."
    order = detections.top(_UNITS)
    units = count(len(order), unit_of(detections))
    log = isinstance(detections, LogDetections) and detections.sessions is not None
    note = f"The {units} with the highest scores{'' if log else '; positions count from 0'}."
    if not detections.is_anomaly.any():
        note = f"{note} None of them is flagged."
    return (
        [_of_unit(detections, int(i), rank) for rank, i in enumerate(order, 1)],
        "Top anomalies",
        note,
    )


def explainable(detections: Detections) -> bool:
    """Say whether the answer holds what explanations are made of."""
    return detections.maps is not None and detections.expected is not None and detections.observed is not None


def position(detections: Detections, i: int) -> str:
    """Write where a unit is, in the rows of the user's data: ``'row 17'``."""
    if isinstance(detections, LogDetections) and detections.sessions is not None:
        return session_name(detections, i)
    images = getattr(detections, "images", None)
    if images is not None:
        of = "" if images.classes is None else f" ({clip_text(str(images.classes[i]), 30)})"
        return f"{clip_text(str(images.names[i]), 60)}{of}"
    rows = getattr(detections, "rows", None)
    return f"{unit_of(detections)} {int(i if rows is None else rows[i])}"


def _of_unit(detections: Detections, i: int, rank: int) -> Item:
    if isinstance(detections, LogDetections) and detections.sessions is not None:
        return Item(
            rank=rank,
            where=session_name(detections, i) or session_facts(detections, i),
            length="",
            score=number(float(detections.scores[i])),
            p_value=probability(float(detections.p_values[i])),
            features=why_line(detections, i),
            flagged=bool(detections.is_anomaly[i]),
            parts=[],
            rest="",
            session=session_view(detections, i),
        )
    where = [position(detections, i)]
    if detections.time is not None:
        where.append(moment(detections.time[i]))
    if detections.entity is not None:
        where.append(number(detections.entity[i]))
    parts, rest = _parts(detections, i)
    return Item(
        rank=rank,
        where=", ".join(where),
        length="",
        score=number(float(detections.scores[i])),
        p_value=probability(float(detections.p_values[i])),
        features=top_features(parts),
        flagged=bool(detections.is_anomaly[i]),
        parts=parts,
        rest=rest,
        pictures=pictures(detections, i),
    )


def _of_event(detections: Detections, event: Event, rank: int) -> Item:
    parts, rest = _parts(detections, event.peak)
    inside = parts
    if detections.maps is not None:
        # The line names the channels of the whole event, the explanation those of its peak.
        weight = np.nan_to_num(np.asarray(detections.maps[event.start : event.stop], np.float64)).clip(0).sum(0)
        share = 100.0 * weight / max(float(weight.sum()), 1e-300)
        order = np.argsort(-share, kind="stable")[:_TOP_FEATURES]
        inside = [Row(detections.names[j], "", "", "", outside=False, share=float(share[j])) for j in order]
    entity = "" if detections.entity is None else str(event.entity)
    return Item(
        rank=rank,
        where=event_span(detections, event),
        length=count(event.length, "step"),
        score=number(event.score),
        p_value=probability(event.p_value),
        features=top_features(inside),
        flagged=True,
        parts=parts,
        rest=rest,
        peak=_stamp(detections, event.peak),
        entity=entity,
        span=(event.start, event.stop),
    )


def event_span(detections: Detections, event: Event) -> str:
    """Write from when to when an event lasts, both steps included."""
    first, last = _stamp(detections, event.start), _stamp(detections, event.stop - 1)
    if first != last and first.split(" ")[0] == last.split(" ")[0] and detections.time is not None:
        # The same day need not be told twice.
        last = last.split(" ")[-1]
    span = first if first == last else f"{first} – {last}"  # noqa: RUF001 - the dash of a span
    return span if detections.entity is None else f"{clip_text(str(event.entity), 30)}: {span}"


def _stamp(detections: Detections, i: int) -> str:
    if detections.time is not None:
        return moment(detections.time[i])
    rows = getattr(detections, "rows", None)
    return f"{int(i if rows is None else rows[i]):,}"


def _parts(detections: Detections, i: int) -> tuple[list[Row], str]:
    if not explainable(detections):
        return [], ""
    rows = [_row(part) for part in detections.explain(i, parts=_PARTS)]
    if detections.kind is Kind.IMAGE:
        return rows, ""
    total = int(np.prod(np.asarray(detections.maps).shape[1:]))
    left = total - len(rows)
    rest = max(0.0, 100.0 - sum(row.share for row in rows))
    word = "feature" if detections.kind is Kind.TABLE else "channel" if detections.kind is Kind.SERIES else "place"
    return rows, f"{count(left, f'further {word}')}: {rest:.1f} % of the score." if left > 0 else ""


def _row(part: Part) -> Row:
    normal, outside = "", False
    if part.lower is not None and part.upper is not None:
        normal = f"{number(part.lower)} to {number(part.upper)}"
        found = part.observed
        outside = isinstance(found, int | float) and not part.lower <= found <= part.upper
    return Row(part.name, number(part.observed), number(part.expected), normal, outside, 100.0 * part.share)


def top_features(parts: list[Row]) -> str:
    """Name the most telling features with their shares, for one line."""
    telling = [row for row in parts[:_TOP_FEATURES] if row.share >= 100.0 * _TELLING] or parts[:1]
    return ", ".join(f"{clip_text(row.name, 30)} {row.share:.0f} %" for row in telling)
