"""scikit-learn's own estimator checks over every detector that takes plain arrays of rows."""

from __future__ import annotations

import warnings

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from genad.core.registry import Family, registered
from genad.core.training import Training
from genad.data.kinds import Kind
from genad.errors import GenadWarning
from genad.reconstruction.autoencoder.autoencoder import Autoencoder

# Wrappers that need a detector inside; Grouped reads a column that names the group, so plain arrays say nothing to it.
INSIDE = {"ensemble": {"detector": Autoencoder(training=Training(updates=20)), "n": 2}}
LEFT_OUT = {"grouped"}


def estimators():
    for name, cls in registered().items():
        if Kind.TABLE not in cls.card.kinds or name in LEFT_OUT or cls.reads_as is Kind.SERIES:
            continue
        assert cls.card.family is not Family.WRAPPER or name in INSIDE
        yield cls(training=Training(updates=20), **INSIDE.get(name, {}))


@pytest.mark.filterwarnings("ignore::genad.errors.GenadWarning")
@parametrize_with_checks(list(estimators()))
def test_scikit_learn_check(estimator, check):
    with warnings.catch_warnings():
        # Checks fit on a handful of rows, some of them constant, which genad remarks on.
        warnings.simplefilter("ignore", GenadWarning)
        check(estimator)
