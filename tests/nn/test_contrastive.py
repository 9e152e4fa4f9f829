from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch.nn import functional as F  # noqa: N812

from genad.nn.contrastive import geometric_mask, nt_xent


def _runs(mask):
    """Return the lengths of masked and of open runs that begin and end inside of a window, (B, T, C)."""
    lines = mask.transpose(1, 2).flatten(0, 1).numpy()
    found = {True: [], False: []}
    for line in lines:
        edges = np.flatnonzero(np.diff(line.astype(int))) + 1
        for begin, end in itertools.pairwise(edges):
            found[bool(line[begin])].append(end - begin)
    return {state: np.array(lengths) for state, lengths in found.items()}


def test_runs_are_geometric_with_the_means_asked_for():
    torch.manual_seed(0)
    mask = geometric_mask((10, 10_000, 1), share=0.25, length=3.0)
    runs = _runs(mask)
    assert runs[True].mean() == pytest.approx(3.0, rel=0.05)
    assert runs[False].mean() == pytest.approx(9.0, rel=0.05)
    for state, rate in ((True, 1 / 3), (False, 1 / 9)):
        lengths = np.minimum(runs[state], 15)
        k = np.arange(1, 15)
        expected = len(lengths) * np.append(rate * (1 - rate) ** (k - 1), (1 - rate) ** 14)
        seen = np.bincount(lengths, minlength=16)[1:]
        statistic = ((seen - expected) ** 2 / expected).sum()
        assert statistic < chi2.ppf(0.999, 14)


def test_every_step_is_masked_as_often_and_channels_are_independent():
    torch.manual_seed(0)
    mask = geometric_mask((4000, 20, 3), share=0.3, length=2.0).float()
    assert mask.shape == (4000, 20, 3)
    assert (mask.mean((0, 2)) - 0.3).abs().max() < 0.03
    together = np.corrcoef(mask.flatten(0, 1).T.numpy())
    assert np.abs(together - np.eye(3)).max() < 0.03


def test_the_shortest_gaps_there_can_be():
    # two steps masked, one open, on average: open runs have exactly one step
    torch.manual_seed(0)
    runs = _runs(geometric_mask((2, 3000, 2), share=2 / 3, length=2.0))
    assert (runs[False] == 1).all()
    assert runs[True].mean() == pytest.approx(2.0, rel=0.08)


def test_nt_xent_is_the_cross_entropy_of_finding_the_other_view():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(5, 3, generator=generator), torch.randn(5, 3, generator=generator)
    views = F.normalize(torch.cat([first, second]), dim=1)
    total = 0.0
    for i in range(10):
        alike = torch.tensor([float(views[i] @ views[k]) / 0.2 for k in range(10) if k != i])
        partner = float(views[i] @ views[(i + 5) % 10]) / 0.2
        total += float(alike.logsumexp(0)) - partner
    assert float(nt_xent(first, second, 0.2)) == pytest.approx(total / 10, rel=1e-5)
    # lengths do not count, and alone there is nothing to be told from
    torch.testing.assert_close(nt_xent(3 * first, 0.5 * second, 0.2), nt_xent(first, second, 0.2))
    assert float(nt_xent(first[:1], second[:1], 0.2)) == 0.0
