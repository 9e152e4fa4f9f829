"""scikit-learn's own estimator checks over every detector that takes plain arrays of rows."""

from __future__ import annotations

import warnings

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from genad.core.calibration import Conformal
from genad.core.registry import Family, registered
from genad.core.training import Training
from genad.data.kinds import Kind
from genad.density.explicit.ppca import PPCA
from genad.errors import GenadWarning
from genad.reconstruction.autoencoder.autoencoder import Autoencoder

# Wrappers that need a detector inside; Grouped reads a column that names the group, so plain arrays say nothing to it.
QUICK = Training(updates=20)
INSIDE = {
    "committee": {"detectors": (Autoencoder(training=QUICK), PPCA())},
    "ensemble": {"detector": Autoencoder(training=QUICK), "n": 2},
}
LEFT_OUT = {"grouped"}

_HOOK = "score(net, batch) is a method's hook; scikit-learn takes it for its own optional score(X, y)"
EXPECTED = {
    "check_fit_score_takes_y": _HOOK,
    "check_n_features_in_after_fitting": _HOOK,
    "check_pipeline_consistency": _HOOK,
}


# A memory finds the rows it was fitted on at distance 0, as LocalOutlierFactor(novelty=True) does, and flags none.
REMEMBERS = {"nearest_memory", "table_committee"}
_ZERO = dict.fromkeys(("check_outliers_train", "check_outliers_fit_predict"), "it remembers the rows of fit")


def expected(estimator):
    return EXPECTED | (_ZERO if estimator.name in REMEMBERS else {})


def estimators():
    for name, cls in registered().items():
        if Kind.TABLE not in cls.card.kinds or name in LEFT_OUT or cls.reads_as is Kind.SERIES:
            continue
        assert cls.card.family is not Family.WRAPPER or name in INSIDE
        # Some checks want a few of 300 rows flagged.
        yield cls(training=QUICK, threshold=Conformal(alpha=0.1), **INSIDE.get(name, {}))


@pytest.mark.filterwarnings("ignore::genad.errors.GenadWarning")
@parametrize_with_checks(list(estimators()), expected_failed_checks=expected)
def test_scikit_learn_check(estimator, check):
    with warnings.catch_warnings():
        # Checks fit on a handful of rows, some of them constant, which genad remarks on.
        warnings.simplefilter("ignore", GenadWarning)
        check(estimator)
