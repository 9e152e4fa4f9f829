"""The registry: every method has a card, and a name by which it is created, listed, saved and tested."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from genad.core.catalog import Catalog, snake_case
from genad.data.kinds import Kind
from genad.errors import InputError

if TYPE_CHECKING:
    from genad.core.detector import Detector

__all__ = [
    "Card",
    "Family",
    "create",
    "detector_class",
    "list_detectors",
    "register",
    "registered",
    "snake_case",
]

T = TypeVar("T", bound=type)
E = TypeVar("E", bound=StrEnum)


class Family(StrEnum):
    """The families of the survey's taxonomy."""

    AUTOENCODER = "autoencoder"
    VAE = "vae"
    GAN = "gan"
    DIFFUSION = "diffusion"
    FLOW = "flow"
    ENERGY = "energy"
    MEMORY = "memory"
    LINEAR = "linear"
    LANGUAGE_MODEL = "language model"
    RECURRENT = "recurrent"
    COMMITTEE = "committee"
    WRAPPER = "wrapper"


@dataclass(frozen=True, kw_only=True)
class Card:
    """Where a method comes from and what it takes.

    Attributes
    ----------
    title, authors, venue, year
        The paper, or a plain description when the method is genad's own.
    family : Family
        Branch of the taxonomy.
    kinds : tuple of Kind
        The kinds of data the method takes directly.
    row : str
        Row of the survey's list, for instance ``"1.1.1-01"``; empty for genad's own.
    summary : str
        One line for listings.
    tags : tuple of str
        Further words to search by.
    """

    title: str
    authors: str
    venue: str
    year: int
    family: Family
    kinds: tuple[Kind, ...]
    row: str = ""
    summary: str = ""
    tags: tuple[str, ...] = field(default=())


_CATALOG: Catalog[Detector] = Catalog(
    "detector",
    (
        "genad.reconstruction",
        "genad.density",
        "genad.representation",
        "genad.restoration",
        "genad.committee",
        "genad.core",
    ),
    listing="genad.list_detectors()",
)


def register(card: Card, *, name: str | None = None) -> Callable[[T], T]:
    """Return a class decorator that enters a detector in the registry.

    Parameters
    ----------
    card : Card
        Facts of the method.
    name : str, optional
        Registry name; the class name in snake case when absent.
    """
    return _CATALOG.register(card, name)


def registered() -> dict[str, type[Detector]]:
    """Return every registered detector class by name, in alphabetical order."""
    return _CATALOG.classes()


def detector_class(name: str) -> type[Detector]:
    """Return the class registered under ``name``.

    Raises
    ------
    InputError
        When there is none; the message lists the nearest names.
    """
    return _CATALOG.find(name)


def create(name: str, /, **params: Any) -> Detector:
    """Make a detector by its registry name.

    Parameters
    ----------
    name : str
        As in :func:`list_detectors`; hyphens, underscores and capitals are free.
    **params
        Hyper-parameters of the detector.

    Returns
    -------
    Detector
        Not fitted.

    Raises
    ------
    InputError
        For an unknown name, or a parameter the detector does not have.

    Examples
    --------
    >>> import genad
    >>> genad.create("autoencoder", latent=4)
    Autoencoder(latent=4)
    """
    return _CATALOG.make(name, params)


def list_detectors(
    pattern: str = "*",
    *,
    kind: Kind | str | None = None,
    family: Family | str | None = None,
) -> list[str]:
    """List the names of registered detectors.

    Parameters
    ----------
    pattern : str
        Wildcard pattern on the name, for instance ``"*vae*"``.
    kind : str, optional
        Keep the detectors that take this kind of data; for ``"series"`` these include the dense ones, which
        :class:`genad.Windowed` turns into series detectors.
    family : str, optional
        Keep one family.

    Returns
    -------
    list of str
        In alphabetical order.

    Examples
    --------
    >>> import genad
    >>> "dagmm" in genad.list_detectors("dag*", kind="table")
    True
    """
    kind = None if kind is None else _member(Kind, kind, "kind")
    family = None if family is None else _member(Family, family, "family")
    wanted = (Kind.SERIES, Kind.WINDOW) if kind is Kind.SERIES else (kind,)
    return [
        name
        for name, cls in _CATALOG.classes(pattern).items()
        if (kind is None or any(k in cls.card.kinds for k in wanted)) and (family is None or cls.card.family is family)
    ]


def _member(enum: type[E], value: str, argument: str) -> E:
    try:
        return enum(value)
    except ValueError:
        accepted: Iterable[str] = (str(member) for member in enum)
        raise InputError(f"{argument}: {value!r} is not known; use one of {', '.join(accepted)}.") from None
