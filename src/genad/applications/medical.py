"""Medical slices: answers by volume, in millilitres, and written back as volumes that lie on the originals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from genad.data.image.medical import save_nifti

if TYPE_CHECKING:
    from genad.core.pixels import ImageDetections

__all__ = ["NOTICE", "VolumeAnswer", "by_volume", "export_volumes"]

#: What every medical answer must be read with.
NOTICE = "For research only: not a medical device, not for diagnosis."


@dataclass(frozen=True)
class VolumeAnswer:
    """What was found in one volume.

    Attributes
    ----------
    name : str
        File of the volume, or folder of the series.
    slices, flagged : int
        Slices judged, and those flagged.
    score : float
        Highest score of a slice; raw units of the method.
    worst : int
        Number of that slice in the volume.
    p_value : float
        Lowest p-value of a slice, times the number of slices (Bonferroni), at most 1.
    millilitres : float or None
        Volume of the masked tissue of flagged slices; None where the spacing is not known.
    """

    name: str
    slices: int
    flagged: int
    score: float
    worst: int
    p_value: float
    millilitres: float | None


def _slices(found: ImageDetections) -> dict[str, list[tuple[int, int]]]:
    """Return (position, number in the volume) of the slices of each volume."""
    assert found.images is not None  # noqa: S101 - checked by the callers
    places: dict[str, list[tuple[int, int]]] = {}
    for i, name in enumerate(found.images.names):
        volume, mark, number = name.rpartition("#")
        if mark and number.isdigit():
            places.setdefault(volume, []).append((i, int(number)))
    return places


def by_volume(found: ImageDetections) -> list[VolumeAnswer]:
    """Sum the answers of slices up by volume, the highest score first.

    Parameters
    ----------
    found : ImageDetections
        Of images some of which are slices of volumes.

    Returns
    -------
    list of VolumeAnswer
        Empty without volumes.
    """
    if found.images is None:
        return []
    answers = []
    for name, places in _slices(found).items():
        at = np.array([i for i, _ in places])
        best = int(np.argmax(found.scores[at]))
        facts = found.images.meta.get("volumes", {}).get(name)
        millilitres = None
        if facts is not None and np.isfinite(facts.spacing).all() and found.maps is not None and found.pixels:
            masked = sum(int(found.mask(int(i)).sum()) for i in at if found.is_anomaly[i])
            millilitres = masked * float(np.prod(facts.spacing)) / 1000.0
        answers.append(
            VolumeAnswer(
                name,
                len(at),
                int(found.is_anomaly[at].sum()),
                float(found.scores[at[best]]),
                places[best][1],
                min(1.0, float(found.p_values[at].min()) * len(at)),
                millilitres,
            )
        )
    return sorted(answers, key=lambda answer: -answer.score)


def export_volumes(found: ImageDetections, folder: str | Path) -> list[Path]:
    """Write the anomaly map and the mask of every NIfTI volume as volumes with the original's geometry.

    Parameters
    ----------
    found : ImageDetections
    folder : str or Path
        Gets NAME_map.nii.gz and NAME_mask.nii.gz for each volume.

    Returns
    -------
    list of Path
        Empty when no slice comes from a NIfTI file.
    """
    written: list[Path] = []
    if found.images is None:
        return written
    for name, places in _slices(found).items():
        like = found.images.paths[places[0][0]]
        facts = found.images.meta.get("volumes", {}).get(name)
        if like is None or facts is None or not like.name.lower().endswith((".nii", ".nii.gz")):
            continue
        stem = name.removesuffix(".gz").removesuffix(".nii").replace("/", "_")
        numbers = [number for _, number in places]
        for kind, one in (("map", found.pixel_map), ("mask", found.mask)):
            volume = np.stack([np.asarray(one(i), np.float32) for i, _ in places])
            target = Path(folder) / f"{stem}_{kind}.nii.gz"
            written.append(save_nifti(target, volume, like, indices=numbers, axis=facts.axis))
    return written
