"""Numbers as text: whole numbers of a few digits, which a language model reads one token a digit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from genad.core.parameters import check_number, check_whole
from genad.errors import InputError

# Quantiles of normal values between which the digits resolve best: a few wild values do not spoil the resolution.
_LOW, _HIGH = 0.001, 0.999
_MOST_DIGITS = 9


@dataclass(frozen=True)
class DigitText:
    """Values as text, and where each stands in it.

    Parameters
    ----------
    text : str
    spans : ndarray of int, shape (n, 2)
        Characters [start, stop) of each value with the separator after it; together they are the whole text.
    """

    text: str
    spans: NDArray[np.int64]


@dataclass(frozen=True)
class DigitCode:
    """Writes values as whole numbers without sign or point, and reads them back.

    A value ``x`` becomes ``round((x - offset) / step)``, held within 0 and ``10**digits - 1``.

    Parameters
    ----------
    offset : float
        The value that is written as 0.
    step : float
        What the last digit is worth, above 0.
    digits : int
        The most digits of a number, from 1 to 9.
    padded : bool
        Fill numbers up with zeros to the same length, so that the likelihoods of any two have as many factors.
    separator : str
        Stands after every number; holds no digit.
    spaced : bool
        Put spaces between digits, for models whose tokens hold several.

    Raises
    ------
    InputError
        When a value is out of range.

    Examples
    --------
    >>> code = DigitCode(offset=-1.0, step=0.01, digits=3)
    >>> written = code.write(code.integers([-1.0, 0.25, 3.5]))
    >>> written.text, written.spans.tolist()
    ('000,125,450,', [[0, 4], [4, 8], [8, 12]])
    >>> code.values(code.read(written.text)).tolist()
    [-1.0, 0.25, 3.5]
    """

    offset: float
    step: float
    digits: int = 3
    padded: bool = True
    separator: str = ","
    spaced: bool = False

    def __post_init__(self) -> None:
        check_number(self, "offset", "(-inf, inf)")
        check_number(self, "step", "(0, inf)")
        check_whole(self, "digits")
        if self.digits > _MOST_DIGITS:
            raise InputError(f"digits: {self.digits!r} was given; use at most {_MOST_DIGITS}.")
        if not self.separator or any(letter.isdecimal() for letter in self.separator):
            raise InputError(f"separator: {self.separator!r} was given; use one or more characters that are no digits.")

    @classmethod
    def fit(
        cls,
        values: Any,
        *,
        digits: int = 3,
        decimals: int | None = None,
        headroom: float = 0.5,
        **form: Any,
    ) -> Self:
        """Choose offset and step so that normal values, and some beyond them, can be written.

        Parameters
        ----------
        values : array of float
            Normal values; NaN is left out.
        digits : int
            Of the numbers, if ``decimals`` is None: the normal range with its headroom then fills them.
        decimals : int or None
            Digits kept behind the point; the numbers get as many digits as that takes, 9 at most.
        headroom : float
            Room below and above, in widths of the normal range; values beyond are written as the lowest or highest.
        **form
            ``padded``, ``separator`` and ``spaced``.

        Raises
        ------
        InputError
            When a parameter is out of range or no value is finite.

        Examples
        --------
        >>> code = DigitCode.fit([2.0, 4.0, 6.0], digits=2)
        >>> code.integers([2.0, 6.0, -100.0, 100.0]).tolist()
        [25, 74, 0, 99]
        >>> DigitCode.fit([2.0, 4.0, 6.0], decimals=1, headroom=0.0).integers([2.0, 2.5]).tolist()
        [0, 5]
        """
        known = np.asarray(values, np.float64).ravel()
        known = known[np.isfinite(known)]
        if not known.size:
            raise InputError("values: none of them is finite; give at least one number.")
        if not headroom >= 0:
            raise InputError(f"headroom: {headroom!r} was given; use a number of at least 0.")
        low, high = (float(value) for value in np.quantile(known, (_LOW, _HIGH)))
        # Values that are all the same leave the unit free.
        width = high - low if high - low > 1e-9 * max(1.0, abs(low)) else 1.0
        offset, span = low - headroom * width, (1.0 + 2.0 * headroom) * width
        if decimals is None:
            return cls(offset, span / (10.0 ** min(digits, _MOST_DIGITS) - 1.0), digits, **form)
        if isinstance(decimals, bool) or not isinstance(decimals, int | np.integer) or decimals < 0:
            raise InputError(f"decimals: {decimals!r} was given; use a whole number of at least 0, or None.")
        largest = span * 10.0**decimals
        return cls(offset, 10.0**-decimals, int(np.clip(len(str(int(np.ceil(largest)))), 1, _MOST_DIGITS)), **form)

    @property
    def largest(self) -> int:
        """The largest number there is."""
        return int(10**self.digits - 1)

    @property
    def tokens(self) -> int:
        """Tokens of a value with its separator, for a model that has one token a digit."""
        return self.digits + 1

    def integers(self, values: Any) -> NDArray[np.int64]:
        """Return the whole numbers that stand for finite values."""
        scaled = (np.asarray(values, np.float64) - self.offset) / self.step
        return np.clip(np.rint(scaled), 0, self.largest).astype(np.int64)

    def values(self, integers: Any) -> NDArray[np.float64]:
        """Return the values that whole numbers stand for; NaN stays NaN."""
        return np.asarray(integers, np.float64) * self.step + self.offset

    def write(self, integers: Sequence[int] | NDArray[np.int64]) -> DigitText:
        """Return whole numbers as text, a separator after each."""
        joint = " " if self.spaced else ""
        width = self.digits if self.padded else 1
        pieces = [joint.join(f"{int(number):0{width}d}") + self.separator for number in integers]
        ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
        starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
        return DigitText("".join(pieces), np.stack([starts, ends], axis=1).astype(np.int64))

    def read(self, text: str) -> NDArray[np.float64]:
        """Return the numbers of a text in order, NaN for what is none of this code.

        Examples
        --------
        >>> DigitCode(0.0, 1.0, digits=2).read("12,7,x1,123,45").tolist()
        [12.0, nan, nan, nan, 45.0]
        """
        pieces = text.split(self.separator)
        if pieces and not pieces[-1].strip():
            pieces.pop()
        return np.array([self._number(piece) for piece in pieces], dtype=np.float64)

    def _number(self, piece: str) -> float:
        digits = "".join(piece.split())
        fits = len(digits) == self.digits if self.padded else 1 <= len(digits) <= self.digits
        return float(int(digits)) if fits and digits.isdecimal() else float("nan")
