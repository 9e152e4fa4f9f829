"""Are latent search and scoring on frozen features fast? Against a loop over rows, and against the bare network."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch

from benchmarks.common import quiet, timed
from benchmarks.image_sets import IMAGES, listed, pictures
from benchmarks.images import cpu_timed
from benchmarks.rows import Rows

SEARCHING = ("ano_gan",)
FROZEN = ("patch_memory", "image_committee")


def _images(n: int, px: int) -> tuple[np.ndarray, np.ndarray]:
    """Return training images and n images to score; test images come again when there are fewer."""
    tiles = IMAGES / "magnetic_tile"
    test = pictures(listed(tiles / "test", "*/*"), px)
    return pictures(listed(tiles / "train" / "good"), px), test[np.arange(n) % len(test)]


def row_by_row(detector: Any, X: np.ndarray) -> np.ndarray:
    """Score images one at a time, each as a batch of its own: the same steps of the same network, without a batch."""
    from genad.data.samples import iterate

    mode = torch.enable_grad if detector.grad_at_score else torch.inference_mode
    scores = []
    for _, batch in iterate(detector.adapter_.transform(X).samples, 1):
        with mode():
            scores.append(float(detector.score_batch(detector.net_, batch)))
    return np.array(scores)


def search(name: str, n: int, loop: int, px: int, runs: int = 3) -> dict[str, object]:
    """Compare the batched latent search of n images with a loop over the first few of them, per image."""
    import genad

    train, test = _images(n, px)
    detector = genad.create(name, random_state=0, training=genad.Training(updates=50)).fit(train)
    detector.anomaly_score(test[:16])
    row_by_row(detector, test[:1])
    ours, theirs = [], []
    # Taking turns, as below.
    for _ in range(runs):
        scores, batched = cpu_timed(lambda: detector.anomaly_score(test))
        single, looped = cpu_timed(lambda: row_by_row(detector, test[:loop]))
        ours.append(batched)
        theirs.append(looped)
    a, b = 1e3 * min(ours) / n, 1e3 * min(theirs) / loop
    return {
        "what": f"{name}: latent search of {n:,} images of {px} px against a loop over rows",
        "genad ms an image": round(a, 3),
        "other ms an image": round(b, 3),
        "ratio": f"{b / a:.1f}x",
        "limit": "at least 50x",
        "largest difference of scores": f"{np.max(np.abs(single / scores[:loop] - 1)):.1e}",
    }


def frozen(name: str, n: int, px: int, runs: int = 3) -> dict[str, object]:
    """Compare scoring on frozen features with the bare forward of the same network to the deepest stage used."""
    import genad
    from genad.foundation.efficientnet import efficientnet_lite0

    net = efficientnet_lite0("cpu")
    used: set[int] = set()
    # The stages are read off a call that scores, so that the comparison holds whatever a method asks for.
    handle = net.register_forward_pre_hook(lambda _, args, kwargs: used.update(_stages(args, kwargs)), with_kwargs=True)
    train, test = _images(n, px)
    try:
        detector = genad.create(name, random_state=0).fit(train)
        used.clear()
        detector.anomaly_score(test[:16])
    finally:
        handle.remove()
    if not used:
        raise LookupError("it does not score through the frozen network")
    x = torch.from_numpy(test)

    def bare() -> None:
        with torch.inference_mode():
            for part in x.split(32):
                net(part, stages=tuple(sorted(used)))

    # Taking turns, so that a busy moment of the machine does not fall on one side alone.
    ours, theirs = zip(
        *((timed(lambda: detector.anomaly_score(test))[1], timed(bare)[1]) for _ in range(runs)), strict=True
    )
    a, b = 1e3 * min(ours) / n, 1e3 * min(theirs) / n
    return {
        "what": f"{name}: score {n:,} images of {px} px against the bare network to stage {max(used)}",
        "genad ms an image": round(a, 3),
        "other ms an image": round(b, 3),
        "ratio": f"{a / b:.2f}",
        "limit": "at most 1.3",
    }


def _stages(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, ...]:
    return tuple(kwargs["stages"] if "stages" in kwargs else args[1])


def main(options: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks image_speed --")
    parser.add_argument("--search", nargs="*", default=list(SEARCHING))
    parser.add_argument("--frozen", nargs="*", default=list(FROZEN))
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--loop", type=int, default=20, help="images of the loop over rows")
    parser.add_argument("--result", default="image_speed")
    args = parser.parse_args(options)
    quiet()
    rows = Rows(
        args.result,
        f"python -m benchmarks image_speed -- --images {args.images}",
        "Speed on images",
        "magnetic_tile, one thread",
        [
            f"The loop runs {args.loop} images; both sides are times an image, the better of three runs each.",
            "The search is timed in seconds of one processor, which a busy machine hardly changes.",
        ],
        ("what",),
    )
    work = [
        *((name, lambda name=name: search(name, args.images, args.loop, 32)) for name in args.search),
        *((name, lambda name=name: frozen(name, args.images, 128)) for name in args.frozen),
    ]
    for name, measure in work:
        try:
            rows.add(measure())
        except Exception as error:  # noqa: BLE001 - reported, and the others go on
            print(f"{name} failed: {type(error).__name__}: {error}", flush=True)
