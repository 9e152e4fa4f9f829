"""One contract for every registered detector: what the suite runs over, and the data it runs on.

A method registered tomorrow is picked up by itself. Only a class that cannot be constructed without arguments, or
that reads its data in a form of its own, needs a line in ``EXAMPLES``.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genad.committee.image_committee import ImageCommittee
from genad.core.calibration import BestF, Conformal
from genad.core.committee import Committee
from genad.core.detector import Detector
from genad.core.ensemble import Ensemble
from genad.core.grouped import Grouped
from genad.core.registry import registered
from genad.core.training import Training
from genad.core.windows import Windowed
from genad.data.kinds import Kind
from genad.density.explicit.fast_flow import FastFlow
from genad.density.explicit.padim import PaDiM
from genad.density.explicit.ppca import PPCA
from genad.density.explicit.supervised_ade import SupervisedADE
from genad.density.implicit.feature_memory import FeatureMemory
from genad.density.implicit.likelihood_regret import LikelihoodRegret
from genad.density.implicit.odim import ODIM
from genad.density.implicit.patch_memory import PatchMemory
from genad.density.implicit.score_sde import ScoreSDE
from genad.errors import GenadWarning
from genad.reconstruction.autoencoder.autoencoder import Autoencoder
from genad.reconstruction.autoencoder.rae_ensemble import RecurrentAEEnsemble
from genad.reconstruction.diffusion.ano_ddpm import AnoDDPM
from genad.reconstruction.gan.ano_gan import AnoGAN
from genad.reconstruction.gan.mad_gan import MADGAN
from genad.representation import prompting
from genad.representation.llm.aesop import AESOP
from genad.representation.llm.dabl import DABL
from genad.restoration.csdi import CSDIRestorer
from genad.restoration.repaint import RePaint

# Enough to tell a gross anomaly from a normal sample, and quick enough to fit every method many times.
QUICK = Training(updates=40)
# A fit that only has to run.
BRIEF = Training(updates=4)
# Enough to know where in a session the anomaly is.
LONGER = Training(updates=120, lr=1e-2)


def _with_group(array: np.ndarray) -> dict[str, np.ndarray]:
    """Turn rows into a table with a column that names the group, decided by the row itself."""
    columns = {f"x{j}": array[:, j] for j in range(array.shape[1])}
    first = np.nan_to_num(np.asarray(array[:, 0], np.float64), nan=TABLE_CENTRE[0])
    return columns | {"entity": np.where(first > TABLE_CENTRE[0], "high", "low")}


def _with_entity(array: np.ndarray) -> dict[str, np.ndarray]:
    """Turn a series into two entities, one after the other."""
    columns = {f"x{j}": array[:, j] for j in range(array.shape[1])}
    return columns | {"entity": np.where(np.arange(len(array)) < len(array) / 2, "first", "second")}


@dataclass(frozen=True)
class Example:
    """How to make a detector that needs arguments, by the kind of data, and what form of the data it reads."""

    make: Callable[[Kind], Detector]
    wrap: dict[Kind, Callable[[np.ndarray], Any]] | None = None


EXAMPLES = {
    "committee": Example(lambda kind: Committee((Autoencoder(training=QUICK), PPCA()))),
    "ensemble": Example(lambda kind: Ensemble(Autoencoder(), n=3)),
    # Two steps of its equation, not ten: their number changes the precision of a likelihood and nothing else here.
    "score_sde": Example(lambda kind: ScoreSDE(steps=2)),
    # A few steps of each sample's search: their number changes how far it gets and nothing else here.
    "likelihood_regret": Example(lambda kind: LikelihoodRegret(draws=8, steps=3)),
    # A small denoiser and few draws, which take the same paths.
    "csdi": Example(lambda kind: CSDIRestorer(width=8, heads=2, layers=1, draws=4, strides=3)),
    # Fewer networks to agree, and fewer orders of the columns: the suite asks for gross anomalies only.
    "odim": Example(lambda kind: ODIM(restarts=3, particles=4)),
    "supervised_ade": Example(lambda kind: SupervisedADE(orders=2)),
    # Fewer and shorter searches of the latent space, and fewer steps of what removes noise.
    "ano_gan": Example(lambda kind: AnoGAN(inversion_steps=20)),
    "mad_gan": Example(lambda kind: MADGAN(inversion_steps=20)),
    "repaint": Example(lambda kind: RePaint(steps=2, draws=1)),
    "ano_ddpm": Example(lambda kind: AnoDDPM(steps=3, draws=1)),
    "rae_ensemble": Example(lambda kind: RecurrentAEEnsemble(members=3)),
    # A quarter of the places in an image to describe.
    "fast_flow": Example(lambda kind: FastFlow(resolution=64)),
    "feature_memory": Example(lambda kind: FeatureMemory(resolution=64)),
    "padim": Example(lambda kind: PaDiM(resolution=64)),
    "patch_memory": Example(lambda kind: PatchMemory(resolution=64)),
    "image_committee": Example(lambda kind: ImageCommittee(resolution=64)),
    "windowed": Example(lambda kind: Windowed(Autoencoder())),
    "grouped": Example(
        lambda kind: Grouped(Windowed(Autoencoder()) if kind is Kind.SERIES else Autoencoder()),
        {Kind.TABLE: _with_group, Kind.SERIES: _with_entity},
    ),
    # The fast stage and the verdict are what every detector promises; what a model says of alarms is no part of it.
    "aesop": Example(lambda kind: AESOP(reasoner=False)),
    "dabl": Example(lambda kind: DABL(width=16, layers=1, causes=False)),
}

# Detectors whose training cannot be shortened, or that train several times, run on the kinds they are meant for alone.
COSTLY = {
    "table_committee": (Kind.TABLE,),
    "score_sde": (Kind.TABLE, Kind.WINDOW),
    "synthetic_normals": (Kind.TABLE, Kind.WINDOW),
}

TABLE_CENTRE = np.array([3.0, -2.0, 50.0, 0.0, 0.01])
TABLE_SPREAD = np.array([2.0, 0.5, 20.0, 1.0, 0.002])
# Samples of a fit, chosen so that a fifth of them can calibrate alpha = 0.1.
SIZES = {Kind.TABLE: 200, Kind.WINDOW: 96, Kind.IMAGE: 64, Kind.VIDEO: 50, Kind.SERIES: 400, Kind.LOG: 200}
#: What no normal session holds.
CRASH = "fatal error: invalid address, exception in worker"
# Lines that a few sessions have, the first ones most: fresh sessions hold some that no session of a fit has.
_PARTS = ("disk", "fan", "port", "cache", "clock", "queue", "shard", "table", "lease")
REMARKS = [f"{part}_{level}" for part in _PARTS for level in ("notice", "warning", "warned", "warns")]


def as_events(sessions: list[list[str]]) -> np.ndarray:
    """Return sessions as an array of lists, which is indexed and joined as samples of any other kind are."""
    found = np.empty(len(sessions), object)
    for i, session in enumerate(sessions):
        found[i] = session
    return found


def make_sessions(n: int, seed: int) -> np.ndarray:
    """Draw sessions of a small program: opened, worked on in a loop, sometimes remarked on, and closed."""
    rng = np.random.default_rng([seed, list(Kind).index(Kind.LOG)])
    sessions = []
    for _ in range(n):
        session = ["open file"]
        for _ in range(rng.integers(1, 4)):
            session += ["read block", "check block"] if rng.random() < 0.7 else ["write block"]
        session.append("close file")
        if rng.random() < 0.25:
            session.insert(-1, REMARKS[min(rng.geometric(0.15), len(REMARKS)) - 1])
        sessions.append(session)
    return as_events(sessions)


def make_normal(kind: Kind, n: int, seed: int) -> np.ndarray:
    """Draw normal samples whose values depend on each other, so that there is something to learn."""
    if kind is Kind.LOG:
        return make_sessions(n, seed)
    rng = np.random.default_rng([seed, list(Kind).index(kind)])
    if kind is Kind.TABLE:
        mixing = np.array([[1.0, 0.8, 0.0, -0.6, 0.3], [0.0, 0.6, 1.0, 0.8, -0.9]])
        z = rng.normal(size=(n, 2)) @ mixing + 0.1 * rng.normal(size=(n, 5))
        return z * TABLE_SPREAD + TABLE_CENTRE
    if kind is Kind.SERIES:
        t = np.arange(n) / 4
        values = np.c_[np.sin(t), np.cos(t)] + 0.1 * rng.normal(size=(n, 2))
    elif kind is Kind.WINDOW:
        t = np.arange(12)[None, :] / 2 + rng.uniform(0, 2 * np.pi, (n, 1))
        values = np.stack([np.sin(t), np.cos(t)], axis=2)
    elif kind is Kind.IMAGE:
        grid = np.linspace(-1, 1, 8)
        slopes = rng.normal(size=(n, 2, 1, 1))
        values = (slopes[:, 0] * grid[:, None] + slopes[:, 1] * grid[None, :])[:, None]
    else:
        grid = np.linspace(-1, 1, 8)
        phase = rng.uniform(0, 2 * np.pi, (n, 1, 1, 1)) + np.arange(4)[None, :, None, None] / 3
        values = (np.sin(phase) * grid[:, None] + np.cos(phase) * grid[None, :])[:, :, None]
    if kind is not Kind.SERIES:
        values = values + 0.1 * rng.normal(size=values.shape)
    return 5.0 + 2.0 * values


def make_anomalous(kind: Kind, n: int, seed: int) -> np.ndarray:
    """Draw normal samples and push every value six standard deviations up or down; or sessions that crash."""
    values = make_normal(kind, n, seed)
    if kind is Kind.LOG:
        return as_events([[*session[: 1 + i % 2], CRASH] for i, session in enumerate(values.tolist())])
    spread = TABLE_SPREAD if kind is Kind.TABLE else 2.0
    signs = np.random.default_rng(seed + 1).choice([-1.0, 1.0], values.shape)
    return values + 6.0 * spread * signs


@dataclass(frozen=True)
class Case:
    """One detector on one kind of data."""

    name: str
    kind: Kind

    def __str__(self) -> str:
        return f"{self.name}-{self.kind.value}"

    @property
    def cls(self) -> type[Detector]:
        return _classes()[self.name]

    def make(self, training: Training | None = QUICK, **params: Any) -> Detector:
        """Return an unfitted detector, its training (also that of detectors inside) set."""
        example = EXAMPLES.get(self.name)
        detector = self.cls() if example is None else example.make(self.kind)
        if training is not None:
            deep = detector.get_params(deep=True)
            names = [key for key in deep if key.rpartition("__")[2] == "training"]
            detector.set_params(**dict.fromkeys(names, training))
        return detector.set_params(**({"threshold": Conformal(alpha=0.1)} | params))

    def normal(self, n: int | None = None, seed: int = 0) -> np.ndarray:
        return make_normal(self.kind, n or SIZES[self.kind], seed)

    def anomalous(self, n: int, seed: int = 0) -> np.ndarray:
        return make_anomalous(self.kind, n, seed)

    def wrap(self, array: np.ndarray) -> Any:
        """Return the array in the form the detector reads."""
        if self.kind is Kind.LOG:
            return array.tolist()
        example = EXAMPLES.get(self.name)
        wrap = None if example is None or example.wrap is None else example.wrap.get(self.kind)
        return array if wrap is None else wrap(array)

    @property
    def takes_arrays(self) -> bool:
        example = EXAMPLES.get(self.name)
        return example is None or example.wrap is None

    @property
    def missing(self) -> tuple[Any, ...]:
        """Index of a few cells to empty: the second feature or channel of some samples."""
        if self.kind in (Kind.TABLE, Kind.SERIES):
            return (slice(0, 40, 7), 1)
        if self.kind is Kind.WINDOW:
            return (slice(0, 12, 3), slice(4, 7), 1)
        return (slice(0, 12, 3), ..., slice(2, 5))

    def fit(self, detector: Detector, array: np.ndarray, y: Any = None) -> Detector:
        """Fit with genad's own warnings let through; anything else is still an error."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GenadWarning)
            return detector.fit(self.wrap(array), y)

    @property
    def fitted(self) -> Detector:
        """A quickly fitted detector, shared by all tests; nobody may change it."""
        return _fitted(self, QUICK)

    @property
    def trained(self) -> Detector:
        """A detector trained as its method means it on tables, longer than quickly on sessions.

        Elsewhere even that takes too long for a test.
        """
        return _fitted(self, self.enough)

    @property
    def enough(self) -> Training | None:
        """The training of ``trained``; None is that of the method."""
        return {Kind.TABLE: None, Kind.LOG: LONGER}.get(self.kind, QUICK)

    @property
    def brief(self) -> Detector:
        """A detector trained for a few updates only, shared by all tests; nobody may change it."""
        return _fitted(self, BRIEF)

    @property
    def gappy(self) -> tuple[Detector, np.ndarray]:
        """A detector fitted on data with missing cells, and these data; nobody may change them."""
        return _fitted_with_gaps(self)

    @property
    def labelled(self) -> tuple[Detector, np.ndarray, np.ndarray]:
        """A detector trained as ``trained`` with labels, the data and the labels; nobody may change them.

        Its threshold is set by the labels. The last anomalies of a table are a million times too large.
        """
        return _fitted_with_labels(self)

    def copy(self) -> Detector:
        """Return a detector like ``fitted`` that a test may change."""
        return copy.deepcopy(self.fitted)

    @staticmethod
    def values(data: Any) -> np.ndarray:
        """Return data in any form as one array of numbers; sessions as one of texts."""
        if isinstance(data, list) and isinstance(data[0], list):
            return np.array([json.dumps(session) for session in data])
        if hasattr(data, "names") and hasattr(data, "column"):
            # The names of groups come back beside the numbers.
            numbers = [name for name in data.names if data.column(name).dtype.kind != "O"]
            return np.column_stack([np.asarray(data.column(name), float) for name in numbers])
        return np.asarray(data)

    def usable(self, data: Any) -> bool:
        """Say whether all numbers are finite, or all events have a name."""
        if self.kind is Kind.LOG and isinstance(data, list):
            return all(isinstance(event, str) and event for session in data for event in session)
        return bool(np.isfinite(self.values(data)).all())


@functools.cache
def _fitted(case: Case, training: Training | None) -> Detector:
    return case.fit(case.make(training), case.normal())


@functools.cache
def _fitted_with_gaps(case: Case) -> tuple[Detector, np.ndarray]:
    X = case.normal()
    X[case.missing] = np.nan
    X.setflags(write=False)
    # However little was learnt, what is missing takes no part.
    return case.fit(case.make(Training(updates=8)), X), X


@functools.cache
def _fitted_with_labels(case: Case) -> tuple[Detector, np.ndarray, np.ndarray]:
    X = case.normal()
    n = len(X)
    if case.kind is Kind.SERIES:
        X[10:20] = case.anomalous(n, seed=3)[10:20]
        y = np.zeros(n, int)
        y[10:20] = 1
    else:
        bad = [case.anomalous(n // 4, seed=3)]
        if case.kind is Kind.TABLE:
            bad.append(case.anomalous(20, seed=4) * 1e6)
        X = np.concatenate([X, *bad])
        y = (np.arange(len(X)) >= n).astype(int)
    # Each group has its own threshold, which its few labels cannot set.
    threshold = BestF() if case.takes_arrays else Conformal(alpha=0.1)
    return case.fit(case.make(case.enough, threshold=threshold), X, y), X, y


@functools.cache
def _classes() -> dict[str, type[Detector]]:
    return registered()


@functools.cache
def all_cases() -> list[Case]:
    """Return every registered detector with every kind it takes directly."""
    return [
        Case(name, kind)
        for name, cls in _classes().items()
        for kind in COSTLY.get(name, cls.card.kinds)
        # Detectors of dense samples see a series through Windowed only.
        if kind is not Kind.SERIES or cls.reads_as is Kind.SERIES or (name in EXAMPLES and EXAMPLES[name].wrap)
    ]


@functools.cache
def _scripted() -> Any:
    """Return the stand-in for the small local model."""
    spec = importlib.util.spec_from_file_location("contract_language", Path(__file__).with_name("language.py"))
    language = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(language)
    return language.MODEL


@pytest.fixture(autouse=True)
def _scripted_model(monkeypatch):
    """Let detectors that ask the small local model ask a script: the suite judges their form, not the model."""
    real = prompting.open_model

    def open_model(where: Any = None, model: Any = None, **settings: Any) -> Any:
        return _scripted() if where is None and model is None else real(where, model, **settings)

    monkeypatch.setattr(prompting, "open_model", open_model)


# What depends on the shape of a sample is tested on every kind, and videos, the slowest, take part in half of it. The
# rest is the same code for all, and methods that take rows are tested on rows and windows there, or the suite would
# take twice as long.
EVERY_KIND = frozenset(
    {
        "test_one_finite_score_a_unit",
        "test_gross_anomalies_score_higher",
        "test_maps_have_the_shape_of_the_data",
        "test_restored_normals_are_near_the_data",
        "test_a_saved_detector_answers_with_the_same_bytes",
    }
)
VIDEOS_LEFT_OUT = frozenset(
    {
        "test_missing_cells_are_skipped",
        "test_scores_do_not_depend_on_the_size_of_the_call",
        "test_another_number_of_features_is_refused",
    }
)


def _apart(kind: Kind, test: str) -> bool:
    """Say whether methods that take rows leave this kind out of a test."""
    return test not in EVERY_KIND and (kind is Kind.VIDEO or (kind is Kind.IMAGE and test not in VIDEOS_LEFT_OUT))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Hand tests their cases: all, those of independent samples, those of rows, or the classes alone.

    Sessions of events take part wherever a sample is a thing to be drawn, shuffled or repeated. Cases of numbers leave
    them out: an event cannot be half missing, infinite, rounded, or six deviations away.
    """
    cases = all_cases()
    test = metafunc.function.__name__
    cases = [c for c in cases if not (_apart(c.kind, test) and Kind.TABLE in c.cls.card.kinds)]
    numbers = [c for c in cases if c.kind is not Kind.LOG]
    chosen: dict[str, list[Any]] = {
        "case": cases,
        "sample_case": [c for c in cases if c.kind is not Kind.SERIES],
        "number_case": numbers,
        "number_sample_case": [c for c in numbers if c.kind is not Kind.SERIES],
        "array_case": [c for c in numbers if c.takes_arrays],
        "log_case": [c for c in cases if c.kind is Kind.LOG],
        "table_case": [c for c in cases if c.kind is Kind.TABLE],
        "series_case": [c for c in cases if c.kind is Kind.SERIES],
        # Tests that fit anew run on the cheap kinds; the rest of the code is the same for all.
        "refit_case": [c for c in cases if c.kind in (Kind.TABLE, Kind.SERIES, Kind.LOG)],
        "refit_sample_case": [c for c in cases if c.kind in (Kind.TABLE, Kind.WINDOW, Kind.LOG)],
        "refit_number_case": [c for c in cases if c.kind in (Kind.TABLE, Kind.SERIES)],
        # One case a detector is enough where the kind of data plays no part.
        "first_case": list({c.name: c for c in reversed(cases)}.values())[::-1],
    }
    for fixture, values in chosen.items():
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, values, ids=str)
    if "cls" in metafunc.fixturenames:
        classes = registered()
        metafunc.parametrize("cls", classes.values(), ids=classes.keys())
