"""`genad cybersecurity`: from a file to alerts."""

from __future__ import annotations

import numpy as np
import pytest

from genad.data.io import read_table

QUICK = ("--method", "nearest_memory", "--alpha", "0.05")


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Normal flows, flows with two kinds of attacks, and a table of their classes."""
    place = tmp_path_factory.mktemp("network")
    rng = np.random.default_rng(0)

    def lines(n, attacks):
        made = ["bytes,rate,service,id,attack"]
        for i in range(n):
            size = rng.lognormal(5, 1.5) * (1e6 if i < attacks // 2 else 1)
            service = "telnet" if attacks // 2 <= i < attacks else rng.choice(["http", "smtp"])
            name = "normal" if i >= attacks else "flood" if i < attacks // 2 else "guess"
            made.append(f"{size:.0f},{rng.uniform(0.2, 1):.3f},{service},{i},{name}")
        return "\n".join(made) + "\n"

    (place / "normal.csv").write_text(lines(300, 0))
    (place / "flows.csv").write_text(lines(200, 8))
    (place / "classes.csv").write_text("attack,class\nflood,DoS\nguess,R2L\n")
    return place


def test_from_files_to_report(network, tmp_path, genad_json):
    out = tmp_path / "out"
    answer = genad_json(
        *("cybersecurity", network / "flows.csv", "--train", network / "normal.csv", "--labels", "attack"),
        *("--classes", network / "classes.csv", "--drop", "id", "--alerts", 20, "-o", out, *QUICK),
    )
    assert answer["data"]["kind"] == "table"
    assert answer["data"]["labelled"] == {"anomalies": 8, "normal": 192}
    assert {row["name"]: row["flagged"] for row in answer["classes"]} == {"DoS": 1.0, "R2L": 1.0}
    assert 0 <= answer["false_alarms"] < 0.15
    assert answer["alert_figures"]["listed"] == len(answer["alerts"]) <= 20
    assert any("log scale" in note and "bytes" in note for note in answer["notes"])
    assert {path.name for path in out.iterdir()} == {"alerts.csv", "scores.csv", "report.html", "model.genad"}
    scores, alerts = read_table(out / "scores.csv"), read_table(out / "alerts.csv")
    assert len(scores) == 200
    assert {"score", "p_value", "is_anomaly", "top_feature", "alert", "why"} <= set(scores.names)
    assert {"row", "alike", "class", "feature", "observed", "expected", "usual", "share", "why"} <= set(alerts.names)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "By class of attack" in page
    assert "never in normal rows" in page


def test_model_scores_plain_files_as_the_job_did(network, tmp_path, genad):
    out = tmp_path / "out"
    genad(
        *("cybersecurity", network / "flows.csv", "--train", network / "normal.csv", "--labels", "attack"),
        *("--drop", "id", "-q", "-o", out, *QUICK),
    )
    genad(
        "score",
        network / "flows.csv",
        "-m",
        out / "model.genad",
        *("--drop", "id", "--drop", "attack"),
        "-o",
        out / "again.csv",
    )
    ours, again = read_table(out / "scores.csv"), read_table(out / "again.csv")
    np.testing.assert_array_equal(ours.column("score"), again.column("score"))


def test_summary_says_alerts_classes_and_the_choice(network, tmp_path, genad):
    said = genad(
        *("cybersecurity", network / "flows.csv", "--train", network / "normal.csv", "--labels", "attack"),
        *("--drop", "id", "--alerts", 2, "--no-group", "--set", "training.updates=30", "-o", tmp_path / "out"),
    ).stdout
    assert "300 flows of 2 numeric, 1 categorical columns" in said
    assert "Each flagged one is an alert of its own" in said
    assert "Alert 1" in said
    assert "flood: " in said
    assert "of the normal ones were flagged" in said


def test_without_labels_nothing_is_claimed(network, tmp_path, genad_json):
    answer = genad_json(
        *("cybersecurity", network / "normal.csv", "--drop", "id", "--drop", "attack", "--no-log-scale"),
        *("-o", tmp_path / "out", *QUICK),
    )
    assert answer["classes"] == []
    assert answer["false_alarms"] is None
    assert answer["alert_figures"]["precision"] is None
    assert not any("log scale" in note for note in answer["notes"])


def test_a_log(tmp_path, genad_json):
    said = np.random.default_rng(0).choice(["request {} done", "login of {} accepted", "cache of {} swept"], 400)
    lines = [f"2024-01-01 00:00:{i % 60:02d} INFO app: {said[i].format(i)}" for i in range(400)]
    (tmp_path / "calm.log").write_text("\n".join(lines) + "\n")
    lines[300:304] = ["2024-01-01 00:00:59 ERROR app: root shell opened by guest"] * 4
    (tmp_path / "app.log").write_text("\n".join(lines) + "\n")
    answer = genad_json(
        *("cybersecurity", tmp_path / "app.log", "--train", tmp_path / "calm.log", "--session", "lines=5"),
        *("--alpha", 0.1, "-o", tmp_path / "out"),
    )
    assert answer["data"]["kind"] == "log"
    assert "root shell" in answer["alerts"][0]["why"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--labels", "attack", "--normal", "fine"), "no row is called 'fine'"),
        (("--labels", "nowhere"), "neither a column"),
        (("--session", "line"), "only logs have it"),
        (("--labels", "attack", "--classes", "nowhere.csv"), "nowhere.csv"),
    ],
)
def test_bad_requests_say_the_mend(network, tmp_path, genad, options, said):
    result = genad("cybersecurity", network / "flows.csv", *options, "-o", tmp_path / "out", code=2)
    assert said in " ".join(result.stderr.split())
