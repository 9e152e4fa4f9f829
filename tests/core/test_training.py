"""What the user may set: bounds, precedence, the number of updates, and when phases run."""

from __future__ import annotations

import math

import pytest

from genad.core.training import BASE_TRAINING, Phase, Training
from genad.errors import InputError


@pytest.mark.parametrize(("field", "value"), [
    ("updates", 0), ("epochs", 0), ("epochs", -1), ("min_updates", 0), ("max_updates", 0), ("batch_size", 0),
    ("lr", 0.0), ("lr", math.nan), ("lr", math.inf), ("weight_decay", -1e-3), ("warmup", -1), ("clip", -1.0),
    ("ema", -0.1), ("ema", 1.0), ("patience", -1), ("validation", 0.0), ("validation", 1.0), ("max_seconds", 0.0),
    ("checkpoint_seconds", -1.0), ("optimizer", "lion"), ("schedule", "step"), ("precision", "float16"),
    ("epochs", "3"), ("updates", 2.5), ("batch_size", True), ("lr", "fast"),
])  # fmt: skip
def test_values_that_cannot_train_are_refused(field, value):
    with pytest.raises(InputError, match=rf"^Training.{field}: {value!r} was given"):
        Training(**{field: value})


def test_base_training_leaves_only_budgets_open():
    empty = {name for name, value in vars(BASE_TRAINING).items() if value is None}
    assert empty == {"updates", "max_seconds", "checkpoint", "augment"}


def test_over_fills_the_gaps():
    merged = Training(lr=0.5).over(Training(lr=0.1, batch_size=8, ema=0.9))
    assert (merged.lr, merged.batch_size, merged.ema) == (0.5, 8, 0.9)
    # Zero is a value and not a gap.
    assert Training(ema=0).over(Training(ema=0.9)).ema == 0


def test_epochs_asked_for_lift_the_bounds_of_the_method():
    method = Training(updates=300, min_updates=100, max_updates=1000)
    merged = Training(epochs=2, batch_size=10).over(method)
    assert merged.total_updates(100) == 20
    assert Training(epochs=2, max_updates=5).over(method).max_updates == 5
    assert Training(lr=1.0).over(method).total_updates(100) == 300


@pytest.mark.parametrize(("training", "n", "expected"), [
    (Training(updates=7, epochs=100), 10, 7),
    (Training(epochs=3, batch_size=10), 100, 30),
    (Training(epochs=3, batch_size=10), 101, 31),
    (Training(epochs=0.5, batch_size=10), 100, 5),
    (Training(epochs=0.001, batch_size=10), 100, 1),
    (Training(epochs=3, batch_size=1000), 100, 3),
    (Training(epochs=1, batch_size=10, min_updates=50), 100, 50),
    (Training(epochs=9, batch_size=10, max_updates=50), 100, 50),
    (Training(epochs=1, batch_size=1, min_updates=9, max_updates=4), 2, 4),
])  # fmt: skip
def test_the_number_of_updates(training, n, expected):
    assert training.total_updates(n) == expected


def test_phases_run_when_they_say():
    def loss(net, batch):
        raise NotImplementedError

    assert [Phase("a", loss, every=3).active(k, 9) for k in range(9)] == [True, False, False] * 3
    assert [Phase("b", loss, start=0.5).active(k, 4) for k in range(4)] == [False, False, True, True]
    assert [Phase("c", loss, stop=0.5).active(k, 4) for k in range(4)] == [True, True, False, False]
    # Two phases that share a boundary neither overlap nor leave a gap.
    for total in (1, 2, 3, 7, 10):
        runs = [Phase("d", loss, stop=0.3).active(k, total) + Phase("e", loss, start=0.3).active(k, total)
                for k in range(total)]  # fmt: skip
        assert runs == [1] * total
