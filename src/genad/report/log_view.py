"""A session of a log as the report shows it: its lines, the telling ones marked, and what was expected instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genad.core.log_detections import LogDetections, SessionLine
from genad.report.wording import clip_text, count, moment, stretch

# Lines of a session that are shown whole, and lines around a telling one in a longer session.
_WHOLE, _AROUND = 40, 4
_TELLING_LINES = 6
# A line is telling when it has this share of the most telling one's score, and this many times what lines have evenly.
_NEAR_TOP, _ABOVE_EVEN = 0.5, 1.5
_LONGEST_TEXT, _LONGEST_ROWS = 600, 12


@dataclass(frozen=True)
class ShownLine:
    """One line of a session as the report shows it.

    Attributes
    ----------
    number : str
        Of the line in its file, or of the event in its session.
    time, level : str
        "" where it is not known.
    text : str
    share : float
        Share of the session's score, in percent; 0 where it says nothing.
    telling : bool
        Whether much of the score falls to it.
    unseen : bool
        Whether its template was never learnt.
    expected : str
        What was expected in its place, "" if itself.
    skipped : int
        Lines left out before it.
    """

    number: str
    time: str
    level: str
    text: str
    share: float
    telling: bool
    unseen: bool
    expected: str
    skipped: int = 0


@dataclass(frozen=True)
class SessionView:
    """A session as the report shows it.

    Attributes
    ----------
    facts : str
        Where it stands: lines, file, times, and its label if there is one.
    why : list of str
        Reasons in words.
    status : str
        What became of a language model's answer; "" when none was asked, or it was read at once.
    lines : list of ShownLine
    left_out : int
        Lines left out at the end.
    """

    facts: str
    why: list[str]
    status: str
    lines: list[ShownLine]
    left_out: int


def session_view(found: LogDetections, i: int) -> SessionView:
    """Return session ``i`` as the report shows it."""
    lines = found.lines(i)
    telling = telling_lines(lines)
    shown, previous = [], -1
    for k in sorted(_chosen(len(lines), telling)):
        shown.append(_shown(lines, k, telling=k in telling, skipped=k - previous - 1))
        previous = k
    state = found.status[i] if found.status else ""
    return SessionView(
        facts=session_facts(found, i),
        why=found.why(i),
        status="" if state == "ok" else state,
        lines=shown,
        left_out=len(lines) - 1 - previous,
    )


def telling_lines(lines: Sequence[SessionLine]) -> set[int]:
    """Return the places of the lines that much of the score falls to, and of those never learnt."""
    shares = np.array([line.share for line in lines])
    if not len(shares):
        return set()
    top = float(shares.max())
    clear = np.flatnonzero((shares > 0) & (shares >= _NEAR_TOP * top) & (shares >= _ABOVE_EVEN / len(shares)))
    best = sorted((int(k) for k in clear), key=lambda k: -shares[k])[:_TELLING_LINES]
    unseen = [k for k, line in enumerate(lines) if line.unseen or line.expected]
    return {*best, *unseen}


def _chosen(n: int, telling: set[int]) -> set[int]:
    if n <= _WHOLE:
        return set(range(n))
    kept = {0, 1, n - 2, n - 1}
    for k in sorted(telling)[: 2 * _TELLING_LINES]:
        kept |= set(range(max(0, k - _AROUND), min(n, k + _AROUND + 1)))
    return kept if telling else set(range(_WHOLE))


def _shown(lines: Sequence[SessionLine], k: int, *, telling: bool, skipped: int) -> ShownLine:
    line = lines[k]
    rows = line.text.split("\n")
    text = "\n".join([*rows[:_LONGEST_ROWS], *(["…"] if len(rows) > _LONGEST_ROWS else [])])
    return ShownLine(
        number=str(k + 1 if line.line is None else line.line),
        time="" if line.time is None else moment(line.time),
        level=clip_text(line.level, 12),
        text=clip_text(text, _LONGEST_TEXT),
        share=100.0 * line.share,
        telling=telling,
        unseen=line.unseen,
        expected=clip_text(line.expected, _LONGEST_TEXT),
        skipped=skipped,
    )


def session_name(found: LogDetections, i: int) -> str:
    """Return the name of a session, short."""
    return "" if found.sessions is None else clip_text(found.sessions.names[i], 60)


def session_facts(found: LogDetections, i: int) -> str:
    """Say which lines a session has and when it was."""
    assert found.sessions is not None  # noqa: S101 - the callers show sessions
    parts = [count(int(found.sessions.lengths[i]), "event")]
    numbers, spans, log = found.line_numbers(), found.spans(), found.sessions.log
    if numbers is not None:
        first, last = int(numbers[0][i]), int(numbers[1][i])
        parts = [f"line {first:,}" if first == last else f"lines {first:,} to {last:,}", *parts]
        if log is not None and found.sessions.rows is not None and "file" in log.fields:
            parts.insert(0, clip_text(str(log.fields["file"][found.sessions.rows[found.sessions.offsets[i]]]), 60))
    if spans is not None and not np.isnat(spans[0][i]):
        parts.append(stretch(spans[0][i], spans[1][i]))
    return ", ".join(parts)


def why_line(found: LogDetections, i: int) -> str:
    """Return the first reason of a session, for one line."""
    return clip_text(found.why(i)[0], 160)
