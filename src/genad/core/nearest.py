"""The nearest normal units as an explanation: what every detector with a memory of them can show."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from genad.core.detections import Explanation, Neighbour
from genad.core.detector import Detector
from genad.data.samples import Batch, Samples, Subset
from genad.errors import InputError

# Nearest units that an explanation names.
_SHOWN = 3


@dataclass(frozen=True)
class Neighbours:
    """The normal units of a fit that are nearest to some units, the nearest first.

    Attributes
    ----------
    units : int array of shape (n, k)
        Positions in the data of the fit.
    distances : float64 array of shape (n, k)
        In the detector's own measure.
    """

    units: NDArray[np.int64]
    distances: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.units)


class RemembersNormals(Detector):
    """A detector with a memory of normal units, which can say which of them are nearest.

    A method fills in :meth:`near`, and calls :meth:`remember` with the samples whose units its memory holds.
    """

    #: Position in the data of the fit of each unit in memory, in the order of the memory.
    memory_units_: NDArray[np.int64]

    def near(self, net: Any, batch: Batch, k: int) -> tuple[Tensor, Tensor]:
        """Return distances to the ``k`` nearest units in memory, ascending, and their numbers there, both (B, k)."""
        raise NotImplementedError

    def remember(self, samples: Samples, chosen: Tensor, *, more: bool = False) -> None:
        """Note which units the memory holds: the ``chosen`` ones of some samples, after those it has if ``more``."""
        units = positions(samples, chosen).cpu().numpy().astype(np.int64)
        self.memory_units_ = np.concatenate([self.memory_units_, units]) if more else units

    def nearest(self, X: Any, k: int = _SHOWN) -> Neighbours:
        """Return the normal units of the fit that are nearest to each unit.

        Parameters
        ----------
        X : array, dataframe, Table, Images, Log or path
            Data of the kind the detector was fitted on.
        k : int
            How many, at least 1; fewer when fewer are remembered.

        Returns
        -------
        Neighbours
            A remembered unit that equals the one asked about may be that very unit, and is left out once.

        Raises
        ------
        InputError
            When ``k`` is not a whole number of at least 1, or the model file does not say which units it remembers.

        Examples
        --------
        >>> import numpy as np
        >>> import genad
        >>> X = np.arange(1200.0).reshape(600, 2)
        >>> found = genad.create("nearest_memory").fit(X).nearest([[20.1, 21.1]], k=2)
        >>> found.units.tolist(), found.distances.round(4).tolist()
        ([[10, 11]], [[0.0003, 0.0055]])
        """
        check_is_fitted(self, "net_")
        return self._nearest(self._ingest(X, reset=False).samples, k)

    def explain(self, X: Any, i: int) -> Explanation:
        """Explain unit ``i`` of ``X``: its parts ranked by their share of the score, and the nearest normal units.

        Raises
        ------
        InputError
            When ``i`` is not a position in ``X``.
        """
        return self.with_nearest(super().explain(X, i), X)

    def with_nearest(self, told: Explanation, X: Any) -> Explanation:
        """Add the nearest normal units to an explanation of a unit of ``X``, where the model says which it has."""
        if not self._knows_units:
            return told
        samples = self._ingest(X, reset=False).samples
        near = self._nearest(Subset(samples, torch.tensor([told.index], device=self._device)), _SHOWN)
        pairs = zip(near.units[0].tolist(), near.distances[0].tolist(), strict=True)
        return replace(told, nearest=tuple(Neighbour(unit, distance) for unit, distance in pairs))

    @property
    def _knows_units(self) -> bool:
        """Whether it is known which units the memory holds; model files of earlier versions do not say."""
        return len(getattr(self, "memory_units_", ())) > 0

    def _nearest(self, samples: Samples, k: int) -> Neighbours:
        if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
            raise InputError(f"k: {k!r} was given; use a whole number of at least 1.")
        if not self._knows_units:
            raise InputError("nearest: the model does not say which units it remembers; fit it anew.")
        units, distances = [], []
        for where, batch in self._aligned(samples):
            with self._scoring():
                distance, number = self.near(self.net_, batch, int(k))
            size = where.stop - where.start
            distances.append(distance[:size].double().cpu().numpy())
            units.append(self.memory_units_[number[:size].cpu().numpy()])
        return Neighbours(np.concatenate(units), np.concatenate(distances))

    def fitted_state(self) -> dict[str, Any]:
        """Return what a fitted detector knows, and which units it remembers."""
        known = {"memory_units": self.memory_units_} if self._knows_units else {}
        return super().fitted_state() | known

    def set_fitted_state(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`fitted_state` returned."""
        super().set_fitted_state(state)
        self.memory_units_ = np.asarray(state.get("memory_units", ()), np.int64)


def positions(samples: Samples, chosen: Tensor) -> Tensor:
    """Return where in the data of a fit some samples stand, subsets resolved.

    Examples
    --------
    >>> from genad.data.samples import ArraySamples
    >>> part = Subset(ArraySamples(torch.zeros(9, 1)), torch.tensor([8, 3, 5]))
    >>> positions(part, torch.tensor([0, 2]))
    tensor([8, 5])
    """
    if not isinstance(samples, Subset):
        return chosen
    return positions(samples.samples, samples.indices[chosen.to(samples.indices.device)])
