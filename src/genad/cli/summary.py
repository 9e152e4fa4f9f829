"""What `genad detect` and `genad fit` say at the end, for people and for programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from genad.applications.data import Data
    from genad.cli.jobs import Request
    from genad.core.detections import Detections, Explanation, Part
    from genad.core.detector import Detector

_TOP = 5
_LOOK_AT = 3
_EVENTS = 20


def data_facts(path: str, data: Data) -> dict[str, Any]:
    """Return what was read: rows, columns, missing cells, kind and why."""
    from genad.cli.log_facts import log_data_facts
    from genad.data.image import Images
    from genad.data.log import Sessions
    from genad.data.series import Series

    X = data.X
    if isinstance(X, Sessions):
        return log_data_facts(path, data)
    if isinstance(X, Images):
        return _image_facts(path, data)
    if isinstance(X, Series):
        columns, missing = X.n_channels, int(np.isnan(X.values).sum())
    else:
        columns = len(X.names)
        missing = sum(info.n_missing for info in X.describe().values())
    facts: dict[str, Any] = {
        "path": "standard input" if path == "-" else path,
        "rows": len(data),
        "columns": columns,
        "missing_cells": missing,
        "kind": data.kind.value,
        "why": data.why,
    }
    if isinstance(X, Series) and X.entity is not None:
        facts["entities"] = len(np.unique(X.entity))
    if data.labels is not None:
        facts["labelled"] = {
            "anomalies": int((data.labels == 1).sum()),
            "normal": int((data.labels == 0).sum()),
        }
    return facts


def _image_facts(path: str, data: Data) -> dict[str, Any]:
    """Return what was read: images, their size, classes, kind and why."""
    channels, rows, columns = data.X.shape
    facts: dict[str, Any] = {
        "path": path,
        "images": len(data),
        "working_size": [rows, columns],
        "channels": channels,
        "pixels": str(data.X.pixels.dtype),
        "kind": data.kind.value,
        "why": data.why,
    }
    if data.labels is not None:
        facts["labelled"] = {"anomalies": int((data.labels == 1).sum()), "normal": int((data.labels == 0).sum())}
    if data.X.classes is not None:
        facts["classes"] = {name: data.X.classes.count(name) for name in sorted(set(data.X.classes))}
    return facts


def detector_facts(detector: Detector, request: Request) -> dict[str, Any]:
    """Return which detector was chosen and why, and what its threshold promises."""
    from genad.core.detections import jsonable

    about = detector.describe()
    inner = getattr(detector, "detector", None)
    name = inner.name if inner is not None else about["detector"]
    chosen = request.why or ("asked for" if request.method else f"the default for a {about['kind']}")
    facts = {
        "name": name,
        "title": (inner or detector).card.title,
        "why": chosen,
        "updates": about["updates"],
        "network_parameters": about["network_parameters"],
        "training_samples": about["training_samples"],
        "calibration_units": about["calibration_units"],
        "device": about["device"],
    }
    if inner is not None:
        facts["windows_of"] = int(detector.adapter_.length)  # type: ignore[attr-defined]
    threshold = detector.threshold_
    return {
        "detector": facts,
        "threshold": {
            "value": jsonable(threshold.value),
            "rule": threshold.rule,
            "promise": threshold.promise,
        },
    }


def answer_facts(found: Detections) -> dict[str, Any]:
    """Return how much was flagged, the highest scores with their main feature, and the events."""
    from genad.cli.log_facts import log_answer_facts
    from genad.core.log_detections import LogDetections

    flagged = int(found.is_anomaly.sum())
    facts: dict[str, Any] = {
        "fdr": found.fdr,
        "flagged": flagged,
        "flagged_share": flagged / len(found),
    }
    if isinstance(found, LogDetections):
        return facts | log_answer_facts(found, _TOP, _EVENTS)
    facts["top"] = [_unit(found, int(i)) for i in found.top(_TOP)]
    if found.kind == "series":
        events = sorted(found.events(), key=lambda event: -event.score)
        facts["event_count"] = len(events)
        facts["events"] = [
            {
                "first_row": _row(found, event.start),
                "last_row": _row(found, event.stop - 1),
                "start_time": event.start_time,
                "stop_time": event.stop_time,
                "entity": event.entity,
                "peak": _unit(found, event.peak),
            }
            for event in events[:_EVENTS]
        ]
    return facts


def _row(found: Detections, position: int) -> int:
    return position if found.rows is None else int(found.rows[position])


def _unit(found: Detections, position: int) -> dict[str, Any]:
    part = found.explain(position, parts=1).parts[0]
    name = position_name(found, position)
    facts = {
        **({"row": _row(found, position)} if name is None else {"image": name}),
        "score": float(found.scores[position]),
        "p_value": float(found.p_values[position]),
        "flagged": bool(found.is_anomaly[position]),
        "feature": part.name,
        "observed": part.observed,
        "expected": part.expected,
        "share": part.share,
    }
    for name in ("time", "entity"):
        values = getattr(found, name)
        if values is not None:
            facts[name] = values[position]
    return facts


def position_name(found: Detections, position: int) -> str | None:
    """Return the name of an image, None for other units."""
    images = getattr(found, "images", None)
    return None if images is None else str(images.names[position])


def label_facts(found: Detections, labels: NDArray[Any] | None) -> dict[str, float] | None:
    """Compare the answer with known labels; None when they do not hold both classes."""
    from genad.metrics import evaluate

    if labels is None:
        return None
    truth = labels if found.rows is None else labels[found.rows]
    known = truth >= 0
    if len(np.unique(truth[known])) < 2:
        return None
    return evaluate(truth[known], found.scores[known], found.is_anomaly[known])


def print_summary(facts: Mapping[str, Any], found: Detections | None) -> None:
    """Print the facts of a run for people, on standard output."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)

    def line(name: str, text: str) -> None:
        console.print(Text.assemble((f"{name:<13}", "bold"), text))

    line("Read", _read_line(facts["data"]))
    if facts.get("train"):
        line("Learnt from", _read_line(facts["train"]))
    elif found is not None:
        line("Learnt from", _same_data(facts["data"]))
    detector = facts["detector"]
    windows = f" over windows of {detector['windows_of']} steps" if "windows_of" in detector else ""
    line("Detector", f"{detector['name']}{windows} ({detector['why']}): {detector['title']}")
    threshold = facts["threshold"]
    if found is None or found.fdr is not None:
        # Where flags follow the threshold, the answer below says what it promises.
        shown = threshold["value"]
        value = f"{shown:.4g}" if isinstance(shown, float) else str(shown)
        line("Threshold", f"{value}. {threshold['promise']}")
    if found is not None:
        from genad.report import terminal_summary

        if found.fdr is None:
            line("Threshold", f"score {found.threshold.value:.4g}")
        console.print()
        terminal_summary(found, console, most=_TOP)
        console.print()
        for position in _worst(found):
            line("Look at", _why(found, position))
    if facts.get("against_labels"):
        figures = facts["against_labels"]
        names = ("auroc", "average_precision", "precision", "recall", "f1")
        said = ", ".join(f"{name.replace('_', ' ')} {figures[name]:.3f}" for name in names)
        line("Labels", said)
    for name, path in facts["files"].items():
        line("Wrote", f"{path} ({name})")


def _worst(found: Detections) -> list[int]:
    """Return the flagged units to look at first: the highest scores, or the peaks of events."""
    if found.kind == "series":
        events = sorted(found.events(), key=lambda event: -event.score)
        return [event.peak for event in events[:_LOOK_AT]]
    return [int(i) for i in found.top(_LOOK_AT) if found.is_anomaly[i]]


def _why(found: Detections, position: int) -> str:
    """Say of one unit which feature is most out of line, and by how much."""
    from genad.cli.log_facts import session_line
    from genad.core.log_detections import LogDetections
    from genad.report.wording import number

    if isinstance(found, LogDetections):
        return session_line(found, position)

    explanation = found.explain(position, parts=1)
    name = position_name(found, position)
    where = f"row {_row(found, position)}" if name is None else name
    if found.time is not None:
        where += f" ({number(found.time[position])})"
    return f"{where}: {_part_line(explanation.parts[0])}"


def _part_line(part: Part) -> str:
    from genad.report.wording import number

    normal = ""
    if part.lower is not None:
        normal = f" (normal {number(part.lower)} to {number(part.upper)})"
    return f"{part.name} is {number(part.observed)}, expected {number(part.expected)}{normal}"


def _same_data(facts: Mapping[str, Any]) -> str:
    known = facts.get("labelled", {}).get("anomalies", 0)
    if known:
        unit = "sessions" if "sessions" in facts else "rows"
        return f"the same data, without the {known:,} {unit} labelled as anomalies"
    return (
        "the same data, so anomalies in them may have been learnt as normal; give mostly normal "
        "data with --train if there are any"
    )


def _read_line(facts: Mapping[str, Any]) -> str:
    from genad.cli.log_facts import log_read_line

    labels = facts.get("labelled")
    known = f"; labelled: {labels['anomalies']:,} anomalous, {labels['normal']:,} normal" if labels else ""
    if "sessions" in facts:
        return log_read_line(facts) + known
    if "images" in facts:
        size = " x ".join(str(n) for n in facts["working_size"])
        channels = f"{facts['channels']} channel{'' if facts['channels'] == 1 else 's'}"
        return f"{facts['path']}: {facts['images']:,} images, {size} px, {channels} ({facts['why']}){known}"
    missing = facts["missing_cells"]
    cells = f"{missing:,} missing cell{'' if missing == 1 else 's'}"
    entities = f" of {facts['entities']:,} entities" if "entities" in facts else ""
    return (
        f"{facts['path']}: {facts['rows']:,} rows x {facts['columns']:,} columns, {cells}; a "
        f"{facts['kind']}{entities} ({facts['why']}){known}"
    )


def explanation_lines(explanation: Explanation) -> list[str]:
    """Write an explanation out, one line a part."""
    from genad.report.wording import number, probability

    score, p_value = number(explanation.score), probability(explanation.p_value)
    lines = [f"row {explanation.index}: score {score}, p-value {p_value}"]
    lines += [f"{part.share:7.1%}  {_part_line(part)}" for part in explanation.parts]
    return lines + nearest_lines(explanation)


def nearest_lines(explanation: Explanation) -> list[str]:
    """Name the nearest normal units of the data learnt from on one line; none where they are not known."""
    from genad.report.wording import number

    near = [f"{one.unit} (distance {number(one.distance)})" for one in explanation.nearest]
    return [f"  nearest of the normal ones learnt from: {', '.join(near)}"] if near else []
