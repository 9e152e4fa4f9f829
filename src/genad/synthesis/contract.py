"""What every synthesizer has, whatever the kind of its data: a card, parameters that are checked, and a plain form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator

from genad.errors import InputError, InputTypeError
from genad.synthesis.registry import SynthesisCard, synthesizers


@dataclass(eq=False, repr=False)
class SynthesizerBase(BaseEstimator):
    """Parent of the synthesizers of images, tables and series: dataclasses of hyper-parameters."""

    card: ClassVar[SynthesisCard]
    name: ClassVar[str]

    def check_parameters(self) -> None:
        """Refuse hyper-parameters that cannot work; a method overrides this.

        Raises
        ------
        InputError
            Naming the parameter, what was found and what is accepted.
        """

    def to_dict(self) -> dict[str, Any]:
        """Return name and hyper-parameters as plain values, for model files.

        Raises
        ------
        InputError
            When a hyper-parameter is an object that a file cannot hold, or the class is not registered.
        """
        if synthesizers().get(self.name) is not type(self):
            raise InputError(
                f"synthesizer: {type(self).__name__} cannot be saved, for it is not registered; a fitted detector does "
                "not need it, so set the detector's synthesizer to a registered name first."
            )
        params = {}
        for key, value in self.get_params(deep=False).items():
            if value is not None and not isinstance(value, bool | int | float | str | tuple | list):
                raise InputError(
                    f"{key}: a {type(value).__name__} of {self.name} cannot be saved; a fitted detector does not need "
                    f"it, so set the detector's synthesizer to {self.name!r} first."
                )
            params[key] = list(value) if isinstance(value, tuple) else value
        return {"name": self.name, "params": params}


def check_request(n: Any, random_state: Any, noun: str) -> tuple[int, int]:
    """Return how many to make and the seed, as whole numbers.

    Parameters
    ----------
    n : int
        At least 1.
    random_state : int
        The seed, at least 0.
    noun : str
        What is made, for messages.

    Raises
    ------
    InputError
        For an ``n`` below 1, or a negative seed.
    InputTypeError
        For a seed that is no whole number.
    """
    if not isinstance(n, int | np.integer) or isinstance(n, bool) or n < 1:
        raise InputError(f"n: {n!r} was given; make at least 1 {noun}.")
    if not isinstance(random_state, int | np.integer) or isinstance(random_state, bool):
        raise InputTypeError(f"random_state: {random_state!r} was given; use a whole number.")
    if random_state < 0:
        raise InputError(f"random_state: {random_state!r} was given; use a whole number of at least 0.")
    return int(n), int(random_state)
