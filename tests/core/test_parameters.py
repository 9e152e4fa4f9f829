"""Checks of parameters: what is accepted, and what is said of what is not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import genad
from genad.core.parameters import check_flag
from genad.errors import InputError


def test_flags_are_true_or_false_and_nothing_like_them():
    check_flag(SimpleNamespace(one=True, other=False), "one", "other")
    for found in (1, 0, None, "yes", "True", 1.0, []):
        with pytest.raises(InputError, match=r"other: .* was given; use True or False"):
            check_flag(SimpleNamespace(one=True, other=found), "one", "other")


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("aesop", "reasoner"),
        ("dabl", "causes"),
        ("deep_log", "ends"),
        ("line_embedding", "raw"),
        ("log_prompt", "reasons"),
        ("meter", "update"),
        ("sisvae", "online"),
        ("sla_vae", "wide"),
    ],
)
def test_the_switches_of_detectors_are_flags(name, flag):
    detector = genad.create(name, **{flag: 1})
    with pytest.raises(InputError, match=f"{flag}: 1 was given; use True or False"):
        detector._check_parameters()
