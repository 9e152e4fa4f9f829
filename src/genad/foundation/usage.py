"""What calls of a language model cost, and limits that stop them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

from genad.errors import GenadError, InputError


@dataclass(frozen=True)
class Usage:
    """What some calls took; usages add up.

    Parameters
    ----------
    calls : int
        One for each answer, text or prompt asked about; attempts repeated after a fault do not count again.
    tokens_in, tokens_out : int
        Tokens read and written.
    cost : float
        In the currency of the prices given; 0 without prices.
    seconds : float
        Spent in the calls; calls that ran side by side count each.

    Examples
    --------
    >>> Usage(calls=1, tokens_in=20) + Usage(calls=2, tokens_out=5)
    Usage(calls=3, tokens_in=20, tokens_out=5, cost=0.0, seconds=0.0)
    """

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.tokens_in + self.tokens_out

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def __sub__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, field.name) - getattr(other, field.name) for field in fields(self)))


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits on what calls may take; None is no limit.

    Parameters
    ----------
    tokens, calls : int or None
    cost : float or None
        In the currency of the prices.
    seconds : float or None
        Spent in calls.
    """

    tokens: int | None = None
    cost: float | None = None
    seconds: float | None = None
    calls: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and (isinstance(value, bool) or not 0 <= value < math.inf):
                raise InputError(
                    f"{field.name}: {value!r} was given; use a number of at least 0, or None for no limit."
                )


class BudgetExhausted(GenadError):  # noqa: N818
    """The budget is spent; answers got before stand, and nothing more is asked.

    Attributes
    ----------
    limit : str
        The limit that was reached: ``"tokens"``, ``"cost"``, ``"seconds"`` or ``"calls"``.
    usage : Usage
        What was used by then.
    """

    def __init__(self, limit: str, allowed: float, usage: Usage) -> None:
        used = getattr(usage, limit)
        super().__init__(
            f"budget: {limit}={allowed:g} is spent ({used:g} used in {usage.calls} calls); answers got before stand. "
            f"Raise {limit} and run again: with a cache what was answered is not asked again."
        )
        self.limit, self.usage = limit, usage


@dataclass
class Tally:
    """Tokens of a call under way, filled in by the model that makes it."""

    tokens_in: int = 0
    tokens_out: int = 0


class Meter:
    """Count what calls take and refuse the next one when the budget is spent; safe between threads.

    The limit is looked at before a call and the call's tokens are known after it, so that tokens, cost and seconds can
    pass their limits by the calls that were under way; the number of calls never does.

    Parameters
    ----------
    budget : Budget or None
    price_in, price_out : float
        Price of a million tokens read and of a million written, in any currency.

    Examples
    --------
    >>> meter = Meter(Budget(calls=1), price_in=0.5)
    >>> with meter.call() as tally:
    ...     tally.tokens_in = 2_000
    >>> meter.usage.cost
    0.001
    >>> with meter.call():
    ...     pass
    Traceback (most recent call last):
    genad.foundation.usage.BudgetExhausted: budget: calls=1 is spent (1 used in 1 calls); ...
    """

    def __init__(self, budget: Budget | None = None, *, price_in: float = 0.0, price_out: float = 0.0) -> None:
        if not (0.0 <= price_in < math.inf and 0.0 <= price_out < math.inf):
            raise InputError(f"price_in, price_out: {price_in!r}, {price_out!r} were given; use prices of at least 0.")
        self.budget, self.price_in, self.price_out = budget, price_in, price_out
        self._usage = Usage()
        self._lock = threading.Lock()

    @property
    def usage(self) -> Usage:
        """What all calls so far took."""
        return self._usage

    @contextmanager
    def call(self, count: int = 1) -> Iterator[Tally]:
        """Count what is done within, as ``count`` calls.

        Raises
        ------
        BudgetExhausted
            Before anything is done, when the budget is spent.
        """
        with self._lock:
            self._refuse_when_spent(count)
            self._usage += Usage(calls=count)
        tally, start = Tally(), time.perf_counter()
        try:
            yield tally
        finally:
            seconds = time.perf_counter() - start
            cost = (tally.tokens_in * self.price_in + tally.tokens_out * self.price_out) / 1e6
            with self._lock:
                self._usage += Usage(0, tally.tokens_in, tally.tokens_out, cost, seconds)

    def _refuse_when_spent(self, count: int) -> None:
        if self.budget is None:
            return
        for field in fields(self.budget):
            limit = getattr(self.budget, field.name)
            ahead = count - 1 if field.name == "calls" else 0
            if limit is not None and getattr(self._usage, field.name) + ahead >= limit:
                raise BudgetExhausted(field.name, limit, self._usage)
