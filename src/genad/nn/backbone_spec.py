"""Which network to use and how wide it is, as the user says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real

from genad.errors import InputError, InputTypeError
from genad.nn.activation import activation_module


@dataclass(frozen=True)
class Backbone:
    """Say which network to use, and how wide it is.

    Parameters
    ----------
    name : str or None, default=None
        ``mlp``, ``tcn``, ``gru``, ``conv``, ``conv3d`` or a registered name; None chooses by the
        shape of a sample.
    hidden : tuple of int or None, default=None
        Widths from the input to the code; the decoder uses them in reverse. One per linear layer
        (``mlp``), per halving (``tcn``, ``conv``, ``conv3d``), per recurrent layer (``gru``). In
        translators: one per resolution (``conv``, ``conv3d``) or per block (``tcn``). None chooses
        sizes that train on a CPU.
    activation : str, default="relu"
        ``relu``, ``silu``, ``gelu``, ``tanh``, ``softplus``, ``elu`` or ``leaky_relu``. The ``gru``
        backbone has its own gates and does not use it.
    dropout : float, default=0.0
        Share of hidden units (channels, in convolutions) dropped in training, in [0, 1).

    Raises
    ------
    InputError
        If a width is below 1, the activation is unknown or dropout lies outside [0, 1).
    InputTypeError
        If the name is no string or a width no whole number.

    Examples
    --------
    >>> Backbone(hidden=[64, 32], activation="silu")
    Backbone(name=None, hidden=(64, 32), activation='silu', dropout=0.0)
    """

    name: str | None = None
    hidden: tuple[int, ...] | None = None
    activation: str = "relu"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.name is not None and not isinstance(self.name, str):
            msg = f"name: found {self.name!r}; accepted is the name of a backbone, or None."
            raise InputTypeError(msg)
        if self.hidden is not None:
            object.__setattr__(self, "hidden", _widths(self.hidden))
        activation_module(self.activation)
        if not isinstance(self.dropout, Real) or not 0 <= self.dropout < 1:
            msg = (
                f"dropout: found {self.dropout!r}; accepted is a share from 0 up to, but not "
                "including, 1. Use 0.0 for no dropout."
            )
            raise InputError(msg)


def _widths(hidden: Sequence[int]) -> tuple[int, ...]:
    accepted = "accepted is one or more whole numbers of at least 1, or None for the default."
    if isinstance(hidden, str) or not isinstance(hidden, Sequence):
        msg = f"hidden: found {hidden!r}; {accepted}"
        raise InputTypeError(msg)
    if not hidden or not all(isinstance(w, Integral) and w >= 1 for w in hidden):
        msg = f"hidden: found {tuple(hidden)}; {accepted}"
        raise InputError(msg)
    return tuple(int(w) for w in hidden)
