"""Fit a detector as the command line asks for it, and read data for a fitted one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genad.cli.settings import build_settings, parse_settings
from genad.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from genad.applications.data import Data
    from genad.cli.groups import Columns
    from genad.cli.logs import LogOptions, ModelOptions
    from genad.cli.terminal import Terminal
    from genad.core.detector import Detector

# What a model remembers of how its file was read.
_REMEMBERED = ("time", "entity", "session", "layout")
# Columns it was not fitted on, which later files may have or lack.
_LEFT_OUT = ("labels", "drop")


@dataclasses.dataclass(frozen=True)
class Request:
    """Which detector is asked for.

    Attributes
    ----------
    method : str or None
        Its name; None for the default of the kind.
    window : int or None
        Steps in a window.
    alpha : float or None
        False-alarm rate.
    settings : sequence of str
        Assignments ``name=value``.
    seed : int
        Seed of everything random.
    device : str or None
        Where to compute.
    why : str
        Why this method, in words; "" when it follows from ``method``.
    model : ModelOptions or None
        The language model to ask.
    """

    method: str | None = None
    window: int | None = None
    alpha: float | None = None
    settings: Sequence[str] = ()
    seed: int = 0
    device: str | None = None
    why: str = ""
    model: ModelOptions | None = None


def named(method: str | None) -> str | None:
    """Return the registry name of a method, which may be written without its underscores.

    Examples
    --------
    >>> named("logprompt"), named("autoencoder"), named("nonsense")
    ('log_prompt', 'autoencoder', 'nonsense')
    """
    from genad.core.registry import list_detectors

    if method is None:
        return None
    bare = {name.replace("_", ""): name for name in list_detectors()}
    return bare.get(method.lower().replace("_", "").replace("-", ""), method)


def settled(request: Request, given: Data, learnt: Data, application: str = "") -> Request:
    """Return the request with a method chosen by the data when none is named; some kinds have one default."""
    from genad.applications.detection import choice_for

    choice = None if request.method is not None else choice_for(given, learnt, application)
    if choice is None:
        return request
    chosen = [f"{name}={value}" for name, value in choice.params.items()]
    return dataclasses.replace(request, method=choice.method, why=choice.why, settings=[*chosen, *request.settings])


def paths(*given: str | None) -> None:
    """Refuse to read standard input twice.

    Raises
    ------
    InputError
        When more than one of the given paths is "-".
    """
    if sum(path == "-" for path in given) > 1:
        raise InputError("PATH and --train are both -; only one can be standard input.")


def fit(data: Data, request: Request, checkpoint: Path, terminal: Terminal) -> Detector:
    """Make the detector asked for and fit it; an interrupted fit leaves a checkpoint behind.

    Parameters
    ----------
    data : Data
        What to learn from.
    request : Request
        The detector.
    checkpoint : Path
        File to leave behind and to go on from.
    terminal : Terminal
        Shows progress and takes notes.

    Returns
    -------
    Detector
        Fitted.

    Raises
    ------
    InputError
        For an unknown method or parameter, or data that cannot be used.
    KeyboardInterrupt
        On Ctrl-C, with a message that says how to go on.
    """
    from genad.applications.detection import DEFAULTS, make_detector, wrapped
    from genad.core.registry import detector_class
    from genad.core.training import Training
    from genad.core.windows import Windowed

    cls = detector_class(request.method or DEFAULTS[data.kind])
    classes = [cls, Windowed] if wrapped(data.kind, request.method) else [cls]
    settings = build_settings(parse_settings(request.settings), classes)
    training = settings.get("training") or Training()
    checkpoint = Path(training.checkpoint or checkpoint)
    settings["training"] = dataclasses.replace(training, checkpoint=checkpoint)
    settings |= {
        "random_state": request.seed,
        "device": request.device,
        "verbose": terminal.progress,
    }
    if request.model is not None:
        settings |= {k: v for k, v in request.model.settings(cls, checkpoint).items() if k not in settings}
    detector = make_detector(data.kind, request.method, settings, alpha=request.alpha, window=request.window)
    if checkpoint.exists():
        terminal.note(f"going on from {checkpoint}, which an interrupted run left behind")
    try:
        detector.fit(data.X, data.labels)
    except KeyboardInterrupt:
        if not checkpoint.exists():
            raise KeyboardInterrupt("nothing was kept; run the same command again") from None
        raise KeyboardInterrupt(
            f"the training so far is in {checkpoint}; run the same command again to go on"
        ) from None
    _forget_run(detector)
    return detector


def _forget_run(detector: Detector) -> None:
    """Take out what belongs to the run and not to the model: checkpoint, progress bar, budget and cache.

    The language model that is open keeps its own.
    """
    from genad.core.training import Training

    for name, value in detector.get_params(deep=True).items():
        if name.split("__")[-1] == "training" and isinstance(value, Training) and value.checkpoint:
            bare = dataclasses.replace(value, checkpoint=None)
            detector.set_params(**{name: None if bare == Training() else bare})
        elif name.split("__")[-1] == "verbose" and value:
            detector.set_params(**{name: False})
        elif name in ("budget", "cache") and value is not None and "llm" in detector.get_params(deep=False):
            detector.set_params(**{name: None})


def remember(detector: Detector, reading: Mapping[str, Any]) -> None:
    """Keep with a detector how the file it learnt from was read, so that later commands need not be told again."""
    kept = {name: reading[name] for name in _REMEMBERED if reading.get(name)}
    ignore = [str(name) for part in _LEFT_OUT for name in _names(reading.get(part))]
    detector.reading_ = kept | ({"ignore": ignore} if ignore else {})


def _names(given: Any) -> Sequence[Any]:
    return () if given is None else [given] if isinstance(given, str | Path) else given


def read_for(detector: Detector, path: str, columns: Columns, logs: LogOptions) -> Data:
    """Read a file as the kind of data a fitted detector knows, and as it was read for the fit unless told otherwise.

    Raises
    ------
    InputError
        When the file cannot be read as that kind, or no file can be.
    """
    from genad.applications.reading import read

    kind = detector.describe()["kind"]
    if kind == "image":
        from genad.applications.images import read_image_data

        channels, *size = detector.sample_shape_
        return read_image_data(path, size=(size[0], size[1]), channels=channels)
    if kind not in ("table", "series", "log"):
        raise InputError(f"--model: this model judges a {kind}, which no table file holds; use it from Python.")
    asked = columns.arguments() | logs.arguments()
    return read(path, kind=kind, **asked | {k: v for k, v in detector.reading_.items() if not asked.get(k)})
