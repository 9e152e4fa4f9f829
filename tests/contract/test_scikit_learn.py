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

# The checks ask for the form of an estimator, never for good scores.
QUICK = Training(updates=4)
# Wrappers that need a detector inside; Grouped reads a column that names the group, so plain arrays say nothing to it.
INSIDE = {
    "committee": {"detectors": (Autoencoder(training=QUICK), PPCA())},
    "ensemble": {"detector": Autoencoder(training=QUICK), "n": 2},
    "synthetic_normals": {},  # an autoencoder with the wrapper's training
}
# Fewer repetitions of what a method does many times, on the same paths.
FEW = {
    "ano_gan": {"inversion_steps": 5},
    "likelihood_regret": {"draws": 4, "steps": 1},
    "odim": {"restarts": 2, "particles": 2, "draws": 2},
    "score_sde": {"steps": 2},
    "supervised_ade": {"orders": 1},
}
LEFT_OUT = {"grouped"}


def estimators():
    for name, cls in registered().items():
        if Kind.TABLE not in cls.card.kinds or name in LEFT_OUT or cls.reads_as is Kind.SERIES:
            continue
        assert cls.card.family is not Family.WRAPPER or name in INSIDE
        # Some checks want a few of 300 rows flagged.
        yield cls(training=QUICK, threshold=Conformal(alpha=0.1), **INSIDE.get(name, {}), **FEW.get(name, {}))


@pytest.mark.filterwarnings("ignore::genad.errors.GenadWarning")
@parametrize_with_checks(list(estimators()))
def test_scikit_learn_check(estimator, check):
    with warnings.catch_warnings():
        # Checks fit on a handful of rows, some of them constant, which genad remarks on.
        warnings.simplefilter("ignore", GenadWarning)
        check(estimator)
