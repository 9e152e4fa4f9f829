"""Generative adversarial active learning: the discriminator closes a boundary round the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.core.detector import Detector
from genad.core.registry import Card, Family, register
from genad.core.training import Phase, Training
from genad.data.kinds import Kind
from genad.data.samples import Batch, Samples, everything
from genad.errors import InputError
from genad.reconstruction.gan.nearest import nearest_kept

# Training rows kept to restore from; more would cost memory and say little more.
_BANK = 2000


class Generators(nn.Module):
    """``k`` generators side by side: each Linear, ReLU, Linear, ReLU on the unit cube, started at the identity.

    Parameters
    ----------
    k : int
        Number of generators.
    d : int
        Values of a sample.
    reach : float
        The unit cube stands for ``[-reach, reach]`` on the standardised scale.
    """

    def __init__(self, k: int, d: int, reach: float) -> None:
        super().__init__()
        self.reach = reach
        # From the identity on, the first potential outliers fill the whole box instead of one corner of it.
        self.weight1 = nn.Parameter(torch.eye(d).repeat(k, 1, 1))
        self.weight2 = nn.Parameter(torch.eye(d).repeat(k, 1, 1))
        self.bias1 = nn.Parameter(torch.zeros(k, 1, d))
        self.bias2 = nn.Parameter(torch.zeros(k, 1, d))

    def forward(self, u: Tensor) -> Tensor:
        """Turn uniform noise (B, d) into potential outliers of every generator, (k, B, d)."""
        hidden = torch.relu(u.unsqueeze(0) @ self.weight1 + self.bias1)
        return self.reach * (2.0 * torch.relu(hidden @ self.weight2 + self.bias2) - 1.0)


class GAALNet(nn.Module):
    """Generators, discriminator, and the training rows kept to restore from."""

    bank: Tensor

    def __init__(self, shape: tuple[int, ...], k: int, hidden: int, reach: float) -> None:
        super().__init__()
        d = math.prod(shape)
        self.generator = Generators(k, d, reach)
        self.discriminator = nn.Sequential(nn.Linear(d, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.register_buffer("bank", torch.zeros(1, d))

    def logit(self, x: Tensor) -> Tensor:
        """Return the logit of D, positive for data, of (..., d): shape (...)."""
        logit: Tensor = self.discriminator(x).squeeze(-1)
        return logit


def shares(k: int, total: int) -> list[int]:
    """Split ``total`` generated points over ``k`` generators in the ratio k : k - 1 : ... : 1.

    Parameters
    ----------
    k : int
        Generators, at least 1.
    total : int
        Points to share out.

    Returns
    -------
    list of int
        They add up to ``total`` and never increase.

    Examples
    --------
    >>> shares(4, 100)
    [40, 30, 20, 10]
    >>> shares(3, 10)
    [5, 3, 2]
    """
    edges = [round(total * sum(range(k - i, k + 1)) / (k * (k + 1) / 2)) for i in range(k)]
    counts = np.diff([0, *edges]).tolist()
    return sorted(counts, reverse=True)


@dataclass(eq=False, repr=False)
class _GAAL(Detector):
    """What SO-GAAL and MO-GAAL share: phases, score, and restoration.

    Parameters
    ----------
    hidden : int
        Hidden units of the discriminator, at least 1. The paper takes the square root of the number of rows.
    reach : float
        Half the width of the box that the first potential outliers fill, in standard deviations of the training data.
    stop : float
        Share of the training after which the generators are frozen, in (0, 1].
    """

    hidden: int = 64
    reach: float = 4.0
    stop: float = 1 / 3

    defaults = Training(epochs=15, min_updates=500, max_updates=3000, batch_size=256, lr=1e-2, schedule="constant")
    takes_backbone = False

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if not isinstance(self.hidden, int | np.integer) or isinstance(self.hidden, bool) or self.hidden < 1:
            raise InputError(f"hidden: {self.hidden!r} was given; use a whole number of at least 1.")
        if not isinstance(self.reach, int | float) or not 0 < self.reach < np.inf:
            raise InputError(f"reach: {self.reach!r} was given; use a number of standard deviations above 0.")
        if not isinstance(self.stop, int | float) or not 0 < self.stop <= 1:
            raise InputError(f"stop: {self.stop!r} was given; use a share of the training above 0, up to 1.")

    def _generators(self) -> int:
        return 1

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the generators and the discriminator."""
        return GAALNet(shape, self._generators(), int(self.hidden), float(self.reach))

    def phases(self, net: nn.Module) -> Sequence[Phase]:  # noqa: ARG002 - the hook's signature
        """Train the discriminator throughout, the generators only up to ``stop``."""
        lr = 0.01 * (self._training.lr or 1e-3)
        return [
            Phase("discriminator", self.discriminator_loss, modules=("discriminator",)),
            Phase("generator", self.generator_loss, modules=("generator",), lr=lr, stop=self.stop),
        ]

    def discriminator_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the cross-entropy of data against as many generated points."""
        x = batch.x.flatten(1)
        counts = shares(self._generators(), len(x))
        with torch.no_grad():
            made = net.generator(torch.rand_like(x)[: counts[0]])
        parts = torch.cat([points[:count] for points, count in zip(made, counts, strict=True)])
        fake = batch.keep_observed(parts.view_as(batch.x)).flatten(1)
        return F.softplus(-net.logit(x)).mean() + F.softplus(net.logit(fake)).mean()

    def targets(self, net: Any, x: Tensor, k: int) -> Tensor:  # noqa: ARG002 - MO-GAAL looks at the data
        """Return what each generator wants D to say of its points, (k,)."""
        return x.new_ones(k)

    def generator_loss(self, net: Any, batch: Batch) -> Tensor:
        """Return the cross-entropy of D on the generated points against the generators' targets."""
        x = batch.x.flatten(1)
        logit = net.logit(net.generator(torch.rand_like(x)))
        target = self.targets(net, x, len(logit))[:, None].expand_as(logit)
        return F.binary_cross_entropy_with_logits(logit, target, reduction="none").mean(1).sum()

    def finish(self, net: Any, samples: Samples) -> None:
        """Keep training rows to restore from."""
        net.bank = everything(samples, net.bank.device, _BANK).x.flatten(1).clone()

    def score_batch(self, net: Any, batch: Batch) -> Tensor:
        """Return 1 - D(x), computed as sigmoid(-logit) in double precision."""
        return torch.sigmoid(-net.logit(batch.x.flatten(1)).double())

    def reconstruct(self, net: Any, batch: Batch) -> Tensor:
        """Return the training row nearest to each sample in its observed values."""
        return nearest_kept(batch, net.bank)

    def error_map(self, net: Any, batch: Batch) -> Tensor:
        """Return the squared difference from the nearest training row."""
        return batch.keep_observed((batch.x - self.reconstruct(net, batch)).square())


_CARD = Card(
    title="Generative adversarial active learning for unsupervised outlier detection",
    authors="Liu, Li, Zhou, Jiang, Sun, Wang, He",
    venue="IEEE TKDE",
    year=2019,
    family=Family.GAN,
    kinds=(Kind.TABLE, Kind.WINDOW),
    row="1.1.3-03",
    summary="Score by a discriminator that one generator surrounds with potential outliers.",
    tags=("potential outliers", "active learning"),
)


@register(_CARD, name="so_gaal")
@dataclass(eq=False, repr=False)
class SOGAAL(_GAAL):
    """Tell data from the potential outliers of one generator: the score is ``1 - D(x)``, in (0, 1).

    The generator's points act as potential outliers; the discriminator, trained with data at 1 and generated points
    at 0, is the detector. The generator starts at the identity on uniform noise, so that its points fill a box round
    the data, and learns to make points that the discriminator takes for data. It is frozen after a share ``stop``
    of the training, before it hides inside the data; the discriminator trains on and closes a boundary round
    them. The score is evaluated as ``sigmoid(-logit)`` in double precision, so that far rows keep their order
    down to ``D(x) = 1e-16`` instead of meeting at 1.

    The map is the squared difference from the nearest kept training row (of at most 2,000), which is also
    the restored sample.

    **When to use.** The boundary round the data matters more than how the features depend on each other, and
    the data are vectors of up to some hundred values.

    **When it fails.** A single generator ends at one part of the boundary (mode collapse), so the other parts stay
    open; see :class:`MOGAAL`. In high dimension random points are far from the data and teach little. Results vary
    with the seed. Mean AUROC/AP over 14 ADBench tables, one-class, 3 seeds: 0.867/0.705, far below nearest
    neighbours (0.954/0.858); worst on satimage-2 (36 features), where it is below chance. In one seed its AUROC is
    furthest behind principal components' on satimage-2 (0.52 against 0.99), satellite (0.69, 0.80) and ionosphere
    (0.87, 0.96). Windows of series have hundreds of values or more (32 steps times the channels): mean AUROC/AP
    over seven sets, one seed, 0.572/0.362, against 0.816/0.632 for principal components of windows. In a trial on
    one SMD recording the first potential outliers lie three times as far from the centre as the data; the
    discriminator tells them apart (AUROC 0.99 after 100 updates) without learning where the data end, and steps of
    anomalies score below the others (0.30).

    Parameters
    ----------
    stop : float
        Share of the training after which the generator is frozen, in (0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> X = np.random.default_rng(0).normal(size=(600, 2))
    >>> detector = SOGAAL(training=Training(updates=300)).fit(X)
    >>> centre, far = detector.anomaly_score([[0.0, 0.0], [4.0, -4.0]])
    >>> bool(centre < 0.5 < far)
    True

    References
    ----------
    Liu et al. (2019), Generative adversarial active learning for unsupervised outlier detection, IEEE TKDE 32(8).
    """


@register(
    replace(
        _CARD,
        summary="Score by a discriminator that several generators, each with its own target, surround with outliers.",
        tags=("potential outliers", "active learning", "mode collapse"),
    ),
    name="mo_gaal",
)
@dataclass(eq=False, repr=False)
class MOGAAL(_GAAL):
    """Tell data from the potential outliers of ``k`` generators: the score is ``1 - D(x)``, in (0, 1).

    As :class:`SOGAAL`, but generator i (from 0) aims at its own target, ``T_i`` = the i/k quantile of ``D`` over the
    data, instead of at 1, so that the generators settle along different parts of the boundary. They contribute unequal
    shares of the generated points, ``k - i`` of ``k (k + 1) / 2``: the most where the discriminator is least sure that
    there are data. The quantiles are those of each training batch, an estimate of the paper's over the whole data.

    **When to use.** As :class:`SOGAAL`, when the data form several groups.

    **When it fails.** In high dimension, as there; it costs ``k`` generators of ``2 d^2`` weights: 100 s of one
    processor to fit windows of 32 steps of 38 channels. Mean AUROC/AP over 14 ADBench tables, one-class, 3 seeds:
    0.849/0.687, far below nearest neighbours (0.954/0.858); worst on satimage-2 (36 features), where it is below
    chance. In one seed its AUROC is furthest behind principal components' on satimage-2 (0.29 against 0.99), fault
    (0.54, 0.70) and wine (0.92, 0.98). In windows of series its mean AUROC/AP over seven sets, one seed, is
    0.607/0.415, against 0.816/0.632 for principal components of windows: below chance on SMD (0.37, 38 channels), near
    them only on UCR (0.98, one channel).

    Parameters
    ----------
    k : int
        Generators, at least 1.

    Examples
    --------
    >>> import numpy as np
    >>> from genad import Training
    >>> rng = np.random.default_rng(0)
    >>> X = np.r_[rng.normal(-3, 0.3, size=(300, 2)), rng.normal(3, 0.3, size=(300, 2))]
    >>> detector = MOGAAL(k=5, training=Training(updates=400)).fit(X)
    >>> group, between = detector.anomaly_score([[3.0, 3.0], [3.0, -3.0]])
    >>> bool(group < between)
    True

    References
    ----------
    Liu et al. (2019), Generative adversarial active learning for unsupervised outlier detection, IEEE TKDE 32(8).
    """

    k: int = 10

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if not isinstance(self.k, int | np.integer) or isinstance(self.k, bool) or self.k < 1:
            raise InputError(f"k: {self.k!r} was given; use a whole number of generators, at least 1.")

    def _generators(self) -> int:
        return int(self.k)

    def targets(self, net: Any, x: Tensor, k: int) -> Tensor:
        """Return the quantiles 0, 1/k, ..., (k - 1)/k of D over the data, (k,)."""
        with torch.no_grad():
            probability = torch.sigmoid(net.logit(x))
            return torch.quantile(probability, torch.arange(k, device=x.device, dtype=x.dtype) / k)
