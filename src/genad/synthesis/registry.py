"""The registry of synthesizers: each has a card, and a name by which it is created, listed and tested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from genad.core.catalog import Catalog
from genad.data.kinds import Kind

if TYPE_CHECKING:
    from genad.synthesis.contract import SynthesizerBase

_CATALOG: Catalog[SynthesizerBase] = Catalog("synthesizer", ("genad.synthesis",))
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
    aliases : tuple of str
        Other names it is found by, such as the paper's.
    """

    title: str
    authors: str
    venue: str
    year: int
    kinds: tuple[Kind, ...]
    row: str = ""
    summary: str = ""
    learned: bool = False
    aliases: tuple[str, ...] = ()


def register_synthesizer(card: SynthesisCard, *, name: str | None = None) -> Callable[[T], T]:
    """Return a class decorator that enters a synthesizer in the registry.

    Parameters
    ----------
    card : SynthesisCard
        Facts of the method.
    name : str, optional
        Registry name; the class name in snake case when absent.
    """
    return _CATALOG.register(card, name)


def synthesizers() -> dict[str, type[SynthesizerBase]]:
    """Return every registered synthesizer class by name, in alphabetical order."""
    return _CATALOG.classes()


def list_synthesizers(pattern: str = "*", kind: Kind | str | None = None) -> list[str]:
    """List the names of registered synthesizers that match a wildcard pattern.

    Parameters
    ----------
    pattern : str
        With ``*`` and ``?``.
    kind : {"image", "table", "series"}, optional
        Only those that take this kind of data.

    Examples
    --------
    >>> list_synthesizers("cut*", "image")
    ['cut_paste']
    """
    return [name for name, cls in _CATALOG.classes(pattern).items() if kind is None or kind in cls.card.kinds]


def create_synthesizer(name: str, /, **params: Any) -> Any:
    """Make a synthesizer by its registry name.

    Parameters
    ----------
    name : str
        As in :func:`list_synthesizers`, or another name that the field uses, such as ``"nsa"``; hyphens, underscores
        and capitals are free.
    **params
        Hyper-parameters of the synthesizer.

    Returns
    -------
    Synthesizer, RowSynthesizer or SeriesSynthesizer
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
    return _CATALOG.make(name, params)
