"""Codes of adversarial detectors: their length, and samples generated from them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genad import create
from genad.errors import InputError
from genad.nn import default_latent
from genad.reconstruction.gan.codes import GeneratorNet

CODED = ("ano_gan", "f_ano_gan", "egbad", "ganomaly", "adae")


@pytest.mark.parametrize("name", CODED)
def test_codes_are_as_long_as_asked_for_or_as_suits_the_sample(name):
    assert create(name).code_length((6,)) == default_latent((6,))
    assert create(name, latent=3).code_length((6,)) == 3
    with pytest.raises(InputError, match="latent: 0 was given; use a whole number of at least 1"):
        create(name, latent=0).fit([[0.0, 1.0]] * 30)


def test_samples_are_generated_from_standard_normal_codes():
    torch.manual_seed(0)
    net = GeneratorNet((3,), 2, None)
    net.generator = nn.Linear(2, 3)
    codes = net.codes(4000)
    assert codes.shape == (4000, 2)
    torch.testing.assert_close(codes.mean(0), torch.zeros(2), atol=0.1, rtol=0)
    torch.testing.assert_close(codes.std(0), torch.ones(2), atol=0.1, rtol=0)
    torch.manual_seed(1)
    expected = net.generator(torch.randn(5, 2))
    torch.manual_seed(1)
    assert torch.equal(net.generate(5), expected)
