"""Collections of images joined into one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from genad.data.container import listing
from genad.data.image.cache import allocate
from genad.data.image.images import Images
from genad.errors import InputError


def join(parts: Sequence[Images]) -> Images:
    """Join collections of one working size, number of channels and depth, see :meth:`Images.concat`."""
    if not parts:
        raise InputError("parts: none was given; give at least one collection of images.")
    first = parts[0]
    for part in parts[1:]:
        if part.shape != first.shape or part.pixels.dtype != first.pixels.dtype:
            raise InputError(
                f"parts: {first!r} and {part!r} differ in shape or depth; read both with the same size= and channels=."
            )
    names = [name for part in parts for name in part.names]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise InputError(f"parts: more than one image is named {listing(twice)}; names are unique.")
    pixels = allocate((len(names), *first.shape), first.pixels.dtype, first.memory)
    start = 0
    for part in parts:
        pixels[start : start + len(part)] = part.pixels
        start += len(part)
    unknown = [np.full(len(part), -1) if part.labels is None else part.labels for part in parts]
    return Images(
        pixels,
        names,
        np.concatenate([part.sizes for part in parts]),
        [origin for part in parts for origin in part.origins],
        paths=[path for part in parts for path in part.paths],
        value_range=(min(part.low for part in parts), max(part.high for part in parts)),
        labels=None if all(part.labels is None for part in parts) else np.concatenate(unknown),
        classes=_joined([part.classes for part in parts], parts, ""),
        masks=_joined([part.mask_files for part in parts], parts, None),
        broken={name: why for part in parts for name, why in part.broken.items()},
        meta={"volumes": {k: v for part in parts for k, v in part.meta.get("volumes", {}).items()}},
        memory=first.memory,
    )


def _joined(columns: list[Any], parts: Sequence[Images], missing: Any) -> list[Any] | None:
    if all(column is None for column in columns):
        return None
    filled = [[missing] * len(p) if c is None else c for c, p in zip(columns, parts, strict=True)]
    return [cell for column in filled for cell in column]
