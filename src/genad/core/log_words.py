"""Why a session got its score, in words: what was never learnt, unexpected, rare, missing, or said by a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from genad.core.detections import Detections
from genad.data.log.counts import UNSEEN_EVENTS

if TYPE_CHECKING:
    from genad.core.log_detections import LogDetections, SessionLine

# What it means that a language model did not judge a session.
_UNJUDGED = {
    "unasked": "not judged, since the budget of the language model was spent; the score is that of a usual session",
    "abstained": "not judged, since the language model gave no usable answer; the score is that of a usual session",
}
# Longest text of a message in an explanation, in characters.
_LONGEST = 200
# Places or events of a session that are told in words.
_TOLD = 3
# Share of the sessions that must have an event before one without it is worth a word, and share that makes it rare.
_USUAL, _RARE = 0.95, 0.05
# Share of the score that an event must have to be told.
_TELLING = 0.1
# Share of the score, and how many times an even share, that one event must have to be told for want of all else.
_MOST, _ABOVE_EVEN = 0.2, 2.0


def reasons_of(found: LogDetections, i: int) -> list[str]:
    """Say why session ``i`` got its score, the most telling first; see :meth:`LogDetections.why`."""
    lines = found.lines(i)
    told = []
    state = found.status[i] if found.status else ""
    if state in _UNJUDGED:
        told.append(_UNJUDGED[state])
    elif found.reasons and found.reasons[i]:
        told.append(clipped(found.reasons[i]))
    told += _told_unseen(lines)
    unexpected = sorted((line for line in lines if line.expected), key=lambda line: -line.share)
    told += [
        f"{line.where}: {_quoted(line.event)} came where {_quoted(line.expected)} was expected"
        for line in unexpected[:_TOLD]
        if not line.unseen
    ]
    if isinstance(found.observed, dict):
        told += _told_counts(found, i)
    elif not unexpected:
        told += _told_rare(found, i, lines)
        told = (told or _told_telling(lines)) + _told_missing(found, i)
    return told or ["no single line stands out; the session is unusual as a whole"]


def clipped(text: str) -> str:
    r"""Return a text on one line, shortened.

    Examples
    --------
    >>> clipped("failed\n  at a.Job")
    'failed at a.Job'
    """
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _told_unseen(lines: list[SessionLine]) -> list[str]:
    """Say which events were never learnt, and what was expected where they came first."""
    places: dict[str, list[SessionLine]] = {}
    for line in lines:
        if line.unseen:
            places.setdefault(line.event, []).append(line)
    told = []
    for event, held in list(places.items())[:_TOLD]:
        often = f", {_times(len(held))}" if len(held) > 1 else ""
        hoped = f", where {_quoted(held[0].expected)} was expected" if held[0].expected else ""
        told.append(f"never learnt: {_quoted(event)} ({held[0].where}{often}){hoped}")
    if len(places) > _TOLD:
        told.append(f"and {len(places) - _TOLD} further events that were never learnt")
    return told


def _told_counts(found: LogDetections, i: int) -> list[str]:
    """Say which events occur more or less often than expected."""
    if found.maps is None or not isinstance(found.expected, dict) or UNSEEN_EVENTS not in found.names:
        return []
    told = []
    for part in Detections.explain(found, i, parts=_TOLD):
        seen, hoped = float(part.observed or 0), float(part.expected or 0)
        if part.share >= _TELLING and part.name != UNSEEN_EVENTS and abs(seen - hoped) >= 0.5:
            told.append(f"{_quoted(part.name)} is there {_times(seen)}, expected {_times(hoped)}")
    return told


def _told_rare(found: LogDetections, i: int, lines: list[SessionLine]) -> list[str]:
    """Say which of the telling events few sessions have, or others have less often."""
    read, n = found.read, len(found)
    shares: dict[int, float] = {}
    for event, line in zip(read[i].tolist(), lines, strict=True):
        if not line.unseen:
            shares[event] = shares.get(event, 0.0) + line.share
    told = []
    for event, share in sorted(shares.items(), key=lambda pair: -pair[1])[:_TOLD]:
        have = int(found.holders[event])
        if share >= _TELLING and have <= max(1, _RARE * n):
            others = "no other session has" if have == 1 else f"only {have:,} of {n:,} sessions have"
            told.append(f"{others} {_quoted(read.vocabulary[event])}")
            continue
        here = int((read[i] == event).sum())
        usual = int((read.events == event).sum()) / max(have, 1)
        if share >= _TELLING and here >= 2 * usual:
            told.append(f"{_quoted(read.vocabulary[event])} is there {_times(here)}, on average {usual:.1f} times")
    return told


def _told_missing(found: LogDetections, i: int) -> list[str]:
    """Say which events this session lacks that nearly all others have."""
    read, n = found.read, len(found)
    here = set(read[i].tolist())
    usual = np.flatnonzero(found.holders >= max(2.0, _USUAL * n)).tolist()
    return [
        f"{_quoted(read.vocabulary[event])} is missing, which {found.holders[event]:,} of {n:,} sessions have"
        for event in [event for event in usual if event not in here][:2]
    ]


def _told_telling(lines: list[SessionLine]) -> list[str]:
    """Say which event has most of the score, and what stands before it."""
    top = max(lines, key=lambda line: line.share)
    if top.share < max(_MOST, _ABOVE_EVEN / len(lines)):
        return []
    before = f" after {_quoted(lines[top.place - 2].event)}" if top.place > 1 else " at the beginning"
    end = ", with which it ends," if top.place == len(lines) else ""
    return [f"{top.where}: {_quoted(top.event)}{before}{end} has {top.share:.0%} of the score"]


def _times(n: float) -> str:
    shown = f"{n:.0f}" if abs(n - round(n)) < 0.05 else f"{n:.1f}"
    return "once" if shown == "1" else f"{shown} times"


def _quoted(text: str) -> str:
    return f"'{clipped(text)}'"
