"""States and maps of answers, and questions that are asked once."""

from __future__ import annotations

import numpy as np

from genad.foundation.usage import BudgetExhausted, Meter
from genad.representation.verdicts import highest, padded, scored_once, worst


def test_equal_questions_are_asked_once_and_a_spent_budget_leaves_the_rest_unknown():
    asked = []

    def score(some):
        if asked:
            raise BudgetExhausted("calls", 1, Meter().usage)
        asked.extend(some)
        return [1.0] * len(some)

    items = [f"line {i}" for i in range(100)]
    found = scored_once(score, items + items[:1])
    assert len(asked) == 64
    assert np.isnan(found).sum() == 36
    assert found[-1] == 1.0


def test_states_and_numbers_of_several_answers():
    assert worst([]) == "ok"
    assert worst(["fallback", "unasked", "ok"]) == "unasked"
    assert highest([0.5, float("nan"), 2.0]) == 2.0
    assert np.isnan(highest([float("nan")]))


def test_maps_of_different_lengths_end_in_zeros():
    assert padded([[1.0], [float("nan"), 2.0]]).tolist() == [[1.0, 0.0], [0.0, 2.0]]
    assert padded([]).shape == (0, 0)
