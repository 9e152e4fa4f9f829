"""What the command line says of a log: what was read, and why sessions were flagged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from genad.applications.data import Data
    from genad.core.detections import Explanation
    from genad.core.detector import Detector
    from genad.core.log_detections import LogDetections
    from genad.data.log import Sessions

_LONGEST = 300


def log_data_facts(path: str, data: Data) -> dict[str, Any]:
    """Return what was read: lines, templates, sessions, times, kind and why."""
    from genad.core.detections import jsonable

    sessions = data.X
    facts: dict[str, Any] = {"path": "standard input" if path == "-" else path}
    if sessions.log is not None:
        facts |= {"lines": len(sessions.log), "layout": sessions.log.layout}
    facts |= {
        "templates": len(np.unique(sessions.events)),
        "sessions": len(sessions),
        "longest_session": int(sessions.lengths.max()),
    }
    if sessions.log is not None:
        facts["unseen_lines"] = int(sessions.log.unseen.sum())
        stamps = sessions.log.time
        if stamps is not None and not np.isnat(stamps).all():
            facts["first_time"], facts["last_time"] = jsonable(np.fmin.reduce(stamps)), jsonable(np.fmax.reduce(stamps))
    facts |= {"kind": data.kind.value, "why": data.why}
    if data.labels is not None:
        facts["labelled"] = {"anomalies": int((data.labels == 1).sum()), "normal": int((data.labels == 0).sum())}
    return facts


def log_read_line(facts: Mapping[str, Any]) -> str:
    """Say in a line what was read."""
    from genad.report.wording import count

    parts = [count(facts["templates"], "template"), count(facts["sessions"], "session")]
    if "lines" in facts:
        parts.insert(0, f"{count(facts['lines'], 'message')} ({facts['layout']})")
    if facts.get("unseen_lines"):
        parts.append(f"{count(facts['unseen_lines'], 'message')} of unseen templates")
    return f"{facts['path']}: {', '.join(parts)}; a log ({facts['why']})"


def session_facts(found: LogDetections, i: int) -> dict[str, Any]:
    """Return where a session is, its score, and why in words."""
    from genad.core.detections import jsonable

    assert found.sessions is not None  # noqa: S101 - the callers judge sessions
    facts: dict[str, Any] = {"row": i, "session": found.sessions.names[i], "events": int(found.sessions.lengths[i])}
    numbers, spans = found.line_numbers(), found.spans()
    if numbers is not None:
        facts |= {"first_line": int(numbers[0][i]), "last_line": int(numbers[1][i])}
    if spans is not None:
        facts |= {"start": _stamp(spans[0][i]), "end": _stamp(spans[1][i])}
    facts |= {
        "score": float(found.scores[i]),
        "p_value": float(found.p_values[i]),
        "flagged": bool(found.is_anomaly[i]),
        "why": found.why(i),
    }
    if found.status:
        facts["status"] = found.status[i]
    return jsonable(facts)


def _stamp(value: Any) -> str | None:
    return None if np.isnat(value) else str(value)


def log_answer_facts(found: LogDetections, top: int, events: int) -> dict[str, Any]:
    """Return the sessions with the highest scores, and the runs of flagged ones."""
    runs = sorted(found.events(), key=lambda event: -event.score)
    facts: dict[str, Any] = {
        "top": [session_facts(found, int(i)) for i in found.top(top)],
        "event_count": len(runs),
        "events": [
            {
                "first_row": run.start,
                "last_row": run.stop - 1,
                "start_time": run.start_time,
                "stop_time": run.stop_time,
                "peak": session_facts(found, run.peak),
            }
            for run in runs[:events]
        ],
    }
    if found.status:
        facts["model_answers"] = {state: found.status.count(state) for state in dict.fromkeys(found.status)}
    return facts


def session_line(found: LogDetections, i: int) -> str:
    """Say of one session where it is and why it got its score."""
    from genad.report.log_view import session_facts as place
    from genad.report.log_view import session_name
    from genad.report.wording import clip_text

    name, where = session_name(found, i), place(found, i)
    head = where if where.startswith(name) else f"{name} ({where})"
    return clip_text(f"{head}: {'; '.join(found.why(i)[:2])}", _LONGEST)


def session_explanation(found: LogDetections, i: int, explanation: Explanation) -> list[str]:
    """Write the explanation of a session out: where it is, why, what is nearest, and its most telling lines."""
    from genad.cli.summary import nearest_lines
    from genad.report.log_view import session_facts as place
    from genad.report.wording import number, probability

    assert found.sessions is not None  # noqa: S101 - the callers judge sessions
    score, p_value = number(explanation.score), probability(explanation.p_value)
    lines = [f"row {i}, {found.sessions.names[i]} ({place(found, i)}): score {score}, p-value {p_value}"]
    lines += [f"  why: {text}" for text in found.why(i)]
    lines += nearest_lines(explanation)
    if isinstance(found.observed, dict) and found.event_scores(i) is None:
        return lines  # dimensions of an embedding say nothing to a reader
    for part in explanation.parts:
        hoped = "" if part.expected is None else f"; expected {number(part.expected)}"
        lines.append(f"{part.share:7.1%}  {number(part.name)}: {number(part.observed)}{hoped}")
    return lines


def restored_sessions(detector: Detector, sessions: Sessions) -> dict[str, Any]:
    """Return what each session should have been, as columns.

    A method that reads events in order gives a row an event; one that counts them
    gives a row a session, a column an event.
    """
    restored = detector.restore(sessions)
    names = np.array(sessions.names, object)
    if isinstance(restored, list):
        owner = np.repeat(np.arange(len(restored)), [len(row) for row in restored])
        place = np.concatenate([np.arange(1, len(row) + 1) for row in restored])
        return {
            "session": names[owner],
            "place": place,
            "restored": np.array([event for row in restored for event in row], object),
        }
    from genad.data.table import as_table

    table = as_table(restored)
    return {"session": names} | {name: table.column(name) for name in table.names}
