"""Write a method of one's own: a class with two hooks is a whole detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

import genad
from genad.core.families import ReconstructionDetector


@genad.register(genad.Card(title="Two linear layers", authors="me", venue="", year=2026,
                           family=genad.Family.AUTOENCODER, kinds=(genad.Kind.TABLE,)))  # fmt: skip
@dataclass(eq=False, repr=False)
class LinearAutoencoder(ReconstructionDetector):
    """Reconstruct through a linear bottleneck."""

    width: int = 1

    defaults = genad.Training(updates=500, lr=1e-2)

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the network for samples of ``shape``."""
        return nn.Sequential(nn.Linear(shape[0], self.width), nn.Linear(self.width, shape[0]))

    def loss(self, net: Any, batch: Any) -> Tensor:
        """Return what training minimises."""
        return batch.keep_observed((net(batch.x) - batch.x).square()).mean()


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 1)) @ [[1.0, 2.0, -1.0]] + 0.1 * rng.normal(size=(500, 3))
    detector = genad.create("linear_autoencoder").fit(X)
    odd = [[1.0, -2.0, -1.0]]
    print(detector.predict(odd), detector.detect(odd).explain(0), sep="\n")
