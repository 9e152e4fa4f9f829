"""The two distributions of a report: scores, and p-values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from genad.core.calibration.fitted import plural
from genad.report.wording import number, unit_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from genad.core.detections import Detections

    Floats = NDArray[np.float64]

_BINS = 60
# Scores spread over more than this factor of their median are drawn on a logarithmic axis.
_WIDE = 30.0
# Bars whose heights differ by more than this factor are drawn on a logarithmic axis.
_STEEP = 20.0


def style(**more: Any) -> dict[str, Any]:
    """Return the layout every figure shares, with ``more`` on top.

    Colours are names of the page's CSS properties; the page's script puts in their values, so
    that figures follow the theme.
    """
    layout: dict[str, Any] = {
        "template": {},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "var(--muted)"},
        "margin": {"l": 8, "r": 8, "t": 40, "b": 8},
        "modebar": {
            "bgcolor": "rgba(0,0,0,0)",
            "color": "var(--muted)",
            "activecolor": "var(--accent)",
        },
        "legend": {
            "traceorder": "normal",
            "orientation": "h",
            "x": 0,
            "y": 1,
            "yref": "container",
            "xanchor": "left",
            "yanchor": "top",
        },
        "hoverlabel": {
            "bgcolor": "var(--card)",
            "bordercolor": "var(--line)",
            "font": {"color": "var(--text)"},
        },
        "dragmode": "zoom",
    }
    return layout | more


def axis(**more: Any) -> dict[str, Any]:
    """Return the look of one axis, with ``more`` on top."""
    look: dict[str, Any] = {
        "automargin": True,
        "gridcolor": "var(--line)",
        "linecolor": "var(--line)",
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": "var(--line)",
        "ticklen": 4,
    }
    return look | more


def flag_line(detections: Detections) -> tuple[float, str] | None:
    """Return the score above which units are flagged and its name; None without such a line."""
    if detections.fdr is None:
        value = float(detections.threshold.value)
        return (value, f"threshold {number(value)}") if np.isfinite(value) else None
    if not detections.is_anomaly.any():
        return None
    value = float(detections.scores[detections.is_anomaly].min())
    return value, f"lowest flagged score {number(value)}"


def score_edges(scores: Floats, line: float | None, bins: int = _BINS) -> tuple[Floats, bool]:
    """Choose the edges of a histogram of scores so that no bar straddles the threshold.

    Parameters
    ----------
    scores : array of float
        Finite scores.
    line : float or None
        The threshold.
    bins : int
        About how many bars.

    Returns
    -------
    tuple of (array of float, bool)
        Ascending edges, and whether they are spaced logarithmically.

    Examples
    --------
    >>> import numpy as np
    >>> edges, logarithmic = score_edges(np.linspace(0.0, 1.0, 11), line=0.5, bins=4)
    >>> edges.tolist(), logarithmic
    ([0.0, 0.25, 0.5, 0.75, 1.0, 1.25], False)
    """
    low, high = float(scores.min()), float(scores.max())
    wide = low > 0 and high > _WIDE * float(np.median(scores))
    if wide:
        low, high = np.log10(low), np.log10(high)
    if high <= low:
        return np.array([low - 0.5, low + 0.5]), False
    step = (high - low) / bins
    anchor = low
    if line is not None and (line > 0 or not wide):
        at = float(np.log10(line)) if wide else line
        anchor = at if low <= at <= high else low
    first = int(np.ceil((anchor - low) / step - 1e-9))
    # One step beyond the highest score, so that it lies inside the last bar.
    last = int(np.floor((high - anchor) / step + 1e-9)) + 1
    edges = anchor + step * np.arange(-first, last + 1)
    return np.asarray(10.0**edges if wide else edges, np.float64), wide


def score_figure(detections: Detections, calibration: Floats | None = None) -> Any:
    """Draw the distribution of scores, flagged ones apart, over that of the calibration scores.

    Parameters
    ----------
    detections : Detections
        At least one unit.
    calibration : array of float, optional
        Scores of held-out normal units.

    Returns
    -------
    plotly.graph_objects.Figure
    """
    import plotly.graph_objects as go

    finite = np.isfinite(detections.scores)
    scores, flags = detections.scores[finite], detections.is_anomaly[finite]
    known = np.empty(0) if calibration is None else np.asarray(calibration, np.float64)
    known = known[np.isfinite(known)]
    line = flag_line(detections)
    units = plural(unit_of(detections))
    edges, wide = score_edges(np.concatenate([scores, known]), None if line is None else line[0])
    figure = go.Figure(layout=style(barmode="stack", bargap=0.04, hovermode="x"))
    middles = np.sqrt(edges[1:] * edges[:-1]) if wide else (edges[1:] + edges[:-1]) / 2
    shares = []
    for chosen, name, colour in (
        (~flags, "not flagged", "var(--plain)"),
        (flags, "flagged", "var(--flag)"),
    ):
        heights = np.histogram(scores[chosen], edges)[0]
        shares.append(100.0 * heights / max(1, len(scores)))
        figure.add_bar(
            x=middles,
            y=np.where(shares[-1] > 0, shares[-1], np.nan),
            width=np.diff(edges),
            name=name,
            marker={"color": colour, "line": {"width": 0}},
            customdata=heights,
            hovertemplate="score %{x:.4g}: %{customdata:,} " + units + " (%{y:.3g} %)",
        )
    if len(known):
        heights = 100.0 * np.histogram(known, edges)[0] / len(known)
        figure.add_scatter(
            x=middles,
            y=np.where(heights > 0, heights, np.nan),
            name="held-out normals",
            mode="lines",
            line={"shape": "hvh", "width": 2, "color": "var(--accent)"},
            hovertemplate="score %{x:.4g}: %{y:.3g} % of calibration scores",
        )
        shares.append(heights)
    tops = np.concatenate(shares)
    tops = tops[tops > 0]
    steep = len(tops) > 0 and tops.max() > _STEEP * np.median(tops)
    if line is not None and (line[0] > 0 or not wide):
        figure.add_vline(x=line[0], line={"color": "var(--text)", "width": 1.5, "dash": "dash"})
        at = np.log10(line[0]) if wide else line[0]
        ends = np.log10(edges[[0, -1]]) if wide else edges[[0, -1]]
        left = at < ends.mean()
        figure.add_annotation(
            x=at,
            y=1,
            yref="paper",
            yanchor="top",
            xanchor="left" if left else "right",
            showarrow=False,
            xshift=5 if left else -5,
            text=line[1],
            font={"color": "var(--text)"},
            bgcolor="var(--card)",
        )
    figure.update_xaxes(
        axis(
            title={"font": {"size": 13}, "text": "anomaly score (method's own scale)"},
            type="log" if wide else "linear",
        )
    )
    figure.update_yaxes(
        axis(
            title={"font": {"size": 13}, "text": f"share of {units}, %"},
            type="log" if steep else "linear",
        )
    )
    if wide:
        figure.update_xaxes(dtick=1, tickformat="~g")
    if steep:
        figure.update_yaxes(dtick=1, tickformat="~g")
    return figure


def p_value_figure(detections: Detections) -> Any:
    """Draw the distribution of p-values against the flat one that normal data would give.

    Returns
    -------
    plotly.graph_objects.Figure
    """
    import plotly.graph_objects as go

    # n calibration scores allow n + 1 p-values; more bars than that would leave teeth.
    floor = detections.threshold.attainable
    bins = 20 if floor is None else int(np.clip(round(1.0 / floor), 2, 20))
    edges = np.linspace(0.0, 1.0, bins + 1)
    # p-values lie on the upper ends of their steps, so bars take their right edge.
    heights = np.histogram(-detections.p_values, -edges[::-1])[0][::-1]
    shares = 100.0 * heights / max(1, len(detections))
    units = plural(unit_of(detections))
    figure = go.Figure(layout=style(bargap=0.04, hovermode="x"))
    figure.add_bar(
        x=(edges[1:] + edges[:-1]) / 2,
        y=shares,
        width=np.diff(edges),
        name=units,
        marker={"color": "var(--plain)", "line": {"width": 0}},
        customdata=heights,
        hovertemplate="p-value %{x:.3g}: %{customdata:,} " + units + " (%{y:.3g} %)",
    )
    figure.add_scatter(
        x=[0.0, 1.0],
        y=[100.0 / bins] * 2,
        mode="lines",
        name="if all were normal",
        line={"color": "var(--accent)", "width": 2, "dash": "dash"},
        hovertemplate="%{y:.3g} % in each bar",
    )
    figure.update_xaxes(axis(title={"font": {"size": 13}, "text": "p-value"}, range=[0, 1]))
    figure.update_yaxes(axis(title={"font": {"size": 13}, "text": f"share of {units}, %"}, rangemode="tozero"))
    return figure
