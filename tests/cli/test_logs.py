"""Logs and language models on the command line."""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

from genad.data.io import read_table

PLAIN = ("--no-report", "--session", "id")


@pytest.fixture(scope="module")
def loopback():
    """The module with the misbehaving service of the tests of the foundation."""
    path = Path(__file__).parent.parent / "foundation" / "loopback.py"
    spec = importlib.util.spec_from_file_location("loopback", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def job_lines(n, odd=(), first=0):
    lines = []
    for i in range(n):
        steps = ["open", *(["panic, disk failed"] if i in odd else ["read"] * (1 + i % 3)), "close"]
        for k, step in enumerate(steps):
            stamp = str(np.datetime64("2024-01-31 13:00:00") + np.timedelta64(60 * i + k, "s")).replace("T", " ")
            lines.append(f"{stamp},000 INFO [main] app.Job - {step} of blk_{first + i}")
    return lines


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """A log of normal jobs, one with two odd jobs, and its labels."""
    place = tmp_path_factory.mktemp("logs")
    (place / "normal.log").write_text("\n".join(job_lines(600, first=1000)) + "\n")
    (place / "app.log").write_text("\n".join(job_lines(120, odd=(40, 77))) + "\n")
    marks = [f"blk_{i},{'Anomaly' if i in (40, 77) else 'Normal'}" for i in range(120)]
    (place / "anomaly_label.csv").write_text("\n".join(["BlockId,Label", *marks]) + "\n")
    with gzip.open(place / "packed.log.gz", "wt") as file:
        file.write((place / "app.log").read_text())
    records = [{"ts": line[:23], "level": "INFO", "msg": line[45:]} for line in job_lines(120, odd=(40, 77))]
    (place / "app.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n")
    return place


@pytest.fixture(scope="module")
def judged(logs, genad_json, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    counts = ("--method", "template_count_pca")
    at = ("detect", logs / "app.log", "--train", logs / "normal.log", "--labels", logs / "anomaly_label.csv")
    return out, genad_json(*at, "-o", out, *counts)


# ---------------------------------------------------------------------- from a log to an answer


def test_a_log_is_judged_in_one_command(judged):
    out, facts = judged
    data = facts["data"]
    assert (data["kind"], data["layout"], data["sessions"], data["unseen_lines"]) == ("log", "log4j", 120, 2)
    assert (data["labelled"], facts["train"]["sessions"]) == ({"anomalies": 2, "normal": 118}, 600)
    assert facts["against_labels"]["auroc"] == 1.0
    assert {unit["session"] for unit in facts["top"][:2]} == {"blk_40", "blk_77"}
    top = facts["top"][0]
    assert top["why"][0].startswith("never learnt: 'panic, disk failed of blk_<*>' (line ")
    assert top["first_line"] <= int(re.search(r"line (\d+)", top["why"][0]).group(1)) <= top["last_line"]
    assert sorted(event["peak"]["session"] for event in facts["events"]) == ["blk_40", "blk_77"]
    scores = read_table(out / "scores.csv")
    assert scores.names == [
        "session", "first_line", "last_line", "events", "start", "end", "score", "p_value", "is_anomaly", "why",
    ]  # fmt: skip
    assert len(scores) == 120
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "What was read" in page
    assert "New templates" in page


def test_a_normal_log_with_ids_lets_the_order_be_learnt(logs, genad_json, tmp_path):
    at = ("detect", logs / "app.log", "--train", logs / "normal.log", "-o", tmp_path, *PLAIN)
    facts = genad_json(*at, "--set", "training.updates=60", "--set", "hidden=16")
    assert facts["detector"]["name"] == "deep_log"
    assert "600 normal sessions" in facts["detector"]["why"]
    assert {unit["session"] for unit in facts["top"][:2]} == {"blk_40", "blk_77"}
    assert any("was expected" in why for why in facts["top"][0]["why"])


def test_the_same_log_packed_as_json_lines_and_from_a_pipe(logs, genad_json, tmp_path):
    plain = genad_json("detect", logs / "app.log", "-o", tmp_path, *PLAIN)
    assert plain["detector"]["name"] == "template_count_pca"
    assert "suffer least" in plain["detector"]["why"]
    found = [
        genad_json("detect", logs / "packed.log.gz", "-o", tmp_path, *PLAIN),
        genad_json("detect", logs / "app.jsonl", "-o", tmp_path, *PLAIN),
        genad_json("detect", "-", "--kind", "log", "-o", tmp_path, *PLAIN, stdin=(logs / "app.log").read_text()),
    ]
    scores = [[unit["score"] for unit in facts["top"]] for facts in (plain, *found)]
    assert scores[0] == scores[1] == scores[2] == scores[3]
    assert found[2]["data"]["path"] == "standard input"


def test_sessions_as_asked_for(logs, genad_json, tmp_path):
    at = ("detect", logs / "app.log", "-o", tmp_path, "--no-report", "--method", "template_count_pca")
    assert genad_json(*at, "--session", "lines=10")["data"]["longest_session"] == 10
    by_line = genad_json(*at, "--session", "line")
    assert (by_line["data"]["longest_session"], by_line["top"][0]["events"]) == (1, 1)
    assert genad_json(*at, "--session", "gap=30")["data"]["sessions"] == 120


def test_a_summary_for_people(logs, genad, tmp_path):
    at = ("detect", logs / "app.log", "--train", logs / "normal.log", "-o", tmp_path, "--method", "template_count_pca")
    said = " ".join(genad(*at).stdout.split())
    assert "messages (log4j)" in said
    assert "2 messages of unseen templates; a log" in said
    assert "Look at blk_" in said
    assert "never learnt: 'panic, disk failed" in said


# ---------------------------------------------------------------------- a model file


@pytest.fixture(scope="module")
def log_model(logs, genad, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "log.genad"
    genad("fit", logs / "normal.log", "-m", path, "--method", "directly_follows")
    return path


def test_a_model_scores_explains_and_restores_logs(logs, genad, genad_json, log_model, tmp_path):
    genad("score", logs / "app.log", "-m", log_model, "-o", tmp_path / "scores.csv")
    scores = read_table(tmp_path / "scores.csv")
    flagged = set(np.array(scores.column("session"))[np.array(scores.column("is_anomaly")) == True])  # noqa: E712
    assert {"blk_40", "blk_77"} <= flagged
    told = genad("explain", logs / "app.log", "-m", log_model, "--row", "40").stdout
    assert told.startswith("row 40, blk_40 (lines ")
    assert "why: never learnt: 'panic, disk failed of blk_<*>'" in told
    assert "expected read of blk_<*>" in told
    facts = genad_json("explain", logs / "app.log", "-m", log_model, "--row", "40", "--top", "1")
    assert facts["session"] == "blk_40"
    assert len(facts["parts"]) == 1
    genad("restore", logs / "app.log", "-m", log_model, "-o", tmp_path / "restored.csv")
    restored = read_table(tmp_path / "restored.csv")
    mine = np.array(restored.column("session")) == "blk_40"
    assert np.array(restored.column("restored"))[mine].tolist()[1] == "read of blk_<*>"


def test_counts_are_restored_a_row_a_session(logs, genad, tmp_path):
    path = tmp_path / "counts.genad"
    genad("fit", logs / "normal.log", "-m", path, "--method", "ppca", "--kind", "log")
    genad("restore", logs / "app.log", "-m", path, "-o", tmp_path / "restored.csv")
    restored = read_table(tmp_path / "restored.csv")
    assert len(restored) == 120
    assert restored.names[0] == "session"


# ---------------------------------------------------------------------- language models


@pytest.fixture(scope="module")
def service(loopback):
    """A service that calls lines that tell of a failure abnormal, and asks for a key."""

    def answer(body):
        text = body["messages"][-1]["content"]
        slots = re.findall(r"^\((\d+)\)(.*)$", text.split("<<<lines")[-1], re.MULTILINE)
        if not slots:
            slots = re.findall(r"^(?:\()?(\d+)[).] ?(.*)$", text, re.MULTILINE)
        return "\n".join(
            f"({number}){'abnormal-it says a disk failed' if 'failed' in line else 'normal-usual work'}"
            for number, line in slots
        )

    with loopback.Loopback(answer, models=("tiny",), key="sk-right") as running:
        yield running


@pytest.fixture
def ask(logs, service, monkeypatch):
    """Return the options of a method that asks the service in words."""
    monkeypatch.setenv("RIGHT_KEY", "sk-right")
    monkeypatch.setenv("WRONG_KEY", "sk-wrong-but-secret")
    method = ("--method", "logprompt", "--set", "score_by=label", "--set", "ceiling=400")
    return ("detect", logs / "app.log", *method, "--llm", service.base_url)


def test_a_service_judges_and_gives_reasons(ask, genad_json, service, tmp_path):
    facts = genad_json(*ask, "--llm-model", "tiny", "--llm-key-env", "RIGHT_KEY", "-o", tmp_path)
    assert facts["detector"]["name"] == "log_prompt"
    assert {unit["session"] for unit in facts["top"][:2]} == {"blk_40", "blk_77"}
    assert "it says a disk failed" in facts["top"][0]["why"][0]
    assert facts["model_answers"]["ok"] == 120
    assert "it says a disk failed" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "sk-right" not in "".join(
        path.read_bytes().decode("latin-1") for path in tmp_path.iterdir() if path.is_file()
    )
    before = len(service.requests)
    again = genad_json(*ask, "--llm-model", "tiny", "--llm-key-env", "RIGHT_KEY", "-o", tmp_path, "--no-report")
    assert len(service.requests) == before
    assert again["top"] == facts["top"]


def test_a_spent_budget_gives_a_marked_partial_answer_that_goes_on(ask, genad, genad_json, service, tmp_path):
    at = (*ask, "--llm-model", "tiny", "--llm-key-env", "RIGHT_KEY", "-o", tmp_path, "--no-report")
    first = genad(*at, "--llm-budget", "100", "--json")
    facts = json.loads(first.stdout)
    assert facts["model_answers"]["unasked"] > 0
    assert "Run the same command again with a larger --llm-budget" in first.stderr
    scores = read_table(tmp_path / "scores.csv")
    assert "unasked" in scores.column("status").tolist()
    spent = len(service.requests)
    rest = genad_json(*at)
    assert "unasked" not in rest["model_answers"]
    assert len(service.requests) > spent
    assert {unit["session"] for unit in rest["top"][:2]} == {"blk_40", "blk_77"}


def test_a_wrong_key_is_never_shown(ask, genad, tmp_path):
    result = genad(*ask, "--llm-model", "tiny", "--llm-key-env", "WRONG_KEY", "-o", tmp_path, code=5)
    assert "genad: --llm-key-env: a key is not accepted" in result.stderr
    assert "sk-wrong" not in result.stderr
    debugged = genad(*ask, "--llm-model", "tiny", "--llm-key-env", "WRONG_KEY", "-o", tmp_path, "--debug", code=5)
    assert "sk-wrong" not in debugged.stderr


def test_a_model_the_service_does_not_know(ask, genad, tmp_path):
    at = (*ask, "--llm-key-env", "RIGHT_KEY", "-o", tmp_path)
    assert "--llm-model: 'huge' is not known" in genad(*at, "--llm-model", "huge", code=5).stderr
    assert "--llm-model: none was given" in genad(*at, code=2).stderr


def test_a_service_that_is_not_there(logs, genad, tmp_path, monkeypatch):
    monkeypatch.setattr("genad.foundation.backoff.Backoff.wait", lambda *_: 0.0)  # asked as often, without the pauses
    model = ("--method", "logprompt", "--llm", "http://127.0.0.1:9", "--llm-model", "x")
    result = genad("detect", logs / "app.log", *model, "-o", tmp_path / "out", code=5)
    said = [line for line in result.stderr.splitlines() if not line.startswith("note: ")]
    assert len(said) == 1
    assert said[0].startswith("genad: --llm: http://127.0.0.1:9 cannot be reached")
    assert said[0].endswith("start the service there, or give another address.")
    assert result.stdout == ""
    # The store of answers is whole, and empty; nothing of a result is there.
    assert all(path.name.startswith("llm-cache.sqlite") for path in tmp_path.rglob("*") if path.is_file())
    genad("fit", logs / "app.log", *model, "-m", tmp_path / "m.genad", code=5)
    assert not (tmp_path / "m.genad").exists()


def test_a_model_that_is_not_there(logs, genad, tmp_path):
    at = ("detect", logs / "app.log", "--method", "log_prompt", "-o", tmp_path, "--llm-model", "x")
    assert "--llm: 'nowhere.gguf' is neither an address" in genad(*at, "--llm", "nowhere.gguf", code=2).stderr


def test_methods_that_ask_no_model_say_so(logs, genad, tmp_path):
    result = genad("detect", logs / "app.log", "--llm", "http://127.0.0.1:9/v1", "-o", tmp_path, code=2)
    assert "--llm: template_count_pca asks no language model" in result.stderr
    assert "log_prompt" in result.stderr


# ---------------------------------------------------------------------- bad input


BAD = {
    "binary": ("bytes.log", b"\0\1\2" * 500, (), "is a binary file"),
    "blank": ("blank.log", b"\n\n\n", (), "blank lines only"),
    "layout": ("app.log", b"", ("--layout", "sislog"), "layout: 'sislog' is not known"),
    "session": ("app.log", b"", ("--session", "lines=few"), "session: 'lines=few' was given"),
    "labels": ("app.log", b"", ("--labels", "nowhere.csv"), "fit neither the ids"),
    "columns": ("app.log", b"", ("--drop", "a"), "drop: a log has no columns"),
    "size": ("app.log", b"", ("--size", "64"), "size: only images have it"),
    "year": ("app.log", b"", ("--year", "12"), "--year"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case, logs, genad, tmp_path):
    name, content, options, said = BAD[case]
    path = tmp_path / name if content else logs / name
    if content:
        path.write_bytes(content)
    result = genad("detect", path, *options, "-o", tmp_path / "out", code=2)
    assert said in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.stderr


def test_odd_lines_are_read_and_noted(logs, genad, tmp_path):
    lines = [line.encode() for line in job_lines(60)]
    lines[5] = "2024-01-31 13:05:00,000 INFO [main] app.Job - Gerät read of blk_1".encode("cp1252")
    lines[9] = b"2024-01-31 13:06:00,000 INFO [main] app.Job - " + b"x" * 200_000
    lines[12] = lines[2]
    (tmp_path / "odd.log").write_bytes(b"\n".join(lines) + b"\n")
    notes = genad("detect", tmp_path / "odd.log", "-o", tmp_path / "out").stderr
    assert "1 lines are not valid utf-8 and were read as Windows-1252" in notes
    assert "1 lines were cut to their first" in notes
    assert "the clock goes backwards" in notes
    assert "records belong to no session" in notes
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "x" * 700 not in page


def test_a_metric_is_judged_by_the_local_language_model(genad_json, tmp_path):
    from genad.errors import MissingExtraError
    from genad.foundation.gguf import smollm2_path

    try:
        smollm2_path()
    except MissingExtraError as error:
        pytest.skip(str(error))
    t = np.arange(120)
    values = 10 + 3 * np.sin(t / 3)
    values[70] += 9
    start = np.datetime64("2024-01-01T00:00")
    rows = [f"{start + np.timedelta64(int(i), 'h')},{value:.3f}" for i, value in zip(t, values, strict=True)]
    (tmp_path / "metric.csv").write_text("\n".join(["time,load", *rows]) + "\n")
    facts = genad_json(
        "detect", tmp_path / "metric.csv", "--method", "sigllm", "--window", "30", "-o", tmp_path / "out",
        "--no-report",
    )  # fmt: skip
    assert facts["detector"]["name"] == "sig_llm"
    assert facts["data"]["kind"] == "series"
    assert facts["top"][0]["row"] in range(69, 74)


def test_methods_of_logs_are_listed(genad):
    names = genad("list", "--kind", "log").stdout
    assert "log_prompt" in names
    assert "template_count_pca" in names
    assert "Kinds of data: log." in genad("info", "deep_log").stdout
