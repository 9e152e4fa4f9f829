"""What a report says of a whole log: what was read, which templates are new, and how sessions come over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from genad.core.log_detections import LogDetections
from genad.report.charts import axis, style
from genad.report.wording import clip_text, count, stretch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_TEMPLATES = 15
_BINS = 60


@dataclass(frozen=True)
class TemplateRow:
    """One template of the report's table.

    Attributes
    ----------
    text : str
    times, sessions, flagged : int
        How often it occurs, in how many sessions, and in how many flagged ones.
    first : str
        Number of the line where it occurs first.
    """

    text: str
    times: int
    sessions: int
    flagged: int
    first: str


def log_facts(found: LogDetections) -> list[tuple[str, str]]:
    """List what was read, as pairs of a label and a text."""
    read = found.sessions
    assert read is not None  # noqa: S101 - the callers show sessions
    lengths = read.lengths
    sizes = f"{lengths.min():,}" if lengths.min() == lengths.max() else f"{lengths.min():,} to {lengths.max():,}"
    each = "each line by itself" if int(lengths.max()) == 1 else f"of {sizes} events each"
    unseen = 0 if found.unseen is None else int(found.unseen.sum())
    used = len(np.unique(read.events))
    facts = []
    if read.log is not None:
        facts += [("Lines", f"{len(read.log):,} messages"), ("Layout", read.log.layout)]
    facts += [
        (
            "Templates",
            f"{used:,} different events" + (f"; {unseen:,} of all events were never learnt" if unseen else ""),
        ),
        ("Sessions", f"{len(read):,}, {each}"),
    ]
    spans = found.spans()
    if spans is not None:
        facts.append(("Time", stretch(np.fmin.reduce(spans[0]), np.fmax.reduce(spans[1]))))
    if found.status:
        states = {state: found.status.count(state) for state in dict.fromkeys(found.status)}
        said = ", ".join(f"{n:,} {_STATES.get(state, state)}" for state, n in states.items() if state)
        facts.append(("Model's answers", said))
    # The layout has a line of its own.
    facts += [("Note", note) for note in dict.fromkeys(read.notes) if not note.startswith("layout: ")]
    return facts


_STATES = {
    "ok": "read at once",
    "repaired": "repaired",
    "retried": "asked again",
    "fallback": "by a plainer question",
    "abstained": "without a usable answer (typical score of a normal one)",
    "unasked": "not asked, since the budget was spent (typical score of a normal one)",
}


def telling_templates(found: LogDetections) -> tuple[str, str, list[TemplateRow]]:
    """List the templates never learnt, most frequent first; without any, those that flagged sessions have more often.

    Returns
    -------
    tuple of (str, str, list of TemplateRow)
        Heading, note, and rows; no rows when nothing is telling.
    """
    read = found.sessions
    assert read is not None  # noqa: S101 - the callers show sessions
    assert found.unseen is not None  # noqa: S101 - made with the sessions
    owner = np.repeat(np.arange(len(read)), read.lengths)
    new = np.unique(read.events[found.unseen])
    if len(new):
        times = np.bincount(read.events[found.unseen], minlength=len(read.vocabulary))
        order = new[np.argsort(-times[new], kind="stable")]
        note = f"{count(len(new), 'template')} that the log learnt from does not have, the most frequent first."
        return "New templates", note, _rows(found, order[:_TEMPLATES], owner)
    flagged = found.is_anomaly
    if not flagged.any() or flagged.all():
        return "", "", []
    pairs = np.unique(owner.astype(np.int64) * len(read.vocabulary) + read.events)
    sessions, held = pairs // len(read.vocabulary), pairs % len(read.vocabulary)
    inside = np.bincount(held[flagged[sessions]], minlength=len(read.vocabulary))
    every = np.bincount(held, minlength=len(read.vocabulary))
    # How many times as often as chance would have it, with one session more so that single ones do not win by chance.
    lift = (inside / flagged.sum()) / ((every + 1) / len(read))
    ranked = np.argsort(-lift * np.sqrt(inside), kind="stable")
    chosen = [event for event in ranked.tolist() if inside[event] and lift[event] > 2.0][:_TEMPLATES]
    note = "Templates that flagged sessions have more than twice as often as all sessions do, the most telling first."
    return "Templates of the flagged sessions", note, _rows(found, chosen, owner)


def _rows(found: LogDetections, events: Iterable[int], owner: NDArray[np.int64]) -> list[TemplateRow]:
    read = found.sessions
    assert read is not None  # noqa: S101 - the callers show sessions
    rows = []
    for event in events:
        places = np.flatnonzero(read.events == event)
        owners = np.unique(owner[places])
        first = "" if read.log is None or read.rows is None else f"{int(read.log.line[read.rows[places]].min()):,}"
        # A record in several sessions occurs once.
        times = len(places) if read.rows is None else len(np.unique(read.rows[places]))
        rows.append(
            TemplateRow(
                clip_text(read.vocabulary[event], 300), times, len(owners), int(found.is_anomaly[owners].sum()), first
            )
        )
    return rows


def activity_figure(found: LogDetections) -> Any:
    """Draw how many sessions begin over time, or over the log where it has no times, and how many of them are flagged.

    Returns
    -------
    plotly.graph_objects.Figure or None
        None for fewer than two sessions.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    spans, numbers = found.spans(), found.line_numbers()
    dated = spans is not None
    starts: NDArray[Any] = np.arange(len(found), dtype=np.float64)
    word = "session"
    if spans is not None:
        starts = np.where(np.isnat(spans[0]), np.nan, spans[0].astype("datetime64[ms]").astype(np.float64))
        word = "time"
    elif numbers is not None:
        starts, word = numbers[0].astype(np.float64), "line"
    known = np.isfinite(starts)
    if known.sum() < 2 or np.ptp(starts[known]) == 0:
        return None
    edges = np.linspace(starts[known].min(), starts[known].max(), min(_BINS, max(8, int(known.sum()) // 4)) + 1)
    edges[-1] = np.nextafter(edges[-1], np.inf)
    middles = (edges[1:] + edges[:-1]) / 2
    every = np.histogram(starts[known], edges)[0]
    flagged = np.histogram(starts[known & found.is_anomaly], edges)[0]
    x: Any = middles
    if dated:
        x = middles.astype(np.int64).astype("datetime64[ms]").astype(str).tolist()
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.2, row_heights=[0.5, 0.5])
    figure.update_layout(
        style(
            bargap=0.08,
            hovermode="x unified",
            showlegend=False,
            legend={"yref": "paper"},
            margin={"l": 8, "r": 8, "t": 30, "b": 8},
        )
    )
    width = float(edges[1] - edges[0])
    for row, heights, name, colour in (
        (1, flagged, "flagged sessions", "var(--flag)"),
        (2, every, "all sessions", "var(--plain)"),
    ):
        figure.add_trace(
            go.Bar(
                x=x,
                y=heights,
                width=width,
                name=name,
                marker={"color": colour, "line": {"width": 0}},
                hovertemplate="%{y:,} " + name + "<extra></extra>",
            ),
            row=row,
            col=1,
        )
        at = {"xref": "x domain", "yref": f"y{'' if row == 1 else row} domain", "x": 0, "y": 1}
        figure.add_annotation(
            text=name, xanchor="left", yanchor="bottom", showarrow=False, yshift=2, font={"color": "var(--text)"}, **at
        )
    figure.update_xaxes(axis(type="date" if dated else "linear"))
    figure.update_xaxes(title={"font": {"size": 13}, "text": "" if dated else f"{word} of the log"}, row=2, col=1)
    figure.update_yaxes(axis(rangemode="tozero", nticks=4, tickformat=",d"))
    for row, heights in ((1, flagged), (2, every)):
        if heights.max() < 4:  # few ticks would fall between whole numbers, and be rounded to the same ones
            figure.update_yaxes(dtick=1, row=row, col=1)
    return figure
