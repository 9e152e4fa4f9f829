"""Choose a detector and its settings without labels: by anomalies made from normal data, and groups left out of it."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.base import clone

from genad.applications.detection import DEFAULTS, make_detector
from genad.applications.reading import read
from genad.applications.selection_budget import Budget, inner_of, price, shortened
from genad.applications.selection_clock import measured_work
from genad.applications.selection_groups import trials_without_a_group
from genad.applications.selection_race import LEAST, Entrant, Race
from genad.applications.selection_trials import UNSEEN, difference, make_trial
from genad.core.detector import Detector
from genad.core.windows import Windowed
from genad.data.kinds import Kind
from genad.errors import InputError, InputTypeError

__all__ = ["Selection", "select"]

#: Methods and settings that are compared when none are named, after the default of the kind; the likeliest first.
CANDIDATES: dict[Kind, tuple[tuple[str, dict[str, Any]], ...]] = {
    Kind.TABLE: (
        ("nearest_memory", {"neighbours": 5}),
        ("ppca", {}),
        ("denoising_autoencoder", {}),
        ("flow", {}),
        ("vae", {}),
        ("autoencoder", {}),
        ("dte", {}),
        ("dsebm", {}),
        ("neighbour_regression", {}),
    ),
    Kind.SERIES: (
        ("ppca", {}),
        ("nearest_memory", {"neighbours": 3}),
        ("denoising_autoencoder", {}),
        ("series_committee", {"window": 128}),
        ("ppca", {"window": 128}),
        ("autoencoder", {}),
        ("vae", {}),
    ),
}

# Standard errors that a candidate has to be ahead of the default by, when groups were left out.
_AHEAD = 0.5


@dataclass(frozen=True, repr=False)
class Selection:
    """The detector chosen, and why.

    Attributes
    ----------
    detector : Detector
        Not fitted, with its full training: fit it on all data.
    method : str
        The choice in words, for instance ``"nearest_memory(neighbours=5)"``.
    is_default : bool
        Whether it is what genad would have taken anyway.
    reason : str
        Why, for the user to read.
    kinds : tuple of str
        The kinds of anomaly that were made, and groups of rows that were left out.
    candidates : list of dict
        One a candidate, the best first: ``method``, ``score`` (mean AUROC over the kinds, less half its spread between
        them), ``auroc`` by kind, ``ahead`` of the default by so much mean AUROC, with the standard ``error`` of that,
        ``share`` of its training and data it was judged after, ``round`` it last took part in, ``seconds`` in all
        rounds, and ``note``.
    work : int
        Updates that the budget came to: ``budget=f"{work} updates"`` gives the same choice on any machine, unless a
        candidate that scores slowly was left out, or cost others their training, for the time that takes.
    seconds : float
        Wall-clock time.
    """

    detector: Detector
    method: str
    is_default: bool
    reason: str
    kinds: tuple[str, ...] = ()
    candidates: list[dict[str, Any]] = field(default_factory=list)
    work: int = 0
    seconds: float = 0.0

    def __repr__(self) -> str:
        return f"Selection({self.method}: {self.reason})"


def select(
    X: Any,
    kind: Kind | str | None = None,
    budget: str | float = "60s",
    candidates: Sequence[str | Detector | tuple[str, dict[str, Any]]] | None = None,
    random_state: int = 0,
) -> Selection:
    """Choose a detector and its settings for a table or a series, without labels.

    Part of the data is held out, and anomalies of several kinds are made from it: for tables local, global, clustered
    and dependency anomalies (:class:`~genad.synthesis.TabularAnomalies`), for series points, global and contextual,
    unusual shapes, seasons and trends (:class:`~genad.synthesis.SeriesTaxonomy`) and pieces of other times
    (:class:`~genad.synthesis.CutAddPaste`). Candidates learn from the rest; what counts is the AUROC by which each
    tells the anomalies from the normals, every kind of anomaly the same. The rows of a table are also cut into groups,
    and candidates learn without one of them, up to six times, and have to tell it from the held-out rest: what is left
    out counts one half, what is made up the other. When the budget does not pay the full training of all in all trials,
    they get less of it and of the data; when it does not pay half of it, fewer groups are left out, and half of it is
    the most they get. When candidates are so many that the last ones gain by it, up to three rounds are run, of which
    the better half goes on. With more work those of the last round are never trained less, from where it is enough for
    all candidates to take part.
    The default stays in the race throughout, and is kept unless another one is ahead of it by more than half the
    standard error of the comparison; where no groups are left out, and made-up anomalies decide alone, by more than the
    standard error times ``sqrt(2 log m)`` when there are m others, for the best of many is ahead by chance alone.

    Parameters
    ----------
    X : array, dataframe, Table, Series or path
        Mostly normal data; see :func:`genad.read`.
    kind : {"table", "series"}, optional
        Decided by the data when absent.
    budget : str or float
        Time, as ``"60s"``, ``"2m"`` or seconds, of all fits and scores; or work, as ``"4096 updates"`` of a plain
        autoencoder, which counts training, and for fit and score beside it 100 updates a candidate, however slowly it
        scores.
    candidates : sequence, optional
        Names of detectors, pairs of a name and its parameters, or detectors, compared with the default; a list of
        genad's own when absent. Of a detector that wraps others, these are priced and shortened.
    random_state : int
        Seed of the split, the anomalies and the training, at least 0.

    Returns
    -------
    Selection
        When nothing can be compared, in the budget or with so few data, the default, and the reason.

    Raises
    ------
    InputError
        For data that are neither table nor series or that even the default cannot be fitted to, an unusable budget,
        or an unusable candidate.

    Notes
    -----
    What is deterministic: with a budget of work the choice depends on data, candidates and seed alone. With a budget of
    time the clock is read once, on a short training and on each candidate's scores of a few rows, to turn time into
    work, rounded down to a power of two, and slow scoring into what it costs, rounded up to one; the same choice then
    follows every time these come to the same powers. A candidate whose scoring alone is too slow is left out. Should
    the machine slow down so much that the time is over before the work is done, nothing further is started, the last
    complete round decides, and the reason says so.

    When it fails: what is made, or left out, may be unlike what happens. A candidate that is good at it and bad at real
    anomalies is not found out, and anomalies in ``X`` count as normal. On the 14 ADBench tables (3 seeds) it takes
    another candidate than the default in 2 of 42 cases and is ahead of it in both: mean AUROC/AP 0.9585/0.874, of
    always the default 0.9582/0.873, of always 5-NN 0.9537/0.858, of the candidate that labels would have chosen
    0.9620/0.889. In a trial there (with an earlier default) what is made up alone would have chosen badly (0.941), and
    groups left out alone little better (0.955): the order of the candidates by the first has nothing to do with the
    real one (mean rank correlation 0.00), by the second something (0.42), but they are seldom wrong together. The
    number of groups and the half error were settled with these figures in sight. On one recording of each of seven sets
    of series the default is kept every time: mean AUROC 0.837, always 3-NN 0.815, the oracle 0.898. In trials on eight
    to thirteen recordings events of 20 and of 100 steps, levels, flat lines and noise among them, chose worse than
    always the default, and so did regimes of a series that were left out. The defaults are hard to beat; what the table
    of candidates does tell is which kinds of anomaly each of them sees.

    Examples
    --------
    >>> import numpy as np, genad
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(400, 2)) @ rng.normal(size=(2, 8)) + 0.01 * rng.normal(size=(400, 8))
    >>> chosen = select(X, budget="3000 updates", candidates=["ppca"])
    >>> chosen.method, chosen.kinds
    ('table_committee', ('local', 'global', 'cluster', 'dependency', 'unseen group 1'))
    """
    begin = time.perf_counter()
    limits = Budget.parse(budget)
    if isinstance(random_state, bool) or not isinstance(random_state, int | np.integer):
        raise InputTypeError(f"random_state: {random_state!r} was given; use a whole number.")
    if random_state < 0:
        raise InputError(f"random_state: {random_state!r} was given; use a whole number of at least 0.")
    seed = int(random_state)
    data = read(X, kind=kind)
    if data.kind not in CANDIDATES:
        raise InputError(f"X: a {data.kind.value} was given; select takes a table or a series.")
    entrants = _entrants(data.kind, candidates, seed)
    default = entrants[0]
    if len(entrants) == 1:
        _check_default(default, data.X)
        return _kept(default, "the candidates name nothing else", begin, None, entrants)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of small calibration sets and gaps: the user hears of them in the fit
        try:
            trial = make_trial(data.X, data.kind, seed)
        except InputError as error:
            _check_default(default, data.X)
            return _kept(default, f"nothing could be compared: {error}", begin)
        for entrant in entrants:
            entrant.price = price(entrant.detector, trial.size)
        work = limits.work
        if work is None:
            assert limits.seconds is not None  # noqa: S101 - one of the two is given
            work = measured_work(limits.seconds, trial, entrants, seed)
        end = math.inf if limits.seconds is None else begin + limits.seconds
        race = Race([trial, *trials_without_a_group(trial, seed)], work, end, seed)
        finalists = race.run(entrants)
    if not finalists:
        # Whoever cannot fit the default either had better hear of it now; a fit of few updates tells.
        _check_default(default, trial.part(0.0, seed, LEAST))
        why = "the clock ran out before one round was complete" if race.late else "it is too small to compare anything"
        return _kept(default, f"the budget of {budget} is spent on nothing: {why}", begin, race, entrants)
    return _decided(default, finalists, race, entrants, begin)


def _entrants(kind: Kind, candidates: Any, seed: int) -> list[Entrant]:
    """Return the default and the candidates, each once."""
    given = CANDIDATES[kind] if candidates is None else candidates
    if isinstance(given, str | Detector) or not isinstance(given, Sequence):
        raise InputTypeError(
            f"candidates: {given!r} was given; use a list of names, (name, parameters) pairs or detectors."
        )
    if not given:
        raise InputError(
            "candidates: an empty list was given; name at least one detector to compare with the default, or leave the "
            "argument out for genad's own list."
        )
    entrants: list[Entrant] = []
    for candidate in ((DEFAULTS[kind], {}), *given):
        detector = _made(kind, candidate).set_params(random_state=seed)
        inner_of(detector)._check_parameters()  # noqa: SLF001 - before the budget is spent
        label = _label(detector)
        if all(entrant.label != label for entrant in entrants):
            entrants.append(Entrant(detector, label, 0.0))
    return entrants


def labelled_candidates(kind: Kind, candidates: Any = None, random_state: int = 0) -> dict[str, Detector]:
    """Return the default and the candidates, not fitted, under the names that a :class:`Selection` gives them.

    Examples
    --------
    >>> list(labelled_candidates(Kind.TABLE, ["ppca", ("nearest_memory", {"neighbours": 5})]))
    ['table_committee', 'ppca', 'nearest_memory(neighbours=5)']
    """
    return {entrant.label: entrant.detector for entrant in _entrants(kind, candidates, random_state)}


def _made(kind: Kind, candidate: Any) -> Detector:
    if isinstance(candidate, Detector):
        detector: Detector = clone(candidate)
    elif isinstance(candidate, str):
        detector = make_detector(kind, candidate, {})
    elif isinstance(candidate, tuple) and len(candidate) == 2 and isinstance(candidate[0], str):
        name, params = candidate
        settings = dict(params)
        detector = make_detector(kind, name, settings, window=settings.pop("window", None))
    else:
        raise InputTypeError(
            f"candidates: {candidate!r} was given; use a name, a (name, parameters) pair or a detector."
        )
    if kind is Kind.SERIES and detector.reads_as is None and Kind.SERIES not in detector.card.kinds:
        detector = Windowed(detector)
    if kind not in detector.card.kinds:
        accepted = ", ".join(each.value for each in detector.card.kinds)
        raise InputError(f"candidates: {detector.name} takes {accepted}, and the data are a {kind.value}.")
    return detector


def _label(detector: Detector) -> str:
    """Name a detector and the settings that differ from its defaults; the seed is the same for all."""
    inner = inner_of(detector)
    plain = type(inner)().get_params(deep=False)
    told = {key: value for key, value in inner.get_params(deep=False).items() if key != "random_state"}
    told = {key: value for key, value in told.items() if repr(value) != repr(plain.get(key))}
    if inner is not detector and detector.get_params(deep=False)["window"] is not None:
        told["window"] = detector.get_params(deep=False)["window"]
    settings = ", ".join(f"{key}={value!r}" for key, value in told.items())
    return f"{inner.name}({settings})" if settings else str(inner.name)


def _check_default(default: Entrant, X: Any) -> None:
    """Fit the default briefly, so that data it cannot be fitted to are refused here, by its own message."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a short fit of few data is full of advice
        shortened(default.detector, 1e-9, max(1, len(X)), 0).fit(X)


def _kept(
    default: Entrant, why: str, begin: float, race: Race | None = None, entrants: Sequence[Entrant] = ()
) -> Selection:
    kinds = () if race is None else race.kinds
    work = 0 if race is None else race.work
    reason = f"the default, for {why}"
    table = [_row(entrant, default) for entrant in entrants]
    return Selection(
        default.detector, default.label, True, reason, kinds, table, work, time.perf_counter() - begin
    )  # fmt: skip


def _decided(
    default: Entrant, finalists: list[Entrant], race: Race, entrants: list[Entrant], begin: float
) -> Selection:
    """Take the best finalist that is clearly ahead of the default, or else the default."""
    assert default.marks is not None  # noqa: S101 - finalists were judged, and the default is one of them
    kinds = race.kinds
    best, lead, margin = default, (0.0, 0.0), errors_ahead(len(entrants) - 1, kinds)
    ranked = sorted(finalists, key=lambda entrant: -entrant.score)
    for entrant in ranked:
        if entrant is default or entrant.marks is None or entrant.score <= default.score:
            continue
        ahead, error = difference(entrant.marks, default.marks)
        if ahead > margin * error:
            best, lead = entrant, (ahead, error)
            break
    compared = f"on {_said(kinds)}"
    if best is default:
        first = ranked[0]
        reason = f"the default, for none of {len(finalists) - 1} others is clearly ahead of it {compared}"
        if first is not default and first.marks is not None:
            ahead, error = difference(first.marks, default.marks)
            reason += f"; {first.label} comes nearest, {ahead:+.3f} mean AUROC with a standard error of {error:.3f}"
    else:
        gains = {k: best.marks.auroc[k] - default.marks.auroc[k] for k in kinds} if best.marks else {}
        most = max(gains, key=lambda k: gains[k])
        reason = (
            f"ahead of the default {default.label} by {lead[0]:.3f} mean AUROC (standard error {lead[1]:.3f}) "
            f"{compared}, most of all on {most} ({gains[most]:+.3f})"
        )
    if race.late:
        reason += "; the clock ran out, so the last complete round decided"
    table = [_row(entrant, default) for entrant in sorted(entrants, key=lambda e: (-e.round, -e.score))]
    return Selection(
        best.detector, best.label, best is default, reason, kinds, table, race.work, time.perf_counter() - begin
    )  # fmt: skip


def _said(kinds: Sequence[str]) -> str:
    """Say what candidates were compared on."""
    made = [kind for kind in kinds if not kind.startswith(UNSEEN)]
    groups = len(kinds) - len(made)
    unseen = f" and {groups} unseen group{'s' if groups > 1 else ''} of rows" if groups else ""
    return f"{len(made)} kinds of made-up anomalies ({', '.join(made)}){unseen}"


def errors_ahead(others: int, kinds: Sequence[str]) -> float:
    """Return by how many standard errors one of several others has to be ahead of the default.

    As far as chance takes the best of them, when all anomalies are made up: these say little of real ones. Groups that
    were left out say more, and half an error keeps the default where nothing speaks against it.

    Examples
    --------
    >>> errors_ahead(1, ["local"]), round(errors_ahead(10, ["local"]), 2), errors_ahead(10, ["local", "unseen group 1"])
    (1.0, 2.15, 0.5)
    """
    if any(kind.startswith(UNSEEN) for kind in kinds):
        return _AHEAD
    return max(1.0, math.sqrt(2 * math.log(max(1, others))))


def _row(entrant: Entrant, default: Entrant) -> dict[str, Any]:
    row: dict[str, Any] = {"method": entrant.label, "score": None, "auroc": {}, "ahead": None, "error": None}
    if entrant.marks is not None:
        row["score"] = round(entrant.score, 4)
        row["auroc"] = {kind: round(value, 4) for kind, value in entrant.marks.auroc.items()}
        if default.marks is not None and entrant.round == default.round:
            ahead, error = difference(entrant.marks, default.marks)
            row |= {"ahead": round(ahead, 4), "error": round(error, 4)}
    return row | {
        "share": round(entrant.share, 4), "round": entrant.round, "seconds": round(entrant.seconds, 2),
        "note": entrant.note,
    }  # fmt: skip
