"""The report in a real browser: charts drawn, no errors, no overflow, both themes."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest

import genad
from genad.core.log_detections import LogDetections
from genad.data.log import Log
from genad.report.page import render

pytestmark = pytest.mark.browser

_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=20000",
    "--window-size=1200,1000",
]

# The page stands in a frame of the width to be tested, because a headless window has a least width.
_PROBE = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<iframe id="frame" style="border:0;width:%dpx;height:900px" srcdoc="%s"></iframe>
<pre id="found"></pre>
<script>
const frame = document.getElementById("frame");
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
async function until(test) { for (let k = 0; k < 200 && !test(); k++) await pause(50); }
function look(page, view) {
  const root = page.documentElement;
  const shown = [...page.querySelectorAll(".chart")].filter((c) => !c.closest("[hidden]"));
  return {
    drawn: root.dataset.drawn || "",
    problems: page.getElementById("problems").textContent,
    charts: shown.length,
    plotted: shown.filter((c) => c.querySelector("svg.main-svg path")).length,
    width: root.clientWidth,
    content: root.scrollWidth,
    paper: view.getComputedStyle(page.body).backgroundColor,
    lines: [...page.querySelectorAll(".lines .js-line")].map((l) => l.style.stroke),
    buttons: [...page.querySelectorAll(".modebar-btn")].map((b) => b.dataset.title),
    unresolved: shown.filter((c) => JSON.stringify([c.data, c.layout]).includes("var(--")).length,
  };
}
frame.onload = async () => {
  const page = frame.contentDocument, view = frame.contentWindow;
  const problems = page.getElementById("problems");
  await until(() => page.documentElement.dataset.drawn || problems.textContent);
  page.querySelectorAll("details").forEach((d) => { d.open = true; });
  await pause(200);
  const looks = [look(page, view)];
  page.getElementById("theme").click();
  await pause(1500);
  looks.push(look(page, view));
  %s
  document.getElementById("found").textContent = JSON.stringify(looks);
};
</script>"""


@pytest.fixture(scope="module")
def chromium():
    """Path of the browser; without one the tests are skipped, or fail where CI promises it."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        message = "no Chromium was found; install the package chromium to run the browser tests"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.fixture
def browse(chromium, tmp_path):
    """Return a function that opens a report at a width and looks at it in both themes."""

    def run(page, width, then="", dark=False):
        (tmp_path / "probe.html").write_text(_PROBE % (width, html.escape(page), then), encoding="utf-8")
        extra = ["--blink-settings=preferredColorScheme=0"] if dark else []
        done = subprocess.run(
            [
                chromium,
                *_FLAGS,
                *extra,
                f"--user-data-dir={tmp_path / 'profile'}",
                "--dump-dom",
                (tmp_path / "probe.html").as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        text = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL).group(1)
        assert text, f"the page did not load: {done.stderr[-2000:]}"
        return json.loads(html.unescape(text))

    return run


def check(looks, charts):
    for look in looks[:2]:
        assert look["problems"] == ""
        assert look["drawn"] == "yes"
        assert (look["charts"], look["plotted"]) == (charts, charts)
        assert look["content"] <= look["width"]
        assert look["unresolved"] == 0
    assert looks[0]["paper"] != looks[1]["paper"]
    assert looks[0]["lines"] != looks[1]["lines"]


@pytest.mark.parametrize("width", [390, 1100])
def test_table_report_in_both_themes(browse, table, width):
    detector, found, labels = table
    looks = browse(render(found, detector=detector, truth=labels), width)
    check(looks, charts=2)
    assert looks[0]["width"] == width


@pytest.mark.parametrize("width", [390, 1100])
def test_series_report_in_both_themes(browse, series, width):
    labels = np.zeros(2000, int)
    labels[500:520] = 1
    check(browse(render(series, truth=labels), width), charts=3)


@pytest.mark.parametrize("width", [390, 1100])
def test_log_report_in_both_themes(browse, width):
    usual = [["open", "read", "close"], ["open", "read", "read", "close"]] * 300
    learnt = Log.from_messages([f"{step} of blk_{i}" for i, steps in enumerate(usual) for step in steps])
    odd = [f"{step} of blk_{i}" for i in range(40) for step in ("open", "<b>panic</b> " + "x" * 300, "close")]
    time = np.datetime64("2024-01-31") + np.arange(len(odd)) * np.timedelta64(1, "m")
    judged = Log.from_messages(odd, time=time, miner=learnt.miner).sessions()
    detector = genad.create("directly_follows").fit(learnt)
    found = LogDetections.of(detector.detect(judged), judged, detector)
    check(browse(render(found, detector=detector), width), charts=3)


def test_no_button_sends_data_away(browse, series):
    looks = browse(render(series), 1100)
    assert set(looks[0]["buttons"]) == {
        "Download plot as a PNG",
        "Zoom",
        "Pan",
        "Reset axes",
    }


def test_system_theme_is_followed(browse, make_series):
    page = render(make_series(100))
    light, dark = browse(page, 800), browse(page, 800, dark=True)
    assert light[0]["paper"] == dark[1]["paper"] == "rgb(246, 246, 243)"
    assert dark[0]["paper"] == light[1]["paper"] == "rgb(19, 22, 26)"


def test_choosing_an_entity_and_showing_an_event(browse, make_series):
    entity = np.repeat(["north", "</script>"], 300)
    page = render(make_series(600, entity=entity, bad=[(100, 110), (450, 451)]))
    looks = browse(
        page,
        1100,
        """for (const label of ["</scr" + "ipt>", "north"]) {
    page.querySelector(`.show[data-entity="${label}"]`).click();
    await pause(1500);
    const chart = page.querySelector(".timeline:not([hidden]) .chart");
    const chosen = page.getElementById("entity").selectedOptions[0].textContent.trim();
    const { label: drawn } = chart.parentElement.dataset;
    looks.push({ label: drawn, chosen, range: chart.layout.xaxis.range });
  }""",
    )
    check(looks, charts=3)
    assert looks[2] == {"label": "</script>", "chosen": "</script>", "range": [430, 470]}
    assert looks[3] == {"label": "north", "chosen": "north", "range": [80, 129]}
