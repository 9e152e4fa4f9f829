"""The main job: choose a detector for some data, fit, calibrate and answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from genad.applications.choosing import Choice, choose_for_images, choose_for_log
from genad.applications.data import Data
from genad.applications.reading import read, read_both
from genad.core.calibration import Conformal
from genad.core.registry import create, detector_class
from genad.core.windows import Windowed
from genad.data.image import Images
from genad.data.kinds import Kind
from genad.data.log import Sessions
from genad.errors import InputError, InputTypeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from genad.core.detections import Detections
    from genad.core.detector import Detector

__all__ = [
    "DEFAULTS",
    "Data",
    "choice_for",
    "default_detector",
    "detect",
    "kind_for",
    "make_detector",
    "read",
    "read_both",
    "wrapped",
]

#: The detector of each kind when none is named.
DEFAULTS: dict[Kind, str] = {
    Kind.TABLE: "table_committee",
    Kind.SERIES: "series_committee",
    Kind.IMAGE: "image_committee",
    Kind.LOG: "template_count_pca",
}

# What a wrapper of windows decides for the detector inside it.
_OUTER = ("threshold", "holdout", "random_state", "device", "verbose", "spread")


def default_detector(kind: Kind | str, **params: Any) -> Detector:
    """Make the detector that genad uses for a kind of data when none is named.

    Parameters
    ----------
    kind : {"table", "series", "image", "log"}
        The kind of data.
    **params
        Hyper-parameters, as for :func:`genad.create`.

    Returns
    -------
    Detector
        Not fitted.

    Raises
    ------
    InputError
        For another kind, or a parameter the detector does not have.

    Examples
    --------
    >>> default_detector("table").name
    'table_committee'
    """
    if kind not in DEFAULTS:
        raise InputError(f"kind: {str(kind)!r} has no default detector; use one of {', '.join(DEFAULTS)}.")
    return create(DEFAULTS[Kind(kind)], **params)


def kind_for(method: str | None, kind: Kind | str | None = None, window: int | None = None) -> Kind | str | None:
    """Return the kind of data that follows from what was asked for, before the data are read.

    Parameters
    ----------
    method : str or None
        Name of a detector; one of series reads its data as a series, one of logs as a log.
    kind : str, optional
        Wins when given.
    window : int, optional
        Only a series has windows.

    Returns
    -------
    Kind, str or None
        None leaves it to the data.

    Examples
    --------
    >>> kind_for("windowed").value, kind_for("autoencoder")
    ('series', None)
    """
    if kind is not None:
        return kind
    if window is not None or (method and detector_class(method).reads_as is Kind.SERIES):
        return Kind.SERIES
    return Kind.LOG if method and detector_class(method).card.kinds == (Kind.LOG,) else None


def choice_for(given: Data, learnt: Data, application: str = "") -> Choice | None:
    """Choose a method by the data to learn from; None for a kind that has one default.

    Parameters
    ----------
    given, learnt : Data
        To judge and to learn from; one object when they are the same.
    application : {"", "industrial", "medical"}
        What images are looked at for.
    """
    if isinstance(learnt.X, Images):
        return choose_for_images(learnt.X, application or "industrial")
    if isinstance(learnt.X, Sessions):
        # Windows of lines are named so; ids, cases and stretches between gaps are not.
        by_id = not learnt.X.names[0].startswith(("lines ", "from ")) and int(learnt.X.lengths.max()) > 1
        return choose_for_log(learnt.X, normal=learnt is not given, by_id=by_id)
    return None


def wrapped(kind: Kind, method: str | None) -> bool:
    """Say whether a method sees the data through windows only: a dense method and a series."""
    return kind is Kind.SERIES and method is not None and detector_class(method).reads_as is None


def make_detector(
    kind: Kind,
    method: str | None,
    params: Mapping[str, Any],
    *,
    alpha: float | None = None,
    window: int | None = None,
) -> Detector:
    """Make the detector of a job: the named or default one, in windows where a series needs it.

    Parameters
    ----------
    kind : Kind
        Of the data.
    method : str or None
        Name of a detector; the default of the kind when None.
    params : mapping
        Hyper-parameters.
    alpha : float, optional
        False-alarm rate on normal units, in (0, 1).
    window : int, optional
        Steps in a window of a series.

    Returns
    -------
    Detector
        Not fitted.

    Raises
    ------
    InputError
        For an unknown method or parameter, or an alpha out of range.

    Examples
    --------
    >>> make_detector(Kind.SERIES, "autoencoder", {"latent": 2}, window=8)
    Windowed(detector=Autoencoder(latent=2), window=8)
    """
    settings = dict(params)
    if alpha is not None:
        if settings.get("threshold") is not None:
            raise InputError("alpha: a threshold was given as well; give one of the two.")
        settings["threshold"] = Conformal(alpha)
    if wrapped(kind, method):
        outer = {key: settings.pop(key) for key in _OUTER if key in settings}
        return Windowed(create(str(method), **settings), window=window, **outer)
    if window is not None:
        settings["window"] = window
    return default_detector(kind, **settings) if method is None else create(method, **settings)


def detect(
    source: Any,
    *,
    train: Any = None,
    method: str | None = None,
    kind: Kind | str | None = None,
    time: str | None = None,
    entity: str | None = None,
    labels: Any = None,
    alpha: float | None = None,
    fdr: float | None = None,
    window: int | None = None,
    session: Any = None,
    **params: Any,
) -> Detections:
    """Find the anomalies in some data, from reading it to localising and restoring them.

    Parameters
    ----------
    source : path, array or dataframe
        What to look at.
    train : path, array or dataframe, optional
        Mostly normal data to learn from; ``source`` itself when absent.
    method : str, optional
        Name of a detector; the kind's default when absent.
    kind : {"table", "series", "log"}, optional
        See :func:`read`.
    time, entity : str, optional
        Columns of a series.
    labels : str, path or array, optional
        Known labels, see :func:`read_both`; units to learn from that are labelled 1 are left out.
    alpha : float, optional
        False-alarm rate on normal units, in (0, 1); 0.01 when absent.
    fdr : float, optional
        False discovery rate of the flags, in (0, 1), instead of ``alpha``.
    window : int, optional
        Steps in a window of a series.
    session : str, sequence of str or mapping, optional
        How the records of a log are grouped, see :func:`genad.applications.logs.parse_session`.
    **params
        Hyper-parameters of the detector.

    Returns
    -------
    Detections
        One entry a row, time step, image or session.

    Raises
    ------
    InputError
        When the data or an argument cannot be used.
    TrainingError
        When the loss stops being finite.

    Examples
    --------
    >>> import numpy as np, genad
    >>> X = np.random.default_rng(0).normal(size=(500, 3))
    >>> X[7] += 9
    >>> found = genad.detect(X, method="autoencoder", training=genad.Training(updates=50))
    >>> int(found.top(1)[0])
    7
    """
    if method is not None and not isinstance(method, str):
        raise InputTypeError(
            f"method: a {type(method).__name__} was given; use the name of a detector. One that is made already is "
            "fitted with fit() and asked with detect()."
        )
    asked = kind_for(method, kind, window)
    given, learnt = read_both(source, train, labels=labels, kind=asked, time=time, entity=entity, session=session)
    choice = choice_for(given, learnt) if method is None else None
    if choice is not None:
        method, params = choice.method, choice.params | params
    detector = make_detector(given.kind, method, params, alpha=alpha, window=window)
    detector.fit(learnt.X, learnt.labels)
    return detector.detect(given.X, fdr=fdr)
