from __future__ import annotations

import pytest
import torch

from genad.nn.control import PIController


def test_the_weight_follows_the_formula_and_grows_while_the_term_is_too_large():
    control = PIController(10.0, kp=0.5, ki=0.1)
    integral = 0.0
    for value in (14.0, 12.0, 30.0):
        error = 10.0 - value
        integral -= 0.1 * error
        expected = 1.0 + 0.5 / (1.0 + torch.tensor(error).exp().item()) + integral
        assert float(control.step(torch.tensor(value))) == pytest.approx(expected, rel=1e-5)
    assert float(control.weight) > 3.0


def test_what_cannot_be_reached_does_not_wind_up():
    control = PIController(10.0, ki=0.1)
    for _ in range(1000):
        control.step(torch.tensor(0.0))
    assert float(control.weight) == pytest.approx(1.0, abs=1e-3)
    # a hundred steps below would otherwise have to be made good first
    assert float(control.step(torch.tensor(20.0))) > 1.9


def test_it_settles_a_term_that_the_weight_pulls_down():
    control = PIController(3.0, ki=0.05)
    value = torch.tensor(8.0)
    for _ in range(400):
        value = 8.0 / control.step(value)
    assert float(value) == pytest.approx(3.0, abs=0.05)
