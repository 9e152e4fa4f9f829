"""The curves of a series: what was found, what was expected, the score, and where events are."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from genad.core.detections import merge_runs
from genad.report.charts import axis, flag_line, style
from genad.report.downsample import keep_extremes
from genad.report.wording import clip_text, count

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from genad.core.detections import Detections

_CHANNELS = 6
_ENTITIES = 24
# Points of a curve over all entities; with six channels a file stays at a few megabytes.
_BUCKETS = 1500
_FEWEST_BUCKETS = 100
_SHADES = 250
_PIXELS = 1000
# Pixels: a plot, the space between plots, what stands around them, and the range slider.
_ROW, _GAP, _FRAME, _SLIDER = 130, 34, 130, 60
_LOG_SCORE = 50.0


@dataclass(frozen=True)
class Timeline:
    """The figure of one entity of a series, or of the whole series.

    Attributes
    ----------
    label : str
        The entity, empty for a series without.
    figure : plotly.graph_objects.Figure
        Channels above each other and the score below, over one axis.
    height : int
        In pixels.
    notes : list of str
        What was left out or joined for drawing.
    """

    label: str
    figure: Any
    height: int
    notes: list[str]


def timelines(detections: Detections, truth: NDArray[np.bool_] | None = None) -> tuple[list[Timeline], list[str]]:
    """Draw a series, entity by entity.

    Parameters
    ----------
    detections : Detections
        Of a series.
    truth : array of bool, optional
        Labels in the order of ``detections``, drawn along the score.

    Returns
    -------
    tuple of (list of Timeline, list of str)
        The entities with the highest scores, in the order of the data, and what was left out.
    """
    if detections.entity is None:
        whole = np.arange(len(detections))
        return [_timeline(detections, whole, "", truth, _BUCKETS)], []
    labels, first, codes = np.unique(detections.entity.astype(str), return_index=True, return_inverse=True)
    peaks = np.full(len(labels), -np.inf)
    np.maximum.at(peaks, codes, detections.scores)
    flagged = np.bincount(codes, detections.is_anomaly, len(labels)) > 0
    shown = np.lexsort((-peaks, ~flagged))[:_ENTITIES]
    shown = shown[np.argsort(first[shown])]
    buckets = max(_FEWEST_BUCKETS, _BUCKETS // len(shown))
    found = [_timeline(detections, np.flatnonzero(codes == k), str(labels[k]), truth, buckets) for k in shown]
    left_out = len(labels) - len(shown)
    notes = [f"{len(shown)} of {len(labels):,} entities are drawn: those with the highest scores."] if left_out else []
    return found, notes


def telling_channels(detections: Detections, rows: NDArray[np.intp], most: int = _CHANNELS) -> list[int]:
    """Return the channels that carry most of the score, the most telling first.

    Flagged steps count; all steps when none is flagged.
    """
    n = len(detections.names)
    if detections.maps is None:
        return list(range(min(n, most)))
    flagged = rows[detections.is_anomaly[rows]]
    weight = np.nansum(detections.maps[flagged if len(flagged) else rows], axis=0)
    return [int(channel) for channel in np.argsort(-weight, kind="stable")[:most]]


def positions_on_axis(detections: Detections, rows: NDArray[np.intp]) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Return where steps stand on the horizontal axis, and the look of the axis.

    Time stamps where there are any, otherwise positions in the user's data.
    """
    time = None if detections.time is None else np.asarray(detections.time)[rows]
    if time is not None and time.dtype.kind == "M":
        return time.astype("datetime64[us]").astype(np.int64) / 1000.0, {"type": "date"}
    if time is not None and time.dtype.kind in "iuf":
        return time.astype(np.float64), {
            "type": "linear",
            "title": _title("time"),
        }
    given = getattr(detections, "rows", None)
    places = (rows if given is None else np.asarray(given)[rows]).astype(np.float64)
    name = "time step" if detections.entity is None else "row of the data"
    return places, {"type": "linear", "title": _title(name)}


def _title(text: str) -> dict[str, Any]:
    return {"text": text, "font": {"size": 13}}


def _timeline(
    detections: Detections,
    rows: NDArray[np.intp],
    label: str,
    truth: NDArray[np.bool_] | None,
    buckets: int,
) -> Timeline:
    from plotly.subplots import make_subplots

    channels = telling_channels(detections, rows)
    x, x_axis = positions_on_axis(detections, rows)
    spans = merge_runs(detections.is_anomaly[rows])
    plots = len(channels) + 1
    plot_height = plots * _ROW + (plots - 1) * _GAP
    figure = make_subplots(rows=plots, cols=1, shared_xaxes=True, vertical_spacing=_GAP / plot_height)
    figure.update_layout(style(hovermode="x", margin={"l": 8, "r": 12, "t": 52, "b": 44 if "title" in x_axis else 8}))
    figure.update_layout(legend={"y": 1.0 + 22 / plot_height, "yref": "paper", "yanchor": "bottom"})
    for place, channel in enumerate(channels, 1):
        _add_channel(figure, place, detections, channel, rows, x, spans, buckets)
    _add_score(figure, plots, detections, rows, x, spans, buckets)
    notes = _shade(figure, plots, detections, rows, x, None if truth is None else truth[rows])
    figure.update_xaxes(axis(**{k: v for k, v in x_axis.items() if k == "type"}))
    figure.update_xaxes(row=plots, col=1, **x_axis)
    figure.update_xaxes(
        row=plots,
        col=1,
        rangeslider={
            "visible": True,
            "thickness": _SLIDER / plot_height,
            "bgcolor": "var(--page)",
            "bordercolor": "var(--line)",
            "borderwidth": 1,
        },
    )
    figure.update_yaxes(axis(nticks=5))
    if len(channels) < len(detections.names):
        notes.insert(0, f"{len(channels)} of {len(detections.names):,} channels are drawn: the most telling.")
    if len(rows) > 2 * buckets:
        notes.append(
            f"{count(len(rows), 'step')} are thinned out for drawing; each stretch keeps its "
            "lowest and highest value, and so does every event."
        )
    return Timeline(label, figure, plot_height + _FRAME + _SLIDER, notes)


def _values(columns: Any, name: str, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    return np.asarray(columns[name])[rows].astype(np.float64)


def _add_channel(
    figure: Any,
    place: int,
    detections: Detections,
    channel: int,
    rows: NDArray[np.intp],
    x: NDArray[np.float64],
    spans: list[tuple[int, int]],
    buckets: int,
) -> None:
    name = detections.names[channel]
    observed = _values(detections.observed, name, rows)
    curves = [observed]
    if detections.expected is not None:
        curves.append(_values(detections.expected, name, rows))
    kept = keep_extremes(curves, buckets, spans)
    at = {"row": place, "col": 1}
    shared = {"x": x[kept], "mode": "lines"}
    first = place == 1
    if len(curves) > 1:
        expected = curves[1][kept]
        half = np.nan if detections.bounds is None else float(detections.bounds[channel])
        if np.isfinite(half):
            edge = {"width": 0, "color": "var(--band)"}
            band = shared | {
                "line": edge,
                "hoverinfo": "skip",
                "legendgroup": "band",
                "name": "normal range",
            }
            figure.add_scatter(y=_short(expected - half), showlegend=False, **band, **at)
            figure.add_scatter(
                y=_short(expected + half),
                fill="tonexty",
                fillcolor="var(--band)",
                showlegend=first,
                **band,
                **at,
            )
        line = {"color": "var(--expected)", "width": 1.3, "dash": "dot"}
        figure.add_scatter(
            y=_short(expected),
            line=line,
            name="expected",
            legendgroup="expected",
            showlegend=first,
            hovertemplate="%{y:.4g}",
            **shared,
            **at,
        )
    figure.add_scatter(
        y=_short(observed[kept]),
        line={"color": "var(--accent)", "width": 1.5},
        name="observed",
        legendgroup="observed",
        showlegend=first,
        hovertemplate="%{y:.4g}",
        **shared,
        **at,
    )
    _head(figure, place, escape(clip_text(name, 40)))


def _add_score(
    figure: Any,
    place: int,
    detections: Detections,
    rows: NDArray[np.intp],
    x: NDArray[np.float64],
    spans: list[tuple[int, int]],
    buckets: int,
) -> None:
    scores = detections.scores[rows]
    kept = keep_extremes([scores], buckets, spans)
    at = {"row": place, "col": 1}
    figure.add_scatter(
        x=x[kept],
        y=_short(scores[kept]),
        mode="lines",
        line={"color": "var(--muted)", "width": 1.2},
        name="score",
        showlegend=False,
        hovertemplate="%{y:.4g}",
        **at,
    )
    line = flag_line(detections)
    if line is not None and len(x):
        figure.add_scatter(
            x=x[[0, -1]],
            y=[line[0]] * 2,
            mode="lines",
            name=line[1],
            showlegend=False,
            hoverinfo="skip",
            line={"color": "var(--flag)", "width": 1.3, "dash": "dash"},
            **at,
        )
    positive = scores[scores > 0]
    if len(positive) == len(scores) > 0 and scores.max() > _LOG_SCORE * np.median(scores):
        figure.update_yaxes(type="log", row=place, col=1)
    _head(figure, place, "<b>score</b>" + (f", {line[1]} dashed" if line is not None else ""))


def _shade(
    figure: Any,
    plots: int,
    detections: Detections,
    rows: NDArray[np.intp],
    x: NDArray[np.float64],
    truth: NDArray[np.bool_] | None,
) -> list[str]:
    """Shade events over all plots, and mark labelled steps along the foot of the score."""
    notes = []
    margin = float(np.median(np.diff(x))) / 2 if len(x) > 1 else 0.5

    def block(start: int, stop: int) -> dict[str, Any]:
        ends = {"x0": float(x[start] - margin), "x1": float(x[stop - 1] + margin)}
        return {"type": "rect", "xref": "x", **ends}

    spans = merge_runs(detections.is_anomaly[rows])
    scores = detections.scores[rows]
    if len(spans) > _SHADES:
        # A shade is at least a pixel wide: more of them would cover the axis and say nothing.
        notes.append(f"The {_SHADES} highest of {count(len(spans), 'event')} are shaded.")
        spans = sorted(spans, key=lambda span: (-scores[slice(*span)].max(), span))[:_SHADES]
    shade = {"yref": "paper", "y0": 0, "y1": 1, "layer": "below", "fillcolor": "var(--shade)"}
    edge = {"width": 1, "color": "var(--shade)"}
    shapes = [block(*span) | shade | {"line": edge} for span in spans]
    if truth is not None and truth.any():
        foot = {"yref": f"y{plots} domain", "y0": 0, "y1": 0.07, "fillcolor": "var(--label)"}
        # Labels closer than a pixel are drawn as one.
        labelled = merge_runs(truth, gap=len(x) // _PIXELS)
        shapes += [block(*span) | foot | {"line": {"width": 0}} for span in labelled]
        notes.append("The bar along the foot of the score marks the steps that your labels call anomalous.")
    figure.update_layout(shapes=shapes)
    return notes


def _head(figure: Any, place: int, text: str) -> None:
    """Write the name of a plot above it, where it takes no width from the curve."""
    suffix = "" if place == 1 else str(place)
    figure.add_annotation(
        text=text,
        xref=f"x{suffix} domain",
        yref=f"y{suffix} domain",
        x=0,
        y=1,
        xanchor="left",
        yanchor="bottom",
        showarrow=False,
        yshift=2,
        font={"color": "var(--text)", "size": 13},
    )


def _short(values: NDArray[np.float64]) -> NDArray[np.floating]:
    """Return values in single precision, unless that would lose their differences."""
    finite = values[np.isfinite(values)]
    largest, spread = (np.abs(finite).max(), np.ptp(finite)) if len(finite) else (0.0, 0.0)
    return values.astype(np.float32) if largest < 1e30 and spread > 1e-4 * largest else values
