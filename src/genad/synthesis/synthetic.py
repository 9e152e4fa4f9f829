"""What a synthesizer hands back: images, masks, labels, where each came from, and a way to save them all."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genad.errors import InputError
from genad.extras import require


@dataclass(frozen=True)
class Synthetic:
    """Anomalous images made from normal ones, with everything known about them.

    Attributes
    ----------
    samples : array of shape (n, C, H, W)
        In the type and range of the images they were made from.
    masks : bool array of shape (n, H, W)
        True where a sample differs from its source; outside, the two are equal to the last bit.
    labels : int array of shape (n,)
        1 throughout: every sample is anomalous.
    sources : int array of shape (n,)
        The image each sample was made from, as an index.
    meta : list of dict
        For each sample the method and the parameters drawn for it.
    low, high : tuple of float
        The values of each channel that stand for black and for full intensity.
    """

    samples: NDArray[Any]
    masks: NDArray[np.bool_]
    labels: NDArray[np.int64]
    sources: NDArray[np.int64]
    meta: list[dict[str, Any]]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.samples)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write images, masks and a manifest into a folder, all or nothing.

        ``images/NAME.png`` and ``masks/NAME_mask.png`` (0 and 255) are listed in ``manifest.json`` and
        ``manifest.csv`` with label, source and parameters. uint8 pixels, and one channel of uint16, are written as
        they are; floats as 8 bits over their range; what PNG cannot hold (uint16 colour, 2 or more than 4 channels)
        as TIFF.

        Parameters
        ----------
        folder : path
            Made when it is not there.
        overwrite : bool
            Replace a folder that holds something.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        InputError
            When the folder holds something and ``overwrite`` is False, or is a file.
        MissingExtraError
            When Pillow (or tifffile, for TIFF) is not installed.
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise InputError(f"folder: {folder} is a file; name a folder.")
        if folder.is_dir() and any(folder.iterdir()) and not overwrite:
            raise InputError(f"folder: {folder} is not empty; name another one, or pass overwrite=True to replace it.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = folder.with_name(f".{folder.name}.{os.getpid()}.new")
        old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
        try:
            self._write(beside)
            if folder.exists():
                folder.replace(old)
            beside.replace(folder)
        finally:
            if old.exists() and not folder.exists():
                old.replace(folder)
            for leftover in (beside, old):
                shutil.rmtree(leftover, ignore_errors=True)
        return folder

    def _write(self, folder: Path) -> None:
        image = require("PIL.Image", "image")
        (folder / "images").mkdir(parents=True)
        (folder / "masks").mkdir()
        digits = max(4, len(str(len(self) - 1)))
        records = []
        for i, meta in enumerate(self.meta):
            stem = f"{meta.get('method', 'sample')}_{i:0{digits}d}"
            name = f"images/{stem}{_write_image(self._storable(i), folder / 'images' / stem)}"
            mask = f"masks/{stem}_mask.png"
            image.fromarray(self.masks[i].astype(np.uint8) * 255).save(folder / mask)
            records.append(
                {"image": name, "mask": mask, "label": int(self.labels[i]), "source": int(self.sources[i]), **meta}
            )
        (folder / "manifest.json").write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
        columns = list(dict.fromkeys(key for record in records for key in record))
        with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(records)

    def _storable(self, i: int) -> NDArray[Any]:
        """Return sample ``i`` as (C, H, W) of uint8 or uint16."""
        sample = self.samples[i]
        if sample.dtype.kind == "u":
            return sample
        low = np.array(self.low)[:, None, None]
        high = np.array(self.high)[:, None, None]
        stored: NDArray[Any] = np.rint(np.clip((sample - low) / (high - low), 0.0, 1.0) * 255).astype(np.uint8)
        return stored


def _write_image(pixels: NDArray[Any], stem: Path) -> str:
    """Write (C, H, W) of uint8 or uint16 to the stem with a fitting suffix, and return the suffix."""
    channels = pixels.shape[0]
    png = channels == 1 or (channels in (3, 4) and pixels.dtype == np.uint8)
    if not png:
        tifffile = require("tifffile", "image")
        photometric = "rgb" if channels in (3, 4) else "minisblack"
        planes = pixels.transpose(1, 2, 0) if photometric == "rgb" else pixels
        tifffile.imwrite(stem.with_name(stem.name + ".tif"), np.ascontiguousarray(planes), photometric=photometric)
        return ".tif"
    image = require("PIL.Image", "image")
    planes = pixels[0] if channels == 1 else pixels.transpose(1, 2, 0)
    image.fromarray(np.ascontiguousarray(planes)).save(stem.with_name(stem.name + ".png"))
    return ".png"
