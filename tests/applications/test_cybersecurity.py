"""Network flows and logs: names of attacks, log scales, the choice, classes, and the report."""

from __future__ import annotations

import numpy as np
import pytest

import genad
from genad import Detections, Kind
from genad.applications.cybersecurity import (
    answer_of,
    choose_for_security,
    class_recalls,
    investigate,
)
from genad.applications.security_reading import heavy_tailed, read_security
from genad.applications.security_report import alert_notes, class_notes, write_security_report
from genad.core.calibration import FittedThreshold
from genad.data.io import read_table
from genad.data.table import as_table
from genad.errors import DataWarning, InputError
from genad.report.alerts import AlertSection, with_alerts


def flows(n=600, attacks=12, seed=0):
    """Flows with heavy-tailed sizes; half of the attacks send a great deal, half are refused."""
    rng = np.random.default_rng(seed)
    made = {
        "bytes": np.round(rng.lognormal(5, 1.5, n)),
        "rate": rng.uniform(0.2, 1, n),
        "service": rng.choice(["http", "smtp"], n).astype(object),
        "attack": np.full(n, "normal", object),
    }
    half = attacks // 2
    made["bytes"][:half] *= 1e6
    made["service"][half:attacks] = "telnet"
    made["attack"][:half], made["attack"][half:attacks] = "flood", "guess"
    return made


CLASSES = {"flood": "DoS", "guess": "R2L"}


def test_names_become_labels_and_classes(tmp_path):
    data = flows()
    read = read_security(data, labels="attack", classes=CLASSES)
    assert read.learnt is read.given
    assert read.given.X.names == ["bytes", "rate", "service"]
    assert read.given.labels.tolist() == [1] * 12 + [0] * 588
    assert read.classes[[0, 6, 12]].tolist() == ["DoS", "R2L", "normal"]
    file = tmp_path / "classes.csv"
    file.write_text("name,class\nflood,DoS\n")
    again = read_security(data, labels="attack", classes=file)
    assert again.classes[[0, 6]].tolist() == ["DoS", "guess"]
    assert read_security(data, labels=data["attack"]).given.labels.sum() == 12


@pytest.mark.parametrize("name", ["normal", "Normal", "BENIGN", "normal.", "-"])
def test_what_normal_flows_are_called(name):
    read = read_security({"b": [1, 2, 3], "kind": [name, "worm", None]}, labels="kind")
    assert read.given.labels.tolist() == [0, 1, -1]
    assert read.classes.tolist() == [name, "worm", ""]


def test_another_name_for_normal():
    data = {"b": [1, 2, 3], "kind": ["fine", "normal", "worm"]}
    assert read_security(data, labels="kind", normal="fine").given.labels.tolist() == [0, 1, 1]
    with pytest.raises(InputError, match="no row is called 'good'; the names are fine, normal, worm"):
        read_security(data, labels="kind", normal="good")


def test_a_test_file_may_hold_nothing_but_attacks():
    normal, worms = {"b": [1, 2], "kind": ["normal", "normal"]}, {"b": [9], "kind": ["worm"]}
    read = read_security(worms, normal, labels="kind")
    assert (read.given.labels.tolist(), read.learnt.labels.tolist()) == ([1], [0, 0])
    with pytest.raises(InputError, match="no row is called"):
        read_security(worms, {"b": [1, 2]}, labels="kind")


def test_numbers_stay_labels():
    read = read_security({"b": [1, 2, 3], "bad": [0, 1, -1]}, labels="bad")
    assert (read.given.labels.tolist(), read.classes) == ([0, 1, -1], None)


def test_flows_with_time_stamps_stay_a_table():
    days = (np.datetime64("2024-01-01") + np.arange(5)).astype("datetime64[ns]")
    assert read_security({"day": days, "bytes": np.arange(5.0)}).given.kind is Kind.TABLE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "series"}, "network flows are a 'table'"),
        ({"session": "line"}, "session: only logs have it"),
        ({"labels": "nowhere"}, "neither a column"),
        ({"drop": ["nowhere"]}, "no column named 'nowhere'"),
        ({"labels": ["normal", "worm", "worm"]}, "3 names were given for 2 rows"),
    ],
)
def test_bad_requests(options, message):
    with pytest.raises(InputError, match=message):
        read_security({"b": [1, 2]}, **options)


def test_a_file_of_classes_needs_two_columns(tmp_path):
    file = tmp_path / "classes.csv"
    file.write_text("name\nflood\nworm\n")
    with pytest.raises(InputError, match="has one column; give two"):
        read_security(flows(), labels="attack", classes=file)


def test_heavy_tails_are_found_without_the_attacks():
    data = flows()
    table = as_table({name: data[name] for name in ("bytes", "rate", "service")})
    assert heavy_tailed(table) == ["bytes"]
    calm = as_table({"b": [*range(1, 101), 10_000], "minus": [-1, *[10**k % 977 for k in range(100)]]})
    assert heavy_tailed(calm) == ["b"]
    assert heavy_tailed(calm, np.r_[np.zeros(100, int), 1]) == []
    assert heavy_tailed(as_table({"b": [0.0, 0.0]})) == []


def test_log_scale_is_learnt_once_and_kept_in_the_file(tmp_path):
    data = flows()
    read = read_security(data, labels="attack")
    assert (read.logarithmic, read.learnt.X.logarithmic) == (["bytes"], {"bytes"})
    assert any("log scale" in note and "bytes" in note for note in read.learnt.notes)
    assert read_security(data, labels="attack", log_scale=False).logarithmic == []
    detector = genad.create("nearest_memory").fit(read.learnt.X, read.learnt.labels)
    plain = as_table({name: data[name] for name in read.given.X.names})
    scores = detector.anomaly_score(plain)  # no mark on it: the detector keeps to its scales
    np.testing.assert_array_equal(scores, detector.anomaly_score(read.given.X))
    detector.save(tmp_path / "m.genad")
    np.testing.assert_array_equal(scores, genad.load(tmp_path / "m.genad").anomaly_score(plain))
    restored = detector.restore(plain)
    # The nearest normal flow, in bytes and not in logarithms.
    assert set(restored.column("bytes").round(2)) <= set(data["bytes"][12:])


def test_choice_follows_the_data(monkeypatch):
    choice = choose_for_security(read_security(flows(), labels="attack"))
    assert choice.method == "table_committee"
    assert "600 flows of 2 numeric, 1 categorical columns" in choice.why
    monkeypatch.setattr("genad.applications.cybersecurity._MANY", 599)
    assert choose_for_security(read_security(flows(), labels="attack")).method == "denoising_autoencoder"


def test_a_log_is_read_as_one(tmp_path):
    said = np.random.default_rng(0).choice(["request {} done", "login of {} accepted", "cache of {} swept"], 400)
    lines = [f"2024-01-01 00:00:{i % 60:02d} INFO app: {said[i].format(i)}" for i in range(400)]
    calm = tmp_path / "calm.log"
    calm.write_text("\n".join(lines) + "\n")
    lines[300:304] = ["2024-01-01 00:00:59 ERROR app: root shell opened by guest"] * 4
    file = tmp_path / "app.log"
    file.write_text("\n".join(lines) + "\n")
    answer = investigate(file, calm, alerts=3, alpha=0.1, session="lines=5")
    assert answer.found.kind is Kind.LOG
    assert answer.choice.method == "template_count_pca"
    worst = answer.alerts[0]
    assert "root shell" in worst.why
    page = write_security_report(answer, tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.index('id="h-alerts"') < page.index('id="h-items"')
    assert "same events hold half" in page
    assert answer.alert_columns()["session"].tolist()[0] == worst.position
    assert {"why", "alert"} <= set(answer.columns())


@pytest.fixture(scope="module")
def answer():
    """The whole job on labelled flows."""
    train = flows(attacks=0, seed=1)
    return investigate(flows(), train, labels="attack", classes=CLASSES, method="nearest_memory", alerts=5, alpha=0.02)


def test_the_whole_job(answer):
    assert answer.choice is None
    assert {row.name: row.flagged for row in answer.classes} == {"DoS": 1.0, "R2L": 1.0}
    assert answer.false_alarms < 0.06
    assert {alert.differences[0].feature for alert in answer.alerts} >= {"bytes", "service"}
    assert answer.figures.top_precision == 1.0
    assert 0 < answer.figures.listed <= 5
    assert answer.found.p_values.min() > 0


def test_answer_in_columns(answer):
    by_row, by_alert = answer.columns(), answer.alert_columns()
    flagged = answer.found.is_anomaly
    assert all(bool(text) == bool(flag) for text, flag in zip(by_row["why"], flagged, strict=True))
    listed = [i for alert in answer.alerts for i in alert.positions]
    assert sorted(np.flatnonzero(by_row["alert"] != "").tolist()) == sorted(listed)
    assert by_row["why"][8].startswith("service is telnet, expected ")
    assert "never in normal rows" in by_row["why"][8]
    assert by_alert["alike"].tolist() == [len(alert.positions) for alert in answer.alerts]
    assert set(by_alert["class"]) <= {"DoS", "R2L", "normal"}
    assert (np.diff(by_alert["score"]) <= 0).all()


def test_report_has_alerts_and_classes(answer, tmp_path):
    labels = (answer.names != "normal").astype(int)
    page = write_security_report(answer, tmp_path / "deep" / "r.html", truth=labels).read_text(encoding="utf-8")
    assert page.index('id="h-alerts"') < page.index("By class of attack") < page.index('id="h-items"')
    assert page.count("</html>") == 1
    assert "never in normal rows" in page
    for note in [*alert_notes(answer), *class_notes(answer)]:
        assert note in page
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["r.html"]


def test_hostile_names_are_escaped(tmp_path):
    data = flows()
    data["attack"][:6] = "<script>alert(1)</script>"
    data["service"][6:12] = '<section aria-labelledby="h-items">'
    found = investigate(data, labels="attack", method="nearest_memory", alpha=0.05)
    page = write_security_report(found, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page
    assert page.count('<section aria-labelledby="h-items">') == 1


def test_no_page_no_alerts():
    with pytest.raises(InputError, match="no list of anomalies"):
        with_alerts("<p>nothing</p>", AlertSection([], []))


def test_nothing_flagged_is_said(answer):
    calm = Detections(
        np.zeros(3), np.ones(3), np.zeros(3, bool), FittedThreshold(1.0, "FixedValue", "", n=0), Kind.TABLE
    )
    said = answer_of(calm, read_security({"b": [1, 2, 3]}), alerts=2)
    assert alert_notes(said) == ["No row is flagged, so there is nothing to read."]
    assert class_notes(said) == []
    assert said.alert_columns()["alert"].shape == (0,)


def test_class_recalls_at_both_thresholds():
    scores = np.r_[np.arange(100.0), 98.5, 99.5, 50.5, 200.0]
    fixed = FittedThreshold(150.0, "FixedValue", "", n=0)
    found = Detections(scores, 1 / (1 + scores), scores > 150, fixed, Kind.TABLE)
    labels = np.r_[np.zeros(100, int), 1, 1, 1, 1]
    names = np.array(["normal"] * 100 + ["DoS", "DoS", "Probe", "DoS"], object)
    rows = {row.name: row for row in class_recalls(found, labels, names)}
    assert rows["DoS"].flagged == pytest.approx(1 / 3)
    assert rows["DoS"].at_one_percent == 1.0  # only 99 of the normal scores is above 98.5
    assert (rows["Probe"].flagged, rows["Probe"].at_one_percent) == (0.0, 0.0)
    assert class_recalls(found, np.ones(104, int)) == []
    assert [row.name for row in class_recalls(found, labels)] == ["attack"]


def test_nsl_kdd(data_dir):
    """A memory of 4,000 normal flows of NSL-KDD, on a log scale, ranks 3,000 flows of its test set."""
    from genad.metrics import evaluate

    train, test = (read_table(data_dir / "cyber" / f"nslkdd_{part}.parquet") for part in ("train20", "test"))
    rng = np.random.default_rng(0)
    normal = np.flatnonzero(train.column("label") == 0)
    train = train.take(rng.permutation(normal)[:4000])
    test = test.take(rng.permutation(len(test))[:3000])
    read = read_security(test, train, labels="attack", drop=["label", "difficulty"])
    assert {"src_bytes", "dst_bytes", "duration"} <= set(read.logarithmic)
    plain = read_security(test, train, labels="attack", drop=["label", "difficulty"], log_scale=False)
    figures = []
    for data in (read, plain):
        with pytest.warns(DataWarning, match="constant columns"):
            detector = genad.create("nearest_memory").fit(data.learnt.X)
        figures.append(evaluate(data.given.labels, detector.anomaly_score(data.given.X))["auroc"])
    reached, before = figures
    assert reached > 0.95
    assert reached > before
