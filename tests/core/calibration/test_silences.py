"""Kinds that are silent: what is alike, until when, and what is no list of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from genad.core.calibration.silences import Silences, as_kind
from genad.errors import InputError, InputTypeError


def test_texts_are_the_same_or_not_and_vectors_near_or_not() -> None:
    listed = Silences("silent", [("a", None), ([0.0, 0.0], None)], radius=1.0)
    assert listed.cover("a", 0)
    assert listed.cover((0.6, 0.8), 0)
    for other in ("A", "", None, (0.6, 0.9), (0.0,), (0.0, 0.0, 0.0)):
        assert not listed.cover(other, 0)


def test_the_step_of_an_entry_is_the_first_that_is_loud() -> None:
    listed = Silences("silent", [("a", 3), ("b", None)], radius=0.0)
    assert [listed.cover("a", step) for step in (0, 2, 3)] == [True, True, False]
    assert listed.cover("b", 10**9)


def test_entries_are_plain_and_read_back_the_same() -> None:
    listed = Silences("silent", [(np.str_("a"), np.int64(3)), (np.float32([0.5, 1.0]), None)], radius=0.5)
    assert listed.entries() == [["a", 3], [[0.5, 1.0], None]]
    assert type(listed.entries()[0][0]) is str
    assert Silences("silent", listed.entries(), radius=0.5).entries() == listed.entries()


def test_adding_renews_a_kind_and_drops_those_that_are_over() -> None:
    listed = Silences("known", [("a", 3), ("b", 9)], radius=0.0)
    listed.add("b", 20, now=5)
    assert listed.entries() == [["b", 20]]


@pytest.mark.parametrize(
    ("entries", "error", "words"),
    [
        ("ab", InputTypeError, r"silent: 'ab' was given; use a list of pairs \(kind, step\)"),
        ({"a": 3}, InputTypeError, "use a list of pairs"),
        (["ab"], InputTypeError, r"silent: 'ab' was given; use pairs \(kind, step\), or \(kind, None\) for good"),
        ([("a", 1, 2)], InputTypeError, "use pairs"),
        ([("a", 0.5)], InputTypeError, "silent: step must be a whole number"),
        ([("a", -1)], InputError, "silent: step must be at least 0"),
    ],
)
def test_what_is_no_list_of_pairs_is_refused(entries: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Silences("silent", entries, radius=0.0)


@pytest.mark.parametrize("kind", [None, True, object(), ["a", "b"], [None]])
def test_what_is_neither_text_nor_numbers_is_no_kind(kind: object) -> None:
    with pytest.raises(InputTypeError, match="use a text or a vector of numbers"):
        as_kind("kind", kind)


@pytest.mark.parametrize("kind", [1, 0.5, [[1.0]], [float("nan")], [float("inf")], np.zeros(0)])
def test_numbers_that_are_no_finite_row_are_no_kind(kind: object) -> None:
    with pytest.raises(InputError, match=r"use a text or a vector \(d,\) of finite numbers"):
        as_kind("kind", kind)
