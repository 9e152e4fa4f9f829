"""The layout of an encoded table, and the ways back from it to the user's columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from genad.data.coding import Code, DroppedCode, NumericCode, code_from, code_to_dict
from genad.data.container import listing
from genad.data.moments import unbend
from genad.errors import InputError

__all__ = ["EncodedLayout"]


@dataclass
class EncodedLayout:
    """Which encoded columns belong to which column of the user, and how to decode them.

    Parameters
    ----------
    max_levels, max_distinct : int
        As `genad.data.encoder.TableEncoder` documents them; kept with the state.
    codes : list of Code
        How each column is encoded, in the user's order.
    named : bool
        Whether the training table had column names.
    """

    max_levels: int = 32
    max_distinct: int = 10_000
    codes: list[Code] = field(default_factory=list)
    named: bool = False

    def __post_init__(self) -> None:
        self._prepare()

    def _prepare(self) -> None:
        """Lay out the encoded columns and gather the moments of the numeric ones."""
        numeric = [(j, c) for j, c in enumerate(self.codes) if isinstance(c, NumericCode)]
        self._source = np.array([j for j, _ in numeric], dtype=np.intp)
        self._mean = np.array([c.mean for _, c in numeric])
        self._scale = np.array([c.scale for _, c in numeric])
        self._units = np.array([c.unit for _, c in numeric])
        self._numeric_names = [c.name for _, c in numeric]
        widths = [len(c.labels) for c in self.codes]
        ends = np.cumsum(widths, dtype=np.intp).tolist()
        slices = [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]
        #: (name, slice of the encoded columns) per column of the user; empty slice: left out.
        self.groups = [(c.name, s) for c, s in zip(self.codes, slices, strict=True)]
        self.n_encoded: int = ends[-1] if ends else 0
        self._place = np.array([slices[j].start for j, _ in numeric], dtype=np.intp)
        dropped = sum(isinstance(c, DroppedCode) for c in self.codes)
        self._plain = bool(numeric) and len(numeric) + dropped == len(self.codes)
        self._whole = len(numeric) == len(self.codes)
        # Means within this many deviations of 0 lose nothing that matters in single precision.
        self._steady = bool((np.abs(self._mean) <= 100 * self._scale).all()) and not self._units.any()
        self._short = self._mean.astype(np.float32), (1.0 / self._scale).astype(np.float32)

    @property
    def feature_names(self) -> list[str]:
        """Names of the user's columns."""
        return [code.name for code in self.codes]

    @property
    def n_features(self) -> int:
        """Number of the user's columns."""
        return len(self.codes)

    @property
    def encoded_names(self) -> list[str]:
        """Names of the encoded columns."""
        return [label for code in self.codes for label in code.labels]

    def _check_fitted(self) -> None:
        if not self.codes:
            msg = "this TableEncoder is not fitted: call fit first"
            raise InputError(msg)

    def collapse(self, values: np.ndarray) -> np.ndarray:
        """Add values of the encoded columns per column of the user.

        Parameters
        ----------
        values : ndarray of shape (..., n_encoded)
            Shares of a score, for instance.

        Returns
        -------
        ndarray of shape (..., n_features)
            Sums in the dtype of `values`; 0 for a column that is left out.

        Raises
        ------
        InputError
            Another number of encoded columns.
        """
        values = self._check_encoded(values)
        sums = np.zeros((*values.shape[:-1], self.n_features), dtype=values.dtype)
        for j, (_, where) in enumerate(self.groups):
            values[..., where].sum(axis=-1, out=sums[..., j])
        return sums

    def _check_encoded(self, x: np.ndarray) -> np.ndarray:
        self._check_fitted()
        x = np.asarray(x)
        if x.ndim == 0 or x.shape[-1] != self.n_encoded:
            msg = f"x has shape {x.shape}: its last axis must have {self.n_encoded} encoded columns"
            raise InputError(msg)
        return x

    def inverse(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Decode rows into the user's units.

        Parameters
        ----------
        x : ndarray of shape (n, n_encoded)
            Encoded rows.

        Returns
        -------
        dict of str to ndarray of shape (n,)
            float64 numbers, truth values (true from one half), likeliest levels as objects, dates
            as datetime64[s] in UTC. Columns that are left out are not there.

        Raises
        ------
        InputError
            Another shape.
        """
        x = self._check_encoded(x)
        if x.ndim != 2:
            msg = f"x has shape {x.shape}: give rows, (n, {self.n_encoded})"
            raise InputError(msg)
        pairs = zip(self.codes, self.groups, strict=True)
        return {code.name: code.decode(x[:, where]) for code, (_, where) in pairs if not isinstance(code, DroppedCode)}

    def inverse_numeric(self, x: np.ndarray) -> np.ndarray:
        """Decode rows of a table of numbers and truth values into one array.

        Parameters
        ----------
        x : ndarray of shape (..., n_encoded)
            Encoded rows.

        Returns
        -------
        ndarray of shape (..., n_features), float64
            The user's units; truth values unrounded; NaN for a column that is left out.

        Raises
        ------
        InputError
            The table has categories or dates, or `x` another shape.
        """
        x = self._check_encoded(x)
        if not self._plain:
            msg = "the table has categories or dates, which are no numbers: use inverse"
            raise InputError(msg)
        values = np.full((*x.shape[:-1], self.n_features), np.nan)
        numbers = x.astype(np.float64) * self._scale + self._mean
        if self._units.any():
            bent = np.flatnonzero(self._units)
            numbers[..., bent] = unbend(numbers[..., bent], self._units[bent])
        values[..., self._source] = numbers
        return values

    def scale_of(self, name: str) -> float:
        """Return what one encoded unit is in the user's units.

        Parameters
        ----------
        name : str
            A column of the user.

        Returns
        -------
        float
            The standard deviation of a number, that of a date in seconds; the root of the total
            variance of a category's one-hot columns. 1 for a constant column, NaN for one that is
            left out or on a log scale, where it is no constant.

        Raises
        ------
        InputError
            There is no such column.
        """
        code = next((c for c in self.codes if c.name == name), None)
        if code is None:
            msg = f"no column named {name!r}; the columns are {listing(self.feature_names)}"
            raise InputError(msg)
        if isinstance(code, DroppedCode) or (isinstance(code, NumericCode) and code.unit):
            return float("nan")
        return code.scale

    def to_dict(self) -> dict[str, Any]:
        """Write the state as JSON values.

        Returns
        -------
        dict
            Lists, numbers, text and truth values only; floats round-trip exactly.
        """
        return {
            "version": 1,
            "max_levels": self.max_levels,
            "max_distinct": self.max_distinct,
            "named": self.named,
            "columns": [code_to_dict(code) for code in self.codes],
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """Read a state that `to_dict` wrote.

        Parameters
        ----------
        state : dict
            JSON values.

        Returns
        -------
        TableEncoder
            Encodes to the same bytes.

        Raises
        ------
        InputError
            The state is not that of an encoder, or of a newer version.
        """
        if not isinstance(state, dict) or state.get("version") != 1 or "columns" not in state:
            msg = "the stored encoder is not one this version reads (version 1): write it again"
            raise InputError(msg)
        return cls(
            max_levels=int(state.get("max_levels", 32)),
            max_distinct=int(state.get("max_distinct", 10_000)),
            codes=[code_from(fields) for fields in state["columns"]],
            named=bool(state.get("named", False)),
        )
