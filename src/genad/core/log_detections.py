"""Detections on a log: each session with its lines, where it is anomalous, what was expected, and why in words."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from genad.core.detections import Detections, Event, Explanation, Part, merge_runs
from genad.core.log_words import clipped, reasons_of
from genad.data.log.counts import UNSEEN_EVENTS
from genad.errors import InputError

if TYPE_CHECKING:
    from genad.core.detector import Detector
    from genad.data.log import Sessions

#: What some methods answer for an event that they did not learn; it is no expectation.
_NO_EVENT = ("", "an unseen event")


@dataclass(frozen=True)
class SessionLine:
    """One event of a session.

    Attributes
    ----------
    place : int
        Of the event in its session, from 1.
    line : int or None
        Number of its first line in the file, from 1; None for events that come from no log.
    time : datetime64 or None
        None where it is not known.
    level : str
        "" where the log has none.
    text : str
        The message as it stands, or the name of the event.
    event : str
        Its template.
    share : float
        Its share of the session's anomaly map, 0 to 1; 0 where the method does not tell.
    unseen : bool
        Whether nothing like it was learnt from.
    expected : str
        The event that was expected in its place; "" where it was expected itself, or where the method does not tell.
    """

    place: int
    line: int | None
    time: Any
    level: str
    text: str
    event: str
    share: float
    unseen: bool
    expected: str

    @property
    def where(self) -> str:
        """The place in words: ``'line 17'``, or ``'event 3'`` of a session that comes from no log."""
        return f"event {self.place}" if self.line is None else f"line {self.line}"


@dataclass(repr=False)
class LogDetections(Detections):
    """What a detector says of sessions, with the lines behind each.

    Attributes
    ----------
    sessions : Sessions or None
        As judged: with the templates of the log that was learnt from.
    unseen : bool array or None
        Of every event of all sessions, end to end: whether its template was not learnt from.
    reasons : list of str
        One a session: why, in the words of a language model or of the method; empty when it says nothing. Data, never
        executed.
    status : list of str
        One a session: what became of the model's answer (``"ok"``, ..., ``"unasked"``); empty when none was asked.
    """

    sessions: Sessions | None = None
    unseen: NDArray[np.bool_] | None = None
    reasons: list[str] = field(default_factory=list)
    status: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, found: Detections, sessions: Sessions, detector: Detector) -> Self:
        """Add to an answer what is known of the sessions it is about.

        Parameters
        ----------
        found : Detections
            The answer of any detector.
        sessions : Sessions
        detector : Detector

        Returns
        -------
        LogDetections

        Examples
        --------
        >>> import genad
        >>> from genad.data.log import Sessions
        >>> normal = Sessions.from_sequences([["open", "read", "close"]] * 600)
        >>> detector = genad.create("directly_follows").fit(normal)
        >>> new = Sessions.from_sequences([["open", "panic", "close"]], ["job 7"])
        >>> detector.detect(new).why(0)[0]
        "never learnt: 'panic' (event 2), where 'read' was expected"
        """
        adapter: Any = detector.adapter_
        reader = getattr(adapter, "events", adapter)
        miner, known = getattr(reader, "miner", None), getattr(reader, "vocabulary", None)
        read = sessions if miner is None or sessions.log is None else sessions.matched(miner)
        if known is None and miner is not None:
            known = miner.templates
        if known is not None:
            held = set(known)
            unseen = np.array([text not in held for text in read.vocabulary], bool)[read.events]
        elif read.log is not None and read.rows is not None:
            unseen = read.log.unseen[read.rows]
        else:
            unseen = np.zeros(len(read.events), bool)
        status = list(getattr(detector, "status_", []))
        reasons = list(getattr(detector, "reasons_", []))
        held_fields = {f.name: getattr(found, f.name) for f in fields(Detections)}
        made = cls(
            **held_fields,
            sessions=read,
            unseen=unseen,
            reasons=reasons if len(reasons) == len(found) else [],
            status=status if len(status) == len(found) else [],
        )
        spans = made.spans()
        made.time = None if spans is None else spans[0]
        return made

    # ------------------------------------------------------------------ looking

    @property
    def read(self) -> Sessions:
        """The sessions.

        Raises
        ------
        InputError
            When the answer does not hold them.
        """
        if self.sessions is None:
            raise InputError("sessions: the answer does not hold them; let a detector make it.")
        return self.sessions

    def spans(self) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Return when each session begins and ends, datetime64, NaT where unknown; None for a log without times."""
        read = self.read
        if read.log is None or read.rows is None or read.log.time is None or np.isnat(read.log.time).all():
            return None
        stamps, starts = read.log.time[read.rows], read.offsets[:-1]
        return np.fmin.reduceat(stamps, starts), np.fmax.reduceat(stamps, starts)

    def line_numbers(self) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Return the numbers of the first and the last line of each session; None when they come from no log."""
        read = self.read
        if read.log is None or read.rows is None:
            return None
        numbers, starts = read.log.line[read.rows], read.offsets[:-1]
        return np.minimum.reduceat(numbers, starts), np.maximum.reduceat(numbers, starts)

    def event_scores(self, i: int) -> NDArray[np.float64] | None:
        """Return how anomalous each event of session ``i`` is, at least 0; None where the method does not tell."""
        read, i = self.read, self.position(i)
        if self.maps is None:
            return None
        row = np.nan_to_num(np.asarray(self.maps[i], np.float64)).clip(0)
        if not isinstance(self.observed, dict):
            return row[: read.lengths[i]]
        # Counts: what a column has is shared out among the events that it counts.
        columns = {name: k for k, name in enumerate(self.names)}
        places = [
            columns.get(UNSEEN_EVENTS if odd else read.vocabulary[event], -1)
            for event, odd in zip(read[i], self._unseen(i), strict=True)
        ]
        if max(places) < 0:
            return None
        found = np.array(places)
        times = np.bincount(found[found >= 0], minlength=len(row))
        return np.where(found >= 0, row[found] / np.maximum(times[found], 1), 0.0)

    def _unseen(self, i: int) -> NDArray[np.bool_]:
        read = self.read
        assert self.unseen is not None  # noqa: S101 - made with the sessions
        return self.unseen[read.offsets[i] : read.offsets[i + 1]]

    def lines(self, i: int) -> list[SessionLine]:
        """Return the events of session ``i`` in their order.

        Raises
        ------
        InputError
            When there is no such session.
        """
        read, i = self.read, self.position(i)
        weights = self.event_scores(i)
        total = 0.0 if weights is None else float(weights.sum())
        shares = np.zeros(len(read[i])) if weights is None or total <= 0 else weights / total
        rows = None if read.rows is None else read.rows[read.offsets[i] : read.offsets[i + 1]]
        log = read.log
        expected = self._expected(i)
        found = []
        for k, (text, event, unseen) in enumerate(zip(read.texts(i), read[i], self._unseen(i), strict=True)):
            at = None if rows is None else int(rows[k])
            stamp = None if log is None or log.time is None or at is None else log.time[at]
            level = None if log is None or log.level is None or at is None else log.level[at]
            found.append(
                SessionLine(
                    place=k + 1,
                    line=None if log is None or at is None else int(log.line[at]),
                    time=None if stamp is None or np.isnat(stamp) else stamp,
                    level=level or "",
                    text=text,
                    event=read.vocabulary[event],
                    share=float(shares[k]),
                    unseen=bool(unseen),
                    expected=expected[k],
                )
            )
        return found

    def _expected(self, i: int) -> list[str]:
        """Return the event that was expected at each place where another one stands, else ""."""
        n = int(self.read.lengths[i])
        if self.expected is None or isinstance(self.expected, dict) or isinstance(self.observed, dict):
            return [""] * n
        pairs = zip(self.observed[i][:n], self.expected[i][:n], strict=True)
        found = ["" if hoped == seen or hoped in _NO_EVENT else str(hoped) for seen, hoped in pairs]
        return found + [""] * (n - len(found))

    @property
    def holders(self) -> NDArray[np.int64]:
        """How many of the sessions judged have each event of the vocabulary."""
        kept: NDArray[np.int64] | None = self.__dict__.get("_holders")
        if kept is None:
            read = self.read
            owner = np.repeat(np.arange(len(read), dtype=np.int64), read.lengths)
            pairs = np.unique(owner * len(read.vocabulary) + read.events)
            kept = np.bincount(pairs % len(read.vocabulary), minlength=len(read.vocabulary))
            self.__dict__["_holders"] = kept
        return kept

    # ------------------------------------------------------------------ words

    def why(self, i: int) -> list[str]:
        """Say in words why session ``i`` got its score, the most telling first.

        Returns
        -------
        list of str
            What a language model said, events never learnt, events that came where others were expected, counts that
            are off, events that hardly any other session has, and events that nearly all others have and this one has
            not. Texts of the log stand in quotes; they are data.
        """
        return reasons_of(self, self.position(i))

    def explain(self, i: int, parts: int | None = None) -> Explanation:
        """Explain session ``i`` line by line: what stands there, what was expected, and its share of the score.

        Parameters
        ----------
        i : int
            Position of the session.
        parts : int, optional
            Keep the most telling so many; 50 when absent. A method that sees counts is explained by events.

        Raises
        ------
        InputError
            When there is no such session, or maps were left out.
        """
        if self.sessions is None or isinstance(self.observed, dict) or self.maps is None:
            return super().explain(i, parts)
        i = self.position(i)
        lines = self.lines(i)
        order = sorted(range(len(lines)), key=lambda k: -lines[k].share)[: parts or 50]
        # Where no line stands out, each has the same.
        even = 0.0 if any(line.share > 0 for line in lines) else 1.0 / len(lines)
        found = tuple(
            Part(lines[k].where, clipped(lines[k].text), lines[k].expected or None, None, None, lines[k].share or even)
            for k in order
        )
        return Explanation(i, float(self.scores[i]), float(self.p_values[i]), found)

    def events(self, gap: int = 0) -> list[Event]:
        """Merge flagged sessions that begin one after the other into events.

        Parameters
        ----------
        gap : int
            Runs at most this many sessions apart become one.
        """
        spans = self.spans()
        found = []
        for start, stop in merge_runs(self.is_anomaly, gap):
            peak = start + int(np.argmax(self.scores[start:stop]))
            begin, end = (None, None) if spans is None else (spans[0][start], np.fmax.reduce(spans[1][start:stop]))
            found.append(
                Event(start, stop, peak, float(self.scores[peak]), float(self.p_values[start:stop].min()), begin, end)
            )
        return found

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the answer as named columns: session, lines, times, score, p_value, is_anomaly, and why.

        Reasons in words are given for flagged sessions, and for the ten highest scores.
        """
        if self.sessions is None:
            return super().columns()
        read, spans, numbers = self.sessions, self.spans(), self.line_numbers()
        table: dict[str, NDArray[Any]] = {"session": np.array(read.names, object)}
        if read.log is not None and read.rows is not None and "file" in read.log.fields:
            table["file"] = read.log.fields["file"][read.rows[read.offsets[:-1]]]
        if numbers is not None:
            table |= {"first_line": numbers[0], "last_line": numbers[1]}
        table["events"] = read.lengths
        if spans is not None:
            table |= {"start": spans[0], "end": spans[1]}
        table |= {"score": self.scores, "p_value": self.p_values, "is_anomaly": self.is_anomaly}
        if self.status:
            table["status"] = np.array(self.status, object)
        told = self.is_anomaly.copy()
        if len(self):
            told[self.top(10)] = True
        table["why"] = np.array(["; ".join(self.why(i)) if told[i] else "" for i in range(len(self))], object)
        return table
