"""Read the images of a job: which to learn from, which to judge, and what is known of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from genad.applications.data import Data
from genad.data.image import Images, holds_images, read_image_folder, read_images
from genad.data.kinds import Kind
from genad.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["is_image_source", "read_image_data", "read_image_job"]


def is_image_source(*sources: Any) -> bool:
    """Say whether the data of a job are images: a collection, or an image file, or any folder."""
    return any(
        isinstance(source, Images)
        or (isinstance(source, str | Path) and (Path(source).is_dir() or holds_images(source)))
        for source in sources
    )


def read_image_data(
    source: Any, *, size: int | tuple[int, int] | None = None, skip_broken: bool = False, **options: Any
) -> Data:
    """Read images that are all of one purpose, without looking for a layout.

    Parameters
    ----------
    source : Images, path or list of paths
        One file, or a folder searched with its folders.
    size : int or tuple of int, optional
        Working size in pixels, see :func:`genad.data.image.read_images`.
    skip_broken : bool
        Name files that cannot be read and go on, instead of stopping.
    **options
        As for :func:`genad.data.image.read_images`.

    Returns
    -------
    Data
    """
    images = (
        source
        if isinstance(source, Images)
        else read_images(source, size=size, skip_broken=skip_broken, **_given(options))
    )
    return Data(images, Kind.IMAGE, images.labels, "it holds images", list(getattr(images, "notes", [])))


def read_image_job(
    source: Any,
    train: Any = None,
    *,
    labels: Any = None,
    size: int | tuple[int, int] | None = None,
    skip_broken: bool = False,
    only: Sequence[str] = (),
    **options: Any,
) -> tuple[Data, Data]:
    """Read images to judge and images to learn from.

    Parameters
    ----------
    source : Images or path
        Without ``train``, a folder in one of the known layouts (MVTec, BTAD, VisA, a folder of normal images beside
        others) tells the two apart by itself; in a folder without any layout every image is both.
    train : Images or path, optional
        Mostly normal images to learn from.
    labels : path or array, optional
        As in :func:`genad.data.image.read_images`.
    size, skip_broken
        As in :func:`read_image_data`.
    only : sequence of str
        Not for images: columns.
    **options
        As for :func:`genad.data.image.read_images`.

    Returns
    -------
    given, learnt : Data

    Raises
    ------
    InputError
        When no image can be read, or an option of tables was given.
    """
    if only:
        raise InputError(f"{only[0]}: images have no columns; leave this option out.")
    common = {"size": size, "skip_broken": skip_broken, **_given(options)}
    if train is not None:
        learnt = read_image_data(train, **common)
        # Images to judge take the working size of those learnt from.
        shape = tuple(int(n) for n in learnt.X.shape)
        given = read_image_data(source, **common | {"size": shape[1:], "channels": shape[0], "labels": labels})
        return given, learnt
    if isinstance(source, Images) or Path(source).is_file():
        both = read_image_data(source, **common | {"labels": labels})
        return both, both
    folder = read_image_folder(source, **common | {"labels": labels})
    notes = [*folder.notes, folder.why]
    learnt = Data(folder.train, Kind.IMAGE, folder.train.labels, folder.why, notes)
    if folder.test is None or folder.test is folder.train:
        return learnt, learnt
    return Data(folder.test, Kind.IMAGE, folder.test.labels, folder.why, notes), learnt


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Leave out what was not asked for, so that defaults stay where they are written."""
    return {name: value for name, value in options.items() if value is not None}
