"""Files of tensors with a JSON header: safetensors, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from genad.errors import ModelFileError
from genad.files import replace_file


def write_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors and a JSON header to one safetensors file, all or nothing."""
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    replace_file(path, lambda part: save_file(plain, part, metadata={"genad": json.dumps(header)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read back what :func:`write_tensors` wrote.

    Raises
    ------
    ModelFileError
        When the file is not a whole safetensors file of genad's.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["genad"])
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ModelFileError(
            f"{path}: not a whole genad file ({type(error).__name__}: {error}); make it again, or restore a copy."
        ) from error
