"""Put a report together: one HTML file that needs nothing but itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genad.core.log_detections import LogDetections
from genad.data.kinds import Kind
from genad.errors import InputTypeError
from genad.report.charts import p_value_figure, score_figure
from genad.report.items import explainable, top_items
from genad.report.log_overview import activity_figure, log_facts, telling_templates
from genad.report.quality import quality, read_truth
from genad.report.timeline import positions_on_axis, timelines
from genad.report.wording import file_name, promise, remarks, subject, training_facts, verdict

if TYPE_CHECKING:
    from datetime import date

    from genad.core.detections import Detections

_ASSETS = Path(__file__).parent / "assets"
_PARTS_NAMES = {Kind.TABLE: "top features", Kind.SERIES: "top channels", Kind.IMAGE: "top regions", Kind.LOG: "why"}


def write_report(
    detections: Detections,
    path: str | Path,
    *,
    detector: Any = None,
    truth: Any = None,
    title: str | None = None,
    date: date | str | None = None,
) -> Path:
    """Write an answer as one self-contained HTML file.

    It needs no network, follows light and dark, and reads on a phone and on paper.

    The same input gives the same bytes. The file appears under its name only when it is whole.

    Parameters
    ----------
    detections : Detections
        What ``detect`` returned.
    path : str or Path
        The file to write; its folder is made when missing.
    detector : Detector, optional
        The fitted detector; adds its paper and the scores it was calibrated on.
    truth : array-like of shape (n,), optional
        Labels in the order of the data, 1 anomaly, 0 normal, -1 unlabelled; adds figures of merit.
    title : str, optional
        Heading of the page.
    date : date or str, optional
        Shown in the footer.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        When ``truth`` does not fit the data.
    InputTypeError
        When ``detections`` are no Detections.
    GenadError
        When the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from genad import Detections, Kind
    >>> from genad.core.calibration import FittedThreshold
    >>> scores = np.arange(10.0)
    >>> fixed = FittedThreshold(8.0, "FixedValue", "Flags scores above 8.", n=0)
    >>> found = Detections(scores, 1 - scores / 10, scores > 8, fixed, Kind.TABLE)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_report(found, f"{folder}/report.html").read_text(encoding="utf-8")
    >>> "1 of 10 rows flagged" in page
    True
    """
    from genad.files import replace_file

    text = render(detections, detector=detector, truth=truth, title=title, date=date)
    target = Path(path)
    # Bytes, so that line ends are the same on every system.
    replace_file(target, lambda part: part.write_bytes(text.encode("utf-8")))
    return target


def render(
    detections: Detections,
    *,
    detector: Any = None,
    truth: Any = None,
    title: str | None = None,
    date: date | str | None = None,
) -> str:
    """Return the page that :func:`write_report` writes; see there for the parameters."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    from genad import __version__
    from genad.core.detections import Detections

    if not isinstance(detections, Detections):
        kind = type(detections).__name__
        raise InputTypeError(f"detections: a {kind} was given; pass what detect() returned.")
    labels = None if truth is None else read_truth(detections, truth)
    series = detections.kind is Kind.SERIES and len(detections) > 0
    drawable = series and isinstance(detections.observed, dict)
    curves, curve_notes = timelines(detections, None if labels is None else labels == 1) if drawable else ([], [])
    items, heading, note = top_items(detections)
    calibration = getattr(detector, "calibration_scores_", None)
    figures = {}
    if len(detections) and np.isfinite(detections.scores).any():
        figures["scores"] = _embed(score_figure(detections, calibration))
        figures["p-values"] = _embed(p_value_figure(detections))
    log = detections if isinstance(detections, LogDetections) and detections.sessions is not None else None
    activity = None if log is None or not len(log) else activity_figure(log)
    if activity is not None:
        figures["activity"] = _embed(activity)
    environment = Environment(
        loader=FileSystemLoader(_ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def asset(name: str) -> Markup:
        # These are the package's own files, never the user's text.
        return Markup((_ASSETS / name).read_text(encoding="utf-8"))  # noqa: S704

    template = environment.get_template("report.html.j2")
    return template.render(
        title=title or "Anomaly report",
        file=file_name(detections),
        subject=subject(detections),
        kind=detections.kind.value,
        verdict=verdict(detections),
        any_flagged=bool(detections.is_anomaly.any()),
        promise=promise(detections),
        remarks=remarks(detections),
        facts=training_facts(detections, detector),
        figures=figures,
        timelines=[
            {"label": t.label, "figure": _embed(t.figure), "height": t.height, "notes": t.notes} for t in curves
        ],
        timeline_notes=curve_notes,
        start=_first_shown([t.label for t in curves], items),
        log=None if log is None or not len(log) else {"facts": log_facts(log), "templates": telling_templates(log)},
        heading=heading,
        note=note,
        items=items,
        axis_spans=_axis_spans(detections, items) if drawable else {},
        drawn={t.label for t in curves},
        explainable=explainable(detections),
        parts_name=_PARTS_NAMES.get(detections.kind, "top places"),
        quality=None if labels is None else quality(detections, labels),
        version=__version__,
        date=None if date is None else str(date),
        css=asset("report.css"),
        script=asset("report.js"),
        plotly=Markup(get_plotlyjs()),  # noqa: S704 - plotly's own file
    )


def _first_shown(labels: list[str], items: list[Any]) -> int:
    """Return which entity to show first: the one of the first item, when it is drawn."""
    return labels.index(items[0].entity) if items and items[0].entity in labels else 0


def _embed(figure: Any) -> Any:
    """Return a figure as JSON that cannot end the script element it stands in."""
    from markupsafe import Markup

    text = figure.to_json()
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)  # noqa: S704 - escaped above


def _axis_spans(detections: Detections, items: list[Any]) -> dict[int, str]:
    """Return where each event lies on its entity's horizontal axis, with some room around it."""
    axes: dict[str, tuple[Any, Any]] = {}
    spans = {}
    for item in items:
        if item.span is None:
            continue
        start, stop = item.span
        if item.entity not in axes:
            rows = np.arange(len(detections))
            if detections.entity is not None:
                rows = np.flatnonzero(detections.entity == detections.entity[start])
            axes[item.entity] = rows, positions_on_axis(detections, rows)[0]
        rows, x = axes[item.entity]
        first, last = np.searchsorted(rows, (start, stop - 1))
        room = max(20, 2 * (stop - start))
        ends = [float(x[max(0, first - room)]), float(x[min(len(x) - 1, last + room)])]
        spans[item.rank] = json.dumps(ends)
    return spans
