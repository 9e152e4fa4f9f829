"""What series VAEs share: parameters, sums over the channels of a step, and scores as of each step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from genad.core.inference import RECURRENT_ROWS, Inference, Want
from genad.core.parameters import check_number, check_whole
from genad.core.windows import SeriesDetector
from genad.data.samples import Batch
from genad.nn import gaussian_log_prob

# Means and standard deviations of independent normal distributions.
Gaussian = tuple[Tensor, Tensor]


def step_sum(batch: Batch, values: Tensor) -> Tensor:
    """Add up the channels of each step, missing ones counted at the mean of the observed.

    Parameters
    ----------
    batch : Batch
        Windows (B, T, C).
    values : Tensor of shape (B, T, C)
        One number a value.

    Returns
    -------
    Tensor of shape (B, T)
        0 where a step has no observed value.

    Examples
    --------
    >>> import torch
    >>> x = torch.ones(1, 2, 2)
    >>> step_sum(Batch(x), x)
    tensor([[2., 2.]])
    >>> step_sum(Batch(x, torch.tensor([[[True, False], [False, False]]])), x)
    tensor([[2., 0.]])
    """
    if batch.mask is None:
        return values.sum(-1)
    seen = batch.mask.sum(-1).clamp_min(1)
    return batch.keep_observed(values).sum(-1) / seen * values.shape[-1]


@dataclass(eq=False, repr=False)
class SequentialVAE(SeriesDetector):
    """Base of the variational autoencoders of series that have a latent variable at each step of a window.

    Parameters
    ----------
    latent : int
        Dimensions of the latent variable of a step, at least 1.
    hidden : int
        Width of the hidden layers, at least 1.
    """

    latent: int = field(default=16, kw_only=True)
    hidden: int = field(default=32, kw_only=True)

    least_rows = RECURRENT_ROWS
    takes_backbone = False

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "latent", "hidden")


@dataclass(eq=False, repr=False)
class PathVAE(SequentialVAE):
    """Base of those that score a window along several drawn paths of latent variables.

    A method fills in :meth:`expected`, and its network keeps the noise of the paths in a buffer ``noise`` of shape
    (draws, T, latent), so that a score does not depend on when it is computed. The score of a step is
    ``-log p(x_t)`` in nats, averaged over the paths; missing channels count as the mean of the observed ones.

    Parameters
    ----------
    draws : int
        Latent paths a window is scored with, at least 1; scoring time grows in proportion.
    min_std : float
        Smallest standard deviation of the decoder, above 0, in those of the training data.
    """

    draws: int = field(default=4, kw_only=True)
    min_std: float = field(default=0.1, kw_only=True)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_whole(self, "draws")
        check_number(self, "min_std", "(0, inf)")

    def expected(self, net: Any, x: Tensor, noise: Tensor) -> Gaussian:
        """Return means and standard deviations of the values of windows, (B, T, C), along paths of some noise."""
        raise NotImplementedError

    def surprise(self, x: Tensor, expected: Gaussian) -> tuple[Tensor, Tensor]:
        """Return the score of every value, and the part of it that its deviation from the mean causes."""
        mean, std = expected
        return -gaussian_log_prob(x, mean, std), 0.5 * ((x - mean) / std).square()

    def infer(self, net: Any, batch: Batch, want: frozenset[Want]) -> Inference:
        """Score every step of the windows.

        The map is what deviations from the mean add to the score, half the squared deviation in the decoder's own
        standard deviations; the restored window is the mean.
        """
        x = batch.x
        score, centre, excess = x.new_zeros(x.shape[:2]), torch.zeros_like(x), torch.zeros_like(x)
        for noise in net.noise:
            found = self.expected(net, x, noise.expand(len(x), -1, -1))
            surprise, part = self.surprise(x, found)
            score = score + step_sum(batch, surprise) / self.draws
            excess = excess + part / self.draws
            centre = centre + found[0] / self.draws
        return Inference.of(batch, want, score, excess, centre)
