"""What adversarial detectors with codes share: how long a code is, and samples generated from normal codes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genad.core.families import ReconstructionDetector
from genad.core.parameters import check_whole
from genad.nn import Backbone, default_latent
from genad.nn.adversarial import leaky


class GeneratorNet(nn.Module):
    """Base of networks that hold a generator of samples from standard normal codes.

    A network sets ``generator``, ``(B, latent) -> (B, *shape)``, and makes it, as all of its parts, by ``spec``.

    Parameters
    ----------
    shape : tuple of int
        Shape of one sample.
    latent : int
        Length of the codes.
    spec : Backbone, str or None
        Which networks; None chooses by the shape.
    """

    generator: nn.Module

    def __init__(self, shape: tuple[int, ...], latent: int, spec: Backbone | str | None) -> None:
        super().__init__()
        self.latent = latent
        self.spec = leaky(shape, spec, light=True)

    def codes(self, n: int) -> Tensor:
        """Draw ``n`` standard normal codes, (n, latent)."""
        return torch.randn(n, self.latent, device=next(self.parameters()).device)

    def generate(self, n: int) -> Tensor:
        """Generate ``n`` samples from standard normal codes."""
        made: Tensor = self.generator(self.codes(n))
        return made


@dataclass(eq=False, repr=False)
class CodedReconstruction(ReconstructionDetector):
    """Base of adversarial detectors that restore a sample from a code.

    Parameters
    ----------
    latent : int, optional
        Length of the codes, at least 1; from the size of a sample when absent.
    """

    latent: int | None = None

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.latent is not None:
            check_whole(self, "latent")

    def code_length(self, shape: tuple[int, ...]) -> int:
        """Return the length of the codes of samples of a shape."""
        return int(self.latent or default_latent(shape))
