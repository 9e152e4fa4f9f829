"""Read a folder of images by its layout."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from genad.data.container import listing
from genad.data.image.cache import MEMORY
from genad.data.image.decode import PIXEL_LIMIT
from genad.data.image.files import sources_of
from genad.data.image.images import Images
from genad.data.image.layout import Entry, Plan, recognise
from genad.data.image.masks import Mask
from genad.data.image.notice import warn
from genad.data.image.reading import Progress, load
from genad.errors import InputError

__all__ = ["ImageFolder", "read_image_folder"]

_SHOWN = 5


@dataclass(frozen=True)
class ImageFolder:
    """What a folder of images holds.

    Attributes
    ----------
    train : Images
        To learn from: normal images, or all where nothing is known.
    test : Images or None
        To judge. The very object ``train`` where the folder has no labels; None where it has normal images only.
    layout : str
        ``"mvtec"``, ``"btad"``, ``"visa"``, ``"classes"``, ``"labels"``, ``"normal only"`` or ``"flat"``.
    why : str
        By what it was recognised, in words.
    notes : list of str
        What a reader of the results should know.
    """

    train: Images
    test: Images | None
    layout: str
    why: str
    notes: list[str]


def read_image_folder(
    root: Any,
    *,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    skip_broken: bool = False,
    memory: int = MEMORY,
    labels: Any = None,
    seed: int = 0,
    pixel_limit: int = PIXEL_LIMIT,
    axis: str = "axial",
    progress: Progress | None = None,
) -> ImageFolder:
    """Read a folder of images and tell apart what to learn from and what to judge.

    Recognised are, in this order:

    - ``labels=``: half of the normal images train, the others and the anomalous ones test, the unknown ones are left
      out;
    - MVTec: train/good, test/<class>, ground_truth/<class>/NAME_mask.png or NAME.png; BTAD is the same with ok, ko;
    - VisA: Data/Images/Normal and Anomaly with Data/Masks/Anomaly; its own split where split_csv/1cls.csv lies beside
      the category, otherwise half of the normal images train;
    - a file labels.csv in the folder, as if it were passed as ``labels=``;
    - classes: a folder good, normal, ok or healthy, and others named by their defect: half of the normal images train;
    - only such a normal folder: nothing to judge;
    - flat: any other folder; all images are both learnt from and judged.

    Parameters
    ----------
    root : path
        A folder.
    size, channels, skip_broken, memory, pixel_limit, axis, progress
        As in `read_images`. Training and test images share size, channels and depth.
    labels : path, optional
        A table with a column of files and one of labels, see `read_labels`.
    seed : int, default 0
        Chooses which half of the normal images trains where the folder does not say.

    Returns
    -------
    ImageFolder

    Raises
    ------
    InputError
        No such folder, no image, only one to learn from, no folder of normal images, or several categories at once.

    Warns
    -----
    DataWarning
        Files that train also test; those of `read_images`.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for i, name in enumerate(["normal/a.png", "normal/b.png", "normal/c.png", "normal/d.png", "crack/e.png"]):
    ...         (Path(root) / name).parent.mkdir(exist_ok=True)
    ...         Image.new("L", (8, 8), i).save(Path(root) / name)
    ...     folder = read_image_folder(root)
    >>> folder.layout, len(folder.train), folder.test.classes
    ('classes', 2, ['good', 'good', 'crack'])
    """
    path = Path(root)
    if not path.exists():
        raise InputError(f"{path} does not exist: check the path.")
    if not path.is_dir():
        raise InputError(f"{path} is a file; give a folder, or read a single image with read_images().")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed: {seed!r} was given; use a whole number of at least 0.")
    plan = recognise(path, labels, int(seed))
    return _read(
        path,
        plan,
        pixel_limit,
        axis,
        size=size,
        channels=channels,
        skip_broken=skip_broken,
        memory=memory,
        progress=progress,
    )


def _read(root: Path, plan: Plan, pixel_limit: int, axis: str, **options: Any) -> ImageFolder:
    _check_enough(root, plan)
    tested = plan.test or []
    entries = {entry.path: entry for entry in [*plan.train, *tested]}
    if plan.test:
        _warn_of_overlap(plan.train, plan.test, root)
    images = load(sources_of(list(entries), root, pixel_limit, axis), **options)
    owners = [entries[path] for path in images.paths if path is not None]
    if plan.layout != "flat":
        images = images.described(
            [entry.label for entry in owners],
            [entry.kind for entry in owners],
            _masks(images, owners, root, pixel_limit, axis),
        )
    trained = {entry.path for entry in plan.train}
    train = np.array([path in trained for path in images.paths], bool)
    if train.sum() < 2:
        raise InputError(_too_few(root, int(train.sum())))
    notes = [*plan.notes]
    if images.broken:
        notes.append(f"{len(images.broken)} files cannot be read and are left out: {listing(list(images.broken), 5)}.")
    if plan.layout == "flat":
        notes.append("Nothing says which images are normal: all are learnt from, and all are judged.")
        return ImageFolder(images, images, plan.layout, plan.why, notes)
    test = images.take(~train) if not train.all() else None
    return ImageFolder(images.take(train), test, plan.layout, plan.why, notes)


def _masks(images: Images, owners: list[Entry], root: Path, pixel_limit: int, axis: str) -> list[Mask | None] | None:
    if all(entry.mask is None for entry in owners):
        return None
    files = sorted({entry.mask for entry in owners if entry.mask is not None})
    found = {}
    for file in files:
        (source,) = sources_of([file], root, pixel_limit, axis)
        # Labels are no intensities: a volume of them is read as it is.
        found[file] = replace(source, scaled=False) if hasattr(source, "scaled") else source  # type: ignore[type-var]
    indices = [origin.index for origin in images.origins]
    return [None if e.mask is None else Mask(found[e.mask], i) for e, i in zip(owners, indices, strict=True)]


def _check_enough(root: Path, plan: Plan) -> None:
    volumes = any(entry.path.name.lower().endswith((".nii", ".nii.gz", ".dcm")) for entry in plan.train)
    if len(plan.train) < 2 and not volumes and not any(_is_tiff(entry.path) for entry in plan.train):
        raise InputError(_too_few(root, len(plan.train)))


def _is_tiff(path: Path) -> bool:
    return path.suffix.lower() in {".tif", ".tiff"}


def _too_few(root: Path, count: int) -> str:
    return (
        f"{root} gives {count} image{'s' * (count != 1)} to learn from; at least 2 are needed, some hundred are "
        "better. To judge a single image, give it to a fitted model."
    )


def _warn_of_overlap(train: list[Entry], test: list[Entry], root: Path) -> None:
    """Warn of test files whose bytes are those of a training file."""
    lengths: dict[int, list[Path]] = {}
    for entry in train:
        lengths.setdefault(entry.path.stat().st_size, []).append(entry.path)
    digests: dict[int, dict[bytes, Path]] = {}
    pairs = []
    for entry in test:
        length = entry.path.stat().st_size
        if length in lengths:
            if length not in digests:
                digests[length] = {_digest(path): path for path in lengths[length]}
            twin = digests[length].get(_digest(entry.path))
            if twin is not None:
                pairs.append((entry.path.relative_to(root).as_posix(), twin.relative_to(root).as_posix()))
    if pairs:
        shown = ", ".join(f"{a} = {b}" for a, b in pairs[:_SHOWN])
        more = f" and {len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else ""
        warn(
            f"{len(pairs)} test images are also learnt from, byte for byte ({shown}{more}): their scores say "
            "nothing of new images"
        )


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
