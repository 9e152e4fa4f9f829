"""Layouts of log lines: which part is the time, the level, the component and the message."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from genad.data.log.timestamps import STAMP

__all__ = ["LAYOUTS", "PLAIN", "Layout", "find_layout", "is_continuation", "layout_named"]

#: Names under which fields become columns of their own; all others are kept by name.
STANDARD = ("time", "level", "component", "host", "pid", "message")

_LEVEL = (
    r"(?:TRACE|DEBUG|FINEST|FINER|FINE|CONFIG|INFO|INFORMATION|NOTICE|WARN|WARNING|ERR|ERROR|SEVERE|CRIT|CRITICAL|"
    r"ALERT|EMERG|FATAL|PANIC|trace|debug|info|notice|warn|warning|error|crit|critical|alert|emerg|fatal|Info|Warning|"
    r"Error|Debug|Trace|Critical|Fatal)"
)
_ISO = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"
_ZONED = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)"

Parse = Callable[[str], dict[str, Any] | None]


@dataclass(frozen=True)
class Layout:
    """How the lines of a log are laid out.

    Attributes
    ----------
    name : str
        As users name it.
    parse : callable
        From a line to its fields by name, ``"message"`` among them; None for a line that is not the start of a record.
    """

    name: str
    parse: Parse


def _by_pattern(name: str, pattern: str) -> Layout:
    @functools.cache
    def fits() -> Callable[[str], re.Match[str] | None]:
        # Compiling all layouts takes longer than importing all else here, and most are never needed.
        return re.compile(pattern, re.DOTALL).match

    def parse(line: str) -> dict[str, Any] | None:
        fit = fits()(line)
        return None if fit is None else fit.groupdict()

    return Layout(name, parse)


# What JSON loggers call each field, the most specific first.
_JSON_NAMES = {
    "message": ("message", "msg", "@message", "log", "event", "text", "body"),
    "time": ("timestamp", "@timestamp", "time", "ts", "datetime", "date", "asctime", "@t"),
    "level": ("level", "severity", "levelname", "log.level", "lvl", "loglevel", "@l"),
    "component": ("logger", "component", "logger_name", "name", "module", "service", "source"),
    "host": ("host", "hostname", "instance"),
    "pid": ("pid", "process_id", "process"),
}


def _parse_json(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    left = {str(key): value for key, value in record.items()}
    found: dict[str, Any] = {}
    for field, names in _JSON_NAMES.items():
        given = next((name for name in names if isinstance(left.get(name), str | int | float)), None)
        found[field] = None if given is None else str(left.pop(given))
    rest = {key: value if isinstance(value, str) else json.dumps(value) for key, value in left.items()}
    if found["message"] is None:
        # A record of fields alone: its words are its names and values.
        found["message"] = " ".join(f"{key}={value}" for key, value in rest.items())
    return rest | found


#: Every layout but plain text, the more specific before those that would take its lines too.
LAYOUTS: tuple[Layout, ...] = (
    Layout("JSON lines", _parse_json),
    _by_pattern(
        "BGL",
        r"(?P<label>\S+) (?P<epoch>\d{9,10}) (?P<day>\d{4}\.\d\d\.\d\d) (?P<host>\S+) "
        r"(?P<time>\d{4}-\d\d-\d\d-\d\d\.\d\d\.\d\d\.\d+) (?P<node>\S+) (?P<type>\S+) (?P<component>\S+) (?P<level>\S+)"
        r"(?: (?P<message>.*))?$",
    ),
    _by_pattern(
        "HDFS",
        r"(?P<time>\d{6} \d{6}) (?P<pid>\d+) (?P<level>[A-Z]+) (?P<component>\S+?): (?P<message>.*)$",
    ),
    _by_pattern(
        "OpenStack",
        rf"(?:(?P<file>\S+) )?(?P<time>{_ISO}) (?P<pid>\d+) (?P<level>{_LEVEL}) (?P<component>\S+) "
        r"\[(?P<request>[^\]]*)\] (?P<message>.*)$",
    ),
    _by_pattern(
        "Zookeeper",
        rf"(?P<time>{_ISO}) - (?P<level>{_LEVEL})\s+\[(?P<component>.*?)\] - (?P<message>.*)$",
    ),
    _by_pattern(
        "web access",
        r'(?P<host>\S+) (?P<ident>\S+) (?P<user>\S+) \[(?P<time>[^\]]+)\] (?P<message>"(?P<request>[^"]*)" '
        r'(?P<status>\d{3}) (?P<size>\d+|-))(?: "(?P<referrer>[^"]*)" "(?P<agent>[^"]*)")?.*$',
    ),
    _by_pattern(
        "Apache error",
        r"\[(?P<time>[A-Z][a-z]{2} [A-Z][a-z]{2} +\d+ \d\d:\d\d:\d\d(?:\.\d+)? \d{4})\] \[(?:(?P<component>\w*):)?"
        r"(?P<level>\w+)\] (?:\[pid (?P<pid>\d+)(?::tid \d+)?\] )?(?P<message>.*)$",
    ),
    _by_pattern(
        "syslog (RFC 5424)",
        rf"<(?P<priority>\d+)>\d (?P<time>{_ISO}|-) (?P<host>\S+) (?P<component>\S+) (?P<pid>\S+) (?P<id>\S+) "
        r"(?P<data>-|(?:\[(?:[^\]\\]|\\.)*\])+)(?: (?P<message>.*))?$",
    ),
    _by_pattern(
        "syslog",
        rf"(?:<(?P<priority>\d+)>)?(?P<time>[A-Z][a-z]{{2}} [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)?|{_ZONED}) "
        rf"(?!{_LEVEL}\b)(?P<host>\w[\w.:-]*) (?P<component>[^\[\]:]{{1,80}}?)(?:\[(?P<pid>\d+)\])?: ?(?P<message>.*)$",
    ),
    _by_pattern(
        "klog",
        r"(?P<level>[IWEF])(?P<time>\d{4} \d\d:\d\d:\d\d(?:\.\d+)?)\s+(?P<pid>\d+) (?P<component>[^\s\]]+)\] "
        r"(?P<message>.*)$",
    ),
    _by_pattern(
        "Android",
        r"(?P<time>\d\d-\d\d \d\d:\d\d:\d\d\.\d+)\s+(?P<pid>\d+)\s+(?P<thread>\d+) (?P<level>[VDIWEFA]) "
        r"(?P<component>[^:]*?)\s*: (?P<message>.*)$",
    ),
    _by_pattern(
        "Python logging",
        rf"(?P<time>{_ISO}) (?:- )?(?P<component>[\w.]+) (?:- )?(?P<level>{_LEVEL}) ?[-:] (?P<message>.*)$",
    ),
    _by_pattern(
        "log4j",
        rf"\[?(?P<time>{STAMP})\]?\s+(?:- )?(?:\[(?P<thread>[^\]]*)\]\s+)?\[?(?P<level>{_LEVEL})\s*\]?\s+"
        r"(?:(?P<pid>\d+)\s+)?(?:---\s+)?(?:\[(?P<thread_name>[^\]]*)\]\s+)?(?P<component>(?=[\w.$/@-]*[A-Za-z_])[\w.$/@-]+"
        r"(?:\[[^\]]*\])?)\s*(?:-|:)\s+(?P<message>.*)$",
    ),
    _by_pattern(
        "time stamp and level",
        rf"\[?(?P<time>{STAMP})\]?\s*[-|:,]?\s*\[?(?P<level>{_LEVEL})\b\]?\s*[-|:,]?\s*(?P<message>.*)$",
    ),
    _by_pattern("time stamp", rf"\[?(?P<time>{STAMP})\]?\s*[-|:,]?\s*(?P<message>.*)$"),
)

_CONTINUES = re.compile(
    r"\s|Traceback \(most recent call last\)|Caused by: |Suppressed: |\.\.\. \d+ more|"
    r"[\w.$]+(?:Error|Exception)\b(?::|$)|\}|\]"
)


def is_continuation(line: str) -> bool:
    """Say whether a line of plain text looks like a further line of the message before it.

    Examples
    --------
    >>> [is_continuation(x) for x in ("  at a.B.c(B.java:1)", "Caused by: x", "ValueError: no", "All is well")]
    [True, True, True, False]
    """
    return not line or _CONTINUES.match(line) is not None


#: Lines of which nothing is known but that they are messages.
PLAIN = Layout("plain text", lambda line: None if is_continuation(line) else {"message": line})


def layout_named(name: str) -> Layout | None:
    """Return the layout of this name, whatever its case; None if there is none."""
    return next((layout for layout in (*LAYOUTS, PLAIN) if layout.name.lower() == name.lower()), None)


def find_layout(lines: Sequence[str]) -> tuple[Layout, float]:
    """Find the layout of a log from some of its lines.

    Parameters
    ----------
    lines : sequence of str
        From the beginning of the file.

    Returns
    -------
    layout : Layout
        Of those that most lines follow the first one; plain text when none has half of the lines.
    share : float
        Share of the lines that follow it, those that look like the rest of a message left out.

    Examples
    --------
    >>> layout, share = find_layout(["Jun 14 15:16:01 combo sshd[19939]: session opened", "  more of it"])
    >>> layout.name, share
    ('syslog', 1.0)
    """
    heads = [line for line in lines if (line and not is_continuation(line)) or line.startswith("{")]
    best, share = PLAIN, 0.0
    for layout in LAYOUTS:
        found = sum(layout.parse(line) is not None for line in heads) / max(1, len(heads))
        # A later, more general layout must win clearly, or a few odd lines would cost all fields.
        if found > share + (0.05 if share >= 0.5 else 0.0):
            best, share = layout, found
    return (best, share) if share >= 0.5 else (PLAIN, 1.0)
