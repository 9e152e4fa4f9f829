"""How well does each detector find and localise defects in images? Beside four references, in the same run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import process_time
from typing import TypeVar

import numpy as np

from benchmarks.common import DATA, quiet, timed
from benchmarks.image_references import Found, PatchNeighbours, PixelNeighbours, PixelPCA, PooledNeighbours
from benchmarks.image_sets import MASK_PX, SETS, Split, splits
from benchmarks.rows import Rows

T = TypeVar("T")
FEATURES = "mvtec_features"
#: Methods that look at an image through a frozen network, and so want it larger; a card may say so with its tag too.
FROZEN = frozenset({"patch_memory", "feature_memory", "padim", "fast_flow", "image_committee"})
FROZEN_TAG = "frozen features"
PIXEL_PX, FROZEN_PX = 32, 128
#: What runs on tables of features when no method is named.
TABLE_METHODS = ("table_committee", "flow")
REFERENCES = {
    "pixel PCA": PixelPCA,
    "pixel 3-NN": PixelNeighbours,
    "3-NN of pooled EfficientNet": PooledNeighbours,
    "patches of EfficientNet": PatchNeighbours,
}
NOTES = [
    "Pixel methods work at 32 px, those on frozen features at 128 px, all on MNIST at 28 px.",
    "Pixel PCA takes every fourth pixel of 128. Maps are enlarged bilinearly to 128 px and judged there.",
    "genad keeps 20 % of the training images for calibration; the references learn from all of them.",
    "Seconds are of one processor, not of the clock.",
    "A spread is the highest less the lowest image AUROC of the seeds; MNIST is the mean of its digits.",
    "The seed draws the split of elpv, brain_mri and the features; magnetic_tile and MNIST have a fixed one.",
]


class Detector:
    """Adapter of a genad detector to what the references answer."""

    def __init__(self, name: str, seed: int) -> None:
        import genad

        self.detector = genad.create(name, random_state=seed)

    def fit(self, X: np.ndarray) -> None:
        self.detector.fit(X)

    def find(self, X: np.ndarray) -> Found:
        found = self.detector.detect(X, restore=False)
        maps = found.maps
        return Found(found.scores, maps.sum(1) if maps is not None and maps.ndim == 4 else maps)


@dataclass
class Figures:
    """What was measured of one method on one set: a list an entry, one value a seed."""

    auroc: list[float] = field(default_factory=list)
    ap: list[float] = field(default_factory=list)
    pixel: list[float] = field(default_factory=list)
    aupro: list[float] = field(default_factory=list)
    fit: list[float] = field(default_factory=list)
    score: list[float] = field(default_factory=list)

    def take(self, runs: list[Figures]) -> None:
        """Add a seed: the mean of its tasks."""
        for name, values in vars(self).items():
            found = [value for run in runs for value in vars(run)[name]]
            if found:
                values.append(float(np.mean(found)))

    def row(self, method: str, name: str, px: int | None) -> dict[str, object]:
        row: dict[str, object] = {"method": method, "set": name}
        if px is not None:
            row["px"] = px
        row |= {"image AUROC": round(np.mean(self.auroc), 4), "image AP": round(np.mean(self.ap), 4)}
        if self.pixel:
            row |= {"pixel AUROC": round(np.mean(self.pixel), 4), "AUPRO": round(np.mean(self.aupro), 4)}
        return row | {
            "fit s": round(np.mean(self.fit), 2),
            "ms an image": round(np.mean(self.score), 3),
            "spread": round(float(np.ptp(self.auroc)), 4),
            "seeds": len(self.auroc),
        }


def measure(model: Detector | PixelPCA, split: Split) -> Figures:
    """Fit and judge one model on one task."""
    from genad.metrics import aupro, auroc, average_precision, pixel_auroc

    _, fit = cpu_timed(lambda: model.fit(split.train))
    found, score = cpu_timed(lambda: model.find(split.test))
    figures = Figures(
        [auroc(split.y, found.scores)],
        [average_precision(split.y, found.scores)],
        fit=[fit],
        score=[1e3 * score / len(split.test)],
    )
    if split.masks is not None and found.maps is not None:
        maps = enlarged(found.maps)
        figures.pixel, figures.aupro = [pixel_auroc(maps, split.masks)], [aupro(maps, split.masks)]
    return figures


def cpu_timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return what ``work`` returns and the seconds of processor it took, which a busy machine hardly changes."""
    start = process_time()
    result = work()
    return result, process_time() - start


def enlarged(maps: np.ndarray) -> np.ndarray:
    """Return maps (n, h, w) at the size of the masks."""
    import torch

    small = torch.from_numpy(np.asarray(maps, np.float32))[:, None]
    size = (MASK_PX, MASK_PX)
    return torch.nn.functional.interpolate(small, size, mode="bilinear", align_corners=False)[:, 0].numpy()


def feature_tables(seed: int) -> Iterator[Split]:
    """Yield the MVTec categories as tables of ResNet18 features: half of the normals train, the rest is told apart."""
    for path in sorted((DATA / "tabular" / "mvtec_resnet18").glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            X, y = file["X"].astype(np.float32), file["y"].astype(int).ravel()
        normal = np.random.default_rng(seed).permutation(np.flatnonzero(y == 0))
        half = len(normal) // 2
        test = np.r_[normal[half:], np.flatnonzero(y == 1)]
        yield Split(path.stem, X[normal[:half]], X[test], y[test])


class NearestRow:
    """Distance to the nearest training row, features z-scored by the training rows."""

    def __init__(self, seed: int) -> None:
        pass  # nothing is drawn

    def fit(self, X: np.ndarray) -> None:
        from sklearn.neighbors import NearestNeighbors

        self.mean, self.scale = X.mean(0), X.std(0) + 1e-6
        self.index = NearestNeighbors(n_neighbors=1).fit((X - self.mean) / self.scale)

    def find(self, X: np.ndarray) -> Found:
        return Found(self.index.kneighbors((X - self.mean) / self.scale)[0][:, 0], None)


def default_methods() -> list[str]:
    """Return every registered detector of images, less the wrappers and the committee that its user fills."""
    from genad.core.registry import Family, registered
    from genad.data.kinds import Kind

    return [
        name
        for name, cls in registered().items()
        if Kind.IMAGE in cls.card.kinds and cls.card.family is not Family.WRAPPER and name != "committee"
    ]


def size_of(name: str) -> int:
    from genad.core.registry import detector_class

    frozen = name in FROZEN or FROZEN_TAG in detector_class(name).card.tags
    return FROZEN_PX if frozen else PIXEL_PX


def contestants(name: str, args: argparse.Namespace) -> list[tuple[str, int | None, Callable[[int], Detector]]]:
    """Return (name, px, maker) of all that run on a set, the references first."""
    if name == FEATURES:
        found = [] if args.no_references else [("1-NN", None, NearestRow)]
        methods = [m for m in (args.methods or TABLE_METHODS) if _takes_tables(m)]
        return [*found, *((f"genad {m}", None, lambda seed, m=m: Detector(m, seed)) for m in methods)]
    # An image of MNIST is too small for the frozen network.
    kept = list(REFERENCES)[:2] if name == "mnist" else [r for r in REFERENCES if r != "pixel 3-NN"]
    references = [] if args.no_references else kept
    methods = args.methods or default_methods()
    return [
        *((r, 28 if name == "mnist" else FROZEN_PX, REFERENCES[r]) for r in references),
        *((f"genad {m}", 28 if name == "mnist" else size_of(m), lambda seed, m=m: Detector(m, seed)) for m in methods),
    ]


def _takes_tables(name: str) -> bool:
    from genad.core.registry import detector_class
    from genad.data.kinds import Kind

    return Kind.TABLE in detector_class(name).card.kinds


def run(name: str, label: str, px: int | None, make: Callable[[int], Detector], args: argparse.Namespace) -> Figures:
    """Run one method on one set, seed by seed."""
    figures = Figures()
    for seed in range(args.seeds):
        tasks = feature_tables(seed) if name == FEATURES else splits(name, px or 0, seed, args.digits)
        runs, seconds = timed(lambda tasks=tasks, seed=seed: [measure(make(seed), split) for split in tasks])
        figures.take(runs)
        if seconds > args.patience and seed + 1 < args.seeds:
            print(f"{label} on {name}: {seconds:.0f} s a seed; the other seeds are left out", flush=True)
            break
    return figures


def main(options: list[str]) -> None:
    from genad.core.registry import detector_class
    from genad.errors import InputError

    parser = argparse.ArgumentParser(prog="python -m benchmarks images --")
    parser.add_argument("--methods", nargs="*", help="registered names; all that take images when absent")
    parser.add_argument("--sets", nargs="*", default=[*SETS, FEATURES], choices=[*SETS, FEATURES])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--digits", nargs="*", type=int, default=list(range(10)), choices=range(10), metavar="0..9")
    parser.add_argument("--patience", type=float, default=600.0, help="seconds of a seed that allow a next one")
    parser.add_argument("--no-references", action="store_true")
    parser.add_argument("--result", default="images")
    args = parser.parse_args(options)
    quiet()
    for name in args.methods or ():
        try:
            detector_class(name)
        except InputError as error:
            parser.error(str(error))
    Detector("ppca", 0).fit(np.random.default_rng(0).random((32, 1, 8, 8)))  # the first fit pays for start-up
    rows = Rows(
        args.result,
        f"python -m benchmarks images{'' if args.seeds == 3 else f' -- --seeds {args.seeds}'}",
        "Defects in images",
        "magnetic_tile, elpv, brain_mri, MNIST one against the rest, and MVTec as ResNet18 features; one thread",
        NOTES,
        ("method", "set"),
    )
    for name in args.sets:
        part = name == "mnist" and sorted(set(args.digits)) != list(range(10))
        shown = f"{name} {''.join(map(str, args.digits))}" if part else name
        for label, px, make in contestants(name, args):
            try:
                rows.add(run(name, label, px, make, args).row(label, shown, px))
            except Exception as error:  # noqa: BLE001 - one method's failure is reported, and the others go on
                print(f"{label} on {shown} failed: {type(error).__name__}: {error}", flush=True)
