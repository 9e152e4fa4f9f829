"""How a detector is optimised: what the user may set, the phases a method declares, and the report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from genad.data.image.augment import Augment
from genad.data.samples import Batch
from genad.errors import InputError

Loss = Callable[[Any, Batch], Tensor]

# Numbers in a batch of a method's own choosing, and the fewest samples in it.
_BATCH_NUMBERS, _FEWEST = 2**19, 16


@dataclass(frozen=True, kw_only=True, repr=False)
class Training:
    """How to train; a field left at None takes the method's own default.

    The length of training is counted in gradient updates, so that small data get enough steps and large data not
    too many: ``epochs`` passes over the data, held between ``min_updates`` and ``max_updates``; or ``updates`` exactly.

    Parameters
    ----------
    updates : int, optional
        Exact number of gradient updates; overrides ``epochs``.
    epochs : float, optional
        Passes over the training data.
    min_updates, max_updates : int, optional
        Bounds on the updates that ``epochs`` comes to.
    batch_size : int, optional
        Samples an update; a smaller data set is used whole.
    lr : float, optional
        Peak learning rate.
    weight_decay : float, optional
        Decoupled weight decay.
    optimizer : {"adam", "sgd", "rmsprop"}, optional
        Fused where the device has it.
    schedule : {"constant", "cosine"}, optional
        Learning rate over the updates.
    warmup : int, optional
        Updates over which the learning rate rises linearly.
    clip : float, optional
        Largest gradient norm; 0 turns clipping off.
    ema : float, optional
        Decay of the exponential moving average of the weights that is kept at the end; 0 turns it off.
    patience : int, optional
        Rounds without a better held-out loss after which training stops and the best weights return; 0 turns it off.
        Phases that follow each other all get their turn: the loss is that of the first phase that runs to the end, and
        only its part of the training is cut short. Losses of a game between networks, of samples held against made
        ones, or whose weights change in training need not fall while a model gets better: give these no patience.
    validation : float, optional
        Share of the training samples held out for ``patience``.
    precision : {"float32", "bfloat16"}, optional
        bfloat16 runs the forward pass under autocast.
    max_seconds : float, optional
        Wall-clock budget; training stops after the update that exceeds it.
    checkpoint : path, optional
        File that an interrupted fit leaves behind and the next fit resumes from; removed when the fit is done.
    checkpoint_seconds : float, optional
        Seconds between checkpoints.
    augment : Augment, optional
        For images: how each batch is changed before the loss sees it. Choose only what a normal image may undergo.

    Examples
    --------
    >>> Training(epochs=5, lr=1e-3).over(Training(epochs=50, batch_size=256)).batch_size
    256
    """

    updates: int | None = None
    epochs: float | None = None
    min_updates: int | None = None
    max_updates: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    weight_decay: float | None = None
    optimizer: Literal["adam", "sgd", "rmsprop"] | None = None
    schedule: Literal["constant", "cosine"] | None = None
    warmup: int | None = None
    clip: float | None = None
    ema: float | None = None
    patience: int | None = None
    validation: float | None = None
    precision: Literal["float32", "bfloat16"] | None = None
    max_seconds: float | None = None
    checkpoint: str | Path | None = None
    checkpoint_seconds: float | None = None
    augment: Augment | None = None

    def __post_init__(self) -> None:
        """Refuse values that cannot train anything."""
        for name, low, strict in _BOUNDS:
            value = getattr(self, name)
            if value is None:
                continue
            whole = name in _WHOLE
            kind = Integral if whole else Real
            number = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
            if not number or value < low or (strict and value == low):
                noun, sign = "whole number" if whole else "number", "above" if strict else "at least"
                raise InputError(f"Training.{name}: {value!r} was given; it must be a {noun} {sign} {low}.")
        for name, accepted in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in accepted:
                raise InputError(f"Training.{name}: {value!r} was given; use one of {', '.join(accepted)}.")
        if self.augment is not None and not isinstance(self.augment, Augment):
            raise InputError(f"Training.augment: a {type(self.augment).__name__} was given; use a genad.Augment.")
        for name in ("ema", "validation"):
            value = getattr(self, name)
            if value is not None and value >= 1:
                raise InputError(f"Training.{name}: {value!r} was given; it must be below 1.")

    def __repr__(self) -> str:
        given = (f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) is not None)
        return f"Training({', '.join(given)})"

    def over(self, default: Training) -> Training:
        """Return these settings with the gaps filled from ``default``."""
        mine = {f.name: getattr(self, f.name) for f in fields(self)}
        given = {key: value for key, value in mine.items() if value is not None}
        if "epochs" in given and "updates" not in given:
            # Whoever asks for epochs means epochs, not the bounds that suit the method's own number of them.
            default = replace(default, updates=None, min_updates=None, max_updates=None)
        return replace(default, **given)

    def total_updates(self, n: int) -> int:
        """Return the number of updates for ``n`` samples."""
        if self.updates is not None:
            return self.updates
        size = min(self.batch_size or 1, n)
        total = max(1, math.ceil((self.epochs or 1) * n / size))
        total = max(total, self.min_updates or 1)
        return min(total, self.max_updates) if self.max_updates is not None else total


_BOUNDS: tuple[tuple[str, float, bool], ...] = (
    ("updates", 1, False), ("epochs", 0, True), ("min_updates", 1, False), ("max_updates", 1, False),
    ("batch_size", 1, False), ("lr", 0, True), ("weight_decay", 0, False), ("warmup", 0, False),
    ("clip", 0, False), ("ema", 0, False), ("patience", 0, False), ("validation", 0, True),
    ("max_seconds", 0, True), ("checkpoint_seconds", 0, False),
)  # fmt: skip
_WHOLE = {"updates", "min_updates", "max_updates", "batch_size", "warmup", "patience"}
_CHOICES: dict[str, tuple[str, ...]] = {
    "optimizer": ("adam", "sgd", "rmsprop"),
    "schedule": ("constant", "cosine"),
    "precision": ("float32", "bfloat16"),
}

#: What every method starts from; a method overrides what it needs in its ``defaults``.
BASE_TRAINING = Training(
    epochs=50,
    min_updates=300,
    max_updates=3000,
    batch_size=256,
    lr=1e-3,
    weight_decay=0.0,
    optimizer="adam",
    schedule="cosine",
    warmup=0,
    clip=0.0,
    ema=0.0,
    patience=0,
    validation=0.1,
    precision="float32",
    checkpoint_seconds=30.0,
)


@dataclass(frozen=True)
class Phase:
    """One part of an optimisation: which loss moves which part of the network, and when.

    An autoencoder has one phase; a GAN has two, run in turn on each batch; a pretraining is a phase that stops early.

    Parameters
    ----------
    name : str
        Shown in the progress bar and the history.
    loss : callable
        ``loss(net, batch)`` gives the scalar to minimise.
    modules : sequence of str, optional
        Attributes of the network whose parameters move; None for all. Nothing else receives a gradient.
    lr, optimizer : optional
        Override the training's.
    every : int
        Run on every so many updates.
    repeat : int
        Steps taken on each batch.
    start, stop : float
        Share of the training at which the phase begins and ends.
    """

    name: str
    loss: Loss
    modules: Sequence[str] | None = None
    lr: float | None = None
    optimizer: Literal["adam", "sgd", "rmsprop"] | None = None
    every: int = 1
    repeat: int = 1
    start: float = 0.0
    stop: float = 1.0

    def active(self, step: int, total: int) -> bool:
        """Say whether the phase runs at ``step`` of ``total``."""
        return step % self.every == 0 and self.start * total <= step < self.stop * total


def last_stage(phases: Sequence[Phase], total: int) -> tuple[int, Phase]:
    """Return the update of ``total`` from which on no phase begins or ends, and the first phase that then runs.

    Early stopping watches that phase alone: a pretraining that gets no better is no reason to leave out what follows.

    Examples
    --------
    >>> phases = [Phase("pretraining", len, stop=0.25), Phase("training", len, start=0.25)]
    >>> begin, phase = last_stage(phases, 200)
    >>> begin, phase.name
    (50, 'training')
    """
    edges = {math.ceil(share * total) for phase in phases for share in (phase.start, phase.stop)}
    begin = max(edge for edge in {0, *edges} if edge < total)
    running = (phase for phase in phases if phase.start * total <= begin < phase.stop * total)
    return begin, next(running, phases[0])


def moderate_batch(shape: Sequence[int]) -> int:
    """Return the most samples of ``shape`` in a batch whose size nobody asked for, so that large ones fit in memory.

    Examples
    --------
    >>> moderate_batch((20,)), moderate_batch((3, 128, 128))
    (26214, 16)
    """
    return max(_FEWEST, _BATCH_NUMBERS // math.prod(shape))


@dataclass
class TrainingReport:
    """What a training did.

    Attributes
    ----------
    updates, planned : int
        Gradient updates done and planned.
    epochs : float
        Passes over the data those updates come to.
    seconds : float
        Wall-clock time.
    stopped : {"finished", "early", "time"}
        Why it ended.
    device : str
        Where it ran.
    parameters : int
        Trainable numbers of the network.
    samples : int
        Training samples, without the held-out ones.
    history : dict of str to list of float
        Mean loss of each phase by round, and ``"held_out"`` when early stopping is on.
    """

    updates: int = 0
    planned: int = 0
    epochs: float = 0.0
    seconds: float = 0.0
    stopped: Literal["finished", "early", "time"] = "finished"
    device: str = "cpu"
    parameters: int = 0
    samples: int = 0
    history: dict[str, list[float]] = field(default_factory=dict)
