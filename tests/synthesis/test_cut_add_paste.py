"""CutAddPaste: another window's stretch, a slope on some channels, another place; and nothing written to."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genad.errors import InputError
from genad.synthesis.cut_add_paste import CutAddPaste


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def windows(n: int = 40, length: int = 64, channels: int = 2) -> torch.Tensor:
    """Return windows whose values name them: window i holds i + step / 1000 + channel / 10."""
    base = torch.arange(n, dtype=torch.float64)[:, None, None] + torch.arange(length)[:, None] / 1000
    return base + torch.arange(channels) / 10


def test_a_stretch_of_another_window_is_pasted_at_another_place():
    x = windows()
    pasted, region = CutAddPaste(trend=0.0).apply(x, generator())
    assert region.shape == (40, 64)
    moved = 0
    for i in range(40):
        steps = region[i].nonzero().flatten()
        assert (steps.diff() == 1).all()  # one stretch
        donors = pasted[i, steps, 0].floor()
        assert (donors != i).all()
        assert len(donors.unique()) == 1
        origin = ((pasted[i, steps, 0] - donors) * 1000).round().long()
        assert (origin.diff() == 1).all()
        moved += int(origin[0] != steps[0])
        assert torch.equal(pasted[i][~region[i]], x[i][~region[i]])
    assert moved > 20


def test_stretches_are_uniform_up_to_the_window_but_at_least_the_cut():
    x = windows(2000, channels=1)
    lengths = CutAddPaste(cut=12).apply(x, generator())[1].sum(1)
    assert int(lengths.min()) == 12
    assert int(lengths.max()) == 63
    assert float((lengths == 12).float().mean()) == pytest.approx(13 / 64, abs=0.03)


def test_slopes_of_either_sign_on_some_of_the_channels():
    x = torch.zeros(400, 64, 3, dtype=torch.float64)
    pasted, region = CutAddPaste(trend=0.5).apply(x, generator(1))
    slopes = torch.stack([p[r][-1] / (int(r.sum()) - 1) for p, r in zip(pasted, region, strict=True)])
    touched = slopes != 0
    assert touched.any(1).all()
    assert 0.5 < float(touched.double().mean()) < 0.8
    assert float(slopes.abs().max()) <= 0.5
    assert float((slopes[touched] > 0).double().mean()) == pytest.approx(0.5, abs=0.07)
    i = 5
    span = pasted[i][region[i]]
    torch.testing.assert_close(span, slopes[i] * torch.arange(len(span))[:, None])


def test_neither_donors_nor_windows_nor_the_bank_are_written_to():
    x = windows()
    before = x.clone()
    CutAddPaste(trend=1.0).apply(x, generator())
    assert torch.equal(x, before)
    X = np.sin(np.arange(1000) / 7)
    synthesizer = CutAddPaste(trend=1.0).fit(X)
    bank = synthesizer.bank_.clone()
    synthesizer.synthesize(X, 4)
    synthesizer.apply(torch.zeros(8, 64, 1), generator())
    assert torch.equal(synthesizer.bank_, bank)


def test_stretches_come_from_the_series_of_the_fit():
    X = np.arange(3000.0)
    synthesizer = CutAddPaste(trend=0.0).fit(X)
    made = synthesizer.synthesize(X, 6)
    for event in made.meta:
        there = np.arange(event["source"], event["source"] + event["stop"] - event["start"])
        np.testing.assert_allclose(made.samples[event["start"] : event["stop"]], X[there], atol=1e-6)


def test_a_linear_model_of_windows_sees_the_pastes():
    t = np.arange(4000)
    X = np.c_[np.sin(t / 8), np.cos(t / 8)] + 0.02 * np.random.default_rng(0).normal(size=(4000, 2))
    made = CutAddPaste(trend=0.1).fit(X[:2000]).synthesize(X[2000:], 6)
    width = 16
    train, test = (
        np.lib.stride_tricks.sliding_window_view(part, width, 0).reshape(-1, 2 * width)
        for part in (X[:2000], made.samples)
    )
    _, _, axes = np.linalg.svd(train - train.mean(0), full_matrices=False)
    centred = test - train.mean(0)
    error = ((centred - centred @ axes[:4].T @ axes[:4]) ** 2).sum(1)
    touched = np.lib.stride_tricks.sliding_window_view(made.labels, width, 0).any(1)
    assert np.median(error[touched]) > 5 * np.median(error[~touched])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"window": 1}, "window: 1 was given"),
        ({"cut": 65}, "cut: 65 was given; use at most window=64"),
        ({"trend": -1.0}, "trend: -1.0 was given"),
        ({"ratio": 0.9}, "ratio: 0.9 was given"),
    ],
)
def test_unusable_parameters_are_refused(params, message):
    with pytest.raises(InputError, match=message):
        CutAddPaste(**params).fit(np.zeros(500))


def test_unusable_windows_are_refused():
    with pytest.raises(InputError, match=r"windows: a tensor of shape \(64, 2\)"):
        CutAddPaste().apply(torch.zeros(64, 2), generator())
    fitted = CutAddPaste().fit(np.sin(np.arange(500)))
    with pytest.raises(InputError, match="windows: 2 channels were given"):
        fitted.apply(torch.zeros(3, 64, 2), generator())
    with pytest.raises(InputError, match="windows: they have 65 steps"):
        fitted.apply(torch.zeros(3, 65, 1), generator())
    with pytest.raises(InputError, match="normal: the longest unbroken stretch has 60 steps"):
        CutAddPaste().fit(np.zeros(60))
