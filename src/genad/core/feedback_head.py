"""A light head that corrects scores by a few labels, over what the detector already computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from genad.core.tail import Tail

Floats = NDArray[np.float64]

# A label pulls its unit to the far side of this rarity, a p-value of 1 %, and on by a factor of 20 in the p-value.
_EDGE, _PULL = float(-np.log(0.01)), 3.0
# Up to this rarity, a p-value of 10 %, a tail is counted; beyond, it grows with the score.
_COUNTED = float(-np.log(0.1))
# Prior variances of the part that weighs traits and of the part that recognises look-alikes, and of wrong labels.
_LINEAR, _ALIKE, _NOISE = 1.0, 4.0, 1.0
# Calibration units that help to set the length scale of likeness.
_NEIGHBOURS = 200


@dataclass
class FeedbackHead:
    """A correction of scores learnt from labelled units, by a Gaussian process on what the detector says of them.

    The score is first put on the scale of its rarity among held-out normal units, in nats. To this a correction is
    added. At a unit labelled anomalous it is pulled upwards, by 3 nats and by what the unit lacks to a p-value of 1 %;
    at one labelled normal downwards, by 3 nats and by what the unit is beyond. It is the mean of a Gaussian process on
    rarity and traits, so it reaches units whose scores come from the same places and fades for all others. Without
    labels nothing changes; contradicting labels of like units cancel. The variances were chosen among a few by AUROC
    and average precision of ``ppca`` on the 14 tables of the benchmark, one seed.

    Attributes
    ----------
    reference : float64 array of shape (m,)
        Raw scores of held-out normal units.
    traits : float64 array of shape (m, k)
        Their traits.
    told : float64 array of shape (l, k + 1)
        Raw scores and traits of the labelled units.
    labels : int64 array of shape (l,)
        1 anomaly, 0 normal.
    """

    reference: Floats
    traits: Floats
    told: Floats
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        self._tail = Tail()
        self._tail.fit(torch.from_numpy(self.reference))
        # A trait that is always 0 on normal units has a scale of its own size; the smallest float keeps it finite.
        usual = np.abs(self.traits)
        scale = np.quantile(usual, 0.9, axis=0) if usual.size else np.empty(usual.shape[1])
        self._scale = np.maximum(scale, 1e-9)
        normal = self._place(self.rarity(self.reference), self.traits)[:: max(1, len(self.traits) // _NEIGHBOURS)]
        self._rare = self.rarity(self.told[:, 0])
        self._at = self._place(self._rare, self.told[:, 1:])
        apart = ((self._at[:, None] - np.concatenate([self._at, normal])[None]) ** 2).sum(axis=2)
        positive = apart[apart > 0]
        self._length = float(np.median(positive)) / 4 if positive.size else 1.0
        # The head is made once; judging only evaluates it.
        lacking = _EDGE - self._rare
        pulls = np.where(self.labels == 1, _PULL + np.maximum(lacking, 0.0), -_PULL + np.minimum(lacking, 0.0))
        within = self._kernel(self._at, self._at) + _NOISE * np.eye(len(pulls))
        self._inverse = np.linalg.inv(within)
        self._weights = self._inverse @ pulls

    def rarity(self, scores: Floats) -> Floats:
        """Return -log of the share of normal units that score higher, in nats; beyond 1 % it grows as a logarithm."""
        found: Floats = self._tail(torch.from_numpy(np.asarray(scores, np.float64))).numpy()
        # The order stays; a label could not move a gross anomaly without moving half of the others too.
        return np.where(found > _EDGE, _EDGE + _PULL * np.log1p(np.maximum(found - _EDGE, 0.0) / _PULL), found)

    def level(self, value: float) -> float:
        """Return what parts corrected scores, in nats, as ``value`` parts raw ones, where labels correct nothing.

        Parameters
        ----------
        value : float
            On the scale of raw scores; may be infinite.
        """
        if not np.isfinite(value):
            return value
        found = float(self.rarity(np.array([value]))[0])
        if found > _COUNTED:
            return found
        # A counted rarity is a stair: halfway between two steps, ties stay together however little labels move them.
        below, above = self.reference[self.reference <= value], self.reference[self.reference > value]
        low = self.rarity(below.max(keepdims=True))[0] if below.size else -_PULL
        high = self.rarity(above.min(keepdims=True))[0] if above.size else _COUNTED
        return float(low + high) / 2

    def _place(self, rarity: Floats, traits: Floats) -> Floats:
        """Return where units stand for likeness: (n, k + 1), each part of about the same size."""
        # asinh keeps a gross anomaly from being alike to nothing but itself.
        parts = np.arcsinh(traits / self._scale) / np.sqrt(max(1, traits.shape[1]))
        return np.column_stack([rarity / _PULL, parts])

    def _kernel(self, a: Floats, b: Floats) -> Floats:
        # Column by column and not by matrix products, whose rounding depends on how many rows there are.
        apart, linear = np.zeros((len(a), len(b))), np.zeros((len(a), len(b)))
        for column in range(a.shape[1]):
            left, right = a[:, column, None], b[None, :, column]
            apart += (left - right) ** 2
            linear += left * right if column else 0.0
        return _LINEAR * linear + _ALIKE * np.exp(-apart / (2 * self._length))

    def judge(self, scores: Floats, traits: Floats) -> Floats:
        """Return corrected scores, in nats."""
        rarity = self.rarity(scores)
        corrected: Floats = rarity + (self._kernel(self._place(rarity, traits), self._at) * self._weights).sum(axis=1)
        return corrected

    def doubt(self, scores: Floats, traits: Floats) -> Floats:
        """Return how little the labels say of units: the share of the prior variance that is left, in (0, 1]."""
        place = self._place(self.rarity(scores), traits)
        across = self._kernel(place, self._at)
        prior = _LINEAR * (place[:, 1:] ** 2).sum(axis=1) + _ALIKE
        left: Floats = 1.0 - ((across @ self._inverse) * across).sum(axis=1) / prior
        return np.clip(left, 1e-6, 1.0)

    def judge_labelled(self) -> Floats:
        """Return the corrected scores of the labelled units themselves."""
        corrected: Floats = self._rare + (self._kernel(self._at, self._at) * self._weights).sum(axis=1)
        return corrected

    def propose(self, scores: Floats, traits: Floats, n: int) -> NDArray[np.intp]:
        """Return the positions of the ``n`` units whose labels would teach the most, the best first.

        A unit's worth is how likely it is flagged, a logistic function of its corrected rarity about the 95 % quantile
        of normal units, times what is still unknown of its like. Each choice lowers the worth of its own like.
        """
        rarity = self.judge(scores, traits)
        edge = float(np.quantile(self.calibration(), 0.95))
        worth = self.doubt(scores, traits) / (1.0 + np.exp(np.clip(edge - rarity, -50.0, 50.0)))
        place, chosen = self._place(self.rarity(scores), traits), []
        for _ in range(n):
            best = int(np.argmax(worth))
            chosen.append(best)
            alike = np.exp(-((place - place[best]) ** 2).sum(axis=1) / (2 * self._length))
            worth = worth * (1.0 - alike)
            # Below all, also once it is like the next ones.
            worth[chosen] = -1.0
        return np.array(chosen, np.intp)

    def calibration(self) -> Floats:
        """Return the corrected scores of the held-out normal units."""
        return self.judge(self.reference, self.traits)

    def state(self) -> dict[str, Any]:
        """Return what makes the head again, as plain values."""
        return {name: np.asarray(value).tolist() for name, value in vars(self).items() if not name.startswith("_")} | {
            "width": self.traits.shape[1]
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Make the head again."""
        width = int(state["width"])
        return cls(
            np.asarray(state["reference"], np.float64),
            np.asarray(state["traits"], np.float64).reshape(len(state["traits"]), width),
            np.asarray(state["told"], np.float64).reshape(-1, 1 + width),
            np.asarray(state["labels"], np.int64),
        )
