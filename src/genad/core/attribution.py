"""Attribution: how much each feature adds to the score of one unit, as Shapley values against normal data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from genad.core.attribution_games import Game, make_game
from genad.core.detections import jsonable
from genad.core.parameters import check_whole

if TYPE_CHECKING:
    from genad.core.detector import Detector

__all__ = ["Attribution", "attribute"]

Floats = NDArray[np.float64]

# Mixed units that are scored when the caller names no number of orders, beside two for each group.
_EVALUATIONS = 2048
# Up to so many groups all coalitions may be listed.
_MOST_LISTED = 16


@dataclass(frozen=True)
class Attribution:
    """What each feature, or group of cells, adds to the score of one unit.

    Attributes
    ----------
    index : int
        Position of the unit in the data.
    score : float
        Its anomaly score; of a step of a series, that of the step within the windows that hold it.
    base : float
        Mean score of the background.
    names : tuple of str
        The features, or the groups: channel and steps.
    values : float64 array of shape (groups,)
        Shapley values in units of the score; they add up to ``score - base``.
    errors : float64 array of shape (groups,)
        Standard errors of the values from the sampled orders; 0 where all coalitions were listed.
    observed, expected : tuple
        For a row of a table, what it has and what the background has in its place (the mean of several backgrounds;
        None for what has no mean); for groups of cells, the means over the cells.
    evaluations : int
        Mixed units that were scored.
    """

    index: int
    score: float
    base: float
    names: tuple[str, ...]
    values: Floats
    errors: Floats
    observed: tuple[Any, ...]
    expected: tuple[Any, ...]
    evaluations: int

    @property
    def residual(self) -> float:
        """What the values leave of ``score - base``: rounding only."""
        return self.score - self.base - float(self.values.sum())

    def top(self, k: int = 10) -> list[tuple[str, float]]:
        """Return the ``k`` names that add most to the score, with their values, the largest first.

        Raises
        ------
        InputError
            When ``k`` is not a whole number of at least 1.
        """
        check_whole(SimpleNamespace(k=k), "k")
        order = np.argsort(-self.values, kind="stable")[:k]
        return [(self.names[j], float(self.values[j])) for j in order]

    def __str__(self) -> str:
        lines = [f"#{self.index}  score {self.score:.4g} = {self.base:.4g} for normal data, and"]
        lines += [f"  {value:+.4g}  {name}" for name, value in self.top(10)]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the attribution as plain JSON values."""
        return {
            "index": self.index,
            "score": self.score,
            "base": self.base,
            "evaluations": self.evaluations,
            "parts": [
                {"name": n, "value": float(v), "error": float(e), "observed": jsonable(o), "expected": jsonable(x)}
                for n, v, e, o, x in zip(
                    self.names, self.values, self.errors, self.observed, self.expected, strict=True
                )
            ],
        }


def attribute(
    detector: Detector,
    X: Any,
    i: int,
    *,
    samples: int | None = None,
    background: Any = None,
    block: int | None = None,
    seed: int = 0,
) -> Attribution:
    """Share out the score of unit ``i`` among its features.

    A feature's Shapley value is what the score gains, on average over the orders in which features can come, when the
    feature changes from its normal to its observed value. Orders are drawn in pairs, each with its reverse, which
    cancels most of the noise; where listing every coalition costs no more, the values are exact. What is shared out
    is the raw score, never a flag. The values add up to the score less that of the background, to rounding.

    When to use: the map of a detector spreads an error over correlated features, or the detector has no map of its
    own; the values of different detectors shall mean the same thing.

    When it fails: mixed units mostly have never been seen, and a detector may score them high for that alone; the
    restored unit as background, which goes along with the observed one, keeps this small, unrelated normal rows do
    not. Features that are only anomalous together share the blame evenly. A detector that restores badly gives a base
    above normal scores, and then little is left to share out. Values say where the score comes from, not what caused
    the anomaly.

    Trial: in 40 rows each of the cardio, breastw and pendigits tables one cell was moved by four standard deviations,
    and a default autoencoder asked which. The largest value was that of the cell in 93, 78 and 98 % (restored
    background), 95, 88 and 100 % (mean) and 95, 90 and 100 % (normal rows), the top of the anomaly map in 93, 70 and
    98 %.

    Parameters
    ----------
    detector : Detector
        Any fitted one. Its scores must not depend on other units.
    X : array, dataframe, Table, Series or path
        Rows, a series, or an array of windows, images or clips, as for ``detector.detect``.
    i : int
        Position of the row, time step or sample; of a series as in ``Detections``. Negative counts from the end.
    samples : int, optional
        Orders to draw, at least 2, rounded up to pairs, at least two pairs for each row of the background; as many as
        about 2,048 mixed units allow when absent.
    background : {"restored", "mean"} or normal data, optional
        What stands for normal: the unit as the detector restores it, the mean of its training data, or normal data of
        the kind of ``X``, of which 30 (the medoids of k-means, weighted by the size of their clusters; of a series
        evenly spread stretches) are taken when there are more. When absent, the restored unit, or the mean where the
        restored unit is itself above the threshold.
    block : int, optional
        Steps of a series or window that make one group with their channel, and the side of the squares of an image;
        by default about 48 groups are made.
    seed : int
        Of the orders and of k-means.

    Returns
    -------
    Attribution

    Raises
    ------
    InputError
        When there is no such unit, an argument is out of range, the background does not fit, or the kind of data has
        no features to share the score among.

    References
    ----------
    S. Lundberg, S.-I. Lee, A unified approach to interpreting model predictions, NeurIPS 2017.
    E. Strumbelj, I. Kononenko, Explaining prediction models and individual predictions with feature contributions,
    Knowledge and Information Systems, 2014.
    L. Antwarg, R. Miller, B. Shapira, L. Rokach, Explaining anomalies detected by autoencoders using SHAP, 2021.

    Examples
    --------
    >>> import numpy as np
    >>> import genad
    >>> rng = np.random.default_rng(0)
    >>> detector = genad.create("ppca").fit(rng.normal(size=(500, 3)))
    >>> found = attribute(detector, np.array([[0.0, 6.0, 0.0]]), 0)
    >>> found.top(1)[0][0], abs(found.residual) < 1e-9
    ('x1', True)
    """
    check_is_fitted(detector, "threshold_")
    settings = SimpleNamespace(samples=2 if samples is None else samples, block=1 if block is None else block)
    check_whole(settings, "samples", low=2)
    check_whole(settings, "block")
    first = "restored" if background is None else background
    i, game = make_game(detector, X, i, first, block, seed)
    starts = game.starts()
    # A model that follows the anomaly restores nothing, and then the restored unit is no background.
    if background is None and hasattr(detector, "adapter_") and starts[0] > detector.threshold_.value:
        i, game = make_game(detector, X, i, "mean", block, seed)
        starts = game.starts()
    everything = np.ones((1, len(game.names)), np.bool_)
    score = float(game.value(everything, np.zeros(1, np.intp))[0])
    base = float(game.weights @ starts)
    values, errors = np.zeros(len(game.names)), np.zeros(len(game.names))
    players = np.flatnonzero(game.differs)
    if len(players):
        # A player who is the same on both sides adds nothing in any order.
        values[players], errors[players] = _shapley(game, players, score, starts, samples, seed)
    return Attribution(
        i, score, base, tuple(game.names), values, errors, game.observed, game.expected, game.evaluations
    )


# ---------------------------------------------------------------------- Shapley values


def _shapley(
    game: Game, players: NDArray[np.intp], score: float, starts: Floats, samples: int | None, seed: int
) -> tuple[Floats, Floats]:
    d, m = len(players), len(starts)
    inner = max(1, d - 1)
    orders = (_EVALUATIONS + 2 * d) // inner if samples is None else samples
    # Two pairs a background are the least that tells an error.
    pairs = max(2, math.ceil(orders / (2 * m)))
    if d <= _MOST_LISTED and (2**d - 2) * m <= 2 * pairs * m * inner:
        return _listed(game, players, score, starts), np.zeros(d)
    return _sampled(game, players, score, starts, pairs, seed)


def _listed(game: Game, players: NDArray[np.intp], score: float, starts: Floats) -> Floats:
    """Return the exact values, from the scores of all coalitions."""
    d, m = len(players), len(starts)
    member = (np.arange(2**d)[:, None] >> np.arange(d) & 1).astype(bool)
    worth = np.empty((m, 2**d))
    worth[:, 0], worth[:, -1] = starts, score
    if d > 1:
        keep = np.zeros((m * (2**d - 2), len(game.names)), np.bool_)
        keep[:, players] = np.tile(member[1:-1], (m, 1))
        worth[:, 1:-1] = game.value(keep, np.repeat(np.arange(m), 2**d - 2)).reshape(m, -1)
    mean = game.weights @ worth
    size = member.sum(axis=1)
    share = np.array([1.0 / (d * math.comb(d - 1, s)) for s in range(d)])
    without = [np.flatnonzero(~member[:, j]) for j in range(d)]
    return np.array([share[size[at]] @ (mean[at + 2**j] - mean[at]) for j, at in enumerate(without)])


def _sampled(
    game: Game, players: NDArray[np.intp], score: float, starts: Floats, pairs: int, seed: int
) -> tuple[Floats, Floats]:
    """Return estimates from pairs of opposite orders for each background, and their standard errors."""
    d, m = len(players), len(starts)
    rng = np.random.default_rng(seed)
    forth = rng.permuted(np.tile(np.arange(d), (m, pairs, 1)), axis=2)
    orders = np.stack([forth, forth[..., ::-1]], axis=2)  # (m, pairs, 2, d)
    rank = np.argsort(orders, axis=-1)
    flat = rank.reshape(-1, 1, d) < np.arange(1, d)[:, None]  # (orders, d - 1, d): the first t players
    keep = np.zeros((flat.shape[0] * (d - 1), len(game.names)), np.bool_)
    keep[:, players] = flat.reshape(-1, d)
    which = np.repeat(np.arange(m), 2 * pairs * (d - 1))
    worth = np.empty((m, pairs, 2, d + 1))
    worth[..., 0], worth[..., -1] = starts[:, None, None], score
    worth[..., 1:-1] = game.value(keep, which).reshape(m, pairs, 2, d - 1)
    gains = np.empty((m, pairs, 2, d))
    np.put_along_axis(gains, orders, np.diff(worth, axis=-1), axis=-1)
    each = gains.mean(axis=2)  # one estimate a pair
    errors = np.sqrt(game.weights**2 @ (each.var(axis=1, ddof=1) / pairs))
    return game.weights @ each.mean(axis=1), errors
