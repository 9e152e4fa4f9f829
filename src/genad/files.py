"""Write files whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from genad.errors import GenadError


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write(temporary_path)`` and move the result to ``path``; leave nothing behind when it fails.

    Raises
    ------
    GenadError
        When the file cannot be written, for instance because the disk is full.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(beside)
        # Like any other file the user writes, whatever the writer made of it.
        umask = os.umask(0)
        os.umask(umask)
        beside.chmod(0o666 & ~umask)
        beside.replace(path)
    except (OSError, SafetensorError) as error:
        raise GenadError(
            f"{path}: cannot be written ({error}); nothing was left behind. Free some space or choose another path."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
