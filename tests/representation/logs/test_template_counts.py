from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

import genad
from genad.data.log import Sessions
from genad.data.log.counts import template_counts
from genad.errors import DataWarning, InputError
from genad.representation.logs.template_counts import TemplateCountPCA


@pytest.fixture(scope="module")
def normal():
    rng = np.random.default_rng(0)
    return [["open", *["read", "answer"] * int(n), "close"] for n in rng.integers(1, 9, 600)]


@pytest.fixture(scope="module")
def fitted(normal):
    return TemplateCountPCA().fit(normal)


def test_counts_follow_the_codes(fitted):
    batch = fitted._ingest([["open", "read", "read", "new"]], reset=False).samples.stretch(0, 1)
    net = fitted.net_
    by_name = dict(zip(["padding", "unseen", *fitted.adapter_.vocabulary], net.count(net.codes(batch))[0], strict=True))
    assert {k: int(v) for k, v in by_name.items()} == {
        "padding": 0, "unseen": 1, "open": 1, "read": 2, "answer": 0, "close": 0
    }  # fmt: skip


def test_weights_are_inverse_document_frequencies():
    sessions = [["a", "b"]] * 300 + [["a"]] * 300
    net = TemplateCountPCA(holdout=0.5, random_state=1).fit(sessions).net_
    n = 300
    owners = round((n + 1) / math.exp(float(net.weights[3]) - 1)) - 1
    assert float(net.weights[2]) == pytest.approx(1.0)
    assert float(net.weights[3]) == pytest.approx(math.log((n + 1) / (owners + 1)) + 1)
    assert 100 < owners < 200
    assert float(net.weights[1]) == pytest.approx(math.log(n + 1) + 1)
    assert torch.equal(TemplateCountPCA(weighting="none").fit(sessions).net_.weights, torch.ones(4))


def test_the_score_is_the_residual_of_principal_components(normal):
    detector = TemplateCountPCA(weighting="none", keep=0.9).fit(normal)
    test = Sessions.from_sequences([["open", "read", "read", "close"], ["open", "read", "answer", "close"], ["close"]])
    columns = detector.adapter_.vocabulary
    train, _ = detector._split(detector._ingest(normal, reset=False).samples, genad_labels(len(normal)))
    rows = [[columns[int(c) - 2] for c in row if c] for row in train.stretch(0, len(train)).x.numpy()]
    X = array_of(Sessions.from_sequences(rows), columns)
    pca = PCA(0.9).fit(X)
    T = array_of(test, columns)
    expected = np.square(T - pca.inverse_transform(pca.transform(T))).sum(1)
    np.testing.assert_allclose(detector.anomaly_score(test), expected, rtol=1e-4, atol=1e-4)


def array_of(sessions, columns):
    table = template_counts(sessions, columns)
    return np.column_stack([table.column(name) for name in table.names])


def genad_labels(n):
    from genad.core.splits import read_labels

    return read_labels(None, n)


def test_pairs_that_do_not_match_are_anomalous(fitted):
    good, unpaired, unclosed, unseen = fitted.anomaly_score(
        [
            ["open", "read", "answer", "close"],
            ["open", "read", "read", "answer", "close"],
            ["open", "read", "answer"],
            ["open", "read", "answer", "crash", "close"],
        ]
    )
    assert good < 0.01
    assert min(unpaired, unclosed) > 0.3
    # An unseen event counts in full, whatever its place in the vocabulary of the data to score.
    assert unseen == pytest.approx((math.log(481) + 1) ** 2, rel=0.01)


def test_order_plays_no_part(fitted):
    one, other = fitted.anomaly_score([["open", "read", "answer", "close"], ["close", "answer", "open", "read"]])
    assert one == pytest.approx(other)


def test_the_map_adds_up_to_the_score_and_points_at_the_event(fitted):
    sessions = [["open", "crash", "close"], ["open"], ["open", "read", "answer", "close"]]
    maps, scores = fitted.anomaly_map(sessions), fitted.anomaly_score(sessions)
    np.testing.assert_allclose(maps.sum(1), scores, rtol=1e-4, atol=1e-6)
    assert maps[0].argmax() == 1
    assert (maps[1, 1:] == 0).all()


def test_saved_models_score_alike(fitted, normal, tmp_path):
    again = genad.load(fitted.save(tmp_path / "x.genad"))
    np.testing.assert_array_equal(again.anomaly_score(normal[:20]), fitted.anomaly_score(normal[:20]))


def test_bad_parameters_are_refused(normal):
    with pytest.raises(InputError, match=r"keep: 1 was given; use a number in \(0, 1\)"):
        TemplateCountPCA(keep=1).fit(normal)
    with pytest.raises(InputError, match="weighting: 'idf' was given; use 'tf-idf' or 'none'"):
        TemplateCountPCA(weighting="idf").fit(normal)


@pytest.fixture(scope="module")
def hdfs(data_dir):
    with np.load(data_dir / "logs" / "hdfs_sequences.npz", allow_pickle=False) as file:
        parts = [
            np.split(file[name].astype(int), file[f"{name}_ptr"][1:-1])
            for name in ("train", "test_normal", "test_anomalous")
        ]
    y = np.repeat([0, 1], [len(parts[1]), len(parts[2])])
    return Sessions.from_sequences(parts[0]), Sessions.from_sequences(parts[1] + parts[2]), y


def test_hdfs(hdfs):
    train, test, y = hdfs
    assert roc_auc_score(y, TemplateCountPCA().fit(train).anomaly_score(test)) >= 0.98


def test_any_detector_of_tables_reads_the_counts(hdfs):
    train, test, y = hdfs
    table = template_counts(train)
    with pytest.warns(DataWarning, match="constant columns"):  # that of unseen events, to begin with
        detector = genad.create("ppca").fit(np.column_stack([table.column(name) for name in table.names]))
    rows = array_of(test, table.names[:-1])
    assert roc_auc_score(y, detector.anomaly_score(rows)) >= 0.98
