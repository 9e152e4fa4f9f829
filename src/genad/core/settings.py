"""The settings that every detector has, checked before a fit."""

from __future__ import annotations

from typing import Any

import numpy as np

from genad.core.calibration import Threshold
from genad.core.parameters import check_number
from genad.core.runtime import resolve_device
from genad.core.training import Training
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
    asked = Backbone(backbone) if isinstance(backbone, str) else backbone
    if asked is not None and (not isinstance(asked, Backbone) or asked.name not in (None, *KINDS)):
        raise InputError(f"backbone: {backbone!r} was given; use a genad.Backbone, None, or one of {', '.join(KINDS)}.")
    seed = detector.random_state
    if seed is not None and (not isinstance(seed, int | np.integer) or seed < 0):
        raise InputError(f"random_state: {seed!r} was given; use a non-negative integer or None.")
