"""Optional dependencies: imported when needed, with one clear message when missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from genad.errors import MissingExtraError


def require(module: str, extra: str) -> ModuleType:
    """Import an optional module.

    Parameters
    ----------
    module : str
        Its import name.
    extra : str
        The extra of genad that installs it.

    Returns
    -------
    module

    Raises
    ------
    MissingExtraError
        When it is not installed.

    Examples
    --------
    >>> require("json", "image").loads("[1]")
    [1]
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingExtraError(f'{package} is needed for this: pip install "genad[{extra}]".') from error
