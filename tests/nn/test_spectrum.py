"""Eigenvalues of symmetric matrices, whether the quick algorithm finds them or not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import genad
from genad.nn.spectrum import spectrum


def gives_up(matrix: torch.Tensor) -> None:
    raise torch.linalg.LinAlgError("linalg.eigh: The algorithm failed to converge")


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_vectors_and_values_make_the_matrix_again(quick, dtype, monkeypatch):
    if not quick:
        monkeypatch.setattr(torch.linalg, "eigh", gives_up)
    rows = np.random.default_rng(0).normal(size=(30, 4)) @ np.random.default_rng(1).normal(size=(4, 20))
    matrix = torch.from_numpy(rows.T @ rows / 30).to(dtype)
    values, vectors = spectrum(matrix)
    assert values.dtype == vectors.dtype == dtype
    assert (values.diff() >= -1e-5).all()
    torch.testing.assert_close(vectors @ values.diag() @ vectors.T, matrix, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(20, dtype=dtype), rtol=0, atol=1e-5)


@pytest.mark.parametrize("quick", [True, False])
def test_a_matrix_that_is_not_finite_is_no_matter_of_the_algorithm(quick, monkeypatch):
    if not quick:
        monkeypatch.setattr(torch.linalg, "eigh", gives_up)
    with pytest.raises(torch.linalg.LinAlgError):
        spectrum(torch.full((3, 3), torch.nan))


@pytest.mark.filterwarnings("ignore:.*constant")
def test_a_series_of_mostly_constant_channels_is_fitted_when_the_quick_algorithm_gives_up(monkeypatch):
    rng = np.random.default_rng(0)
    X = np.zeros((600, 25))
    X[:, 0] = np.sin(np.arange(600) / 7) + 0.1 * rng.normal(size=600)
    X[rng.integers(0, 600, 5), 3] = 1.0
    usual = genad.Windowed(genad.create("ppca")).fit(X[:500]).anomaly_score(X)
    monkeypatch.setattr(torch.linalg, "eigh", gives_up)
    other = genad.Windowed(genad.create("ppca")).fit(X[:500]).anomaly_score(X)
    np.testing.assert_allclose(other, usual, rtol=1e-4)
