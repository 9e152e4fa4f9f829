"""The nearest normal units, from every detector that remembers some."""

from __future__ import annotations

import numpy as np
import pytest

import genad
from genad import Conformal, FeatureMemory, LineEmbedding, NearestMemory, PatchMemory
from genad.core.detections import Neighbour
from genad.core.nearest import RemembersNormals
from genad.core.registry import registered
from genad.errors import InputError


def rows(n=300, d=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def textures(n, seed=0):
    """Return images of two textures in turn."""
    rng = np.random.default_rng(seed)
    wave = np.sin(np.arange(32) / 3) * 0.3 + 0.5
    across, down = np.broadcast_to(wave, (32, 32)), np.broadcast_to(wave[:, None], (32, 32))
    kinds = np.stack([across if i % 2 else down for i in range(n)])[:, None]
    return kinds + 0.05 * rng.normal(size=(n, 1, 32, 32))


def by_hand(X, queries, k):
    z, q = ((part - X.mean(0)) / X.std(0) for part in (X, queries))
    distance = np.linalg.norm(q[:, None] - z, axis=2) / np.sqrt(X.shape[1])
    units = np.argsort(distance, 1)[:, :k]
    return units, np.take_along_axis(distance, units, 1)


def test_rows_are_named_by_their_place_in_the_fit():
    X, new = rows(), rows(20, seed=1)
    found = NearestMemory(threshold=Conformal(0.1)).fit(X).nearest(new, k=4)
    units, distances = by_hand(X, new, 4)
    np.testing.assert_array_equal(found.units, units)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-4)
    assert len(found) == 20


def test_distances_are_those_that_the_score_averages():
    X = rows()
    X[5, 1] = np.nan
    detector = NearestMemory(neighbours=3, threshold=Conformal(0.1)).fit(X)
    found = detector.nearest(X, k=3)
    np.testing.assert_allclose(found.distances.mean(1), detector.anomaly_score(X), rtol=1e-5)
    # A row of the fit does not name itself.
    assert not (found.units == np.arange(len(X))[:, None]).any()


def test_anomalies_that_are_labelled_are_no_neighbours():
    X, y = rows(), np.zeros(300, int)
    X[:3], y[:3] = 9.0, 1
    found = NearestMemory(threshold=Conformal(0.1)).fit(X, y).nearest([[9.0, 9.0, 9.0]], k=5)
    assert (found.units > 2).all()


def test_a_smaller_memory_names_those_it_has():
    X = rows()
    detector = NearestMemory(size=40, threshold=Conformal(0.1)).fit(X)
    z, bank = (X - X.mean(0)) / X.std(0), detector.net_.bank.rows.numpy()
    np.testing.assert_allclose(z[detector.memory_units_], bank, atol=1e-5)
    assert detector.nearest(X[:2], k=99).units.shape == (2, 40)


def test_an_explanation_names_them():
    X = rows()
    detector = NearestMemory(threshold=Conformal(0.1)).fit(X)
    new = np.array([[9.0, 9.0, 9.0], [0.0, 0.0, 0.0]])
    told, found = detector.explain(new, -1), detector.nearest(new)
    assert told.nearest == tuple(map(Neighbour, found.units[1].tolist(), found.distances[1].tolist()))
    assert f"nearest normal units: #{found.units[1, 0]} at " in str(told)
    assert told.to_dict()["nearest"][0] == {"unit": int(found.units[1, 0]), "distance": found.distances[1, 0]}
    assert "nearest" not in genad.create("ppca", threshold=Conformal(0.1)).fit(X).explain(new, 0).to_dict()


def test_a_saved_detector_names_the_same(tmp_path):
    X = rows()
    detector = NearestMemory(threshold=Conformal(0.1)).fit(X)
    again = genad.load(detector.save(tmp_path / "m.genad"))
    np.testing.assert_array_equal(again.nearest(X).units, detector.nearest(X).units)


def test_a_model_of_an_earlier_version_says_that_it_does_not_know():
    X = rows()
    detector = NearestMemory(threshold=Conformal(0.1)).fit(X)
    state = {name: value for name, value in detector.fitted_state().items() if name != "memory_units"}
    old = NearestMemory(threshold=Conformal(0.1))
    old.set_fitted_state(state)
    assert old.explain(X, 0).nearest == ()
    with pytest.raises(InputError, match="nearest: the model does not say which units it remembers; fit it anew"):
        old.nearest(X)


def test_sessions_by_the_embeddings_of_their_lines():
    def embed(texts):
        return [[text.count("a"), text.count("e"), len(text)] for text in texts]

    sessions = [["read", "seek"], ["seek", "write"], ["panic at once", "alarm"]] * 40
    detector = LineEmbedding(embedder=embed, threshold=Conformal(0.1)).fit(sessions)
    found = detector.nearest([["alarm", "panic at once"]], k=2)
    assert set(found.units[0] % 3) == {2}
    np.testing.assert_allclose(found.distances, 0.0, atol=1e-6)
    assert detector.explain([["alarm", "panic at once"]], 0).nearest[0].unit % 3 == 2


@pytest.mark.parametrize("cls", [FeatureMemory, PatchMemory])
def test_images_by_their_features(cls):
    X = textures(40)
    detector = cls(resolution=32, threshold=Conformal(0.2)).fit(X)
    found = detector.nearest(textures(6, seed=1), k=3)
    # Nearly all of the same texture.
    assert (found.units % 2 == np.arange(6)[:, None] % 2).mean() > 0.8
    assert (np.diff(found.distances, axis=1) >= 0).all()
    assert all(len(set(row)) == 3 for row in found.units.tolist())
    assert detector.explain(X, 0).nearest[0].distance >= 0


def test_pooled_features_average_to_the_score():
    X = textures(40)
    detector = FeatureMemory(resolution=32, threshold=Conformal(0.2)).fit(X)
    np.testing.assert_allclose(detector.nearest(X[:5], k=3).distances.mean(1), detector.anomaly_score(X[:5]), rtol=1e-5)


@pytest.mark.parametrize("k", [0, 1.5, True, "3"])
def test_a_number_that_is_none_is_refused(k):
    with pytest.raises(InputError, match=r"k: .* was given; use a whole number of at least 1"):
        NearestMemory(threshold=Conformal(0.1)).fit(rows()).nearest(rows(), k=k)


def test_who_remembers():
    names = {name for name, cls in registered().items() if issubclass(cls, RemembersNormals)}
    assert names >= {"nearest_memory", "line_embedding", "feature_memory", "patch_memory"}
