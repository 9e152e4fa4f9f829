"""What trained energies share: a network whose slope chains can follow, and learning against two chains in a row."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from genad.core.detector import Detector
from genad.core.parameters import check_number, check_whole
from genad.nn import Backbone, encoder, resolve
from genad.nn.backbone import for_tables


def energy_network(shape: tuple[int, ...], asked: Backbone | str | None, own: Backbone, out: int = 1) -> nn.Module:
    """Make a network for samples of a shape that gives an energy; chains follow its slope, which should not jump.

    Parameters
    ----------
    shape : tuple of int
        Shape of one sample.
    asked : Backbone, str or None
        What was asked for; ReLU units are replaced by SiLU.
    own : Backbone
        The method's own network for tables.
    out : int, default=1
        Length of the output.

    Examples
    --------
    >>> import torch
    >>> energy_network((5,), "mlp", Backbone())(torch.zeros(2, 5)).shape
    torch.Size([2, 1])
    """
    spec = resolve(shape, for_tables(shape, asked, own))[1]
    if spec.activation == "relu":
        spec = replace(spec, activation="silu")
    return encoder(shape, out, spec)


@dataclass(eq=False, repr=False)
class TwoChains(Detector):
    """Base of energies that learn against what two Langevin chains make up, near the manifold of an autoencoder.

    Autoencoders with codes on the unit sphere are trained first. Then, in each update, a chain of codes descends the
    energy of what it decodes to, and the decoded code starts a second chain, of samples.

    Parameters
    ----------
    share : float
        Share of the updates that train the autoencoders alone, in (0, 1).
    code_steps, steps : int
        Steps of the chains of codes and of samples, at least 0.
    code_step, step : float
        Step lengths of the chains of codes and of samples, above 0.
    calm : float
        Weight of the squared energies, at least 0.
    """

    share: float = field(default=0.7, kw_only=True)
    code_steps: int = field(default=10, kw_only=True)
    code_step: float = field(default=0.2, kw_only=True)
    steps: int = field(default=10, kw_only=True)
    step: float = field(default=0.05, kw_only=True)
    calm: float = field(default=1.0, kw_only=True)

    # The chains differentiate the energy while the loss is computed, which members under vmap cannot.
    stackable = False

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number(self, "share", "(0, 1)")
        check_whole(self, "code_steps", "steps", low=0)
        check_number(self, "code_step", "(0, inf)")
        check_number(self, "step", "(0, inf)")
        check_number(self, "calm", "[0, inf)")

    def contrast(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return what lowers the energies of data and raises those of made-up samples, and keeps both small."""
        return real.mean() - fake.mean() + self.calm * (real.square().mean() + fake.square().mean())
