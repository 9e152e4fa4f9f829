"""Time stamps of log lines: find the format from a sample, then read every stamp in it, in UTC."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import numpy as np
from numpy.typing import NDArray

__all__ = ["FORMATS", "STAMP", "TimeFormat", "TimeReader", "find_format"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE = datetime(1970, 1, 1)  # noqa: DTZ001 - stamps without a zone are taken as UTC
_MONTHS = {
    "jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6,
    "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12,
}  # fmt: skip
_DAY = 86_400_000_000
#: Stands for a stamp that cannot be read, as in NumPy.
_NOT_A_TIME = -(2**63)

_CLOCK = r"(?P<H>\d{1,2})[:.](?P<M>\d\d)[:.](?P<S>\d\d)(?:[.,:](?P<f>\d{1,9}))?"
_ZONE = r"(?:\s?(?P<z>Z|UTC|GMT|[+-]\d\d:?\d\d))?"


@dataclass(frozen=True)
class TimeFormat:
    """A way of writing a time.

    Attributes
    ----------
    name : str
        An example, as shown to users.
    pattern : str
        A regular expression for the whole stamp; its groups are Y (year), m (month, number or name), d (day), H, M, S,
        f (fraction), p (AM or PM), z (zone) and e (seconds since 1970).
    year : bool
        Whether the stamp has a year.
    """

    name: str
    pattern: str
    year: bool = True


#: The formats tried, in this order; of two that fit, the first is taken.
FORMATS: tuple[TimeFormat, ...] = (
    TimeFormat("2024-01-31 13:05:09,123", rf"(?P<Y>\d{{4}})-(?P<m>\d\d)-(?P<d>\d\d)(?:[T _]|\s-\s){_CLOCK}{_ZONE}"),
    TimeFormat("2005-06-03-15.42.50.675872", rf"(?P<Y>\d{{4}})-(?P<m>\d\d)-(?P<d>\d\d)-{_CLOCK}"),
    TimeFormat("2024/01/31 13:05:09", rf"(?P<Y>\d{{4}})[/.](?P<m>\d\d)[/.](?P<d>\d\d)[ T-]{_CLOCK}{_ZONE}"),
    TimeFormat("20240131T130509", r"(?P<Y>\d{4})(?P<m>\d\d)(?P<d>\d\d)[T -]?(?P<H>\d\d):?(?P<M>\d\d):?(?P<S>\d\d)"
               r"(?:[.,:](?P<f>\d{1,9}))?" + _ZONE),
    TimeFormat("081109 203615", r"(?P<Y>\d\d)(?P<m>\d\d)(?P<d>\d\d) (?P<H>\d\d):?(?P<M>\d\d):?(?P<S>\d\d)"),
    TimeFormat("Jun 14 15:16:01", rf"(?P<m>[A-Za-z]{{3}})\s+(?P<d>\d{{1,2}})\s+{_CLOCK}", year=False),
    TimeFormat("Jun 14 2024 15:16:01", rf"(?P<m>[A-Za-z]{{3}})\s+(?P<d>\d{{1,2}}),?\s+(?P<Y>\d{{4}}),?\s+{_CLOCK}"
               r"(?:\s(?P<p>[AP]M))?"),
    TimeFormat("Sun Dec 04 04:47:44 2005", rf"[A-Z][a-z]{{2}},?\s+(?P<m>[A-Za-z]{{3}})\s+(?P<d>\d{{1,2}})\s+{_CLOCK}"
               r"(?:\s+(?P<z>UTC|GMT|[+-]\d{4}))?\s+(?P<Y>\d{4})"),
    TimeFormat("10/Oct/2000:13:55:36 -0700",
               rf"(?P<d>\d\d?)[/-](?P<m>[A-Za-z]{{3}})[/-](?P<Y>\d{{4}})[: ]{_CLOCK}{_ZONE}"),
    TimeFormat("Tue, 31 Jan 2024 13:05:09 GMT",
               rf"(?:[A-Z][a-z]{{2}},?\s+)?(?P<d>\d\d?) (?P<m>[A-Za-z]{{3}}) (?P<Y>\d{{4}})"
               rf"[ :]{_CLOCK}{_ZONE}"),
    TimeFormat("31.01.2024 13:05:09", rf"(?P<d>\d\d)\.(?P<m>\d\d)\.(?P<Y>\d{{4}}),? {_CLOCK}"),
    TimeFormat("01/31/2024 01:05:09 PM", rf"(?P<m>\d\d?)/(?P<d>\d\d?)/(?P<Y>\d{{4}}),? {_CLOCK}(?: ?(?P<p>[AP]M))?"),
    TimeFormat("17/06/09 20:10:40", rf"(?P<Y>\d\d)/(?P<m>\d\d)/(?P<d>\d\d) {_CLOCK}"),
    TimeFormat("03-17 16:13:38.811", rf"(?P<m>\d\d)[-.](?P<d>\d\d) {_CLOCK}", year=False),
    TimeFormat("0131 13:05:09.123456", rf"(?P<m>\d\d)(?P<d>\d\d) {_CLOCK}", year=False),
    TimeFormat("1077804742 (seconds since 1970)", r"(?P<e>[0-9]{9,10}(?:\.[0-9]{1,9})?)"),
    TimeFormat("1077804742123 (milliseconds since 1970)", r"(?P<e>[0-9]{12,13})"),
    TimeFormat("1077804742123456 (microseconds since 1970)", r"(?P<e>[0-9]{15,16})"),
)  # fmt: skip

#: Any of the formats at the start of a line, without names for the parts; bare numbers only in brackets.
STAMP = "|".join(re.sub(r"\(\?P<\w+>", "(?:", form.pattern) for form in FORMATS if "(?P<e>" not in form.pattern)


def find_format(stamps: Sequence[str]) -> TimeFormat | None:
    """Return the first format in which at least nine in ten of the stamps can be read, None if there is none.

    Examples
    --------
    >>> find_format(["10/Oct/2000:13:55:36 -0700"]).name
    '10/Oct/2000:13:55:36 -0700'
    """
    for form in FORMATS:
        reader = _reader(form, 1970)
        good = sum(reader(stamp) != _NOT_A_TIME for stamp in stamps)
        if stamps and good >= 0.9 * len(stamps):
            return form
    return None


class TimeReader:
    """Reads stamps of one format, part after part of a log.

    Parameters
    ----------
    form : TimeFormat
    year : int
        Of the first stamp, where the format has none; a step from December to January begins the next one.

    Examples
    --------
    >>> reader = TimeReader(FORMATS[5], 2004)
    >>> reader.read(["Dec 31 23:59:59", "Jan  1 00:00:00", "?"]).astype(str).tolist()
    ['2004-12-31T23:59:59.000000', '2005-01-01T00:00:00.000000', 'NaT']
    """

    def __init__(self, form: TimeFormat, year: int) -> None:
        self.form = form
        self._read = _reader(form, year)

    def read(self, stamps: Sequence[str | None]) -> NDArray[np.datetime64]:
        """Return the stamps as datetime64[us], in UTC where they have a zone; NaT for what cannot be read."""
        read = self._read
        values = [_NOT_A_TIME if stamp is None else read(stamp) for stamp in stamps]
        return np.array(values, np.int64).view("datetime64[us]")


def _reader(form: TimeFormat, year: int) -> Callable[[str], int]:
    """Return a function from a stamp to microseconds since 1970."""
    fits = re.compile(form.pattern).fullmatch
    days: dict[tuple[str | None, str, str], int] = {}
    names = set(re.compile(form.pattern).groupindex)
    last_month = 0

    def read(stamp: str) -> int:
        nonlocal year, last_month
        fit = fits(stamp.strip())
        if fit is None:
            return _NOT_A_TIME
        parts = fit.groupdict()
        if "e" in names:
            return _since_epoch(parts["e"])
        key = (parts.get("Y"), parts["m"], parts["d"])
        if not form.year:
            month = _month(parts["m"])
            # Only the turn of the year leads from December to January; other steps back are a clock set back.
            if last_month == 12 and month == 1:
                year += 1
            last_month = month
            key = (str(year), parts["m"], parts["d"])
        day = days.get(key)
        if day is None:
            day = days[key] = _day(*key)
        hour, minute, second = int(parts["H"]), int(parts["M"]), int(parts["S"])
        if parts.get("p"):
            hour = hour % 12 + 12 * (parts["p"] == "PM")
        if day == _NOT_A_TIME or hour > 24 or minute > 59 or second > 60:
            return _NOT_A_TIME
        fraction = int((parts.get("f") or "0")[:6].ljust(6, "0"))
        return day + ((hour * 60 + minute) * 60 + second) * 1_000_000 + fraction - _offset(parts.get("z"))

    return _iso(read) if form is FORMATS[0] else read


def _iso(read: Callable[[str], int]) -> Callable[[str], int]:
    """Put the standard library's quick reader of ISO stamps before the general one."""

    def quick(stamp: str) -> int:
        try:
            found = datetime.fromisoformat(stamp)
        except ValueError:
            return read(stamp)
        gap = found - (_NAIVE if found.tzinfo is None else _EPOCH)
        return gap.days * _DAY + gap.seconds * 1_000_000 + gap.microseconds

    return quick


def _since_epoch(digits: str) -> int:
    whole, _, fraction = digits.partition(".")
    if len(whole) <= 10:
        return int(whole) * 1_000_000 + int(fraction[:6].ljust(6, "0") or 0)
    return int(whole) * (1000 if len(whole) <= 13 else 1)


def _month(text: str) -> int:
    return int(text) if text.isdigit() else _MONTHS.get(text.lower(), 0)


def _day(year: str | None, month: str, day: str) -> int:
    number = int(year or 0)
    if number < 100:  # the century turns at 70, as in POSIX
        number += 2000 if number < 70 else 1900
    try:
        return (date(number, _month(month), int(day)) - date(1970, 1, 1)).days * _DAY
    except ValueError:
        return _NOT_A_TIME


def _offset(zone: str | None) -> int:
    """Return how far ahead of UTC a zone is, in microseconds."""
    if not zone or zone[0] not in "+-":
        return 0
    digits = zone[1:].replace(":", "")
    return (1 if zone[0] == "+" else -1) * (int(digits[:2]) * 60 + int(digits[2:])) * 60_000_000
