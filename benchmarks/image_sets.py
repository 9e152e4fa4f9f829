"""The image sets of the benchmarks, split as the one-class protocol of each asks."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.common import DATA

IMAGES = DATA / "image"
SETS = ("magnetic_tile", "elpv", "brain_mri", "mnist")
#: Side of the maps and masks that pixels are judged on, whatever the size a method works at.
MASK_PX = 128


@dataclass(frozen=True)
class Split:
    """One task: learn from ``train``, tell apart ``test``.

    Attributes
    ----------
    name : str
    train, test : float32 array of shape (n, 1, px, px)
        Grey values in [0, 1]; ``train`` holds normal images alone.
    y : int array of shape (n_test,)
        1 = anomalous.
    masks : bool array of shape (n_test, 128, 128), or None
        True on a defect's pixels.
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    y: np.ndarray
    masks: np.ndarray | None = None


def splits(name: str, px: int, seed: int, digits: Sequence[int] = range(10)) -> Iterator[Split]:
    """Yield the tasks of a set at ``px`` pixels; MNIST has one a digit and keeps its 28 pixels."""
    if name == "magnetic_tile":
        yield _magnetic_tile(px)
    elif name == "mnist":
        yield from _mnist(digits)
    else:
        normal, abnormal = _elpv() if name == "elpv" else _brain_mri()
        normal = np.random.default_rng(seed).permutation(normal).tolist()
        half = len(normal) // 2
        y = np.r_[np.zeros(len(normal) - half, int), np.ones(len(abnormal), int)]
        yield Split(name, pictures(normal[:half], px), pictures([*normal[half:], *abnormal], px), y)


def _magnetic_tile(px: int) -> Split:
    root = IMAGES / "magnetic_tile"
    test = [Path(p) for p in listed(root / "test", "*/*")]
    masks = np.zeros((len(test), MASK_PX, MASK_PX), bool)
    for mask, path in zip(masks, test, strict=True):
        if path.parent.name != "good":
            truth = root / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
            mask[:] = _decoded(str(truth), MASK_PX, smooth=False) > 0
    y = np.array([path.parent.name != "good" for path in test], int)
    train = listed(root / "train" / "good")
    return Split("magnetic_tile", pictures(train, px), pictures([str(p) for p in test], px), y, masks)


def _elpv() -> tuple[list[str], list[str]]:
    """Return the cells that are surely whole and those that are surely defective; doubtful ones are left out."""
    with (IMAGES / "elpv" / "labels.csv").open(newline="") as file:
        rows = [(str(IMAGES / "elpv" / row["file"]), float(row["defect_probability"])) for row in csv.DictReader(file)]
    return [path for path, p in rows if p == 0], [path for path, p in rows if p == 1]


def _brain_mri() -> tuple[list[str], list[str]]:
    root = IMAGES / "brain_mri"
    return listed(root / "normal"), listed(root / "tumour")


def _mnist(digits: Sequence[int]) -> Iterator[Split]:
    """Train on the first half of a digit; test on its other half and on every third image of the other digits."""
    with np.load(IMAGES / "mnist10k.npz", allow_pickle=False) as file:
        X, y = file["X"].astype(np.float32)[:, None] / 255, file["y"]
    for digit in digits:
        own = np.flatnonzero(y == digit)
        half = len(own) // 2
        test = np.r_[own[half:], np.flatnonzero(y != digit)[::3]]
        yield Split(f"mnist {digit}", X[own[:half]], X[test], (y[test] != digit).astype(int))


def listed(folder: Path, pattern: str = "*") -> list[str]:
    return sorted(str(path) for path in folder.glob(pattern) if path.suffix in {".jpg", ".png"})


def pictures(paths: Sequence[str], px: int) -> np.ndarray:
    """Return images as grey values in [0, 1], float32 of shape (n, 1, px, px)."""
    return np.stack([_decoded(path, px) for path in paths])[:, None].astype(np.float32) / 255


@cache
def _decoded(path: str, px: int, *, smooth: bool = True) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(
            image.convert("L").resize((px, px), Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST)
        )
