"""Eigenvalues of symmetric matrices, of degenerate ones too."""

from __future__ import annotations

import torch
from torch import Tensor


def spectrum(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and eigenvectors of a symmetric matrix.

    LAPACK's divide-and-conquer, which is the quickest, may give up on covariances with very many equal eigenvalues,
    such as windows of constant channels have. These are then found by relatively robust representations.

    Parameters
    ----------
    matrix : Tensor of shape (d, d)
        Symmetric and finite.

    Returns
    -------
    values : Tensor of shape (d,)
        Ascending.
    vectors : Tensor of shape (d, d)
        In columns.

    Raises
    ------
    torch.linalg.LinAlgError
        For a matrix that is not finite.

    Examples
    --------
    >>> spectrum(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))[0]
    tensor([1., 2.])
    """
    try:
        values, vectors = torch.linalg.eigh(matrix)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # it is public, but not exported
        if not bool(matrix.isfinite().all()):
            raise
        from scipy.linalg import eigh

        found = eigh(matrix.detach().cpu().double().numpy(), driver="evr")
        values, vectors = (torch.from_numpy(each).to(matrix) for each in found)
    return values, vectors
