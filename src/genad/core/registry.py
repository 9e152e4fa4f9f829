"""The registry: every method has a card, and a name by which it is created, listed, saved and tested."""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from genad.data.kinds import Kind
from genad.errors import InputError

if TYPE_CHECKING:
    from genad.core.detector import Detector


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


# The packages whose modules register methods; each is walked once, on first use.
_METHOD_PACKAGES = (
    "genad.reconstruction",
    "genad.density",
    "genad.representation",
    "genad.restoration",
    "genad.committee",
    "genad.core",
)
_CLASSES: dict[str, type[Detector]] = {}
T = TypeVar("T", bound=type)


def snake_case(name: str) -> str:
    """Turn a class name into a registry name.

    Examples
    --------
    >>> [snake_case(name) for name in ("MemAE", "OmniAnomaly", "DAGMM", "MADGAN", "VAE")]
    ['mem_ae', 'omni_anomaly', 'dagmm', 'madgan', 'vae']
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def register(card: Card, *, name: str | None = None) -> Callable[[T], T]:
    """Return a class decorator that enters a detector in the registry.

    Parameters
    ----------
    card : Card
        Facts of the method.
    name : str, optional
        Registry name; the class name in snake case when absent.
    """

    def enter(cls: T) -> T:
        key = name or snake_case(cls.__name__)
        known = _CLASSES.get(key)
        if known is not None and known.__qualname__ != cls.__qualname__:
            msg = f"two detectors are registered as {key!r}: {known!r} and {cls!r}"
            raise RuntimeError(msg)
        cls.card = card  # type: ignore[attr-defined]
        cls.name = key  # type: ignore[attr-defined]
        _CLASSES[key] = cls
        return cls

    return enter


@cache
def _import_methods() -> None:
    for package_name in _METHOD_PACKAGES:
        package = importlib.import_module(package_name)
        for module in pkgutil.walk_packages(package.__path__, package_name + "."):
            importlib.import_module(module.name)


def registered() -> dict[str, type[Detector]]:
    """Return every registered detector class by name, in alphabetical order."""
    _import_methods()
    return dict(sorted(_CLASSES.items()))


def detector_class(name: str) -> type[Detector]:
    """Return the class registered under ``name``.

    Raises
    ------
    InputError
        When there is none; the message lists the nearest names.
    """
    classes = registered()
    key = name.replace("-", "_").lower()
    if key not in classes:
        near = difflib.get_close_matches(key, classes, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "see genad.list_detectors()."
        raise InputError(f"name: there is no detector called {name!r}; {hint}")
    return classes[key]


def create(name: str, /, **params: Any) -> Detector:
    """Make a detector by its registry name.

    Parameters
    ----------
    name : str
        As in :func:`list_detectors`; a hyphen counts as an underscore.
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
    cls = detector_class(name)
    accepted = cls._get_param_names()
    for key in params:
        if key not in accepted:
            near = difflib.get_close_matches(key, accepted, n=2)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise InputError(f"{key}: {cls.__name__} has no such parameter; it takes {', '.join(accepted)}.{hint}")
    return cls(**params)


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
        for name, cls in registered().items()
        if fnmatch.fnmatchcase(name, pattern)
        and (kind is None or any(k in cls.card.kinds for k in wanted))
        and (family is None or cls.card.family is family)
    ]


E = TypeVar("E", bound=StrEnum)


def _member(enum: type[E], value: str, argument: str) -> E:
    try:
        return enum(value)
    except ValueError:
        accepted: Iterable[str] = (str(member) for member in enum)
        raise InputError(f"{argument}: {value!r} is not known; use one of {', '.join(accepted)}.") from None
