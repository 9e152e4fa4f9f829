"""How rare a score is among reference scores, with a tail beyond them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Beyond this quantile of the reference scores an exponential tail takes over from counting.
_TAIL = 0.9


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
