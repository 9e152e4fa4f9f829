"""Samples: anything that knows its length and sample shape and hands out a batch for a vector of indices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(slots=True)
class Batch:
    """A batch of samples on the device.

    Attributes
    ----------
    x : Tensor of shape (B, *sample shape)
        Standardised values, float32; where a value is missing 0, or the guess of the model that judges it.
    mask : Tensor of bool, same shape as ``x``, or None
        True where a value was observed; None when every value was.
    known : bool
        Whether the model has taken these very samples in, so that a memory must leave each one out of its own search.
    group : Tensor of int64, shape (B,), or None
        What each sample belongs to, for methods that tell groups apart, such as the services of :class:`~genad.MACE`.
    """

    x: Tensor
    mask: Tensor | None = None
    known: bool = False
    group: Tensor | None = None

    def __len__(self) -> int:
        return self.x.shape[0]

    def take(self, indices: Tensor) -> Batch:
        """Return the samples at ``indices`` (int64, any order, repeats allowed)."""

        def at(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.index_select(0, indices)

        return Batch(self.x.index_select(0, indices), at(self.mask), self.known, at(self.group))

    def sample_mean(self, values: Tensor) -> Tensor:
        """Average ``values`` (B, *shape) over the observed entries of each sample, to (B,)."""
        if self.mask is None:
            return values.flatten(1).mean(1)
        mask = self.mask.to(values.dtype)
        return (values * mask).flatten(1).sum(1) / mask.flatten(1).sum(1).clamp_min(1.0)

    def sample_sum(self, values: Tensor) -> Tensor:
        """Add ``values`` over each sample, missing entries counted at the mean of the observed, to (B,)."""
        return self.sample_mean(values) * values[0].numel()

    def step_mean(self, values: Tensor) -> Tensor:
        """Average ``values`` (..., T, C) over the observed channels of each step, to (..., T); 0 where none is."""
        seen = float(values.shape[-1]) if self.mask is None else self.mask.sum(-1).clamp_min(1)
        return self.keep_observed(values).sum(-1) / seen

    def keep_observed(self, values: Tensor) -> Tensor:
        """Set ``values`` to 0 where the input was missing."""
        return values if self.mask is None else values * self.mask.to(values.dtype)


@runtime_checkable
class Samples(Protocol):
    """What the training loop sees of the data: its length, the shape of one sample, and batches."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor) -> Batch:
        """Return the samples at ``indices`` (int64, any order, repeats allowed)."""

    def stretch(self, start: int, stop: int) -> Batch:
        """Return the samples from ``start`` to ``stop``, as views where that is possible."""

    def to(self, device: torch.device) -> Samples:
        """Return the same samples held on ``device`` where that is possible."""


@dataclass(slots=True)
class ArraySamples:
    """Samples held in one tensor.

    Attributes
    ----------
    x : Tensor of shape (n, *sample shape)
        Standardised float32 values.
    mask : Tensor of bool or None
        True where observed.
    """

    x: Tensor
    mask: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.x.shape[1:])

    def __len__(self) -> int:
        return self.x.shape[0]

    def batch(self, indices: Tensor) -> Batch:
        """Return the samples at ``indices``."""
        mask = None if self.mask is None else self.mask.index_select(0, indices)
        return Batch(self.x.index_select(0, indices), mask)

    def stretch(self, start: int, stop: int) -> Batch:
        """Return the samples from ``start`` to ``stop``, as views."""
        return Batch(self.x[start:stop], None if self.mask is None else self.mask[start:stop])

    def to(self, device: torch.device) -> ArraySamples:
        """Return the samples on ``device``."""
        mask = None if self.mask is None else self.mask.to(device)
        return ArraySamples(self.x.to(device), mask)


@dataclass(slots=True)
class WindowSamples:
    """Windows of a series, as views: only the batch asked for is ever copied.

    Attributes
    ----------
    x : Tensor of shape (n, C)
        The standardised series.
    starts : Tensor of int64
        First step of each window.
    length : int
        Steps in a window.
    mask : Tensor of bool, shape (n, C), or None
        True where observed.
    group : Tensor of int64, shape (n,), or None
        What each step belongs to; that of its first step is the window's.
    """

    x: Tensor
    starts: Tensor
    length: int
    mask: Tensor | None = None
    group: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one window, (T, C)."""
        return (self.length, self.x.shape[1])

    def __len__(self) -> int:
        return self.starts.shape[0]

    def batch(self, indices: Tensor) -> Batch:
        """Copy out the windows at ``indices``."""
        first = self.starts.index_select(0, indices)

        def gather(values: Tensor) -> Tensor:
            return values.unfold(0, self.length, 1)[first].transpose(1, 2).contiguous()

        return Batch(
            gather(self.x),
            None if self.mask is None else gather(self.mask),
            group=None if self.group is None else self.group.index_select(0, first),
        )

    def stretch(self, start: int, stop: int) -> Batch:
        """Copy out the windows from ``start`` to ``stop``."""
        return self.batch(torch.arange(start, stop, device=self.starts.device))

    def to(self, device: torch.device) -> WindowSamples:
        """Return the windows on ``device``."""
        mask = None if self.mask is None else self.mask.to(device)
        group = None if self.group is None else self.group.to(device)
        return WindowSamples(self.x.to(device), self.starts.to(device), self.length, mask, group)


@dataclass(slots=True)
class Subset:
    """Some of the samples of another collection, by index and without a copy."""

    samples: Samples
    indices: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.samples.shape

    def __len__(self) -> int:
        return self.indices.shape[0]

    def batch(self, indices: Tensor) -> Batch:
        """Return the samples at ``indices`` of the subset."""
        return self.samples.batch(self.indices.index_select(0, indices))

    def stretch(self, start: int, stop: int) -> Batch:
        """Return the samples from ``start`` to ``stop`` of the subset."""
        return self.samples.batch(self.indices[start:stop])

    def to(self, device: torch.device) -> Subset:
        """Return the subset on ``device``."""
        return Subset(self.samples.to(device), self.indices.to(device))


@dataclass(slots=True)
class HiddenSamples:
    """Samples some of whose values are hidden, as if they were missing.

    Attributes
    ----------
    samples : Samples
    hidden : Tensor of bool, shape (n, *sample shape)
        True where a value must not be looked at.
    filled : Tensor, same shape, or None
        What stands there instead; the values count as missing when absent.
    """

    samples: Samples
    hidden: Tensor
    filled: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.samples.shape

    def __len__(self) -> int:
        return len(self.samples)

    def _hide(self, batch: Batch, where: Tensor | slice) -> Batch:
        hidden = self.hidden[where].to(batch.x.device)
        if self.filled is not None:
            mask = None if batch.mask is None else batch.mask | hidden
            return replace(batch, x=torch.where(hidden, self.filled[where].to(batch.x.device), batch.x), mask=mask)
        seen = ~hidden
        mask = seen if batch.mask is None else seen & batch.mask
        return replace(batch, x=batch.x * mask, mask=mask)

    def batch(self, indices: Tensor) -> Batch:
        """Return the samples at ``indices``."""
        return self._hide(self.samples.batch(indices), indices.to(self.hidden.device))

    def stretch(self, start: int, stop: int) -> Batch:
        """Return the samples from ``start`` to ``stop``."""
        return self._hide(self.samples.stretch(start, stop), slice(start, stop))

    def to(self, device: torch.device) -> HiddenSamples:
        """Return the samples on ``device``."""
        filled = None if self.filled is None else self.filled.to(device)
        return HiddenSamples(self.samples.to(device), self.hidden.to(device), filled)


def iterate(samples: Samples, size: int) -> Iterator[tuple[slice, Batch]]:
    """Walk over all samples in order, in batches of ``size``.

    Yields
    ------
    tuple of (slice, Batch)
        Where the batch belongs, and the batch.
    """
    n = len(samples)
    for first in range(0, n, size):
        stop = min(first + size, n)
        yield slice(first, stop), samples.stretch(first, stop)


def everything(samples: Samples, device: torch.device, limit: int | None = None) -> Batch:
    """Return all samples as one batch, or an evenly spaced ``limit`` of them."""
    n = len(samples)
    return samples.batch(spaced(n, n if limit is None else limit).to(device))


def spaced(n: int, limit: int) -> Tensor:
    """Return at most ``limit`` evenly spaced numbers below ``n``.

    Examples
    --------
    >>> spaced(9, 3).tolist(), spaced(2, 3).tolist()
    ([0, 4, 8], [0, 1])
    """
    return torch.arange(n) if n <= limit else torch.linspace(0, n - 1, limit).long()
