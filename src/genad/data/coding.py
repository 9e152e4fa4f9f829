"""How one column becomes numbers on the z-scale, and back: one small class per kind of column."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from genad.data.columns import Column, ColumnKind, missing_mask, number_text
from genad.data.dating import DateCode, scale_or_one
from genad.data.moments import unbend
from genad.errors import InputError

__all__ = ["OTHER", "CategoryCode", "Code", "DateCode", "DroppedCode", "NumericCode", "code_from"]

#: Name of the level that stands for all rare and all unseen levels of a category.
OTHER = "(other)"

# A level of fewer rows than this share says more about chance than about the level: columns of such levels, large
# where they are 1, would drown the numbers.
_LEAST_SHARE = 0.005
# Share of the rows that the levels with a column have to hold, or rare ones among them lose theirs.
_MOST = 0.8
# Above this share of rare levels a category tells next to nothing.
_SCATTERED = 0.95


@dataclass(frozen=True)
class NumericCode:
    """A number or truth value: ``(value - mean) / scale``, of its signed logarithm where it has a unit.

    Parameters
    ----------
    name : str
        The column.
    mean, scale : float
        Mean and standard deviation of the observed training cells, in the user's units; the scale
        of a constant column is 1.
    boolean : bool
        Whether `inverse` gives truth values.
    constant : bool
        Whether all training cells were equal.
    unit : float
        Above 0 for a column on a log scale, whose mean and scale are then those of
        ``sign(v) log(1 + |v| / unit)``; 0 otherwise.
    """

    name: str
    mean: float
    scale: float
    boolean: bool = False
    constant: bool = False
    unit: float = 0.0

    @property
    def labels(self) -> list[str]:
        """Names of the encoded columns."""
        return [self.name]

    @staticmethod
    def fit(name: str, mean: float, std: float, *, boolean: bool, unit: float = 0.0) -> NumericCode:
        """Make the code of a column with the given moments.

        Parameters
        ----------
        name : str
            The column.
        mean, std : float
            Moments of its observed cells.
        boolean : bool
            Whether it holds truth values.
        unit : float
            Above 0 for a log scale.

        Returns
        -------
        NumericCode
            The code.
        """
        scale, constant = scale_or_one(std, mean)
        return NumericCode(name, mean, scale, boolean, constant, unit)

    def decode(self, z: np.ndarray) -> np.ndarray:
        """Return values in the user's units.

        Parameters
        ----------
        z : ndarray of shape (n, 1)
            Encoded values.

        Returns
        -------
        ndarray of shape (n,)
            float64, or bool (true from one half) for truth values.
        """
        values = z[:, 0].astype(np.float64) * self.scale + self.mean
        if self.unit:
            return unbend(values, self.unit)
        return values >= 0.5 if self.boolean else values


@dataclass(frozen=True)
class CategoryCode:
    r"""A category: centred one-hot columns whose total variance is one.

    With :math:`p_k` the share of level k (the last level stands for all rare and unseen ones),
    column k is :math:`(\mathbb 1[x = k] - p_k) / \sqrt{\sum_j p_j (1 - p_j)}`. The training
    variances of the block's columns then add up to 1, so a category weighs as much as one number.

    Parameters
    ----------
    name : str
        The column.
    levels : tuple of str
        Levels with a column of their own, the most frequent first.
    rare : tuple of str
        Training levels that share the last column.
    shares : tuple of float
        Training frequency per level, then that of all rare ones.
    scale : float
        The divisor; 1 for a constant column.
    constant : bool
        Whether all training cells were equal.
    """

    name: str
    levels: tuple[str, ...]
    rare: tuple[str, ...]
    shares: tuple[float, ...]
    scale: float
    constant: bool = False

    @property
    def labels(self) -> list[str]:
        """Names of the encoded columns."""
        return [f"{self.name}={level}" for level in (*self.levels, OTHER)]

    @property
    def scattered(self) -> bool:
        """Whether rare levels hold almost all training cells."""
        return self.shares[-1] > _SCATTERED

    @staticmethod
    def fit(name: str, counts: dict[str, int], max_levels: int) -> CategoryCode:
        """Choose the levels that get a column.

        Parameters
        ----------
        name : str
            The column.
        counts : dict of str to int
            How often each training level occurs.
        max_levels : int
            At most so many levels get a column; those seen once never do, nor, where these would hold
            less than 80 % of the rows, those seen in less than 0.5 % of them.

        Returns
        -------
        CategoryCode
            The code.
        """
        ranked = sorted(counts, key=lambda level: (-counts[level], level))
        total = sum(counts.values())
        levels = [level for level in ranked if counts[level] >= 2][:max_levels]
        if sum(counts[level] for level in levels) < _MOST * total:
            # Many rows would have none of them, and those that have a rare one would stand out by it.
            levels = [level for level in levels if counts[level] >= _LEAST_SHARE * total]
        rare = sorted(set(counts) - set(levels))
        shares = [counts[level] / total for level in levels]
        shares.append(sum(counts[level] for level in rare) / total)
        variance = math.fsum(p * (1.0 - p) for p in shares)
        constant = len(counts) == 1 or variance <= 0.0
        scale = 1.0 if constant else math.sqrt(variance)
        return CategoryCode(name, tuple(levels), tuple(rare), tuple(shares), scale, constant)

    def encode(self, column: Column) -> tuple[np.ndarray, np.ndarray]:
        """Encode cells.

        Parameters
        ----------
        column : Column of n cells
            Text; numbers and truth values are taken as levels of the same spelling.

        Returns
        -------
        z : ndarray of shape (n, K + 1), float32
            Zero where the cell is missing.
        seen : ndarray of bool, shape (n,)
            False where the cell is missing.
        """
        codes, levels, seen = level_codes(column, set(self.levels))
        place = {level: k for k, level in enumerate(self.levels)}
        width = len(self.levels) + 1
        found = np.array([place.get(level, width - 1) for level in levels] or [0], dtype=np.intp)
        shares = np.asarray(self.shares)
        table = ((np.eye(width) - shares) / self.scale).astype(np.float32)
        z = table[found[codes]]
        z[~seen] = 0.0
        return z, seen

    def count_unseen(self, column: Column) -> int:
        """Count the cells with a level that was not in the training data.

        Parameters
        ----------
        column : Column
            The cells.

        Returns
        -------
        int
            How many; rare training levels are not counted.
        """
        known = {*self.levels, *self.rare}
        codes, levels, seen = level_codes(column, known)
        new = np.array([level not in known for level in levels] or [False])
        return int((new[codes] & seen).sum())

    def decode(self, z: np.ndarray) -> np.ndarray:
        """Return the likeliest level.

        Parameters
        ----------
        z : ndarray of shape (n, K + 1)
            Encoded values.

        Returns
        -------
        ndarray of object, shape (n,)
            Levels; `OTHER` for rare and unseen ones.
        """
        names = np.array([*self.levels, OTHER], dtype=object)
        share = z.astype(np.float64) * self.scale + np.asarray(self.shares)
        return np.asarray(names[share.argmax(axis=1)])


@dataclass(frozen=True)
class DroppedCode:
    """A column that is left out, and why.

    Parameters
    ----------
    name : str
        The column.
    reason : str
        ``"all missing"`` or ``"identifier"``.
    """

    name: str
    reason: str

    @property
    def labels(self) -> list[str]:
        """Names of the encoded columns: none."""
        return []


Code = NumericCode | CategoryCode | DateCode | DroppedCode
_CODES: dict[str, Any] = {
    "numeric": NumericCode,
    "category": CategoryCode,
    "date": DateCode,
    "dropped": DroppedCode,
}


def level_codes(column: Column, known: set[str]) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Give each level of a column a number.

    Parameters
    ----------
    column : Column of n cells
        Text, or numbers, truth values and dates to take as text.
    known : set of str
        Levels of the training data, which decide between ``true`` and ``True``.

    Returns
    -------
    codes : ndarray of int, shape (n,)
        Position in `levels`; 0 where missing.
    levels : list of str
        The levels that occur.
    seen : ndarray of bool, shape (n,)
        False where the cell is missing.
    """
    column = column.as_levels()
    missing = missing_mask(column)
    if column.values.dtype.kind == "O":
        coded = pa.array(column.values, type=pa.large_string()).dictionary_encode()
        codes = coded.indices.fill_null(0).to_numpy(zero_copy_only=False)
        return codes.astype(np.intp), coded.dictionary.to_pylist(), ~missing
    values, codes = np.unique(column.values, return_inverse=True)
    if column.kind is ColumnKind.BOOLEAN:
        values = values.astype(object)
        values[:] = [v if v != v else bool(v) for v in values]
    dates = column.values.dtype.kind == "M"
    levels = [str(v) if dates or v != v else number_text(v) for v in values]
    # Cells that a file reader took as numbers or truth values find the level spelled like "01".
    spelled = {_plain(level): level for level in sorted(known)}
    spelled |= {level: level for level in known}
    return codes.reshape(-1), [spelled.get(level, level) for level in levels], ~missing


def _plain(level: str) -> str:
    """Return a level as `number_text` would spell it."""
    if level.lower() in {"true", "false"}:
        return level.lower()
    try:
        return number_text(float(level))
    except (ValueError, OverflowError):
        return level


def code_to_dict(code: Code) -> dict[str, Any]:
    """Write a code as JSON values.

    Parameters
    ----------
    code : Code
        The code.

    Returns
    -------
    dict
        Its kind under ``"code"`` and its fields.
    """
    kind = next(name for name, cls in _CODES.items() if type(code) is cls)
    fields = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(code).items()}
    return {"code": kind, **fields}


def code_from(fields: dict[str, Any]) -> Code:
    """Read a code that `code_to_dict` wrote.

    Parameters
    ----------
    fields : dict
        JSON values.

    Returns
    -------
    Code
        The code.

    Raises
    ------
    InputError
        The fields are not those of a code.
    """
    fields = dict(fields)
    cls = _CODES.get(str(fields.pop("code", "")))
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    try:
        code: Code = cls(**values)  # type: ignore[misc]
    except TypeError as error:
        msg = f"the stored encoder has a column with fields {sorted(fields)}: write it again"
        raise InputError(msg) from error
    return code
