from __future__ import annotations

import numpy as np
import pytest

from genad import Conformal, Detections, FixedValue, Kind
from genad.report.charts import p_value_figure, score_edges, score_figure
from genad.report.timeline import telling_channels, timelines


def table_of(scores, flags, rule, fdr=None):
    scores = np.asarray(scores, float)
    p_values = np.linspace(0.1, 1.0, len(scores))
    return Detections(scores, p_values, np.asarray(flags, bool), rule, Kind.TABLE, fdr=fdr)


@pytest.mark.parametrize("line", [None, 0.31, -5.0, 2.0])
def test_edges_hold_every_score_and_the_threshold(line):
    scores = np.random.default_rng(0).random(200)
    edges, wide = score_edges(scores, line)
    assert not wide
    assert edges[0] <= scores.min()
    assert edges[-1] > scores.max()
    assert np.histogram(scores, edges)[0].sum() == 200
    if line == 0.31:
        assert np.abs(edges - line).min() < 1e-12


def test_wide_scores_get_logarithmic_edges():
    edges, wide = score_edges(np.array([0.1, 0.1, 0.2, 50.0]), 1.0)
    assert wide
    assert np.abs(edges - 1.0).min() < 1e-12


def test_equal_scores_get_one_bar():
    edges, wide = score_edges(np.full(5, 3.0), 3.0)
    assert (edges.tolist(), wide) == ([2.5, 3.5], False)


def test_score_bars_count_each_unit_once():
    scores = np.r_[np.linspace(0, 1, 90), np.linspace(1.1, 2, 10)]
    figure = score_figure(table_of(scores, scores > 1, FixedValue(1.0).fit([0.0])), [0.2, 0.3])
    normal, flagged, calibration = figure.data
    assert (normal.customdata.sum(), flagged.customdata.sum()) == (90, 10)
    assert np.nansum(normal.y) + np.nansum(flagged.y) == pytest.approx(100.0)
    assert np.nansum(calibration.y) == pytest.approx(100.0)
    assert figure.layout.shapes[0].x0 == 1.0
    assert "threshold 1" in figure.layout.annotations[0].text


def test_line_of_a_false_discovery_rate_is_the_lowest_flagged_score():
    found = table_of([1, 2, 3, 4], [0, 0, 1, 1], FixedValue(1.5).fit([0.0]), fdr=0.1)
    assert score_figure(found).layout.shapes[0].x0 == 3.0
    nothing = table_of([1, 2, 3, 4], [0, 0, 0, 0], FixedValue(1.5).fit([0.0]), fdr=0.1)
    assert not score_figure(nothing).layout.shapes


def test_infinite_threshold_draws_no_line():
    found = table_of([1, 2], [0, 0], FixedValue(float("inf")).fit([0.0]))
    assert not score_figure(found).layout.shapes


def test_uniform_p_values_give_level_bars():
    rule = Conformal(0.2).fit(np.arange(9.0))
    found = table_of(np.arange(10.0), np.zeros(10), rule)
    bars = p_value_figure(found).data[0]
    assert bars.y.tolist() == [10.0] * 10


def test_timeline_shades_each_event_between_its_steps(make_series):
    found = make_series(400, bad=[(100, 110), (300, 301)])
    ((line,), _) = timelines(found)
    spans = [(shape.x0, shape.x1) for shape in line.figure.layout.shapes]
    assert spans == [(99.5, 109.5), (299.5, 300.5)]


def test_timeline_marks_labels_at_the_foot(make_series):
    found = make_series(400, bad=[(100, 110)])
    truth = np.zeros(400, bool)
    truth[102:108] = True
    ((line,), _) = timelines(found, truth)
    foot = line.figure.layout.shapes[-1]
    assert (foot.x0, foot.x1, foot.yref) == (101.5, 107.5, "y3 domain")


def test_telling_channels_come_first_and_names_are_escaped(make_series):
    found = make_series(400, names=("calm", "x", "y"), bad=[])
    found.observed["x"][50:60] += 9
    found.maps[50:60, 1] += 81
    found.is_anomaly[50:60] = True
    assert telling_channels(found, np.arange(400))[0] == 1
    hostile = make_series(50, names=("<a href='https://x'>",))
    ((line,), _) = timelines(hostile)
    assert line.figure.layout.annotations[0].text == "&lt;a href=&#x27;https://x&#x27;&gt;"


def test_many_channels_are_limited_and_said(make_series):
    found = make_series(60, names=tuple(f"c{k}" for k in range(9)))
    ((line,), _) = timelines(found)
    assert line.notes[0] == "6 of 9 channels are drawn: the most telling."


def test_band_is_the_bound_around_the_expected_value(make_series):
    ((line,), _) = timelines(make_series(100))
    lower, upper, expected, observed = line.figure.data[:4]
    np.testing.assert_allclose(np.asarray(upper.y) - np.asarray(lower.y), 0.52, atol=1e-6)
    np.testing.assert_allclose(np.asarray(expected.y), np.asarray(lower.y) + 0.26, atol=1e-6)
    assert observed.name == "observed"


def test_time_stamps_stand_on_the_axis_in_milliseconds(series):
    ((line,), _) = timelines(series)
    x = line.figure.data[0].x
    assert x[1] - x[0] == 600_000.0
    assert x[0] == np.datetime64("2024-03-01", "ms").astype(np.int64)
    assert line.figure.layout.xaxis3.type == "date"


def test_entities_each_get_a_figure_on_their_own_steps(make_series):
    entity = np.repeat(["b", "a"], 100)
    lines, notes = timelines(make_series(200, entity=entity, bad=[(150, 155)]))
    assert ([line.label for line in lines], notes) == (["b", "a"], [])
    second = lines[1].figure
    assert second.data[0].x.min() == 100
    assert [(s.x0, s.x1) for s in second.layout.shapes] == [(149.5, 154.5)]
    assert not lines[0].figure.layout.shapes


def test_too_many_entities_are_limited_and_said(make_series):
    entity = np.repeat([f"e{k:02d}" for k in range(30)], 10)
    lines, notes = timelines(make_series(300, entity=entity, bad=[(295, 297)]))
    assert len(lines) == 24
    assert "e29" in {line.label for line in lines}
    assert notes == ["24 of 30 entities are drawn: those with the highest scores."]


def test_long_series_is_small_and_keeps_every_event(make_series):
    rng = np.random.default_rng(5)
    starts = np.sort(rng.choice(20_000, 300, replace=False)) * 10
    found = make_series(200_000, bad=[(s, s + 1) for s in starts])
    ((line,), _) = timelines(found)
    observed = next(trace for trace in line.figure.data if trace.name == "observed")
    drawn = set(observed.x.astype(int).tolist())
    flagged = np.flatnonzero(found.is_anomaly)
    assert len(flagged) >= 300
    assert drawn.issuperset(flagged.tolist())
    assert len(drawn) < 8_000
    assert any("thinned out" in note for note in line.notes)
    assert any(note.startswith("The 250 highest of") for note in line.notes)
    assert len(line.figure.layout.shapes) == 250


def test_series_without_maps_and_expected_values_is_drawn(make_series):
    found = make_series(100)
    found.maps = found.expected = None
    ((line,), _) = timelines(found)
    assert [trace.name for trace in line.figure.data][:2] == ["observed", "observed"]
