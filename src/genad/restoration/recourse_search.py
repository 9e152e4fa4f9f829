"""The search for small changes: every row with every target at once, by batched calls of the detector."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genad.core.detections import jsonable
from genad.core.detector import Detector
from genad.data.columns import Column, ColumnKind
from genad.data.table import Table, as_table, listing
from genad.errors import InputError
from genad.restoration.recourse_terms import Action, Change, Recourse

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# Restorations in a row that may serve as targets, and nearest normal rows.
_HEALINGS, _NEIGHBOURS = 3, 3
# Suspicious features that are hidden for a target, one more each time, fewer than this many.
_HIDDEN = 4
# Features that the search adds one by one before it takes all of them and leaves out what is not needed.
_SHARE, _FEWEST = 0.3, 5
# Points of a line search, and of its refinement.
_COARSE, _FINE = 16, 8


class Search:
    """All rows and all their targets at once: a problem is one row with one target.

    A state of a problem is one number a feature, from 0 (as observed) to 1 (as in the target); a number lies that far
    on the way, a category or a missing cell changes for any number above 0.
    """

    def __init__(
        self, detector: Any, given: Table, rules: dict[str, Action], scales: dict[str, float], goals: Floats
    ) -> None:
        self.detector, self.given, self.rules, self.scales, self.goals = detector, given, rules, scales, goals
        self.names = list(rules)
        self.kinds = given.kinds

    # -------------------------------------------------------------- targets

    def aim(self, normal: Table | None) -> None:
        """Choose the targets, and with them the cost of each change."""
        targets = []
        at = self.given
        for _ in range(_HEALINGS):
            at = self._kept(renamed(as_table(self.detector.restore(at)), at))
            targets.append(at)
        # What the detector expects of the others where its map is highest for the cost, and of what may not change.
        where = np.asarray(self.detector.anomaly_map(self.given), np.float64)
        where = where[:, [self.given.names.index(name) for name in self.names]]
        where = where / np.array([self.rules[name].cost for name in self.names])
        rank = np.argsort(np.argsort(-where, axis=1, kind="stable"), axis=1)
        targets += [
            self._expected(rank < k) for k in sorted({*range(1, min(_HIDDEN, len(self.names))), len(self.names)})
        ]
        if normal is not None:
            targets += self._neighbours(normal)
        n = len(self.given)
        self.owner = np.tile(np.arange(n), len(targets))
        self.goal = self.goals[self.owner]
        self.own = {name: self.given.column(name)[self.owner] for name in self.names}
        joined = {name: np.concatenate([_loose(t.column(name)) for t in targets]) for name in self.names}
        self.target = {name: self._allowed(name, self.own[name], joined[name]) for name in self.names}
        cost = [self._cost(name, self.own[name], self.target[name]) for name in self.names]
        self.cost = np.stack(cost, axis=1)
        self.gradual = np.stack(
            [
                np.full(len(self.owner), False)
                if self.kinds[name] is not ColumnKind.NUMERIC
                else ~np.isnan(self.own[name].astype(np.float64))
                for name in self.names
            ],
            axis=1,
        )
        self.can = self.cost > 0

    def _kept(self, restored: Table) -> Table:
        """Put what may not change back into restored rows."""
        columns = {
            name: Column(restored.column(name), self.kinds[name]) if name in self.rules else self.given[name]
            for name in self.given.names
        }
        return Table(columns, named=self.given.named)

    def _expected(self, hidden: Bools) -> Table:
        """Return the rows with what the detector expects in the hidden cells (rows, features) of the others."""
        at = self._with(hidden, None)
        # One restoration answers to blanks, the next ones to the answer: this closes in on what goes with the others.
        for _ in range(1 + _HEALINGS):
            at = self._with(hidden, renamed(as_table(self.detector.restore(at)), self.given))
        return at

    def _with(self, hidden: Bools, filled: Table | None) -> Table:
        """Return the rows with other cells, or missing ones, in the hidden places."""
        columns = {name: self.given[name] for name in self.given.names}
        for j, name in enumerate(self.names):
            cells, kind, at = columns[name].values, self.kinds[name], hidden[:, j]
            if not at.any():
                continue
            loose = cells.astype(object if kind is ColumnKind.CATEGORICAL else np.float64)
            loose[at] = (None if loose.dtype == object else np.nan) if filled is None else filled.column(name)[at]
            columns[name] = Column(loose, kind)
        return Table(columns, named=self.given.named)

    def _neighbours(self, normal: Table) -> list[Table]:
        """Return the nearest normal rows by the cost of getting there."""
        far = np.zeros((len(self.given), len(normal)))
        for name in self.names:
            own, other = self.given.column(name), normal.column(name)
            pair = np.repeat(own, len(other)), np.tile(other, len(own))
            far += self._cost(name, *pair).reshape(far.shape)
        near = np.argsort(far, axis=1, kind="stable")[:, :_NEIGHBOURS]
        return [self._kept(normal.take(near[:, k])) for k in range(near.shape[1])]

    def _allowed(self, name: str, own: NDArray[Any], target: NDArray[Any]) -> NDArray[Any]:
        """Return targets within bounds and direction; where there is no such way, the observed value."""
        if self.kinds[name] is not ColumnKind.NUMERIC:
            return target
        rule, here = self.rules[name], own.astype(np.float64)
        there = np.clip(target.astype(np.float64), rule.low, rule.high)
        there = np.where(np.isnan(there), here, there)
        if rule.integer:
            there = np.clip(np.round(there), math.ceil(max(rule.low, -1e300)), math.floor(min(rule.high, 1e300)))
        wrong = (there < here) & (rule.direction == "up") | (there > here) & (rule.direction == "down")
        return np.where(wrong, here, there)

    def _cost(self, name: str, own: NDArray[Any], target: NDArray[Any]) -> Floats:
        rule = self.rules[name]
        if self.kinds[name] is not ColumnKind.NUMERIC:
            same = np.array([_same(a, b) for a, b in zip(own, target, strict=True)], np.bool_)
            return np.where(same, 0.0, rule.cost)
        here, there = own.astype(np.float64), target.astype(np.float64)
        way, scale = np.abs(there - here), self.scales[name]
        # To fill in a missing number counts as one standard deviation, and so does a number without one.
        steps = way / scale if np.isfinite(scale) and scale > 0 else (way > 0).astype(np.float64)
        steps = np.where(np.isnan(steps), (np.isnan(here) != np.isnan(there)).astype(np.float64), steps)
        return rule.cost * steps

    # -------------------------------------------------------------- states

    def rows(self, state: Floats, which: NDArray[np.intp]) -> Table:
        """Return the rows of problems ``which`` in the states given."""
        columns: dict[str, Column] = {}
        given = self.given.take(self.owner[which])
        for name in given.names:
            columns[name] = given[name]
            if name not in self.rules:
                continue
            j, rule = self.names.index(name), self.rules[name]
            own, target, part = self.own[name][which], self.target[name][which], state[:, j]
            if self.kinds[name] is ColumnKind.NUMERIC:
                here, there = own.astype(np.float64), target.astype(np.float64)
                way = part * (there - here)
                if rule.integer:
                    way = np.sign(way) * np.ceil(np.abs(way) - 1e-9)
                moved = np.where(np.isnan(here), there, np.where(part == 1, there, here + way))
                moved = np.clip(moved, rule.low, rule.high)
                columns[name] = Column(np.where(part > 0, moved, here), ColumnKind.NUMERIC)
            else:
                mixed = np.where(part > 0, _loose(target), _loose(own))
                columns[name] = Column(mixed, self.kinds[name])
        return Table(columns, named=self.given.named)

    def score(self, state: Floats, which: NDArray[np.intp]) -> Floats:
        """Return the scores of states."""
        return np.asarray(self.detector.anomaly_score(self.rows(state, which)), np.float64)

    def price(self, state: Floats, which: NDArray[np.intp] | None = None) -> Floats:
        """Return what each state costs."""
        here = slice(None) if which is None else which
        return (np.where(self.gradual[here], state, state > 0) * self.cost[here]).sum(axis=1)

    def _try(self, state: Floats, open_: Bools, value: float) -> Floats:
        """Return the scores (problems, features) with one open feature set to a value; infinite where not open."""
        found = np.full(open_.shape, np.inf)
        p, j = np.nonzero(open_)
        if len(p):
            tried = state[p].copy()
            tried[np.arange(len(p)), j] = value
            found[p, j] = self.score(tried, p)
        return found

    # -------------------------------------------------------------- steps

    def run(self, most: int | None) -> tuple[Floats, Floats]:
        """Return the last state of each problem and its score."""
        count, d = self.cost.shape
        state = np.zeros((count, d))
        reached = self.score(state, np.arange(count))
        rounds = min(d, most or max(_FEWEST, math.ceil(_SHARE * d)))
        for _ in range(rounds):
            open_ = self.can & (state == 0) & (reached > self.goal)[:, None]
            if not open_.any():
                break
            tried = self._try(state, open_, 1.0)
            passing = tried <= self.goal[:, None]
            gain = np.where(open_, reached[:, None] - tried, -np.inf) / np.where(open_, self.cost, 1.0)
            gain[~open_] = -np.inf
            cheapest = np.where(passing, self.cost, np.inf).argmin(axis=1)
            choice = np.where(passing.any(axis=1), cheapest, gain.argmax(axis=1))
            at = np.flatnonzero(open_.any(axis=1))
            state[at, choice[at]] = 1.0
            reached[at] = tried[at, choice[at]]
        missed = np.flatnonzero(reached > self.goal)
        if most is None and len(missed):
            whole = self.can[missed].astype(np.float64)
            final = self.score(whole, missed)
            better = final < reached[missed]
            state[missed[better]], reached[missed[better]] = whole[better], final[better]
        self._prune(state, reached)
        self._shorten(state, reached)
        return state, reached

    def _prune(self, state: Floats, reached: Floats) -> None:
        """Take back changes that are not needed, the dearest first."""
        for _ in range(state.shape[1]):
            open_ = (state > 0) & (reached <= self.goal)[:, None]
            tried = self._try(state, open_, 0.0)
            passing = tried <= self.goal[:, None]
            spared = np.where(passing, self.cost, -np.inf)
            choice, at = spared.argmax(axis=1), np.flatnonzero(passing.any(axis=1))
            if not len(at):
                return
            state[at, choice[at]] = 0.0
            reached[at] = tried[at, choice[at]]

    def _shorten(self, state: Floats, reached: Floats) -> None:
        """Move numbers no further than needed: all together first, then each by itself, the dearest first."""
        numbers = self.gradual & (state > 0)
        self._line(state, reached, numbers, np.arange(1, _COARSE + 1) / _COARSE)
        self._line(state, reached, numbers, 1.0 - np.arange(_FINE)[::-1] / (_COARSE * _FINE))
        order = np.argsort(-np.where(numbers, state * self.cost, 0.0), axis=1, kind="stable")
        for k in range(int(numbers.sum(axis=1).max(initial=0))):
            one = np.zeros_like(numbers)
            one[np.arange(len(one)), order[:, k]] = True
            self._line(state, reached, one & numbers, np.arange(_FINE + 1) / _FINE)

    def _line(self, state: Floats, reached: Floats, moving: Bools, parts: Floats) -> None:
        """Shrink the moving features of solved problems to the smallest of ``parts`` that keeps them solved."""
        at = np.flatnonzero((reached <= self.goal) & moving.any(axis=1))
        if not len(at):
            return
        shrunk = np.where(moving[at, None, :], state[at, None, :] * parts[:, None], state[at, None, :])
        found = self.score(shrunk.reshape(-1, shrunk.shape[-1]), np.repeat(at, len(parts))).reshape(len(at), -1)
        passing = found <= self.goal[at, None]
        first, some = passing.argmax(axis=1), passing.any(axis=1)
        solved = np.flatnonzero(some)
        state[at[solved]] = shrunk[solved, first[solved]]
        reached[at[solved]] = found[solved, first[solved]]

    # -------------------------------------------------------------- answers

    def answers(
        self,
        wanted: NDArray[np.intp],
        scores: Floats,
        threshold: float,
        state: Floats,
        reached: Floats,
        judge: Detector | None,
    ) -> list[Recourse]:
        """Return the cheapest solution of each row, or what came nearest."""
        n = len(self.given)
        price = self.price(state).reshape(-1, n)
        solved = (reached <= self.goal).reshape(-1, n)
        dear = np.where(solved, price, np.inf)
        pick = np.where(solved.any(axis=0), dear.argmin(axis=0), reached.reshape(-1, n).argmin(axis=0))
        which = pick * n + np.arange(n)
        final = self.rows(state[which], which)
        judged = None if judge is None else judge.p_value(final)
        # A number that rounding left where it was is no change.
        costs = {name: self._cost(name, self.given.column(name), final.column(name)) for name in self.names}
        found = []
        for k, p in enumerate(which.tolist()):
            changes = [
                Change(
                    name, jsonable(self.given.column(name)[k]), jsonable(final.column(name)[k]), float(costs[name][k])
                )
                for name in self.names
                if costs[name][k] > 0
            ]
            changes.sort(key=lambda change: -change.cost)
            good = bool(reached[p] <= self.goal[p])
            reason = "" if good else self._reason(float(reached[p]), float(self.goal[p]), len(changes))
            found.append(
                Recourse(
                    index=int(wanted[k]),
                    found=good,
                    score=float(scores[k]),
                    new_score=float(reached[p]),
                    threshold=threshold,
                    goal=float(self.goal[p]),
                    changes=tuple(changes),
                    cost=math.fsum(change.cost for change in changes),
                    row={name: jsonable(final.column(name)[k]) for name in final.names},
                    p_value=None if judged is None else float(judged[k]),
                    reason=reason,
                )
            )
        return found

    def _reason(self, lowest: float, goal: float, count: int) -> str:
        held = [name for name in self.given.names if name not in self.rules]
        kept = f" with {listing(held)} held" if held else ""
        return (
            f"no change was found{kept} that brings the score to {goal:.4g}; the lowest reached is {lowest:.4g}, "
            f"by changing {count} of {len(self.names)} features."
        )


def _loose(cells: NDArray[Any]) -> NDArray[Any]:
    """Return text as objects, so that cells of different lengths can be mixed."""
    return cells.astype(object) if cells.dtype.kind in "OUS" else cells


def _same(a: Any, b: Any) -> bool:
    """Say whether two cells are equal; missing cells are."""
    lacks = a is None or a != a, b is None or b != b
    return all(lacks) if any(lacks) else bool(a == b)


def renamed(found: Table, like: Table) -> Table:
    """Return columns under the names of ``like`` when a detector or an array knows them by their places only."""
    if set(like.names) <= set(found.names):
        return found.select(like.names)
    if len(found.names) != len(like.names):
        raise InputError(f"normal: columns {listing(found.names)} were given; use those of X, {listing(like.names)}.")
    return Table({name: found[other] for name, other in zip(like.names, found.names, strict=True)}, named=like.named)
