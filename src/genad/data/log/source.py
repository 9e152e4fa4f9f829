"""Lines of text files of any encoding and size: plain or compressed, long lines cut, binary files refused."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from genad.errors import InputError

__all__ = ["LONGEST", "LineSource"]

#: Bytes of a line that are kept.
LONGEST = 1 << 16
_BLOCK = 1 << 22
_OPENERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# What no text holds; tab, line ends and the escape of colours are left out.
_CONTROLS = bytes(set(range(32)) - {8, 9, 10, 12, 13, 27})


class LineSource:
    """Hands out the lines of a file in blocks, so that a file may be larger than memory.

    Parameters
    ----------
    path : str or Path
        Plain text, or compressed by gzip, bzip2 or xz, which is seen from its first bytes.
    encoding : str, optional
        UTF-8 when absent, UTF-16 where the file says so; a line that is not valid is then read as Windows-1252.
    longest : int
        Bytes of a line that are kept; the rest is left out.

    Attributes
    ----------
    cut : list of int
        Numbers of the lines that were cut, from 1.
    odd : list of int
        Numbers of the lines in another encoding than the rest.
    """

    def __init__(self, path: str | Path, encoding: str | None = None, longest: int = LONGEST) -> None:
        self.path = Path(path)
        if encoding is not None:
            try:
                codecs.lookup(encoding)
            except LookupError:
                raise InputError(f"encoding: {encoding!r} is not known; use a name such as 'utf-8' or None.") from None
        if not isinstance(longest, int) or isinstance(longest, bool) or longest < 256:
            raise InputError(f"longest: {longest!r} was given; use a whole number of bytes of at least 256.")
        self.encoding = encoding
        self.longest = longest
        self.cut: list[int] = []
        self.odd: list[int] = []
        self._at = 0

    def __iter__(self) -> Iterator[list[str]]:
        """Yield lists of lines without their ends.

        Raises
        ------
        InputError
            When the file is missing, a folder, empty, binary, or a damaged archive.
        """
        self.cut, self.odd, self._at = [], [], 0
        try:
            with self._open() as stream:
                for lines in self._blocks(stream):
                    yield self._decode(lines)
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise InputError(f"path: {self.path} is a damaged archive ({error}); get a whole copy.") from error
        except OSError as error:
            raise InputError(f"path: {self.path} cannot be read ({error.strerror or error}); check it.") from error
        if self._at == 0:
            raise InputError(f"path: {self.path} is empty; give a file with at least 1 line.")

    def _open(self) -> IO[bytes]:
        with self.path.open("rb") as file:
            head = file.read(8)
        opener: Any = next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), Path.open)
        stream: IO[bytes] = opener(self.path, "rb")
        first = stream.read(_BLOCK // 64)
        stream.seek(0)
        found = next((name for bom, name in _BOMS if first.startswith(bom)), None)
        wide = self.encoding or found or ""
        if wide.lower().replace("_", "-").startswith(("utf-16", "utf16", "utf-32")):
            return codecs.EncodedFile(stream, "utf-8", wide, "replace")
        odd = sum(map(first.count, (bytes([code]) for code in _CONTROLS)))
        if b"\0" in first or odd > 0.02 * len(first):
            stream.close()
            raise InputError(
                f"path: {self.path} is a binary file, not lines of text; export the log as text, or pass encoding= if "
                "it is text in a wide encoding such as 'utf-16'."
            )
        if found:
            stream.read(len(codecs.BOM_UTF8))
        return stream

    def _blocks(self, stream: IO[bytes]) -> Iterator[list[bytes]]:
        """Yield whole lines as bytes, none longer than what is kept plus a byte that tells."""
        rest, dropping = b"", False
        while data := stream.read(_BLOCK):
            if dropping:
                _, end, data = data.partition(b"\n")
                if not end:
                    continue
                yield [rest]
                rest, dropping = b"", False
            lines = (rest + data).split(b"\n")
            rest = lines.pop()
            if len(rest) > self.longest:
                rest, dropping = rest[: self.longest + 1], True
            if lines:
                yield lines
        if rest:
            yield [rest]

    def _decode(self, lines: list[bytes]) -> list[str]:
        first = self._at + 1
        self._at += len(lines)
        if max(map(len, lines)) > self.longest:
            for i, line in enumerate(lines):
                if len(line) > self.longest:
                    self.cut.append(first + i)
                    # A character may have been cut in two.
                    lines[i] = line[: self.longest].decode(self.encoding or "utf-8", "ignore").encode("utf-8")
        try:
            text = b"\n".join(lines).decode(self._codec)
        except UnicodeDecodeError:
            text = "\n".join(self._decode_line(line, first + i) for i, line in enumerate(lines))
        if "\x1b" in text:
            text = _ANSI.sub("", text)
        if "\r" in text:
            text = text.replace("\r\n", "\n").removesuffix("\r").replace("\r", " ")
        return text.split("\n")

    @property
    def _codec(self) -> str:
        wide = (self.encoding or "").lower().replace("_", "-").startswith(("utf-16", "utf16", "utf-32"))
        return "utf-8" if wide or self.encoding is None else self.encoding

    def _decode_line(self, line: bytes, number: int) -> str:
        try:
            return line.decode(self._codec)
        except UnicodeDecodeError:
            self.odd.append(number)
            return line.decode("cp1252", "replace")
