"""The registry of synthesizers: each has a card, and a name by which it is created, listed and tested."""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from genad.core.registry import snake_case
from genad.data.kinds import Kind
from genad.errors import InputError

if TYPE_CHECKING:
    from genad.synthesis.base import Synthesizer

_CLASSES: dict[str, type[Synthesizer]] = {}
T = TypeVar("T", bound=type)


@dataclass(frozen=True, kw_only=True)
class SynthesisCard:
    """Where a way of making anomalies comes from and what it takes.

    Attributes
    ----------
    title, authors, venue, year
        The paper, or a plain description when the method is a composition.
    kinds : tuple of Kind
        The kinds of data it takes.
    row : str
        Row of the survey's list; empty for a composition of genad's own.
    summary : str
        One line for listings.
    learned : bool
        Whether it has to be fitted on real anomalies before it can be used.
    """

    title: str
    authors: str
    venue: str
    year: int
    kinds: tuple[Kind, ...]
    row: str = ""
    summary: str = ""
    learned: bool = False


def register_synthesizer(card: SynthesisCard, *, name: str | None = None) -> Callable[[T], T]:
    """Return a class decorator that enters a synthesizer in the registry.

    Parameters
    ----------
    card : SynthesisCard
        Facts of the method.
    name : str, optional
        Registry name; the class name in snake case when absent.
    """

    def enter(cls: T) -> T:
        key = name or snake_case(cls.__name__)
        known = _CLASSES.get(key)
        if known is not None and known.__qualname__ != cls.__qualname__:
            msg = f"two synthesizers are registered as {key!r}: {known!r} and {cls!r}"
            raise RuntimeError(msg)
        cls.card = card  # type: ignore[attr-defined]
        cls.name = key  # type: ignore[attr-defined]
        _CLASSES[key] = cls
        return cls

    return enter


@cache
def _import_methods() -> None:
    package = importlib.import_module("genad.synthesis")
    for module in pkgutil.walk_packages(package.__path__, "genad.synthesis."):
        importlib.import_module(module.name)


def synthesizers() -> dict[str, type[Synthesizer]]:
    """Return every registered synthesizer class by name, in alphabetical order."""
    _import_methods()
    return dict(sorted(_CLASSES.items()))


def list_synthesizers(pattern: str = "*") -> list[str]:
    """List the names of registered synthesizers that match a wildcard pattern.

    Examples
    --------
    >>> list_synthesizers("cut*")
    ['cut_paste']
    """
    return [name for name in synthesizers() if fnmatch.fnmatchcase(name, pattern)]


def create_synthesizer(name: str, /, **params: Any) -> Synthesizer:
    """Make a synthesizer by its registry name.

    Parameters
    ----------
    name : str
        As in :func:`list_synthesizers`; a hyphen counts as an underscore.
    **params
        Hyper-parameters of the synthesizer.

    Returns
    -------
    Synthesizer
        Not fitted.

    Raises
    ------
    InputError
        For an unknown name, or a parameter the synthesizer does not have; the message gives the nearest ones.

    Examples
    --------
    >>> create_synthesizer("cut-paste", scar=0.25)
    CutPaste(scar=0.25)
    """
    classes = synthesizers()
    key = name.replace("-", "_").lower()
    if key not in classes:
        near = difflib.get_close_matches(key, classes, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"use one of {', '.join(classes)}."
        raise InputError(f"name: there is no synthesizer called {name!r}; {hint}")
    cls = classes[key]
    accepted = cls._get_param_names()
    for given in params:
        if given not in accepted:
            close = difflib.get_close_matches(given, accepted, n=2)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            raise InputError(f"{given}: {cls.__name__} has no such parameter; it takes {', '.join(accepted)}.{hint}")
    return cls(**params)
