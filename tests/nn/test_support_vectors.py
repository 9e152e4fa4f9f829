from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.svm import SVC, OneClassSVM

from genad.nn.support_vectors import SupportVectors


@pytest.fixture
def normal():
    return 4.0 + np.random.default_rng(0).normal(size=(200, 3)) * [1.0, 5.0, 0.1]


def test_one_class_decision_is_that_of_scikit_learn(normal):
    machine = SupportVectors(3)
    machine.fit_one_class(torch.from_numpy(normal), 0.2)
    z = (normal - normal.mean(0)) / normal.std(0)
    expected = OneClassSVM(nu=0.2, gamma=1 / 3).fit(z).decision_function(z)
    assert machine(torch.from_numpy(normal)).numpy() == pytest.approx(-expected, abs=1e-9)


def test_two_class_decision_is_that_of_scikit_learn(normal):
    odd = normal[:20] + np.array([3.0, -10.0, 0.3])
    machine = SupportVectors(3)
    machine.fit_two_class(torch.from_numpy(normal), torch.from_numpy(odd), 2.0)
    z, w = ((part - normal.mean(0)) / normal.std(0) for part in (normal, odd))
    svc = SVC(C=2.0, gamma=1 / 3, class_weight="balanced").fit(np.r_[z, w], np.r_[np.ones(200), np.zeros(20)])
    assert machine(torch.from_numpy(odd)).numpy() == pytest.approx(-svc.decision_function(w), abs=1e-9)
    assert (machine(torch.from_numpy(odd)) > 0).float().mean() > 0.8


def test_about_nu_of_the_normal_vectors_are_outside(normal):
    machine = SupportVectors(3)
    machine.fit_one_class(torch.from_numpy(normal), 0.1)
    assert 0.05 < (machine(torch.from_numpy(normal)) > 0).double().mean() < 0.15


def test_constant_features_are_left_out_and_far_vectors_get_the_offset(normal):
    normal[:, 1] = 7.0
    machine = SupportVectors(3)
    machine.fit_one_class(torch.from_numpy(normal), 0.1)
    one, other = machine(torch.tensor([[4.0, 7.0, 4.0], [4.0, 9.0, 4.0]]))
    assert one == other
    assert machine(torch.full((1, 3), 1e6)) == machine.offset


def test_state_holds_the_machine(normal):
    machine = SupportVectors(3)
    machine.fit_one_class(torch.from_numpy(normal), 0.1)
    assert set(machine.state_dict()) == {"centre", "scale", "vectors", "weights", "offset"}


def test_global_random_numbers_are_left_alone(normal):
    before = np.random.get_state()[1:3]  # noqa: NPY002 - the legacy state is what must not change
    machine = SupportVectors(3)
    machine.fit_one_class(torch.from_numpy(normal), 0.1)
    machine.fit_two_class(torch.from_numpy(normal), torch.from_numpy(normal[:9] + 5), 1.0)
    after = np.random.get_state()[1:3]  # noqa: NPY002
    assert np.array_equal(before[0], after[0])
    assert before[1] == after[1]
