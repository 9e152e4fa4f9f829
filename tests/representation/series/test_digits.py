"""The digit code: exact both ways, spans that tile the text, ranges and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genad.errors import InputError
from genad.representation.series.digits import DigitCode

NUMBERS = st.lists(st.integers(0, 999), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(NUMBERS, st.booleans(), st.booleans())
def test_numbers_come_back_and_their_spans_tile_the_text(numbers, padded, spaced):
    code = DigitCode(0.0, 1.0, digits=3, padded=padded, spaced=spaced)
    written = code.write(numbers)
    assert code.read(written.text).tolist() == numbers
    assert written.spans[0, 0] == 0
    assert written.spans[-1, 1] == len(written.text)
    assert (written.spans[1:, 0] == written.spans[:-1, 1]).all()
    for (start, stop), number in zip(written.spans, numbers, strict=True):
        piece = written.text[start:stop]
        assert piece.endswith(",")
        assert int(piece.replace(" ", "").rstrip(",")) == number


@settings(max_examples=60, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(1, 6))
def test_values_within_the_range_are_kept_to_half_a_step(low, width, digits):
    values = np.linspace(low, low + width, 50)
    code = DigitCode.fit(values, digits=digits)
    back = code.values(code.integers(values))
    assert np.abs(back - values).max() <= 0.5 * code.step * (1 + 1e-6) + 1e-9 * abs(low)


def test_padded_numbers_have_one_length_and_no_sign_or_point():
    code = DigitCode.fit(np.linspace(-3, 3, 100), digits=3)
    text = code.write(code.integers([-100.0, -2.5, 0.0, 2.5, 100.0])).text
    assert {len(piece) for piece in text.split(",")[:-1]} == {3}
    assert set(text) <= set("0123456789,")
    assert text.startswith("000,")
    assert text.endswith("999,")


def test_the_normal_range_takes_half_of_the_numbers():
    code = DigitCode.fit(np.linspace(0, 1, 10_001), digits=3)
    low, high = code.integers([0.001, 0.999])
    assert abs(low - 250) <= 1
    assert abs(high - 749) <= 1


def test_one_wild_value_does_not_spoil_the_resolution():
    values = np.r_[np.random.default_rng(0).uniform(0, 1, 5000), 1e6]
    assert DigitCode.fit(values, digits=3).step < 0.01


def test_decimals_keep_the_unit_and_take_the_digits_they_need():
    code = DigitCode.fit([0.0, 0.0, 123.4, 123.4], decimals=1, headroom=0.0)
    assert code.step == pytest.approx(0.1)
    assert code.digits == 4
    assert code.integers([12.3]).tolist() == [123]


def test_constant_and_missing_values_can_be_written():
    code = DigitCode.fit([7.0, np.nan, 7.0])
    assert code.values(code.integers([7.0]))[0] == pytest.approx(7.0, abs=code.step)
    assert code.integers([-1e9, 1e9]).tolist() == [0, 999]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12,34,", [12, 34]),
        ("12,34", [12, 34]),
        ("12,,34", [12, None, 34]),
        ("1,12", [None, 12]),
        ("123,12", [None, 12]),
        ("-5,12", [None, 12]),
        ("1.5,12", [None, 12]),
        ("abc", [None]),
        ("", []),
    ],
)
def test_what_is_no_number_of_the_code_is_missing(text, expected):
    found = DigitCode(0.0, 1.0, digits=2).read(text)
    assert [None if np.isnan(value) else int(value) for value in found] == expected


def test_an_empty_list_is_an_empty_text():
    written = DigitCode(0.0, 1.0).write([])
    assert written.text == ""
    assert written.spans.shape == (0, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DigitCode(np.nan, 1.0), "offset: nan"),
        (lambda: DigitCode(0.0, 0.0), r"step: 0.0 was given; use a number in \(0, inf\)"),
        (lambda: DigitCode(0.0, 1.0, digits=0), "digits: 0"),
        (lambda: DigitCode(0.0, 1.0, digits=10), "digits: 10 was given; use at most 9"),
        (lambda: DigitCode(0.0, 1.0, separator="1"), "separator: '1'"),
        (lambda: DigitCode(0.0, 1.0, separator=""), "separator: ''"),
        (lambda: DigitCode.fit([np.nan]), "values: none of them is finite"),
        (lambda: DigitCode.fit([1.0, 2.0], headroom=-1.0), "headroom: -1.0"),
        (lambda: DigitCode.fit([1.0, 2.0], decimals=-1), "decimals: -1"),
        (lambda: DigitCode.fit([1.0, 2.0], decimals=True), "decimals: True"),
        (lambda: DigitCode.fit([1.0, 2.0], digits=12), "digits: 12"),
    ],
)
def test_wrong_parameters_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make()
