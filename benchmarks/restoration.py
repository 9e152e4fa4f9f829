"""How close does each restoring method come to the image before the defect? Synthetic defects of known mask."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.common import quiet, timed
from benchmarks.image_sets import IMAGES, listed, pictures
from benchmarks.rows import Rows

METHODS = (
    "riad", "repaint", "ano_ddpm", "diffusion_ad", "draem", "f_ano_gan", "ano_gan", "ganomaly", "memae", "vae",
    "autoencoder", "ppca",
)  # fmt: skip
DEFECTS = ("perlin_texture", "poisson_blend", "cut_paste")


class TrainingMean:
    """The mean of the training images: what knows nothing of the image at hand."""

    def __init__(self, train: np.ndarray) -> None:
        self.mean = train.mean(0)

    def restore(self, X: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        return np.where(False if mask is None else ~mask[:, None], X, self.mean)


class SmoothFill:
    """The smoothest surface between the mask's borders, by relaxation; without a mask the image as it is."""

    def __init__(self, train: np.ndarray) -> None:
        self.start = float(train.mean())

    def restore(self, X: np.ndarray, mask: np.ndarray | None = None, rounds: int = 1000) -> np.ndarray:
        if mask is None:
            return X
        hidden = mask[:, None]
        filled = np.where(hidden, self.start, X)
        for _ in range(rounds):
            wide = np.pad(filled, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
            near = wide[..., :-2, 1:-1] + wide[..., 2:, 1:-1] + wide[..., 1:-1, :-2] + wide[..., 1:-1, 2:]
            filled = np.where(hidden, near / 4, X)
        return filled


REFERENCES = {"training mean": TrainingMean, "smooth fill": SmoothFill}


def contestants(methods: list[str], train: np.ndarray, px: int) -> Iterator[tuple[str, Any, float]]:
    """Yield (name, fitted method, seconds of the fit); one that fails is named, and the others go on."""
    import genad

    for name, make in REFERENCES.items():
        yield name, make(train), 0.0
    for name in methods:
        try:
            detector, seconds = timed(lambda name=name: genad.create(name, random_state=0).fit(train))
        except Exception as error:  # noqa: BLE001 - reported, and the others go on
            print(f"genad {name} at {px} px failed: {type(error).__name__}: {error}", flush=True)
            continue
        yield f"genad {name}", detector, seconds


def judged(restored: np.ndarray, defective: np.ndarray, true: np.ndarray, mask: np.ndarray) -> dict[str, object]:
    """Compare a restoration with the image before the defect; all arrays (n, 1, px, px), values in [0, 1]."""
    off, given = restored - true, defective - true
    inside = np.sqrt((off[mask] ** 2).mean() / (given[mask] ** 2).mean())
    outside = np.abs(off[~mask]).mean()
    return {
        "error inside": f"{inside:.1%}",
        "error outside": f"{outside:.2%}",
        "met": "yes" if inside <= 0.5 and outside <= 0.05 else "no",
    }


def main(options: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks restoration --")
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--defects", nargs="*", default=list(DEFECTS))
    parser.add_argument("--px", type=int, default=64)
    parser.add_argument("--images", type=int, default=238, help="good test images that get a defect")
    parser.add_argument("--result", default="restoration")
    args = parser.parse_args(options)
    quiet()
    from genad.synthesis import create_synthesizer

    tiles = IMAGES / "magnetic_tile"
    train = pictures(listed(tiles / "train" / "good"), args.px)
    true = pictures(listed(tiles / "test" / "good")[: args.images], args.px)
    planted = {}
    for name in args.defects:
        made = create_synthesizer(name).fit(train).synthesize(true, len(true), random_state=0)
        planted[name] = (made.samples, made.masks, true[made.sources])
    rows = Rows(
        args.result,
        f"python -m benchmarks restoration -- --px {args.px} --images {args.images}",
        "Restoration of images with a synthetic defect",
        f"magnetic_tile, {len(true)} good test images at {args.px} px, one defect each; one thread",
        [
            "Error inside: root mean square error in the defect, as a share of what the defect itself is off.",
            "Error outside: mean absolute error elsewhere, as a share of the range of pixel values.",
            "Met: at most 50 % inside and 5 % outside. With the mask, only what it covers is restored.",
        ],
        ("method", "defect", "mask given"),
    )
    for label, method, fit in contestants(args.methods, train, args.px):
        for name, (defective, masks, before) in planted.items():
            for given in (True, False):
                chosen = masks if given else None
                try:
                    restored, seconds = timed(
                        lambda method=method, X=defective, mask=chosen: method.restore(X, mask=mask)
                    )
                except Exception as error:  # noqa: BLE001 - reported, and the others go on
                    print(f"{label} on {name} failed: {type(error).__name__}: {error}", flush=True)
                    continue
                rows.add(
                    {"method": label, "defect": name, "mask given": "yes" if given else "no"}
                    | judged(restored, defective, before, masks[:, None])
                    | {"fit s": round(fit, 2), "ms an image": round(1e3 * seconds / len(defective), 3)}
                )
