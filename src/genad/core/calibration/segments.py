"""Thresholds by segment: machines, users or hours of the week that each have their own normal, rich or poor in data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from genad.core.calibration._checks import as_scores, check_count, check_number, check_state
from genad.core.calibration._labels import as_labels, label_text
from genad.core.calibration.conformal import (
    attainable_alpha,
    conformal_p_values,
    conformal_quantile,
    grouped_p_values,
)
from genad.core.calibration.fitted import percent, plural
from genad.core.calibration.streams import warn_unattainable
from genad.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["FittedSegments", "Segmented"]

# From the median absolute deviation to the standard deviation of a normal distribution, and the median of |z| there.
_MAD, _HALF = 1.4826, 0.6745


@dataclass(frozen=True)
class Segmented:
    """Judge each score against its own segment, with as much of the others as the segment lacks data.

    A segment with at least ``own / alpha`` scores has conformal p-values of its own. The others share: each is
    brought to a common scale by its median and its median absolute deviation, both drawn towards those of its parent
    or of all scores by the weight of `shrinkage` scores, and compared with one pool. Half of a poor segment's scores
    set its scale, the other half join the pool, so that the pool is as fresh as the scores to come.

    When to use: the same score means different things on different machines, and a global threshold flags some of
    them all the time. When it fails: a segment that was already sick in calibration is normal by its own measure
    (look at :meth:`FittedSegments.unlike`); for poor segments the false-alarm rate is promised over all of them
    together, and a single one may have more; for segments never seen nothing is promised.

    Parameters
    ----------
    alpha
        Share of normal samples flagged by mistake, in (0, 1).
    shrinkage
        Scores that the parent's median and spread weigh as much as, at least 0.
    own
        A segment is judged by itself from ``own / alpha`` scores on, above 0.
    share
        Share of a poor segment's scores that set its scale, in (0, 1).
    half_life
        Scores of a segment after which :meth:`FittedSegments.update` has forgotten half, at least 1.
    seed
        Of the division into halves.

    Raises
    ------
    InputError
        If a parameter is out of range.

    References
    ----------
    V. Vovk, D. Lindsay, I. Nouretdinov, A. Gammerman, Mondrian confidence machine, 2003.
    B. Efron, C. Morris, Data analysis using Stein's estimator and its generalizations, Journal of the American
    Statistical Association, 1975.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> machine = np.repeat(["a", "b"], 2000)
    >>> level = np.where(machine == "a", 0.0, 50.0)
    >>> fitted = Segmented(alpha=0.05).fit(level + rng.normal(size=4000), machine)
    >>> fitted.flag([5.0, 5.0, 55.0, 51.0], ["a", "b", "b", "b"]).tolist()
    [True, False, True, False]
    """

    alpha: float = 0.01
    shrinkage: float = 50.0
    own: float = 10.0
    share: float = 0.5
    half_life: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, 0.0, 1.0)
        check_number("shrinkage", self.shrinkage, 0.0, closed="l")
        check_number("own", self.own, 0.0)
        check_number("share", self.share, 0.0, 1.0)
        check_count("half_life", self.half_life, 1)

    def fit(
        self,
        scores: ArrayLike,
        segments: ArrayLike,
        parents: Mapping[Any, Any] | None = None,
        *,
        unit: str = "row",
    ) -> FittedSegments:
        """Learn what is normal in each segment.

        Parameters
        ----------
        scores
            Scores (n,) of held-out normal samples, finite, higher = more anomalous.
        segments
            The segment of each, numbers or text; compared as text, so 1, 1.0 and "1" are one.
        parents
            Parent of a segment, such as the site of a machine; also of segments that have no scores yet.
        unit
            What one score stands for, for the promise in words.

        Returns
        -------
        FittedSegments

        Raises
        ------
        InputError
            If a score is NaN or infinite, lengths differ or a segment is missing.

        Warns
        -----
        CalibrationWarning
            If the pool is too small for `alpha`; scores above all of it are flagged then.
        """
        values = as_scores("scores", scores, finite=True)
        names, code = np.unique(as_labels(segments, values.size), return_inverse=True)
        count = np.bincount(code)
        rich = count >= self.own / self.alpha
        # Poor segments are divided at random into a part for the scale and a part for the pool.
        order = np.random.default_rng(self.seed).permutation(values.size)
        order = order[np.argsort(code[order], kind="stable")]
        place = np.empty(values.size, np.intp)
        place[order] = np.arange(values.size) - np.repeat(np.cumsum(count) - count, count)
        shaping = place < np.floor(self.share * count)[code]
        known = shaping | rich[code]
        up = {label_text(a): label_text(b) for a, b in (parents or {}).items()}
        every = values[known] if known.any() else values
        scales = {"": _spread(every)}
        above = np.array([up.get(name, "") for name in names.tolist()])
        for parent in sorted(set(above.tolist()) - {""}):
            scales[f"^{parent}"] = self._drawn(values[known & (above == parent)[code]], scales[""], self.shrinkage)
        for k, name in enumerate(names.tolist()):
            base = scales.get(f"^{above[k]}", scales[""])
            mine = values[known & (code == k)]
            # A rich segment speaks for itself in its scale too.
            scales[f"={name}"] = self._drawn(mine, base, 0.0 if rich[k] else self.shrinkage)
        pooled = ~shaping & ~rich[code] if not rich.all() else np.ones(values.size, np.bool_)
        centre = np.array([scales[f"={name}"] for name in names.tolist()])[code]
        z = (values - centre[:, 0]) / centre[:, 1]
        pool = np.sort(z[pooled])
        if attainable_alpha(pool.size) > self.alpha and not rich.all():
            warn_unattainable(self.alpha, pool.size, unit)
        medians = {name: float(np.median(values[code == k])) for k, name in enumerate(names.tolist())}
        own = {name: np.sort(z[code == k]) for k, name in enumerate(names.tolist()) if rich[k]}
        poor = int((~rich).sum())
        level = percent(max(self.alpha, attainable_alpha(pool.size)))
        parts = [
            f"in each of {len(own)} segments at most {percent(self.alpha)}" if own else "",
            f"over {poor} segments together at most {level}" if poor else "",
        ]
        promise = (
            f"Of normal {plural(unit)}, {' and '.join(filter(None, parts))} are flagged by mistake, on average "
            f"(split-conformal, {values.size} held-out {plural(unit, values.size)})."
        )
        return FittedSegments(self, promise, scales, own, pool, up, medians)

    @staticmethod
    def _drawn(values: NDArray[np.float64], base: tuple[float, float], parent_weight: float) -> tuple[float, float]:
        """Return median and spread drawn towards those of the parent, which weigh as much as so many scores."""
        if not values.size:
            return base
        weight = values.size / (values.size + parent_weight)
        here = _spread(values)
        middle, wide = (weight * a + (1 - weight) * b for a, b in zip(here, base, strict=True))
        # Scores that are all equal have no spread, and dividing by none would flag the next rounding error.
        return middle, max(wide, 1e-6 * base[1])


@dataclass
class FittedSegments:
    """What is normal in each segment; made by :meth:`Segmented.fit`.

    Attributes
    ----------
    rule : Segmented
    promise : str
        What the flags mean, in one sentence.
    scales : dict of str to (float, float)
        Median and spread of all (``""``), of a parent (``"^name"``) and of a segment (``"=name"``).
    own : dict of str to array
        Standardised scores, ascending, of the segments judged by themselves.
    pool : array
        Those of the others together.
    parents : dict of str to str
        Parent of a segment.
    medians : dict of str to float
        Median calibration score of each segment, unshrunk.
    """

    rule: Segmented
    promise: str
    scales: dict[str, tuple[float, float]]
    own: dict[str, NDArray[np.float64]]
    pool: NDArray[np.float64]
    parents: dict[str, str]
    medians: dict[str, float] = field(default_factory=dict)

    def basis(self, segment: Any) -> str:
        """Say what a segment is judged by: ``"own"``, ``"pooled"``, ``"parent"`` or ``"all"``."""
        name = label_text(segment)
        if name in self.own:
            return "own"
        if f"={name}" in self.scales:
            return "pooled"
        return "parent" if f"^{self.parents.get(name, '')}" in self.scales else "all"

    def _scale(self, name: str) -> tuple[float, float]:
        parent = self.scales.get(f"^{self.parents.get(name, '')}", self.scales[""])
        return self.scales.get(f"={name}", parent)

    def standardise(self, scores: ArrayLike, segments: ArrayLike) -> NDArray[np.float64]:
        """Return scores less the median of their segment, in units of its spread: comparable across segments.

        Raises
        ------
        InputError
            If a score is NaN, lengths differ or a segment is missing.
        """
        values = as_scores("scores", scores, allow_empty=True)
        names, code = np.unique(as_labels(segments, values.size), return_inverse=True)
        scale = np.array([self._scale(name) for name in names.tolist()]).reshape(-1, 2)[code]
        return np.asarray((values - scale[:, 0]) / scale[:, 1])

    def p_values(self, scores: ArrayLike, segments: ArrayLike) -> NDArray[np.float64]:
        """Return conformal p-values (m,) in (0, 1], each within what its segment is judged by.

        Raises
        ------
        InputError
            If a score is NaN, lengths differ or a segment is missing.
        """
        z = self.standardise(scores, segments)
        names = as_labels(segments, z.size)
        found = conformal_p_values(self.pool, z)
        rich = np.isin(names, list(self.own))
        if rich.any():
            sizes = [len(z) for z in self.own.values()]
            groups = np.repeat(np.array(list(self.own)), sizes)
            found[rich] = grouped_p_values(np.concatenate(list(self.own.values())), groups, z[rich], names[rich])
        return found

    def flag(self, scores: ArrayLike, segments: ArrayLike) -> NDArray[np.bool_]:
        """Flag scores (m,) whose p-value is at most `alpha`, or the lowest that the pool can reach.

        Raises
        ------
        InputError
            If a score is NaN, lengths differ or a segment is missing.
        """
        p = self.p_values(scores, segments)
        names = as_labels(segments, p.size)
        level = np.where(np.isin(names, list(self.own)), self.rule.alpha, self._level)
        return np.asarray(p <= level)

    @property
    def _level(self) -> float:
        return max(self.rule.alpha, attainable_alpha(self.pool.size))

    def threshold(self, segment: Any) -> float:
        """Return the score above which a segment is flagged, in the detector's units."""
        name = label_text(segment)
        middle, spread = self._scale(name)
        level = self.rule.alpha if name in self.own else self._level
        return middle + spread * conformal_quantile(self.own.get(name, self.pool), level)

    def unlike(self, limit: float = 3.5) -> dict[str, float]:
        """Return segments whose median score stands out among the segments': sick from the start, perhaps.

        Parameters
        ----------
        limit
            Robust standard deviations above the median segment, above 0.

        Returns
        -------
        dict of str to float
            How many, by segment, the highest first; empty with fewer than three segments.

        Raises
        ------
        InputError
            If `limit` is not above 0.
        """
        check_number("limit", limit, 0.0)
        if len(self.medians) < 3:
            return {}
        names, medians = list(self.medians), np.array(list(self.medians.values()))
        middle, spread = _spread(medians)
        far = (medians - middle) / spread
        return {names[k]: float(far[k]) for k in np.argsort(-far, kind="stable") if far[k] > limit}

    def update(self, score: float, segment: Any) -> float:
        """Judge the next score of a segment, then let the segment's median and spread follow it.

        A flagged score is not learnt from, so an alarm does not become normal. Segments move by steps of a fixed size
        that leave them at the median, whatever the size of a score. What is flagged is then about `alpha` of a segment
        that changes slowly, no longer by promise: of normal scores that rose by 4 standard deviations over 3,000 steps,
        1.9 % were flagged at 1 % with a half-life of 100, and 44 % without following. In a poor segment the weight of
        the parent fades as scores come.

        Parameters
        ----------
        score
            The score; infinite is flagged, NaN is refused.
        segment
            Its segment; an unseen one starts from its parent.

        Returns
        -------
        float
            The p-value before learning.

        Raises
        ------
        InputError
            If the score is NaN.
        """
        value, name = check_number("score", score, closed="lh"), label_text(segment)
        middle, spread = self._scale(name)
        z, normal = (value - middle) / spread, self.own.get(name, self.pool)
        p = (1.0 + len(normal) - float(np.searchsorted(normal, z))) / (len(normal) + 1.0)
        if p > (self.rule.alpha if name in self.own else self._level):
            pace = 1.0 - 0.5 ** (1.0 / self.rule.half_life)
            # Both are at rest where as many scores lie on either side.
            self.scales[f"={name}"] = (
                middle + pace * spread * float(np.sign(z)),
                spread * math.exp(pace * float(np.sign(abs(z) - _HALF))),
            )
        return p

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that strict JSON keeps exactly."""
        return {
            "rule": "Segmented",
            "parameters": {name: getattr(self.rule, name) for name in self.rule.__dataclass_fields__},
            "promise": self.promise,
            "scales": {name: list(pair) for name, pair in self.scales.items()},
            "own": {name: z.tolist() for name, z in self.own.items()},
            "pool": self.pool.tolist(),
            "parents": dict(self.parents),
            "medians": dict(self.medians),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FittedSegments:
        """Rebuild from what :meth:`to_dict` returned.

        Raises
        ------
        InputError
            If a part is missing or out of range.
        """
        data = check_state("fitted segments", data, "Segmented")
        try:
            return cls(
                Segmented(**data["parameters"]),
                str(data["promise"]),
                {str(name): (float(a), float(b)) for name, (a, b) in data["scales"].items()},
                {str(name): as_scores("own", z) for name, z in data["own"].items()},
                as_scores("pool", data["pool"]),
                {str(a): str(b) for a, b in data["parents"].items()},
                {str(a): float(b) for a, b in data["medians"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"fitted segments: the saved form is broken ({error}).") from error


def _spread(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return median and robust standard deviation, the plain one where most scores are equal, 1 where all are."""
    middle = float(np.median(values))
    wide = _MAD * float(np.median(np.abs(values - middle)))
    return middle, wide or float(values.std()) or 1.0
