"""Reading the logs of a job: what is a log, how it is grouped, its labels, and which method is chosen for it."""

from __future__ import annotations

import gzip
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest

import genad
from genad.applications.choosing import choose_for_log
from genad.applications.data import Data
from genad.applications.detection import choice_for, detect, kind_for
from genad.applications.logs import is_log_source, is_process_source, parse_session, read_log_data, read_log_job
from genad.applications.reading import read, read_both
from genad.core.log_detections import LogDetections
from genad.data.kinds import Kind
from genad.data.log import Log, Sessions
from genad.errors import InputError
from genad.metrics import evaluate

STEPS = ("open", "read", "close")


def job_lines(n, odd=(), first=0, start="2024-01-31 13:00:00"):
    """Lines of n jobs with an id each; an odd one panics in place of its read."""
    begin = np.datetime64(start)
    lines = []
    for i in range(n):
        steps = [*STEPS[:1], *(["panic"] if i in odd else ["read"] * (1 + i % 3)), *STEPS[2:]]
        for k, step in enumerate(steps):
            stamp = str(begin + np.timedelta64(60 * i + k, "s")).replace("T", " ")
            lines.append(f"{stamp},000 INFO [main] app.Job - {step} file of job_id={first + i:04d}x done")
    return lines


def put(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def app(tmp_path):
    return put(tmp_path / "app.log", job_lines(120, odd=(40, 77)))


BY_JOB = {"by": "id", "pattern": r"job_id=(\w+)"}


# ---------------------------------------------------------------------- what is a log


def test_logs_are_known_by_name_or_by_their_lines(tmp_path, app):
    assert is_log_source(app)
    assert is_log_source(put(tmp_path / "notes.txt", job_lines(5)))
    assert is_log_source(put(tmp_path / "nohup.out", job_lines(5)))
    assert not is_log_source(put(tmp_path / "poem.txt", ["roses are red", "violets are blue"]))
    assert not is_log_source(put(tmp_path / "table.csv", job_lines(5)))
    assert not is_log_source("-")
    assert is_log_source("-", "log")
    assert not is_log_source(app, "table")
    assert not is_log_source(np.zeros(3))


def test_a_text_of_dated_measurements_stays_a_table(tmp_path):
    rows = [f"2024-01-31 13:00:{i:02d},{i},{i * 2}" for i in range(30)]
    assert not is_log_source(put(tmp_path / "metric.txt", rows))


def test_json_lines_are_a_log_by_what_they_hold(tmp_path):
    messages = [json.dumps({"ts": i, "level": "INFO", "msg": f"job {i} done"}) for i in range(30)]
    rows = [json.dumps({"ts": i, "load": 1.5, "event": "a"}) for i in range(30)]
    assert is_log_source(put(tmp_path / "app.jsonl", messages))
    assert not is_log_source(put(tmp_path / "metric.jsonl", rows))
    assert read(tmp_path / "metric.jsonl").kind in (Kind.TABLE, Kind.SERIES)
    assert read(tmp_path / "app.jsonl").X.log.layout == "JSON lines"


def test_a_folder_of_logs_is_one_log_in_the_order_of_time(tmp_path):
    put(tmp_path / "logs" / "app.log", job_lines(30, first=30, start="2024-02-02 00:00:00"))
    with gzip.open(tmp_path / "logs" / "app.log.1.gz", "wt") as file:
        file.write("\n".join(job_lines(30)) + "\n")
    (tmp_path / "logs" / "readme.md").write_text("no log")
    assert is_log_source(tmp_path / "logs")
    data = read_log_data(tmp_path / "logs", session=BY_JOB)
    assert len(data.X) == 60
    assert data.X.names[0] == "0000x"
    assert set(data.X.log.fields["file"]) == {"app.log", "app.log.1.gz"}
    assert np.all(np.diff(data.X.log.time.astype(np.int64)) >= 0)
    assert len(np.unique(data.X.events)) == 3
    assert "2 files were read as one log" in " ".join(data.notes)


def test_a_folder_without_a_log_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    assert not is_log_source(tmp_path / "empty")
    with pytest.raises(InputError, match="holds no log"):
        read_log_data(tmp_path / "empty")


def test_standard_input(app, monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(app.read_bytes())))
    data = read("-", kind="log", session="line")
    assert len(data.X) == len(data.X.log)
    assert data.X.log.source == "standard input"
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"\0\1\2\3" * 100)))
    with pytest.raises(InputError, match="standard input is a binary file"):
        read("-", kind="log")


# ---------------------------------------------------------------------- grouping


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (None, {}),
        ("line", {"by": "line"}),
        ("id", {"by": "id"}),
        ([r"id=job=(\d+)"], {"by": "id", "pattern": r"job=(\d+)"}),
        (["field=host"], {"field": "host"}),
        (["lines=30"], {"lines": 30}),
        (["seconds=2.5", "missing=own"], {"seconds": 2.5, "missing": "own"}),
        (["gap=30", "field=host"], {"by": "gap", "seconds": 30.0, "field": "host"}),
        ({"lines": 5}, {"lines": 5}),
    ],
)
def test_words_for_sessions(words, options):
    assert parse_session(words) == options


@pytest.mark.parametrize("word", ["lines=few", "lines", "colour=red", "gap=", "=3"])
def test_wrong_words_for_sessions(word):
    with pytest.raises(InputError, match=r"session: .* was given; use line, id"):
        parse_session(word)


def test_sessions_by_a_known_id_else_windows_of_20_lines(tmp_path, app):
    by_window = read(app)
    assert by_window.X.lengths.max() == 20
    assert "windows of 20 lines" in by_window.notes[-1]
    blocks = [line.replace("job_id=", "blk_").replace("x done", " done") for line in app.read_text().splitlines()]
    assert len(read(put(tmp_path / "hdfs.log", blocks)).X) == 120


def test_what_is_judged_is_grouped_and_matched_as_what_was_learnt(tmp_path, app):
    normal = put(tmp_path / "normal.log", job_lines(150, first=500, start="2024-01-01 00:00:00"))
    given, learnt = read_both(app, normal, session=BY_JOB)
    assert (len(given), len(learnt)) == (120, 150)
    assert given.X.log.miner is learnt.X.log.miner
    assert int(given.X.log.unseen.sum()) == 2
    # Nothing in the lines to judge says how to group them, so the rule of the others holds.
    blocks = put(tmp_path / "blocks.log", [f"INFO: got block blk_{i} of {i}" for i in range(50)])
    with pytest.raises(InputError, match="no known id"):
        read_log_job(app, blocks)


# ---------------------------------------------------------------------- labels


def test_labels_in_a_file_of_ids(tmp_path, app):
    marks = ["JobId,Label", *(f"{i:04d}x,{'Anomaly' if i in (40, 77) else 'Normal'}" for i in range(100))]
    labels = put(tmp_path / "anomaly_label.csv", marks)
    data = read(app, labels=labels, session=BY_JOB)
    assert np.flatnonzero(data.labels == 1).tolist() == [40, 77]
    assert (data.labels[100:] == -1).all()
    normal = put(tmp_path / "normal.log", job_lines(150, first=500))
    given, learnt = read_both(app, normal, labels=str(labels), session=BY_JOB)
    assert given.labels.sum() + (given.labels == -1).sum() == 2
    assert learnt.labels is None


def test_labels_of_lines_make_labels_of_sessions(data_dir):
    data = read(data_dir / "logs" / "bgl_2k.log", labels="label", session="lines=10")
    by_line = read(data_dir / "logs" / "bgl_2k.log", labels="label", session="line")
    assert int(by_line.labels.sum()) == 143
    np.testing.assert_array_equal(data.labels, by_line.labels.reshape(-1, 10).max(1))
    given = read(data_dir / "logs" / "bgl_2k.log", labels=by_line.labels, session="lines=10")
    np.testing.assert_array_equal(given.labels, data.labels)


def test_labels_that_fit_nothing(tmp_path, app):
    with pytest.raises(InputError, match=r"'worse' fit neither .* \(it has line, time, level"):
        read(app, labels="worse")
    with pytest.raises(InputError, match="3 labels fit neither"):
        read(app, labels=np.array([0, 1, 0]))
    with pytest.raises(InputError, match="nothing that means normal"):
        read(app, labels="message")


# ---------------------------------------------------------------------- what does not go together


def test_options_of_other_kinds_are_refused(tmp_path, app):
    with pytest.raises(InputError, match="drop: a log has no columns"):
        read(app, drop=["a"])
    with pytest.raises(InputError, match="size: only images have it"):
        read_both(app, size=64)
    with pytest.raises(InputError, match="time: the lines of a log have no columns"):
        read(app, time="stamp")
    table = put(tmp_path / "table.csv", ["a,b", *(f"{i},{i}" for i in range(30))])
    with pytest.raises(InputError, match="session: only logs have it"):
        read(table, session="line")
    with pytest.raises(InputError, match="session: only logs have it"):
        read_both(table, session="line")
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path / "nowhere.log")
    with pytest.raises(InputError, match="a list was given"):
        read_log_data([["a"]])


def test_the_events_of_a_process(tmp_path):
    rows = ["case,activity,time,label"]
    for i in range(80):
        rows += [f"c{i},{a},2024-01-01 00:{k:02d}:00,{int(i == 7)}" for k, a in enumerate(("order", "ship", "pay"))]
    path = put(tmp_path / "process.csv", rows)
    assert is_process_source(path)
    assert read(path).kind is Kind.TABLE
    data = read(path, kind="log", labels="label")
    assert (len(data), data.X.names[7], int(data.labels.sum())) == (80, "c7", 1)
    assert data.why == "its rows are the events of cases"
    with pytest.raises(InputError, match="session: the event log of a process takes none"):
        read(path, kind="log", session="line")
    with pytest.raises(InputError, match="layout: the event log of a process takes none"):
        read(path, kind="log", layout="syslog")
    app = put(tmp_path / "app.log", job_lines(20))
    with pytest.raises(InputError, match="two of one kind"):
        read_log_job(path, app, kind="log")


# ---------------------------------------------------------------------- choosing and judging


def test_a_method_of_logs_reads_a_log():
    assert kind_for("deep_log") is Kind.LOG
    assert kind_for("autoencoder") is None


def test_the_choice_says_why():
    sessions = Sessions.from_sequences([list(STEPS)] * 400, [f"job {i}" for i in range(400)])
    assert choose_for_log(sessions, normal=True, by_id=True).method == "deep_log"
    for few, normal, by_id, said in (
        (400, False, True, "also learnt from"),
        (400, True, False, "order of lines in a window is chance"),
        (100, True, True, "100 sessions are too few"),
    ):
        choice = choose_for_log(sessions.take(range(few)), normal=normal, by_id=by_id)
        assert choice.method == "template_count_pca"
        assert said in choice.why
    learnt, given = Data(sessions, Kind.LOG, None), Data(sessions, Kind.LOG, None)
    assert choice_for(given, learnt).method == "deep_log"
    assert choice_for(learnt, learnt).method == "template_count_pca"
    windows = Log.from_messages(["a b", "c d"] * 4000).sessions(lines=20)
    assert choice_for(given, Data(windows, Kind.LOG, None)).method == "template_count_pca"
    assert choice_for(given, Data(np.zeros((3, 2)), Kind.TABLE, None)) is None


def test_one_call_from_a_log_to_an_answer(tmp_path, app):
    normal = put(tmp_path / "normal.log", job_lines(600, first=500))
    found = detect(app, train=normal, session=BY_JOB, method="template_count_pca")
    assert isinstance(found, LogDetections)
    assert np.flatnonzero(found.is_anomaly).tolist() == [40, 77]
    assert "never learnt" in found.why(40)[0]
    assert genad.detect(app, session=BY_JOB, holdout=0.5, alpha=0.1).sessions.names[0] == "0000x"


def test_counts_find_the_anomalies_of_a_real_log(data_dir):
    # Without labels and without normal data: what is judged is also learnt from.
    found = detect(data_dir / "logs" / "bgl_2k.log", alpha=0.1)
    truth = read(data_dir / "logs" / "bgl_2k.log", labels="label").labels
    assert evaluate(truth, found.scores, found.is_anomaly)["auroc"] > 0.7
