"""The base: what hooks receive, what reaches the door, and how blocks are cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import nn

from genad import Autoencoder, Training, load
from genad.core.calibration import Conformal, FixedValue
from genad.core.detector import Detector
from genad.core.registry import Card, Family
from genad.core.runtime import isolated_rng, resolve_device, thread_limit
from genad.data.kinds import DENSE, Kind
from genad.errors import CalibrationWarning, DataWarning, InputError, InputTypeError, TrainingError

CARD = Card(title="t", authors="a", venue="v", year=2026, family=Family.WRAPPER, kinds=DENSE)


@dataclass(eq=False, repr=False)
class Norm(Detector):
    """Scores the distance from the mean; nothing is trained, every answer is known."""

    card: ClassVar[Card] = CARD
    name: ClassVar[str] = "norm"

    def build(self, shape):
        net = nn.Linear(1, 1)
        net.register_buffer("seen", torch.zeros(()))
        return net

    def phases(self, net):
        return []

    def finish(self, net, samples):
        net.seen = torch.tensor(float(len(samples)))

    def score_batch(self, net, batch):
        return batch.sample_mean(batch.x.square()).sqrt()

    def error_map(self, net, batch):
        return batch.x.square()

    def reconstruct(self, net, batch):
        return torch.zeros_like(batch.x)


def data(n=200, d=3, seed=0):
    return np.random.default_rng(seed).normal(2.0, 5.0, size=(n, d))


def fit(X=None, **params):
    return Norm(**({"threshold": Conformal(alpha=0.1)} | params)).fit(data() if X is None else X)


def test_answers_worked_out_by_hand():
    X = data()
    detector = fit(X)
    z = (X - X.mean(0)) / X.std(0)
    np.testing.assert_allclose(detector.anomaly_score(X), np.sqrt((z**2).mean(1)), rtol=1e-5)
    np.testing.assert_allclose(detector.anomaly_map(X), z**2, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(detector.restore(X), np.broadcast_to(X.mean(0), X.shape), rtol=1e-5)
    scores = np.sort(detector.calibration_scores_)
    assert len(scores) == 40
    # 4 of 41: the largest rank that keeps p at 0.1 or below.
    assert detector.threshold_.value == scores[-4]
    assert detector.offset_ == -scores[-4]
    np.testing.assert_allclose(detector.p_value(X), [(1 + (scores >= s).sum()) / 41 for s in detector.anomaly_score(X)])
    found = detector.detect(X)
    np.testing.assert_allclose(found.bounds / X.std(0) > 1, True)
    assert detector.explain(X, 5).index == 5


def test_missing_values_are_left_out_of_mean_and_score():
    X = data()
    X[:20, 1] = np.nan
    detector = fit(X)
    z = (X - np.nanmean(X, 0)) / np.nanstd(X, 0)
    np.testing.assert_allclose(detector.anomaly_score(X), np.sqrt(np.nanmean(z**2, 1)), rtol=1e-5)


def test_training_sees_the_part_not_held_out():
    assert fit(holdout=0.25).net_.seen.item() == 150
    assert len(fit(holdout=0.25).calibration_scores_) == 50
    y = np.zeros(200, int)
    y[:40] = 1
    labelled = Norm(threshold=Conformal(alpha=0.1)).fit(data(), y)
    assert labelled.net_.seen.item() == 128
    assert len(labelled.calibration_scores_) == 32


def test_few_rows_are_calibrated_on_themselves():
    with pytest.warns(CalibrationWarning, match="only 4 normal samples"):
        detector = fit(data(4), threshold=FixedValue(1.0))
    assert detector.net_.seen.item() == 4
    assert len(detector.calibration_scores_) == 4


@pytest.mark.parametrize("n", [1, 15, 16, 17, 33, 2048, 2049, 5000])
def test_blocks_of_any_length_are_padded_and_cut(n):
    X = data(n, seed=1)
    detector = fit()
    sizes = []

    class Watching(Norm):
        def score_batch(self, net, batch):
            sizes.append(len(batch))
            return super().score_batch(net, batch)

    watching = Watching(threshold=Conformal(alpha=0.1)).fit(data())
    sizes.clear()
    np.testing.assert_array_equal(watching.anomaly_score(X), detector.anomaly_score(X))
    assert all(size % 16 == 0 for size in sizes)
    assert sum(sizes) - n < 16


def test_a_seed_of_none_is_drawn_anew():
    X = data()
    one, two = (Norm(random_state=None, threshold=Conformal(alpha=0.1)).fit(X) for _ in range(2))
    assert one.seed_ != two.seed_
    assert one.random_state is None
    assert not np.array_equal(one.calibration_scores_, two.calibration_scores_)
    assert fit(random_state=np.int64(7)).seed_ == 7


@pytest.mark.parametrize("make", [
    lambda X: X.tolist(), pd.DataFrame, pl.DataFrame, lambda X: pa.table(pd.DataFrame(X)),
    np.asfortranarray, lambda X: X[::1], lambda X: X.astype(object), lambda X: X.astype(">f8"),
])  # fmt: skip
def test_the_same_numbers_in_any_container(make):
    X = data()
    expected = fit(X).anomaly_score(X)
    np.testing.assert_allclose(fit(make(X)).anomaly_score(make(X)), expected, rtol=1e-5)


def test_a_path_is_read(tmp_path):
    X = pd.DataFrame(data(), columns=["a", "b", "c"])
    X.to_csv(tmp_path / "rows.csv", index=False)
    detector = fit(tmp_path / "rows.csv")
    np.testing.assert_allclose(detector.anomaly_score(str(tmp_path / "rows.csv")), fit(X).anomaly_score(X), rtol=1e-5)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_columns_are_checked_by_name(frame):
    names = ["a", "b", "c"]
    X = data()
    detector = fit(frame(dict(zip(names, X.T, strict=True))))
    assert detector.n_features_in_ == 3
    other = frame({name: X[:, names.index(name)] for name in ("c", "a", "b")})
    # scikit-learn refuses another order, and a column that is not there.
    for wrong in (other, other.rename({"a": "z"}) if frame is pl.DataFrame else other.rename(columns={"a": "z"})):
        with pytest.raises(ValueError, match="feature names"):
            detector.anomaly_score(wrong)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame, pa.table])
def test_dataframes_are_restored_as_dataframes(frame):
    X = data(60)
    given = frame({name: X[:, j] for j, name in enumerate("abc")})
    restored = fit(given).restore(given)
    assert type(restored) is type(given)
    assert list(restored.columns if hasattr(restored, "iloc") or isinstance(restored, pl.DataFrame)
                else restored.column_names) == ["a", "b", "c"]  # fmt: skip


@pytest.mark.parametrize(("X", "message"), [
    (np.zeros((0, 3)), "0 sample"), (np.zeros((3, 0)), "0 feature"), (np.zeros(3), "1D array"),
    (np.full((5, 2), np.inf), "inf"), (np.zeros((0, 4, 2)), "at least 1 window"),
    (np.full((5, 4, 2), np.inf), "infinite"), (pd.DataFrame({"a": []}), "0 rows"),
    (np.zeros((5, 4, 2), complex), "complex"), (np.zeros((5, 2), complex), "[Cc]omplex"),
    (np.zeros((2, 2, 2, 2, 2, 2)), "dim|shape|axes"), ("nothing.csv", "nothing.csv"),
])  # fmt: skip
def test_data_that_cannot_be_used(X, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fit(X)


@pytest.mark.parametrize(("X", "kind"), [
    (np.zeros((9, 3)), Kind.TABLE), (np.zeros((9, 4, 2)), Kind.WINDOW), (np.zeros((9, 1, 4, 4)), Kind.IMAGE),
    (np.zeros((9, 2, 1, 4, 4)), Kind.VIDEO),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore::genad.errors.GenadWarning")
def test_the_kind_follows_from_the_axes(X, kind):
    assert fit(X).detect(X).kind is kind


def test_a_kind_the_method_does_not_take():
    class Rows(Norm):
        card = Card(title="t", authors="a", venue="v", year=2026, family=Family.VAE, kinds=(Kind.TABLE,))

    with pytest.raises(InputError, match=r"^X: a window was given; Rows takes: table"):
        Rows().fit(np.zeros((9, 4, 2)))


def test_samples_of_another_shape_are_refused():
    detector = fit(np.random.default_rng(0).normal(size=(60, 4, 2)))
    with pytest.raises(InputError, match=r"samples of shape \(5, 2\) were given; the detector was fitted on \(4, 2\)"):
        detector.predict(np.zeros((3, 5, 2)))


def test_y_of_other_values_is_ignored_aloud():
    with pytest.warns(DataWarning, match="y is ignored"):
        Norm(threshold=Conformal(alpha=0.1)).fit(data(), np.arange(200))


def test_calibrate_leaves_labelled_anomalies_out():
    detector = fit()
    y = np.zeros(200, int)
    y[:50] = 1
    detector.calibrate(data(seed=2), y)
    assert len(detector.calibration_scores_) == 150


def test_the_base_has_no_answers_of_its_own():
    base = Detector()
    for hook in ("build", "loss", "score_batch", "error_map", "reconstruct"):
        with pytest.raises(NotImplementedError):
            getattr(base, hook)(*[None] * (1 if hook == "build" else 2))


def test_a_report_of_the_fit():
    facts = Autoencoder(training=Training(updates=7), threshold=Conformal(alpha=0.1)).fit(data()).describe()
    assert facts["updates"] == 7
    assert facts["training_samples"] == 160
    assert facts["calibration_units"] == 40
    assert facts["unit"] == "row"
    assert facts["parameters"]["training"] == Training(updates=7)
    assert "latent" not in facts["parameters"]


# ---------------------------------------------------------------------- runtime


@pytest.mark.parametrize("device", ["abacus", "cuda:99", "mps"])
def test_devices_that_are_not_there_are_named(device):
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has the device")
    with pytest.raises(InputError, match=r"^device: "):
        resolve_device(device)


def test_random_numbers_inside_leave_no_trace():
    before = torch.get_rng_state()
    with isolated_rng(3, torch.device("cpu")):
        one = torch.randn(3)
    assert torch.equal(torch.get_rng_state(), before)
    with isolated_rng(3, torch.device("cpu")):
        assert torch.equal(torch.randn(3), one)

    def fails():
        with isolated_rng(3, torch.device("cpu")):
            torch.randn(3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_are_put_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ZeroDivisionError), thread_limit(1):
            1 / (torch.get_num_threads() - 1)
        assert torch.get_num_threads() == 2
        with thread_limit(None):
            assert torch.get_num_threads() == 2
        with thread_limit(8):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def diverging():
    return Training(lr=1e38, clip=0, updates=50)


@pytest.mark.parametrize("width", [3, 5])
def test_a_failed_refit_leaves_the_former_detector(width, tmp_path):
    X = data()
    detector = Autoencoder(threshold=Conformal(alpha=0.1), training=Training(updates=10)).fit(X)
    scores, flags, restored = detector.anomaly_score(X), detector.predict(X), detector.restore(X)
    detector.set_params(training=diverging())
    with pytest.raises(TrainingError):
        detector.fit(data(d=width) * 100.0 + 50.0)
    assert detector.n_features_in_ == 3
    assert detector.anomaly_score(X).tobytes() == scores.tobytes()
    assert (detector.predict(X) == flags).all()
    assert (detector.restore(X) == restored).all()
    assert load(detector.save(tmp_path / "model")).anomaly_score(X).tobytes() == scores.tobytes()


def test_an_interrupted_refit_leaves_the_former_detector(monkeypatch):
    X = data()
    detector = fit(X).feedback(X[:4], [1, 0, 0, 0])
    scores = detector.anomaly_score(X)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Norm, "_set_calibration", stop)
    with pytest.raises(KeyboardInterrupt):
        detector.fit(data(50, 4) * 9.0)
    assert detector.head_ is not None
    assert (detector.anomaly_score(X) == scores).all()


def test_a_failed_first_fit_leaves_no_trace():
    detector = Autoencoder(training=diverging())
    before = dict(vars(detector))
    with pytest.raises(TrainingError):
        detector.fit(data())
    assert vars(detector) == before
    with pytest.raises(NotFittedError):
        detector.anomaly_score(data())


def structured():
    made = np.zeros(60, dtype=[("a", float), ("b", float)])
    made["a"], made["b"] = data(60, 2).T
    return made


@pytest.mark.parametrize(("X", "error", "message"), [
    (np.where(np.arange(180).reshape(60, 3) == 100, np.inf, 1.0), InputError, r"column 'x1' .* \(inf\) in row 33:"),
    (np.where(np.arange(180).reshape(60, 3) == 100, -np.inf, 1.0).astype(np.float32), InputError, r"'x1' .* row 33:"),
    ([[1.0, 2.0, 3.0], [3.0, float("inf"), 4.0]], InputError, "'x1' .* row 1:"),
    (np.zeros((0, 3)), InputError, "0 sample"), (np.zeros((3, 0)), InputError, "0 feature"),
    (np.zeros(3), InputError, "1D array"), (np.zeros((5, 2), complex), InputError, "Complex"),
    (pd.DataFrame(np.ones((9, 3)), columns=["a", "a", "b"]), InputError, "more than one column of the same name"),
    (pl.DataFrame({"a": [1.0]}).lazy(), InputTypeError, "collect it first"),
    (pd.DataFrame({"a": []}), InputError, "0 rows"), (pl.DataFrame({"a": []}), InputError, "0 rows"),
    (pd.Series([1.0, 2.0]), InputError, "2-dimensional"), ([[1.0, 2.0], [3.0]], InputError, "inhomogeneous"),
    ({1.0, 2.0}, InputTypeError, "set"), (None, InputError, "scalar"),
])  # fmt: skip
def test_every_error_of_the_door_is_genads(X, error, message):
    for call in (fit(data(60)).anomaly_score, Norm().fit):
        with pytest.raises(error, match=message):
            call(X)


@pytest.mark.parametrize("make", [
    structured, lambda: [{"a": a, "b": b} for a, b in data(60, 2).tolist()],
    lambda: tuple({"a": a, "b": b} for a, b in data(60, 2).tolist()),
])  # fmt: skip
def test_cells_with_names_are_read_as_columns(make):
    detector = fit(make())
    assert detector.n_features_in_ == 2
    assert detector.adapter_.names == ["a", "b"]
    np.testing.assert_allclose(detector.anomaly_score(make()), fit(data(60, 2)).anomaly_score(data(60, 2)), rtol=1e-6)
