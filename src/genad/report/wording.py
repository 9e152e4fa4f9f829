"""Words and numbers as readers see them, shared by the HTML report and the terminal summary."""

from __future__ import annotations

import math
import re
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from genad.core.calibration.fitted import percent, plural
from genad.core.log_detections import LogDetections
from genad.data.kinds import KINDS, Kind

if TYPE_CHECKING:
    from genad.core.detections import Detections

# Dates come out of explanations as text of this form.
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d(:\d\d(:\d\d(\.\d{1,9})?)?)?")
_LONGEST_TEXT = 80
_RANK_ONLY = 1e4
_SMALLEST_PLAIN = 1e-4


def number(value: Any, digits: int = 4) -> str:
    """Write one value for readers.

    Parameters
    ----------
    value : object
        A number, a text, a date, or None for a missing value.
    digits : int
        Significant digits of numbers that are not whole.

    Returns
    -------
    str
        Plain text of at most 80 characters.

    Examples
    --------
    >>> number(0.123456), number(3.0), number(123456.7), number(None), number(2e-7)
    ('0.1235', '3', '123,457', 'missing', '2e-07')
    """
    value = value.item() if isinstance(value, np.generic) and value.dtype.kind != "M" else value
    if value is None:
        return "missing"
    if isinstance(value, np.datetime64):
        return moment(value)
    if isinstance(value, str) and _STAMP.fullmatch(value):
        return moment(np.datetime64(value))
    if not isinstance(value, float):
        return clip_text(str(value))
    if not math.isfinite(value):
        return "missing" if math.isnan(value) else str(value)
    if value == int(value) and abs(value) < _RANK_ONLY:
        return str(int(value))
    if abs(value) >= _RANK_ONLY:
        return f"{value:,.0f}" if abs(value) < 1e15 else f"{value:.{digits}g}"
    if abs(value) < _SMALLEST_PLAIN:
        return f"{value:.{digits}g}"
    return np.format_float_positional(value, digits, unique=True, fractional=False, trim="-")


def clip_text(text: str, longest: int = _LONGEST_TEXT) -> str:
    """Shorten a text to ``longest`` characters, an ellipsis marking the cut."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def probability(p: float) -> str:
    """Write a p-value with two significant digits.

    Examples
    --------
    >>> probability(0.004975), probability(0.5), probability(1.0)
    ('0.005', '0.5', '1')
    """
    return f"{p:.2g}" if p < _SMALLEST_PLAIN else f"{float(f'{p:.2g}'):g}"


def moment(time: Any) -> str:
    """Write a time stamp without parts that are zero.

    Examples
    --------
    >>> import numpy as np
    >>> [moment(np.datetime64(text)) for text in ("2024-03-01T00:00:00.0", "2024-03-01T12:30")]
    ['2024-03-01', '2024-03-01 12:30']
    """
    if not isinstance(time, np.datetime64):
        return number(time, 6)
    if np.isnat(time):
        return "missing"
    text = str(np.datetime_as_string(time.astype("datetime64[us]"), unit="us")).replace("T", " ")
    for ending in (".000000", "000", ":00", " 00:00"):
        text = text.removesuffix(ending)
    return text


def stretch(begin: Any, end: Any) -> str:
    """Write from when to when something lasts, to the second where it is longer than that.

    Examples
    --------
    >>> stretch(np.datetime64("2024-01-31T13:05:09.123"), np.datetime64("2024-01-31T13:07:10.5"))
    '2024-01-31 13:05:09 to 13:07:10'
    """
    if end - begin > np.timedelta64(2, "s"):
        begin, end = begin.astype("datetime64[s]"), end.astype("datetime64[s]")
    first, last = (str(stamp).replace("T", " ").removesuffix(".000000") for stamp in (begin, end))
    if first == last:
        return moment(begin)
    same_day = begin.astype("datetime64[D]") == end.astype("datetime64[D]")
    return f"{first} to {last.split(' ')[-1] if same_day else last}"


def count(n: int, unit: str) -> str:
    """Write how many of a unit there are.

    Examples
    --------
    >>> count(2402, "row"), count(1, "time step")
    ('2,402 rows', '1 time step')
    """
    return f"{n:,} {plural(unit, n)}"


def duration(seconds: float) -> str:
    """Write a length of time with a fitting unit.

    Examples
    --------
    >>> duration(0.34), duration(75), duration(7300)
    ('0.34 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def setting(value: Any) -> str:
    """Write a parameter of a detector, without the fields of it that were left at their defaults.

    Examples
    --------
    >>> from genad import Training
    >>> setting(Training(updates=100)), setting(0.2)
    ('Training(updates=100)', '0.2')
    """
    if is_dataclass(value) and not isinstance(value, type):
        changed = [
            f"{field.name}={setting(getattr(value, field.name))}"
            for field in fields(value)
            if field.repr and field.init and not _is_default(field.default, getattr(value, field.name))
        ]
        return f"{type(value).__name__}({', '.join(changed)})"
    if callable(value):
        # The text of a function holds its address, which differs from run to run.
        return str(getattr(value, "__qualname__", type(value).__name__))
    return clip_text(" ".join(str(value).split()), 200)


def _is_default(default: Any, value: Any) -> bool:
    if value is None or default is value:
        return True
    try:
        return bool(default == value)
    except (TypeError, ValueError):
        return False


def unit_of(detections: Detections) -> str:
    """Return what one score stands for, in the singular."""
    return KINDS[detections.kind].unit


def verdict(detections: Detections) -> str:
    """Say in one sentence how much was flagged.

    Examples
    --------
    >>> import numpy as np
    >>> from genad.core.calibration import FittedThreshold
    >>> from genad import Detections, Kind
    >>> flags = np.array([True, False, False])
    >>> fixed = FittedThreshold(2.0, "FixedValue", "Flags scores above 2.", n=0)
    >>> verdict(Detections(np.ones(3), np.ones(3), flags, fixed, Kind.TABLE))
    '1 of 3 rows flagged (33.3 %).'
    """
    n, flagged = len(detections), int(detections.is_anomaly.sum())
    units = count(n, unit_of(detections))
    if not flagged:
        return f"None of {units} flagged."
    text = f"{flagged:,} of {units} flagged ({percent(flagged / n)})"
    if detections.kind is not Kind.SERIES:
        return f"{text}."
    return f"{text}, in {count(len(detections.events()), 'event')}."


def promise(detections: Detections) -> str:
    """Say in one sentence what a flag means and what it rests on."""
    if detections.fdr is None:
        return detections.threshold.promise
    units = plural(unit_of(detections))
    return (
        f"At most {percent(detections.fdr)} of the flagged {units} are expected to be normal: the "
        "false discovery rate is controlled by the Benjamini-Hochberg procedure on conformal "
        "p-values."
    )


def remarks(detections: Detections) -> list[str]:
    """Say where the promise is weaker than asked for, and what hides it."""
    threshold = detections.threshold
    unit = unit_of(detections)
    found = []
    alpha = threshold.parameters.get("alpha")
    floor = threshold.attainable
    if detections.fdr is None and floor is not None and isinstance(alpha, float) and alpha < floor:
        found.append(
            f"A false-alarm rate of {percent(alpha)} was asked for, but {count(threshold.n, unit)} "
            f"held out can promise no less than {percent(floor)}; that level is used. Hold out "
            "more to go lower."
        )
    if detections.fdr is not None and floor is not None:
        needed = math.ceil(floor * len(detections) / detections.fdr)
        if needed > 1:
            found.append(
                f"With {count(threshold.n, unit)} held out no p-value is below "
                f"{probability(floor)}, so at least {count(needed, unit)} must score above all "
                "of them before any is flagged."
            )
    if math.isinf(threshold.value) and detections.fdr is None:
        found.append(
            "The threshold is infinite: nothing can be flagged by it."
            if threshold.value > 0
            else "The threshold is minus infinity: everything is flagged by it."
        )
    return found


def training_facts(detections: Detections, detector: Any = None) -> list[tuple[str, str]]:
    """List what was trained, as pairs of a label and a text; only what is known.

    Parameters
    ----------
    detections : Detections
        Its ``meta`` holds the facts.
    detector : Detector, optional
        Adds the paper that its card names.
    """
    meta = detections.meta
    unit = str(meta.get("unit", unit_of(detections)))
    facts: list[tuple[str, str]] = []

    def add(label: str, key: str, write: Any) -> None:
        if meta.get(key) is not None:
            facts.append((label, write(meta[key])))

    add("Detector", "detector", str)
    card = getattr(detector, "card", None)
    if card is not None:
        place = ", ".join(str(part) for part in (card.venue, card.year) if part)
        facts.append(("Method", f"{card.title} ({card.authors}; {place})"))
    else:
        add("Method", "title", str)
    add(
        "Parameters",
        "parameters",
        lambda given: ", ".join(f"{k}={setting(v)}" for k, v in given.items()) or "none",
    )
    add("Network", "network_parameters", lambda n: f"{n:,} parameters")
    add("Trained on", "training_samples", lambda n: f"{n:,} {_sample_word(detections.kind, n)}")
    add("Updates", "updates", lambda n: f"{n:,}")
    add("Training time", "seconds", lambda s: duration(float(s)))
    add("Stopped by", "stopped", str)
    add("Device", "device", str)
    add("Calibrated on", "calibration_units", lambda n: f"{count(n, unit)} held out")
    pixels = getattr(detections, "pixels", None)
    if pixels is not None:
        facts.append(("Masks", pixels.promise))
    return facts


def _sample_word(kind: Kind, n: int) -> str:
    # A series is trained on in windows though it is scored by time step.
    return plural("window" if kind is Kind.SERIES else KINDS[kind].unit, n)


def file_name(detections: Detections) -> str | None:
    """Return the name of the file that was looked at, without its folder, when it is known."""
    if isinstance(detections, LogDetections) and detections.sessions is not None:
        log = detections.sessions.log
        return None if log is None or log.source in ("", "memory") else PurePath(log.source).name
    for key in ("file", "path", "source"):
        if detections.meta.get(key):
            return PurePath(str(detections.meta[key])).name
    return None


def subject(detections: Detections) -> str:
    """Say what was looked at, for instance ``'2,402 rows of a table with 6 features'``."""
    if isinstance(detections, LogDetections) and detections.sessions is not None:
        return _log_subject(detections)
    parts = [count(len(detections), unit_of(detections))]
    word = "channel" if detections.kind is not Kind.TABLE else "feature"
    if detections.names:
        parts.append(count(len(detections.names), word))
    if getattr(detections, "images", None) is not None:
        rows, columns = detections.observed.shape[2:]
        parts.append(f"{rows} x {columns} px")
    if detections.entity is not None:
        entities = len(set(detections.entity.tolist()))
        parts.append(f"{entities:,} entities" if entities != 1 else "1 entity")
    if detections.time is not None and len(detections):
        stamps = np.asarray(detections.time)
        parts.append(f"{moment(stamps.min())} to {moment(stamps.max())}")
    return ", ".join(parts)


def _log_subject(detections: LogDetections) -> str:
    read = detections.sessions
    assert read is not None  # noqa: S101 - the caller has looked
    parts = [count(len(read), "session"), count(len(np.unique(read.events)), "template")]
    if read.log is not None:
        parts.insert(0, count(len(read.log), "message"))
    spans = detections.spans()
    if spans is not None:
        parts.append(stretch(np.fmin.reduce(spans[0]), np.fmax.reduce(spans[1])))
    return ", ".join(parts)
