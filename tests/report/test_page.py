from __future__ import annotations

import io
import json
import struct
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from genad import Conformal, Detections, FixedValue, Kind
from genad.errors import GenadError, InputError, InputTypeError
from genad.report import terminal_summary, write_report
from genad.report.items import top_items
from genad.report.page import render
from genad.report.pictures import png
from genad.report.quality import quality, read_truth

HOSTILE = "<script>alert(1)</script>"


class Reader(HTMLParser):
    """Collects visible text, loads, and the JSON of the figures."""

    def __init__(self, page):
        super().__init__()
        self.text, self.loads, self.figures, self.scripts = [], [], {}, 0
        self._inside = None
        self.feed(page)
        self.words = " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag, attrs):
        facts = dict(attrs)
        self.scripts += tag == "script" and "type" not in facts
        self._inside = (tag, facts.get("id")) if tag in ("script", "style") else None
        self.loads += [facts[name] for name in ("src", "href", "action", "data") if facts.get(name)]

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside is None:
            self.text.append(data)
        elif self._inside[0] == "script" and self._inside[1]:
            self.figures[self._inside[1]] = json.loads(data)


@pytest.fixture(scope="module")
def table_page(table):
    detector, found, labels = table
    return render(found, detector=detector, truth=labels, title="Payments & more", date="2024-04-01")


def test_header_names_the_data_the_verdict_and_the_promise(table, table_page):
    _, found, _ = table
    words = Reader(table_page).words
    flagged = int(found.is_anomaly.sum())
    assert f"{flagged} of 300 rows flagged" in words
    assert "300 rows, 6 features, from payments <march>.csv" in words
    assert "/private/folder" not in table_page
    assert " ".join(found.threshold.promise.split()) in words
    assert "Payments & more" in words


def test_what_was_trained(table_page):
    words = Reader(table_page).words
    assert "Updates 100" in words
    assert "Sakurada, Yairi; MLSDA, 2014" in words
    assert "training=Training(updates=100)" in words
    assert "Calibrated on 160 rows held out" in words
    assert "Device cpu" in words


def test_twenty_rows_are_listed_with_their_explanations(table, table_page):
    _, found, _ = table
    assert table_page.count('<details class="item"') == 20
    best = int(found.top(1)[0])
    why = found.explain(best)
    words = Reader(table_page).words
    assert f"row {best}" in words
    assert f"{why.parts[0].name} {why.parts[0].share * 100:.0f} %" in words
    items, heading, _ = top_items(found)
    assert heading == "Top anomalies"
    assert items[0].parts[0].name == why.parts[0].name
    assert sum(part.share for part in items[0].parts) == pytest.approx(100.0)


def test_names_are_escaped_everywhere(table_page):
    assert HOSTILE not in table_page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in table_page
    assert Reader(table_page).scripts == 2


def test_hostile_series_cannot_leave_the_figure_json(make_series):
    entity = np.repeat(["</script><script>alert(2)</script>", '" onload="alert(3)'], 50)
    page = render(make_series(100, names=("</script><img src=x onerror=alert(1)>",), entity=entity))
    reader = Reader(page)
    assert reader.scripts == 2
    assert "<img src=x" not in page
    assert 'onload="alert' not in page
    assert set(reader.figures) == {"timeline-0", "timeline-1", "scores", "p-values"}


def test_nothing_is_loaded_and_a_policy_forbids_it(table_page):
    reader = Reader(table_page)
    assert [load for load in reader.loads if not load.startswith("data:")] == []
    assert "default-src 'none'" in table_page
    assert "showSendToCloud: false" in table_page


def test_same_input_same_bytes(table, tmp_path):
    detector, found, labels = table
    one, two = tmp_path / "one.html", tmp_path / "deep" / "two.html"
    assert write_report(found, one, detector=detector, truth=labels) == one
    write_report(found, str(two), detector=detector, truth=labels)
    assert one.read_bytes() == two.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["one.html"]
    assert 4e6 < one.stat().st_size < 6e6


def test_date_is_shown_only_when_given(table, table_page):
    assert "2024-04-01" in Reader(table_page).words
    assert "Made with genad" in table_page
    _, found, _ = table
    assert "2024-04-01." not in Reader(render(found)).words


def test_unwritable_path_leaves_nothing(table, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(GenadError, match="cannot be written"):
        write_report(table[1], tmp_path / "folder")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


def test_detections_report_writes_the_same_page(table, tmp_path):
    _, found, _ = table
    path = found.report(tmp_path / "report.html")
    assert path.read_text(encoding="utf-8") == render(found)


def test_other_objects_are_refused():
    with pytest.raises(InputTypeError, match="a list was given; pass what detect"):
        render([1, 2])


def test_metrics_block(table, table_page):
    _, found, labels = table
    words = Reader(table_page).words
    block = quality(found, read_truth(found, labels))
    assert set(block.groups) == {"Ranking", "Flags", "Oracle"}
    assert block.groups["Ranking"][0].value > 0.95
    meaning = "AUROC a random anomaly scores above a random normal unit"
    assert f"{meaning} {block.groups['Ranking'][0].text}" in words
    assert "15 units labelled anomalous and 285 labelled normal" in words
    assert "The oracle figure saw the labels" in words


def test_series_metrics_know_time(series):
    labels = np.zeros(2000, int)
    labels[500:520] = labels[1400] = 1
    block = quality(series, read_truth(series, labels))
    assert set(block.groups) == {"Ranking", "Flags", "Events", "Oracle"}
    labels[0] = -1
    block = quality(series, read_truth(series, labels))
    assert "Events" not in block.groups
    assert any("unlabelled" in note for note in block.notes)


def test_metrics_need_both_classes(table):
    _, found, _ = table
    block = quality(found, read_truth(found, np.zeros(300)))
    assert block.groups == {}
    assert "need both classes" in block.notes[0]


def test_labels_follow_the_users_order(make_series):
    found = make_series(4)
    found.rows = np.array([2, 0, 3, 1])
    assert read_truth(found, [10 > 9, 0, 0, 0]).tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (np.zeros(3), r"truth: shape \(3,\) was given for 300 units"),
        (np.full(300, 2), "truth: .*2.* at position 0 is no label"),
        (np.array(["x"] * 300), "at position 0 is no label"),
    ],
)
def test_bad_labels_are_refused(table, truth, message):
    with pytest.raises(InputError, match=message):
        render(table[1], truth=truth)


def test_series_page_lists_events_and_links_them_to_the_curves(series):
    page = render(series)
    words = Reader(page).words
    events = series.events()
    assert f"in {len(events)} events" in words
    assert "2024-03-04 11:20 – 14:30" in words  # noqa: RUF001 - the dash of a span
    assert "20 steps" in words
    assert page.count('class="show"') == min(50, len(events))
    assert "flow 100 %" in words or "flow 99 %" in words


def test_series_without_flags_lists_its_highest_steps(make_series):
    found = make_series(100, rule=FixedValue(99.0))
    items, heading, note = top_items(found)
    assert (len(items), heading) == (20, "Top anomalies")
    assert note.endswith("None of them is flagged.")
    assert "None of 100 time steps flagged." in Reader(render(found)).words


def test_many_events_are_limited_and_said(make_series):
    found = make_series(2000, bad=[(k, k + 1) for k in range(10, 1900, 10)])
    items, _, note = top_items(found)
    assert len(items) == 50
    assert note.endswith("events are listed.")
    assert [float(item.score) for item in items] == sorted((float(i.score) for i in items), reverse=True)


def test_answer_without_maps_says_so(table):
    _, found, _ = table
    bare = Detections(found.scores, found.p_values, found.is_anomaly, found.threshold, Kind.TABLE)
    words = Reader(render(bare)).words
    assert "maps or restored values were left out" in words
    assert "Open one to see why" not in words


def test_empty_answer_is_a_page():
    nothing = np.empty(0)
    rule = FixedValue(1.0).fit([0.0])
    words = Reader(render(Detections(nothing, nothing, nothing.astype(bool), rule, Kind.TABLE))).words
    assert "None of 0 rows flagged." in words
    assert "There is nothing to list." in words


def images(shape):
    rng = np.random.default_rng(0)
    seen = rng.random((3, *shape))
    scores = np.array([0.1, 0.9, 0.2])
    rule = Conformal(0.5).fit([0.0, 0.3])
    kind = {2: Kind.WINDOW, 3: Kind.IMAGE, 4: Kind.VIDEO}[len(shape)]
    channels = shape[{2: 1, 3: 0, 4: 1}[len(shape)]]
    return Detections(
        scores, 1 - scores, scores > 0.3, rule, kind, maps=(seen - 0.5) ** 2, observed=seen,
        expected=np.full_like(seen, 0.5), names=[f"channel {c}" for c in range(channels)],
        bounds=np.full(channels, 0.2),
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 400, 200), (2, 9, 7), (4, 1, 8, 8)])
def test_images_and_clips_show_three_pictures(shape):
    items, _, _ = top_items(images(shape))
    assert [p.caption.split(",")[0] for p in items[0].pictures] == [
        "observed",
        "nearest normal",
        "where",
    ]
    assert all(p.source.startswith("data:image/png;base64,") for p in items[0].pictures)
    page = render(images(shape))
    assert page.count("<img src=") == 9
    assert ("top regions" if len(shape) == 3 else "top places") in page


def test_windows_show_their_curves():
    page = render(images((16, 5)))
    assert page.count('<polyline class="observed"') == 9


def test_png_holds_the_pixels():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    data = png(pixels)
    assert struct.unpack(">II", data[16:24]) == (4, 2)
    start = data.index(b"IDAT")
    size = struct.unpack(">I", data[start - 4 : start])[0]
    lines = np.frombuffer(zlib.decompress(data[start + 4 : start + 4 + size]), np.uint8).reshape(2, 13)
    assert (lines[:, 0] == 0).all()
    np.testing.assert_array_equal(lines[:, 1:].reshape(2, 4, 3), pixels)


def printed(found, **more):
    stream = io.StringIO()
    terminal_summary(found, Console(file=stream, width=120), **more)
    return " ".join(stream.getvalue().split())


def test_terminal_summary_of_a_table(table):
    _, found, _ = table
    text = printed(found, most=3)
    assert f"{int(found.is_anomaly.sum())} of 300 rows flagged" in text
    assert found.threshold.promise in text
    assert f"row {found.top(3)[2]}" in text
    assert f"row {found.top(4)[3]} " not in text


def test_terminal_summary_takes_markup_literally(make_series):
    text = printed(make_series(400, names=("[red]pump[/red]",), bad=[(100, 110)]))
    assert "[red]pump[/red] 100 %" in text
    assert "10 steps" in text
