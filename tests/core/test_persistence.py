"""Model files: whole or refused, never half-written, and never run."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from genad import Autoencoder, Backbone, Ensemble, Training, Windowed, load, tensor_files
from genad.core import persistence
from genad.core.bounded_build import BoundedBuild
from genad.core.calibration import Conformal, FixedValue, PeaksOverThreshold
from genad.core.grouped import Grouped
from genad.errors import CalibrationWarning, GenadError, GenadWarning, InputError, ModelFileError
from genad.reconstruction.autoencoder.autoencoder import DenoisingAutoencoder

QUICK = Training(updates=5)


@pytest.fixture(scope="module")
def X():  # noqa: N802 - the field's name for a sample matrix
    return np.random.default_rng(0).normal(size=(120, 3))


@pytest.fixture(scope="module")
def detector(X):
    return Autoencoder(latent=2, training=QUICK, threshold=Conformal(alpha=0.1)).fit(X)


@pytest.fixture(scope="module")
def raw(detector, tmp_path_factory):
    return detector.save(tmp_path_factory.mktemp("model") / "whole").read_bytes()


@pytest.fixture
def reload(tmp_path):
    def from_bytes(raw):
        path = tmp_path / "model"
        path.write_bytes(raw)
        return load(path)

    return from_bytes


def header_of(raw):
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def rebuilt(raw, change, *, sign=True):
    """Return the file with its header changed by ``change``, the checksum made right again when ``sign``."""
    outer, body = header_of(raw)
    header = json.loads(outer["__metadata__"]["genad"])
    change(header, outer)
    if sign:
        tensors = persistence._open(None, raw)[1]
        header["checksum"] = persistence._checksum(tensors, header["detector"])
    outer["__metadata__"]["genad"] = json.dumps(header)
    text = json.dumps(outer).encode()
    return struct.pack("<Q", len(text)) + text + body


def test_a_file_comes_back_the_same(raw, detector, X, reload):
    again = reload(raw)
    assert again.anomaly_score(X).tobytes() == detector.anomaly_score(X).tobytes()
    assert again.get_params() == detector.get_params()
    assert again.training_report_ == detector.training_report_
    assert again.threshold_ == detector.threshold_
    assert not any(p.requires_grad for p in again.net_.parameters())


@pytest.mark.parametrize("make", [
    lambda: Autoencoder(backbone=Backbone("mlp", hidden=(8, 4), activation="silu"), training=QUICK),
    lambda: DenoisingAutoencoder(noise=(0.1, 0.5), training=Training(updates=5, ema=0.9, checkpoint=None)),
    lambda: Autoencoder(training=QUICK, threshold=FixedValue(2.5), random_state=None, holdout=0.5),
    lambda: Autoencoder(training=QUICK, threshold=PeaksOverThreshold(q=1e-2)),
    lambda: Ensemble(Autoencoder(latent=1, training=QUICK), n=2, combine="max"),
    lambda: Ensemble(Ensemble(Autoencoder(training=QUICK), n=2), n=2),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning")
def test_parameters_of_all_forms_survive(make, X, tmp_path):
    detector = make().fit(X)
    again = load(detector.save(tmp_path / "deep" / "model"))
    assert repr(again) == repr(detector)
    assert again.anomaly_score(X).tobytes() == detector.anomaly_score(X).tobytes()
    assert again.threshold_ == detector.threshold_


@pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning")
def test_detectors_of_detectors_survive(X, tmp_path):
    table = {"a": X[:, 0], "b": X[:, 1], "who/what//": np.array(["x/1", "y//2"] * 60)}
    inner = Windowed(Ensemble(Autoencoder(training=QUICK), n=2), window=6)
    detector = Grouped(inner, by="who/what//").fit(table)
    again = load(detector.save(tmp_path / "model"))
    assert again.anomaly_score(table).tobytes() == detector.anomaly_score(table).tobytes()
    assert list(again.detectors_) == ["x/1", "y//2"]


@pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning")
def test_an_infinite_threshold_survives(X, tmp_path):
    detector = Autoencoder(training=QUICK, threshold=FixedValue(np.inf)).fit(X)
    assert load(detector.save(tmp_path / "model")).threshold_.value == np.inf


# ---------------------------------------------------------------------- damage


@settings(deadline=None, max_examples=50, derandomize=True)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed(raw, tmp_path_factory, place, bit):
    broken = bytearray(raw)
    broken[int(place * len(raw))] ^= 1 << bit
    path = tmp_path_factory.mktemp("flip") / "model"
    path.write_bytes(broken)
    refused(path)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(place=st.integers(0, 400), value=st.integers(0, 255))
def test_a_changed_byte_of_the_header_is_noticed(raw, tmp_path_factory, place, value):
    broken = bytearray(raw)
    if broken[place] == value:
        return
    broken[place] = value
    path = tmp_path_factory.mktemp("flip") / "model"
    path.write_bytes(broken)
    refused(path)


def refused(path):
    """Load a damaged file: refused, unless only the note on the writer's version changed."""
    try:
        found = load(path)
    except ModelFileError as error:
        assert str(path) in str(error)  # noqa: PT017 - either outcome is checked
    else:
        outer, _ = header_of(path.read_bytes())
        assert json.loads(outer["__metadata__"]["genad"])["genad"] is not None
        assert isinstance(found, Autoencoder)


def test_every_byte_of_the_weights_is_covered(raw, reload):
    (length,) = struct.unpack("<Q", raw[:8])
    for place in range(8 + length, len(raw), max(1, (len(raw) - length) // 40)):
        broken = bytearray(raw)
        broken[place] ^= 1
        with pytest.raises(ModelFileError, match="checksum does not match"):
            reload(bytes(broken))


@pytest.mark.parametrize("share", [0.0, 1e-4, 0.01, 0.3, 0.5, 0.9, 0.9999])
def test_a_truncated_file(raw, reload, share):
    with pytest.raises(ModelFileError, match="may be truncated"):
        reload(raw[: int(len(raw) * share)])


def test_more_than_the_file(raw, reload):
    with pytest.raises(ModelFileError):
        reload(raw + b"\0")


@pytest.mark.parametrize("content", [
    b"", b"\0" * 7, b"\0" * 8, b"not a model, but long enough to hold a header\n", b"\x80\x04\x95", b"PK\x03\x04" * 9,
    struct.pack("<Q", 2) + b"{}", struct.pack("<Q", 4) + b"null", struct.pack("<Q", 8) + b"[[[[[[[[",
    struct.pack("<Q", 2**20) + b"[" * 2**20, struct.pack("<Q", 2) + b"\xff\xff",
])  # fmt: skip
def test_not_a_model_file(content, reload):
    with pytest.raises(ModelFileError, match="not a whole genad model file"):
        reload(content)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**40, 65 * 2**20])
def test_an_oversized_header_is_not_read(raw, reload, length):
    with pytest.raises(ModelFileError, match="not a whole genad model file"):
        reload(struct.pack("<Q", length) + raw[8:])


def test_a_safetensors_file_of_others(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(ModelFileError, match="not a whole genad model file"):
        load(path)


@pytest.mark.parametrize("value", [None, 3, [], "text", {"genad": None}, {"genad": "[1, 2"}, {"genad": 5}])
def test_metadata_of_another_form(raw, reload, value):
    outer, body = header_of(raw)
    outer["__metadata__"] = value
    text = json.dumps(outer).encode()
    with pytest.raises(ModelFileError):
        reload(struct.pack("<Q", len(text)) + text + body)


@pytest.mark.parametrize("value", ["[]", "3", "null", '"text"'])
def test_a_header_that_is_no_object(raw, reload, value):
    outer, body = header_of(raw)
    outer["__metadata__"]["genad"] = value
    text = json.dumps(outer).encode()
    with pytest.raises(ModelFileError):
        reload(struct.pack("<Q", len(text)) + text + body)


def test_a_checkpoint_is_not_a_model(tmp_path):
    tensor_files.write_tensors(tmp_path / "half", {"a": torch.zeros(2)}, {"checkpoint": "x", "step": 3})
    with pytest.raises(ModelFileError):
        load(tmp_path / "half")


@pytest.mark.parametrize("version", [2, 99, None, "1", 1.5, {}])
def test_a_newer_format(raw, reload, version):
    broken = rebuilt(raw, lambda header, outer: header.update(format=version, genad="9.9"))
    with pytest.raises(ModelFileError, match=r"written by genad 9.9 in format .*Upgrade genad"):
        reload(broken)


def test_a_changed_record_is_noticed(raw, reload):
    broken = rebuilt(raw, lambda header, _: header["detector"]["parameters"].update(latent=3), sign=False)
    with pytest.raises(ModelFileError, match="checksum does not match"):
        reload(broken)


@pytest.mark.parametrize(("path", "value", "message"), [
    (("name",), "evil_detector", "evil_detector"),
    (("name",), "os.system", "os.system"),
    (("name",), 3, "cannot be rebuilt"),
    (("name",), None, "cannot be rebuilt"),
    (("parameters", "unknown"), 1, "no parameter 'unknown'"),
    (("parameters", "training"), {"~training": {"updates": -1}}, "updates"),
    (("parameters", "training"), {"~threshold": {}}, "not known"),
    (("parameters", "training"), {"~code": "import os"}, "not known"),
    (("parameters", "training"), {}, "cannot be rebuilt"),
    (("parameters", "threshold"), {"~threshold": {"rule": "Nothing", "parameters": {}}}, "cannot be rebuilt"),
    (("parameters", "latent"), -3, "cannot be rebuilt"),
    (("parameters", "latent"), "many", "cannot be rebuilt"),
    (("parameters",), 7, "cannot be rebuilt"),
    (("fitted", "shape"), [9], "cannot be rebuilt"),
    (("fitted", "shape"), "wide", "cannot be rebuilt"),
    (("fitted", "shape"), None, "cannot be rebuilt"),
    (("fitted", "adapter"), {"type": "Path", "state": {}}, "cannot be rebuilt"),
    (("fitted", "adapter"), [], "cannot be rebuilt"),
    (("fitted", "threshold"), {}, "cannot be rebuilt"),
    (("fitted", "report"), {"nonsense": 1}, "cannot be rebuilt"),
    (("fitted",), {}, "cannot be rebuilt"),
    (("fitted",), [1], "cannot be rebuilt"),
])  # fmt: skip
def test_a_well_signed_file_of_nonsense(raw, reload, path, value, message):
    def change(header, _outer):
        place = header["detector"]
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    with pytest.raises(ModelFileError, match=message):
        reload(rebuilt(raw, change))


@pytest.mark.parametrize(
    "name", ["../../escape", "/etc/passwd", "net/../../x", "net/__class__", "net/a|b|c", "", "//", "~"]
)
def test_names_are_names_and_not_paths(detector, tmp_path, name):
    tensors, record = persistence.pack(detector)
    tensors[name] = torch.zeros(2)
    header = {"format": 1, "genad": "0", "checksum": persistence._checksum(tensors, record), "detector": record}
    path = tmp_path / "box" / "model"
    tensor_files.write_tensors(path, tensors, header)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    if name.startswith("net/"):
        with pytest.raises(ModelFileError, match="cannot be rebuilt"):
            load(path)
    else:
        assert isinstance(load(path), Autoencoder)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_a_missing_file(tmp_path):
    with pytest.raises(ModelFileError, match=r"nowhere: cannot be read \(No such file or directory\)"):
        load(tmp_path / "nowhere")
    with pytest.raises(ModelFileError, match="cannot be read"):
        load(tmp_path)


@pytest.mark.parametrize("latent", [10**9, 10**12, 10**30])
def test_an_absurd_size_is_refused_before_the_memory_is_taken(raw, reload, latent):
    def change(header, _):
        header["detector"]["parameters"]["latent"] = latent

    with pytest.raises(ModelFileError, match="cannot be rebuilt"):
        reload(rebuilt(raw, change))


def test_many_small_tensors_are_bounded_too():
    stored = {"weight": torch.zeros(8)}
    with BoundedBuild(stored):
        torch.nn.Linear(100, 100)
    with pytest.raises(ModelFileError, match=r"more than 1.1 GB, but 32 bytes"), BoundedBuild(stored):
        [torch.empty(2**24) for _ in range(100)]


@pytest.mark.parametrize("make", [
    lambda: torch.eye(10**5), lambda: torch.arange(10**10), lambda: torch.full((10**10,), 1.0),
    lambda: torch.zeros(3).new_zeros(10**10), lambda: torch.linspace(0, 1, 10**10),
])  # fmt: skip
def test_every_way_to_make_a_tensor_is_bounded(make):
    with pytest.raises(ModelFileError, match="would take more than"), BoundedBuild({}):
        make()


# ---------------------------------------------------------------------- devices


@pytest.fixture
def no_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_model_of_a_device_that_is_not_here_computes_on_the_cpu(raw, detector, X, reload, no_cuda, device):
    moved = rebuilt(raw, lambda header, _: header["detector"]["parameters"].update(device=device))
    with pytest.warns(GenadWarning, match=f"fitted for the device {device}, which is not here") as seen:
        again = reload(moved)
    assert len(seen) == 1
    assert again.device == "cpu"
    np.testing.assert_allclose(again.anomaly_score(X), detector.anomaly_score(X), rtol=1e-5)
    again.fit(X)


@pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning")
def test_detectors_inside_move_too_and_say_so_once(X, tmp_path, no_cuda):
    table = {"a": X[:, 0], "b": X[:, 1], "site": ["x", "y"] * 60}
    detector = Grouped(Windowed(Autoencoder(training=QUICK), window=6), by="site").fit(table)
    for inner in (detector.detector, *detector.detectors_.values()):
        inner.device = inner.detector.device = "cuda"
    path = detector.save(tmp_path / "model")
    with pytest.warns(GenadWarning) as seen:
        again = load(path)
    assert len(seen) == 1
    np.testing.assert_allclose(again.anomaly_score(table), detector.anomaly_score(table), rtol=1e-5)
    again.fit(table)


def test_a_device_that_is_none_is_refused(raw, reload):
    with pytest.raises(ModelFileError, match="cannot be rebuilt"):
        reload(rebuilt(raw, lambda header, _: header["detector"]["parameters"].update(device="abacus")))


# ---------------------------------------------------------------------- writing


def test_a_full_disk_leaves_nothing_behind(detector, tmp_path, monkeypatch):
    def full(tensors, path, metadata):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensor_files, "save_file", full)
    with pytest.raises(GenadError, match=r"cannot be written .*No space left.*nothing was left behind"):
        detector.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_keeps_the_old_file(detector, raw, tmp_path, monkeypatch):
    path = tmp_path / "model"
    path.write_bytes(raw)

    def full(tensors, path, metadata):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensor_files, "save_file", full)
    with pytest.raises(GenadError):
        detector.save(path)
    assert path.read_bytes() == raw
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_ctrl_c_while_writing_leaves_nothing_behind(detector, tmp_path, monkeypatch):
    def stopped(tensors, path, metadata):
        path.write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(tensor_files, "save_file", stopped)
    with pytest.raises(KeyboardInterrupt):
        detector.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_saving_onto_a_folder_says_so(detector, tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(GenadError, match="cannot be written"):
        detector.save(tmp_path / "model")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_parameter_that_is_no_plain_value_is_refused(X, tmp_path):
    detector = Autoencoder(training=QUICK, threshold=Conformal(alpha=0.1)).fit(X)
    detector.latent = object()
    with pytest.raises(InputError, match=r"^latent: a object cannot be saved"):
        detector.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_no_pickle_anywhere(raw, reload, monkeypatch):
    import pickle

    def forbidden(*args, **kwargs):
        raise AssertionError("pickle was asked for")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, forbidden)
    monkeypatch.setattr(torch, "load", forbidden)
    assert isinstance(reload(raw), Autoencoder)


def test_loading_leaves_random_numbers_alone(raw, reload):
    before = torch.get_rng_state()
    reload(raw)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loaded_detector_can_be_calibrated_and_fitted_again(raw, reload, X, detector):
    again = reload(raw)
    with pytest.warns(CalibrationWarning):
        again.set_params(threshold=None).calibrate(X[:50])
    assert again.threshold_.n == 50
    again.set_params(threshold=Conformal(alpha=0.1)).fit(X)
    assert again.anomaly_score(X).tobytes() == detector.anomaly_score(X).tobytes()
