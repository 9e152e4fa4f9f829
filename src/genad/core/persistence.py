"""Model files: tensors and JSON in one checksummed safetensors file; loading one never runs code from it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from genad.core.bounded_build import BoundedBuild
from genad.core.calibration import FittedThreshold, threshold_from_dict
from genad.core.detections import jsonable
from genad.core.pixels import PixelCalibration
from genad.core.registry import detector_class
from genad.core.stacking import set_state
from genad.core.training import Training, TrainingReport
from genad.data.adapters import Adapter
from genad.data.image.augment import Augment
from genad.errors import GenadError, GenadWarning, InputError, ModelFileError
from genad.nn import Backbone
from genad.tensor_files import write_tensors

if TYPE_CHECKING:
    from genad.core.detector import Detector

#: Version of the layout below; a file of a higher one is refused.
FORMAT = 1
# A header longer than this is not one that genad wrote.
_LONGEST_HEADER = 64 * 2**20

# What parameters may hold besides plain values, and how each is read back. Nothing else is ever built from a file.
_READERS: dict[str, Any] = {
    "training": lambda fields: _training(**fields),
    "backbone": lambda fields: _backbone(**fields),
    "threshold": threshold_from_dict,
}


def read_parameter_with(key: str, reader: Callable[[dict[str, Any]], Any]) -> None:
    """Say how a parameter of this name is made again from what its ``to_dict`` returned."""
    _READERS[key] = reader


def _training(augment: dict[str, Any] | None = None, **others: Any) -> Training:
    return Training(augment=None if augment is None else Augment(**augment), **others)


def _backbone(hidden: list[int] | None = None, **others: Any) -> Backbone:
    return Backbone(hidden=None if hidden is None else tuple(hidden), **others)


def save(detector: Detector, path: Path) -> Path:
    """Write a fitted detector to ``path``, all or nothing.

    Raises
    ------
    NotFittedError
        When the detector is not fitted.
    GenadError
        When the file cannot be written.
    """
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(detector)
    tensors, record = pack(detector)
    checksum = _checksum(tensors, record)
    from genad import __version__

    header = {"format": FORMAT, "genad": __version__, "checksum": checksum, "detector": record}
    write_tensors(path, tensors, header)
    return path


def load(path: str | Path) -> Detector:
    """Read a detector from a file that :meth:`Detector.save` wrote.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Detector
        Fitted; it gives the very scores it gave when it was saved.

    Raises
    ------
    ModelFileError
        When the file is missing, corrupt, truncated, of a newer version, or not genad's.

    Warns
    -----
    GenadWarning
        When the device it was fitted for is not here; it then computes on the CPU.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror}); check the path.") from error
    header, tensors = _open(path, raw)
    version = header.get("format")
    if not isinstance(version, int) or version > FORMAT:
        raise ModelFileError(
            f"{path}: written by genad {header.get('genad')} in format {version}; this version reads up to format "
            f"{FORMAT}. Upgrade genad."
        )
    record = header.get("detector")
    if not isinstance(record, dict) or header.get("checksum") != _checksum(tensors, record):
        raise ModelFileError(
            f"{path}: the checksum does not match, so the file was changed or damaged; restore a copy."
        )
    try:
        missing = _move_to_cpu(record)
        detector = unpack(record, tensors)
    except (LookupError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError, GenadError) as error:
        raise ModelFileError(
            f"{path}: the model cannot be rebuilt ({type(error).__name__}: {error}). It may come from another version "
            f"of genad ({header.get('genad')})."
        ) from error
    if missing:
        warnings.warn(
            f"{path}: fitted for the device {', '.join(missing)}, which is not here; computing on the CPU. Use "
            "set_params(device=...) before the next fit for another one.",
            GenadWarning,
            stacklevel=2,
        )
    return detector


def _move_to_cpu(record: Any) -> list[str]:
    """Let the detectors of a record, nested ones too, compute on the CPU where their device is not here; name these."""
    if isinstance(record, list):
        return sorted({name for value in record for name in _move_to_cpu(value)})
    if not isinstance(record, dict):
        return []
    found = {name for value in record.values() for name in _move_to_cpu(value)}
    parameters = record.get("parameters")
    if "name" in record and isinstance(parameters, dict) and _is_missing(parameters.get("device")):
        found.add(parameters["device"])
        parameters["device"] = "cpu"
    return sorted(found)


def _is_missing(device: Any) -> bool:
    """Return whether this names a device, but none of this machine."""
    try:
        kind, _, place = str(torch.device(device)).partition(":") if isinstance(device, str) else ("", "", "")
    except RuntimeError:
        return False
    if kind == "cuda":
        return not torch.cuda.is_available() or int(place or 0) >= torch.cuda.device_count()
    return kind == "mps" and not torch.backends.mps.is_available()


def _open(path: Path, raw: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    broken = ModelFileError(f"{path}: not a whole genad model file; it may be truncated. Restore a copy or fit again.")
    if len(raw) < 8:
        raise broken
    (length,) = struct.unpack("<Q", raw[:8])
    if length > min(_LONGEST_HEADER, len(raw) - 8):
        raise broken
    try:
        metadata = json.loads(raw[8 : 8 + length])["__metadata__"]
        header, tensors = json.loads(metadata["genad"]), load_tensors(raw)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise broken from error
    if not isinstance(header, dict):
        raise broken
    return header, tensors


def _checksum(tensors: dict[str, Tensor], record: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest()


def pack(detector: Detector, prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the JSON record of a detector, fitted or not; nested detectors nest."""
    tensors: dict[str, Tensor] = {}
    record: dict[str, Any] = {"name": detector.name, "parameters": {}}
    for key, value in detector.get_params(deep=False).items():
        record["parameters"][key] = _plain_parameter(key, value)
    if not hasattr(detector, "threshold_"):
        return tensors, record
    fitted = detector.fitted_state()
    record["fitted"] = {}
    for key, value in fitted.items():
        if isinstance(value, dict) and value and all(isinstance(v, Tensor) for v in value.values()):
            tensors |= {f"{prefix}{key}/{name}": v for name, v in value.items()}
        elif isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            tensors[f"{prefix}{key}"] = torch.from_numpy(np.ascontiguousarray(value))
        elif _is_detector(value):
            inner, record["fitted"][key] = pack(value, f"{prefix}{key}//")
            tensors |= inner
        else:
            record["fitted"][key] = jsonable(value)
    return tensors, record


def unpack(record: dict[str, Any], tensors: dict[str, Tensor], prefix: str = "") -> Detector:
    """Make the detector again from what :func:`pack` returned."""
    cls = detector_class(record["name"])
    accepted = cls._get_param_names()
    parameters = {}
    for key, value in record["parameters"].items():
        if key not in accepted:
            raise KeyError(f"{cls.__name__} has no parameter {key!r}")
        parameters[key] = _read_parameter(key, value)
    detector = cls(**parameters)
    if "fitted" in record:
        mine = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        state: dict[str, Any] = {}
        for key, value in record["fitted"].items():
            nested = isinstance(value, dict) and "name" in value and "parameters" in value
            state[key] = unpack(value, tensors, f"{prefix}{key}//") if nested else value
        for name, tensor in mine.items():
            if "//" in name:
                continue
            key, _, leaf = name.partition("/")
            if leaf:
                state.setdefault(key, {})[leaf] = tensor
            else:
                state[key] = tensor.numpy()
        detector.set_fitted_state(state)
    return detector


def _is_detector(value: Any) -> bool:
    from genad.core.detector import Detector

    return isinstance(value, Detector)


def _plain_parameter(key: str, value: Any) -> Any:
    if _is_detector(value):
        return {"~detector": pack(value)[1]}
    if isinstance(value, list | tuple) and value and all(_is_detector(v) for v in value):
        return {"~detectors": [pack(v)[1] for v in value]}
    if key in _READERS and hasattr(value, "to_dict"):
        return {f"~{key}": value.to_dict()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {k: _field(v) for k, v in vars(value).items() if v is not None}
        return {f"~{key}": fields}
    if isinstance(value, tuple):
        return {"~tuple": list(value)}
    if value is not None and not isinstance(value, bool | int | float | str | list | np.number):
        raise InputError(f"{key}: a {type(value).__name__} cannot be saved; use plain values.")
    return jsonable(value)


def _field(value: Any) -> Any:
    """Return a field of a dataclass as plain JSON, dataclasses inside as their fields."""
    return jsonable(vars(value) if dataclasses.is_dataclass(value) else value)


def _read_parameter(key: str, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((tag, inner),) = value.items()
    if tag == "~detector":
        return unpack(inner, {})
    if tag == "~detectors":
        return [unpack(v, {}) for v in inner]
    if tag == "~tuple":
        return tuple(inner)
    if tag == f"~{key}" and key in _READERS:
        return _READERS[key](inner)
    raise ValueError(f"parameter {key!r} is stored as {tag!r}, which is not known")


def network_state(detector: Detector) -> dict[str, Any]:
    """Return the fitted state every detector has."""
    return {
        "net": {k.replace("/", "|"): v for k, v in detector.net_.state_dict().items()},
        "shape": list(detector.sample_shape_),
        "seed": detector.seed_,
        "adapter": {"type": type(detector.adapter_).__name__, "state": detector.adapter_.state()},
        "threshold": detector.threshold_.to_dict(),
        "calibration_scores": detector.calibration_scores_,
        "calibration_traits": detector.calibration_traits_,
        "anomaly_traits": detector.anomaly_traits_,
        "feedback": detector.feedback_state(),
        "bounds": detector.bounds_,
        "report": vars(detector.training_report_),
        "pixels": None if detector.pixels_ is None else detector.pixels_.state(),
        "reading": dict(detector.reading_),
        "n_features_in": detector.n_features_in_,
        "feature_names_in": [str(n) for n in getattr(detector, "feature_names_in_", [])],
    }


def restore_network_state(detector: Detector, state: dict[str, Any]) -> None:
    """Put back what :func:`network_state` returned; the network goes to the detector's device."""
    from genad.core.runtime import isolated_rng, resolve_device

    device = resolve_device(detector.device)
    detector.device_ = str(device)
    detector.seed_ = int(state["seed"])
    detector.sample_shape_ = tuple(int(n) for n in state["shape"])
    adapter = state["adapter"]
    detector.adapter_ = Adapter.types[adapter["type"]].from_state(adapter["state"])
    detector._prepare()  # noqa: SLF001 - the other half of fit
    stored = state.get("net", {})
    with isolated_rng(0, device), BoundedBuild(stored):
        net = detector.build(detector.sample_shape_)
    net = net.to(device)
    set_state(net, {k.replace("|", "/"): v for k, v in stored.items()})
    detector.net_ = net.eval().requires_grad_(requires_grad=False)
    detector.threshold_ = FittedThreshold.from_dict(state["threshold"])
    detector.offset_ = -detector.threshold_.value
    detector.calibration_scores_ = np.asarray(state["calibration_scores"], np.float64)
    # Files written before labels could be given hold neither traits nor what was learnt from labels.
    traits = state.get("calibration_traits", detector.calibration_scores_[:, None])
    detector.calibration_traits_ = np.asarray(traits, np.float64)
    anomalies = state.get("anomaly_traits")
    detector.anomaly_traits_ = None if anomalies is None else np.asarray(anomalies, np.float64)
    detector.set_feedback_state(state.get("feedback"))
    detector.bounds_ = np.asarray(state["bounds"], np.float64)
    detector.training_report_ = TrainingReport(**state["report"])
    pixels = state.get("pixels")
    detector.pixels_ = None if pixels is None else PixelCalibration.from_state(pixels)
    detector.reading_ = dict(state.get("reading", {}))
    detector.n_features_in_ = int(state["n_features_in"])
    if state["feature_names_in"]:
        detector.feature_names_in_ = np.asarray(state["feature_names_in"], dtype=object)
