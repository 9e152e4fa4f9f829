"""Warnings about images, given at the line of the user's own code."""

from __future__ import annotations

import sys
import warnings

from genad.errors import DataWarning

__all__ = ["warn"]


def warn(message: str) -> None:
    """Give a DataWarning that points to the first caller outside genad.

    Parameters
    ----------
    message : str
        Without its full stop.
    """
    frame, level = sys._getframe(1), 2  # noqa: SLF001  as the module warnings does to find the line
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("genad."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message + ".", DataWarning, stacklevel=level)
