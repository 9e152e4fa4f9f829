"""How a time stamp becomes numbers: elapsed seconds, phase of the day and of the week."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from genad.data.columns import Column

__all__ = ["DateCode", "scale_or_one"]


def scale_or_one(std: float, mean: float) -> tuple[float, bool]:
    """Return the divisor of a column and whether the column is constant.

    Parameters
    ----------
    std, mean : float
        Its moments, in its units.

    Returns
    -------
    scale : float
        The standard deviation, or 1 for a constant column.
    constant : bool
        Whether the spread is no more than rounding.

    Examples
    --------
    >>> scale_or_one(0.0, 5.0), scale_or_one(2.0, 5.0)
    ((1.0, True), (2.0, False))
    """
    # Rounding leaves a constant column with a spread near 1e-16 of its mean.
    constant = not std > 1e-13 * abs(mean)
    return (1.0, True) if constant else (std, False)


@dataclass(frozen=True)
class DateCode:
    """A time stamp: scaled seconds, and the phase of the day and of the week where they vary.

    The first column is seconds since the training median over their standard deviation. Hour of
    day (0 to 24, with fraction) and day of week (0 Monday to 6 Sunday), both in UTC, add a sine
    and a cosine each, unscaled: phases spread evenly over the circle have a total variance of 1.

    Parameters
    ----------
    name : str
        The column.
    median : int
        Training median, microseconds since 1970 in UTC.
    scale : float
        Standard deviation in seconds; 1 for a constant column.
    hour, weekday : bool
        Whether the phase columns are there.
    constant : bool
        Whether all training cells were equal.
    """

    name: str
    median: int
    scale: float
    hour: bool
    weekday: bool
    constant: bool = False

    @property
    def labels(self) -> list[str]:
        """Names of the encoded columns."""
        labels = [self.name]
        labels += [f"sin(hour of {self.name})", f"cos(hour of {self.name})"] * self.hour
        labels += [f"sin(weekday of {self.name})", f"cos(weekday of {self.name})"] * self.weekday
        return labels

    @staticmethod
    def fit(column: Column, name: str) -> DateCode:
        """Learn the centre, spread and phases of a date column.

        Parameters
        ----------
        column : Column
            datetime64 cells, at least one observed.
        name : str
            The column.

        Returns
        -------
        DateCode
            The code.
        """
        stamps = column.values[~np.isnat(column.values)].astype("datetime64[us]").astype(np.int64)
        median = int(np.sort(stamps)[(stamps.size - 1) // 2])
        scale, constant = scale_or_one(float(np.std((stamps - median) * 1e-6)), 0.0)
        hour, weekday = _phases(stamps)
        varies = bool(np.ptp(hour) > 0), bool(np.ptp(weekday) > 0)
        return DateCode(name, median, scale, *varies, constant)

    def encode(self, column: Column) -> tuple[np.ndarray, np.ndarray]:
        """Encode cells.

        Parameters
        ----------
        column : Column of n cells
            datetime64 cells.

        Returns
        -------
        z : ndarray of shape (n, 1 to 5), float32
            Zero where the cell is missing.
        seen : ndarray of bool, shape (n,)
            False where the cell is missing.
        """
        seen = ~np.isnat(column.values)
        stamps = column.values.astype("datetime64[us]").astype(np.int64)
        stamps = np.where(seen, stamps, self.median)
        hour, weekday = _phases(stamps)
        parts = [(stamps - self.median) * 1e-6 / self.scale]
        if self.hour:
            parts += [np.sin(hour * (2 * np.pi / 24)), np.cos(hour * (2 * np.pi / 24))]
        if self.weekday:
            parts += [np.sin(weekday * (2 * np.pi / 7)), np.cos(weekday * (2 * np.pi / 7))]
        z = np.stack(parts, axis=1).astype(np.float32)
        z[~seen] = 0.0
        return z, seen

    def decode(self, z: np.ndarray) -> np.ndarray:
        """Return time stamps from the first column.

        Parameters
        ----------
        z : ndarray of shape (n, 1 to 5)
            Encoded values.

        Returns
        -------
        ndarray of datetime64[s], shape (n,)
            NaT where the value is not finite or out of range.
        """
        seconds = np.round(z[:, 0].astype(np.float64) * self.scale + self.median * 1e-6)
        fits = np.abs(seconds) < 2.0**62  # NaN compares false
        stamps = np.where(fits, seconds, 0.0).astype(np.int64).astype("datetime64[s]")
        stamps[~fits] = np.datetime64("NaT")
        return stamps


def _phases(stamps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return hour of day and day of week of microseconds since 1970 (a Thursday)."""
    days = stamps // 86_400_000_000
    hour = (stamps - days * 86_400_000_000) * (24e-6 / 86_400.0)
    return hour, (days + 3) % 7
