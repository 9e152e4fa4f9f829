from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from genad.report.downsample import keep_extremes


def test_short_curve_keeps_every_point():
    assert keep_extremes([np.arange(10.0)], buckets=5).tolist() == list(range(10))


def test_known_extremes_of_each_bucket():
    curve = np.zeros(40)
    curve[[3, 17, 38]] = 1.0, -1.0, 2.0
    kept = keep_extremes([curve], buckets=4)
    assert {0, 3, 17, 38, 39} <= set(kept.tolist())
    assert len(kept) <= 2 * 4 + 2


@given(
    n=st.integers(1, 700),
    buckets=st.integers(1, 60),
    seed=st.integers(0, 1000),
    gap=st.booleans(),
)
@settings(deadline=None, max_examples=50, derandomize=True)
def test_envelope_and_span_extremes_survive(n, buckets, seed, gap):
    rng = np.random.default_rng(seed)
    curves = [rng.normal(size=n), rng.normal(size=n).cumsum()]
    start = int(rng.integers(0, n))
    stop = int(rng.integers(start, n)) + 1
    spans = [(start, stop)]
    if gap:
        curves[0][: n // 3] = np.nan
    kept = keep_extremes(curves, buckets, spans)
    assert (np.diff(kept) > 0).all()
    assert kept[0] == 0
    assert kept[-1] == n - 1
    for curve in curves:
        if np.isfinite(curve).any():
            assert np.nanmax(curve[kept]) == np.nanmax(curve)
            assert np.nanmin(curve[kept]) == np.nanmin(curve)
    assert {start, stop - 1} <= set(kept.tolist())
    inside = kept[(kept >= start) & (kept < stop)]
    assert curves[1][inside].max() == curves[1][start:stop].max()
    assert curves[1][inside].min() == curves[1][start:stop].min()


def test_gap_stays_a_gap():
    curve = np.zeros(1000)
    curve[500:510] = np.nan
    assert np.isnan(curve[keep_extremes([curve], buckets=50)]).any()
