"""How long to wait before a request to a busy service is repeated."""

from __future__ import annotations

import email.utils
import threading
import time
from collections.abc import Mapping

import numpy as np


class Backoff:
    """Waits that double from one attempt to the next, spread by a seeded generator; a service's own wish goes first.

    Parameters
    ----------
    first : float
        Longest wait after the first failed attempt, in seconds.
    most : float
        No wait is longer, in seconds.
    seed : int

    Examples
    --------
    >>> backoff = Backoff(first=1.0, most=10.0)
    >>> [0.5 * 2**n <= backoff.wait(n) <= 2**n for n in range(3)]
    [True, True, True]
    >>> backoff.wait(0, {"retry-after": "7"})
    7.0
    """

    def __init__(self, first: float, most: float, seed: int = 0) -> None:
        self.first, self.most = first, most
        self._rng = np.random.default_rng(seed)
        self._lock = threading.Lock()

    def wait(self, failed: int, headers: Mapping[str, str] | None = None) -> float | None:
        """Return the seconds to wait after ``failed`` earlier failures, or None when the service asks for too long.

        Parameters
        ----------
        failed : int
            0 after the first failure.
        headers : mapping or None
            Of the service's refusal; names in lower case.
        """
        asked = _asked(headers or {})
        if asked is not None:
            return asked if asked <= self.most else None
        with self._lock:
            share = self._rng.uniform(0.5, 1.0)
        return float(min(self.first * 2.0**failed, self.most) * share)


def _asked(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a Retry-After header asks for, given as a number or a date."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except ValueError:
        return None
