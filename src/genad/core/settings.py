"""The settings that every detector has: checked before a fit, and what follows from them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch

from genad.core.calibration import Threshold
from genad.core.parameters import check_number
from genad.core.runtime import resolve_device
from genad.core.training import BASE_TRAINING, Training, moderate_batch
from genad.errors import InputError
from genad.nn import Backbone
from genad.nn.backbone import KINDS


def check_settings(detector: Any) -> None:
    """Refuse a holdout, training, threshold, device, backbone or seed that cannot be used.

    Raises
    ------
    InputError
        For the first of them; the message names it and says what is accepted.
    """
    check_number(detector, "holdout", "(0, 0.9]")
    for name, kind in (("training", Training), ("threshold", Threshold)):
        value = getattr(detector, name)
        if value is not None and not isinstance(value, kind):
            raise InputError(f"{name}: a {type(value).__name__} was given; use a genad.{kind.__name__} or None.")
    resolve_device(detector.device)
    backbone = detector.backbone
    if backbone is not None and not detector.takes_backbone:
        raise InputError(
            f"backbone: {backbone!r} was given, but {type(detector).__name__} has no network that it would change; "
            "leave it out."
        )
    asked = Backbone(backbone) if isinstance(backbone, str) else backbone
    if asked is not None and (not isinstance(asked, Backbone) or asked.name not in (None, *KINDS)):
        raise InputError(f"backbone: {backbone!r} was given; use a genad.Backbone, None, or one of {', '.join(KINDS)}.")
    seed = detector.random_state
    if seed is not None and (not isinstance(seed, int | np.integer) or seed < 0):
        raise InputError(f"random_state: {seed!r} was given; use a non-negative integer or None.")


class Settings:
    """What follows from the settings of a detector; a part of every detector."""

    training: Training | None
    random_state: int | None
    #: Where it computes, as found at the fit.
    device_: str
    defaults: ClassVar[Training]
    #: Whether a ``backbone`` changes the networks; one that would not is refused.
    takes_backbone: ClassVar[bool] = True

    def _check_parameters(self) -> None:
        check_settings(self)

    @property
    def _training(self) -> Training:
        return (self.training or Training()).over(self.defaults.over(BASE_TRAINING))

    def _training_for(self, shape: tuple[int, ...]) -> Training:
        """Return the training of samples of a shape: large ones come in smaller batches unless a size was asked for."""
        training = self._training
        size = training.batch_size
        if size is None or (self.training is not None and self.training.batch_size is not None):
            return training
        return replace(training, batch_size=min(size, moderate_batch(shape)))

    @property
    def _device(self) -> torch.device:
        return torch.device(self.device_)

    def _draw_seed(self) -> int:
        if self.random_state is None:
            return int(np.random.SeedSequence().generate_state(1)[0] >> 1)
        return int(self.random_state)
