from __future__ import annotations

import time

import numpy as np
import pytest

from genad.data.log.layouts import PLAIN, find_layout, layout_named
from genad.data.log.timestamps import FORMATS, TimeReader, find_format

STAMPS = {
    "2024-01-31 13:05:09,123": "2024-01-31T13:05:09.123000",
    "2024-01-31T13:05:09.123456Z": "2024-01-31T13:05:09.123456",
    "2024-01-31T13:05:09.123456789+02:00": "2024-01-31T11:05:09.123456",
    "2024-01-31 13:05:09.5 +0530": "2024-01-31T07:35:09.500000",
    "2005-06-03-15.42.50.675872": "2005-06-03T15:42:50.675872",
    "2024/01/31 13:05:09": "2024-01-31T13:05:09.000000",
    "20240131T130509": "2024-01-31T13:05:09.000000",
    "081109 203615": "2008-11-09T20:36:15.000000",
    "Sun Dec 04 04:47:44 2005": "2005-12-04T04:47:44.000000",
    "Sun Dec 04 04:47:44.250000 2005": "2005-12-04T04:47:44.250000",
    "10/Oct/2000:13:55:36 -0700": "2000-10-10T20:55:36.000000",
    "Wed, 31 Jan 2024 13:05:09 GMT": "2024-01-31T13:05:09.000000",
    "31-Jan-2024 13:05:09.100": "2024-01-31T13:05:09.100000",
    "31.01.2024 13:05:09": "2024-01-31T13:05:09.000000",
    "01/31/2024 01:05:09 PM": "2024-01-31T13:05:09.000000",
    "01/31/2024 12:05:09 AM": "2024-01-31T00:05:09.000000",
    "Jan 31, 2024 1:05:09 PM": "2024-01-31T13:05:09.000000",
    "17/06/09 20:10:40": "2017-06-09T20:10:40.000000",
    "1077804742": "2004-02-26T14:12:22.000000",
    "1077804742.25": "2004-02-26T14:12:22.250000",
    "1077804742123": "2004-02-26T14:12:22.123000",
    "Jun  4 15:16:01": "2005-06-04T15:16:01.000000",
    "03-17 16:13:38.811": "2005-03-17T16:13:38.811000",
    "0131 13:05:09.123456": "2005-01-31T13:05:09.123456",
}


@pytest.mark.parametrize("stamp", STAMPS)
def test_stamps_are_read(stamp):
    form = find_format([stamp])
    assert form is not None
    assert str(TimeReader(form, 2005).read([stamp])[0]) == STAMPS[stamp]


def test_every_format_reads_its_own_name():
    for form in FORMATS:
        assert find_format([form.name.partition(" (")[0]]) is not None


@pytest.mark.parametrize("stamp", ["", "soon", "2024-13-31 13:05:09", "2024-02-30 13:05:09", "Abc 14 15:16:01", "12"])
def test_what_is_no_time_is_none(stamp):
    assert find_format([stamp]) is None


def test_a_format_must_fit_nine_in_ten():
    good = ["2024-01-31 13:05:09"] * 9
    assert find_format([*good, "?"]) is FORMATS[0]
    assert find_format([*good, "?", "?"]) is None


def test_the_year_turns_between_parts_and_a_clock_set_back_does_not_turn_it():
    reader = TimeReader(FORMATS[5], 2004)
    first = reader.read(["Dec 31 23:59:59"])
    second = reader.read(["Jan  1 00:00:01", "Mar  2 00:00:00", "Feb  2 00:00:00", None])
    assert [str(t)[:10] for t in (*first, *second)] == ["2004-12-31", "2005-01-01", "2005-03-02", "2005-02-02", "NaT"]
    assert first.dtype == np.dtype("datetime64[us]")


LINES = {
    "JSON lines": (
        '{"ts": "2024-01-31T13:05:09Z", "level": "warn", "logger": "a.b", "msg": "slow 3 s", "user": {"id": 7}}',
        {"level": "warn", "component": "a.b", "message": "slow 3 s", "user": '{"id": 7}'},
    ),
    "log4j": (
        "2024-01-31 13:05:09,123 [main] WARN  org.x.Job - took 3 s",
        {"level": "WARN", "component": "org.x.Job", "thread": "main", "message": "took 3 s"},
    ),
    "Python logging": (
        "2024-01-31 13:05:09,123 - app.db - ERROR - lost: host a",
        {"level": "ERROR", "component": "app.db", "message": "lost: host a"},
    ),
    "syslog": (
        "<34>Oct  1 22:14:15 mymachine su[77]: 'su root' failed on /dev/pts/8",
        {"host": "mymachine", "component": "su", "pid": "77", "message": "'su root' failed on /dev/pts/8"},
    ),
    "syslog (RFC 5424)": (
        '<165>1 2003-10-11T22:14:15.003Z host.example evntslog - ID47 [x@3 a="b"] An event',
        {"host": "host.example", "component": "evntslog", "message": "An event"},
    ),
    "web access": (
        '127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /a.gif HTTP/1.0" 200 2326 "-" "Mozilla"',
        {"host": "127.0.0.1", "user": "frank", "status": "200", "message": '"GET /a.gif HTTP/1.0" 200 2326'},
    ),
    "Apache error": (
        "[Fri Sep 09 10:42:29.902022 2011] [core:error] [pid 35708:tid 432] [client 72.15.99.187] File gone",
        {"level": "error", "component": "core", "pid": "35708", "message": "[client 72.15.99.187] File gone"},
    ),
    "klog": (
        "W0131 13:05:09.123456    1234 server.go:56] unable to sync",
        {"level": "W", "pid": "1234", "component": "server.go:56", "message": "unable to sync"},
    ),
    "Android": (
        "03-17 16:13:38.811  1702  2395 D WindowManager: printFreezingDisplayLogs",
        {"level": "D", "pid": "1702", "component": "WindowManager", "message": "printFreezingDisplayLogs"},
    ),
    "time stamp and level": (
        "[2024-01-31 13:05:09] ERROR: no space left",
        {"level": "ERROR", "message": "no space left"},
    ),
    "time stamp": ("2024/01/31 13:05:09 no space left", {"message": "no space left"}),
    "plain text": ("no space left", {"message": "no space left"}),
}


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("2024-01-31T13:05:09.123+01:00 web7 nginx[12]: worker exited", "syslog"),
        ("2024-01-31T13:05:09Z INFO app: started", "log4j"),
        ("2024-01-31 13:05:09,123 INFO  [a.B] (main) ready", "time stamp and level"),
        ("2024-01-31 13:05:09.123  INFO 4242 --- [  main] o.s.b.App : Started App in 3 s", "log4j"),
        ("17/06/09 20:10:40 INFO executor.Backend: Registered signal handlers", "log4j"),
        ("2017-05-16 00:00:04.500 2931 INFO nova.compute.manager [req-1 - - - -] Started", "OpenStack"),
    ],
)
def test_neighbouring_layouts_are_told_apart(line, name):
    assert find_layout([line])[0].name == name


@pytest.mark.parametrize("name", LINES)
def test_layouts_are_found(name):
    line, fields = LINES[name]
    layout, share = find_layout([line] * 5)
    assert (layout.name, share) == (name, 1.0)
    found = layout.parse(line)
    assert found is not None
    assert {key: found[key] for key in fields} == fields


def test_a_layout_needs_half_of_the_lines():
    stamped = "2024-01-31 13:05:09,123 [main] WARN  org.x.Job - took 3 s"
    assert find_layout([stamped, "text", "more", "words"])[0] is PLAIN
    layout, share = find_layout([stamped, stamped, "text"])
    assert layout.name == "log4j"
    assert share == pytest.approx(2 / 3)


def test_stack_traces_do_not_count_against_a_layout():
    stamped = "2024-01-31 13:05:09,123 ERROR [main] a.Job - failed"
    assert find_layout([stamped, *["\tat a.B.c(B.java:1)"] * 50, "Caused by: x.Y: z"])[0].name == "log4j"


def test_records_of_fields_alone_have_a_message():
    found = layout_named("json LINES").parse('{"level": "info", "answer": 42}')
    assert found["message"] == "answer=42"
    assert layout_named("json lines").parse('{"broken": ') is None
    assert layout_named("no such layout") is None


@pytest.mark.parametrize(
    "line",
    [
        "2024-01-31 13:05:09,123 INFO " + "a" * 60_000,
        "2024-01-31 13:05:09,123 INFO " + "a.b-" * 15_000,
        "<165>1 2003-10-11T22:14:15.003Z h e - ID47 " + "[a]" * 20_000 + "x",
        "<165>1 2003-10-11T22:14:15.003Z h e - ID47 " + "[" * 60_000,
        "a " * 30_000,
        "0-" * 30_000,
        "/a" * 30_000,
        "deadbeef0-" * 6_000,
        "[" * 60_000,
        '{"a":' * 12_000,
        "Jan " * 15_000,
        '"' * 60_000,
    ],
    ids=lambda line: line[-12:],
)
def test_no_line_takes_long(line):
    from genad.data.log import Log

    begin = time.process_time()
    find_layout([line])
    log = Log.from_messages([line])
    assert len(log.event) == len(log.parameters) == 1
    assert time.process_time() - begin < 2
