"""What every adapter answers, and the form in which data come out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from genad.data.kinds import Kind
from genad.data.samples import Samples
from genad.data.series import Series
from genad.errors import InputError

Array = NDArray[Any]


@dataclass
class Loaded:
    """Data made ready for a detector.

    Attributes
    ----------
    samples : Samples
        Standardised tensors.
    source : ndarray, Table or Series
        The data as read, in the user's units.
    original : object
        What the user passed, to answer in the same kind.
    """

    samples: Samples
    source: Any
    original: Any = None

    def to_user(self, values: Array) -> Array:
        """Bring one value a unit into the order of the user's rows, where entities may stand interleaved."""
        return self.source.restore_order(values) if isinstance(self.source, Series) else values

    def from_user(self, values: Array) -> Array:
        """Bring one value a row of the user's data into the order of the units."""
        return values[self.source.order] if isinstance(self.source, Series) else values


class Adapter:
    """Base of the adapters: fitted on the data of a fit, it reads whatever comes after in the same scales."""

    kind: Kind
    #: Registry of adapters by the word that stands for them in model files.
    types: ClassVar[dict[str, type[Adapter]]] = {}

    def __init_subclass__(cls) -> None:
        Adapter.types[cls.__name__] = cls

    @property
    def names(self) -> list[str]:
        """Names of the features or channels."""
        raise NotImplementedError

    def fit(self, X: Any) -> Loaded:
        """Learn the scales from ``X`` and return it standardised."""
        raise NotImplementedError

    def fit_to(self, X: Any, rows: Array) -> Loaded:
        """Learn the scales from some rows of ``X`` alone and return all of it standardised."""
        self.fit(X[rows] if isinstance(X, np.ndarray) or not hasattr(X, "take") else X.take(rows))
        return self.transform(X)

    def transform(self, X: Any) -> Loaded:
        """Return ``X`` standardised by the learnt scales."""
        raise NotImplementedError

    def collapse(self, maps: Array) -> Array:
        """Turn maps on the encoded features into maps on the user's."""
        return maps

    def native(self, values: Array, loaded: Loaded, mask: Any = None) -> Any:
        """Return standardised ``values`` in the kind, shape and units of the user's data.

        Where a ``mask`` of the user's is given, what lies outside is as it was.
        """
        raise NotImplementedError

    def hidden(self, mask: Any, loaded: Loaded) -> torch.Tensor:  # noqa: ARG002 - the dense kinds take one
        """Return which standardised values a mask of the user's hides, a bool tensor in the samples' shape."""
        raise InputError(
            f"mask: a {self.kind.value} takes none; set the cells to restore to missing (NaN), or leave the mask out."
        )

    def pixel_scale(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (scale, shift) by channel: ``z * scale + shift`` is a standardised value within 0 to 1."""
        raise InputError(f"X: a {self.kind.value} has no pixels.")

    def images(self, loaded: Loaded) -> Any:  # noqa: ARG002 - only images as files have them
        """Return the collection of images behind the data, None when there is none."""
        return None

    def columns(self, values: Array) -> dict[str, Array] | Array:
        """Return standardised ``values`` in the user's units: by feature, or whole for images and windows."""
        raise NotImplementedError

    def observed(self, loaded: Loaded) -> dict[str, Array] | Array:
        """Return the user's data in the form of :meth:`columns`."""
        raise NotImplementedError

    def half_widths(self, bounds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn bounds on the standardised scale into the user's units, NaN for features without an order."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """Return the fitted state as plain JSON values."""
        raise NotImplementedError

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Make a fitted adapter again."""
        raise NotImplementedError
