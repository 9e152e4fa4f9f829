"""Tables of labels beside images: which file is normal, which is not, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genad.data.container import listing
from genad.data.image.images import Images
from genad.data.io import read_table
from genad.errors import InputError

__all__ = ["NORMAL_WORDS", "LabelTable", "read_labels"]

#: Names of folders and labels that stand for normal images, in lower case.
NORMAL_WORDS = ("good", "normal", "ok", "healthy")
_UNKNOWN_WORDS = ("", "unknown", "unlabelled", "unlabeled", "none", "nan")
_FILE_COLUMNS = ("file", "filename", "file_name", "image", "path", "name")
_LABEL_COLUMNS = ("label", "class", "target", "defect_probability", "anomaly", "defect", "y")


@dataclass(frozen=True)
class LabelTable:
    """Labels of files, by name.

    Attributes
    ----------
    origin : str
        The table's file.
    labels : dict of str to int
        1 anomaly, 0 normal, -1 unknown, by the file as the table names it, with slashes.
    classes : dict of str to str
        The kind of defect; ``"good"`` for normal files, ``""`` for unknown ones.
    """

    origin: str
    labels: dict[str, int]
    classes: dict[str, str]

    def find(self, name: str) -> str | None:
        """Return the table's entry for an image: its path, or its file name where the path is not listed."""
        for key in (name, name.rpartition("/")[2]):
            if key in self.labels:
                return key
        return None

    def apply(self, images: Images, root: Path) -> Images:
        """Return the images with their labels.

        Parameters
        ----------
        images : Images
        root : Path
            The folder that names in the table are relative to.

        Raises
        ------
        InputError
            An image that the table does not list.
        """
        names = [_relative(path, root, name) for path, name in zip(images.paths, images.names, strict=True)]
        keys = [self.find(name) for name in names]
        missing = [name for name, key in zip(names, keys, strict=True) if key is None]
        if missing:
            raise InputError(
                f"labels: {self.origin} does not list {listing(missing, 5)} ({len(missing)} of {len(names)} images); "
                "add a row for each, with the label left empty where it is unknown."
            )
        found = [key for key in keys if key is not None]
        return images.described([self.labels[key] for key in found], [self.classes[key] for key in found])


def _relative(path: Path | None, root: Path, name: str) -> str:
    return path.relative_to(root).as_posix() if path is not None and path.is_relative_to(root) else name


def read_labels(path: Any) -> LabelTable:
    r"""Read a table with a column of files and a column of labels.

    Parameters
    ----------
    path : str or Path
        Any format that `read_table` reads. The column of files is called file, filename, image, path or name; that of
        labels label, class, target, defect_probability, anomaly, defect or y. Labels are 0 for normal and 1 for
        anomalous; or words, where good, normal, ok and healthy are normal and any other word is a kind of defect;
        values between 0 and 1, -1 and empty cells are unknown.

    Returns
    -------
    LabelTable

    Raises
    ------
    InputError
        A column is missing, a file is listed twice with different labels, or a number is outside -1 to 1.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "labels.csv"
    ...     _ = file.write_text("file,label\na.png,good\nb.png,crack\n")
    ...     read_labels(file).labels
    {'a.png': 0, 'b.png': 1}
    """
    table = read_table(path)
    files = _column(table.names, _FILE_COLUMNS, path, "files")
    column = _column(table.names, _LABEL_COLUMNS, path, "labels")
    labels: dict[str, int] = {}
    classes: dict[str, str] = {}
    for file, cell in zip(table.column(files).tolist(), table.column(column).tolist(), strict=True):
        name = str(file).replace("\\", "/").removeprefix("./")
        label, kind = _meaning(cell, name, path)
        if labels.setdefault(name, label) != label:
            raise InputError(f"labels: {path} lists {name!r} twice, with different labels; keep one row.")
        classes[name] = kind
    return LabelTable(str(path), labels, classes)


def _column(names: list[str], known: tuple[str, ...], path: Any, what: str) -> str:
    by_lower = {name.strip().lower(): name for name in names}
    for name in known:
        if name in by_lower:
            return by_lower[name]
    raise InputError(
        f"labels: {path} has columns {listing(names)}, none of them named for {what}; name one of them {known[0]!r}."
    )


def _meaning(cell: Any, name: str, path: Any) -> tuple[int, str]:
    """Return the label of a cell and the kind of defect it names."""
    if isinstance(cell, str):
        word = cell.strip()
        try:
            cell = float(word)
        except ValueError:
            if word.lower() in NORMAL_WORDS:
                return 0, "good"
            return (-1, "") if word.lower() in _UNKNOWN_WORDS else (1, word)
    if cell is None or np.isnan(cell):
        return -1, ""
    value = float(cell)
    if not -1 <= value <= 1:
        raise InputError(f"labels: {path} gives {name!r} the label {cell}; use 1, 0, -1 for unknown, or words.")
    if value == 0:
        return 0, "good"
    return (1, "anomaly") if value == 1 else (-1, "")
