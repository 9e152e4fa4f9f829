"""The kinds of data, each with its unit of scoring: the one table every part of the library reads."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """A kind of data, named as users name it."""

    TABLE = "table"
    SERIES = "series"
    WINDOW = "window"
    IMAGE = "image"
    VIDEO = "video"
    LOG = "log"


@dataclass(frozen=True)
class KindFacts:
    """What the library needs to know of one kind of data.

    Attributes
    ----------
    unit : str
        What one score stands for, in the singular, as users read it.
    axes : tuple of str
        Names of the axes of one sample.
    channel_axis : int
        The axis of one sample along which values share a scale.
    map_shape : str
        The shape of an anomaly map, in words.
    """

    unit: str
    axes: tuple[str, ...]
    channel_axis: int
    map_shape: str


KINDS: dict[Kind, KindFacts] = {
    Kind.TABLE: KindFacts("row", ("feature",), 0, "(rows, features)"),
    Kind.SERIES: KindFacts("time step", ("step", "channel"), 1, "(steps, channels)"),
    Kind.WINDOW: KindFacts("window", ("step", "channel"), 1, "(windows, steps, channels)"),
    Kind.IMAGE: KindFacts("image", ("channel", "row", "column"), 0, "(images, channels, rows, columns)"),
    Kind.VIDEO: KindFacts("clip", ("frame", "channel", "row", "column"), 1, "(clips, frames, channels, rows, columns)"),
    Kind.LOG: KindFacts("session", ("event",), 0, "(sessions, events)"),
}

#: The kinds whose samples are dense arrays; a method independent of the data works on all of them.
DENSE: tuple[Kind, ...] = (Kind.TABLE, Kind.WINDOW, Kind.IMAGE, Kind.VIDEO)

_BY_RANK = {1: Kind.TABLE, 2: Kind.WINDOW, 3: Kind.IMAGE, 4: Kind.VIDEO}


def kind_of_shape(shape: tuple[int, ...]) -> Kind:
    """Return the kind that a plain array of samples of this shape is read as.

    Parameters
    ----------
    shape : tuple of int
        The shape of one sample: ``(d,)``, ``(T, C)``, ``(C, H, W)`` or ``(T, C, H, W)``.

    Returns
    -------
    Kind

    Raises
    ------
    KeyError
        For a rank with no meaning; callers turn it into an error that names their argument.

    Examples
    --------
    >>> kind_of_shape((3, 32, 32)).value
    'image'
    """
    return _BY_RANK[len(shape)]
