"""How rare a score is among reference scores: counted with a tail beyond them, or by a law of all of them."""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

# Beyond this quantile of the reference scores an exponential tail takes over from counting.
_TAIL = 0.9
# Standard deviation of the standard logistic law.
_LOGISTIC = pi / 3**0.5
# Least standard deviation that the logarithms of scores are taken to have: smaller differences are chance.
_LEAST_SPREAD = 0.02
# Share of the mean reference score below which differences of scores do not count: many scores may be 0.
_LEAST_SCORE = 0.01


class Tail(nn.Module):
    """Turns a member's scores into -log of the share of normal samples that score higher, in nats.

    Below the 90 % quantile of the reference scores that share is counted; above, an exponential tail is fitted to the
    logarithm of the scores, so that two anomalies beyond every reference score still differ.

    Attributes
    ----------
    reference : Tensor of shape (n,)
        Sorted reference scores, on the transformed scale.
    centre, width : Tensor
        Of the arcsinh transform for scores that may be negative; width 0 marks the logarithm for positive ones.
    """

    reference: Tensor
    centre: Tensor
    width: Tensor
    start: Tensor
    excess: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("reference", torch.zeros(1))
        for name in ("centre", "width", "start", "excess"):
            self.register_buffer(name, torch.ones((), dtype=torch.float64))

    def fit(self, scores: Tensor) -> None:
        """Learn from the scores of reference samples."""
        scores = scores.double()
        low, middle, high = torch.quantile(scores, torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)).unbind()
        if bool((scores >= 0).all()):
            self.centre, self.width = 1e-3 * middle + 1e-9, torch.zeros((), dtype=torch.float64)
        else:
            self.centre, self.width = (
                middle,
                torch.maximum(middle - low, high - middle).clamp_min(1e-6),
            )
        self.reference = self._transform(scores).sort().values
        self.start = torch.quantile(self.reference, _TAIL)
        beyond = self.reference[self.reference > self.start] - self.start
        self.excess = beyond.mean().clamp_min(1e-6) if len(beyond) else torch.ones((), dtype=torch.float64)

    def _transform(self, scores: Tensor) -> Tensor:
        if float(self.width) == 0:
            return (scores.clamp_min(0) + self.centre).log()
        return torch.asinh((scores - self.centre) / self.width)

    def forward(self, scores: Tensor) -> Tensor:
        """Return -log tail shares, float64."""
        value = self._transform(scores.double())
        n = self.reference.shape[0]
        share = 1.0 - torch.searchsorted(self.reference, value) / (n + 1)
        beyond = -torch.log(torch.tensor(1.0 - _TAIL)) + (value - self.start) / self.excess
        return torch.where(value > self.start, beyond, -share.clamp_min(1e-12).log())


class LogLogistic(nn.Module):
    """Turns a member's scores of at least 0 into -log of the share of normal samples that score higher, in nats.

    The share is that of a log-logistic law, ``1 / (1 + (score / exp(centre))^(1 / width))``, whose logarithm has the
    mean and the standard deviation of the logarithms of the reference scores. Where :class:`Tail` takes the slope of
    its tail from the highest tenth of the scores, this law takes it from all of them: a few rows do not decide it,
    but it must hold for all. It is meant for residuals and distances.

    Attributes
    ----------
    level : Tensor
        Added to a score before its logarithm is taken.
    centre, width : Tensor
        Mean of the logarithms, and the scale of their logistic law.
    """

    level: Tensor
    centre: Tensor
    width: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("level", "centre", "width"):
            self.register_buffer(name, torch.ones((), dtype=torch.float64))

    def fit(self, scores: Tensor) -> None:
        """Learn from the scores of reference samples."""
        scores = scores.double().clamp_min(0)
        self.level = _LEAST_SCORE * scores.mean() + 1e-9
        logs = (scores + self.level).log()
        self.centre = logs.mean()
        self.width = logs.std(correction=0).clamp_min(_LEAST_SPREAD) / _LOGISTIC

    def forward(self, scores: Tensor) -> Tensor:
        """Return -log tail shares, float64."""
        logs = (scores.double().clamp_min(0) + self.level).log()
        return softplus((logs - self.centre) / self.width, threshold=40)
