from __future__ import annotations

import numpy as np
import pytest
import torch

from genad.core.grouped import sharing_model
from genad.data.samples import Batch
from genad.errors import InputError
from genad.restoration.imputation import ImputerNet, SeriesImputer
from genad.restoration.timesnet import TimesNetImputer

# short series leave few steps to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


class Neighbours(SeriesImputer):
    """Expects the mean of what is seen of a channel within the window."""

    card, name = TimesNetImputer.card, "neighbours"
    overlap = 2

    def build(self, shape):
        return ImputerNet(shape, self.span)

    def phases(self, net):
        return []

    def impute(self, net, x, seen, *, judging):
        mean = (x * seen).sum(1, keepdim=True) / seen.sum(1, keepdim=True).clamp_min(1)
        return mean.expand_as(x), torch.zeros_like(x)


def noise(n=400, channels=3):
    return np.random.default_rng(0).normal(size=(n, channels))


@pytest.fixture(scope="module")
def fitted():
    return Neighbours(window=16, span=4).fit(noise())


def test_every_cell_is_judged_without_its_span(fitted):
    x = torch.randn(2, 16, 3)
    away, spread = fitted.distances(fitted.net_, Batch(x))
    assert (spread == 0).all()
    for step, channel in ((0, 0), (6, 1), (15, 2)):
        hidden = next(p for p in fitted.net_.patterns if p[step, channel])
        rest = x[0, ~hidden[:, channel], channel]
        torch.testing.assert_close(away[0, step, channel], (x[0, step, channel] - rest.mean()).abs())
        # What stands in the cell itself moves its distance and nothing else of what it is expected to be.
        other = x.clone()
        other[0, step, channel] += 5
        moved, _ = fitted.distances(fitted.net_, Batch(other))
        torch.testing.assert_close(moved[0, step, channel], (other[0, step, channel] - rest.mean()).abs())


def test_units_are_the_residuals_of_training_by_channel(fitted):
    assert fitted.net_.usual.tolist() == pytest.approx([1.0] * 3, abs=0.2)
    surprise = fitted.surprise(fitted.net_, Batch(torch.randn(200, 16, 3)))
    torch.testing.assert_close(surprise.square().mean((0, 1)), torch.ones(3), atol=0.2, rtol=0)


def test_what_is_usual_comes_back_as_it_was(fitted):
    series = noise()
    restored = fitted.restore(series)
    same = np.isclose(restored, series, atol=1e-6)
    assert same.all(1).mean() > 0.9
    # Those that do not are steps that score high, and the steps around them.
    odd = fitted.predict(series) < 0
    near = np.convolve(odd, np.ones(5), "same") > 0
    np.testing.assert_array_equal(~same.all(1), near)


def test_missing_values_alone_are_filled(fitted):
    series = np.random.default_rng(1).normal(scale=0.3, size=(100, 3))
    series[40:46, 1] = np.nan
    restored = fitted.restore(series)
    missing = np.isnan(series)
    assert np.isfinite(restored).all()
    np.testing.assert_allclose(restored[~missing], series[~missing], atol=1e-6)
    assert np.abs(restored[missing]).max() < 0.3


def test_a_surprising_step_is_restored_with_its_margin(fitted):
    series = np.random.default_rng(1).normal(scale=0.3, size=(100, 3))
    series[50] = 6.0
    restored = fitted.restore(series)
    changed = np.flatnonzero((np.abs(restored - series) > 1e-6).any(1))
    assert changed.tolist() == [48, 49, 50, 51, 52]
    # What is put there does not know of the six.
    assert np.abs(restored[50]).max() < 0.5
    found = fitted.detect(series)
    assert found.scores.argmax() == 50
    np.testing.assert_allclose(found.restored, restored)
    np.testing.assert_allclose(found.scores, fitted.anomaly_score(series))
    wide = Neighbours(window=16, span=4, margin=0).fit(noise())
    assert np.flatnonzero((np.abs(wide.restore(series) - series) > 1e-6).any(1)).tolist() == [50]


def test_the_threshold_in_force_says_what_is_restored():
    series = noise()
    detector = Neighbours(window=16, span=4, margin=0).fit(series)
    assert (~np.isclose(detector.restore(series), series, atol=1e-6)).any(1).sum() < 40
    detector.calibrate(0.2 * series)
    flagged = detector.predict(series) < 0
    assert flagged.sum() > 300
    np.testing.assert_array_equal(~np.isclose(detector.restore(series), series, atol=1e-6).all(1), flagged)


def test_restored_steps_follow_the_flags_that_labels_moved():
    series = noise()
    series[100:110] += 4.0
    series[[20, 300]] = 7.0
    detector = Neighbours(window=16, span=4, margin=0).fit(noise())
    y = np.full(len(series), -1)
    y[100:110] = 1
    y[20] = 0

    def agreed():
        """Return the flags once the steps restored are found to be the same."""
        found = detector.detect(series)
        changed = ~np.isclose(detector.restore(series), series, atol=1e-6).all(1)
        np.testing.assert_array_equal(changed, found.is_anomaly)
        np.testing.assert_array_equal(~np.isclose(found.restored, series, atol=1e-6).all(1), found.is_anomaly)
        assert detector.detect(series, maps=False).maps is None
        return found.is_anomaly

    first = agreed()
    detector.feedback(series, y)
    assert (agreed() != first).any()
    detector.calibrate(1.5 * noise())
    agreed()
    detector.forget()
    agreed()


def test_detectors_that_share_a_model_restore_by_their_own_thresholds():
    detector = Neighbours(window=16, span=4, margin=0).fit(noise())
    twin = sharing_model(detector).calibrate(0.2 * noise())
    series = noise()
    for each in (detector, twin):
        changed = ~np.isclose(each.restore(series), series, atol=1e-6).all(1)
        np.testing.assert_array_equal(changed, each.predict(series) < 0)


def test_another_level_counts_though_it_fits_itself(fitted):
    series = noise()
    series[200:260] += 4.0
    plain = Neighbours(window=16, span=4, level=0.0).fit(noise())
    assert plain.anomaly_score(series)[216:244].mean() < 1.5 * plain.anomaly_score(series)[:180].mean()
    assert fitted.anomaly_score(series)[216:244].min() > 2 * fitted.anomaly_score(series)[:180].mean()
    around = fitted.around(Batch(torch.arange(16.0).view(1, 16, 1)))
    assert around.flatten().tolist() == [3.0] * 8 + [11.0] * 8


def test_bounds_say_how_far_normal_values_lie_from_what_is_filled_in(fitted):
    explanation = fitted.detect(noise()).explain(3)
    for part in explanation:
        assert part.upper - part.expected == pytest.approx(2.6, abs=0.6)


@pytest.mark.parametrize(
    ("params", "message"),
    [({"span": 0}, "span: 0"), ({"margin": -1}, "margin: -1"), ({"level": -0.1}, "level: -0.1")],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        Neighbours(**params).fit(noise())
