"""Bad input gets one clear message, whatever the metric; importing the package stays light."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from genad import metrics
from genad.errors import InputError, InputTypeError

SCORED = {
    "auroc": metrics.auroc,
    "average_precision": metrics.average_precision,
    "oracle_best_f1": metrics.oracle_best_f1,
    "precision_at_k": metrics.precision_at_k,
    "recall_at_false_alarm_rate": metrics.recall_at_false_alarm_rate,
    "vus_roc": metrics.vus_roc,
    "vus_pr": metrics.vus_pr,
    "volume_under_surface": metrics.volume_under_surface,
    "oracle_point_adjusted_f1": metrics.oracle_point_adjusted_f1,
    "evaluate": metrics.evaluate,
}
FLAGGED = {
    "precision": metrics.precision,
    "recall": metrics.recall,
    "f_beta": metrics.f_beta,
    "range_based": metrics.range_based,
    "affiliation": metrics.affiliation,
    "point_adjusted_f1": metrics.point_adjusted_f1,
}
NEED_BOTH = ("auroc", "average_precision", "recall_at_false_alarm_rate", "vus_pr", "evaluate")
scored = pytest.mark.parametrize("metric", SCORED.values(), ids=SCORED)
flagged = pytest.mark.parametrize("metric", FLAGGED.values(), ids=FLAGGED)
every = pytest.mark.parametrize("metric", [*SCORED.values(), *FLAGGED.values()], ids=[*SCORED, *FLAGGED])


@every
def test_lengths_that_differ_are_refused(metric):
    with pytest.raises(InputError, match=r"y_true has 3 entries but (scores|flags) has 2"):
        metric([0, 1, 0], [0, 1])


@every
def test_unlabelled_is_refused_with_the_mend(metric):
    with pytest.raises(InputError, match=r"y_true holds -1 at position 1 .*mask = y_true != -1"):
        metric([0, -1, 1], [0, 1, 0])


@every
def test_other_labels_are_refused(metric):
    with pytest.raises(InputError, match=r"y_true holds 2 at position 0 \(2 such values of 3\)"):
        metric([2, 1, 2], [0, 1, 0])


@every
def test_no_anomaly_is_refused(metric):
    with pytest.raises(InputError, match=r"no anomaly \(all 3 labels are 0\).*at least one label"):
        metric([0, 0, 0], [0, 1, 0])


@pytest.mark.parametrize("name", NEED_BOTH)
def test_no_normal_is_refused_where_it_matters(name):
    with pytest.raises(InputError, match=r"no normal unit \(all 3 labels are 1\)"):
        SCORED[name]([1, 1, 1], [0.0, 1.0, 0.5])


def test_no_normal_is_fine_where_it_does_not_matter():
    assert metrics.oracle_best_f1([1, 1], [0.0, 1.0]).f1 == 1.0
    assert metrics.precision_at_k([1, 1], [0.0, 1.0], k=1) == 1.0
    assert metrics.affiliation([1, 1], [1, 1]).f1 == 1.0


@every
def test_empty_is_refused(metric):
    with pytest.raises(InputError, match="y_true is empty"):
        metric([], [])


@every
def test_two_dimensions_are_refused(metric):
    with pytest.raises(InputError, match=r"y_true has shape \(2, 1\).*np\.ravel"):
        metric([[0], [1]], [0, 1])


@every
def test_text_labels_are_refused(metric):
    with pytest.raises(InputTypeError, match=r"y_true holds values of type <U\d"):
        metric(["a", "b"], [0, 1])


@scored
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_scores_are_refused(metric, bad):
    with pytest.raises(InputError, match=rf"scores holds {bad} at position 2 \(1 non-finite of 3"):
        metric([0, 1, 0], [0.1, 0.2, bad])


@scored
def test_text_scores_are_refused(metric):
    with pytest.raises(InputTypeError, match="scores holds values of type object"):
        metric([0, 1], np.array(["a", "b"], dtype=object))


@flagged
def test_sklearn_predictions_are_refused_with_the_mend(metric):
    with pytest.raises(InputError, match=r"flags holds -1 .*pass flags == -1"):
        metric([0, 1, 0], [1, -1, 1])


@flagged
def test_scores_given_as_flags_are_refused(metric):
    with pytest.raises(InputError, match=r"flags holds 0\.3 at position 0"):
        metric([0, 1], [0.3, 0.9])


def test_ragged_input_is_refused():
    with pytest.raises(InputTypeError, match="y_true cannot be read as an array"):
        metrics.auroc([[0], [1, 0]], [0, 1])


@pytest.mark.parametrize(
    "wrap",
    [list, tuple, np.asarray, pd.Series, pl.Series, pa.array, lambda v: np.asarray(v, np.float32)],
)
def test_every_array_like_gives_the_same(wrap):
    y, s = [0, 0, 1, 1, 0], [0.125, 0.5, 0.25, 0.75, 0.0]
    assert metrics.auroc(wrap(y), wrap(s)) == pytest.approx(5 / 6)
    assert metrics.precision(wrap(y), np.asarray([1, 0, 1, 0, 0], bool)) == 0.5


def test_input_is_not_changed():
    y, s = np.array([0, 1, 1, 0]), np.array([0.1, 0.9, 0.2, 0.3])
    before = y.copy(), s.copy()
    metrics.evaluate(y, s, flags=y, kind="series", max_buffer=3)
    np.testing.assert_array_equal(y, before[0])
    np.testing.assert_array_equal(s, before[1])


def test_every_public_name_loads_whichever_module_came_first():
    code = (
        "import genad.metrics.summary, genad.metrics as m, types\n"
        "bad = [n for n in m.__all__ if isinstance(getattr(m, n), types.ModuleType)]\n"
        "assert m.__all__ and not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_is_light():
    code = (
        "import sys, genad.metrics\n"
        "heavy = {'sklearn', 'scipy', 'torch', 'pandas', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
