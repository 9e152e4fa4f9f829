"""The contract of a restorer, and how good a restoration is: faithful outside of the defect, normal inside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from genad.core.detector import Detector
from genad.errors import InputError


@runtime_checkable
class Restorer(Protocol):
    """Whatever learns normal data and says what an anomalous sample should have looked like.

    Every detector is one: :meth:`genad.Detector.restore` returns the nearest normal sample, and with a ``mask`` leaves
    alone what lies outside. The package :mod:`genad.restoration` holds those made for it.
    """

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn what is normal."""

    def restore(self, X: Any, mask: Any = None) -> Any:
        """Return the nearest normal samples, only under the ``mask`` where one is given."""


@dataclass(frozen=True)
class RestorationQuality:
    """How good restored images are.

    Attributes
    ----------
    fidelity : float
        Mean absolute change outside of the mask, as a share of the range of the values; 0 is best.
    normality : float or None
        Share of the pixels inside the mask that a judge finds normal once restored, from 0 to 1; 1 is best. None
        without a judge.
    error : float or None
        Root mean squared error inside the mask against the true image, as a share of that of the defective image; 0 is
        best, 1 is no better than leaving the defect. None without the truth.
    """

    fidelity: float
    normality: float | None = None
    error: float | None = None


def restoration_quality(
    before: NDArray[Any],
    restored: NDArray[Any],
    mask: NDArray[np.bool_],
    *,
    truth: NDArray[Any] | None = None,
    judge: Detector | None = None,
    pixel_alpha: float = 0.01,
) -> RestorationQuality:
    """Measure a restoration of images.

    Parameters
    ----------
    before, restored : array of shape (n, channels, rows, columns)
        The defective images and what they were turned into, in the same units.
    mask : bool array of shape (n, rows, columns)
        True where the defects are.
    truth : array, optional
        The images without their defects, when known, as for planted ones.
    judge : Detector, optional
        Fitted on normal images; better not the one that restored. Pixels of its map above its pixel threshold count as
        abnormal.
    pixel_alpha : float
        The share of a normal image's pixels that the judge may mask, see :meth:`genad.Detector.detect`.

    Returns
    -------
    RestorationQuality

    Raises
    ------
    InputError
        When the shapes differ, or the masks are empty or cover everything.

    Examples
    --------
    >>> import numpy as np
    >>> truth = np.zeros((1, 1, 4, 4))
    >>> mask = np.zeros((1, 4, 4), bool)
    >>> mask[0, :2, :2] = True
    >>> before = np.where(mask[:, None], 1.0, truth)
    >>> restored = np.where(mask[:, None], 0.25, 0.05)
    >>> found = restoration_quality(before, restored, mask, truth=truth)
    >>> round(found.fidelity, 3), found.error
    (0.05, 0.25)
    """
    arrays = {"restored": restored, "truth": before if truth is None else truth}
    for name, array in arrays.items():
        if np.shape(array) != np.shape(before):
            raise InputError(
                f"{name}: shape {np.shape(array)} was given, before has {np.shape(before)}; use the same images."
            )
    if mask.dtype != np.bool_ or mask.shape != (len(before), *before.shape[2:]):
        raise InputError(
            f"mask: {mask.dtype} of shape {mask.shape} was given; use bool of shape {(len(before), *before.shape[2:])}."
        )
    if not mask.any() or mask.all():
        raise InputError(f"mask: it covers {'all' if mask.any() else 'none'} of the pixels; mark the defects only.")
    inside = np.broadcast_to(mask[:, None], before.shape)
    old, new = np.asarray(before, np.float64), np.asarray(restored, np.float64)
    span = float(old.max() - old.min()) or 1.0
    fidelity = float(np.abs(new - old)[~inside].mean()) / span
    error = None
    if truth is not None:
        true = np.asarray(truth, np.float64)
        left = np.square(new - true)[inside].mean()
        error = float(np.sqrt(left / max(np.square(old - true)[inside].mean(), 1e-12)))
    normality = None
    if judge is not None:
        found = judge.detect(restored, restore=False, pixel_alpha=pixel_alpha)
        normal = np.stack([~found.mask(i) for i in range(len(found))])  # type: ignore[attr-defined]
        normality = float(normal[mask].mean())
    return RestorationQuality(fidelity, normality, error)
