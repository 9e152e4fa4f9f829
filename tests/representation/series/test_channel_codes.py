"""Codes of several channels as one tensor."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from genad.errors import InputError
from genad.representation.series.base import Track
from genad.representation.series.channel_codes import check_code, code_buffer, code_of, fit_codes, last_normal
from genad.representation.series.digits import DigitCode

OWNER = SimpleNamespace(digits=3, decimals=None)


def tracks():
    return [Track(scale * np.arange(n, dtype=float), c) for n in (40, 25) for c, scale in ((0, 1.0), (1, 100.0))]


def test_each_channel_has_its_own_range_over_all_its_tracks():
    one, two = fit_codes(OWNER, tracks())
    assert two.step == pytest.approx(100 * one.step)
    assert one.integers([0.0, 39.0]).tolist() == pytest.approx([250, 749], abs=2)


def test_codes_come_back_from_their_tensor():
    code = DigitCode(-1.25, 0.1 / 3, digits=4)
    assert code_of(code_buffer([DigitCode(0.0, 1.0), code]), 1, padded=True, spaced=False) == code
    assert code_buffer([]).shape == (0, 3)


def test_the_end_of_the_last_track_is_kept():
    codes = fit_codes(OWNER, tracks())
    kept = last_normal(codes, tracks(), 10)
    assert kept.shape == (2, 10)
    np.testing.assert_allclose(codes[1].values(kept[1]), 100.0 * np.arange(15, 25), atol=codes[1].step)
    assert last_normal(codes, tracks(), 99).shape == (2, 25)


@pytest.mark.parametrize(
    ("params", "message"),
    [({"digits": 0}, "digits: 0"), ({"digits": 12}, "digits: 12 .* at most 9"), ({"decimals": -1}, "decimals: -1")],
)  # fmt: skip
def test_what_no_code_can_have_is_refused(params, message):
    with pytest.raises(InputError, match=message):
        check_code(SimpleNamespace(**vars(OWNER) | params))
