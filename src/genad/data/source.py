"""Where bytes come from: a file, a stream or standard input, opened as often as needed."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from genad.errors import InputError, InputTypeError

__all__ = ["Source"]


class Source:
    """Bytes with a name for messages, readable more than once.

    Parameters
    ----------
    origin : str, Path, or file object
        A path, ``"-"`` for standard input, or an open text or binary stream, which is read whole.

    Raises
    ------
    InputError
        No such file, a folder, no permission, or nothing in it.
    InputTypeError
        Something else than a path or stream.
    """

    def __init__(self, origin: Any) -> None:
        self.path: Path | None = None
        self._data = b""
        if isinstance(origin, str) and origin == "-":
            self.label = "standard input"
            self._data = sys.stdin.buffer.read()
        elif hasattr(origin, "read"):
            self.label = str(getattr(origin, "name", "the stream"))
            data = origin.read()
            self._data = data.encode("utf-8") if isinstance(data, str) else bytes(data)
        elif isinstance(origin, (str, Path)) or hasattr(origin, "__fspath__"):
            self.path = Path(origin)
            self.label = str(self.path)
            self._check_path(self.path)
        else:
            msg = f"a table is read from a path or a stream, not from a {type(origin).__name__}"
            raise InputTypeError(msg)
        start = self.head(2, raw=True)
        if not start:
            msg = f"{self.label} is empty: give a file with a header and at least one row"
            raise InputError(msg)
        self.gzipped = start == b"\x1f\x8b"

    def _check_path(self, path: Path) -> None:
        if path.is_dir():
            msg = f"{path} is a folder: give the path of one file in it"
            raise InputError(msg)
        if not path.exists():
            near = sorted(p.name for p in path.parent.glob(path.stem + ".*"))[:3]
            hint = f"; the folder has {', '.join(near)}" if near else ""
            msg = f"{path} does not exist{hint}: check the path"
            raise InputError(msg)
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            msg = f"{path} cannot be opened ({error.strerror}): check its permissions"
            raise InputError(msg) from error

    @property
    def suffixes(self) -> list[str]:
        """Endings of the name in lower case, without those of compression."""
        name = self.path.name if self.path is not None else ""
        return [s.lower() for s in Path(name).suffixes if s.lower() not in {".gz", ".gzip"}]

    def open(self, *, raw: bool = False) -> Any:
        """Open the bytes from their start.

        Parameters
        ----------
        raw : bool, default False
            Leave gzip data compressed.

        Returns
        -------
        file object
            Binary, to be closed by the caller.
        """
        if raw or not self.gzipped:
            return io.BytesIO(self._data) if self.path is None else self.path.open("rb")
        # GzipFile closes a file it opened itself, but not one it was handed.
        return gzip.open(io.BytesIO(self._data) if self.path is None else self.path, "rb")

    def arrow(self) -> Any:
        """Open the bytes for pyarrow, which reads files without holding Python's lock.

        Returns
        -------
        pyarrow.NativeFile
            Decompressed on the way.
        """
        raw = pa.BufferReader(self._data) if self.path is None else pa.OSFile(str(self.path), "rb")
        return pa.CompressedInputStream(raw, "gzip") if self.gzipped else raw

    def head(self, size: int, *, raw: bool = False) -> bytes:
        """Read the first bytes.

        Parameters
        ----------
        size : int
            How many at most.
        raw : bool, default False
            Leave gzip data compressed.

        Returns
        -------
        bytes
            The start of the data.
        """
        with self.open(raw=raw) as file:
            return bytes(file.read(size))
