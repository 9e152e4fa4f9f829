"""A catalog: classes that register themselves under a name, by which they are found, listed and made."""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import pkgutil
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from genad.errors import InputError, InputTypeError

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

T = TypeVar("T", bound=type)
C = TypeVar("C", bound="BaseEstimator")


def snake_case(name: str) -> str:
    """Turn a class name into a registry name.

    Examples
    --------
    >>> [snake_case(name) for name in ("MemAE", "OmniAnomaly", "DAGMM", "MADGAN", "VAE")]
    ['mem_ae', 'omni_anomaly', 'dagmm', 'madgan', 'vae']
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _bare(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).lower()


class Catalog(Generic[C]):
    """Classes by name, entered by the modules of some packages as these are imported.

    Parameters
    ----------
    noun : str
        What the classes are, for messages, for instance ``"detector"``.
    packages : sequence of str
        Packages whose modules register classes; all of them are imported on first use, and only then.
    listing : str
        Where the user finds all names, for messages; the message lists them itself when it is empty.
    """

    def __init__(self, noun: str, packages: Sequence[str], listing: str = "") -> None:
        self.noun = noun
        self.packages = tuple(packages)
        self.listing = listing
        self._classes: dict[str, type[C]] = {}
        self._complete = False

    def register(self, card: object, name: str | None = None) -> Callable[[T], T]:
        """Return a class decorator that enters a class and gives it the attributes ``card`` and ``name``.

        Parameters
        ----------
        card : object
            Facts of the method.
        name : str, optional
            Name in the catalog; the class name in snake case when absent.
        """

        def enter(cls: T) -> T:
            key = name or snake_case(cls.__name__)
            known = self._classes.get(key)
            if known is not None and known.__qualname__ != cls.__qualname__:
                msg = f"two {self.noun}s are registered as {key!r}: {known!r} and {cls!r}"
                raise RuntimeError(msg)
            cls.card = card  # type: ignore[attr-defined]
            cls.name = key  # type: ignore[attr-defined]
            self._classes[key] = cls
            return cls

        return enter

    def classes(self, pattern: str = "*") -> dict[str, type[C]]:
        """Return the classes whose names match a wildcard pattern, in alphabetical order; a copy, free to change."""
        if not self._complete:
            for package_name in self.packages:
                package = importlib.import_module(package_name)
                for module in pkgutil.walk_packages(package.__path__, package_name + "."):
                    importlib.import_module(module.name)
            self._complete = True
        return {name: cls for name, cls in sorted(self._classes.items()) if fnmatch.fnmatchcase(name, pattern)}

    def find(self, name: str) -> type[C]:
        """Return the class of a name, or of another name of its card; hyphens, underscores, capitals are free.

        Raises
        ------
        InputError
            When there is none; the message gives the nearest names.
        InputTypeError
            When the name is no text.
        """
        if not isinstance(name, str):
            raise InputTypeError(f"name: {name!r} was given; use the name of a {self.noun}, a text.")
        classes = self.classes()
        key = name.replace("-", "_").lower()
        if key not in classes:
            key = self._spellings(classes).get(_bare(name), key)
        if key not in classes:
            near = difflib.get_close_matches(key, classes, n=3, cutoff=0.5)
            elsewhere = f"see {self.listing}." if self.listing else f"use one of {', '.join(classes)}."
            hint = f"did you mean {' or '.join(near)}?" if near else elsewhere
            raise InputError(f"name: there is no {self.noun} called {name!r}; {hint}")
        return classes[key]

    @staticmethod
    def _spellings(classes: dict[str, type[C]]) -> dict[str, str]:
        """Return the name that each spelling without separators stands for; what stands for two is left out."""
        found: dict[str, set[str]] = {}
        for key, cls in classes.items():
            for each in (key, *getattr(cls.card, "aliases", ())):
                found.setdefault(_bare(each), set()).add(key)
        return {spelling: keys.pop() for spelling, keys in found.items() if len(keys) == 1}

    def make(self, name: str, params: dict[str, Any]) -> C:
        """Make an object of the class of a name.

        Raises
        ------
        InputError
            For an unknown name, or a parameter that the class does not have; the message gives the nearest ones.
        """
        cls = self.find(name)
        accepted = cls._get_param_names()
        for key in params:
            if key not in accepted:
                near = difflib.get_close_matches(key, accepted, n=2)
                hint = f" Did you mean {' or '.join(near)}?" if near else ""
                raise InputError(f"{key}: {cls.__name__} has no such parameter; it takes {', '.join(accepted)}.{hint}")
        return cls(**params)
